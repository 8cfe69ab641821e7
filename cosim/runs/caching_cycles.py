"""Cycles of the MMU that caches, at its pins: hits, walks, marks and page faults, measured on the compiled lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.bench.caching_lane import (
    DIRECTIVE,
    CachingKind,
    CachingLane,
    CachingRun,
    CachingWork,
    DirectiveKind,
    caching_lane_files,
    context_records,
    request_records,
)
from ptewalk.cosim.checks.caching import judge_run
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build_library
from ptewalk.cosim.simulate.find import select
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import (
    ENTRY_BYTES,
    LEVEL_SHIFT,
    LEVELS_4,
    LEVELS_5,
    TABLE_ENTRIES,
    Access,
    Control,
    EntryBit,
    Outcome,
)
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe

__all__ = ["HIT_LATENCY", "caching_cycles"]

HIT_LATENCY: Final = 3
"""Cycles from the acceptance of a request that hits to its answer."""
_HITS: Final = 64
_LINEAR: Final = 0x0000_5A5A_7654_3000
_CLEAN: Final = sum(1 << bit for bit in (EntryBit.P, EntryBit.RW, EntryBit.US, EntryBit.A))
_TABLES: Final = 0x100
_QUIET: Final = {"idle": 0.0, "stalls": 0.0, "drains": 0.0, "latency_spread": 0}


def _work(levels: int, leaf: int, asked: list[Request], track: Track) -> CachingWork:
    memory = SparseMemory()
    for level in range(levels, 0, -1):
        index = _LINEAR >> LEVEL_SHIFT[level] & TABLE_ENTRIES - 1
        value = (_TABLES + level - 1) << LEVEL_SHIFT[1] | (_CLEAN if level > 1 else leaf)
        memory.store((_TABLES + level << LEVEL_SHIFT[1]) + index * ENTRY_BYTES, value)
    control = 1 << Control.LA57 if levels == LEVELS_5 else 0
    contexts = [(State((_TABLES + levels) << LEVEL_SHIFT[1], control, track=track), 1, False)]
    first = np.zeros(1, DIRECTIVE)
    first["kind"] = DirectiveKind.CONTEXT
    return CachingWork(request_records(asked), asked, contexts, context_records(contexts), first, memory)


def _latencies(run: CachingRun) -> tuple[list[int], list[int]]:
    """Cycles from acceptance to answer of each request; the cycle of each answer."""
    events = run.events
    accepted: dict[int, int] = {}
    taken: list[int] = []
    cycles: list[int] = []
    for row in events:
        if row["kind"] == CachingKind.ACCEPT:
            accepted[int(row["tag"])] = int(row["cycle"])
        elif row["kind"] == CachingKind.ANSWER:
            cycles.append(int(row["cycle"]) - accepted[int(row["tag"])])
            taken.append(int(row["cycle"]))
    return cycles, taken


def caching_cycles(latencies: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of {name, latency, cycles, outcome, swaps, differs, target, total} of preset mmu-small.

    `differs` says what the golden TLB does not permit. Raises `ToolError` when there is no Verilator.
    """
    config = CachingMmuConfig()
    design = describe(config)
    lane = CachingLane(
        build_library(select("verilator"), verilog_of(config), design, caching_lane_files(design)).library
    )
    dirty = _CLEAN | 1 << EntryBit.D
    read, write = Request(_LINEAR, Access.READ), Request(_LINEAR, Access.WRITE)
    subjects: list[tuple[str, int, int, list[Request], tuple[int, int] | None]] = [
        ("mmu-small: walk4", LEVELS_4, dirty, [read], (4, 2 + HIT_LATENCY)),
        ("mmu-small: walk5", LEVELS_5, dirty, [read], (5, 2 + HIT_LATENCY)),
        ("mmu-small: hit", LEVELS_4, dirty, [read] * _HITS, (0, HIT_LATENCY)),
        ("mmu-small: first write after clear", LEVELS_4, dirty, [write], (5, 3 + HIT_LATENCY)),
    ]
    rows = []
    try:
        for name, levels, leaf, asked, target in subjects:
            for latency in latencies:
                work = _work(levels, leaf, asked, Track.NATIVE)
                before = work.memory.copy()
                conditions = CachingConditions(**_QUIET, latency=latency)  # type: ignore[arg-type]
                run = lane.run(work, 0, conditions)
                verdict = judge_run(list(run.read()), run.faults(), before, work.memory, run.counters.get)
                cycles, taken = _latencies(run)
                differs = verdict.problems[0] if verdict.problems else None
                if len(asked) == _HITS and taken[-_HITS // 2 :] != list(
                    range(taken[-1] - _HITS // 2 + 1, taken[-1] + 1)
                ):
                    differs = differs or "hits are not answered one a cycle"
                answer = run.events[run.events["kind"] == CachingKind.ANSWER][-1]
                rows.append(
                    {
                        "name": name,
                        "latency": latency,
                        "cycles": cycles[-1],
                        "outcome": Outcome(int(answer["outcome"])).name,
                        "swaps": int((run.events["kind"] == CachingKind.SWAP).sum()),
                        "differs": differs,
                        "target": None if target is None else target[0] * latency + target[1],
                        "total": cycles[-1],
                    }
                )
    finally:
        lane.close()
    return rows
