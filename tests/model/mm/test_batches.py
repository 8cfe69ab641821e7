"""What a page leaves behind where nobody looks: LRU batches, pins, and the dirtiness of unmapped pages."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptewalk.model import PAGE, Machine, Task
from ptewalk.model.mm import faults

MODERN = ("linux-6.1", "linux-6.12")
AT, OTHER, HUGE = 0x1000_0000_0000, 0x1000_0100_0000, 0x1000_0200_0000
A, D, RW, SD = 0x20, 0x40, 0x2, 0x800
modern = pytest.mark.parametrize("profile", MODERN)


def child_alone(profile: str) -> tuple[Machine, Task, Task]:
    """A child with a page of its own, which waits in a batch since the parent copied it away; and other memory."""
    machine = Machine(profile)
    parent = machine.spawn()
    parent.mmap(2 * PAGE, at=OTHER)
    parent.write(OTHER, 2 * PAGE)
    parent.mmap(512 * PAGE, at=HUGE)
    parent.write(HUGE, 512 * PAGE)
    parent.mmap(PAGE, flags="LOCKED", at=AT)
    parent.write(AT)
    child = parent.fork()
    parent.write(AT)
    return machine, parent, child


def is_copied(task: Task) -> bool:
    """A write fault of the page copies it, for it seems to be in use elsewhere (mm/memory.c:do_wp_page)."""
    before = task.pagemap(AT).frame[0]
    task.write(AT)
    return bool(task.pagemap(AT).frame[0] != before)


DRAINS: dict[str, Callable[[Machine, Task], object]] = {
    "mm/madvise.c:madvise_free_single_vma": lambda m, t: t.madvise(OTHER, PAGE, "FREE"),
    "mm/madvise.c:madvise_cold": lambda m, t: t.madvise(OTHER, PAGE, "COLD"),
    "mm/madvise.c:madvise_pageout": lambda m, t: t.madvise(OTHER, PAGE, "PAGEOUT"),
    "mm/khugepaged.c:madvise_collapse": lambda m, t: (t.write(HUGE), t.madvise(HUGE, 512 * PAGE, "COLLAPSE")),
    "mm/ksm.c:scan_get_next_rmap_item": lambda m, t: m.ksm_scan(),
    "mm/migrate.c:do_pages_move": lambda m, t: t.move_pages(OTHER, PAGE, 1),
    "mm/gup.c:__mm_populate": lambda m, t: t.mmap(PAGE, flags="POPULATE"),
    "mm/memory.c:unmap_page_range": lambda m, t: t.madvise(OTHER, PAGE, "DONTNEED"),
    "kernel/fork.c:dup_mmap": lambda m, t: t.fork(),
}


@pytest.mark.thorough
@modern
@pytest.mark.parametrize("call", DRAINS)
def test_calls_that_empty_the_batches(profile: str, call: str) -> None:
    """lru_add_drain and lru_add_drain_all, from the functions named."""
    assert is_copied(child_alone(profile)[2]), "in a batch"
    machine, parent, child = child_alone(profile)
    DRAINS[call](machine, parent)
    assert not is_copied(child)


@modern
def test_calls_that_do_not(profile: str) -> None:
    for call in (
        lambda task: task.mprotect(OTHER, PAGE, "r"),
        lambda task: task.read(OTHER),
        lambda task: task.clear_refs(1),
        lambda task: task.madvise(OTHER, PAGE, "SEQUENTIAL"),
    ):
        _, parent, child = child_alone(profile)
        call(parent)
        assert is_copied(child)


@modern
def test_a_process_that_ends_unpins(profile: str) -> None:
    """io_uring/io_uring.c:io_ring_exit_work: the page may move again."""
    machine = Machine(profile)
    task = machine.spawn()
    task.mmap(PAGE, "rw", "shared", at=AT)
    task.write(AT)
    child = task.fork()
    child.pin(AT, PAGE)
    frame = task.pagemap(AT).frame[0]
    task.move_pages(AT, PAGE, 1)
    assert task.pagemap(AT).frame[0] == frame
    child.exit()
    assert task.move_pages(AT, PAGE, 1) == [1]
    assert task.pagemap(AT).frame[0] != frame


@modern
def test_a_pinned_page_outlives_its_mapping(profile: str) -> None:
    """mm/gup.c:unpin_user_page: the last user frees it."""
    machine = Machine(profile)
    task = machine.spawn()
    task.mmap(PAGE, at=AT)
    task.pin(AT, PAGE)
    frame = int(task.pagemap(AT).frame[0])
    task.munmap(AT, PAGE)
    assert machine.kernel.frames.flags[frame], "the device still writes to it"
    task.unpin(AT)
    assert not machine.kernel.frames.flags[frame]


@modern
def test_a_fault_that_only_touches_a_huge_page(profile: str) -> None:
    """mm/huge_memory.c:huge_pmd_set_accessed: by a write fault of a writable leaf A, D and soft-dirty come."""
    task = Machine(profile).spawn()
    task.mmap(512 * PAGE, at=HUGE)
    task.madvise(HUGE, 512 * PAGE, "HUGEPAGE")
    task.write(HUGE)
    mm = task.process.mm
    page = HUGE // PAGE
    vma = mm.areas.lookup(page)
    assert vma is not None
    bare = task.entries(HUGE)[0].entry & ~(A | D | SD)
    for write, added in ((False, 0), (True, A | D | SD)):
        mm.tables.set_huge(page, bare)
        assert faults.handle_mm_fault(mm, vma, page + 5, write) is None
        assert task.entries(HUGE)[0].entry == bare | added


@pytest.mark.parametrize("profile", ["linux-seed", "linux-3.11"])
def test_a_disk_page_stays_dirty_when_it_is_unmapped(profile: str) -> None:
    """mm/rmap.c:try_to_unmap_one: D goes to the page, which reclaim then leaves in the page cache."""
    machine = Machine(profile)
    task, disk = machine.spawn(), machine.file(4)
    task.mmap(2 * PAGE, "rw", "shared", file=disk, at=AT)
    task.write(AT)
    task.read(AT + PAGE)
    for _ in range(2):
        task.madvise(AT, 2 * PAGE, "PAGEOUT")
        assert not task.pagemap(AT, 2 * PAGE).present.any()
        cached = machine.kernel.files.open("4").cache
        assert 0 in cached and 1 not in cached, "written, and only read"
        task.read(AT, 2 * PAGE)
    disk.fsync()
    task.madvise(AT, 2 * PAGE, "PAGEOUT")
    assert 0 not in machine.kernel.files.open("4").cache
    assert task.read(AT) == b"\1"
