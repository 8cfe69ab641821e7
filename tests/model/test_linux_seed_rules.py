"""What the seed commit's kernel does besides, its holes included: rules A1 to A39 of profile `linux-seed`."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE
from ptewalk.model.errors import SwapDamage

RW, A, D, SPECIAL, SD = 0x2, 0x20, 0x40, 0x200, 0x800


def huge(m, page: int = 0, n: int = 512) -> None:  # type: ignore[no-untyped-def]
    """One written huge page."""
    m.mmap(page, n)
    m.madvise(page, n, "HUGEPAGE")
    m.write(page)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("4", 1),
        ("04", 2),
        ("+4", 2),
        ("4\n", 2),
        ("  4  \n", 6),
        ("4\0junk", 6),
        ("4           junk", 12),
        ("0x4", "EINVAL"),
        ("4x", "EINVAL"),
        ("4 5", "EINVAL"),
        ("            4", "EINVAL"),
        ("99999999999", "ERANGE"),
        ("-99999999999", "ERANGE"),
        ("5", "EINVAL"),
    ],
)
def test_a7_parsing(machine, text: str, answer: int | str) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    found = m.error(m.clear, text)
    assert (found if found else m.clear(text)) == answer


@pytest.mark.parametrize(("value", "dirty"), [("1", 512), ("2", 512), ("3", 512), ("4", 0)])
def test_a10_clear_refs_splits_and_so_creates_marks(machine, value: str, dirty: int) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    huge(m)
    m.mprotect(0, 512, "r")
    assert m.dirty(0, 512) == []
    m.clear(value)
    assert bool(m.pmd(0)) == (value == "3"), "3 leaves anonymous areas alone"
    assert len(m.dirty(0, 512)) == (0 if value == "3" else dirty)


def test_a10_huge_zero_page_becomes_clean_zero_entries(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.read(0)
    m.clear("1")
    assert m.pte(7) & SPECIAL and m.dirty(0, 512) == []


def test_a14_read_of_shared_memory_maps_writable_and_the_store_is_orphan(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 4, kind="s0")
    m.read(0)
    assert m.pte(0) & (RW | D | SD) == RW
    m.write(0)
    assert m.pte(0) & (D | SD) == D
    assert m.dirty(0, 4) == []


def test_a14_dirty_accounting_closes_the_hole(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 4, kind="s4")
    m.read(0)
    assert not m.pte(0) & RW
    m.write(0)
    assert m.dirty(0, 4) == [0]


def test_a14_no_fault_around(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 16, kind="s0")
    m.write(0, 16)
    m.madvise(0, 16, "DONTNEED")
    m.read(3)
    assert [bool(m.pte(page)) for page in range(16)].count(True) == 1


def test_a15_reuse_by_mapcount_not_references(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 1)
    m.write(0)
    m.fork(1)
    kept = m.frame(0)
    m.task(1).exit()
    m.write(0)
    assert m.frame(0) == kept


def test_a16_a_read_fault_of_a_present_entry_writes_nothing(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 1)
    m.write(0)
    m.clear()
    before = m.pte(0)
    m.read(0)
    assert m.pte(0) == before


def test_a17_gup_through_a_writable_entry_is_invisible(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 4, kind="s0")
    m.read(0)
    assert m.mem_write(0) == ["ok"]
    assert m.pte(0) & (D | SD) == 0


def test_a17_any_gup_of_a_huge_page_marks_512(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    huge(m)
    m.mprotect(0, 512, "r")
    assert m.dirty(0, 512) == []
    m.task(0).mem_read(m.at(0) + 8)
    assert len(m.dirty(0, 512)) == 512
    assert not m.pmd(0) & RW


def test_a18_forced_write_marks_and_stays_read_only(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2)
    m.write(0)
    m.mprotect(0, 2, "r")
    m.clear()
    assert m.mem_write(0, 2) == ["ok", "ok"]
    assert [m.pte(page) & (RW | D | SD) for page in (0, 1)] == [D | SD, D | SD]


def test_a18_forced_write_to_a_read_only_shared_file_copies(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2, prot="r", kind="s0")
    m.read(0)
    assert m.mem_write(0) == ["ok"]
    assert m.words(0, 1)[0] >> 61 & 1 == 0, "anonymous inside a shared mapping"
    assert m.machine.file(0).pread(1, 8) == b"\0"
    modern = machine("linux-6.1")
    modern.mmap(0, 2, prot="r", kind="s0")
    assert modern.mem_write(0) == ["e5"]


def test_a19_mlock_dirties_private_memory_only(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2, flags=["locked"])
    m.mmap(8, 2, kind="s0", flags=["locked"])
    assert m.dirty(0, 16) == [0, 1]
    assert m.pte(8) & (RW | SD) == RW


def test_a20_mprotect_loses_marks(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2)
    m.write(0, 2)
    m.mprotect(0, 2, "r")
    m.mprotect(0, 2, "rw")
    assert m.dirty(0, 2) == []
    m.write(1)
    assert m.dirty(0, 2) == [1]


def test_a21_shared_memory_becomes_writable_at_once(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2, kind="s0")
    m.write(0, 2)
    m.clear()
    m.mprotect(0, 2, "r")
    m.mprotect(0, 2, "rw")
    assert m.pte(0) & (RW | SD) == RW
    m.write(0)
    assert m.dirty(0, 2) == [], "an orphan write"


def test_a21_with_dirty_accounting_only_dirty_entries_do(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2, kind="s4")
    m.write(0)
    m.read(1)
    m.mprotect(0, 2, "r")
    m.mprotect(0, 2, "rw")
    assert [m.pte(page) & (RW | SD) for page in (0, 1)] == [RW, 0]


def test_a23_whole_huge_page_stays_huge_and_loses_the_mark(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    huge(m)
    m.mprotect(0, 512, "r")
    m.mprotect(0, 512, "rw")
    assert m.pmd(0) & (RW | SD) == 0
    m.write(9)
    assert len(m.dirty(0, 512)) == 512


@pytest.mark.parametrize("what", ["munmap", "dontneed", "mprotect"])
def test_a24_any_split_marks_512(machine, what: str) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    huge(m)
    m.mprotect(0, 512, "r")
    if what == "munmap":
        m.munmap(100, 10)
    elif what == "dontneed":
        m.madvise(100, 10, "DONTNEED")
    else:
        m.mprotect(100, 10, "rw")
    assert m.dirty(0, 512) == [page for page in range(512) if not 100 <= page < 110]


def test_a25_write_to_the_huge_zero_page_gives_a_huge_page(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.read(0)
    assert m.words(0, 1)[0] >> 61 == 0b100, "present, not FILE"
    m.write(5)
    assert m.pmd(0) & (RW | SD) == RW | SD


def test_a25_write_to_a_shared_huge_page_copies_all_of_it(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    huge(m)
    m.fork(1)
    m.write(3, who=1)
    assert m.pmd(0, 1) & 0x80 and m.pmd(0)
    assert m.read(0, who=1) == [7]


def test_a27_migration_loses_marks_and_leaves_orphan_writers(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 1)
    m.write(0)
    m.madvise(0, 1, "SOFT_OFFLINE")
    assert m.pte(0) & (RW | A | D | SD) == RW
    m.write(0)
    assert m.pte(0) & (D | SD) == D


@pytest.mark.parametrize(("profile", "kept"), [("linux-seed", []), ("linux-3.11", [0])])
def test_a28_swap_drops_the_mark_and_the_release_keeps_it(machine, profile: str, kept: list[int]) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 1)
    m.write(0)
    m.madvise(0, 1, "PAGEOUT")
    assert m.read(0) == [7]
    assert m.dirty(0, 1) == kept
    assert not m.pte(0) & RW
    m.madvise(0, 1, "PAGEOUT")
    m.write(0)
    assert m.pte(0) & (RW | D | SD) == RW | D | SD


def test_a29_pagemap_of_a_swapped_page_shows_a_bit_of_the_offset(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 8)
    m.write(0, 8)
    m.madvise(0, 8, "PAGEOUT")
    offsets = [m.kernel.entries.pte_to_swp_entry(m.mm().tables.get(m.kernel.base + page))[1] for page in range(8)]
    assert m.dirty(0, 8) == [page for page, offset in enumerate(offsets) if offset & 4]
    m.clear()
    assert m.dirty(0, 8) == [page for page, offset in enumerate(offsets) if offset & 4]


def test_a30_mremap_of_a_swapped_page_names_another_slot(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 1)
    m.write(0)
    m.madvise(0, 1, "PAGEOUT")
    offset = m.kernel.entries.pte_to_swp_entry(m.mm().tables.get(m.kernel.base))[1]
    m.mremap(0, 1, 1, 8)
    assert m.kernel.entries.pte_to_swp_entry(m.mm().tables.get(m.kernel.base + 8))[1] == offset | 4 != offset
    with pytest.raises(SwapDamage, match="rule A30"):
        m.read(8)
    release = machine("linux-3.11")
    release.mmap(0, 1)
    release.write(0)
    release.madvise(0, 1, "PAGEOUT")
    release.clear()
    release.mremap(0, 1, 1, 8)
    assert release.dirty(8, 1) == [8] and release.read(8) == [7]


def test_a31_writeback_keeps_the_mark(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 1, kind="s4")
    m.write(0)
    m.machine.file(4).fsync()
    assert m.pte(0) & (RW | D | SD) == SD


def test_a31_ksm_keeps_the_mark_of_one_page(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 3)
    m.madvise(0, 3, "MERGEABLE")
    m.task().write(m.at(0), b"\x5a" * 3 * PAGE)
    m.machine.ksm_scan()
    assert len({m.frame(page) for page in range(3)}) == 1
    assert len(m.dirty(0, 3)) == 1
    m.write(0)
    assert 0 in m.dirty(0, 3)


def test_a32_alignment_never_matters(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 512)
    m.write(0, 512)
    m.clear()
    m.mremap(0, 512, 512, 1024)
    assert len(m.dirty(1024, 512)) == 512


def test_a32_growth_marks_nothing(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 4)
    m.write(0, 4)
    m.clear()
    assert m.mremap(0, 4, 8, 0, []) == 0
    assert m.dirty(0, 8) == []


def test_a33_flags_and_order_of_checks(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    fixed = ("MAYMOVE", "FIXED")
    assert m.error(m.mremap, 0, 4, 4, 16, ("MAYMOVE", "FIXED", "DONTUNMAP")) == "EINVAL"
    assert m.error(m.mremap, 0, 4, 4, 16, ("FIXED",)) == "EINVAL"
    assert m.error(m.mremap, 0, 4, 0, 16, fixed) == "EINVAL"
    assert m.error(m.mremap, 0, 4, 4, 2, fixed) == "EINVAL", "overlap comes before the missing source"
    assert m.error(m.mremap, 0, 4, 4, 16, fixed) == "EFAULT"
    assert m.mremap(0, 4, 4, 0, []) == 0, "equal length looks at nothing"
    m.mmap(0, 4)
    m.write(0, 4)
    assert m.mremap(0, 0, 4, 16) == 16, "old length 0 duplicates private memory too, empty"
    assert m.read(16) == [0]


def test_a34_fork(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 1)
    m.mmap(8, 1, kind="s0")
    m.write(0)
    m.write(8)
    m.fork(1)
    assert m.pte(0) & (RW | A | D | SD) == A | D | SD
    assert m.pte(0, 1) & (RW | A | D | SD) == D | SD
    assert m.pte(8, 1) == 0, "shared memory is not copied"


def test_a35_unmapping_drops_the_mark(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2)
    m.write(0, 2)
    m.madvise(0, 1, "DONTNEED")
    assert m.dirty(0, 2) == [1]
    m.mmap(1, 1)
    assert m.dirty(0, 2) == [], "a fresh mapping reads clean"


def test_a35_truncation_drops_private_copies(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 2, kind="p0")
    m.write(0, 2)
    m.machine.file(0).ftruncate(1 * PAGE)
    assert m.dirty(0, 2) == [0]
    assert m.read(1) == ["bus"]


def test_a37_hugetlb_words_never_carry_the_bit(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    assert m.dirty(0, 512) == []
    assert m.words(0, 1)[0] >> 63


def test_a37_frames_are_shown_to_everybody(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-seed")
    m.mmap(0, 1)
    m.write(0)
    m.task().setuid()
    assert m.words(0, 1)[0] & 0xFFFF_FFFF == m.frame(0)
    modern = machine("linux-6.1")
    modern.mmap(0, 1)
    modern.write(0)
    assert modern.words(0, 1)[0] & 0xFFFF_FFFF == modern.frame(0)
    modern.task().setuid()
    assert modern.words(0, 1)[0] & 0xFFFF_FFFF == 0


def test_ksm_pages_go_to_swap_and_come_back_one_by_one(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/ksm.c:try_to_unmap_ksm, ksm_might_need_to_copy."""
    m = machine("linux-seed")
    m.mmap(0, 3)
    m.madvise(0, 3, "MERGEABLE")
    m.write(0, 3)
    m.machine.ksm_scan()
    assert m.frame(0) == m.frame(1) == m.frame(2)
    m.madvise(0, 3, "PAGEOUT")
    assert [word >> 62 for word in m.words(0, 3)] == [1, 1, 1]
    assert m.read(0, 3) == [7, 7, 7]
    assert len({m.frame(page) for page in range(3)}) == 3
    assert m.write(0, 3, value=8) == ["ok"] * 3
    assert m.read(0, 3) == [8, 8, 8]


