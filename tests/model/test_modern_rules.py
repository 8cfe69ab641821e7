"""Rules of 6.1 and 6.12 that surprise, each with its source in the kernel."""

from __future__ import annotations

import itertools

import pytest

from ptewalk.model import PAGE
from ptewalk.model.linux import Track

RW, A, D, SPECIAL, UFFD_WP, SD = 0x2, 0x20, 0x40, 0x200, 0x400, 0x800
SAVED = 1 << 58
MODERN = ["linux-6.1", "linux-6.12"]


def cleared(m, n: int = 4, kind: str = "anon"):  # type: ignore[no-untyped-def]
    m.mmap(0, n, kind=kind)
    m.write(0, n)
    m.clear()
    return m


@pytest.mark.parametrize("profile", MODERN)
def test_vm_softdirty_covers_untouched_pages(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mmap.c:mmap_region"""
    m = machine(profile)
    m.mmap(0, 4)
    assert m.dirty(0, 8) == [0, 1, 2, 3]
    m.clear()
    assert m.dirty(0, 8) == []


@pytest.mark.parametrize("profile", MODERN)
def test_a_new_neighbour_makes_old_pages_dirty(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile))
    m.mmap(4, 4)
    assert m.areas() == [(0, 8)]
    assert len(m.dirty(0, 8)) == 8


@pytest.mark.parametrize("profile", MODERN)
def test_mprotect_of_a_dirty_part_dirties_a_clean_neighbour(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mprotect.c:mprotect_fixup gives the merged area the flags of the part that it was called for."""
    m = cleared(machine(profile))
    m.mmap(4, 4, prot="r")
    assert m.dirty(0, 8) == [4, 5, 6, 7]
    m.mprotect(4, 4, "rw")
    assert m.areas() == [(0, 8)] and len(m.dirty(0, 8)) == 8


@pytest.mark.parametrize("profile", MODERN)
def test_mprotect_of_a_clean_part_erases_a_dirty_neighbour(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """The same, the other way round: the new area's dirtiness is lost."""
    m = machine(profile)
    m.mmap(0, 4, prot="r")
    m.clear()
    m.mmap(4, 4)
    m.mprotect(0, 4, "rw")
    assert m.areas() == [(0, 8)] and m.dirty(0, 8) == []


@pytest.mark.parametrize(("profile", "clean"), [("linux-6.1", 0x65), ("linux-6.12", 0x25 | SAVED)])
def test_clear_moves_d_only_where_there_is_saved_dirty(machine, profile: str, clean: int) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile))
    assert m.pte(0) == 1 << 63 | clean
    m.write(0)
    assert m.pte(0) == 1 << 63 | 0x867


