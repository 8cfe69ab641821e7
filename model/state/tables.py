"""Page tables of one address space: real tables in physical memory, with the software's index of where they are.

Places are page numbers (linear address >> 12). The index only repeats what the upper entries say. Entries are written
here and nowhere else: whatever may be cached by an MMU and allows less afterwards is noted as stale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.engine import Pages
from ptewalk.model.linux import TABLE_FLAGS, TASK_PAGES, SoftBit
from ptewalk.model.pte import RW, A, D, P
from ptewalk.model.state.frames import Frames
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import ENTRY_BYTES, INDEX_BITS, LEVELS_4, PAGE_SHIFT, TABLE_ENTRIES

_INDEX: Final = TABLE_ENTRIES - 1
PMD_SHIFT: Final = INDEX_BITS
"""Page number to the number of its 2 MiB block."""
PUD_SHIFT: Final = 2 * INDEX_BITS
PMD_PAGES: Final = 1 << PMD_SHIFT
PUD_PAGES: Final = 1 << PUD_SHIFT
ALL_TABLES: Final = 1 << 36
"""More page tables than an address space has."""
_FEW: Final = 4
"""Blocks, of which each is looked up by itself."""
_MOST_ANSWERS: Final = 256
SPAN_TABLES: Final = 64
"""Page tables that are worked on at once: 256 KiB, which stay in the processor's second-level cache."""


_GAINS: Final = RW | A | D | 1 << SoftBit.SOFT_DIRTY | 1 << SoftBit.ARM
"""Bits that a present entry may gain while an MMU has it cached."""
_UNSEEN: Final = sum(1 << bit for bit in (SoftBit.SPECIAL, SoftBit.UFFD_WP, *range(53, 59)))
"""Bits of software's alone, of which an MMU keeps nothing."""
_LOST: Final = ~_UNSEEN & (1 << 64) - 1
_CHANGED: Final = ~(_UNSEEN | _GAINS) & (1 << 64) - 1


class Stale:
    """Pages whose translations an MMU may hold although the tables allow less by now (struct mmu_gather)."""

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int, int]] = []
        """PCID, and pages noted, first and last + 1; they may overlap."""

    def add(self, pcid: int, start: int, end: int) -> None:
        """Pages [start, end) of the address space `pcid`."""
        self.ranges.append((pcid, start, end))

    def take(self) -> list[tuple[int, int, int]]:
        """The ranges noted, which are forgotten."""
        ranges, self.ranges = self.ranges, []
        return ranges


class Piece(NamedTuple):
    """A part of an area that one leaf above level 1 maps, or page tables."""

    level: int
    """Of the leaf; 1: page tables."""
    first: int
    last: int
    """Pages [first, last)."""
    leaf: int
    """The leaf; 0 for page tables."""

    @property
    def head(self) -> int:
        """First page that the leaf covers, whether inside the range or not."""
        return self.first & -(1 << INDEX_BITS * (self.level - 1))

    @property
    def whole(self) -> bool:
        """Does the piece hold all that the leaf covers?"""
        return self.last - self.first == 1 << INDEX_BITS * (self.level - 1)


class _Blocks(NamedTuple):
    """The 2 MiB blocks that a page table or a leaf maps, ascending, as arrays.

    Attributes
    ----------
    block : int64 array (n,)
        ``page >> 9``.
    row : int64 array (n,)
        Row in the memory's words of the page table; -1: a leaf.
    """

    block: NDArray[np.int64]
    row: NDArray[np.int64]

    @staticmethod
    def of(tables: dict[int, int], huge: set[int], row_of_frame: dict[int, int]) -> _Blocks:
        """Of page tables by block, and blocks with a leaf; none has both."""
        count = len(tables)
        block = np.empty(count + len(huge), np.int64)
        row = np.full(count + len(huge), -1, np.int64)
        block[:count] = np.fromiter(tables, np.int64, count)
        block[count:] = np.fromiter(huge, np.int64, len(huge))
        row[:count] = np.fromiter(map(row_of_frame.__getitem__, tables.values()), np.int64, count)
        order = block.argsort()
        return _Blocks(block[order], row[order])

    def within(self, low: int, high: int) -> slice:
        """The places of blocks [low, high]."""
        first, last = self.block.searchsorted((low, high + 1)).tolist()
        return slice(first, last)


