"""Pages of a pool."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Machine

from ..api_tasks import AT
from ..served import bits, frame_words

HUGE = 512 * PAGE


@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_a_page_that_goes_back_to_its_pool_is_nobodys(profile: str) -> None:
    """mm/hugetlb.c:free_huge_folio: nothing says any more whose it was, nor what it held."""
    machine = Machine(profile)
    task = machine.spawn()
    task.mmap(HUGE, flags="HUGETLB", at=AT)
    task.write(AT + 5 * PAGE, b"secret")
    frame = int(task.pagemap(AT).frame[0])
    frames = machine.kernel.frames
    assert frames.flags[frame] and frames.memory.row_of_frame.keys() & range(frame, frame + 512)
    task.munmap(AT, HUGE)
    assert not frames.flags[frame : frame + 512].any()
    assert not frames.memory.row_of_frame.keys() & range(frame, frame + 512)


@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_the_last_user_has_the_page_for_itself(profile: str) -> None:
    """mm/hugetlb.c:hugetlb_wp sets PageAnonExclusive where it keeps the page."""
    machine = Machine(profile)
    task = machine.spawn()
    task.mmap(HUGE, flags="HUGETLB", at=AT)
    task.write(AT)
    frame = int(task.pagemap(AT).frame[0])
    child = task.fork()
    assert not frame_words(task, 0)[0] & bits("EXCLUSIVE")
    child.exit()
    task.write(AT)
    assert int(task.pagemap(AT).frame[0]) == frame
    assert frame_words(task, 0)[0] & bits("EXCLUSIVE")