@pytest.mark.parametrize("profile", MODERN)
def test_aligned_table_moves_leave_pages_clean(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mremap.c:move_normal_pmd"""
    m = machine(profile)
    m.mmap(0, 520)
    m.write(0, 520)
    m.clear()
    m.mremap(0, 520, 520, 1024)
    assert m.dirty(1024, 520) == list(range(1024 + 512, 1024 + 520))


@pytest.mark.parametrize(("profile", "dirty"), [("linux-6.1", 507), ("linux-6.12", 0)])
def test_6_12_realigns_a_move_to_the_table(machine, profile: str, dirty: int) -> None:  # type: ignore[no-untyped-def]
    """mm/mremap.c:try_realign_addr"""
    m = machine(profile)
    m.mmap(5, 507)
    m.write(5, 507)
    m.clear()
    m.mremap(5, 507, 507, 1024 + 5)
    assert len(m.dirty(1024, 512)) == dirty


@pytest.mark.parametrize("profile", MODERN)
def test_a_whole_gibibyte_moves_by_one_entry(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    giga = 512 * 512
    m.mmap(0, giga)
    m.write(0, 3)
    m.write(giga - 2, 2)
    m.clear()
    before = m.mm().tables.table(m.kernel.base, 2)
    m.mremap(0, giga, giga, 2 * giga)
    assert m.mm().tables.table(m.kernel.base + 2 * giga, 2) == before
    assert m.dirty(2 * giga, 8) == [] and m.read(2 * giga) == [7] and m.read(3 * giga - 1) == [7]


@pytest.mark.parametrize("profile", MODERN)
def test_single_entries_that_move_are_marked(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile))
    m.mremap(0, 4, 4, 16)
    assert m.dirty(0, 32) == [16, 17, 18, 19]


@pytest.mark.parametrize(("track", "dirty"), [("OFF", []), ("FAULT", [4]), ("NATIVE", [4])])
@pytest.mark.parametrize("profile", MODERN)
def test_stores_lost_in_shared_memory(machine, profile: str, track: str, dirty: list[int]) -> None:  # type: ignore[no-untyped-def]
    """A page read while VM_SOFTDIRTY was set is writable and unmarked; a merge takes the flag away."""
    m = machine(profile, track=Track[track], watch=True)
    m.mmap(0, 4, kind="s0", prot="r")
    m.clear()
    m.mmap(4, 4, kind="s0", file_page=4)
    m.read(4)
    assert m.pte(4) & (RW | SD) == RW
    m.mprotect(0, 4, "rw")
    assert m.areas() == [(0, 8)] and m.dirty(0, 8) == []
    m.write(4)
    assert m.dirty(0, 8) == dirty
    assert m.kernel.base + 4 in m.mm().stored


@pytest.mark.parametrize(("profile", "dirty"), [("linux-6.1", 0), ("linux-6.12", 512)])
def test_split_of_a_clean_huge_page(machine, profile: str, dirty: int) -> None:  # type: ignore[no-untyped-def]
    """mm/huge_memory.c:__split_huge_pmd_locked"""
    m = machine(profile)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    m.clear()
    assert m.pmd(0) and m.dirty(0, 512) == []
    m.mprotect(0, 8, "r")
    assert not m.pmd(0)
    assert len(m.dirty(0, 512)) == dirty


@pytest.mark.parametrize("profile", MODERN)
def test_write_to_the_huge_zero_page_gives_one_small_page(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.read(0)
    assert m.words(0, 1)[0] >> 61 & 1, "FILE"
    m.write(9)
    assert m.pte(9) & RW and m.pte(8) & SPECIAL


@pytest.mark.parametrize("profile", MODERN)
def test_collapse_is_refused_right_after_a_clear(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 512)
    m.write(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.clear()
    assert m.error(m.madvise, 0, 512, "COLLAPSE") == "EINVAL"
    m.write(3)
    m.madvise(0, 512, "COLLAPSE")
    assert m.pmd(0) and len(m.dirty(0, 512)) == 512


@pytest.mark.parametrize("profile", MODERN)
def test_fault_around(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:do_fault_around"""
    m = cleared(machine(profile), 40, "s0")
    m.madvise(0, 40, "DONTNEED")
    m.read(20)
    assert [page for page in range(40) if m.pte(page)] == list(range(16, 32))
    assert m.dirty(0, 40) == []


@pytest.mark.parametrize("profile", MODERN)
def test_pinned_pages_are_never_cleaned_and_a_child_is_born_dirty(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 2)
    m.task().pin(m.at(0), PAGE)
    m.clear()
    assert m.dirty(0, 2) == [0]
    m.fork(1)
    assert m.frame(0) != m.frame(0, 1) and m.pte(0, 1) & SD


@pytest.mark.parametrize("profile", MODERN)
def test_fork_shares_and_the_last_one_reuses(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile), 2)
    m.fork(1)
    kept = m.frame(0)
    m.write(0)
    assert m.frame(0) != kept and m.frame(0, 1) == kept
    m.write(0, who=1)
    assert m.frame(0, 1) == kept, "exclusive again"
    assert m.dirty(0, 2) == [0] and m.dirty(0, 2, 1) == [0]


@pytest.mark.parametrize(("profile", "back"), [("linux-6.1", 0x825), ("linux-6.12", 0x827)])
def test_read_swap_in_of_a_soft_dirty_page(machine, profile: str, back: int) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile), 2)
    m.write(0)
    m.madvise(0, 2, "PAGEOUT")
    assert m.words(0, 2)[0] >> 62 == 1 and m.dirty(0, 2) == [0]
    assert m.read(0, 2) == [7, 7]
    assert m.pte(0) == 1 << 63 | back and m.pte(1) == 1 << 63 | 0x25


@pytest.mark.parametrize("profile", MODERN)
def test_uffd_wp_refuses_writes(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile))
    fd = m.task().userfaultfd()
    fd.register(m.at(0), 4 * PAGE)
    fd.writeprotect(m.at(0), 2 * PAGE)
    assert m.write(0, 4) == ["bus", "bus", "ok", "ok"]
    assert m.pte(0) & (UFFD_WP | RW | SD) == UFFD_WP
    assert m.words(0, 1)[0] >> 57 & 1
    fd.writeprotect(m.at(0), 2 * PAGE, protect=False)
    assert m.write(0) == ["ok"]


def test_async_uffd_wp_lets_writes_through(machine) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine("linux-6.12"))
    fd = m.task().userfaultfd(asynchronous=True)
    fd.register(m.at(0), 4 * PAGE)
    fd.writeprotect(m.at(0), 4 * PAGE)
    assert m.write(1) == ["ok"]
    assert [bool(m.pte(page) & UFFD_WP) for page in range(4)] == [True, False, True, True]
    assert m.dirty(0, 4) == [1]


