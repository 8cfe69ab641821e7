"""MADV_COLLAPSE over several blocks."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Machine
from ptewalk.model.errors import Errno

from ..api_tasks import AT

HUGE = 512 * PAGE


@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_a_block_that_cannot_be_huge_does_not_stop_the_next(profile: str) -> None:
    """mm/khugepaged.c:madvise_collapse goes on behind a pinned page, and fails at the end."""
    task = Machine(profile).spawn()
    task.mmap(2 * HUGE, at=AT)
    task.madvise(AT, 2 * HUGE, "NOHUGEPAGE")
    task.write(AT, 2 * HUGE)
    task.madvise(AT, 2 * HUGE, "HUGEPAGE")
    task.pin(AT, PAGE)
    with pytest.raises(Errno):
        task.madvise(AT, 2 * HUGE, "COLLAPSE")
    assert [leaf.level for leaf in task.entries(AT + HUGE)] == [2]
    assert [(leaf.at, leaf.level) for leaf in task.entries(AT, 3 * PAGE)] == [(AT + i * PAGE, 1) for i in range(3)]
