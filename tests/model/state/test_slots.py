"""Swap slots, and pools of hugetlb pages."""

from __future__ import annotations

import numpy as np

from ptewalk.model import PAGE, Machine
from ptewalk.model.state.pools import Pool
from ptewalk.model.state.slots import Slot

from ..api_tasks import AT


def test_slots_are_given_out_in_order() -> None:
    task = Machine("linux-6.1").spawn()
    task.mmap(6 * PAGE, at=AT)
    task.write(AT, 6 * PAGE)
    task.madvise(AT, 6 * PAGE, "PAGEOUT")
    offsets = task.pagemap(AT, 6 * PAGE).words >> np.uint64(5) & np.uint64((1 << 50) - 1)
    assert offsets.tolist() == list(range(int(offsets[0]), int(offsets[0]) + 6)) and offsets[0] >= 1


def test_a_page_that_migrates_leaves_its_node_free() -> None:
    """mm/hugetlb.c: the old page goes back to the pool of its node; the new one comes from that of the other."""
    pool = Pool(1, 1)
    assert (pool.take(None, 0), pool.free()) == (0, 1)
    pool.migrate(0, 1)
    assert (pool.take(None, 1), pool.free()) == (0, 0)
    assert pool.take(None, 2) is None


def test_a_slot_that_is_taken_is_passed_over() -> None:
    swap = Machine("linux-6.1").kernel.swap
    first = swap.next
    swap.slots.update({(0, first): Slot(1, None, 0), (0, first + 1): Slot(1, None, 0)})
    assert swap.allocate([]) == (0, first + 2)
