"""The PAGEMAP_SCAN ioctl of 6.7 and later (fs/proc/task_mmu.c:do_pagemap_scan).

Places are page numbers. The walk stops early inside a `_Full` exception, as the kernel's does with ENOSPC.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model import bulk
from ptewalk.model.engine import Engine
from ptewalk.model.errors import Errno
from ptewalk.model.linux import (
    HUGE_PAGES,
    PAGEMAP_FRAME_BITS,
    SCAN_ARGUMENT_BYTES,
    SCAN_BUFFER_REGIONS,
    SCAN_RETURN_MASK,
    PagemapBit,
    ScanCategory,
    ScanFlag,
    VmFlag,
)
from ptewalk.model.mm import thp, uffd
from ptewalk.model.proc.pagemap import FRAME, PRESENT, SOFT_DIRTY, UFFD, Words
from ptewalk.model.pte import PROTNONE, SPECIAL, UFFD_WP, E, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.tables import ALL_TABLES, SPAN_TABLES
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import INDEX_BITS, PAGE_BYTES, PAGE_SHIFT, TABLE_ENTRIES

_NOWHERE: Final = np.zeros(0, np.intp)
_IN_TABLE: Final = np.arange(TABLE_ENTRIES)
_FLAGS: Final = ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC
_ENDLESS: Final = 1 << 63
_LEAST: Final = 16
"""Pages that are worth a pass of an engine of their own, where there are more."""
_STATUS: Final = np.uint64(PAGEMAP_FRAME_BITS)
"""Lowest status bit of a pagemap word."""


def _categories_of(status: int) -> int:
    """What a word's status bits tell of its categories."""
    word = status << PAGEMAP_FRAME_BITS
    told = (
        (not word & 1 << PagemapBit.UFFD_WP, ScanCategory.WRITTEN),
        (word & 1 << PagemapBit.PRESENT, ScanCategory.PRESENT),
        (word & 1 << PagemapBit.SWAP, ScanCategory.SWAPPED),
        (word & 1 << PagemapBit.SOFT_DIRTY, ScanCategory.SOFT_DIRTY),
        (word & 1 << PagemapBit.GUARD, ScanCategory.GUARD),
    )
    return sum(category for true, category in told if true)


_BESIDE: Final = (0, int(ScanCategory.PFNZERO), int(ScanCategory.FILE), int(ScanCategory.PFNZERO | ScanCategory.FILE))
"""What may come to a word's categories from its frame."""
_TOLD: Final = np.array([_categories_of(status) for status in range(1 << 64 - PAGEMAP_FRAME_BITS)], np.int64)


SOME_BUFFER: Final = 1 << 20
"""`Argument.vec` for a buffer of the caller's that always takes what is written."""
Store = Callable[[int, bytes], bool]


@dataclass
class Argument:
    """struct pm_scan_arg; addresses in bytes."""

    start: int
    end: int
    flags: int = 0
    size: int = SCAN_ARGUMENT_BYTES
    vec: int = SOME_BUFFER
    """Where regions are written; 0: nowhere."""
    vec_len: int = 4096
    max_pages: int = 0
    category_inverted: int = 0
    category_mask: int = 0
    category_anyof_mask: int = 0
    return_mask: int = SCAN_RETURN_MASK


@dataclass
class Answer:
    """What the call gives.

    Attributes
    ----------
    error : str or None
        Errno name.
    walk_end : int or None
        Byte address; None: not written.
    regions : list of (first page, pages, categories)
    """

    error: str | None
    walk_end: int | None
    regions: list[tuple[int, int, int]] = field(default_factory=list)


_REGION: Final = struct.Struct("<3Q")
"""struct page_region: start, end, categories."""


class _Full(Exception):
    """ENOSPC: no room for more regions or pages."""


