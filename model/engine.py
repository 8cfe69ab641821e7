"""What a table engine does for the operating system: `Engine` is what each offers.

Nothing here does it: without an engine the rules of `model/bulk.py` are applied to arrays. Places are page numbers.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.pte import Entries

__all__ = ["Engine", "HasEngine", "Pages"]


class Pages(NamedTuple):
    """Pages [first, last) of an address space, by where its tables begin."""

    root: int
    """Frame of the table of the highest level."""
    levels: int
    first: int
    last: int


class Engine(Protocol):
    """Walks the tables of a range from their root, and changes entries by conditional writes, or tells of them.

    What an MMU may have cached is not its business: who gives a command tells the MMU afterwards.
    """

    def clear(self, pages: Pages, rules: Entries, *, permit: bool, splits: bool) -> int:
        """clear_refs 4 (fs/proc/task_mmu.c:clear_soft_dirty).

        Parameters
        ----------
        pages : Pages
        rules : Entries
            The kernel, CONFIG_MEM_SOFT_DIRTY, and who tracks.
        permit : bool
            In `fault`: the MMU may mend these entries.
        splits : bool
            A leaf above level 1 is not changed: the operating system must split it first.

        Returns
        -------
        int
            The first page that was not dealt with: that of a leaf to be split, or the end.
        """

    def make_old(self, pages: Pages, rules: Entries, *, splits: bool) -> int:
        """clear_refs 1 to 3: A off, but for level-1 entries without a struct page. As `clear`."""

    def protect(self, pages: Pages, rules: Entries) -> None:
        """Write-protect each page (fs/proc/task_mmu.c:make_uffd_wp_pte); what maps nothing becomes a marker."""

    def take_written(self, pages: Pages, rules: Entries) -> NDArray[np.uint64]:
        """`protect` of what is not write-protected, and `words` of all, in one pass.

        Each word is of the value that the write replaced, or of one that is write-protected and stays: who stores to a
        page is told by the word, or meets the protection (fs/proc/task_mmu.c:pagemap_scan_pmd_entry, under one lock).

        Parameters
        ----------
        pages : Pages
            Of level 1.
        rules : Entries
        """

    def move(self, pages: Pages, target: int, level: int, rules: Entries, *, marks: bool, unprotects: bool) -> None:
        """Entries move to where those of other pages stand, whose tables exist (mm/mremap.c:move_ptes).

        Parameters
        ----------
        pages : Pages
            Whose entries move; the rest of what they map above level 1 moves with it.
        target : int
            The page to which the first goes; there is nothing yet.
        level : int
            Of the tables that hold the entries, 1 to 3.
        rules : Entries
        marks : bool
            Each becomes soft-dirty.
        unprotects : bool
            Write-protection goes, and with it markers that say nothing else.
        """

    def words(self, pages: Pages, rules: Entries, *, marks: bool) -> NDArray[np.uint64]:
        """The pagemap words, without FILE and EXCLUSIVE; 0 where nothing is mapped.

        Parameters
        ----------
        pages : Pages
        rules : Entries
        marks : bool
            Soft-dirty is told: not of hugetlb memory.
        """


@runtime_checkable
class HasEngine(Protocol):
    """An MMU that may have an engine beside it."""

    engine: Engine | None