@pytest.mark.parametrize("profile", MODERN)
def test_hugetlb_is_dirty_by_its_area_only(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    assert len(m.dirty(0, 512)) == 512
    m.clear()
    m.write(0)
    assert m.dirty(0, 512) == []


def test_hugetlb_pool_is_limited(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-6.1")
    assert m.error(m.mmap, 0, 9 * 512, kind="hugetlb") == "ENOMEM"
    m.mmap(0, 8 * 512, kind="hugetlb")
    assert m.error(m.munmap, 0, 100) == "EINVAL"


def test_migration_marks_clean_pages_on_6_1_only(machine) -> None:  # type: ignore[no-untyped-def]
    for profile, dirty in (("linux-6.1", [0]), ("linux-6.12", [])):
        m = cleared(machine(profile), 1)
        assert m.task().move_pages(m.at(0), PAGE, 1) == [1]
        assert m.dirty(0, 1) == dirty and m.read(0) == [7]


def test_madvise_free_keeps_the_mark(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-6.1")
    m.mmap(0, 1)
    m.write(0)
    m.madvise(0, 1, "FREE")
    assert m.pte(0) == 1 << 63 | 0x807
    m.madvise(0, 1, "PAGEOUT")
    assert m.pte(0) == 0 and m.read(0) == [0], "clean lazy pages are dropped"


def test_stack_grows_without_vm_softdirty(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-6.1")
    m.mmap(40, 8, flags=["growsdown"])
    m.clear()
    assert m.write(30) == ["ok"]
    assert m.areas() == [(30, 18)] and m.dirty(0, 64) == [30]


def test_protection_keys(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("linux-6.1")
    m.mmap(0, 2)
    m.write(0)
    m.task().pkey_mprotect(m.at(0), 2 * PAGE, "rw", 3)
    assert m.pte(0) >> 59 & 0xF == 3
    m.task().wrpkru(3, 2)
    assert m.read(0) == [7] and m.write(0) == ["pkuerr"]
    assert m.read(1) == ["pkuerr"], "the signal handler left every key but 0 disabled; nothing was mapped"
    assert m.pte(1) == 0


@pytest.mark.parametrize("profile", MODERN)
def test_error_numbers(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 4)
    m.mmap(8, 4)
    assert m.error(m.munmap, 0, 0) == "EINVAL"
    assert m.error(m.mprotect, 0, 8, "r") == "ENOMEM"
    assert m.error(m.madvise, 0, 12, "DONTNEED") == "ENOMEM"
    assert m.error(m.kernel.madvise, m.task().process, m.kernel.base, 4, "NONSENSE") == "EINVAL"
    assert m.error(m.mremap, 0, 4, 8, 0, []) is None
    assert m.error(m.mremap, 0, 12, 12, 64) == "EFAULT"
    assert m.error(m.mremap, 40, 1, 1, 40) == "EFAULT", "EFAULT before the overlap"
    assert m.error(m.mremap, 8, 0, 4, 64) == "EINVAL", "only shared memory is duplicated"
    assert m.write(200) == ["maperr"]
    m.mprotect(8, 1, "r")
    assert m.write(8) == ["accerr"]
    assert m.machine.file(0).pread(1, 8) == b"\0"


@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_feature_off(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile, soft_dirty=False)
    m.mmap(0, 4)
    m.write(0, 4)
    before = m.pte(0)
    m.clear()
    assert m.pte(0) == before and not before & SD
    m.mremap(0, 4, 4, 16)
    assert m.dirty(0, 32) == []


def test_children_of_shared_memory_have_no_entries(machine) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine("linux-6.1"), 2, "sanon")
    m.write(0)
    m.fork(1)
    assert m.dirty(0, 2, 1) == [] and m.read(0, who=1) == [7]


def test_ksm_splits_huge_pages_and_shares_a_page_256_times(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/ksm.c:try_to_merge_one_page, max_page_sharing; measured on 6.1 and 6.12."""
    m = machine("linux-6.1")
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.madvise(0, 512, "MERGEABLE")
    m.write(0)
    m.machine.ksm_scan()
    frames = [m.frame(page) for page in range(512)]
    runs = [(frame, len(list(pages))) for frame, pages in itertools.groupby(frames)]
    alone, first, second = frames[:3]
    assert runs == [(alone, 1), (first, 1), (second, 1), (first, 255), (second, 254)]


def test_reclaim_unmaps_a_pinned_shared_page_and_keeps_its_frame(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/vmscan.c:shrink_folio_list: the pin is looked at behind try_to_unmap; of anonymous memory, before."""
    for kind, gone in (("sanon", True), ("anon", False)):
        m = machine("linux-6.12")
        m.mmap(0, 1, kind=kind)
        m.write(0)
        frame = m.frame(0)
        m.task().pin(m.at(0), PAGE)
        m.madvise(0, 1, "PAGEOUT")
        assert (m.pte(0) == 0) is gone
        assert m.read(0) == [7]
        assert m.frame(0) == frame


def test_collapse_wants_memory_that_was_written_once(machine) -> None:  # type: ignore[no-untyped-def]
    """mm/huge_memory.c:hugepage_vma_check: an area without anon_vma is refused, even where nothing would be done."""
    for profile in MODERN:
        m = machine(profile)
        m.mmap(100, 1024)
        m.madvise(100, 1024, "HUGEPAGE")
        assert m.error(m.madvise, 520, 510, "COLLAPSE") == "EINVAL"
        m.write(100)
        assert m.error(m.madvise, 520, 510, "COLLAPSE") is None
