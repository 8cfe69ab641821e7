"""What live kernels of 3.11 do beside the numbered rules of the seed."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE
from ptewalk.model.proc.pagemap import FILE

OLD = ("linux-seed", "linux-3.11")
P, A, SD = 0x1, 0x20, 0x800


@pytest.mark.parametrize("profile", OLD)
@pytest.mark.parametrize("kind", ["hugetlb", "shugetlb"])
def test_hugetlb_words_never_say_file(machine, profile: str, kind: str) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:huge_pte_to_pagemap_entry"""
    for name, says_file in ((profile, False), ("linux-6.1", kind == "shugetlb")):
        m = machine(name)
        m.mmap(0, 512, kind=kind)
        m.read(0)
        assert all(bool(word & int(FILE)) == says_file for word in m.words(0, 512))


@pytest.mark.parametrize("profile", OLD)
def test_soft_offline_stops_where_a_page_cannot_move_and_says_nothing(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/madvise.c:madvise_hwpoison: a variable of the same name hides the error."""
    m = machine(profile)
    m.mmap(0, 3)
    m.write(0)
    m.read(1)
    m.write(2)
    before = m.frame(0), m.frame(2)
    assert m.error(m.madvise, 0, 3, "SOFT_OFFLINE") is None
    assert m.frame(0) != before[0]
    assert m.frame(2) == before[1], "behind the zero page nothing moves"


@pytest.mark.parametrize("profile", OLD)
def test_soft_offline_asks_the_entry_before_the_area(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/gup.c:get_user_pages_fast: what user code could read needs no VM_READ."""
    m = machine(profile)
    m.mmap(0, 2, prot="w")
    m.write(0)
    m.madvise(0, 1, "SOFT_OFFLINE")
    assert m.error(m.madvise, 1, 1, "SOFT_OFFLINE") == "EFAULT"
    m.mprotect(0, 1, "-")
    assert m.error(m.madvise, 0, 1, "SOFT_OFFLINE") == "EFAULT"


@pytest.mark.parametrize(("profile", "marked"), [("linux-seed", False), ("linux-3.11", True)])
def test_a_page_of_the_swap_cache_migrates_to_its_slot(machine, profile: str, marked: bool) -> None:  # type: ignore[no-untyped-def]
    """mm/rmap.c:try_to_unmap_one: PageSwapCache goes before migration."""
    m = machine(profile)
    m.mmap(0, 1)
    m.write(0)
    m.madvise(0, 1, "PAGEOUT")
    slot = m.kernel.entries.pte_to_swp_entry(m.mm().tables.get(m.kernel.base))
    m.fork()
    m.read(0)
    frame = m.frame(0)
    assert m.pte(0) & P
    m.madvise(0, 1, "SOFT_OFFLINE")
    entry = m.mm().tables.get(m.kernel.base)
    assert not entry & P and m.kernel.entries.pte_to_swp_entry(entry) == slot
    assert bool(m.kernel.entries.pte_swp_soft_dirty(entry)) == marked
    assert m.read(0) == [7] and m.frame(0) != frame


@pytest.mark.parametrize("profile", [*OLD, "linux-6.1", "linux-6.12"])
@pytest.mark.parametrize("hidden", [0, 1])
def test_ksm_takes_pages_of_prot_none(machine, profile: str, hidden: int) -> None:  # type: ignore[no-untyped-def]
    """mm/ksm.c: scanned everywhere; but 6.1's get_mergeable_page does not find one that was met first."""
    m = machine(profile)
    m.mmap(0, 2)
    m.madvise(0, 2, "MERGEABLE")
    m.write(0, 2)
    m.mprotect(hidden, 1, "-")
    m.machine.ksm_scan()
    m.mprotect(hidden, 1, "rw")
    assert (m.frame(0) == m.frame(1)) == (profile != "linux-6.1" or hidden == 1)


def test_6_12_takes_apart_the_zero_pages_that_ksm_placed(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/ksm.c:is_ksm_zero_pte"""
    m = machine("linux-6.12")
    m.mmap(0, 2, flags=["populate"])
    m.mmap(4, 1)
    m.read(4)
    m.madvise(0, 2, "MERGEABLE")
    m.machine.ksm_scan(use_zero_pages=True)
    assert m.frame(0) == m.frame(1) == m.frame(4)
    m.madvise(0, 1, "UNMERGEABLE")
    assert m.frame(0) != m.frame(1) == m.frame(4)


def rearranged(machine, profile: str):  # type: ignore[no-untyped-def]
    """Pages 0 to 3 show pages 4 to 7 of a file."""
    m = machine(profile)
    m.mmap(0, 8, kind="s0")
    m.task().remap_file_pages(m.at(0), 4 * PAGE, 4 * PAGE)
    return m


@pytest.mark.parametrize("profile", OLD)
def test_rearranged_areas_fit_no_other(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """VM_NONLINEAR is a flag of the area (mm/mmap.c:is_mergeable_vma)."""
    m = machine(profile)
    m.mmap(0, 4, kind="s0")
    m.mmap(8, 4, kind="s0", file_page=8)
    m.task().remap_file_pages(m.at(0), 4 * PAGE, 20 * PAGE)
    m.mmap(4, 4, kind="s0", file_page=4)
    assert [(vma.start - m.kernel.base, vma.end - m.kernel.base) for vma in m.mm().areas] == [(0, 4), (4, 12)]


@pytest.mark.parametrize("profile", OLD)
def test_truncation_looks_at_every_page_of_a_rearranged_area(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:unmap_mapping_range_list"""
    m = rearranged(machine, profile)
    m.write(0, 4)
    m.machine.file(0).ftruncate(6 * PAGE)
    assert [bool(m.pte(page) & P) for page in range(4)] == [True, True, False, False]


@pytest.mark.parametrize("profile", OLD)
def test_reclaim_ages_a_rearranged_area_before_it_unmaps(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/rmap.c:try_to_unmap_cluster"""
    m = rearranged(machine, profile)
    m.write(0, 4)
    assert all(m.pte(page) & A for page in range(4))
    m.madvise(0, 1, "PAGEOUT")
    assert [m.pte(page) & (P | A) for page in range(4)] == [P] * 4
    m.madvise(0, 1, "PAGEOUT")
    assert [m.pte(page) for page in range(4)] == [0] * 4
    assert m.read(0, 4) == [7] * 4, "what was dirty is kept"


@pytest.mark.parametrize("profile", OLD)
def test_a_move_and_a_fork_keep_the_rearrangement(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """The offset stands in the entry (mm/fremap.c:install_file_pte)."""
    m = rearranged(machine, profile)
    m.write(0, 4)
    first = m.frame(0)
    m.mremap(0, 8, 8, 32)
    m.fork()
    for who in (0, 1):
        m.madvise(32, 8, "DONTNEED", who)
        m.read(32, 8, who)
        assert m.frame(32, who) == first
    m.munmap(32, 8)
    m.mmap(32, 8, kind="s0")
    m.read(32)
    assert m.frame(32) != first
