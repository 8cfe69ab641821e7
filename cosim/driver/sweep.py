"""What /proc and mremap do to the tables of a range, entry by entry, by the unit's reads and swaps of words.

What becomes of an entry is the golden model's rule for one kernel (`model/bulk.py`). Who caches translations is told
afterwards: nothing here invalidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.driver.steps import DriverError, Steps
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.bulk import clear_refs, pagemap
from ptewalk.model.engine import Pages
from ptewalk.model.linux import PAGEMAP_FRAME_BITS, PagemapBit
from ptewalk.model.pte import ALL, FRAME, PROTNONE, PSE, SPECIAL, UFFD_WP, A, Entries, P
from ptewalk.model.x86 import ENTRY_BYTES, INDEX_BITS, LARGE_RESERVED, PAGE_BYTES, TABLE_ENTRIES

__all__ = ["Leaf", "Sweep"]

_FRAME_FIELD: Final = (1 << PAGEMAP_FRAME_BITS) - 1
_PRESENT: Final = 1 << PagemapBit.PRESENT
_UFFD_WP: Final = 1 << PagemapBit.UFFD_WP
_SOFT_DIRTY: Final = np.uint64(1 << PagemapBit.SOFT_DIRTY)


class Leaf(NamedTuple):
    """An entry of level 1, whatever it holds, or one above it that leads to no table and is not 0."""

    page: int
    """The first page that it maps, which may lie before the range."""
    level: int
    address: int
    entry: int


class Sweep:
    """A range of pages, by where its tables begin.

    Parameters
    ----------
    unit : Unit
    pages : Pages
    """

    def __init__(self, unit: Unit, pages: Pages) -> None:
        self._unit, self._pages = unit, pages

    def leaves(self) -> Steps[list[Leaf]]:
        """All of them, in the order of their pages."""
        found: list[Leaf] = []
        yield from self._look(self._pages.root * PAGE_BYTES, self._pages.levels, 0, found)
        return found

    def _look(self, table: int, level: int, base: int, found: list[Leaf]) -> Steps[None]:
        first, last, span = self._pages.first, self._pages.last, _span(level)
        for place in range(max(0, (first - base) // span), min(TABLE_ENTRIES, -(-(last - base) // span))):
            at, page = table + ENTRY_BYTES * place, base + place * span
            entry = yield from self._unit.read_word(at)
            if level == 1 or (entry and level in LARGE_RESERVED and (not entry & P or entry & PSE)):
                found.append(Leaf(page, level, at, entry))
            elif entry & P:
                yield from self._look(entry & FRAME, level - 1, page, found)

    def change(self, rule: Callable[[Leaf], int | None]) -> Steps[tuple[int, list[int]]]:
        """Make of each leaf what `rule` says; None: stop before it.

        Returns
        -------
        stopped : int
            The first page that was not dealt with; the end when all were.
        changed : list of int
            First pages of the entries that are others now.
        """
        changed: list[int] = []
        for leaf in (yield from self.leaves()):
            while (new := rule(leaf)) != leaf.entry:
                if new is None:
                    return max(leaf.page, self._pages.first), changed
                if (yield from self._unit.swap_word(leaf.address, leaf.entry, new)):
                    changed.append(leaf.page)
                    break
                leaf = leaf._replace(entry=(yield from self._unit.read_word(leaf.address)))
        return self._pages.last, changed

    def clear(self, rules: Entries, *, permit: bool = True, splits: bool = False) -> Steps[tuple[int, list[int]]]:
        """clear_refs 4 (fs/proc/task_mmu.c:clear_soft_dirty); `permit` and `splits` as in `model.engine.Engine`."""

        def rule(leaf: Leaf) -> int | None:
            if splits and leaf.level > 1:
                return None
            words = np.array([leaf.entry], np.uint64)
            clear_refs(words, rules, permit=permit)
            return int(words[0])

        return (yield from self.change(rule))

    def make_old(self, *, splits: bool = False) -> Steps[tuple[int, list[int]]]:
        """clear_refs 1 to 3: A off, but for level-1 entries without a struct page."""

        def rule(leaf: Leaf) -> int | None:
            if splits and leaf.level > 1:
                return None
            spared = leaf.level == 1 and leaf.entry & SPECIAL
            return leaf.entry & (ALL ^ A) if leaf.entry & (P | PROTNONE) and not spared else leaf.entry

        return (yield from self.change(rule))

    def protect(self, rules: Entries) -> Steps[tuple[int, list[int]]]:
        """Write-protect each page (fs/proc/task_mmu.c:make_uffd_wp_pte); what maps nothing becomes a marker."""

        return (yield from self.change(lambda leaf: _protected(leaf.entry, rules)))

    def take_written(self, rules: Entries) -> Steps[tuple[NDArray[np.uint64], list[int]]]:
        """`protect` of what is not write-protected, and the words of all: each of the value that its swap replaced.

        Returns
        -------
        words : uint64 array
        changed : list of int
            As of `change`.
        """
        told: dict[int, Leaf] = {}

        def rule(leaf: Leaf) -> int:
            told[leaf.page] = leaf
            word = int(pagemap(np.array([leaf.entry], np.uint64), rules)[0])
            return leaf.entry if word & _UFFD_WP else _protected(leaf.entry, rules)

        _, changed = yield from self.change(rule)
        return self._words_of(list(told.values()), rules), changed

    def words(self, rules: Entries, *, marks: bool = True) -> Steps[NDArray[np.uint64]]:
        """The pagemap words, without FILE and EXCLUSIVE; 0 where nothing is mapped. `marks`: soft-dirty is told."""
        words = self._words_of((yield from self.leaves()), rules)
        return words if marks else words & ~_SOFT_DIRTY

    def _words_of(self, leaves: list[Leaf], rules: Entries) -> NDArray[np.uint64]:
        first, last = self._pages.first, self._pages.last
        words = np.zeros(last - first, np.uint64)
        told = pagemap(np.array([leaf.entry for leaf in leaves], np.uint64), rules)
        for leaf, word in zip(leaves, told.tolist(), strict=True):
            if leaf.level == 1:
                words[leaf.page - first] = word
            elif word & _PRESENT:
                span = _span(leaf.level)
                head = word & ~_FRAME_FIELD | word & _FRAME_FIELD & -span
                own = np.arange(max(leaf.page, first), min(leaf.page + span, last), dtype=np.int64)
                words[own - first] = head + (own - leaf.page).astype(np.uint64)
        return words

    def move(self, target: int, level: int, rules: Entries, *, marks: bool, unprotects: bool) -> Steps[int]:
        """Entries of tables of `level` move to where those of `target` and on stand (mm/mremap.c:move_ptes).

        The source is taken first, so that its value is the last one; then the target is put, where nothing is. Between
        them the page is not present.

        Parameters
        ----------
        target : int
            A page; the tables that hold its entries exist.
        level : int
        rules : Entries
        marks : bool
            Each becomes soft-dirty.
        unprotects : bool
            Write-protection goes, and with it markers that say nothing else.

        Returns
        -------
        int
            How many moved.

        Raises
        ------
        DriverError
            There is something already, or no table.
        """
        moved = 0
        for page in range(self._pages.first, self._pages.last, _span(level)):
            source = yield from self._place(page, level)
            if source is None or not (yield from self._unit.read_word(source)):
                continue
            goal = yield from self._place(page - self._pages.first + target, level)
            if goal is None:
                raise DriverError(f"no table of level {level} for page {page - self._pages.first + target:#x}")
            entry = yield from self._unit.write_word(source, 0)
            new = _moved(entry, rules, marks=marks, unprotects=unprotects)
            if new and not (yield from self._unit.swap_word(goal, 0, new)):
                raise DriverError(f"page {page - self._pages.first + target:#x} is mapped already")
            moved += 1
        return moved

    def _place(self, page: int, level: int) -> Steps[int | None]:
        """Physical address of the entry of a page in a table of `level`; None where a table is missing."""
        table = self._pages.root * PAGE_BYTES
        for upper in range(self._pages.levels, level - 1, -1):
            at = table + ENTRY_BYTES * (page // _span(upper) % TABLE_ENTRIES)
            if upper == level:
                return at
            entry = yield from self._unit.read_word(at)
            if not entry & P:
                return None
            table = entry & FRAME
        raise AssertionError("unreachable")


def _span(level: int) -> int:
    """Pages under an entry of this level."""
    return 1 << INDEX_BITS * (level - 1)


def _protected(entry: int, rules: Entries) -> int:
    """What a write-protection makes of an entry."""
    if entry & (P | PROTNONE):
        return rules.pte_mkuffd_wp(entry)
    return entry | rules.SWP_UFFD_WP if entry else rules.make_uffd_marker()


def _moved(entry: int, rules: Entries, *, marks: bool, unprotects: bool) -> int:
    """What an entry becomes on its way."""
    present = entry & (P | PROTNONE)
    if unprotects:
        if rules.is_marker(entry) and not rules.is_guard(entry):
            return 0
        entry &= ALL ^ (UFFD_WP if present else rules.SWP_UFFD_WP)
    if not marks or not entry:
        return entry
    return rules.pte_mksoft_dirty(entry) if present else rules.pte_swp_mksoft_dirty(entry)
