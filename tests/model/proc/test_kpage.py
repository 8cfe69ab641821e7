"""/proc/kpageflags and kpagecount."""

from __future__ import annotations

from typing import Any

import pytest

from ptewalk.model import PAGE
from ptewalk.model.proc.files import pid_of

from ..served import BASE, FRAME, PRESENT, bits, words


def frame_words(m: Any, page: int, who: int = 0) -> tuple[int, int]:
    """kpageflags and kpagecount of the frame behind a page."""
    [word] = words(m.kernel, f"{pid_of(who)}/pagemap", BASE + page, 1)
    frame = word & FRAME
    assert word & PRESENT
    [flags], [count] = (words(m.kernel, path, frame, 1) for path in ("kpageflags", "kpagecount"))
    return flags, count


@pytest.mark.parametrize(("profile", "more"), [("linux-3.11", 0), ("linux-6.1", bits("EXCLUSIVE"))])
def test_frames_of_anonymous_memory(machine: type, profile: str, more: int) -> None:
    plain = bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED")
    m = machine(profile)
    m.mmap(0, 4)
    m.write(0, 2)
    assert frame_words(m, 0) == (plain | more, 1)
    m.fork(1)
    assert frame_words(m, 0) == frame_words(m, 0, who=1) == (plain, 2)
    m.write(0)
    assert frame_words(m, 0) == (plain | more, 1)


def test_every_anonymous_page_of_6_12_says_ksm(machine: type) -> None:
    m = machine("linux-6.12")
    m.mmap(0, 1)
    m.write(0)
    assert frame_words(m, 0)[0] & bits("KSM")


def test_frames_that_ksm_merged(machine: type) -> None:
    m = machine()
    m.mmap(0, 4)
    m.task().write(m.at(0), b"\x5a" * 4 * PAGE)
    assert not frame_words(m, 0)[0] & bits("KSM")
    m.madvise(0, 4, "MERGEABLE")
    m.machine.ksm_scan()
    flags, count = frame_words(m, 0)
    assert (flags & bits("KSM"), count) == (bits("KSM"), 4)


@pytest.mark.parametrize(
    ("profile", "zero"), [("linux-3.11", bits("RESERVED")), ("linux-6.1", bits("RESERVED", "ZERO_PAGE"))]
)
def test_frames_of_zero_pages_files_and_hugetlb(machine: type, profile: str, zero: int) -> None:
    m = machine(profile)
    m.mmap(0, 1)
    m.read(0)
    assert frame_words(m, 0) == (zero, 0)
    m.mmap(16, 2, kind="s1")
    m.write(16)
    assert frame_words(m, 16) == (bits("UPTODATE", "MMAP", "SWAPBACKED"), 1)
    m.mmap(32, 2, kind="s4")
    m.write(32)
    assert frame_words(m, 32) == (bits("UPTODATE", "MMAP"), 1)
    m.mmap(512, 512, kind="hugetlb")
    m.write(512)
    assert frame_words(m, 512)[0] & bits("HEAD", "TAIL", "HUGE", "THP") == bits("HEAD", "HUGE")
    assert frame_words(m, 513)[0] & bits("HEAD", "TAIL", "HUGE", "THP") == bits("TAIL", "HUGE")


def test_frames_of_a_huge_page(machine: type) -> None:
    m = machine()
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    assert frame_words(m, 0) == (
        bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED", "HEAD", "THP", "EXCLUSIVE"),
        1,
    )
    assert frame_words(m, 7) == (bits("MMAP", "ANON", "TAIL", "THP"), 1)
    m = machine("linux-6.12")  # the tails show what the head has
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    common = bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED", "KSM", "THP", "EXCLUSIVE")
    assert frame_words(m, 0) == (common | bits("HEAD"), 1)
    assert frame_words(m, 7) == (common | bits("TAIL"), 1)
    m = machine("linux-3.11")
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    assert frame_words(m, 0) == (bits("UPTODATE", "MMAP", "ANON", "SWAPBACKED", "HEAD"), 1)
    assert frame_words(m, 7) == (bits("TAIL"), 0)


def test_frames_that_no_page_has(machine: type) -> None:
    """Below 16 there is no memory; tables and freed frames are told apart."""
    m = machine()
    m.mmap(0, 2)
    m.write(0, 2)
    freed = m.frame(1)
    m.munmap(1, 1)
    root = m.mm().tables.root
    found = words(m.kernel, "kpageflags", 0, m.kernel.frames.next)
    assert found[:16] == [bits("NOPAGE")] * 16
    assert found[freed] == bits("BUDDY")
    assert found[root] == bits("PGTABLE")
    assert found.count(bits("PGTABLE")) == 1 + 3 + 3, "the root, and the tables of the window and of the stack"


def test_swapped_in_frames_may_stay_in_the_swap_cache(machine: type) -> None:
    m = machine()
    m.mmap(0, 1)
    m.write(0)
    m.madvise(0, 1, "PAGEOUT")
    m.fork(1)
    m.read(0)
    assert frame_words(m, 0)[0] & bits("SWAPCACHE")
