"""The seed's mechanism in gateware: entries marked and mended with no trap, bit by bit, in every way to track.

Expected entries are typed by hand from the table in docs/soft-dirty.md; `linux-seed`, and `linux-6.12` (SAVED_DIRTY).
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from ptewalk.cosim.bench.amaranth_mmu import AmaranthMmu
from ptewalk.model import PAGE, Fault, Machine
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import PageFault, Request, Result, State

XD = 1 << 63
WRITTEN = XD | 0x867  # P RW US A D SD
PROTECTED = XD | 0x065  # P US A D: clear_refs 4 of the seed and of 6.1
ARM = 1 << 52
SAVED_DIRTY = 1 << 58


@dataclass
class Counting:
    """The gateware, and how many page faults it delivered."""

    gateware: AmaranthMmu
    faults: int = 0

    def run(self, state: State, requests: list[Request]) -> list[Result]:
        results = self.gateware.run(state, requests)
        self.faults += sum(isinstance(result, PageFault) for result in results)
        return results

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        self.gateware.invalidate(linear, pcid)


class Bench:
    """One process with four anonymous pages, all written, under one kernel with the gateware as its MMU."""

    def __init__(self, profile: str, track: Track) -> None:
        self.tasks = [Machine(profile, track=track, mmu=self._mmu, pagemap_v2=True).spawn()]
        self.at = self.tasks[0].mmap(4 * PAGE)
        self.write(*range(4))

    def _mmu(self, memory: SparseMemory) -> Counting:
        self.mmu = Counting(AmaranthMmu(memory))
        return self.mmu

    def write(self, *pages: int, who: int = 0) -> None:
        for page in pages:
            self.tasks[who].write(self.at + page * PAGE + 8, b"\x05")

    def clear(self) -> None:
        assert self.tasks[0].clear_refs(4) == 1

    def entry(self, page: int, who: int = 0) -> int:
        """The raw entry."""
        (leaf,) = self.tasks[who].entries(self.at + page * PAGE)
        assert leaf.level == 1
        return leaf.entry

    def flags(self, page: int, who: int = 0) -> int:
        """The raw entry without its frame."""
        return self.entry(page, who) & ~0x000F_FFFF_FFFF_F000

    def frame(self, page: int, who: int = 0) -> int:
        return self.entry(page, who) >> 12 & (1 << 40) - 1

    def faults_of_write(self, page: int, who: int = 0) -> int:
        before = self.mmu.faults
        self.write(page, who=who)
        return self.mmu.faults - before


CLEARED = {
    ("linux-seed", Track.OFF): PROTECTED,
    ("linux-seed", Track.FAULT): PROTECTED | ARM,
    ("linux-seed", Track.NATIVE): WRITTEN & ~0x800,
    ("linux-6.12", Track.OFF): PROTECTED & ~0x40 | SAVED_DIRTY,
    ("linux-6.12", Track.FAULT): PROTECTED & ~0x40 | SAVED_DIRTY | ARM,
    ("linux-6.12", Track.NATIVE): WRITTEN & ~0x800,
}
FAULTS = {Track.OFF: 1, Track.FAULT: 0, Track.NATIVE: 0}


@pytest.mark.thorough
@pytest.mark.parametrize(("profile", "track"), CLEARED)
def test_clear_then_write(profile: str, track: Track) -> None:
    """Clear writes the row of the table; the next write marks the same frame, and traps only where software tracks."""
    bench = Bench(profile, track)
    frames = [bench.frame(page) for page in range(4)]
    assert [bench.flags(page) for page in range(4)] == [WRITTEN] * 4
    bench.clear()
    assert [bench.flags(page) for page in range(4)] == [CLEARED[profile, track]] * 4
    assert bench.faults_of_write(2) == FAULTS[track]
    expected = [CLEARED[profile, track]] * 4
    expected[2] = WRITTEN
    assert [bench.flags(page) for page in range(4)] == expected
    assert [bench.frame(page) for page in range(4)] == frames


@pytest.mark.thorough
@pytest.mark.parametrize("track", Track)
def test_write_clear_write_again_and_again(track: Track) -> None:
    """The second and third write after a clear are never lost (the class of bug that a POWER9 kernel had)."""
    bench = Bench("linux-6.1", track)
    for _ in range(3):
        bench.clear()
        assert not bench.flags(1) & 0x800
        bench.write(1)
        assert bench.flags(1) & 0x800


@pytest.mark.thorough
@pytest.mark.parametrize("track", Track)
def test_clear_fork_write_in_parent_and_child(track: Track) -> None:
    """Two frames, and nothing lost: fork disarms."""
    bench = Bench("linux-seed", track)
    bench.clear()
    bench.tasks.append(bench.tasks[0].fork())
    assert not bench.flags(0) & (ARM | 2)
    assert not bench.flags(0, who=1) & (ARM | 2)
    assert bench.faults_of_write(0) == 1
    assert bench.faults_of_write(0, who=1) == 1
    assert bench.frame(0) != bench.frame(0, who=1)
    for who in (0, 1):
        assert bench.flags(0, who) & 0x800
        assert not bench.flags(1, who) & 0x800


@pytest.mark.thorough
@pytest.mark.parametrize("track", Track)
def test_mprotect_of_an_armed_page_needs_a_fault(track: Track) -> None:
    """Software's write-protection disarms: the MMU may not undo it."""
    bench = Bench("linux-6.1", track)
    bench.clear()
    bench.tasks[0].mprotect(bench.at, PAGE, "r")
    assert not bench.flags(0) & (ARM | 2)
    with pytest.raises(Fault, match="SEGV_ACCERR"):
        bench.write(0)
    assert not bench.flags(0) & 0x800
