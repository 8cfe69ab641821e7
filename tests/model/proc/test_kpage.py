"""/proc/kpageflags and kpagecount."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Machine

from ..api_tasks import AT
from ..served import bits, frame_words, words


@pytest.mark.parametrize(("profile", "more"), [("linux-3.11", 0), ("linux-6.1", bits("EXCLUSIVE"))])
def test_frames_of_anonymous_memory(profile: str, more: int) -> None:
    plain = bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED")
    task = Machine(profile).spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, 2 * PAGE)
    assert frame_words(task, 0) == (plain | more, 1)
    child = task.fork()
    assert frame_words(task, 0) == frame_words(child, 0) == (plain, 2)
    task.write(AT)
    assert frame_words(task, 0) == (plain | more, 1)


def test_every_anonymous_page_of_6_12_says_ksm() -> None:
    task = Machine("linux-6.12").spawn()
    task.mmap(PAGE, at=AT)
    task.write(AT)
    assert frame_words(task, 0)[0] & bits("KSM")


def test_frames_that_ksm_merged() -> None:
    machine = Machine("linux-6.1")
    task = machine.spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, b"\x5a" * 4 * PAGE)
    assert not frame_words(task, 0)[0] & bits("KSM")
    task.madvise(AT, 4 * PAGE, "MERGEABLE")
    machine.ksm_scan()
    flags, count = frame_words(task, 0)
    assert (flags & bits("KSM"), count) == (bits("KSM"), 4)


@pytest.mark.parametrize(
    ("profile", "zero"), [("linux-3.11", bits("RESERVED")), ("linux-6.1", bits("RESERVED", "ZERO_PAGE"))]
)
def test_frames_of_zero_pages_files_and_hugetlb(profile: str, zero: int) -> None:
    machine = Machine(profile)
    task = machine.spawn()
    task.mmap(PAGE, at=AT)
    task.read(AT)
    assert frame_words(task, 0) == (zero, 0)
    task.mmap(2 * PAGE, "rw", "shared", file=machine.file(1), at=AT + 16 * PAGE)
    task.write(AT + 16 * PAGE)
    assert frame_words(task, 16) == (bits("UPTODATE", "DIRTY", "MMAP", "SWAPBACKED"), 1)
    task.mmap(2 * PAGE, "rw", "shared", file=machine.file(4), at=AT + 32 * PAGE)
    task.write(AT + 32 * PAGE)
    assert frame_words(task, 32) == (bits("UPTODATE", "DIRTY", "MMAP"), 1)
    task.mmap(512 * PAGE, flags="HUGETLB", at=AT + 512 * PAGE)
    task.write(AT + 512 * PAGE)
    assert frame_words(task, 512)[0] & bits("HEAD", "TAIL", "HUGE", "THP") == bits("HEAD", "HUGE")
    assert frame_words(task, 513)[0] & bits("HEAD", "TAIL", "HUGE", "THP") == bits("TAIL", "HUGE")


def test_frames_of_a_huge_page() -> None:
    task = Machine("linux-6.1").spawn()
    task.mmap(512 * PAGE, at=AT)
    task.madvise(AT, 512 * PAGE, "HUGEPAGE")
    task.write(AT)
    assert frame_words(task, 0) == (
        bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED", "HEAD", "THP", "EXCLUSIVE"),
        1,
    )
    assert frame_words(task, 7) == (bits("MMAP", "ANON", "TAIL", "THP"), 1)
    task = Machine("linux-6.12").spawn()  # the tails show what the head has
    task.mmap(512 * PAGE, at=AT)
    task.madvise(AT, 512 * PAGE, "HUGEPAGE")
    task.write(AT)
    common = bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED", "KSM", "THP", "EXCLUSIVE")
    assert frame_words(task, 0) == (common | bits("HEAD"), 1)
    assert frame_words(task, 7) == (common | bits("TAIL"), 1)
    task = Machine("linux-3.11").spawn()
    task.mmap(512 * PAGE, at=AT)
    task.madvise(AT, 512 * PAGE, "HUGEPAGE")
    task.write(AT)
    assert frame_words(task, 0) == (bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED", "HEAD"), 1)
    assert frame_words(task, 7) == (bits("TAIL"), 0)


def test_frames_that_no_page_has() -> None:
    """Below 16 there is no memory; tables and freed frames are told apart."""
    task = Machine("linux-6.1").spawn()
    task.mmap(2 * PAGE, at=AT)
    task.write(AT, 2 * PAGE)
    freed = int(task.pagemap(AT + PAGE).frame[0])
    task.munmap(AT + PAGE, PAGE)
    root = task.process.mm.tables.root
    found = words(task.kernel, "kpageflags", 0, task.kernel.frames.next)
    assert found[:16] == [bits("NOPAGE")] * 16
    assert found[freed] == bits("BUDDY")
    assert found[root] == bits("PGTABLE")
    assert found.count(bits("PGTABLE")) == 1 + 3 + 3, "the root, and the tables of the window and of the stack"


def test_swapped_in_frames_may_stay_in_the_swap_cache() -> None:
    task = Machine("linux-6.1").spawn()
    task.mmap(PAGE, at=AT)
    task.write(AT)
    task.madvise(AT, PAGE, "PAGEOUT")
    task.fork()
    task.read(AT)
    assert frame_words(task, 0)[0] & bits("SWAPCACHE")
