"""Rules of clear_refs and of VM_SOFTDIRTY: what areas have and give, as docs/rules.md has them."""

from __future__ import annotations

import pytest

from ptewalk.model.proc import smaps

from .situations import MODERN, PROTNONE, RW, SD, A, B, C, D, cleared, every, huge, lock, modern

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


@modern
def test_a_shared_mapping_of_a_file_that_is_open_for_reading_is_not_shared_memory(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """mm/mmap.c:do_mmap: VM_MAYSHARE stays, VM_SHARED and VM_MAYWRITE go"""
    m = machine(profile)
    kernel, process = m.kernel, m.kernel.processes[0]
    kernel.mmap(process, 0, 2, "r", "r1", 0, [])
    area = process.mm.areas.lookup(0)
    assert smaps.permissions(area) == "r--s"
    assert smaps.flag_names(area)[:4] == ["rd", "mr", "me", "ms"]
