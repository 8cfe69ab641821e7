"""/proc/PID/pagemap words (fs/proc/task_mmu.c), by whole runs of entries."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.model import bulk
from ptewalk.model.linux import PAGEMAP_FRAME_BITS, PAGEMAP_V1_SHIFT_LOW, PagemapBit, VmFlag
from ptewalk.model.mm import hugetlb
from ptewalk.model.pte import SPECIAL
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.tables import ALL_TABLES, PMD_SHIFT, SPAN_TABLES, Piece
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import PAGE_SHIFT, TABLE_ENTRIES

Words = NDArray[np.uint64]
PRESENT: Final = np.uint64(1 << PagemapBit.PRESENT)
SWAP: Final = np.uint64(1 << PagemapBit.SWAP)
FILE: Final = np.uint64(1 << PagemapBit.FILE)
UFFD: Final = np.uint64(1 << PagemapBit.UFFD_WP)
EXCLUSIVE: Final = np.uint64(1 << PagemapBit.EXCLUSIVE)
SOFT_DIRTY: Final = np.uint64(1 << PagemapBit.SOFT_DIRTY)
FRAME: Final = np.uint64((1 << PAGEMAP_FRAME_BITS) - 1)
V1_SHIFT: Final = np.uint64(PAGE_SHIFT << PAGEMAP_V1_SHIFT_LOW)
"""The page-shift field of the first layout, on every word."""
_MANY: Final = 8 * TABLE_ENTRIES
"""Entries from which on it is asked whether their frames are alike."""
_FRAMES_ASKED: Final = 4
"""Times as many frames as pages that may be asked for that."""
_NOWHERE: Final[NDArray[np.int64]] = np.zeros(0, np.int64)
_NO_WORDS: Final[Words] = np.zeros(0, np.uint64)


def area_word(mm: Mm, vma: Vma) -> int:
    """What every word of an area has: soft-dirty by VM_SOFTDIRTY, also where nothing is mapped."""
    return int(SOFT_DIRTY) if vma.flags & mm.entries.VM_SOFTDIRTY & VmFlag.SOFTDIRTY else 0


def pte_words(mm: Mm, vma: Vma, part: Words, out: Words | None = None, told: Words | None = None) -> Words:
    """The words of a run of level-1 entries of one area (pte_to_pagemap_entry), frame numbers included.

    Parameters
    ----------
    part : uint64 array (n,)
    out : uint64 array (n,), optional
        Where the words go.
    told : uint64 array (n,), optional
        What an engine says of them: the words without what is the frame's or the area's.
    """
    frames, shared = mm.frames, area_word(mm, vma)
    if told is None and mm.kernel.compiled:
        known = bulk.Known(
            frames.flags,
            np.uint16(page.ANON),
            frames.maps,
            frames.head,
            frames.huge_maps_by_head(),
            mm.entries.profile.pagemap_tells_exclusive,
            np.uint64(shared),
        )
        return bulk.mapped(part, mm.entries, known, out=out)
    if told is None:
        words = bulk.pagemap(part, mm.entries, out=out)
    else:
        words = np.empty_like(part) if out is None else out
        words[:] = told
    _tell_frames(mm, part, words)
    if shared:
        words |= np.uint64(shared)
    return words


def _tell_frames(mm: Mm, part: Words, words: Words) -> None:
    """Add FILE and EXCLUSIVE to the words of level-1 entries."""
    frames = mm.frames
    normal = (words >= PRESENT) & ((part & np.uint64(SPECIAL)) == 0)  # PRESENT is the highest bit
    index = (words & FRAME).view(np.int64)
    index[~normal] = 0
    file = (frames.flags.take(index) & page.ANON == 0) & normal
    if file.any():
        words |= file.astype(np.uint64) << np.uint64(PagemapBit.FILE)
    if mm.entries.profile.pagemap_tells_exclusive:
        exclusive = (frames.mapcounts(index) == 1) & normal
        words |= exclusive.astype(np.uint64) << np.uint64(PagemapBit.EXCLUSIVE)


class _Many:
    """The words of hundreds of page tables of an area, made as if each page was anonymous and mapped once.

    In most processes nearly all are. `mend` asks for each frame of all other tables.
    """

    def __init__(self, mm: Mm, vma: Vma) -> None:
        self._mm, self._vma = mm, vma
        self._shared = np.uint64(area_word(mm, vma))
        self._parts: list[tuple[int, int]] = []
        """Pages of each part,"""
        self._before: list[int] = []
        """how many tables those before it have,"""
        self._found: list[bulk.Alike] = []
        """and what was found of its own."""

    @staticmethod
    def pays(mm: Mm, vma: Vma, pages: int) -> bool:
        """Is it worth while for so many pages?"""
        if pages < _MANY or mm.kernel.compiled or mm.kernel.engine is not None or not vma.is_anonymous:
            return False
        return mm.entries.profile.pagemap_tells_exclusive and mm.frames.next <= _FRAMES_ASKED * pages

    def put(self, first: int, last: int, out: Words) -> None:
        """The words of pages [first, last), which have page tables throughout."""
        for at, part in self._mm.tables.parts(first, last):
            words = out[at - first : at - first + len(part)]
            found = bulk.alike(part, self._mm.entries, words)
            if found is None:
                pte_words(self._mm, self._vma, part, words)
                continue
            if self._shared:
                words |= self._shared
            self._before.append(self._before[-1] + len(self._found[-1].low) if self._found else 0)
            self._parts.append((at, at + len(part)))
            self._found.append(found)

    def mend(self, start: int, out: Words) -> None:
        """Ask for each frame where it is needed; `out` begins with page `start`."""
        odd = self._odd().nonzero()[0].tolist() if self._found else []
        for at in range(0, len(odd), SPAN_TABLES):
            pages = [self._pages(table) for table in odd[at : at + SPAN_TABLES]]
            places = [slice(first - start, last - start) for first, last in pages]
            words = np.concatenate([out[place] for place in places])
            words &= ~EXCLUSIVE
            _tell_frames(self._mm, np.concatenate([self._mm.tables.look(*some) for some in pages]), words)
            done = 0
            for place in places:
                count = place.stop - place.start
                out[place] = words[done : done + count]
                done += count

    def _pages(self, table: int) -> tuple[int, int]:
        """Pages of a table, by its number in what was found."""
        part = bisect_right(self._before, table) - 1
        first, last = self._parts[part]
        first += (table - self._before[part]) * TABLE_ENTRIES
        return first, min(first + TABLE_ENTRIES, last)

    def _odd(self) -> NDArray[np.bool_]:
        """The tables whose words are not right, or may not be."""
        found = self._found
        low, high, odd = found[0] if len(found) == 1 else map(np.concatenate, zip(*found, strict=True))
        shared = self._mm.frames.shared_before()
        before = shared[:-1].take(low >> PMD_SHIFT, mode="clip")  # all unknown frames are in one block behind the last
        to_last = shared[1:].take(high >> PMD_SHIFT, mode="clip")
        return odd | (before != to_last) & (high != 0)


def huge_word(mm: Mm, vma: Vma, head: int, entry: int, level: int) -> int:
    """The word of the first page, `head`, under a huge leaf; the next have the next frames (pagemap_pmd_range)."""
    entries, frames = mm.entries, mm.frames
    word = area_word(mm, vma)
    if not entries.pte_present(entry):
        if entry and vma.huge_level and entries.is_marker(entry):
            word |= int(UFFD)
        return word
    frame = entries.pte_pfn(entry) if vma.huge_level else entries.pte_pfn(entry, level)
    word |= int(PRESENT) | frame
    flags = int(frames.flags[frame])
    exclusive = entries.profile.pagemap_tells_exclusive and frames.mapcount(frame) == 1 and not flags & page.ZERO
    if exclusive and not hugetlb.table_counts_as_shared(mm, head, level, "X"):
        word |= int(EXCLUSIVE)
    if entry & int(bulk.Layout.of(entries).uffd):
        word |= int(UFFD)
    names_files = entries.profile.pagemap_huge_files and not flags & page.ANON
    if entry & SPECIAL and entries.profile.pagemap_special_is_no_file:
        names_files = False
    if vma.huge_level:
        return word | int(FILE) if names_files else word
    if entries.pte_soft_dirty(entry):
        word |= int(SOFT_DIRTY)
    if names_files:
        word |= int(FILE)
    return word


def huge_words(mm: Mm, vma: Vma, piece: Piece, told: Words | None = None) -> Words:
    """The words of pages under a huge leaf; 6.12 tells for each page whether it is mapped exclusively.

    `told` is as in `pte_words`; what is not present an engine does not tell of.
    """
    first, last, head = piece.first, piece.last, piece.head
    word = huge_word(mm, vma, head, piece.leaf, piece.level)
    words = np.full(last - first, word, np.uint64)
    if not word & int(PRESENT):
        return words
    if told is None:
        words += np.arange(first - head, last - head, dtype=np.uint64)
    else:
        words = told | np.uint64(word & int(FILE | EXCLUSIVE) | area_word(mm, vma))
    if mm.entries.profile.pagemap_exclusive_by_page and not vma.huge_level:
        frame = mm.entries.pte_pfn(piece.leaf, piece.level)
        counts = mm.frames.maps[frame + first - head : frame + last - head] + mm.frames.huge_maps.get(frame, 0)
        if mm.entries.profile.pagemap_exclusive_by_first:
            counts = counts[:1]
        words = np.where(counts == 1, words | EXCLUSIVE, words & ~EXCLUSIVE)
    return words


def shows_frames(kernel: MachineState, *, privileged: bool) -> bool:
    """Does a pagemap that was opened with CAP_SYS_ADMIN, or without it, tell frame numbers?"""
    return privileged or not kernel.profile.pagemap_hides_frames


def tells_exclusive(kernel: MachineState) -> bool:
    """Does pagemap tell which pages are mapped once?"""
    return kernel.profile.pagemap_tells_exclusive


class Mapped(NamedTuple):
    """What an area's pages are mapped by, as it was read for their words.

    Attributes
    ----------
    piece : Piece
    used : int64 array
        Of page tables: the positions that are not empty.
    entries : uint64 array
        Of page tables: all entries.
    """

    piece: Piece
    used: NDArray[np.int64]
    entries: Words


def read(mm: Mm, start: int, pages: int, *, show_frames: bool = True) -> Words:
    """The words of pages [start, start + pages), as the file holds them.

    Parameters
    ----------
    show_frames : bool
        The reader opened the file with CAP_SYS_ADMIN; otherwise the frame field is 0 where the profile hides it.
    """
    words: Words = np.empty(pages, np.uint64)
    put(mm, start, words, show_frames=show_frames)
    return words


def put(mm: Mm, start: int, out: Words, *, show_frames: bool = True) -> None:
    """As `read`, into `out`, of as many pages as it has room for."""
    at = start
    for vma in mm.areas.in_range(start, start + len(out)):
        low, high = max(start, vma.start), min(start + len(out), vma.end)
        out[at - start : low - start] = 0
        _fill(mm, vma, low, high, out[low - start : high - start])
        at = high
    out[at - start :] = 0
    _finish(mm.kernel, out, show_frames)


def read_area(mm: Mm, vma: Vma, *, show_frames: bool = True) -> tuple[Words, list[Mapped]]:
    """As `read`, of all pages of one area, and what the words were made of."""
    words: Words = np.empty(vma.end - vma.start, np.uint64)
    mapped: list[Mapped] = []
    _fill(mm, vma, vma.start, vma.end, words, mapped)
    _finish(mm.kernel, words, show_frames)
    return words, mapped


def _fill(mm: Mm, vma: Vma, start: int, end: int, out: Words, mapped: list[Mapped] | None = None) -> None:
    """Put the words of pages [start, end) of one area into `out`."""
    engine = mm.kernel.engine
    told: Words | None = None
    shared = np.uint64(area_word(mm, vma))
    if engine is not None:
        told = engine.words(mm.tables.pages(start, end), mm.entries, marks=not vma.huge_level)
        np.bitwise_or(told, shared, out)
    many = _Many(mm, vma) if mapped is None and _Many.pays(mm, vma, end - start) else None
    at = start
    for piece in mm.tables.pieces(vma, start, end, together=SPAN_TABLES if many is None else ALL_TABLES):
        if told is None:
            out[at - start : piece.first - start] = shared
        at = piece.last
        place = out[piece.first - start : piece.last - start]
        own = None if told is None else told[piece.first - start : piece.last - start]
        if piece.leaf:
            place[:] = huge_words(mm, vma, piece, own)
            if mapped is not None:
                mapped.append(Mapped(piece, _NOWHERE, _NO_WORDS))
            continue
        if many is not None:
            many.put(piece.first, piece.last, place)
            continue
        part = mm.tables.look(piece.first, piece.last)
        dense = len(part) > TABLE_ENTRIES or 2 * np.count_nonzero(part) > len(part)  # many tables: not looked at
        used = _NOWHERE if dense and mapped is None else part.nonzero()[0]
        if dense or own is not None:
            pte_words(mm, vma, part, place, own)
        else:
            place[:] = shared
            if len(used):
                place[used] = pte_words(mm, vma, part[used])
        if mapped is not None:
            mapped.append(Mapped(piece, used, part.copy()))
    if many is not None:
        many.mend(start, out)
    if told is None:
        out[at - start :] = shared
    if mm.kernel.exact:
        out &= ~SOFT_DIRTY
        for first, last in mm.changed.within(start, end):
            out[first - start : last - start] |= SOFT_DIRTY


def _finish(kernel: MachineState, words: Words, show_frames: bool) -> None:
    """Give words the layout in force, and hide what the reader may not see."""
    if not kernel.pagemap_v2:
        words &= PRESENT | SWAP | FILE | FRAME
        words |= V1_SHIFT
    if not shows_frames(kernel, privileged=show_frames):
        words &= ~FRAME
