"""Cycles of the MMU that caches, at its pins: hits, walks, marks and page faults, measured on the compiled lane."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
from ptewalk.cosim.runs.gateware import library_of
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import (
    ENTRY_BYTES,
    LEVEL_SHIFT,
    LEVELS_4,
    LEVELS_5,
    PAGE_BYTES,
    TABLE_ENTRIES,
    Access,
    Control,
    EntryBit,
    Invalidation,
    Outcome,
)
from ptewalk.rtl.bus.on_axi import AxiMmuConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.presets import CACHING

__all__ = ["HIT_LATENCY", "STEADY_LATENCY", "axi_cycles", "caching_cycles", "walkers_cycles"]

HIT_LATENCY: Final = 3
"""Cycles from the acceptance of a request that hits to its answer, where the lookup is not split."""
_HITS: Final = 160
_LAST_HITS: Final = 32
"""Of them those that must be answered one a cycle: nobody waits any more by then."""
_LINEAR: Final = 0x0000_5A5A_7654_3000
_CLEAN: Final = sum(1 << bit for bit in (EntryBit.P, EntryBit.RW, EntryBit.US, EntryBit.A))
_TABLES: Final = 0x100
_DIRTY: Final = _CLEAN | 1 << EntryBit.D | 1 << SoftBit.SOFT_DIRTY
_QUIET: Final = {"idle": 0.0, "stalls": 0.0, "drains": 0.0, "latency_spread": 0}
_WARM: Final = 200
"""Walks before those that are counted, and after them."""
_APART: Final = 100
"""Cycles between invalidations, and as long as three walks take: nobody waits any more by then."""
STEADY: Final = 2000
"""Walks that are counted in the steady state."""
STEADY_LATENCY: Final = 40
_OUTSTANDING: Final = 32
"""Requests that are asked at a time then."""
_AT_LEAST: Final = {"from the root": 7.5, "below a PDE": 6.5}
"""How many times as fast as one walker eight are, by where the walks begin."""
_EIGHT: Final = "mmu-8walkers"
_ONE: Final = "mmu"
"""The preset that they are compared with: it has one walker, and else differs in nothing but how many may wait."""


_ON_AXI: Final = (
    ("walk4", (4, 10 + HIT_LATENCY)),
    ("walk5", (5, 12 + HIT_LATENCY)),
    ("pde_hit", (1, 5 + HIT_LATENCY)),
    ("mark", (2, 8 + HIT_LATENCY)),
    ("first write after clear", (5, 14 + HIT_LATENCY)),
)
"""What is measured with tables behind AXI4, at its pins: two cycles more for each read, and for a mark six in all."""


def _work(levels: int, leaf: int, asked: list[Request]) -> CachingWork:
    """`leaf` maps the page at `_LINEAR`; its neighbour is mapped and dirty."""
    memory = SparseMemory()
    for level in range(levels, 0, -1):
        index = _LINEAR >> LEVEL_SHIFT[level] & TABLE_ENTRIES - 1
        value = (_TABLES + level - 1) << LEVEL_SHIFT[1] | (_CLEAN if level > 1 else leaf)
        address = (_TABLES + level << LEVEL_SHIFT[1]) + index * ENTRY_BYTES
        memory.store(address, value if level > 1 or leaf else 0)
    memory.store(address + ENTRY_BYTES, (_TABLES + 1) << LEVEL_SHIFT[1] | _DIRTY)
    # The next 2 MiB too, by the same table of level 1.
    further = (_TABLES + 2 << LEVEL_SHIFT[1]) + (_FURTHER.linear >> LEVEL_SHIFT[2] & TABLE_ENTRIES - 1) * ENTRY_BYTES
    memory.store(further, _TABLES + 1 << LEVEL_SHIFT[1] | _CLEAN)
    control = 1 << Control.LA57 if levels == LEVELS_5 else 0
    contexts = [(State((_TABLES + levels) << LEVEL_SHIFT[1], control, track=Track.NATIVE), 1, False)]
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


_READ, _WRITE = Request(_LINEAR, Access.READ), Request(_LINEAR, Access.WRITE)
_BESIDE: Final = Request(_LINEAR + PAGE_BYTES, Access.READ)
_FURTHER: Final = Request(_BESIDE.linear + (1 << LEVEL_SHIFT[2]), Access.READ)
_Subject = tuple[str, int, int, list[Request], tuple[int, int]]
_SUBJECTS: Final[list[_Subject]] = [
    ("walk4", LEVELS_4, _DIRTY, [_READ], (4, 2 + HIT_LATENCY)),
    ("walk5", LEVELS_5, _DIRTY, [_READ], (5, 2 + HIT_LATENCY)),
    ("hit", LEVELS_4, _DIRTY, [_READ] * _HITS, (0, HIT_LATENCY)),
    ("first write after clear", LEVELS_4, _CLEAN, [_WRITE], (5, 2 + HIT_LATENCY)),
]
_WITH_UPPERS: Final[list[_Subject]] = [
    ("pde_hit", LEVELS_4, _DIRTY, [_BESIDE, _READ], (1, 3 + HIT_LATENCY)),
    ("mark", LEVELS_4, _CLEAN, [_READ, _WRITE], (2, 2 + HIT_LATENCY)),
    ("fault below a PDE", LEVELS_4, 0, [_BESIDE, _READ], (LEVELS_4 + 1, 4 + HIT_LATENCY)),
    ("fault below a PDE, five levels", LEVELS_5, 0, [_BESIDE, _READ], (LEVELS_5 + 1, 4 + HIT_LATENCY)),
    ("fault below a PDPTE", LEVELS_4, 0, [_FURTHER, _READ], (LEVELS_4 + 2, 4 + HIT_LATENCY)),
    ("fault from the root", LEVELS_4, 0, [_READ], (LEVELS_4, 2 + HIT_LATENCY)),
]
"""(name, levels, leaf, what is asked, (a, b) of the target a * L + b for the last of it, if no lookup is split)."""


def _spread_out(below: bool) -> CachingWork:
    """Reads of as many pages as are needed, each asked for once. Tables of a level are one, whatever leads there.

    Neighbours are in one page table (`below` a PDE), or share no upper entry but after many others.
    """
    memory = SparseMemory()
    for level in range(LEVELS_4, 0, -1):
        for index in range(TABLE_ENTRIES):
            value = (_TABLES + level - 1 << LEVEL_SHIFT[1]) | (_CLEAN if level > 1 else _DIRTY)
            memory.store((_TABLES + level << LEVEL_SHIFT[1]) + index * ENTRY_BYTES, value)
    half = TABLE_ENTRIES // 2  # the lower half of the addresses
    asked = []
    for number in range(STEADY + 2 * _WARM):
        linear = number * PAGE_BYTES
        if not below:
            linear = (number % half) << LEVEL_SHIFT[LEVELS_4] | (number // half) * PAGE_BYTES
        asked.append(Request(linear, Access.READ))
    contexts = [(State(_TABLES + LEVELS_4 << LEVEL_SHIFT[1]), 1, False)]
    first = np.zeros(1, DIRECTIVE)
    first["kind"] = DirectiveKind.CONTEXT
    return CachingWork(request_records(asked), asked, contexts, context_records(contexts), first, memory)


def _steady(lane: CachingLane, begin: str, latency: int) -> tuple[int, str | None]:
    """Cycles in which `STEADY` walks are answered, one after the other or side by side; what is not permitted."""
    below = begin == "below a PDE"
    work = _spread_out(below)
    memory = work.memory.copy()
    conditions = CachingConditions(**_QUIET, latency=latency, tags=_OUTSTANDING)  # type: ignore[arg-type]
    run = lane.run(work, 0, conditions)
    verdict = judge_run(list(run.read()), run.faults(), memory, work.memory, run.counters.get)
    _, taken = _latencies(run)
    reads = int((run.events["kind"] == CachingKind.READ).sum())
    differs = verdict.problems[0] if verdict.problems else None
    if (below and reads > 1.1 * len(taken)) or (not below and reads < LEVELS_4 * len(taken)):
        differs = differs or f"{reads} reads of {len(taken)} walks"
    return taken[_WARM + STEADY] - taken[_WARM], differs


def walkers_cycles(simulator: str = "verilator") -> list[dict[str, Any]]:
    """Rows of eight walks by the preset with eight walkers, as `caching_cycles` has them: the mean of `STEADY` walks.

    Each walk is of another page, and answers are taken at once. The target is what the preset with one walker needs for
    eight, divided by how many times as fast eight walkers must be. Latency `STEADY_LATENCY` alone is measured.
    """
    eight, one = _lane(CACHING[_EIGHT], simulator), _lane(CACHING[_ONE], simulator)
    share = STEADY // CACHING[_EIGHT].walkers
    rows = []
    try:
        for begin, least in _AT_LEAST.items():
            cycles, differs = _steady(eight, begin, STEADY_LATENCY)
            alone, also = _steady(one, begin, STEADY_LATENCY)
            rows.append(
                {
                    "name": f"{_EIGHT}: 8 walks {begin}",
                    "latency": STEADY_LATENCY,
                    "cycles": -(-cycles // share),
                    "outcome": Outcome.OK.name,
                    "swaps": 0,
                    "differs": differs or also,
                    "target": int(alone / share / least),
                    "total": -(-cycles // share),
                }
            )
    finally:
        eight.close()
        one.close()
    return rows


def caching_cycles(latencies: Sequence[int], simulator: str = "verilator") -> list[dict[str, Any]]:
    """Rows of {name, latency, cycles, outcome, swaps, differs, target, total} of the presets that cache.

    `differs` says what the golden TLB does not permit. Raises `ToolError` as `library_of`.
    """
    return [row for name in CACHING for row in _cycles_of(name, latencies, simulator)]


def axi_cycles(latencies: Sequence[int], simulator: str = "verilator") -> list[dict[str, Any]]:
    """The same of preset `mmu` with its tables behind AXI4, 64 bits wide; memory's latency is the bus's."""
    lane = _lane(AxiMmuConfig(CACHING[_ONE]), simulator)
    subjects = {subject[0]: subject for subject in (*_SUBJECTS, *_WITH_UPPERS)}
    try:
        return [
            _timed(lane, "mmu on AXI: ", (*subjects[name][:4], target), latency)
            for name, target in _ON_AXI
            for latency in latencies
        ]
    finally:
        lane.close()


def _lane(config: CachingMmuConfig | AxiMmuConfig, simulator: str) -> CachingLane:
    """Of a configuration, to be closed."""
    return CachingLane(library_of(config, caching_lane_files, simulator).library)


def _cycles_of(name: str, latencies: Sequence[int], simulator: str) -> list[dict[str, Any]]:
    """One preset's rows."""
    config, lane = CACHING[name], _lane(CACHING[name], simulator)
    later = config.hit_latency - HIT_LATENCY
    subjects = [*_SUBJECTS, *(_WITH_UPPERS if config.upper_entries else [])]
    subjects = [(what, levels, leaf, asked, (a, b + later)) for what, levels, leaf, asked, (a, b) in subjects]
    try:
        rows = [_timed(lane, f"{name}: ", subject, latency) for subject in subjects for latency in latencies]
        return rows + [row for latency in latencies for row in _invalidations(lane, name, latency)]
    finally:
        lane.close()


