"""Frames that are given out again."""

import numpy as np
import pytest

from ptewalk.model.kernel import Kernel
from ptewalk.model.memory import BusError, FixedMemory
from ptewalk.model.profiles import PROFILES
from ptewalk.model.x86 import Access

PAGES = 200
AT = 0x1000


def machine(*, reuse: bool, frames: int = 1024) -> Kernel:
    words = np.zeros((frames, 512), np.uint64)
    return Kernel(PROFILES["linux-6.1"], memory=FixedMemory(words), reuse_frames=reuse)


def churn(kernel: Kernel) -> None:
    """Map, fill and unmap 200 pages."""
    process = kernel.processes[0]
    kernel.frames.begin_step()
    kernel.mmap(process, AT, PAGES, "rw", "anon", 0, [])
    pages = range(AT, AT + PAGES)
    assert kernel.touch_pages(process, pages, Access.READ) == [0] * PAGES
    assert kernel.touch_pages(process, pages, Access.WRITE, 9) == ["ok"] * PAGES
    kernel.munmap(process, AT, PAGES)


def test_a_small_memory_lasts_where_frames_are_used_again() -> None:
    kernel = machine(reuse=True)
    for _ in range(20):
        churn(kernel)
    assert kernel.frames.next < 2 * PAGES + 100


def test_it_is_used_up_where_they_are_not() -> None:
    kernel = machine(reuse=False)
    with pytest.raises(BusError):
        for _ in range(20):
            churn(kernel)


def test_a_frame_rests_until_the_next_step() -> None:
    kernel = machine(reuse=True)
    frame = kernel.frames.alloc(0)
    kernel.frames.free(frame)
    assert kernel.frames.alloc(0) != frame
    kernel.frames.begin_step()
    assert kernel.frames.alloc(0) == frame


def test_references_of_a_page_of_a_file() -> None:
    """One of each mapping, one of the page cache (mm: folio_expected_ref_count)."""
    kernel = machine(reuse=False)
    process = kernel.processes[0]
    kernel.frames.begin_step()
    kernel.mmap(process, AT, 1, "r", "file", 0, [])
    kernel.mmap(process, AT + 8, 1, "r", "file", 0, [])
    assert kernel.touch_pages(process, range(AT, AT + 1), Access.READ) == [0]
    frame = int(process.mm.entries.pte_pfn(process.mm.tables.get(AT)))
    assert (kernel.frames.mapcount(frame), kernel.frames.references(frame)) == (1, 2)
    assert kernel.touch_pages(process, range(AT + 8, AT + 9), Access.READ) == [0]
    assert (kernel.frames.mapcount(frame), kernel.frames.references(frame)) == (2, 3)


def test_what_moves_has_changed_at_both_places() -> None:
    kernel = Kernel(PROFILES["linux-6.1"], watch=True)
    mm = kernel.processes[0].mm
    mm.stored.add(AT + 1, AT + 2)
    mm.changed.clear()
    mm.move(AT, AT + 16, 4)
    assert list(mm.changed.within(0, 1 << 36)) == [(AT, AT + 4), (AT + 16, AT + 20)]
    assert list(mm.stored.within(0, 1 << 36)) == [(AT + 17, AT + 18)]


def test_bytes_of_a_frame() -> None:
    """One by one they are those of the whole; a frame that nothing was stored to is read as zeros, and is not made."""
    frames = machine(reuse=False).frames
    frame = frames.alloc(0)
    assert frames.load_byte(frame, 4095) == 0
    frames.store(frame, 0, bytes(range(1, 17)))
    for offset, value in ((3, 0xFF), (7, 0x80), (8, 0), (4095, 0xA5)):
        frames.store_byte(frame, offset, value)
    due = bytearray(range(1, 17)) + bytes(4080)
    due[3], due[7], due[8], due[4095] = 0xFF, 0x80, 0, 0xA5
    assert frames.load(frame, 0, 4096) == bytes(due)
    assert [frames.load_byte(frame, offset) for offset in range(4096)] == list(due)
