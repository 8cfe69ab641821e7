"""Large pages below 2 MiB (thp_anon=16K-64K:always), and large pages that small entries map, since linux-6.12.

Each was read off a live kernel: `tests/data/mthp-linux-7.3.jsonl.gz` and `flips-linux-*.jsonl.gz` have the recordings.
"""

from __future__ import annotations

import pytest

from ptewalk.model.errors import FaultsForEver

SD, D, A, RW, SAVED = 0x800, 0x40, 0x20, 2, 1 << 58
SIZES = (4, 8, 16)


def large(machine, profile: str = "linux-7.3"):  # type: ignore[no-untyped-def]
    """A machine booted with thp_anon=16K-64K:always."""
    m = machine(profile)
    m.kernel.anon_sizes = SIZES
    return m


def mapped(m, pages: int) -> list[int]:  # type: ignore[no-untyped-def]
    """The pages of the window that an entry maps."""
    return [page for page in range(pages) if m.pte(page) & 1]


@pytest.mark.parametrize(
    ("area", "written", "found"),
    [
        ((0, 32), 5, range(16)),
        ((0, 32), 16, range(16, 32)),
        ((2, 12), 9, range(8, 12)),  # 8 pages would reach beyond its end, 14
        ((2, 12), 13, range(13, 14)),
        ((4, 12), 9, range(8, 16)),  # so would 16 before its start
        ((0, 3), 1, range(1, 2)),
    ],
)
def test_a_first_write_maps_the_largest_that_fits(machine, area: tuple[int, int], written: int, found: range) -> None:  # type: ignore[no-untyped-def]
    """alloc_anon_folio: aligned to its size, and inside the area."""
    m = large(machine)
    m.mmap(*area)
    m.clear()
    m.write(written)
    assert mapped(m, 40) == list(found) == m.dirty(0, 40)


def test_it_is_all_empty(machine) -> None:  # type: ignore[no-untyped-def]
    """pte_range_none: a zero page that was read, or any other entry, makes it smaller."""
    m = large(machine)
    m.mmap(0, 16)
    m.read(5)
    m.clear()
    m.write(12)
    m.write(0)
    m.write(6)
    assert m.dirty(0, 16) == [0, 1, 2, 3, 6, *range(8, 16)]


def test_memory_with_nohugepage_gets_small_pages(machine) -> None:  # type: ignore[no-untyped-def]
    m = large(machine)
    m.mmap(0, 512)
    m.madvise(0, 16, "NOHUGEPAGE")
    m.madvise(16, 496, "HUGEPAGE")
    m.clear()
    m.write(3)
    m.write(20)
    assert m.dirty(0, 512) == [3, *range(16, 32)], "and no 2 MiB, which are not among the sizes"


def test_a_second_write_marks_one_page(machine) -> None:  # type: ignore[no-untyped-def]
    """Each page is exclusive: it is reused, its neighbours stay clean."""
    m = large(machine)
    m.mmap(0, 16)
    m.write(0)
    before = m.frame(7)
    m.clear()
    m.write(7)
    assert m.dirty(0, 16) == [7] and m.frame(7) == before


def test_it_is_swapped_and_read_back_as_one(machine) -> None:  # type: ignore[no-untyped-def]
    """swapin_folio: one read maps all 16; where an entry differs, a smaller part."""
    m = large(machine)
    m.mmap(0, 16)
    m.write(0, 16)
    m.clear()
    m.madvise(0, 16, "PAGEOUT")
    m.read(9)
    assert mapped(m, 16) == list(range(16)) and not m.dirty(0, 16)
    m.write(4, 4)
    m.madvise(0, 16, "PAGEOUT")
    m.read(0)
    assert mapped(m, 16) == [0, 1, 2, 3]
    m.read(12)
    assert mapped(m, 16) == [0, 1, 2, 3, *range(8, 16)]


@pytest.mark.parametrize(("profile", "kept"), [("linux-6.12", 1), ("linux-6.18", 512), ("linux-7.3", 1)])
def test_a_large_page_that_was_moved_is_split_next_time(machine, profile: str, kept: int) -> None:  # type: ignore[no-untyped-def]
    """migrate_folio_move: mapped by small entries, it counts as mapped in parts from then on; zeros are dropped."""
    m = machine(profile)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    m.mprotect(0, 8, "r")
    for node in (1, 0):
        m.kernel.move_pages(m.task().process, m.kernel.base, 1, node)
    anonymous = [page for page in range(512) if m.frame(page) != m.kernel.frames.zero]
    assert len(anonymous) == kept


