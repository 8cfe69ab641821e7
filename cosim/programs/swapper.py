"""Swap under a running program: what a process has in memory beyond a limit goes out, page by page in turn."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Final

import numpy as np

from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import VmFlag
from ptewalk.model.pte import SPECIAL, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Process

__all__ = ["LEAST", "Swapper"]

LEAST: Final = 16
"""Pages that a process must be allowed: an instruction and what it accesses need some at once."""
_KEPT: Final = VmFlag.SHARED | VmFlag.LOCKED | VmFlag.HUGETLB
"""Areas of which nothing goes out."""


class Swapper:
    """Looks after each few page faults, and has MADV_PAGEOUT's part of the kernel take out what is too much.

    Parameters
    ----------
    kernel : Kernel
    limit : int
        Private pages that a process may keep in memory; up to a quarter more is there for a while.

    Attributes
    ----------
    out : int
        Pages that went out.
    """

    def __init__(self, kernel: Kernel, limit: int) -> None:
        self._kernel, self._limit = kernel, limit
        self._hands: dict[Process, int] = {}
        """Process to the page from which on the next ones go out."""
        self._next = 0
        self.out = 0

    def relieve(self, process: Process, faults: int) -> None:
        """Before an access: take pages out if there are too many; `faults`: page faults so far."""
        if faults < self._next:
            return
        self._next = faults + max(1, self._limit // 4)
        resident = self.resident(process)
        excess = len(resident) - self._limit
        if excess <= 0:
            return
        first = int(np.searchsorted(resident, self._hands.get(process, 0)))
        chosen = np.roll(resident, -first)[:excess]
        self._hands[process] = int(chosen[-1]) + 1
        self._kernel.frames.begin_step()
        for start, count in _runs(sorted(chosen.tolist())):
            self._kernel.madvise(process, start, count, "PAGEOUT")
        self.out += len(resident) - len(self.resident(process))

    def resident(self, process: Process) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The private pages of a process that are in memory and may go out, ascending."""
        mm, flags = process.mm, self._kernel.frames.flags
        found = [np.zeros(0, np.int64)]
        for vma in mm.areas:
            if vma.flags & _KEPT:
                continue
            for piece in mm.tables.pieces(vma, vma.start, vma.end):
                if piece.leaf:
                    found.append(np.arange(piece.first, piece.last))
                    continue
                entries = mm.tables.part(piece.first, piece.last)
                there = ((entries & np.uint64(P | SPECIAL)) == P).nonzero()[0]
                frames = self._kernel.entries.pte_pfn(entries[there]).astype(np.int64)
                found.append(there[(flags[frames] & page.ANON) != 0] + piece.first)
        return np.concatenate(found)


def _runs(pages: list[int]) -> Iterator[tuple[int, int]]:
    """First page and number of pages of neighbours."""
    for _, group in groupby(enumerate(pages), lambda pair: pair[1] - pair[0]):
        run = [at for _, at in group]
        yield run[0], len(run)
