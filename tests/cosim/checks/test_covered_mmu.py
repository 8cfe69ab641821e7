"""Bins of an MMU that caches: a log made by hand, and the counts of a real run."""

from __future__ import annotations

import pytest

from ptewalk.cosim.bench.caching_lane import CachingLane
from ptewalk.cosim.bench.events import Accept, Answer, Invalidate, LogEvent, Read, SetContext, Swap, WalkEnd
from ptewalk.cosim.checks.covered import BIN
from ptewalk.cosim.checks.covered_mmu import mmu_bins
from ptewalk.cosim.runs.caching import caching_chunk, caching_library
from ptewalk.cosim.runs.workers import Chunk
from ptewalk.model.paging import PageFault, Request, State, Translated
from ptewalk.model.x86 import Access, Invalidation
from ptewalk.rtl.caching_mmu_bins import CACHING_MMU
from ptewalk.rtl.presets import CACHING


def load(linear: int, access: Access = Access.READ) -> Request:
    return Request(linear, access, True, False, False)


ROOT = 0x7000
FOUND = Translated(0x5000, 1, False, False, False)
LOG: list[LogEvent] = [
    SetContext(State(ROOT)),
    Accept(1, load(0x1000)),
    Invalidate(Invalidation.INVLPG, 0x1FFF),  # of the walk's page, before its first read
    Read(0x10, 1, walker=1),
    Accept(2, load(0x9000, Access.WRITE)),
    Read(0x20, 1, walker=0),
    Invalidate(Invalidation.ADDRESS, 0x9000),  # of the second's page, after one read of each
    Read(0x18, 1, walker=1),
    Swap(0x18, 1, 2, done=False, walker=1),
    Read(0x18, 3, walker=1),  # the same entry again: still two
    Invalidate(Invalidation.PCID),
    Swap(0x18, 3, 4, walker=1),
    Invalidate(Invalidation.ALL),
    WalkEnd(1, walker=1),
    Answer(1, FOUND),
    Invalidate(Invalidation.NOT_GLOBAL),
    WalkEnd(2, walker=0),
    Answer(2, PageFault(6)),
    Accept(1, load(0x1000)),
    Answer(1, FOUND),
    Accept(3, load(0x1000)),
    Read(0x20, 0),  # below an upper entry that is cached: a fault, which is found again from the root
    Read(ROOT, 1),
    Read(0x10, 1),
    Invalidate(Invalidation.ALL),
    Read(0x18, 1),
    Read(0x20, 1),
    WalkEnd(3),
    Answer(3, FOUND),
    WalkEnd(9),  # of nothing
]


def test_a_log_made_by_hand() -> None:
    of_one = ["INVLPG/accepted/the walk's", "ADDRESS/1 read/another", "PCID/2 read/-", "ALL/marked/-"]
    of_two = ["ADDRESS/1 read/the walk's", "PCID/1 read/-", "ALL/1 read/-", "NOT_GLOBAL/1 read/-"]
    assert dict(mmu_bins(LOG)) == {
        **{f"mmu-invalidation/{name}": 1 for name in of_one + of_two},
        "mmu-invalidation/ALL/2 read/-": 1,
        "mmu-answer/walk/OK/READ": 2,
        "mmu-start/2/1": 1,
        "mmu-start/4/1": 1,
        "mmu-answer/walk/PAGE_FAULT/WRITE": 1,
        "mmu-answer/hit/OK/READ": 1,
    }


@pytest.mark.slow
def test_the_counts_of_a_run_add_up() -> None:
    """Each answer is in one bin, as many of them hits as the gateware counts; no bin that is excluded is met."""
    lane = CachingLane(caching_library(CACHING["mmu"]).library)
    try:
        told = caching_chunk(lane, CACHING["mmu"], Chunk(20261127, 5, 6000), counts_bins=True)
    finally:
        lane.close()
    bins, counts = told["bins"], told["counts"]
    assert not told["problems"]
    assert sum(count for name, count in bins.items() if name.startswith("mmu-answer/")) == counts["answers"] == 6000
    assert sum(count for name, count in bins.items() if name.startswith("mmu-answer/hit/")) == counts["gateware hits"]
    known = {BIN.join((cross.name, *of)): cross.why_excluded(of) for cross in CACHING_MMU for of in cross.bins()}
    assert [name for name in bins if known.get(name, "unknown") is not None] == []
    assert len(bins) > 60
    assert {"mmu-start/5/1", "mmu-start/4/1"} <= bins.keys(), "CR4.LA57 comes and goes"