@pytest.mark.parametrize(
    ("profile", "left", "entry"),
    [
        ("linux-6.12", range(100, 512), A | D | RW | SD),
        ("linux-6.18", range(512), SAVED | A | SD),  # made as the first, which was read-only
        ("linux-7.3", range(100, 512), A | D | RW | SD),
    ],
)
def test_pageout_of_memory_with_madv_free(machine, profile: str, left: range, entry: int) -> None:  # type: ignore[no-untyped-def]
    """try_to_unmap_one: entries go until a dirty one comes; in linux-6.18 all are taken for one, which is dirty."""
    m = machine(profile)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0, 512)
    m.madvise(0, 512, "FREE")
    m.clear()
    m.mprotect(0, 8, "r")
    m.mprotect(0, 8, "rw")
    m.write(100)
    m.madvise(0, 512, "PAGEOUT")
    assert mapped(m, 512) == list(left)
    assert m.pte(100) & (SAVED | A | D | RW | SD) == entry
    assert m.dirty(0, 512) == (list(range(512)) if profile == "linux-6.18" else [100])


def test_clean_pages_that_are_unmapped_together_become_dirty(machine) -> None:  # type: ignore[no-untyped-def]
    """get_and_clear_full_ptes: D of any but the first by pte_mkdirty: 512 pages reported, and no store."""
    m = machine("linux-7.3")
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0, 512)
    m.mprotect(0, 8, "r")
    m.mprotect(0, 8, "rw")
    m.madvise(0, 512, "FREE")
    m.write(100)
    m.clear()
    assert m.dirty(0, 512) == []
    m.madvise(0, 512, "PAGEOUT")
    assert m.dirty(0, 512) == list(range(512))


def shared_huge(machine, profile: str):  # type: ignore[no-untyped-def]
    """A huge page of shared memory, written and cleared."""
    m = machine(profile)
    m.mmap(0, 512, kind="sanon")
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0, 512)
    m.clear()
    return m


@pytest.mark.parametrize(
    ("profile", "marked"),
    [
        ("linux-6.12", [[50], [100], [110], [300]]),
        ("linux-7.3", [[*range(64)], [100], [*range(104, 112)], [*range(256, 512)]]),
    ],
)
def test_a_hole_leaves_the_largest_parts(machine, profile: str, marked: list[list[int]]) -> None:  # type: ignore[no-untyped-def]
    """folio_split around page 100: halves of halves, and one store marks all of its part."""
    m = shared_huge(machine, profile)
    m.madvise(100, 1, "REMOVE")
    for page, pages in zip((50, 100, 110, 300), marked, strict=True):
        m.clear()
        m.write(page)
        assert m.dirty(0, 512) == pages, page


@pytest.mark.parametrize(("profile", "back"), [("linux-6.12", 1), ("linux-6.18", 512), ("linux-7.3", 512)])
def test_shared_memory_is_swapped_as_it_is(machine, profile: str, back: int) -> None:  # type: ignore[no-untyped-def]
    """shmem_writeout, shmem_swap_alloc_folio: one store marks all 512 again."""
    m = shared_huge(machine, profile)
    m.madvise(0, 512, "PAGEOUT")
    assert m.dirty(0, 512) == [] == mapped(m, 512)
    m.write(3)
    assert len(m.dirty(0, 512)) == back
    assert m.read(500) == [7], "with what was stored"


@pytest.mark.parametrize("profile", ["linux-6.12", "linux-6.18", "linux-7.3"])
def test_a_pinned_page_is_not_split_by_a_hole(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """truncate_inode_partial_folio: the hole reads as zeros, and the page stays in the file."""
    m = shared_huge(machine, profile)
    m.kernel.pin(m.task().process, m.kernel.base + 3, 1)
    m.madvise(10, 5, "REMOVE")
    assert m.read(9, 2) == [7, 0]
    assert m.pmd(0) & 1


@pytest.mark.parametrize(("profile", "writable"), [("linux-6.18", True), ("linux-7.2", False), ("linux-7.3", False)])
def test_what_comes_back_is_exclusive_where_the_entry_says_so(machine, profile: str, writable: bool) -> None:  # type: ignore[no-untyped-def]
    """do_swap_page: a page in the swap cache has two references, and all pass through it since 7.2."""
    m = machine(profile)
    m.mmap(0, 2)
    m.write(0, 2)
    m.fork()
    m.kernel.exit(m.task(1).process)
    m.madvise(0, 2, "PAGEOUT")
    m.read(0)
    assert bool(m.pte(0) & RW) == writable


def test_a_forced_write_to_cleared_hugetlb_memory_never_ends(machine) -> None:  # type: ignore[no-untyped-def]
    """hugetlb_wp leaves the entry of a read-only area as it is, and can_follow_write_pmd wants it soft-dirty."""
    m = machine("linux-7.3")
    m.mmap(0, 512, prot="r", kind="hugetlb")
    m.mem_write(0)
    m.mmap(512, 512, prot="r", kind="hugetlb")
    m.clear()
    with pytest.raises(FaultsForEver):
        m.mem_write(512)
