"""Cycles of the table engine at its line port, 64 bits wide: what a table of entries takes, and a move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ptewalk.cosim.bench.engine_lane import REPORT_BASE, EngineConditions, EngineLane
from ptewalk.cosim.bench.engine_masks import clearing, looking, moving, telling
from ptewalk.cosim.runs.engine import built_engine
from ptewalk.model.memory import SparseMemory
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import TABLE_ENTRIES, Outcome
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.report import Report

__all__ = ["engine_cycles"]

_RULES: Final = Entries(PROFILES["linux-6.12"])
_TABLES: Final = 8
"""Tables of level 1 that a row tells of: what they take beyond one."""
_ROOT, _UPPERS, _LEAVES = 0x1, (0x2, 0x3), 0x10
"""Frames of tables."""
_UPPER, _DIRTY, _FAR = 0x67, 0x867, 64
"""An upper entry, a leaf, and how many tables a target lies away."""
_RATE: Final = 0.95
"""Entries a cycle, at least, of dense tables."""


def engine_cycles(latencies: Sequence[int], simulator: str = "verilator") -> list[dict[str, Any]]:
    """Rows of {name, latency, cycles, outcome, swaps, differs, target, total}.

    `latency` is that of the line port, from a read that is taken to its first beat. A row of entries tells what eight
    tables take beyond one; of a sparse table each 64th is mapped, of an empty one none is.
    Raises `ToolError` as `library_of`.
    """
    lane = EngineLane(built_engine(simulator=simulator).library)
    try:
        rows = []
        for latency in latencies:
            dense = _TABLES * TABLE_ENTRIES
            for name, command, filled in _OPERATIONS:
                target = int(dense / _RATE)
                rows.append(_beyond_one(lane, f"{dense} entries, {name}, {filled}", command, filled, latency, target))
            rows += _moves(lane, latency)
        return rows
    finally:
        lane.close()


def _command(pages: int, report: Report, *, changes: bool) -> dict[str, Any]:
    where = {"root": _ROOT, "page": 0, "pages": pages, "changes": int(changes)}
    change = clearing(_RULES) if changes else looking()
    return {"range": where, "change": change, "words": telling(_RULES), "report": report, "address": REPORT_BASE}


_STEPS: Final = {"dense": 1, "sparse": 64, "empty": 0}
"""How far apart the entries of a table stand; 0: there are none."""
_OPERATIONS: Final = tuple(
    (name, (report, changes), filled)
    for filled in _STEPS
    for name, report, changes in (
        ("clear", Report.NONE, True),
        ("raw words", Report.WORDS, False),
        ("scan to a bitmap", Report.BITMAP, True),
    )
)


def _memory(tables: int, filled: str, *, far: bool = False) -> SparseMemory:
    """Tables of level 1 from the first page on; with `far` an empty one where moves go."""
    words = {_ROOT << 12: _UPPERS[0] << 12 | _UPPER, _UPPERS[0] << 12: _UPPERS[1] << 12 | _UPPER}
    step = _STEPS[filled]
    for number in range(tables):
        words[(_UPPERS[1] << 12) + 8 * number] = _LEAVES + number << 12 | _UPPER
        for place in range(0, TABLE_ENTRIES, step) if step else ():
            words[(_LEAVES + number << 12) + 8 * place] = (0x1000 + place) << 12 | _DIRTY
    if far:
        words[(_UPPERS[1] << 12) + 8 * _FAR] = _LEAVES + _FAR << 12 | _UPPER
    frames = [*range(_ROOT, 4), *range(_LEAVES, _LEAVES + 2 * _FAR)]
    return SparseMemory.of(words, frames)


def _run(lane: EngineLane, commands: Mapping[str, Any], memory: SparseMemory, latency: int) -> tuple[int, str | None]:
    """Cycles of a command, and what was wrong."""
    report = TABLE_ENTRIES * (_TABLES + 1)
    run = lane.run([commands], memory, report_words=report, conditions=EngineConditions(latency))
    told = run.completions[0]
    ends = Stop(told["stopped"])
    return run.counts["cycles"], None if ends == Stop.DONE else ends.name


def _beyond_one(
    lane: EngineLane, name: str, command: tuple[Report, bool], filled: str, latency: int, target: int
) -> dict[str, Any]:
    report, changes = command
    taken, wrong = [], None
    for tables in (1, _TABLES + 1):
        asked = _command(tables * TABLE_ENTRIES, report, changes=changes)
        cycles, problem = _run(lane, asked, _memory(tables, filled), latency)
        taken.append(cycles)
        wrong = wrong or problem
    return _row(name, latency, taken[1] - taken[0], target, wrong)


def _moves(lane: EngineLane, latency: int) -> list[dict[str, Any]]:
    """Entries one by one, and whole tables: the first, and each further one."""
    rows = []
    taken: dict[tuple[int, int], int] = {}
    wrong = None
    for level, entries, tables in ((1, 1, 1), (1, 257, 1), (2, 1, 1), (2, _TABLES + 1, _TABLES + 1)):
        memory = _memory(tables, "dense", far=level == 1)
        asked = _command(0, Report.NONE, changes=True)
        move = {"target": _FAR * TABLE_ENTRIES, "level": level, "entries": entries}
        asked |= {"moves": 1, "move": move, "change": moving(_RULES, marks=level == 1, unprotects=False)}
        taken[level, entries], problem = _run(lane, asked, memory, latency)
        wrong = wrong or problem
    rows.append(_row("256 entries moved", latency, taken[1, 257] - taken[1, 1], None, wrong))
    first, further = taken[2, 1], (taken[2, _TABLES + 1] - taken[2, 1]) / _TABLES
    rows.append(_row("a table moved, the first", latency, first, 20 + 6 * latency, wrong))
    rows.append(_row("a table moved, each further", latency, math.ceil(further), 6 + 2 * latency, wrong))
    return rows


def _row(name: str, latency: int, cycles: int, target: int | None, wrong: str | None) -> dict[str, Any]:
    return {
        "name": f"engine: {name}",
        "latency": latency,
        "cycles": cycles,
        "outcome": Outcome.OK.name,
        "swaps": 0,
        "differs": wrong,
        "target": target,
        "total": cycles,
    }
