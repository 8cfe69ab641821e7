"""Rules of linux-6.18, linux-7.2 and linux-7.3 where they do otherwise than 6.12; each was read off a live kernel."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Errno
from ptewalk.model.linux import PagemapBit, VmFlag

GIGANTIC = 262144
SD, D = 0x800, 0x40
SWP_SD = 2
NEWEST = ["linux-6.18", "linux-7.2", "linux-7.3"]
ALL_8 = list(range(8))


@pytest.mark.parametrize(
    ("profile", "dirty"), [("linux-6.12", []), ("linux-6.18", []), ("linux-7.2", ALL_8), ("linux-7.3", ALL_8)]
)
def test_a_merge_keeps_the_mark(machine, profile: str, dirty: list[int]) -> None:  # type: ignore[no-untyped-def]
    """vma_merge_existing_range: flags of VM_STICKY are those of any part."""
    m = machine(profile)
    m.mmap(0, 4, prot="r")
    m.clear()
    m.mmap(4, 4)
    m.mprotect(0, 4, "rw")
    assert m.areas() == [(0, 8)] and m.dirty(0, 8) == dirty


@pytest.mark.parametrize("profile", NEWEST)
def test_mremap_moves_many_areas(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """remap_move: with FIXED and one length, holes and all; 6.12 unmaps the destination and fails."""
    m = machine(profile)
    m.mmap(0, 4)
    m.mmap(4, 2, prot="r")
    m.mmap(10, 2)
    m.mmap(32, 4)
    m.mremap(0, 12, 12, 32)
    assert m.areas() == [(32, 4), (36, 2), (42, 2)]
    with pytest.raises(Errno, match="EINVAL"):
        m.mremap(0, 8, 8, 4)  # nothing is mapped there
    with pytest.raises(Errno, match="EFAULT"):
        m.mremap(40, 4, 4, 32)  # a hole first
    assert m.areas() == [(32, 4), (36, 2), (42, 2)], "the destination is still there"


@pytest.mark.parametrize("profile", NEWEST)
def test_mremap_to_a_place_shrinks_beyond_its_area(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """check_prep_vma: a tail that is unmapped anyway may lie outside the area, as before."""
    for kernel in (profile, "linux-6.12"):
        m = machine(kernel)
        m.mmap(22, 15)
        m.mremap(22, 16, 15, 7)
        assert m.areas() == [(7, 15)]


@pytest.mark.parametrize(
    ("profile", "locked"), [("linux-6.12", [0, 4, 32]), ("linux-6.18", [32]), ("linux-7.2", [0, 4, 32])]
)
def test_dontunmap_unlocks(machine, profile: str, locked: list[int]) -> None:  # type: ignore[no-untyped-def]
    """dontunmap_complete: of a part of a locked area; 6.18 unlocks the whole area, the others that part."""
    m = machine(profile)
    m.mmap(0, 8, flags=("locked",))
    m.mremap(2, 2, 2, 32, ("MAYMOVE", "FIXED", "DONTUNMAP"))
    assert [vma.start - m.kernel.base for vma in m.mm().areas if vma.flags & VmFlag.LOCKED] == locked


@pytest.mark.parametrize(
    ("profile", "taken"), [("linux-6.12", 0), ("linux-6.18", 1), ("linux-7.2", 1), ("linux-7.3", 0)]
)
def test_a_move_of_hugetlb_memory_that_fails(machine, profile: str, taken: int) -> None:  # type: ignore[no-untyped-def]
    """copy_vma_and_data: the reservation of what stays is gone, so that a store to it may have no page (SIGBUS)."""
    m = machine(profile)
    m.mmap(0, GIGANTIC, kind="hugetlb1g")
    assert m.error(m.mremap, 0, GIGANTIC, GIGANTIC, 2 * GIGANTIC) == "ENOMEM"
    if not taken:
        assert m.error(m.mmap, 4 * GIGANTIC, GIGANTIC, kind="hugetlb1g") == "ENOMEM"
        assert m.write(0) == ["ok"]
        return
    m.mmap(4 * GIGANTIC, GIGANTIC, kind="hugetlb1g")
    assert m.write(0) == ["bus"]


@pytest.mark.parametrize("profile", NEWEST)
def test_a_guard_region_that_stands_is_left_alone(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """guard_install_pte_entry: the bit that mremap gave the marker stays, beside a new marker without it."""
    m = machine(profile)
    m.mmap(0, 2)
    m.madvise(1, 1, "GUARD_INSTALL")
    m.mremap(0, 2, 2, 24)
    moved = m.pte(25)
    m.write(24)
    m.madvise(24, 2, "GUARD_INSTALL")
    assert m.pte(25) == moved
    assert m.pte(24) and m.pte(24) ^ moved == SWP_SD


@pytest.mark.parametrize("profile", NEWEST)
def test_guard_regions(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """madvise_guard_install, madvise_guard_remove"""
    m = machine(profile)
    m.mmap(0, 4)
    m.write(0, 4)
    m.clear()
    m.madvise(1, 2, "GUARD_INSTALL")
    assert m.write(0, 4) == ["ok", "maperr", "maperr", "ok"]
    words = m.task().pagemap(m.at(0), 4 * PAGE).words
    assert [int(word) >> PagemapBit.GUARD & 1 for word in words] == [0, 1, 1, 0]
    m.madvise(0, 4, "DONTNEED")
    assert m.read(1) == ["maperr"]
    m.fork()
    assert m.read(1, who=1) == ["maperr"]
    m.madvise(0, 4, "GUARD_REMOVE")
    assert m.read(0, 4) == [0, 0, 0, 0] and m.read(1, who=1) == ["maperr"]
    with pytest.raises(Errno, match="EINVAL"):
        machine("linux-6.12").madvise(1, 2, "GUARD_INSTALL")


@pytest.mark.parametrize("profile", NEWEST)
def test_a_read_of_a_dirty_file_page_marks(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """set_pte_range"""
    for kernel, marked in ((profile, D | SD), ("linux-6.12", 0)):
        m = machine(kernel)
        m.mmap(0, 4, kind="s0")
        m.write(0, 2)
        m.mmap(8, 4, kind="s0")
        m.read(8, 4)
        assert [m.pte(8 + i) & (D | SD) for i in range(4)] == [marked, marked, 0, 0]


@pytest.mark.parametrize(("profile", "count"), [("linux-6.12", 1), *((profile, 512) for profile in NEWEST)])
def test_a_write_to_the_huge_zero_page_marks_all(machine, profile: str, count: int) -> None:  # type: ignore[no-untyped-def]
    """do_huge_zero_wp_pmd"""
    m = machine(profile)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.read(0)
    m.clear()
    m.write(9)
    assert len(m.dirty(0, 512)) == count


@pytest.mark.parametrize(("profile", "count"), [("linux-6.12", 0), *((profile, 400) for profile in NEWEST)])
def test_mprotect_in_batches_invents_marks(machine, profile: str, count: int) -> None:  # type: ignore[no-untyped-def]
    """change_pte_range: nobody stored to any page after the second clear."""
    m = machine(profile)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    m.clear()
    m.munmap(500, 12)
    m.clear()
    m.mprotect(0, 400, "r")
    assert len(m.dirty(0, 512)) == count


@pytest.mark.parametrize("profile", NEWEST)
def test_collapse_invents_marks(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """hpage_collapse_scan_pmd"""
    m = machine(profile)
    m.mmap(0, 1024)
    m.write(0, 1024)
    m.clear()
    m.madvise(0, 1024, "COLLAPSE")
    assert len(m.dirty(0, 1024)) == 1024
    old = machine("linux-6.12")
    old.mmap(0, 1024)
    old.write(0, 1024)
    old.clear()
    with pytest.raises(Errno, match="EINVAL"):
        old.madvise(0, 1024, "COLLAPSE")


@pytest.mark.parametrize(
    ("profile", "written"), [("linux-6.12", 4), ("linux-6.18", 2), ("linux-7.2", 4), ("linux-7.3", 0)]
)
def test_written_means_less(machine, profile: str, written: int) -> None:  # type: ignore[no-untyped-def]
    """pagemap_page_category, of two pages that were stored to and two empty entries, without a userfaultfd"""
    m = machine(profile)
    m.mmap(0, 4)
    m.write(0, 2)
    found = m.task().pagemap_scan(m.at(0), 4 * PAGE, return_mask="WRITTEN")
    assert sum((region.end - region.start) // PAGE for region in found.regions if region.categories) == written
