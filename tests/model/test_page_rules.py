"""Rules of fork, migration, KSM and hugetlb."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE

from .situations import MODERN, OLD, RW, SD, SPECIAL, UFFD_WP, A, B, C, cleared, every, huge, modern, wp

old = pytest.mark.parametrize("profile", OLD)


# fork.


@modern
def test_fork_copies_marks_and_clears_accessed(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:copy_present_pte, copy_nonpresent_pte"""
    m = cleared(machine(profile), 3)
    m.write(0, 2)
    m.madvise(1, 1, "PAGEOUT")
    m.fork(1)
    assert m.dirty(0, 3) == m.dirty(0, 3, 1) == [0, 1]
    assert m.pte(0) & (RW | A) == A and m.pte(0, 1) & (RW | A) == 0
    assert m.read(1, who=1) == [7]


@modern
def test_wiped_and_withheld_areas(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """kernel/fork.c:dup_mmap"""
    m = cleared(machine(profile), 2)
    m.write(0, 2)
    m.madvise(0, 1, "WIPEONFORK")
    m.madvise(1, 1, "DONTFORK")
    m.fork(1)
    assert m.dirty(0, 2, 1) == [] and m.areas(1) == [(0, 1)]
    assert m.read(0, who=1) == [0]


@modern
def test_fork_drops_write_protection_in_the_child(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile))
    wp(m, 0, 4)
    m.fork(1)
    assert m.pte(0) & UFFD_WP and not m.pte(0, 1) & UFFD_WP
    assert m.write(0) == ["bus"] and m.write(0, who=1) == ["ok"]


@modern
def test_a_forked_huge_page_is_split_and_copied_small(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/huge_memory.c:do_huge_pmd_wp_page"""
    m = huge(machine(profile))
    m.fork(1)
    m.write(3, who=1)
    assert m.pmd(0) and not m.pmd(0, 1)
    assert m.dirty(0, 512) == []
    assert m.dirty(0, 512, 1) == ([3] if profile == B else list(range(512)))


# Migration, KSM.


def test_migration_of_a_huge_page_marks_it(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/huge_memory.c:remove_migration_pmd: still so in 6.12."""
    for profile in MODERN:
        m = huge(machine(profile))
        assert m.task().move_pages(m.at(0), PAGE, 1) == [1]
        assert m.pmd(0) and len(m.dirty(0, 512)) == 512


@modern
def test_ksm_forgets_stores(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/ksm.c:replace_page"""
    m = machine(profile)
    m.mmap(0, 3)
    m.madvise(0, 3, "MERGEABLE")
    m.clear()
    m.task().write(m.at(0), b"\x5a" * 3 * PAGE)
    assert m.dirty(0, 3) == [0, 1, 2]
    m.machine.ksm_scan()
    assert m.dirty(0, 3) == [1], "the page that all now share keeps its mark"


@pytest.mark.parametrize(("profile", "dirty"), [(B, []), (C, [0, 1])])
def test_ksm_and_the_zero_page(machine, profile: str, dirty: list[int]) -> None:  # type: ignore[no-untyped-def]
    """With use_zero_pages 6.12 marks the new entry dirty, which is soft-dirty too."""
    m = machine(profile)
    m.mmap(0, 2)
    m.madvise(0, 2, "MERGEABLE")
    m.write(0, 2, value=0)
    m.clear()
    m.machine.ksm_scan(use_zero_pages=True)
    assert m.pte(0) & SPECIAL and m.dirty(0, 2) == dirty


@pytest.mark.parametrize(("profile", "dirty"), [(B, [0, 1]), (C, [])])
def test_taking_ksm_pages_apart(machine, profile: str, dirty: list[int]) -> None:  # type: ignore[no-untyped-def]
    """mm/ksm.c:break_ksm: a write fault in 6.1, FAULT_FLAG_UNSHARE in 6.12."""
    m = machine(profile)
    m.mmap(0, 2)
    m.madvise(0, 2, "MERGEABLE")
    m.task().write(m.at(0), b"\x5a" * 2 * PAGE)
    m.machine.ksm_scan()
    m.clear()
    m.madvise(0, 2, "UNMERGEABLE")
    assert m.frame(0) != m.frame(1) and m.dirty(0, 2) == dirty


# hugetlb.


@modern
def test_a_moved_hugetlb_page_is_not_marked(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/hugetlb.c:move_hugetlb_page_tables"""
    m = machine(profile)
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    m.clear()
    before = m.pmd(0)
    m.mremap(0, 512, 512, 1024)
    assert m.pmd(1024) == before and m.dirty(1024, 512) == []


@modern
def test_clear_takes_the_flag_of_a_hugetlb_area_and_leaves_its_entry(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    before = m.pmd(0)
    assert before & (RW | SD) == RW | SD
    m.clear()
    assert m.pmd(0) == before and m.dirty(0, 512) == []


@old
def test_the_old_kernels_do_not_move_hugetlb_pages(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 512, kind="hugetlb")
    assert m.error(m.mremap, 0, 512, 512, 1024) == "EINVAL"


@every
def test_fork_of_a_private_hugetlb_page_keeps_its_mark(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    m.fork(1)
    assert m.pmd(0) & (RW | SD) == m.pmd(0, 1) & (RW | SD) == SD
