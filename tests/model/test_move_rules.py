"""Rules of mremap: what moves, and what is marked by it."""

from __future__ import annotations

import pytest

from .situations import SD, SEED, UFFD_WP, B, C, cleared, huge, modern, wp


@modern
def test_swap_entries_and_the_zero_page_are_marked_as_they_move(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mremap.c:move_soft_dirty_pte"""
    m = machine(profile)
    m.mmap(0, 3)
    m.write(0)
    m.read(1)
    m.madvise(0, 1, "PAGEOUT")
    m.clear()
    m.mremap(0, 3, 3, 16)
    assert m.dirty(0, 32) == [16, 17], "none stays none"
    assert m.read(16) == [7] and m.pte(16) & SD


@modern
def test_a_huge_leaf_is_marked_as_it_moves(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/huge_memory.c:move_huge_pmd"""
    m = huge(machine(profile))
    m.mremap(0, 512, 512, 1024)
    assert m.pmd(1024) & SD and len(m.dirty(1024, 512)) == 512


@pytest.mark.parametrize(("profile", "left_behind"), [(SEED, 412), (B, 0), (C, 412)])
def test_moving_a_part_of_a_huge_page(machine, profile: str, left_behind: int) -> None:  # type: ignore[no-untyped-def]
    """The split marks what stays behind, in the kernels whose split marks."""
    m = machine(profile)
    huge(m, clear=profile != SEED)
    if profile == SEED:
        m.mprotect(0, 512, "r")
    m.mremap(0, 100, 100, 1024)
    assert len(m.dirty(1024, 100)) == 100
    assert len(m.dirty(0, 512)) == left_behind


@modern
def test_registered_areas_do_not_move_by_table(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mremap.c:move_normal_pmd and vma_has_uffd_without_event_remap: by entry, and the protection is dropped."""
    m = cleared(machine(profile), 512)
    wp(m, 0, 512)
    assert m.pte(0) & UFFD_WP
    m.mremap(0, 512, 512, 1024)
    assert len(m.dirty(1024, 512)) == 512 and not m.pte(1024) & UFFD_WP


@pytest.mark.parametrize(
    ("neighbour", "pages", "marked"), [(None, 507, 0), (0, 507, 507), (1024, 507, 507), (None, 500, 500)]
)
def test_what_forbids_the_realigned_move(machine, neighbour: int | None, pages: int, marked: int) -> None:  # type: ignore[no-untyped-def]
    """mm/mremap.c:can_align_down: nothing else below in either table, and the move reaches the table's end."""
    m = machine(C)
    if neighbour is not None:
        m.mmap(neighbour, 1, prot="r")
    m.mmap(5, pages)
    m.write(5, pages)
    m.clear()
    m.mremap(5, pages, pages, 1024 + 5)
    assert len(m.dirty(1024 + 5, pages)) == marked


@modern
def test_a_neighbour_in_the_gibibyte_makes_tables_move_one_by_one(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    giga = 512 * 512
    m.mmap(0, giga)
    m.write(0, 3)
    m.clear()
    m.mmap(giga, 1, prot="r")
    m.mmap(3 * giga - 1, 1, prot="r")
    m.read(3 * giga - 1)
    table, directory = (m.mm().tables.table(m.kernel.base, level) for level in (1, 2))
    m.mremap(0, giga - 512, giga - 512, 2 * giga)
    assert m.mm().tables.table(m.kernel.base + 2 * giga, 1) == table
    assert m.mm().tables.table(m.kernel.base + 2 * giga, 2) != directory
    assert m.dirty(2 * giga, 8) == [] and m.read(2 * giga) == [7]


@modern
def test_an_error_may_come_after_the_destination_is_gone(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mremap.c:mremap_to unmaps before vma_to_resize looks at the source."""
    m = machine(profile)
    m.mmap(0, 2)
    m.mmap(2, 2, prot="r")
    m.mmap(16, 4)
    assert m.error(m.mremap, 0, 4, 4, 16) == "EFAULT"
    assert m.areas() == [(0, 2), (2, 2)]


@modern
def test_old_length_0_duplicates_shared_memory_empty(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile), 2, "s0")
    assert m.error(m.mremap, 0, 2, 4, 16, ("MAYMOVE", "FIXED", "DONTUNMAP")) == "EINVAL"
    m.mremap(0, 0, 2, 16)
    assert m.areas() == [(0, 2), (16, 2)] and m.dirty(0, 32) == [] and m.pte(16) == 0
    assert m.read(16) == [7]
