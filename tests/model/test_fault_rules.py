"""Rules of faults, of mprotect, of swap, and of the kernel's own writes."""

from __future__ import annotations

import pytest

from ptewalk.model.profiles import PROFILES

from .situations import RW, SD, SPECIAL, UFFD_WP, A, B, C, D, cleared, every, huge, lock, modern, wp

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
