"""Page tables of one address space: real tables in physical memory, with the software's index of where they are.

Places are page numbers (linear address >> 12). The index only repeats what the upper entries say; upper entries are
written here
and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import TABLE_FLAGS
from ptewalk.model.state.frames import Frames
from ptewalk.model.x86 import ENTRY_BYTES, INDEX_BITS, LEVELS_4, PAGE_SHIFT, TABLE_ENTRIES

_INDEX: Final = TABLE_ENTRIES - 1
PMD_SHIFT: Final = INDEX_BITS
"""Page number to the number of its 2 MiB block."""
PUD_SHIFT: Final = 2 * INDEX_BITS
PMD_PAGES: Final = 1 << PMD_SHIFT
PUD_PAGES: Final = 1 << PUD_SHIFT
SPAN_TABLES: Final = 64
"""Page tables that are worked on at once: 256 KiB, which stay in the processor's second-level cache."""


class PageTables:
    """Radix page tables.

    Parameters
    ----------
    frames : Frames
        Where tables are allocated.
    levels : int
        4, or 5 with CR4.LA57.

    Attributes
    ----------
    root : int
        Frame of the top-level table.
    tables : dict
        Level (1 = page table) to a dict from ``page >> 9 * level`` to the frame of the table.
    huge : dict
        Level (2 or 3) to the set of ``page >> 9 * (level - 1)`` that hold a leaf there.
    """

    def __init__(self, frames: Frames, levels: int = LEVELS_4) -> None:
        self.frames = frames
        self.memory = frames.memory
        self.levels = levels
        self.root = self._new_table()
        self.tables: dict[int, dict[int, int]] = {level: {} for level in range(1, levels)}
        self.huge: dict[int, set[int]] = {2: set(), 3: set()}

    def _new_table(self) -> int:
        frame = self.frames.alloc(0)
        self.memory.add_frame(frame)
        return frame

    def row(self, frame: int) -> NDArray[np.uint64]:
        """The 512 entries of a table; good until the next frame is added."""
        return self.memory.words[self.memory.row_of_frame[frame]]

    def table(self, page: int, level: int) -> int:
        """Frame of the table at `level` on the way to `page`; 0 when there is none."""
        if level == self.levels:
            return self.root
        return self.tables[level].get(page >> INDEX_BITS * level, 0)

    def alloc(self, page: int, level: int) -> int:
        """As `table`, making it and those above it (p4d_alloc, pud_alloc, pmd_alloc, pte_alloc)."""
        frame = self.table(page, level)
        if not frame:
            self.alloc(page, level + 1)
            frame = self._new_table()
            self.link(page, level, frame)
        return frame

    def entry_address(self, page: int, level: int) -> int:
        """Physical address of the entry for `page` at `level`; 0 when its table does not exist."""
        frame = self.table(page, level)
        if not frame:
            return 0
        return (frame << PAGE_SHIFT) + (page >> INDEX_BITS * (level - 1) & _INDEX) * ENTRY_BYTES

    def link(self, page: int, level: int, frame: int) -> None:
        """Make the entry above point to the table `frame` of `level` (pmd_populate and its like)."""
        self.memory.store(self.entry_address(page, level + 1), frame << PAGE_SHIFT | TABLE_FLAGS)
        self.tables[level][page >> INDEX_BITS * level] = frame

    def unlink(self, page: int, level: int) -> int:
        """Clear the entry that points to the table of `level`, and return the table (pmd_clear)."""
        frame = self.tables[level].pop(page >> INDEX_BITS * level)
        self.memory.store(self.entry_address(page, level + 1), 0)
        return frame

    # Leaves.

    def get(self, page: int) -> int:
        """The level-1 entry of `page`; 0 when there is none or no table."""
        frame = self.tables[1].get(page >> PMD_SHIFT)
        if frame is None:
            return 0
        return int(self.memory.words[self.memory.row_of_frame[frame], page & _INDEX])

    def set(self, page: int, entry: int) -> None:
        """Write the level-1 entry of `page`, whose table exists."""
        frame = self.tables[1][page >> PMD_SHIFT]
        self.memory.words[self.memory.row_of_frame[frame], page & _INDEX] = entry

    def get_huge(self, page: int, level: int = 2) -> int:
        """The leaf of `level` (2 or 3) that covers `page`; 0 when there is none."""
        if page >> INDEX_BITS * (level - 1) not in self.huge[level]:
            return 0
        return self.memory.load(self.entry_address(page, level))

    def set_huge(self, page: int, entry: int, level: int = 2) -> None:
        """Write the leaf of `level` that covers `page`; 0 clears it. Its table exists."""
        self.memory.store(self.entry_address(page, level), entry)
        if entry:
            self.huge[level].add(page >> INDEX_BITS * (level - 1))
        else:
            self.huge[level].discard(page >> INDEX_BITS * (level - 1))

    def blocks(self, start: int, end: int) -> list[tuple[int, int, int, bool]]:
        """The 2 MiB blocks of pages [start, end) that have a page table or a huge leaf, ascending.

        Returns
        -------
        list of (block, first, last, huge)
            The block is ``page >> 9``; [first, last) is the part of it inside the range; huge: its level-2 entry is a
            leaf.
        """
        used, huge = self._used(start, end), self.huge[2]
        return [(b, max(start, b << PMD_SHIFT), min(end, (b + 1) << PMD_SHIFT), b in huge) for b in used]

    def _used(self, start: int, end: int) -> list[int]:
        if start >= end:
            return []
        low, high = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
        tables, huge = self.tables[1], self.huge[2]
        if high - low < 4:
            return [b for b in range(low, high + 1) if b in tables or b in huge]
        return sorted([b for b in tables if low <= b <= high] + [b for b in huge if low <= b <= high])

    def part(self, block: int, first: int, last: int) -> NDArray[np.uint64]:
        """The entries of pages [first, last) of a block that has a page table; good until the next frame is added."""
        row = self.memory.row_of_frame[self.tables[1][block]]
        base = block << PMD_SHIFT
        return self.memory.words[row, first - base : last - base]

    def spans(self, start: int, end: int) -> list[tuple[int, int, bool]]:
        """As `blocks`, with neighbouring page tables together, `SPAN_TABLES` at most: (first, last, huge)."""
        spans: list[tuple[int, int, bool]] = []
        huge = self.huge[2]
        first = after = joins_to = 0
        for block in self._used(start, end):
            if block == after < joins_to and block not in huge:
                spans.pop()
            else:
                first, joins_to = block, 0 if block in huge else block + SPAN_TABLES
            after = block + 1
            spans.append((first << PMD_SHIFT, after << PMD_SHIFT, block in huge))
        return [(max(start, low), min(end, high), is_huge) for low, high, is_huge in spans]

    def _rows(self, first: int, last: int) -> list[int]:
        rows, tables = self.memory.row_of_frame, self.tables[1]
        return [rows[tables[block]] for block in range(first >> PMD_SHIFT, (last - 1 >> PMD_SHIFT) + 1)]

    def entries(self, first: int, last: int) -> NDArray[np.uint64]:
        """A copy of the entries of pages [first, last), which have page tables throughout."""
        at = first & _INDEX
        return self.memory.words[self._rows(first, last)].reshape(-1)[at : at + last - first]

    def change(self, first: int, last: int, function: Callable[[NDArray[np.uint64]], None]) -> None:
        """Let `function` change these entries in place."""
        rows = self._rows(first, last)
        words = self.memory.words[rows]
        at = first & _INDEX
        function(words.reshape(-1)[at : at + last - first])
        self.memory.words[rows] = words

    def free_range(self, start: int, end: int, floor: int, ceiling: int) -> None:
        """Free the tables that pages [start, end) no longer need (mm/memory.c:free_pgd_range).

        Parameters
        ----------
        start, end : int
            The unmapped pages.
        floor, ceiling : int
            Pages below `floor` and from `ceiling` on may still use tables; ceiling 0 is the end of the address space.
        """
        limit = ceiling if ceiling else 1 << 57 - PAGE_SHIFT
        for level in range(1, self.levels):
            shift = INDEX_BITS * level
            tables = self.tables[level]
            low, high = start >> shift, (end - 1) >> shift
            keys = range(low, high + 1) if high - low < len(tables) else [k for k in tables if low <= k <= high]
            for key in list(keys):
                if key in tables and key << shift >= floor and (key + 1) << shift <= limit:
                    self.frames.free(self.unlink(key << shift, level))

    def upper_entries(self) -> Iterator[tuple[int, int, int, int]]:
        """Every entry that points to a table, top level first:.

        level of the entry, first page it covers, entry, table.
        """
        for level in range(self.levels - 1, 0, -1):
            tables = self.tables[level]
            for key in sorted(tables):
                page = key << INDEX_BITS * level
                yield level + 1, page, self.memory.load(self.entry_address(page, level + 1)), tables[key]
