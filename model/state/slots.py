"""Slots of the swap device (mm/swapfile.c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.state.choices import Choices


@dataclass(slots=True)
class Slot:
    """One slot in use.

    Attributes
    ----------
    count : int
        Entries that name it.
    words : uint64 array or None
        Contents; None: all zero.
    frame : int
        Its swap-cache page, 0 for none.
    ahead : bool
        Its swap-cache page was read ahead, and no fault has found it yet (PG_readahead).
    in_row : bool
        It was taken for a part of a large page, whose other parts have the slots around it, and can be read back so.
    """

    count: int
    words: NDArray[np.uint64] | None
    frame: int
    ahead: bool = False
    in_row: bool = False


class SwapDevice:
    """The slots of the one swap device.

    Parameters
    ----------
    choices : Choices
        Whether a recorded kernel took some slot.
    """

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self.slots: dict[tuple[int, int], Slot] = {}
        self.next = 1

    def allocate_run(self, count: int) -> list[tuple[int, int]]:
        """Free slots in a row for a large page, aligned to their number (folio_alloc_swap)."""
        first = -(-self.next // count) * count
        while any((0, first + i) in self.slots for i in range(count)):
            first += count
        self.next = first + count
        return [(0, first + i) for i in range(count)]

    def allocate(self, places: list[tuple[int, int]]) -> tuple[int, int]:
        """A free slot for the page mapped at `places`: (type, offset)."""
        for chosen in self._choices.slots(places):
            if chosen not in self.slots:
                return chosen
        while (0, self.next) in self.slots:
            self.next += 1
        chosen = (0, self.next)
        self.next += 1
        return chosen