def _invalidations(lane: CachingLane, preset: str, latency: int) -> list[dict[str, Any]]:
    """Rows of invalidations beside a hit in each cycle, of each kind: the longest of all.

    The cycles that it takes when none is in work, that in which it is taken counted; those for which one waits that is
    offered right behind another; and those after it without a request that is taken. Each is one more where lookups are
    split.
    """
    config = CACHING[preset]
    later = config.hit_latency - HIT_LATENCY
    apart = 3 * LEVELS_4 * latency + _APART
    pairs = [(kind, delay) for kind in Invalidation for delay in (apart, 0)]  # each alone, and one right behind it
    work = _work(LEVELS_4, _DIRTY, [_READ] * (len(Invalidation) + 1) * apart)
    directives = np.zeros(1 + len(pairs), DIRECTIVE)
    directives[:1] = work.directives
    for row, (kind, delay) in zip(directives[1:], pairs, strict=True):
        row["kind"], row["invalidation"], row["delay"] = DirectiveKind.INVALIDATION, kind, delay
        row["address"], row["pcid"] = _LINEAR, work.contexts[0][1]
    directives[1]["delay"] += 1 << config.walker.tag_bits  # until grants are cleared nothing is asked
    memory = work.memory.copy()
    conditions = CachingConditions(**_QUIET, latency=latency)  # type: ignore[arg-type]
    run = lane.run(replace(work, directives=directives), 0, conditions)
    verdict = judge_run(list(run.read()), run.faults(), memory, work.memory, run.counters.get)
    events = run.events
    taken = events["cycle"][events["kind"] == CachingKind.INVALIDATE].astype(np.int64).tolist()
    accepted = events["cycle"][events["kind"] == CachingKind.ACCEPT].astype(np.int64)
    differs = verdict.problems[0] if verdict.problems else None
    if len(taken) != len(pairs):
        differs = differs or f"{len(taken)} of {len(pairs)} invalidations are taken"
    alone: list[int] = []
    behind: list[int] = []
    offered, last = 0, -1
    for when, delay in zip(taken, directives["delay"][1:].tolist(), strict=False):
        offered = max(offered + delay, last + 1)
        (alone if delay else behind).append(when - offered)
        last = when
    held = [int(accepted[accepted > when][0]) - when - 1 for when in taken]
    told = (
        ("invalidation, none in work", max(alone) + 1, 1),
        ("invalidation right behind another", max(behind), 4 + later),
        ("requests held by an invalidation", max(held), 6 + later),
    )
    return [
        {
            "name": f"{preset}: {what}",
            "latency": latency,
            "cycles": cycles,
            "outcome": Outcome.OK.name,
            "swaps": 0,
            "differs": differs,
            "target": target,
            "total": cycles,
        }
        for what, cycles, target in told
    ]


