"""What is given back when memory goes."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Machine

from ..api_tasks import AT, KERNELS


@pytest.mark.parametrize("profile", KERNELS)
def test_a_slot_goes_with_its_last_entry(profile: str) -> None:
    """mm/swapfile.c:free_swap_and_cache"""
    machine = Machine(profile)
    task = machine.spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, 4 * PAGE)
    task.madvise(AT, 4 * PAGE, "PAGEOUT")
    slots = machine.kernel.swap.slots
    assert len(slots) == 4
    child = task.fork()
    task.munmap(AT, 2 * PAGE)
    assert len(slots) == 4
    child.munmap(AT, PAGE)
    assert len(slots) == 3
    child.exit()
    assert len(slots) == 2
    task.munmap(AT + 2 * PAGE, 2 * PAGE)
    assert not slots
