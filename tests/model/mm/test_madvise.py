"""Advice over areas that merge, and over parts of huge pages."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Machine, Task

from ..api_tasks import AT, KERNELS

HUGE = 512 * PAGE


@pytest.mark.parametrize("profile", KERNELS)
def test_an_area_that_grew_by_a_merge_is_not_looked_for_again(profile: str) -> None:
    """mm/madvise.c:madvise_walk_vmas: the last area of the range merges with the one before; nothing is behind it."""
    task = Machine(profile).spawn()
    task.mmap(12 * PAGE, at=AT)
    task.madvise(AT, 4 * PAGE, "DONTFORK")
    task.madvise(AT + 8 * PAGE, 4 * PAGE, "DONTFORK")
    assert len(task.maps().splitlines()) == 3
    task.madvise(AT + 4 * PAGE, 8 * PAGE, "DONTFORK")
    [line] = task.maps().splitlines()
    assert line.startswith(f"{AT:x}-{AT + 12 * PAGE:x} ")


def half_a_huge_page(profile: str) -> tuple[Machine, Task, int]:
    """The first half of a huge page was unmapped; and its first frame."""
    machine = Machine(profile)
    task = machine.spawn()
    task.mmap(HUGE, at=AT)
    task.madvise(AT, HUGE, "HUGEPAGE")
    task.write(AT, HUGE)
    frame = int(task.pagemap(AT).frame[0])
    task.munmap(AT, HUGE // 2)
    return machine, task, frame


def test_what_a_pin_keeps_whole_is_passed_over() -> None:
    """mm/madvise.c:madvise_free_pte_range of 6.12: the split fails, and the walk goes on behind the page's entries."""
    machine, task, _ = half_a_huge_page("linux-6.12")
    task.pin(AT + HUGE // 2, PAGE)
    task.madvise(AT + HUGE // 2, HUGE // 2, "FREE")
    assert task.pagemap(AT + HUGE // 2, HUGE // 2).present.all()


@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_the_unmapped_half_is_freed_when_the_other_goes_out(profile: str) -> None:
    """mm/vmscan.c:shrink_folio_list splits the page; parts that nothing maps have no other user."""
    machine, task, frame = half_a_huge_page(profile)
    task.madvise(AT + HUGE // 2, HUGE // 2, "PAGEOUT")
    assert task.pagemap(AT + HUGE // 2, HUGE // 2).swapped.all()
    assert not machine.kernel.frames.flags[frame : frame + 512].any()
    assert not machine.kernel.frames.memory.row_of_frame.keys() & range(frame, frame + 512)
