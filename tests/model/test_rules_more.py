"""Rules of docs/rules.md that no other test holds: mostly 6.1 and 6.12, each with its source in the kernel."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE
from ptewalk.model.linux import ScanCategory, ScanFlag
from ptewalk.model.proc.pagemap_scan import Answer, Argument
from ptewalk.model.profiles import PROFILES

RW, A, D, PROTNONE, SPECIAL, UFFD_WP, SD = 0x2, 0x20, 0x40, 0x100, 0x200, 0x400, 0x800
SAVED = 1 << 58
SEED, B, C = "linux-seed", "linux-6.1", "linux-6.12"
OLD, MODERN = [SEED, "linux-3.11"], [B, C]
old = pytest.mark.parametrize("profile", OLD)
modern = pytest.mark.parametrize("profile", MODERN)
every = pytest.mark.parametrize("profile", OLD + MODERN)


def cleared(m, n: int = 4, kind: str = "anon"):  # type: ignore[no-untyped-def]
    """Written pages, cleared."""
    m.mmap(0, n, kind=kind)
    m.write(0, n)
    m.clear()
    return m


def huge(m, *, clear: bool = True):  # type: ignore[no-untyped-def]
    """One written huge page, cleared."""
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    if clear:
        m.clear()
    return m


def lock(m, page: int, n: int, *, on: bool = True) -> None:  # type: ignore[no-untyped-def]
    (m.task().mlock if on else m.task().munlock)(m.at(page), n * PAGE)


def wp(m, page: int, n: int, *, protect: bool = True, asynchronous: bool = False) -> None:  # type: ignore[no-untyped-def]
    """Register with a userfaultfd and write-protect."""
    fd = m.task().userfaultfd(asynchronous=asynchronous)
    fd.register(m.at(page), n * PAGE)
    if protect:
        fd.writeprotect(m.at(page), n * PAGE)


def scan(m, page: int, n: int, **fields: int) -> Answer:  # type: ignore[no-untyped-def]
    first = m.kernel.base + page
    answer: Answer = m.kernel.pagemap_scan(m.kernel.processes[0], Argument(first << 12, first + n << 12, **fields))
    answer.regions = [(start - m.kernel.base, pages, categories) for start, pages, categories in answer.regions]
    return answer


# clear_refs.


@modern
def test_clear_takes_swap_entries_and_prot_none_too(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:clear_soft_dirty"""
    m = machine(profile)
    m.mmap(0, 3)
    m.write(0, 3)
    m.madvise(0, 1, "PAGEOUT")
    m.mprotect(1, 1, "-")
    assert m.pte(1) & (PROTNONE | SD) == PROTNONE | SD
    m.clear()
    assert m.dirty(0, 3) == []
    assert not m.pte(1) & SD and m.words(1, 1)[0] >> 63, "PROT_NONE is present"
    assert m.read(0) == [7] and not m.pte(0) & SD


