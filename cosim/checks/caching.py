"""A run of an MMU that caches, judged: the log by the golden TLB, the fault queue, the memory, the counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ptewalk.cosim.bench.caching import CachingBench
from ptewalk.cosim.bench.events import Swap, WalkEnd
from ptewalk.cosim.checks.golden_tlb import GoldenTlb
from ptewalk.model.linux import SoftBit
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import EntryBit

__all__ = ["COUNTERS", "CachingVerdict", "judge_run"]

COUNTERS: Final = ("delivered_faults", "lost_faults", "marks", "mends", "hits", "overtaken", "replays", "wraps")
"""The gateware's counters."""
_SD: Final = 1 << SoftBit.SOFT_DIRTY
_RW: Final = 1 << EntryBit.RW


@dataclass
class CachingVerdict:
    """What was wrong in a run, and what was seen in it.

    Attributes
    ----------
    problems : list of str
    counts : Counter of str
        Of `GoldenTlb`, with the gateware's own under "gateware NAME", and drains.
    """

    problems: list[str]
    counts: Counter[str] = field(default_factory=Counter)


def judge_run(
    bench: CachingBench, before: SparseMemory, after: SparseMemory, counter: Callable[[str], int | None]
) -> CachingVerdict:
    """Judge a run that is done.

    Parameters
    ----------
    bench : CachingBench
    before, after : SparseMemory
        The memory before the run (changed) and after it.
    counter : callable
        Gives the gateware's counter of a name, from a reset on; None when it has none.
    """
    golden = GoldenTlb(physical_bits=before.physical_bits, shadow=before)
    golden.feed(bench.log)
    golden.finish()
    problems = list(golden.problems)
    if before != after:
        problems.append(f"memory: a write was lost: {before!r}, {after!r}")
    written = [event for event in bench.log if isinstance(event, Swap) and event.done and not event.error]
    expected = {
        "delivered_faults": len(bench.expected_faults),
        "marks": sum(not event.old & _SD and bool(event.new & _SD) for event in written),
        "mends": sum(not event.old & _RW and bool(event.new & _RW) for event in written),
        "hits": golden.counts["answers"] - sum(isinstance(event, WalkEnd) for event in bench.log),
    }
    counts = golden.counts.copy()
    for name in COUNTERS:
        seen = counter(name)
        if seen is not None:
            counts[f"gateware {name}"] = seen
            if name in expected and seen != expected[name]:
                problems.append(f"counter {name}: {seen}, expected {expected[name]}")
    lost = counts["gateware lost_faults"]
    rest = iter(bench.expected_faults)
    if len(bench.faults) + lost != len(bench.expected_faults) or not all(fault in rest for fault in bench.faults):
        problems.append(f"fault queue: {len(bench.faults)} told and {lost} lost, expected {len(bench.expected_faults)}")
    counts["drains"] = bench.drains
    return CachingVerdict(problems, counts)
