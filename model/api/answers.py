"""What the interface answers: faults, pagemap as arrays, raw entries, regions of a scan."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import PAGEMAP_FRAME_BITS, PagemapBit

_SIGNALS: Final = {
    "maperr": ("SIGSEGV", "SEGV_MAPERR"),
    "accerr": ("SIGSEGV", "SEGV_ACCERR"),
    "pkuerr": ("SIGSEGV", "SEGV_PKUERR"),
    "bus": ("SIGBUS", "BUS_ADRERR"),
    "kernel": ("SIGSEGV", "SI_KERNEL"),
}
"""How a fault ends to the signal and its si_code."""
_FRAME: Final = np.uint64((1 << PAGEMAP_FRAME_BITS) - 1)


class Fault(Exception):
    """A user access ended in a signal.

    Parameters
    ----------
    ending : str
        As `Kernel.reach` tells it.
    address : int
        The byte that could not be had (si_addr; a kernel leaves that 0 with SI_KERNEL).

    Attributes
    ----------
    signal, code : str
        Such as SIGSEGV and SEGV_MAPERR.
    address : int
    """

    def __init__(self, ending: str, address: int) -> None:
        self.signal, self.code = _SIGNALS[ending]
        self.address = address
        super().__init__(f"{self.signal} ({self.code}) at {address:#x}")


class Pagemap:
    """Words of /proc/PID/pagemap, a page each, and what their bits tell (fs/proc/task_mmu.c).

    Parameters
    ----------
    words : uint64 array (n,)
    second : bool
        They have the second layout; in the first (3.11 before the first clear_refs 4) bits 55 to 60 hold a page shift,
        and nothing is soft-dirty.
    """

    def __init__(self, words: NDArray[np.uint64], *, second: bool) -> None:
        self.words = words
        self._second = second

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"<Pagemap of {len(self)} pages: {', '.join(f'{word:#x}' for word in self.words[:4].tolist())}...>"

    def _bit(self, bit: PagemapBit, known: bool = True) -> NDArray[np.bool_]:
        if not known:
            return np.zeros(len(self.words), np.bool_)
        return self.words >> np.uint64(bit) & np.uint64(1) != 0

    @property
    def present(self) -> NDArray[np.bool_]:
        """Bit 63: the page is in memory."""
        return self._bit(PagemapBit.PRESENT)

    @property
    def swapped(self) -> NDArray[np.bool_]:
        """Bit 62: the page is in swap; so reads a userfaultfd marker too."""
        return self._bit(PagemapBit.SWAP)

    @property
    def file(self) -> NDArray[np.bool_]:
        """Bit 61: a page of a file, or of shared memory."""
        return self._bit(PagemapBit.FILE)

    @property
    def uffd_wp(self) -> NDArray[np.bool_]:
        """Bit 57: write-protected by userfaultfd."""
        return self._bit(PagemapBit.UFFD_WP, self._second)

    @property
    def exclusive(self) -> NDArray[np.bool_]:
        """Bit 56: mapped by one entry alone."""
        return self._bit(PagemapBit.EXCLUSIVE, self._second)

    @property
    def soft_dirty(self) -> NDArray[np.bool_]:
        """Bit 55: written since the last clear_refs 4."""
        return self._bit(PagemapBit.SOFT_DIRTY, self._second)

    @property
    def frame(self) -> NDArray[np.int64]:
        """Frame number of a page in memory; 0 for any other, and where the kernel hides it."""
        return np.where(self.present, self.words & _FRAME, 0).astype(np.int64)


class Leaf(NamedTuple):
    """A raw paging-structure entry that maps memory or names swap."""

    at: int
    """First byte that it is for."""
    level: int
    """1: a PTE, 2: a PDE that maps 2 MiB, 3: a PDPTE that maps 1 GiB."""
    entry: int
    """Its 64 bits."""


class Region(NamedTuple):
    """One region that PAGEMAP_SCAN found (struct page_region)."""

    start: int
    end: int
    categories: frozenset[str]
    """Of `return_mask`, those that hold for every page of it."""


class Scan(NamedTuple):
    """What PAGEMAP_SCAN answers."""

    regions: list[Region]
    walk_end: int
    """Byte address that the walk came to."""