def _timed(lane: CachingLane, before: str, subject: _Subject, latency: int) -> dict[str, Any]:
    """One row: the last of what is asked counts. Hits are asked one a cycle, all else one after the other."""
    name, levels, leaf, asked, target = subject
    work = _work(levels, leaf, asked)
    memory = work.memory.copy()
    conditions = CachingConditions(**_QUIET, latency=latency)  # type: ignore[arg-type]
    run = lane.run(work, 0, conditions, serial=len(asked) != _HITS)
    verdict = judge_run(list(run.read()), run.faults(), memory, work.memory, run.counters.get)
    cycles, taken = _latencies(run)
    differs = verdict.problems[0] if verdict.problems else None
    last = taken[-_LAST_HITS:]
    if len(asked) == _HITS and last != list(range(last[-1] - _LAST_HITS + 1, last[-1] + 1)):
        differs = differs or "hits are not answered one a cycle"
    answer = run.events[run.events["kind"] == CachingKind.ANSWER][-1]
    return {
        "name": before + name,
        "latency": latency,
        "cycles": cycles[-1],
        "outcome": Outcome(int(answer["outcome"])).name,
        "swaps": int((run.events["kind"] == CachingKind.SWAP).sum()),
        "differs": differs,
        "target": target[0] * latency + target[1],
        "total": cycles[-1],
    }
