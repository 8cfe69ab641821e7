"""Counters and the fault queue beside a log made by hand: what a wrong one is told as."""

from __future__ import annotations

import pytest

from ptewalk.cosim.bench.events import Answer, LogEvent, Swap, WalkEnd
from ptewalk.cosim.checks.caching import compare_counted
from ptewalk.model.paging import PageFault
from ptewalk.model.x86 import Access

from .test_golden_tlb import CONTEXT, LEAF, LEAF_AT, LINEAR, NEIGHBOUR, RW, SD, D, asked, hit, walk

FAR = LINEAR + 0x2000
FAULTS = [(LINEAR, 4, 2), (NEIGHBOUR, 6, 3), (FAR, 4, 2)]
"""What the queue must tell of `LOG`: (linear, code, tag), in the order of the answers."""
PROBED = (LINEAR, 5, 4)
"""A probe's, which it must not."""
LOG: list[LogEvent] = [
    *(CONTEXT, *walk(), *hit()),
    *(asked(tag=2), asked(Access.WRITE, 3, NEIGHBOUR), asked(Access.PROBE, 4)),
    *(WalkEnd(2), Answer(2, PageFault(4)), WalkEnd(3), WalkEnd(4), Answer(4, PageFault(5)), Answer(3, PageFault(6))),
    *(asked(tag=2, linear=FAR), WalkEnd(2), Answer(2, PageFault(4))),
    *walk(LEAF, 5, Swap(LEAF_AT, LEAF & ~D, LEAF | SD, done=False), Swap(LEAF_AT, LEAF & ~D, LEAF | SD, error=True)),
    *walk(LEAF | SD, 5, Swap(LEAF_AT, LEAF, LEAF | SD)),
    *walk(LEAF | SD, 5, Swap(LEAF_AT, LEAF & ~RW, LEAF | SD)),
    *walk(LEAF | SD, 5, Swap(LEAF_AT, LEAF & ~D | SD, LEAF | SD)),
]
"""One hit, three page faults and a probe's, two marks of which one mends; one swap failed, and one was refused."""
COUNTED = {"delivered_faults": 3, "lost_faults": 0, "marks": 2, "mends": 1, "hits": 1, "overtaken": 7}


def told(faults: list[tuple[int, int, int]], **counted: int) -> list[str]:
    return compare_counted(LOG, faults, (COUNTED | counted).get).problems


def test_what_is_counted_and_recorded_once_is_right() -> None:
    """Records that found the queue full are counted as lost, whichever they are."""
    assert told(FAULTS) == []
    for kept in range(8):
        some = [fault for place, fault in enumerate(FAULTS) if kept >> place & 1]
        assert told(some, lost_faults=3 - len(some)) == []
    seen = compare_counted(LOG, FAULTS, COUNTED.get).counts
    assert seen == {f"gateware {name}": count for name, count in COUNTED.items()}
    assert compare_counted(LOG, FAULTS, lambda name: None).problems == []  # a design without counters


@pytest.mark.parametrize("name", ["delivered_faults", "marks", "mends", "hits"])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_wrong_counter(name: str, by: int) -> None:
    count = COUNTED[name]
    assert told(FAULTS, **{name: count + by}) == [f"counter {name}: {count + by}, expected {count}"]


@pytest.mark.parametrize(
    ("faults", "lost"),
    [
        (FAULTS[:2], 0),  # one is missing, and not counted
        (FAULTS, 1),  # counted, and told all the same
        ([*FAULTS, PROBED], 0),
        ([*FAULTS[:2], PROBED], 0),
        ([FAULTS[0], PROBED], 1),  # as many as there must be
        ([FAULTS[1], FAULTS[0], FAULTS[2]], 0),  # in another order
        ([FAULTS[0], FAULTS[0]], 1),  # told twice
        ([(LINEAR, 6, 2), *FAULTS[1:]], 0),  # another code
        ([(LINEAR, 4, 3), *FAULTS[1:]], 0),  # another tag
        ([(NEIGHBOUR, 4, 2), *FAULTS[1:]], 0),  # another address
    ],
)
def test_a_wrong_fault_queue(faults: list[tuple[int, int, int]], lost: int) -> None:
    assert told(faults, lost_faults=lost) == [f"fault queue: {len(faults)} told and {lost} lost, expected 3"]