@every
def test_an_ordinary_user_clears_only_its_own(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/base.c: /proc/PID/clear_refs has mode 0200 and the process's owner"""
    m = machine(profile)
    m.mmap(0, 1)
    m.write(0)
    m.fork(1)
    m.task(1).setuid()
    m.fork(2, who=1)
    user, root = m.task(2), m.task()
    assert m.error(root.clear_refs, "4", writer=user) == "EACCES"
    assert m.dirty(0, 1) == [0]
    assert [m.task(who).clear_refs("4", writer=user) for who in (1, 2)] == [1, 1]
    assert m.task(1).clear_refs("4", writer=root) == 1


@modern
@pytest.mark.parametrize("value", ["1", "2", "3", "5"])
def test_other_values_leave_soft_dirty(machine, profile: str, value: str) -> None:  # type: ignore[no-untyped-def]
    m = huge(machine(profile), clear=False)
    m.mmap(600, 2)
    m.write(600, 2)
    m.clear(value)
    assert m.pmd(0) & SD, "not split"
    assert m.pte(600) & (RW | D | SD) == RW | D | SD
    assert bool(m.pte(600) & A) == (value in "35")
    assert len(m.dirty(0, 1024)) == 514


# Areas.


@modern
def test_growth_and_moves_leave_vm_softdirty(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mremap.c:move_vma, vma_to_resize: the flag is copied, never set."""
    m = cleared(machine(profile))
    m.mremap(0, 4, 8, 0, [])
    assert m.areas() == [(0, 8)] and m.dirty(0, 8) == []
    m.mremap(0, 8, 12, 32)
    assert m.areas() == [(32, 12)] and m.dirty(0, 64) == [32, 33, 34, 35]


@modern
def test_dontunmap_leaves_a_clean_empty_area(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = cleared(machine(profile))
    m.mremap(0, 4, 4, 16, ("MAYMOVE", "FIXED", "DONTUNMAP"))
    assert m.areas() == [(0, 4), (16, 4)] and m.dirty(0, 32) == [16, 17, 18, 19]
    assert m.read(0) == [0] and m.read(16) == [7]


@modern
@pytest.mark.parametrize("call", ["mlock", "madvise"])
def test_other_merges_spread_and_erase_the_flag(machine, profile: str, call: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mlock.c:mlock_fixup, mm/madvise.c:madvise_update_vma: the flags of the part that the call was for win."""
    for spreads in (True, False):
        m = machine(profile)

        def change(page: int, *, on: bool, m=m) -> None:  # type: ignore[no-untyped-def]
            if call == "mlock":
                lock(m, page, 4, on=on)
            else:
                m.madvise(page, 4, "SEQUENTIAL" if on else "NORMAL")

        m.mmap(0, 4, prot="r")
        change(0, on=True)
        m.clear()
        m.mmap(4, 4, prot="r")
        assert m.dirty(0, 8) == [4, 5, 6, 7]
        change(4 if spreads else 0, on=spreads)
        assert m.areas() == [(0, 8)]
        assert m.dirty(0, 8) == (list(range(8)) if spreads else [])


@modern
def test_a_moved_area_takes_its_neighbours_flag(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mmap.c:copy_vma"""
    m = machine(profile)
    m.mmap(0, 4)
    m.clear()
    m.mmap(16, 4)
    assert m.dirty(0, 32) == [16, 17, 18, 19]
    m.mremap(16, 4, 4, 4)
    assert m.areas() == [(0, 8)] and m.dirty(0, 32) == [], "new memory reads clean"


@pytest.mark.parametrize(("profile", "areas"), [(B, [(0, 3), (3, 5)]), (C, [(0, 5), (5, 3)])])
def test_which_neighbour_a_new_area_joins(machine, profile: str, areas: list[tuple[int, int]]) -> None:  # type: ignore[no-untyped-def]
    """mm/mmap.c:mmap_region of 6.1, mm/vma.c:vma_merge_new_range of 6.12, where the anon_vmas forbid joining both."""
    m = machine(profile)
    m.mmap(0, 3)
    m.mmap(5, 3)
    m.write(0, 3)
    m.write(5, 3)
    m.clear()
    m.mmap(3, 2)
    assert m.areas() == areas
    (start, size) = next(area for area in areas if area[1] == 5)
    assert m.dirty(0, 8) == list(range(start, start + size))


@modern
def test_accounting_forbids_a_merge(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """VM_ACCOUNT counts in is_mergeable_vma, VM_SOFTDIRTY does not."""
    m = machine(profile)
    m.mmap(0, 4)
    m.write(0)
    m.mprotect(0, 4, "r")
    m.mmap(4, 4, prot="r")
    assert m.areas() == [(0, 4), (4, 4)]


@modern
def test_splits_and_forks_copy_the_flag(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 4)
    m.fork(1)
    m.mprotect(1, 1, "r")
    assert m.dirty(0, 4) == m.dirty(0, 4, 1) == [0, 1, 2, 3]


@modern
def test_nothing_but_the_entry_goes_with_the_contents(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:zap_pte_range: the mark goes, the area's flag stays as it is."""
    m = machine(profile)
    m.mmap(0, 2)
    m.write(0)
    m.madvise(0, 1, "DONTNEED")
    assert m.dirty(0, 2) == [0, 1]
    m.clear()
    m.write(0)
    m.madvise(0, 1, "DONTNEED")
    assert m.words(0, 2) == [0, 0]


# Faults.


@modern
def test_first_touches(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:do_anonymous_page, do_cow_fault, do_read_fault"""
    m = machine(profile)
    m.mmap(0, 2)
    m.mmap(8, 2, kind="p0")
    m.clear()
    m.read(0)
    m.write(1)
    m.read(8)
    m.write(9)
    assert [m.pte(page) & (RW | D | SD | SPECIAL) for page in (0, 1, 8, 9)] == [SPECIAL, RW | D | SD, 0, RW | D | SD]
    assert m.dirty(0, 16) == [1, 9]
    m.write(0)
    m.write(8)
    assert m.dirty(0, 16) == [0, 1, 8, 9], "both were copied"


@modern
def test_shared_memory_wants_to_see_the_first_write(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mmap.c:vma_wants_writenotify: only while the area is not VM_SOFTDIRTY."""
    m = machine(profile)
    m.mmap(0, 32, kind="s0")
    m.read(0)
    assert m.pte(0) & (RW | D | SD) == RW, "writable while the area is dirty as a whole"
    m.clear()
    assert not m.pte(0) & RW
    m.read(16)
    assert not m.pte(16) & RW
    m.write(0)
    assert m.dirty(0, 32) == [0] and m.pte(0) & (RW | D | SD) == RW | D | SD


@modern
def test_a_stale_write_fault_marks(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:handle_pte_fault: a write fault of a writable entry is pte_mkdirty."""
    from ptewalk.model.mm import faults

    m = machine(profile)
    m.mmap(0, 16, kind="s0")
    m.read(0)
    vma = m.mm().areas.lookup(m.kernel.base)
    assert faults.handle_mm_fault(m.mm(), vma, m.kernel.base, True) is None
    assert m.pte(0) & (RW | D | SD) == RW | D | SD


@every
def test_a_write_marks_the_mapping_that_it_went_through(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """Another mapping of the page is left as it is, and so are both by write(2) to the file."""
    m = machine(profile)
    m.mmap(0, 1, kind="s0")
    m.mmap(8, 1, kind="s0")
    m.write(0)
    m.write(8)
    m.clear()
    m.write(8)
    assert m.dirty(0, 16) == [8]
    m.clear()
    m.machine.file(0).pwrite(b"\x03", 8)
    assert m.read(0) == [3] and m.dirty(0, 16) == []


# mprotect.


@modern
def test_mprotect_keeps_marks_and_gives_rw_to_marked_pages_only(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mprotect.c:can_change_pte_writable"""
    m = cleared(machine(profile), 2)
    m.write(1)
    for prot in ("r", "rw"):
        m.mprotect(0, 2, prot)
        assert m.dirty(0, 2) == [1]
    assert [m.pte(page) & RW for page in (0, 1)] == [0, RW]
    m.mprotect(0, 2, "-")
    m.mprotect(0, 2, "rw")
    assert m.dirty(0, 2) == [1]
    m.write(0)
    assert m.dirty(0, 2) == [0, 1]


@pytest.mark.parametrize(("profile", "writable"), [(B, False), (C, True)])
def test_mprotect_of_a_marked_huge_page(machine, profile: str, writable: bool) -> None:  # type: ignore[no-untyped-def]
    """mm/huge_memory.c:change_huge_pmd; 6.12 knows can_change_pmd_writable."""
    m = huge(machine(profile), clear=False)
    m.clear()
    m.write(0)
    m.mprotect(0, 512, "r")
    m.mprotect(0, 512, "rw")
    assert bool(m.pmd(0) & RW) is writable and m.pmd(0) & SD


# mremap.


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


def child_has_alone(m, n: int = 1, flags: tuple[str, ...] = ()):  # type: ignore[no-untyped-def]
    """Pages that a child shares with nobody any more: the parent has written, and so copied them."""
    m.mmap(0, n, flags=flags)
    m.write(0, n)
    m.fork(1)
    m.write(0, n)
    return m


def keeps_frame(m, page: int) -> bool:  # type: ignore[no-untyped-def]
    before = m.frame(page, who=1)
    m.write(page, who=1)
    return bool(m.frame(page, who=1) == before)


@modern
def test_a_page_in_a_batch_is_copied(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mlock.c:munlock_page, mm/swap.c:mark_page_lazyfree, deactivate_page, folio_mark_accessed"""
    assert keeps_frame(child_has_alone(machine(profile)), 0)
    assert not keeps_frame(child_has_alone(machine(profile), flags=("locked",)), 0)

    m = child_has_alone(machine(profile))
    m.madvise(0, 1, "FREE", who=1)
    assert not keeps_frame(m, 0)

    m = child_has_alone(machine(profile))
    m.madvise(0, 1, "COLD", who=1)
    assert keeps_frame(m, 0) == (profile == B)

    m = child_has_alone(machine(profile))
    [m.task(1).mem_read(m.at(0) + 8) for _ in range(2)]
    assert keeps_frame(m, 0) == (profile == C)


@modern
@pytest.mark.parametrize("drain", ["munmap", "WILLNEED", "POPULATE_READ", "exit", "mlock"])
def test_what_empties_the_batches(machine, profile: str, drain: str) -> None:  # type: ignore[no-untyped-def]
    """mm/swap.c:lru_add_drain"""
    m = machine(profile)
    m.mmap(8, 2)
    child_has_alone(m, flags=("locked",))
    if drain == "munmap":
        m.munmap(8, 1)
    elif drain == "exit":
        m.task(0).exit()
    elif drain == "mlock":
        lock(m, 8, 1)
    else:
        m.madvise(8, 1, drain)
    assert keeps_frame(m, 0)


@modern
def test_a_full_batch_is_emptied(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """A locked page's copy enters the batch, then the old page: the odd one that fills it is a copy."""
    last = PROFILES[profile].lru_batch // 2
    m = child_has_alone(machine(profile), last + 1, flags=("locked",))
    assert keeps_frame(m, 0) and keeps_frame(m, last - 1)
    assert not keeps_frame(m, last)


# Huge pages.


@modern
def test_one_byte_marks_two_mebibytes(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = huge(machine(profile))
    assert m.pmd(0) & (RW | SD) == 0
    m.write(300)
    assert m.pmd(0) & (RW | D | SD) == RW | D | SD and len(m.dirty(0, 512)) == 512


# Swap.


@every
def test_a_write_swap_in_marks(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/memory.c:do_swap_page"""
    m = cleared(machine(profile), 1)
    m.madvise(0, 1, "PAGEOUT")
    m.write(0)
    assert m.pte(0) & (RW | D | SD) == RW | D | SD


@every
def test_shared_memory_in_swap_leaves_nothing(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/shmem.c:shmem_writepage, mm/rmap.c:try_to_unmap_one"""
    m = cleared(machine(profile), 1, "s0")
    m.write(0)
    m.madvise(0, 1, "PAGEOUT")
    assert m.pte(0) == 0 and m.dirty(0, 1) == []
    assert m.read(0) == [7]


@every
def test_swapoff_brings_pages_back_read_only_and_old(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/swapfile.c:unuse_pte"""
    m = machine(profile)
    m.mmap(0, 1)
    m.write(0)
    m.madvise(0, 1, "PAGEOUT")
    m.machine.swapoff()
    assert m.pte(0) & (RW | A | D) == 0 and m.read(0) == [7]


@pytest.mark.parametrize(("profile", "left"), [(B, SD), (C, 0)])
def test_a_refused_write_to_a_swapped_page(machine, profile: str, left: int) -> None:  # type: ignore[no-untyped-def]
    """6.1 marks before it looks at userfaultfd's protection."""
    m = cleared(machine(profile), 1)
    wp(m, 0, 1)
    m.madvise(0, 1, "PAGEOUT")
    assert m.write(0) == ["bus"]
    assert m.pte(0) & (UFFD_WP | RW) == UFFD_WP and m.pte(0) & SD == left


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


# userfaultfd.


@modern
def test_protection_of_file_memory_survives_as_a_marker(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pte_to_pagemap_entry: a marker reads as swapped, with no swap."""
    m = cleared(machine(profile), 1, "s0")
    wp(m, 0, 1)
    m.madvise(0, 1, "DONTNEED")
    assert m.mm().entries.is_marker(m.mm().tables.get(m.kernel.base))
    assert [m.words(0, 1)[0] >> bit & 1 for bit in (63, 62, 57, 55)] == [0, 1, 1, 0]


@modern
def test_write_protection_leaves_both_dirty_bits(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 1)
    m.write(0)
    wp(m, 0, 1)
    assert m.pte(0) & (RW | SD | UFFD_WP) == SD | UFFD_WP and m.pte(0) & (D | SAVED)
    m.clear()
    assert m.pte(0) & (SD | UFFD_WP) == UFFD_WP


# get_user_pages.


@modern
def test_the_kernels_own_writes_mark(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/gup.c:__get_user_pages: mlock, populate and forced writes of private memory are write faults."""
    m = cleared(machine(profile), 4)
    m.mprotect(0, 4, "r")
    assert m.mem_write(0) == ["ok"] and m.pte(0) & (RW | SD) == SD
    m.mprotect(0, 4, "rw")
    m.madvise(1, 1, "POPULATE_READ")
    assert m.dirty(0, 4) == [0]
    m.madvise(1, 1, "POPULATE_WRITE")
    lock(m, 2, 1)
    assert m.task().read_into(m.at(3), b"\x01") == 1
    assert m.dirty(0, 4) == [0, 1, 2, 3]


@modern
def test_mlock_of_shared_or_read_only_memory_marks_nothing(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 2, kind="s0")
    m.mmap(8, 2, prot="r")
    m.clear()
    lock(m, 0, 2)
    lock(m, 8, 2)
    assert m.pte(0) and m.pte(8) and m.dirty(0, 16) == []


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


# PAGEMAP_SCAN.


def test_scan_takes_soft_dirty_from_the_area_too(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_scan_test_walk"""
    m = machine(C)
    m.mmap(0, 4)
    assert scan(m, 0, 4, category_mask=ScanCategory.SOFT_DIRTY).regions == [(0, 4, int(ScanCategory.SOFT_DIRTY))]
    m.clear()
    m.write(2)
    (region,) = scan(m, 0, 4, category_mask=ScanCategory.SOFT_DIRTY).regions
    assert region[:2] == (2, 1) and region[2] & ScanCategory.SOFT_DIRTY


def test_scan_reports_the_raw_bit_of_hugetlb(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_hugetlb_category; pagemap does not look at it."""
    m = machine(C)
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    m.clear()
    assert m.dirty(0, 512) == []
    assert scan(m, 0, 512, category_mask=ScanCategory.SOFT_DIRTY).regions[0][:2] == (0, 512)


def test_scan_calls_holes_written_where_there_is_a_table(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(C)
    m.mmap(0, 8)
    m.clear()
    assert scan(m, 0, 8, category_mask=ScanCategory.WRITTEN).regions == []
    m.write(3)
    assert [region[:2] for region in scan(m, 0, 8, category_mask=ScanCategory.WRITTEN).regions] == [
        (0, 3),
        (3, 1),
        (4, 4),
    ]


def test_scan_protects_what_it_found_and_leaves_soft_dirty(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:make_uffd_wp_pte: a second tracker, beside soft-dirty."""
    m = cleared(machine(C), 4)
    wp(m, 0, 4, asynchronous=True)
    m.write(1, 2)
    both = {"category_mask": ScanCategory.WRITTEN, "return_mask": ScanCategory.WRITTEN}
    found = scan(m, 0, 4, flags=ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC, **both)
    assert [region[:2] for region in found.regions] == [(1, 2)]
    assert all(m.pte(page) & UFFD_WP for page in range(4)) and m.dirty(0, 4) == [1, 2]
    assert scan(m, 0, 4, **both).regions == []
    m.clear()
    assert all(m.pte(page) & UFFD_WP for page in range(4))


def test_scan_needs_asynchronous_protection(machine) -> None:  # type: ignore[no-untyped-def]
    """EPERM with CHECK_WPASYNC; 6.1 has no such call."""
    m = cleared(machine(C), 4)
    assert scan(m, 0, 4, flags=ScanFlag.CHECK_WPASYNC).error == "EPERM"
    before = machine(B)
    assert before.error(scan, before, 0, 4) == "ENOTTY"


def test_scan_that_protects_a_part_of_a_huge_page_marks_all(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_scan_thp_entry splits, and 6.12's split marks."""
    m = huge(machine(C))
    wp(m, 0, 512, protect=False, asynchronous=True)
    assert m.dirty(0, 512) == []
    scan(m, 0, 8, flags=ScanFlag.WP_MATCHING, category_mask=ScanCategory.WRITTEN)
    assert not m.pmd(0) and len(m.dirty(0, 512)) == 512


def test_a_full_scan_buffer_leaves_walk_end_behind(machine) -> None:  # type: ignore[no-untyped-def]
    """More than 512 regions: walk_end is that of the last flush although all of the range was answered."""
    m = machine(C)
    m.mmap(0, 2048)
    m.clear()
    for page in range(0, 1300, 2):
        m.write(page)
    answer = scan(m, 0, 2048, category_mask=ScanCategory.SOFT_DIRTY)
    assert len(answer.regions) == 650
    assert answer.walk_end == m.kernel.base + 1024 << 12


# CONFIG_MEM_SOFT_DIRTY=n.


@every
def test_feature_off_by_every_way(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """No bit, no flag; 4 is accepted and still splits huge pages where clear_refs does."""
    m = machine(profile, soft_dirty=False)
    huge(m, clear=False)
    m.mmap(600, 2, kind="s0")
    m.write(600, 2)
    m.madvise(0, 512, "NOHUGEPAGE")
    assert m.clear() == 1
    assert bool(m.pmd(0)) == (profile in MODERN)
    assert m.pte(600) & (RW | SD) == RW
    m.mremap(600, 2, 2, 700)
    m.fork(1)
    assert m.dirty(0, 1024) == m.dirty(0, 1024, 1) == []