class PageTables:
    """Radix page tables.

    Parameters
    ----------
    frames : Frames
        Where tables are allocated.
    stale : Stale
        Told of every entry that allows less than before, or maps another frame.
    levels : int
        4, or 5 with CR4.LA57.
    pcid : int
        The number of this address space to the MMU; no other that lives has it.

    Attributes
    ----------
    root : int
        Frame of the top-level table.
    """

    def __init__(self, frames: Frames, stale: Stale, levels: int = LEVELS_4, pcid: int = 0) -> None:
        self.frames = frames
        self.stale = stale
        self.pcid = pcid
        self.memory = frames.memory
        self.levels = levels
        self.root = self._new_table()
        self._tables: dict[int, dict[int, int]] = {level: {} for level in range(1, levels)}
        """Level (1 = page table) to a dict from ``page >> 9 * level`` to the frame of the table."""
        self._huge: dict[int, set[int]] = {2: set(), 3: set()}
        """Level (2 or 3) to the set of ``page >> 9 * (level - 1)`` that hold a leaf there."""
        self._sorted: _Blocks | None = None
        """What the two say of 2 MiB blocks; None: they have changed since."""
        self._runs_of: dict[tuple[int, int, int], list[tuple[int, int, bool]]] = {}
        """Answers of `_runs` since then, the last few hundred,"""
        self._rows_of: dict[tuple[int, int], slice | NDArray[np.int64]] = {}
        """of `_rows`,"""
        self._uppers_of: dict[tuple[int, int], list[tuple[int, int, int, int, int]]] = {}
        """and of `_uppers`."""

    def _new_table(self) -> int:
        frame = self.frames.alloc(0)
        self.memory.add_frame(frame)
        return frame

    def pages(self, first: int, last: int) -> Pages:
        """Pages [first, last), as an engine is told."""
        return Pages(self.root, self.levels, first, last)

    def forget(self, start: int, end: int) -> None:
        """The MMU may hold translations of pages [start, end) that it must not use any more."""
        self.stale.add(self.pcid, start, end)

    def forget_all(self) -> None:
        """The MMU may hold anything of this address space (flush_tlb_mm)."""
        self.forget(0, TASK_PAGES[self.levels])

    def table(self, page: int, level: int) -> int:
        """Frame of the table at `level` on the way to `page`; 0 when there is none."""
        if level == self.levels:
            return self.root
        return self._tables[level].get(page >> INDEX_BITS * level, 0)

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
        self._tables[level][page >> INDEX_BITS * level] = frame
        self._reordered()

    def unlink(self, page: int, level: int) -> int:
        """Clear the entry that points to the table of `level`, and return the table (pmd_clear)."""
        shift = INDEX_BITS * level
        frame = self._tables[level].pop(page >> shift)
        self._reordered()
        self.memory.store(self.entry_address(page, level + 1), 0)
        self.forget(page >> shift << shift, (page >> shift) + 1 << shift)
        return frame

    def relink(self, old: int, new: int, level: int) -> None:
        """Move the whole table of `level` (1 or 2) at `old` to `new`, with what is below it (move_normal_pmd, _pud)."""
        self.link(new, level, self.unlink(old, level))
        self._moved_below(old, new, level)

    def relinked(self, old: int, new: int, level: int) -> None:
        """An engine has done what `relink` does to entries."""
        shift = INDEX_BITS * level
        self._tables[level][new >> shift] = self._tables[level].pop(old >> shift)
        self._reordered()
        self.forget(old >> shift << shift, (old >> shift) + 1 << shift)
        self._moved_below(old, new, level)

    def moved_huge(self, old: int, new: int) -> None:
        """An engine has moved the leaf of level 2 that covers `old` to `new`."""
        self._huge[2].discard(old >> PMD_SHIFT)
        self._huge[2].add(new >> PMD_SHIFT)
        self._reordered()
        self.forget(old & -PMD_PAGES, (old & -PMD_PAGES) + PMD_PAGES)

    def _moved_below(self, old: int, new: int, level: int) -> None:
        if level == 1:
            return
        self._reordered()
        for block in range(PUD_PAGES >> PMD_SHIFT):
            source, target = (old >> PMD_SHIFT) + block, (new >> PMD_SHIFT) + block
            if source in self._tables[1]:
                self._tables[1][target] = self._tables[1].pop(source)
            if source in self._huge[2]:
                self._huge[2].discard(source)
                self._huge[2].add(target)

    def tables_of(self, level: int, start: int, end: int) -> list[int]:
        """First pages of the tables of `level` that overlap pages [start, end)."""
        shift = INDEX_BITS * level
        low, high = start >> shift, (end - 1) >> shift
        return [key << shift for key in self._tables[level] if low <= key <= high]

    def frames_used(self) -> list[int]:
        """The frames of all tables, the root's first."""
        return [self.root, *(frame for level in self._tables.values() for frame in level.values())]

    # Leaves.

    def get(self, page: int) -> int:
        """The level-1 entry of `page`; 0 when there is none or no table."""
        frame = self._tables[1].get(page >> PMD_SHIFT)
        if frame is None:
            return 0
        return self.memory.words.item(self.memory.row_of_frame[frame], page & _INDEX)

    def set(self, page: int, entry: int) -> None:
        """Write the level-1 entry of `page`, whose table exists."""
        row, at = self.memory.row_of_frame[self._tables[1][page >> PMD_SHIFT]], page & _INDEX
        words = self.memory.words
        old = words.item(row, at)
        words[row, at] = entry
        if old & P and (old & ~entry & _LOST or entry & ~old & _CHANGED):
            self.forget(page, page + 1)

    def get_huge(self, page: int, level: int = 2) -> int:
        """The leaf of `level` (2 or 3) that covers `page`; 0 when there is none."""
        if page >> INDEX_BITS * (level - 1) not in self._huge[level]:
            return 0
        return self.memory.load(self.entry_address(page, level))

    def set_huge(self, page: int, entry: int, level: int = 2) -> None:
        """Write the leaf of `level` that covers `page`; 0 clears it. Its table exists."""
        shift = INDEX_BITS * (level - 1)
        key = page >> shift
        old = self.get_huge(page, level)
        self.memory.store(self.entry_address(page, level), entry)
        if entry:
            self._huge[level].add(key)
        else:
            self._huge[level].discard(key)
        self._reordered()
        if old & P and (old & ~entry & _LOST or entry & ~old & _CHANGED):
            self.forget(key << shift, key + 1 << shift)

    def fill(self, page: int, entries: NDArray[np.uint64]) -> None:
        """Replace the leaf of level 2 that covers `page` by a table of these 512 entries (pmd_populate)."""
        self.set_huge(page, 0)
        self.alloc(page, 1)
        first = page & -PMD_PAGES
        self._view(first, first + PMD_PAGES)[:] = entries

    def leaves(self, level: int, start: int, end: int) -> list[int]:
        """First pages of the leaves of `level` (2 or 3) that overlap pages [start, end), ascending."""
        shift = INDEX_BITS * (level - 1)
        low, high = start >> shift, (end - 1) >> shift
        return [key << shift for key in sorted(self._huge[level]) if low <= key <= high]

    def is_leaf(self, page: int) -> bool:
        """Is `page` covered by a leaf of level 2?"""
        return page >> PMD_SHIFT in self._huge[2]

    def any_leaf(self) -> bool:
        """Is there a leaf of level 2?"""
        return bool(self._huge[2])

    def pieces(self, vma: Vma, start: int, end: int, *, together: int = 1) -> Iterator[Piece]:
        """What pages [start, end) of an area are mapped by, ascending: page tables, and leaves above them.

        Parameters
        ----------
        together : int
            Neighbouring page tables that make one piece, at most.

        Notes
        -----
        What is there is seen at the start; a leaf is read when its piece is due.
        """
        if vma.huge_level:
            level, size = vma.huge_level, vma.leaf_pages
            for head in self.leaves(level, start, end):
                yield Piece(level, max(start, head), min(end, head + size), self.get_huge(head, level))
            return
        for first, last, huge in self._runs(start, end, together):
            yield Piece(2 if huge else 1, first, last, self.get_huge(first) if huge else 0)

    def _reordered(self) -> None:
        """There are other tables or leaves than before, or elsewhere."""
        self._sorted = None
        self._runs_of.clear()
        self._rows_of.clear()
        self._uppers_of.clear()

    def _runs(self, start: int, end: int, together: int) -> list[tuple[int, int, bool]]:
        """Page tables and huge leaves: (first, last, huge)."""
        asked = start, end, together
        known = self._runs_of.get(asked)
        if known is None:
            if len(self._runs_of) >= _MOST_ANSWERS:
                self._runs_of.clear()
            low, high = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
            runs = self._few_runs(low, high, together) if high - low < _FEW else self._many_runs(low, high, together)
            known = self._runs_of[asked] = [
                (max(start, first << PMD_SHIFT), min(end, after << PMD_SHIFT), huge) for first, after, huge in runs
            ]
        return known

    def _few_runs(self, low: int, high: int, together: int) -> list[tuple[int, int, bool]]:
        """As `_many_runs`, by looking each block up."""
        tables, huge = self._tables[1], self._huge[2]
        runs: list[tuple[int, int, bool]] = []
        first = after = joins_to = 0
        for block in range(low, high + 1):
            if block in huge:
                joins_to = 0
                runs.append((block, block + 1, True))
            elif block in tables:
                if block == after < joins_to:
                    runs.pop()
                else:
                    first, joins_to = block, block + together
                after = block + 1
                runs.append((first, after, False))
        return runs

    def _many_runs(self, low: int, high: int, together: int) -> list[tuple[int, int, bool]]:
        """What maps blocks [low, high]: (first, last, huge) of a leaf, and of up to `together` page tables in a row."""
        blocks = self._blocks()
        place = blocks.within(low, high)
        block, leaf = blocks.block[place], blocks.row[place] < 0
        starts = np.flatnonzero((block[1:] - block[:-1] != 1) | leaf[1:] | leaf[:-1]) + 1
        places = [0, *starts.tolist(), len(block)] if len(block) else []
        firsts, leaves = block[places[:-1]].tolist(), leaf[places[:-1]].tolist()
        runs: list[tuple[int, int, bool]] = []
        for first, is_huge, (at, end) in zip(firsts, leaves, pairwise(places), strict=True):
            last = first + end - at
            runs += [(first_of, min(first_of + together, last), is_huge) for first_of in range(first, last, together)]
        return runs

    def _blocks(self) -> _Blocks:
        if self._sorted is None:
            self._sorted = _Blocks.of(self._tables[1], self._huge[2], self.memory.row_of_frame)
        return self._sorted

    def _view(self, first: int, last: int) -> NDArray[np.uint64]:
        row = self.memory.row_of_frame[self._tables[1][first >> PMD_SHIFT]]
        at = first & _INDEX
        return self.memory.words[row, at : at + last - first]

    def part(self, first: int, last: int) -> NDArray[np.uint64]:
        """The entries of pages [first, last) of one page table, to be read; good until the next frame is added."""
        view = self._view(first, last)
        view.flags.writeable = False
        return view

    def edit(self, first: int, last: int) -> NDArray[np.uint64]:
        """As `part`, to be written; the MMU is told that the pages may have changed."""
        self.forget(first, last)
        return self._view(first, last)

    def write(self, first: int, entries: NDArray[np.uint64]) -> None:
        """Write entries from page `first` on, in one page table; the MMU is told of pages that allow less now."""
        view = self._view(first, first + len(entries))
        less = view & ~entries & np.uint64(_LOST) | entries & ~view & np.uint64(_CHANGED)
        stale = np.flatnonzero((less != 0) & (view & np.uint64(P) != 0))
        view[:] = entries
        if len(stale):
            self.forget(first + int(stale[0]), first + int(stale[-1]) + 1)

    def _rows(self, first: int, last: int) -> slice | NDArray[np.int64]:
        """Rows of the page tables of pages [first, last); where they are neighbours a slice, so that none is copied."""
        asked = first >> PMD_SHIFT, last - 1 >> PMD_SHIFT
        known = self._rows_of.get(asked)
        if known is None:
            if len(self._rows_of) >= _MOST_ANSWERS:
                self._rows_of.clear()
            blocks = self._blocks()
            rows = blocks.row[blocks.within(*asked)]
            row = int(rows[0])
            neighbours = int(rows[-1]) - row == len(rows) - 1 and bool((rows[1:] - rows[:-1] == 1).all())
            known = self._rows_of[asked] = slice(row, row + len(rows)) if neighbours else rows
        return known

    def look(self, first: int, last: int) -> NDArray[np.uint64]:
        """The entries of pages [first, last), which have page tables throughout, to be read before anything changes."""
        if first >> PMD_SHIFT == last - 1 >> PMD_SHIFT:
            return self.part(first, last)
        at = first & _INDEX
        words = self.memory.words[self._rows(first, last)].reshape(-1)[at : at + last - first]
        words.flags.writeable = False
        return words

    def parts(self, first: int, last: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """As `look`, (first page, entries) by up to `SPAN_TABLES` tables, or all where none is copied.

        Each is good until the next is asked for.
        """
        rows, start = self._rows(first, last), first & -PMD_PAGES
        if isinstance(rows, slice):
            yield first, self.look(first, last)
            return
        for at in range(start, last, SPAN_TABLES * PMD_PAGES):
            low, high = max(first, at), min(last, at + SPAN_TABLES * PMD_PAGES)
            table = at - start >> PMD_SHIFT
            words = self.memory.words[rows[table : table + SPAN_TABLES]].reshape(-1)[low - at : high - at]
            words.flags.writeable = False
            yield low, words

    def entries(self, first: int, last: int) -> NDArray[np.uint64]:
        """A copy of the entries of pages [first, last), which have page tables throughout."""
        return self.look(first, last).copy()

    def change(self, first: int, last: int, function: Callable[[NDArray[np.uint64]], None]) -> None:
        """Let `function` change these entries in place; the MMU is told of the pages.

        More than `SPAN_TABLES` tables may be given to it in parts.
        """
        self.forget(first, last)
        if first >> PMD_SHIFT == last - 1 >> PMD_SHIFT:
            function(self._view(first, last))
            return
        rows, at = self._rows(first, last), first & _INDEX
        if isinstance(rows, slice):
            function(self.memory.words[rows].reshape(-1)[at : at + last - first])
            return
        end = at + last - first
        for table in range(0, len(rows), SPAN_TABLES):
            some, before = rows[table : table + SPAN_TABLES], table << INDEX_BITS
            words = self.memory.words[some]
            function(words.reshape(-1)[max(at - before, 0) : end - before])
            self.memory.words[some] = words

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
            tables = self._tables[level]
            low, high = start >> shift, (end - 1) >> shift
            keys = range(low, high + 1) if high - low < len(tables) else [k for k in tables if low <= k <= high]
            for key in list(keys):
                if key in tables and key << shift >= floor and (key + 1) << shift <= limit:
                    self.frames.free(self.unlink(key << shift, level))

    def upper_entries(self, start: int, end: int) -> list[tuple[int, int, int, int]]:
        """Every entry that points to a table for pages of [start, end), top level first.

        Each with its level, the first page it covers, the entry itself, and the table.
        """
        known = self._uppers_of.get((start, end))
        if known is None:
            if len(self._uppers_of) >= _MOST_ANSWERS:
                self._uppers_of.clear()
            known = self._uppers_of[start, end] = list(self._uppers(start, end))
        item = self.memory.words.item
        return [(level, page, item(row, index), frame) for level, page, row, index, frame in known]

    def _uppers(self, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """As `upper_entries`, with the entry's row in the memory's words, and its place there."""
        for level in range(self.levels - 1, 0, -1):
            shift, tables = INDEX_BITS * level, self._tables[level]
            low, high = start >> shift, (end - 1) >> shift
            for key in sorted(tables):
                if low <= key <= high:
                    row = self.memory.row_of_frame[self.table(key << shift, level + 1)]
                    yield level + 1, key << shift, row, key & _INDEX, tables[key]
