"""Which pages an epoch changed, by the gateware's dirty log: its records, and what software appends for its own marks.

The gateware writes a record where an access marks an entry. Entries that the kernel itself makes soft-dirty, at first
touch, copy-on-write and fork, and what mremap puts elsewhere, are appended here as a kernel would (log_append): told
by the tables, before and after they are written. What an area alone reports, VM_SOFTDIRTY, is in no log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.caching import RuleOfCachingBroken
from ptewalk.cosim.programs.trace import CachingWalker, TracedMmu
from ptewalk.model.dirty_log import Record, record_of
from ptewalk.model.linux import SoftBit
from ptewalk.model.page_set import PageSet
from ptewalk.model.paging import Request, Result, State
from ptewalk.model.pte import PROTNONE, Entries, P
from ptewalk.model.state.frames import Frames
from ptewalk.model.state.tables import PMD_PAGES, PageTables, Stale
from ptewalk.model.x86 import INDEX_BITS, PAGE_SHIFT

__all__ = ["LoggedTables", "LoggedWalker", "ProgramLog"]

_SOFT_DIRTY: Final = 1 << SoftBit.SOFT_DIRTY
_PRESENT: Final = P | PROTNONE


class ProgramLog:
    """The pages of each address space that were marked since `forget`.

    Parameters
    ----------
    rules : Entries
        Of the kernel whose tables these are.

    Attributes
    ----------
    records : int
        What the gateware wrote, since the start.
    appended : int
        Pages that software added, and that had no record yet.
    """

    def __init__(self, rules: Entries) -> None:
        self.rules = rules
        self.records = 0
        self.appended = 0
        self._pages: dict[int, PageSet] = {}
        """Frame of the top-level table to pages."""
        self._tables: dict[int, LoggedTables] = {}

    def tables(self, frames: Frames, stale: Stale, levels: int, pcid: int) -> LoggedTables:
        """The tables of a new address space: what `MachineState` takes as `tables`."""
        made = LoggedTables(frames, stale, levels, pcid, log=self)
        self._pages[made.root], self._tables[made.root] = PageSet(), made
        return made

    def record(self, root: int, record: Record) -> None:
        """The gateware wrote a record, of the address space whose top-level table is the frame `root`."""
        self.records += 1
        size = 1 << INDEX_BITS * (record.level - 1)
        head = record.page & -size
        self._pages[root].add(head, head + size)

    def append(self, root: int, first: int, last: int) -> None:
        """Software marked pages [first, last)."""
        pages = self._pages[root]
        self.appended += last - first - sum(end - start for start, end in pages.within(first, last))
        pages.add(first, last)

    def pages(self, tables: PageTables) -> PageSet:
        """The pages of an address space that were marked."""
        self._tables[tables.root].settle()
        return self._pages[tables.root]

    def forget(self, alive: Iterable[PageTables]) -> None:
        """An epoch begins, with these address spaces: others are gone."""
        roots = {tables.root for tables in alive}
        self._tables = {root: tables for root, tables in self._tables.items() if root in roots}
        self._pages = {root: PageSet() for root in self._tables}
        for tables in self._tables.values():
            tables.settled()

    @property
    def figures(self) -> dict[str, int]:
        """`records` and `appended`."""
        return {"records": self.records, "appended": self.appended}


class LoggedTables(PageTables):
    """Tables that tell a log of each entry that software makes soft-dirty.

    Parameters
    ----------
    frames, stale, levels, pcid
        As of `PageTables`.
    log : ProgramLog
    """

    def __init__(self, frames: Frames, stale: Stale, levels: int, pcid: int, *, log: ProgramLog) -> None:
        super().__init__(frames, stale, levels, pcid)
        self._log = log
        self._edited: list[tuple[int, int, NDArray[np.uint64]]] = []
        """Of `edit`, which returns before entries are written: pages, and their entries before."""

    def settle(self) -> None:
        """What was edited so far is appended."""
        for first, last, before in self._edited:
            if self.table(first, 1):
                self._append_gains(first, before, self._view(first, last))
        self._edited.clear()

    def settled(self) -> None:
        """What was edited so far counts for nothing."""
        self._edited.clear()

    def _is_marked(self, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
        marks = np.where(
            entries & np.uint64(_PRESENT) != 0,
            entries & np.uint64(_SOFT_DIRTY),
            self._log.rules.pte_swp_soft_dirty(entries),
        )
        return marks != 0

    def _is_one_marked(self, entry: int) -> bool:
        return bool(entry & _SOFT_DIRTY if entry & _PRESENT else self._log.rules.pte_swp_soft_dirty(entry))

    def _append_gains(self, first: int, before: NDArray[np.uint64] | int, after: NDArray[np.uint64]) -> None:
        gains = self._is_marked(after) & ~self._is_marked(np.asarray(before, np.uint64))
        for place in np.flatnonzero(gains).tolist():
            self._log.append(self.root, first + place, first + place + 1)

    def _append_gain(self, head: int, size: int, before: int, after: int) -> None:
        if self._is_one_marked(after) and not self._is_one_marked(before):
            self._log.append(self.root, head, head + size)

    def set(self, page: int, entry: int) -> None:
        """As of `PageTables`."""
        self._append_gain(page, 1, self.get(page), entry)
        super().set(page, entry)

    def set_huge(self, page: int, entry: int, level: int = 2) -> None:
        """As of `PageTables`."""
        size = 1 << INDEX_BITS * (level - 1)
        self._append_gain(page & -size, size, self.get_huge(page, level), entry)
        super().set_huge(page, entry, level)

    def fill(self, page: int, entries: NDArray[np.uint64]) -> None:
        """As of `PageTables`."""
        before = self.get_huge(page)
        super().fill(page, entries)
        self._append_gains(page & -PMD_PAGES, before, entries)

    def write(self, first: int, entries: NDArray[np.uint64]) -> None:
        """As of `PageTables`."""
        before = self.entries(first, first + len(entries))
        super().write(first, entries)
        self._append_gains(first, before, entries)

    def edit(self, first: int, last: int) -> NDArray[np.uint64]:
        """As of `PageTables`."""
        self._edited.append((first, last, self.entries(first, last)))
        return super().edit(first, last)

    def change(self, first: int, last: int, function: Callable[[NDArray[np.uint64]], None]) -> None:
        """As of `PageTables`."""
        before = self.entries(first, last)
        super().change(first, last, function)
        self._append_gains(first, before, self.look(first, last))

    def relink(self, old: int, new: int, level: int) -> None:
        """As of `PageTables`: what comes in is marked by its area alone, so all of it is appended."""
        super().relink(old, new, level)
        self._log.append(self.root, new, new + (1 << INDEX_BITS * level))


class LoggedWalker(CachingWalker):
    """As `CachingWalker`, of an MMU with a dirty log.

    Parameters
    ----------
    mmu : TracedMmu
        Its library is built with a log.

    Attributes
    ----------
    told : callable (int, Record)
        Told of each record, and of the frame of the top-level table under which it was written.
    """

    def __init__(self, mmu: TracedMmu) -> None:
        super().__init__(mmu)
        self.told: Callable[[int, Record], Any] = lambda root, record: None
        self._read = 0

    def walk(self, state: State, request: Request) -> Result:
        """As `Walker.walk`. Raises `RuleOfCachingBroken` for a record of another epoch."""
        result = super().walk(state, request)
        for word in self.mmu.lane.records(self._read):
            record = record_of(word)
            if record.epoch != self.mmu.epochs & 1:
                raise RuleOfCachingBroken(f"a record of page {record.page:#x} has the parity of another epoch")
            self.told(state.root >> PAGE_SHIFT, record)
            self._read += 1
        return result

    def epoch(self) -> None:
        """An epoch ended."""
        self.mmu.epoch()
