"""What pages contain: the checksums that a recording may have of every page that is mapped."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.pte import PROTNONE, P
from ptewalk.model.state.machine import MachineState
from ptewalk.model.x86 import INDEX_BITS, PAGE_BYTES

Leaves = Iterable[tuple[int, NDArray[np.int64], NDArray[np.uint64]]]
"""Of a process: (level, pages, raw entries), ascending."""

_SUM_OF_ZEROS: Final = zlib.crc32(bytes(PAGE_BYTES))
_ZEROS: Final = -1
"""Instead of a checksum: the page is all zero, and is left out."""


def checksum(row: NDArray[np.uint64]) -> int:
    """CRC-32 of the 4096 bytes of a page; -1 for one of zeros.

    Parameters
    ----------
    row : uint64 array (512,)
    """
    found = zlib.crc32(row.data)
    return _ZEROS if found == _SUM_OF_ZEROS and not row.any() else found


class Contents:
    """The checksums of a kernel's memory at one moment, each frame's taken once.

    Parameters
    ----------
    kernel : MachineState
    """

    def __init__(self, kernel: MachineState) -> None:
        self._kernel = kernel
        self._used: NDArray[np.bool_] | None = None
        """By frame, whether memory has a row for it; made for the first that has to know it of many."""
        self._sums: dict[int, int] = {}

    def runs(self, mapped: Iterable[tuple[int, int]]) -> list[list[Any]]:
        """`contents` of the format: runs [page, n, checksum] of neighbours that contain the same, but not zeros.

        Parameters
        ----------
        mapped : iterable of (page, frame)
            Of a process, ascending.
        """
        runs: list[list[Any]] = []
        rows = self._kernel.memory.row_of_frame
        for at, frame in mapped:
            if frame not in rows:
                continue
            found = self._sum(frame)
            if found == _ZEROS:
                continue
            text = format(found, "08x")
            if runs and runs[-1][0] + runs[-1][1] == at and runs[-1][2] == text:
                runs[-1][1] += 1
            else:
                runs.append([at, 1, text])
        return runs

    def mapped(self, entries: Leaves) -> Iterator[tuple[int, int]]:
        """(page, frame) of what leaves map, PROT_NONE too, swapped not; without frames that memory has no row for."""
        rows = self._kernel.memory.row_of_frame
        if self._used is None:
            self._used = np.zeros(max(rows, default=0) + 1, np.bool_)
            self._used[np.fromiter(rows, np.int64, len(rows))] = True
        for level, where, content in entries:
            present = (content & np.uint64(P | PROTNONE)) != 0
            part = np.arange(1 << INDEX_BITS * (level - 1))
            pages = np.add.outer(where[present], part).ravel()
            frames = np.add.outer(self._kernel.entries.pte_pfn(content[present], level).astype(np.int64), part).ravel()
            used = frames < len(self._used)
            used[used] = self._used[frames[used]]
            yield from zip(pages[used].tolist(), frames[used].tolist(), strict=True)

    def _sum(self, frame: int) -> int:
        found = self._sums.get(frame)
        if found is None:
            found = self._sums[frame] = checksum(self._kernel.memory.frame(frame))
        return found