class _Scan:
    """One call's state (struct pagemap_scan_private)."""

    def __init__(self, mm: Mm, argument: Argument, store: Store) -> None:
        self.mm = mm
        self.store = store
        self.argument = argument
        self.interest = argument.category_mask | argument.category_anyof_mask | argument.return_mask
        self.protects = bool(argument.flags & ScanFlag.WP_MATCHING)
        self.room = argument.vec_len
        self.max_pages = argument.max_pages or _ENDLESS
        self.found = 0
        self.walk_end = 0
        self.area_category = 0
        self.untold = 0
        """Categories that no page of the area has."""
        self._common_of: tuple[int, int] | None = None
        self._common = (np.uint64(0), np.zeros(0, np.uint64))
        """What `_in_common` said of an area of these two."""
        self.out: list[tuple[int, int, int]] = []
        self.buffer: list[list[int]] = []
        self.buffer_room = min(SCAN_BUFFER_REGIONS, argument.vec_len)

    def interesting(self, categories: E) -> Any:
        """pagemap_scan_is_interesting_page, of one page or of many."""
        argument = self.argument
        categories = categories ^ int(argument.category_inverted)  # numpy is slow with members of an enum
        mask, anyof = int(argument.category_mask), int(argument.category_anyof_mask)
        wanted = categories & mask == mask
        if anyof:
            wanted = wanted & (categories & anyof != 0)
        return wanted

    def push(self, categories: int, start: int, end: int) -> tuple[int, bool]:
        """Add a region; (how far it was taken, whether the walk must stop) (pagemap_scan_output)."""
        if not self.argument.vec_len:
            return end, False
        categories &= self.argument.return_mask
        full = False
        excess = self.found + end - start - self.max_pages
        if excess > 0:
            end -= excess
            full = True
        last = self.buffer[-1] if self.buffer else None
        if last and last[1] == start and last[2] == categories:
            last[1] = end
        elif len(self.buffer) >= self.buffer_room:
            end = start
            full = True
        else:
            self.buffer.append([start, end, categories])
        self.found += end - start
        if full:
            self.walk_end = end
        return end, full

    def back_out(self, start: int, end: int) -> None:
        """Take a region back that turned out to need smaller steps (pagemap_scan_backout_range)."""
        if not self.argument.vec_len:
            return
        last = self.buffer[-1]
        if last[0] != start:
            last[1] = start
        else:
            self.buffer.pop()
        self.found -= end - start

    def flush(self) -> None:
        """Copy the gathered regions out (pagemap_scan_flush_buffer). Raises EFAULT."""
        regions = [(a, b - a, c) for a, b, c in self.buffer if a != b]
        if self.argument.vec != SOME_BUFFER:
            self.mm.kernel.forget()  # what is written next goes through the MMU
            data = b"".join(_REGION.pack(a << 12, a + n << 12, c) for a, n, c in regions)
            if not self.store(self.argument.vec + _REGION.size * len(self.out), data):
                raise Errno("EFAULT")
        self.out.extend(regions)
        self.room -= len(regions)
        self.buffer_room = min(self.buffer_room, self.room)
        self.buffer = []

    # The walk.

    def walk(self, start: int, end: int) -> None:
        """walk_page_range with pagemap_scan_ops."""
        for vma in self.mm.areas.in_range(start, end):
            if not self.enters(vma):
                continue
            low, high = max(start, vma.start), min(end, vma.end)
            if vma.huge_level:
                self.hugetlb(vma, low, high)
            else:
                self.area(vma, low, high)

    def enters(self, vma: Vma) -> bool:
        """pagemap_scan_test_walk"""
        argument, profile = self.argument, self.mm.entries.profile
        allowed = bool(vma.flags & VmFlag.UFFD_WP) and vma.resolves_itself
        if not allowed:
            if argument.flags & ScanFlag.CHECK_WPASYNC:
                raise Errno("EPERM")
            if self.protects:
                return False
        category = ScanCategory.WPALLOWED if allowed else 0
        if vma.flags & self.mm.entries.VM_SOFTDIRTY:
            category |= ScanCategory.SOFT_DIRTY
        self.area_category = category
        self.untold = 0
        if profile.pagemap_scan_written_needs_uffd and not vma.flags & VmFlag.UFFD_WP:
            self.untold = int(ScanCategory.WRITTEN)
        required = argument.category_mask & ScanCategory.WPALLOWED
        return (category ^ argument.category_inverted) & required == required

    def area(self, vma: Vma, start: int, end: int) -> None:
        """Present tables by entry, everything between them as holes."""
        at = start
        by_marks = self._asks_marks()
        for piece in self.mm.tables.pieces(vma, start, end, together=ALL_TABLES if by_marks else SPAN_TABLES):
            self.holes(vma, at, piece.first)
            if piece.leaf:
                self.huge(vma, piece.first, piece.last)
            elif by_marks:
                self.marked(piece.first, piece.last)
            else:
                self.entries(vma, piece.first, piece.last)
            at = piece.last
        self.holes(vma, at, end)

    def holes(self, vma: Vma, start: int, end: int) -> None:
        """Pages without a page table, as far at a time as the lowest missing table reaches (walk_pgd_range)."""
        tables = self.mm.tables
        at = start
        while at < end:
            level = next((k for k in range(2, tables.levels) if tables.table(at, k)), tables.levels)
            size = 1 << INDEX_BITS * (level - 1)
            stop = min(end, (at // size + 1) * size)
            self.hole(vma, at, stop)
            at = stop

    def hole(self, vma: Vma, start: int, end: int) -> None:
        """pagemap_scan_pte_hole"""
        categories = self.area_category
        told = self.mm.entries.profile.pagemap_scan_empty_is_written
        if told and vma.flags & VmFlag.UFFD_WP and not vma.huge_level:
            categories |= ScanCategory.WRITTEN
        if not self.interesting(categories):
            return
        end, full = self.push(categories, start, end)
        if end != start and self.protects:
            if vma.huge_level:
                self._protect_hugetlb_hole(vma, start, end)
            else:
                uffd.protect_range(self.mm, vma, start, end, protect=True)
        if full:
            raise _Full

    def _protect_hugetlb_hole(self, vma: Vma, start: int, end: int) -> None:
        size = 1 << 9 * (vma.huge_level - 1)
        for at in range(start // size * size, end, size):
            self.mm.tables.alloc(at, vma.huge_level)
            if not self.mm.tables.get_huge(at, vma.huge_level):
                self.mm.tables.set_huge(at, self.mm.entries.make_uffd_marker(), vma.huge_level)

    def huge(self, vma: Vma, start: int, end: int) -> None:
        """pagemap_scan_thp_entry"""
        mm = self.mm
        pmd = mm.tables.get_huge(start)
        told = None if mm.kernel.engine is None else int(self._words(start, start + 1)[0])
        categories = self.area_category | self._huge_category(vma, pmd, told) & ~self.untold
        if not self.interesting(categories):
            return
        stop, full = self.push(categories, start, end)
        if stop != start and self.protects and categories & ScanCategory.WRITTEN:
            if stop != start + HUGE_PAGES:
                thp.split_huge_pmd(mm, vma, start & ~(HUGE_PAGES - 1))
                self.back_out(start, stop)
                if vma.is_anonymous:
                    self.entries(vma, start, end)
                else:
                    self.hole(vma, start, end)
                return
            if mm.kernel.engine is None:
                mm.tables.set_huge(start, mm.entries.pte_mkuffd_wp(pmd))
            else:
                self._protect_by(mm.kernel.engine, start, stop)
        if full:
            raise _Full

    def _words(self, start: int, end: int) -> Words:
        """The words of pages by what maps them alone."""
        mm = self.mm
        if mm.kernel.engine is None:
            return bulk.pagemap(mm.tables.look(start, end), mm.entries, compiled=mm.kernel.compiled)
        return mm.kernel.engine.words(mm.tables.pages(start, end), mm.entries, marks=True)

    def _protect_by(self, engine: Engine, start: int, end: int) -> None:
        tables = self.mm.tables
        tables.forget(start, end)
        engine.protect(tables.pages(start, end), self.mm.entries)

    def _huge_category(self, vma: Vma, pmd: int, told: int | None) -> int:
        """pagemap_thp_category; `told`: the word of its first page, from an engine."""
        mm = self.mm
        categories = ScanCategory.HUGE | ScanCategory.PRESENT
        marked = mm.entries.pmd_soft_dirty(pmd)
        protected = pmd & UFFD_WP
        if told is not None:
            marked, protected = told & int(SOFT_DIRTY), told & int(UFFD)
        if not protected:
            categories |= ScanCategory.WRITTEN
        if thp.is_huge_zero(mm, pmd):
            categories |= ScanCategory.PFNZERO
        elif self.interest & ScanCategory.FILE and not mm.frames.flags[thp.pmd_frame(mm, pmd)] & page.ANON:
            categories |= ScanCategory.FILE
        if marked:
            categories |= ScanCategory.SOFT_DIRTY
        return int(categories)

    def entries(self, vma: Vma, start: int, end: int) -> None:
        """pagemap_scan_pmd_entry over page tables."""
        engine = self.mm.kernel.engine
        if engine is not None and self.protects and (self._written_alone() or not self.argument.vec_len):
            start = self._take_written(engine, start, end)
        if start < end:
            self._tell_and_protect(start, end)

    def _written_alone(self) -> bool:
        """Pages that were written to are asked for, whatever else they are."""
        argument, written = self.argument, ScanCategory.WRITTEN
        return (
            not self.untold
            and not argument.category_anyof_mask
            and not argument.category_inverted
            and argument.category_mask == written
            and argument.return_mask == written
        )

    def _take_written(self, engine: Engine, start: int, end: int) -> int:
        """One pass over as many pages as there is room for, whatever is found of them; where it ends."""
        while start < end:
            stop = end
            if self.argument.vec_len:
                # Every second page may begin a region.
                room = min(2 * (self.buffer_room - len(self.buffer)), self.max_pages - self.found)
                stop = min(end, start + room)
                if stop - start < min(end - start, _LEAST):
                    break
            words = engine.take_written(self.mm.tables.pages(start, stop), self.mm.entries)
            places = ((words & UFFD) == 0).nonzero()[0]
            category = self.area_category | int(ScanCategory.WRITTEN)
            for first, last, _ in _runs(places, np.zeros_like(places)):
                self.mm.tables.forget(start + first, start + last)
                _, full = self.push(category, start + first, start + last)
                assert not full
            start = stop
        return start

    def _tell_and_protect(self, start: int, end: int) -> None:
        """What is told is known before what there is room for is protected."""
        argument = self.argument
        part = self.mm.tables.look(start, end)
        words = self._words(start, end)
        if self.protects and not argument.vec_len:
            self._protect(start, end, (words & UFFD) == 0)
            return
        written = int(ScanCategory.WRITTEN)
        if self._written_alone():
            places = ((words & UFFD) == 0).nonzero()[0]
            categories = np.full(len(places), self.area_category | written)
        elif end - start > TABLE_ENTRIES:
            likely = self._likely(words)
            places, categories = self._wanted(part[likely], words[likely])
            places = likely[places]
        else:
            places, categories = self._wanted(part, words)
        taken = np.zeros(end - start, np.bool_)
        full = False
        for first, last, found in _runs(places, categories):
            stop, full = self.push(found, start + first, start + last)
            taken[first : stop - start] = bool(found & written)
            if full:
                break
        if self.protects:
            self._protect(start, end, taken)
        if full:
            raise _Full

    def marked(self, start: int, end: int) -> None:
        """As `entries`, where only pages with a soft-dirty entry are asked for: tables without one are passed over."""
        layout, compiled = bulk.Layout.of(self.mm.entries), self.mm.kernel.compiled
        marks = layout.soft_dirty | layout.swap_soft_dirty
        for at, part in self.mm.tables.parts(start, end):
            firsts = np.arange(0, len(part), TABLE_ENTRIES)
            tables = firsts[np.bitwise_or.reduceat(part, firsts) & marks != 0]
            for group in range(0, len(tables), SPAN_TABLES):
                places = (tables[group : group + SPAN_TABLES, None] + _IN_TABLE).ravel()
                if places[-1] >= len(part):
                    places = places[places < len(part)]
                some = part[places]
                words = bulk.pagemap(some, self.mm.entries, compiled=compiled)
                likely = self._likely(words)
                found, categories = self._wanted(some[likely], words[likely])
                for first, last, category in _runs(places[likely[found]] + at, categories):
                    if self.push(category, first, last)[1]:
                        raise _Full

    def _asks_marks(self) -> bool:
        """Are only such pages of the area asked for, and nothing is done to them?"""
        if self.protects or self.mm.kernel.engine is not None:
            return False
        bits, values = self._in_common()
        return bool((values & bits & SOFT_DIRTY).any())

    def _likely(self, words: Words) -> NDArray[np.intp]:
        """Places of the area's pages that may be asked for, by what their words' status bits have in common."""
        bits, values = self._in_common()
        return (words & bits == values).nonzero()[0] if len(values) else _NOWHERE

    def _in_common(self) -> tuple[np.uint64, Words]:
        """Bits that the words of all pages of the area that may be asked for share, and their values; or none may."""
        area = self.untold, self.area_category
        if self._common_of != area:
            told = (_TOLD, np.zeros_like(_TOLD))  # the second: of an entry that is 0
            wanted = [
                self.interesting((of_word | of_frame) & ~self.untold | self.area_category)
                for of_word in told
                for of_frame in _BESIDE
            ]
            possible = np.logical_or.reduce(wanted).nonzero()[0].astype(np.uint64)
            varied = np.bitwise_or.reduce(possible ^ possible[:1])
            self._common_of = area
            self._common = (~varied << _STATUS, (possible[:1] & ~varied) << _STATUS)
        return self._common

    def _wanted(self, part: Words, words: Words) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Which of a run of entries are asked for, ascending, and the categories of those."""
        categories = self._categories(part, words) & ~self.untold | self.area_category
        places = self.interesting(categories).nonzero()[0]
        return places, categories[places]

    def _categories(self, part: Words, words: Words) -> NDArray[np.int64]:
        """pagemap_page_category of a run of entries, with their pagemap words."""
        frames = self.mm.frames
        categories = _TOLD.take((words >> _STATUS).view(np.int64), mode="clip")
        if not self.mm.entries.profile.pagemap_scan_empty_is_written:
            categories[part == 0] = 0
        present = words >= PRESENT
        index = (words & FRAME).view(np.int64)
        index[~present] = 0
        zero = present & (index == frames.zero)
        categories |= zero * np.int64(ScanCategory.PFNZERO)
        if self.interest & ScanCategory.FILE:
            normal = present & ~zero & ((part & np.uint64(SPECIAL)) == 0)
            file = normal & (frames.flags[index] & page.ANON == 0)
            categories |= file * np.int64(ScanCategory.FILE)
        return categories

    def _protect(self, start: int, end: int, taken: NDArray[np.bool_]) -> None:
        """make_uffd_wp_pte on the pages `taken` of [start, end)."""
        entries = self.mm.entries

        def protect(part: Words) -> None:
            old = part[taken]
            absent = np.where(old, old | np.uint64(entries.SWP_UFFD_WP), np.uint64(entries.make_uffd_marker()))
            part[taken] = np.where(old & np.uint64(P | PROTNONE), entries.pte_mkuffd_wp(old), absent)

        engine = self.mm.kernel.engine
        if engine is not None:
            chosen = taken.nonzero()[0]
            for first, last, _ in _runs(chosen, np.zeros_like(chosen)):
                self._protect_by(engine, start + first, start + last)
        elif taken.any():
            self.mm.tables.change(start, end, protect)

    def hugetlb(self, vma: Vma, start: int, end: int) -> None:
        """pagemap_scan_hugetlb_entry"""
        mm = self.mm
        level = vma.huge_level
        size = 1 << 9 * (level - 1)
        at = start
        while at < end:
            stop = min(end, (at // size + 1) * size)
            if not mm.tables.table(at, level):
                self.hole(vma, at, stop)
                at = stop
                continue
            entry = mm.tables.get_huge(at, level)
            categories = self.area_category | self._hugetlb_category(entry) & ~self.untold
            if self.interesting(categories):
                taken, full = self.push(categories, at, stop)
                if taken != at and self.protects and categories & ScanCategory.WRITTEN:
                    if taken != at + size:
                        self.back_out(at, taken)
                        self.walk_end = at
                        full = False
                    elif mm.entries.pte_present(entry):
                        mm.tables.set_huge(at, mm.entries.pte_mkuffd_wp(entry), level)
                    elif not entry:
                        mm.tables.set_huge(at, mm.entries.make_uffd_marker(), level)
                if full:
                    raise _Full
            at = stop

    def _hugetlb_category(self, entry: int) -> int:
        """pagemap_hugetlb_category: soft-dirty is the raw bit."""
        mm = self.mm
        categories = int(ScanCategory.HUGE)
        if mm.entries.pte_present(entry):
            categories |= ScanCategory.PRESENT
            if not entry & UFFD_WP:
                categories |= ScanCategory.WRITTEN
            if not mm.frames.flags[mm.entries.pte_pfn(entry)] & page.ANON:
                categories |= ScanCategory.FILE
            if mm.entries.pte_soft_dirty(entry):
                categories |= ScanCategory.SOFT_DIRTY
        elif entry:
            categories |= ScanCategory.SWAPPED
        return categories


def _runs(places: NDArray[np.intp], values: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Of values at ascending places each run of equal neighbours: first and last place + 1, and the value."""
    if not len(places):
        return
    edges = (places[1:] - places[:-1] != 1) | (values[1:] != values[:-1])
    firsts = [0, *(edges.nonzero()[0] + 1).tolist()]
    lasts = [*firsts[1:], len(places)]
    for first, last in zip(firsts, lasts, strict=True):
        yield int(places[first]), int(places[last - 1]) + 1, int(values[first])


def _check(mm: Mm, argument: Argument) -> None:
    """pagemap_scan_get_args"""
    if argument.size != SCAN_ARGUMENT_BYTES or argument.flags & ~_FLAGS:
        raise Errno("EINVAL")
    user_end = (1 << PAGE_SHIFT + INDEX_BITS * mm.tables.levels - 1) - PAGE_BYTES  # access_ok: TASK_SIZE_MAX
    masks = argument.category_inverted | argument.category_mask | argument.category_anyof_mask | argument.return_mask
    if masks & ~mm.entries.profile.pagemap_scan_categories:
        raise Errno("EINVAL")
    if argument.start % PAGE_BYTES:
        raise Errno("EINVAL")
    if not 0 <= argument.start <= argument.end <= user_end:
        raise Errno("EFAULT")
    if not argument.vec and argument.vec_len:
        raise Errno("EINVAL")
    if argument.vec and argument.vec + _REGION.size * argument.vec_len > user_end:
        raise Errno("EFAULT")


def scan(mm: Mm, argument: Argument, store: Store) -> Answer:
    """The call; an error in the arguments leaves walk_end unwritten, one in the walk does not.

    `store` writes bytes to user memory at an address, and says whether that could be done (copy_to_user).
    """
    try:
        _check(mm, argument)
    except Errno as error:
        return Answer(error.name, None)
    with mm.kernel.flush():
        return _scan(mm, argument, store)


def _scan(mm: Mm, argument: Argument, store: Store) -> Answer:
    """The call, with arguments that are right."""
    state = _Scan(mm, argument, store)
    at, end = argument.start >> 12, argument.end + 4095 >> 12
    problem: str | None = None
    while at < end:
        full = False
        try:
            state.walk(at, end)
        except _Full:
            full = True
        except Errno as error:
            problem = error.name
        try:
            state.flush()
        except Errno as error:
            problem, full = error.name, False
        if not full or state.room == 0 or state.found == state.max_pages:
            break
        at = state.walk_end
    walk_end = state.walk_end << 12 if state.walk_end else end << 12
    return Answer(problem, walk_end, [] if problem else state.out)
