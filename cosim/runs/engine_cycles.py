"""Cycles of the table engine at its line port, 64 bits wide: what a table of entries takes, and a move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.engine_lane import REPORT_BASE, EngineConditions, EngineLane
from ptewalk.cosim.driver.engine_masks import clearing, looking, moving, telling
from ptewalk.cosim.runs.engine import built_engine
from ptewalk.model.memory import SparseMemory
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import TABLE_ENTRIES, Outcome
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.report import Report

__all__ = ["dense_cycles", "engine_cycles"]

_RULES: Final = Entries(PROFILES["linux-6.12"])
_TABLES: Final = 8
"""Tables of level 1 that a row tells of: what they take beyond one."""
_ROOT, _UPPERS, _LEAVES = 0x1, (0x2, 0x3), 0x10
"""Frames of tables."""
_UPPER, _DIRTY, _FAR = 0x67, 0x867, 64
"""An upper entry, a leaf, and how many tables a target lies away."""
_RATE, _MOVES_RATE = 0.95, 0.47
"""Entries a cycle, at least, of dense tables; and of moves."""
_NEAR: Final = 16
"""The latency up to which four pairs of lines in flight are enough for that."""


def engine_cycles(latencies: Sequence[int], simulator: str = "verilator") -> list[dict[str, Any]]:
    """Rows of {name, latency, cycles, outcome, swaps, differs, target, total}.

    `latency` is that of the line port, from a read that is taken to its first beat. A row of entries tells what eight
    tables take beyond one; of a sparse table each 64th is mapped, of an empty one none is. Moves
    by lines have a target up to a latency of `_NEAR`, those one by one have none.
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


def dense_cycles(tables: int, latency: int, simulator: str = "verilator") -> dict[str, int]:
    """Cycles of a clear (4) and of pagemap's raw words of dense tables of level 1, from a command to its completion.

    `tables` is 1 to 512. Raises `ToolError` as `library_of`, and when a command is not done.
    """
    lane = EngineLane(built_engine(simulator=simulator).library)
    taken = {}
    try:
        for name, command, filled in _OPERATIONS:
            report, changes = command
            if filled == "dense" and report in (Report.NONE, Report.WORDS):
                asked = _command(tables * TABLE_ENTRIES, report, changes=changes)
                taken[name], wrong = _run(lane, asked, _memory(tables, filled), latency, tables)
                if wrong:
                    raise ToolError(f"the engine's {name} ended with {wrong}")
    finally:
        lane.close()
    return taken


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


def _memory(tables: int, filled: str, *, far: int = 0) -> SparseMemory:
    """Tables of level 1 from the first page on; `far` empty ones where moves go."""
    words = {_ROOT << 12: _UPPERS[0] << 12 | _UPPER, _UPPERS[0] << 12: _UPPERS[1] << 12 | _UPPER}
    step = _STEPS[filled]
    for number in range(tables):
        words[(_UPPERS[1] << 12) + 8 * number] = _LEAVES + number << 12 | _UPPER
        for place in range(0, TABLE_ENTRIES, step) if step else ():
            words[(_LEAVES + number << 12) + 8 * place] = (0x1000 + place) << 12 | _DIRTY
    for number in range(_FAR, _FAR + far):
        words[(_UPPERS[1] << 12) + 8 * number] = _LEAVES + number << 12 | _UPPER
    frames = [*range(_ROOT, 4), *range(_LEAVES, _LEAVES + max(tables, 2 * _FAR))]
    return SparseMemory.of(words, frames)


def _run(
    lane: EngineLane, commands: Mapping[str, Any], memory: SparseMemory, latency: int, tables: int = _TABLES + 1
) -> tuple[int, str | None]:
    """Cycles of a command, and what was wrong; a report has room for `tables`."""
    report = TABLE_ENTRIES * tables
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
    """Entries by lines and one by one, and whole tables: the first, and each further one."""
    dense = _TABLES * TABLE_ENTRIES
    target = int(dense / _MOVES_RATE) if latency <= _NEAR else None
    rows = []
    for filled in _STEPS:
        first, last = (_move(lane, 1, tables * TABLE_ENTRIES, filled, latency) for tables in (1, _TABLES + 1))
        name = f"{dense} entries moved, by lines, {filled}"
        rows.append(_row(name, latency, last[0] - first[0], target, first[1] or last[1]))
    first, last = (_move(lane, 1, entries, "dense", latency, shift=1) for entries in (1, 257))
    rows.append(_row("256 entries moved, one by one", latency, last[0] - first[0], None, first[1] or last[1]))
    first, last = (_move(lane, 2, tables, "dense", latency) for tables in (1, _TABLES + 1))
    wrong, further = first[1] or last[1], math.ceil((last[0] - first[0]) / _TABLES)
    rows.append(_row("a table moved, the first", latency, first[0], 20 + 6 * latency, wrong))
    rows.append(_row("a table moved, each further", latency, further, 6 + 2 * latency, wrong))
    return rows


def _move(
    lane: EngineLane, level: int, entries: int, filled: str, latency: int, *, shift: int = 0
) -> tuple[int, str | None]:
    """As `_run`, of a move; `shift`: entries by which source and target stand at other places of their tables."""
    tables = max(1, entries // TABLE_ENTRIES) if level == 1 else entries
    memory = _memory(tables, filled, far=tables if level == 1 else 0)
    move = {"target": _FAR * TABLE_ENTRIES + shift, "level": level, "entries": entries}
    asked = _command(0, Report.NONE, changes=True)
    asked |= {"moves": 1, "move": move, "change": moving(_RULES, marks=level == 1, unprotects=False)}
    return _run(lane, asked, memory, latency)


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