def test_mlock_leaves_the_stack_guard_page_alone(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:__get_user_pages with FOLL_MLOCK."""
    m = machine("linux-seed")
    m.mmap(8, 4, flags=["growsdown"])
    m.task().mlock(m.at(8), 4 * PAGE)
    assert [m.pte(page) != 0 for page in range(8, 12)] == [False, True, True, True]


def test_a_shared_hugetlb_mapping_is_copied_by_fork(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:copy_page_range: VM_HUGETLB areas always are; 6.1 leaves shared ones to faults."""
    for profile, copied in (("linux-seed", True), ("linux-6.1", False)):
        m = machine(profile)
        m.mmap(0, 512, kind="shugetlb")
        m.write(0)
        m.fork(1)
        assert bool(m.pmd(0, 1)) is copied


def test_remap_file_pages_to_the_same_place_does_nothing(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/fremap.c: a linear mapping stays one."""
    m = machine("linux-seed")
    m.mmap(0, 4, kind="s0")
    m.write(0, 2)
    m.task().remap_file_pages(m.at(0), 2 * PAGE, 0)
    assert m.pte(0) & (D | SD) == D | SD
    m.task().remap_file_pages(m.at(0), 2 * PAGE, 2 * PAGE)
    assert m.pte(0) & (D | SD) == 0
    assert m.error(m.madvise, 0, 1, "REMOVE") == "EINVAL"


def test_a_read_only_shared_file_with_dirty_accounting_stays_read_only(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/mmap.c:vma_wants_writenotify asks for VM_WRITE first."""
    for profile in ("linux-seed", "linux-6.1", "linux-6.12"):
        m = machine(profile)
        m.mmap(0, 1, kind="s4")
        m.write(0)
        m.mprotect(0, 1, "r")
        assert not m.pte(0) & RW
        assert m.write(0) == ["accerr"]


def test_mprotect_leaves_locked_memory_to_faults(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/mprotect.c:mprotect_fixup; 4.2 and later break copy-on-write at once."""
    for profile, marked in (("linux-seed", []), ("linux-6.1", [0, 1])):
        m = machine(profile)
        m.mmap(0, 2, prot="r", flags=["locked"])
        m.clear()
        m.mprotect(0, 2, "rw")
        assert m.dirty(0, 2) == marked


def test_the_release_keeps_soft_dirty_in_swap_entries(machine) -> None:  # type: ignore[no-untyped-def]
    """3.11.0: bit 7 goes with the page, clear_refs 4 clears it, mremap sets it; pagemap looks at bit 11 as well."""
    m = machine("linux-3.11")
    m.mmap(0, 8)
    m.write(0, 8)
    m.madvise(0, 8, "PAGEOUT")
    assert m.dirty(0, 8) == [0, 1, 2, 3, 4, 5, 6, 7]
    m.clear()
    in_offset = [page for page in range(8) if m.mm().tables.get(m.kernel.base + page) & SD]
    assert in_offset == m.dirty(0, 8) == [3, 4, 5, 6], "offsets 4 to 7"
    m.mremap(0, 8, 8, 16)
    assert m.dirty(16, 8) == list(range(16, 24))
    m.read(16, 8)
    assert m.dirty(16, 8) == list(range(16, 24))
    m.madvise(16, 8, "PAGEOUT")
    m.clear()
    m.read(16, 8)
    assert m.dirty(16, 8) == []


def test_reclaim_unmaps_pages_of_a_disk_file(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/vmscan.c:shrink_page_list: a dirty one keeps its frame, a clean one is read again."""
    m = machine("linux-seed")
    m.mmap(0, 2, kind="s4")
    m.write(0)
    m.read(1)
    before = m.frame(0), m.frame(1)
    m.madvise(0, 2, "PAGEOUT")
    assert m.pte(0) == m.pte(1) == 0
    assert m.read(0, 2) == [7, 0]
    assert m.frame(0) == before[0] and m.frame(1) != before[1]
    m.machine.file(4).fsync()
    m.madvise(0, 2, "PAGEOUT")
    assert m.read(0, 2) == [7, 0]
    assert m.frame(0) != before[0]
