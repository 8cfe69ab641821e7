"""A run of an MMU that caches, judged: the log by the golden TLB, the fault queue, the memory, the counters."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from ptewalk.cosim.bench.caching_lane import DIRECTIVE, CachingWork, DirectiveKind, context_records, request_records
from ptewalk.cosim.bench.events import Accept, Answer, LogEvent, Swap, WalkEnd
from ptewalk.cosim.checks.golden_tlb import GoldenTlb
from ptewalk.cosim.stimulus.caches import CacheStory
from ptewalk.model.linux import SoftBit
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import PageFault, Request
from ptewalk.model.x86 import Access, EntryBit, Wait

__all__ = ["COUNTERS", "CachingVerdict", "compare_counted", "judge_run", "random_work"]

COUNTERS: Final = ("delivered_faults", "lost_faults", "marks", "mends", "hits", "overtaken", "replays", "wraps")
"""The gateware's counters."""
_SD: Final = 1 << SoftBit.SOFT_DIRTY
_RW: Final = 1 << EntryBit.RW
_WAITS: Final = (*(Wait.NONE,) * 3, Wait.STORES, Wait.ALL)


@dataclass
class CachingVerdict:
    """What was wrong in a run, and what was seen in it.

    Attributes
    ----------
    problems : list of str
    counts : Counter of str
        Of `GoldenTlb`, with the gateware's own under "gateware NAME".
    """

    problems: list[str]
    counts: Counter[str] = field(default_factory=Counter)


def judge_run(
    log: Sequence[LogEvent],
    faults: Sequence[tuple[int, int, int]],
    before: SparseMemory,
    after: SparseMemory,
    counter: Callable[[str], int | None],
) -> CachingVerdict:
    """Judge a run that is done.

    Parameters
    ----------
    log : sequence of LogEvent
    faults : sequence of (linear, code, tag)
        What the fault queue told.
    before, after : SparseMemory
        The memory before the run (changed) and after it.
    counter : callable
        Gives the gateware's counter of a name, from a reset on; None when it has none.
    """
    golden = GoldenTlb(physical_bits=before.physical_bits, shadow=before)
    golden.feed(log)
    golden.finish()
    problems = list(golden.problems)
    if before != after:
        problems.append(f"memory: a write was lost: {before!r}, {after!r}")
    seen = compare_counted(log, faults, counter)
    return CachingVerdict(problems + seen.problems, golden.counts + seen.counts)


def compare_counted(
    log: Sequence[LogEvent], faults: Sequence[tuple[int, int, int]], counter: Callable[[str], int | None]
) -> CachingVerdict:
    """The gateware's counters and its fault queue beside a log that is whole; as `judge_run`."""
    due = _faults(log)
    written = [event for event in log if isinstance(event, Swap) and event.done and not event.error]
    answers = sum(isinstance(event, Answer) for event in log)
    expected = {
        "delivered_faults": len(due),
        "marks": sum(not event.old & _SD and bool(event.new & _SD) for event in written),
        "mends": sum(not event.old & _RW and bool(event.new & _RW) for event in written),
        "hits": answers - sum(isinstance(event, WalkEnd) for event in log),
    }
    problems = []
    counts: Counter[str] = Counter()
    for name in COUNTERS:
        seen = counter(name)
        if seen is not None:
            counts[f"gateware {name}"] = seen
            if name in expected and seen != expected[name]:
                problems.append(f"counter {name}: {seen}, expected {expected[name]}")
    lost = counts["gateware lost_faults"]
    rest = iter(due)
    if len(faults) + lost != len(due) or not all(fault in rest for fault in faults):
        problems.append(f"fault queue: {len(faults)} told and {lost} lost, expected {len(due)}")
    return CachingVerdict(problems, counts)


def _faults(log: Sequence[LogEvent]) -> list[tuple[int, int, int]]:
    """What the fault queue must tell: page faults answered, but for probes'."""
    flying: dict[int, Request] = {}
    faults = []
    for event in log:
        if isinstance(event, Accept):
            flying[event.tag] = event.request
        elif isinstance(event, Answer) and isinstance(event.result, PageFault) and event.tag in flying:
            request = flying[event.tag]
            if request.access != Access.PROBE:
                faults.append((request.linear, event.result.code, event.tag))
    return faults


def random_work(story: CacheStory, count: int, seed: str, *, changes: float = 0.25) -> CachingWork:
    """`count` accesses of a story, with contexts, and with invalidations soon after the changes that they are for.

    What is invalidated is often what was just asked for: so changes and invalidations come at every distance from the
    start of a walk, its reads and its end.

    Parameters
    ----------
    changes : float
        The chance of a change after one to six accesses. The more accesses are in flight at a time the more of them a
        change leaves with several answers.
    """
    rng, waits = random.Random(f"work {seed}"), random.Random(f"waits {seed}")
    contexts = [story.context()]
    rows: list[tuple[int, ...]] = [(0, 0, 0, 0, 0, 0, DirectiveKind.CONTEXT, 0, 0)]
    memory = story.memory.copy()
    asked: list[Request] = []
    while len(asked) < count:
        number = len(asked)
        if rng.random() < 0.015:
            rows.append((0, 0, number, rng.randrange(8), len(contexts), 0, DirectiveKind.CONTEXT, 0, 0))
            contexts.append(story.context())
        asked += [story.request() for _ in range(rng.randint(1, 6))]
        changed = rng.random() < changes
        if changed:
            address, value = story.change()
            story.memory.store(address, value)
            rows.append((address, value, len(asked), rng.randrange(20), 0, 0, DirectiveKind.CHANGE, 0, 0))
        if changed and rng.random() < 0.04:
            rows.append((0, 0, len(asked), rng.randrange(8), len(contexts), 0, DirectiveKind.CONTEXT, 0, 0))
            contexts.append(story.reload())
        elif changed or rng.random() < 0.05:
            kind, linear, pcid = story.invalidation([request.linear for request in asked[-4:]], changes=changed)
            delay = rng.choice((0, 0, 1, 2, rng.randrange(20)))
            wait = waits.choice(_WAITS)
            rows.append((linear, 0, len(asked), delay, 0, pcid, DirectiveKind.INVALIDATION, int(kind), int(wait)))
    asked = asked[:count]
    rows = [row for row in rows if row[2] <= count]
    return CachingWork(
        request_records(asked), asked, contexts, context_records(contexts), np.array(rows, DIRECTIVE), memory
    )
