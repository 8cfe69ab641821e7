"""Slots of the swap device (mm/swapfile.c)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    """

    count: int
    words: NDArray[np.uint64] | None
    frame: int


class SwapDevice:
    """The slots of the one swap device.

    Attributes
    ----------
    hints : dict
        (process, page) to the (type, offset) that the recorded kernel chose for it: no rule determines them.
    """

    def __init__(self) -> None:
        self.slots: dict[tuple[int, int], Slot] = {}
        self.next = 1
        self.hints: dict[tuple[int, int], tuple[int, int]] = {}

    def allocate(self, places: list[tuple[int, int]]) -> tuple[int, int]:
        """A free slot for the page mapped at `places`: (type, offset)."""
        for place in places:
            chosen = self.hints.get(place)
            if chosen is not None and chosen not in self.slots:
                return chosen
        while (0, self.next) in self.slots:
            self.next += 1
        chosen = (0, self.next)
        self.next += 1
        return chosen
