"""clear_refs, pagemap and scan over flat arrays of level-1 entries, near the speed of memory.

The rules of one kernel for an entry, as /proc knows them: proc/clear_refs.py and proc/pagemap.py call them for whole
areas, and add what is not in an entry (file pages, exclusive mappings, pins, areas). Arrays are worked on in pieces
that stay in the processor's second-level cache, in place, without a Python loop over pages.

`compiled=True` takes a single compiled pass over the array instead (model/bulk_compiled.py), where numba is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import (
    PAGEMAP_FRAME_BITS,
    PAGEMAP_SWAP_TYPE_BITS,
    NotPresentBit,
    PagemapBit,
    SoftBit,
    Track,
)
from ptewalk.model.pte import ALL, FRAME, PROTNONE, RW, UFFD_WP, D, Entries, P
from ptewalk.model.x86 import FRAME_LOW, TABLE_ENTRIES, EntryBit

__all__ = ["Known", "Masks", "clear_refs", "mapped", "pagemap", "scan"]

Words = NDArray[np.uint64]

_PIECE: Final = 1 << 15
"""Entries of a piece: 256 KiB, and as much again for what is worked out of them."""
_LOOKED_UP: Final = 1 << 14
"""Entries of a piece where each is looked up: the processor's second-level cache has room for the lookup too."""


def _constant(value: int) -> Words:
    """An operand: an array without dimensions, which numpy takes up faster than a number."""
    return np.array(value, np.uint64)


_FRAME_DOWN: Final = _constant(FRAME_LOW)
_SD_UP: Final = PagemapBit.SOFT_DIRTY - SoftBit.SOFT_DIRTY
_FLAGS: Final = _constant((1 << FRAME_LOW) - 1)
_NO_FLAGS: Final = _constant(~((1 << FRAME_LOW) - 1) & ALL)
_FLAGS_UP: Final = _constant(1 << PagemapBit.PRESENT | 1 << _SD_UP)
"""A product that brings P to PRESENT, and all flags to 44 to 55, where soft-dirty is at its place."""
_TOLD: Final = _constant(P | UFFD_WP | 1 << SoftBit.SOFT_DIRTY)
_TOLD_UP: Final = _constant(int(_FLAGS_UP) | 1 << PagemapBit.UFFD_WP - SoftBit.UFFD_WP)
"""A product that brings these three to their places, and to others that a word has no use for."""
_P_UP: Final = np.array(1 << 15 | 1, np.uint16)
"""A product that brings P to the highest bit of 16, and leaves the lower ones where they are."""
_LONG: Final = 8 * TABLE_ENTRIES
"""Entries from which on each table is looked at first."""
_FIRSTS: Final = np.arange(0, _PIECE, TABLE_ENTRIES)
_IN_TABLE: Final = np.arange(TABLE_ENTRIES)
_NO_TABLES: Final = np.zeros(0, np.intp)
_P, _PROTNONE = _constant(P), _constant(PROTNONE)
_WORD_FRAME: Final = _constant((1 << PAGEMAP_FRAME_BITS) - 1)
_ONLY_FRAME: Final = _WORD_FRAME.view(np.int64)


class Masks(NamedTuple):
    """What clear_refs 4 does to an entry, as numbers for `cleared`."""

    clear: np.uint64
    """Bits that a present entry loses."""
    clear_swapped: np.uint64
    """Bits that a swap-like entry loses."""
    saved: np.uint64
    """SAVED_DIRTY where D of a present entry moves there, else 0."""
    arm: np.uint64
    """ARM where a present entry with RW gets it, else 0."""

    @staticmethod
    @lru_cache(maxsize=64)
    def of(rules: Entries, *, permit: bool = True) -> Masks:
        """The masks of a kernel, and of mappings that the MMU may mend (`permit`) or not."""
        clear = clear_swapped = saved = arm = 0
        if rules.soft_dirty:
            clear = rules.SOFT_DIRTY
            if rules.track != Track.NATIVE:
                saved = rules.SAVED_DIRTY
                clear |= RW | (D if saved else 0)
            if rules.profile.bulk_clears_swap:
                clear_swapped = rules.SWP_SOFT_DIRTY
            if rules.track == Track.FAULT and permit:
                arm = rules.ARM
        return Masks(*map(np.uint64, (clear, clear_swapped, saved, arm)))


class Layout(NamedTuple):
    """Where a kernel keeps what pagemap tells of entries with P=0, as numbers for `swap_words` and `hidden_words`."""

    soft_dirty: np.uint64
    uffd: np.uint64
    """UFFD_WP where pagemap tells it, else 0."""
    inverted: np.uint64
    """The frame field where a PROT_NONE entry holds its complement, else 0."""
    type_down: np.uint64
    type_field: np.uint64
    offset_flip: np.uint64
    """The offset's field where an entry holds its complement, else 0."""
    offset_down: np.uint64
    offset_field: np.uint64
    """Type and offset are shifted down, and these are their bits in a word."""
    swap_soft_dirty: np.uint64
    """Bits by which a swap-like entry is soft-dirty; 3.11 takes a bit of the offset too (rule A29)."""
    swap_uffd: np.uint64
    marker: np.uint64
    """Swap type that is write-protected by itself; 64: none."""
    plain: np.uint64
    """Bits of a word that tell of an entry with P."""

    @staticmethod
    @lru_cache(maxsize=64)
    def of(rules: Entries) -> Layout:
        """The layout of a kernel."""
        profile, swap = rules.profile, rules.swap_layout
        offset_mask = (1 << swap.offset_bits) - 1
        told = [PagemapBit.PRESENT]
        told += [PagemapBit.SOFT_DIRTY] if rules.soft_dirty else []
        told += [PagemapBit.UFFD_WP] if profile.bulk_tells_uffd else []
        numbers = (
            rules.SOFT_DIRTY,
            UFFD_WP if profile.bulk_tells_uffd else 0,
            FRAME if rules.inverts_prot_none else 0,
            swap.type_low,
            (1 << swap.type_bits) - 1,
            offset_mask << swap.offset_low if swap.inverted else 0,
            swap.offset_low - PAGEMAP_SWAP_TYPE_BITS,
            offset_mask << PAGEMAP_SWAP_TYPE_BITS & (1 << PAGEMAP_FRAME_BITS) - 1,
            rules.SWP_SOFT_DIRTY | (rules.SOFT_DIRTY if profile.bulk_reads_offset else 0),
            rules.SWP_UFFD_WP,
            64 if swap.marker_type is None else swap.marker_type,
            FRAME >> FRAME_LOW | sum(1 << bit for bit in told),
        )
        return Layout(*map(np.uint64, numbers))


def _checked(entries: Words) -> Words:
    if not isinstance(entries, np.ndarray) or entries.dtype != np.uint64 or entries.ndim != 1:
        found = f"{entries.dtype}, shape {entries.shape}" if isinstance(entries, np.ndarray) else type(entries).__name__
        raise TypeError(f"entries must be a one-dimensional uint64 array, not {found}")
    if not entries.flags.c_contiguous:
        raise TypeError(f"entries must lie side by side, not {entries.strides[0]} bytes apart")
    return entries


def _pieces(entries: Words, size: int = _PIECE) -> Iterator[tuple[int, Words, Words]]:
    """(place of the first, piece, scratch of the same length) of each piece, in order."""
    scratch = np.empty(min(len(entries), size), np.uint64)
    for start in range(0, len(entries), size):
        piece = entries[start : start + size]
        yield start, piece, scratch[: len(piece)]


def clear_refs(entries: Words, rules: Entries, *, permit: bool = True, compiled: bool = False) -> None:
    """clear_refs 4 on a run of level-1 entries, in place (fs/proc/task_mmu.c:clear_soft_dirty).

    Parameters
    ----------
    entries : uint64 array (n,)
        Raw entries of one area that is not hugetlb and has no pinned pages.
    rules : Entries
        The kernel, CONFIG_MEM_SOFT_DIRTY, and who tracks.
    permit : bool
        In `fault`: the MMU may mend these entries.
    compiled : bool
        One compiled pass; ImportError without numba.
    """
    entries, masks = _checked(entries), Masks.of(rules, permit=permit)
    if compiled:
        from ptewalk.model import bulk_compiled

        bulk_compiled.clear_refs(entries, masks)
        return
    table = _Table.of(masks, Layout.of(rules))
    if table.plain is None or len(entries) < _LONG:
        for _, piece, scratch in _pieces(entries, _LOOKED_UP):
            _change(piece, np.bitwise_and(piece, _FLAGS, scratch), table)
    else:
        for _, piece, scratch in _pieces(entries):
            _change_plain(piece, scratch, table, table.plain)


class _Plain(NamedTuple):
    """clear_refs 4 on entries with P, as operands.

    Attributes
    ----------
    told : uint16
        P, and bits by which an entry without it may be another one.
    kept : uint64
    moved, up : uint64
        A bit that is set again so many places higher; None: there is none.
    """

    told: NDArray[np.uint16]
    kept: Words
    moved: Words | None
    up: Words | None

    @staticmethod
    def of(masks: Masks) -> _Plain | None:
        """The operands; None where two bits move."""
        if masks.saved and masks.arm:
            return None
        told, kept = np.array(P | int(masks.clear | masks.clear_swapped), np.uint16), _constant(int(~masks.clear))
        if not masks.saved and not masks.arm:
            return _Plain(told, kept, None, None)
        moved, up = (D, _SAVED_UP) if masks.saved else (RW, _ARM_UP)  # it is lost where it is
        return _Plain(told, kept, _constant(moved), _constant(int(up)))


class _Table(NamedTuple):
    """What hangs on the low twelve bits of an entry, by their value; it is all there is to clear_refs 4.

    Attributes
    ----------
    cleared : uint64 array (4096,)
        What becomes of the low bits, and high bits that are set.
    dirty : bool array (4096,)
        The entry is soft-dirty.
    plain : _Plain or None
        None: a table is faster.
    """

    cleared: Words
    dirty: NDArray[np.bool_]
    plain: _Plain | None

    @staticmethod
    @lru_cache(maxsize=64)
    def of(masks: Masks, layout: Layout) -> _Table:
        """The table of a kernel, and of mappings that the MMU may mend or not."""
        low = np.arange(1 << FRAME_LOW, dtype=np.uint64)
        return _Table(cleared(low, masks), soft_dirty_bits(low, layout) != 0, _Plain.of(masks))


def _change(piece: Words, low: Words, table: _Table) -> None:
    """Clear in place; `low`, the entries' low bits, is overwritten."""
    table.cleared.take(low.view(np.int64), out=low, mode="wrap")  # all are inside, and this mode asks least
    np.bitwise_and(piece, _NO_FLAGS, piece)
    np.bitwise_or(piece, low, piece)


def _change_plain(piece: Words, scratch: Words, table: _Table, plain: _Plain) -> None:
    """Clear in place as if all had P, but for tables where one without it has a bit that some entry loses."""
    low = scratch.view(np.uint16)[: len(piece)]
    np.copyto(low, piece, casting="unsafe")
    np.bitwise_and(low, plain.told, low)
    np.multiply(low, _P_UP, low)  # positive: P=0, and not all of the bits are 0
    rare: list[int] = []
    if low.view(np.int16).max() > 0:
        rare = (_highest(low.view(np.int16)) > 0).nonzero()[0].tolist()
    parts = [piece[at * TABLE_ENTRIES : (at + 1) * TABLE_ENTRIES] for at in rare]
    before = [part.copy() for part in parts]
    if plain.moved is None or plain.up is None:
        np.bitwise_and(piece, plain.kept, piece)
    else:
        np.bitwise_and(piece, plain.moved, scratch)
        np.left_shift(scratch, plain.up, scratch)
        np.bitwise_and(piece, plain.kept, piece)
        np.bitwise_or(piece, scratch, piece)
    for part, entries in zip(parts, before, strict=True):
        _change(entries, np.bitwise_and(entries, _FLAGS), table)
        part[:] = entries


def _highest(values: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """The highest value of each table of a piece."""
    return np.maximum.reduceat(values, _FIRSTS[: -(-len(values) // TABLE_ENTRIES)], out=out)


def pagemap(entries: Words, rules: Entries, *, out: Words | None = None, compiled: bool = False) -> Words:
    """The pagemap words (second layout) of a run of level-1 entries (fs/proc/task_mmu.c:pte_to_pagemap_entry).

    FILE and EXCLUSIVE are 0: they are the frame's, not the entry's.

    Parameters
    ----------
    entries : uint64 array (n,)
        Raw entries.
    rules : Entries
        The kernel, and CONFIG_MEM_SOFT_DIRTY.
    out : uint64 array (n,), optional
        Where the words go.
    compiled : bool
        One compiled pass; ImportError without numba.

    Returns
    -------
    uint64 array (n,)
        PRESENT or SWAP, SOFT_DIRTY, UFFD_WP, and frame number, or swap type and offset.
    """
    entries = _checked(entries)
    words = np.empty_like(entries) if out is None else _checked(out)
    if len(words) != len(entries):
        raise ValueError(f"out must have {len(entries)} words, not {len(words)}")
    layout = Layout.of(rules)
    if compiled:
        from ptewalk.model import bulk_compiled

        bulk_compiled.pagemap(entries, words, layout)
        return words
    present, highest = _Present.of(layout), np.empty(-(-len(entries) // TABLE_ENTRIES), np.int64)
    for start, piece, scratch in _pieces(entries):
        tables = slice(start // TABLE_ENTRIES, (start + _PIECE) // TABLE_ENTRIES)
        _put_present(piece, words[start : start + len(piece)], scratch, present, highest[tables])
    _put_absent(entries, words, highest, layout)
    return words


class _Present(NamedTuple):
    """How the words of entries that are 0 or have P are made, as operands."""

    flags: Words
    """Those of an entry that are told,"""
    flags_up: Words
    """and a product that brings them to their places, and to others that a word has no use for."""
    plain: Words
    """Bits of a word."""

    @staticmethod
    @lru_cache(maxsize=64)
    def of(layout: Layout, more: int = 0) -> _Present:
        """The operands; `more` is a bit, 2^48 or higher, that these words have besides; 0 without userfaultfd."""
        # Kernels with userfaultfd keep complements in entries with P=0 (asm/pgtable-invert.h): the high bits show them.
        flags, flags_up = (_TOLD, int(_TOLD_UP) | more) if layout.uffd else (_FLAGS, int(_FLAGS_UP))
        return _Present(flags, _constant(flags_up), _constant(int(layout.plain) | more))


def _put_present(piece: Words, word: Words, scratch: Words, present: _Present, highest: NDArray[np.int64]) -> None:
    """Put the words of entries of a piece that are 0 or have P; positive in `highest`: a table that has others."""
    np.right_shift(piece, _FRAME_DOWN, word)
    np.bitwise_and(piece, present.flags, scratch)
    np.multiply(scratch, present.flags_up, scratch)
    np.bitwise_or(word, scratch, word)  # not 0 where the entry is not, and P the highest bit
    _highest(word.view(np.int64), highest)
    np.bitwise_and(word, present.plain, word)


class Alike(NamedTuple):
    """What `alike` found, table by table, the first from the first entry on.

    Attributes
    ----------
    low, high : int64 array (tables,)
        A frame below which, and one above which it has none; 0 where all words are 0.
    hidden : bool array (tables,)
        It has a PROT_NONE entry, of whose page nothing is said.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    hidden: NDArray[np.bool_]


def alike(entries: Words, rules: Entries, out: Words) -> Alike | None:
    """As `pagemap` into `out`, as if all pages were mapped once, and no file's; None: not on this kernel."""
    layout = Layout.of(rules)
    if not layout.uffd:
        return None
    present = _Present.of(layout, 1 << PagemapBit.EXCLUSIVE)
    low, high, highest = np.empty((3, -(-len(entries) // TABLE_ENTRIES)), np.int64)
    told, most = out.view(np.int64), high.view(np.uint64)
    for start, piece, scratch in _pieces(entries):
        end, table = start + len(piece), start // TABLE_ENTRIES
        last = table + _PIECE // TABLE_ENTRIES
        _put_present(piece, out[start:end], scratch, present, highest[table:last])
        firsts = _FIRSTS[: len(low[table:last])]
        np.minimum.reduceat(told[start:end], firsts, out=low[table:last])  # with PRESENT the smallest
        np.maximum.reduceat(out[start:end], firsts, out=most[table:last])
    if ((low.view(np.uint64) ^ most) > _WORD_FRAME).any():
        _bound_mixed(out, low.view(np.uint64), most)
    low &= _ONLY_FRAME
    high &= _ONLY_FRAME
    hidden = np.zeros(len(highest), np.bool_)
    hidden[_put_absent(entries, out, highest, layout)] = True
    return Alike(low, high, hidden)


def _bound_mixed(words: Words, low: Words, high: Words) -> None:
    """The lowest and the highest frame of each table, where its words differ by marks."""
    for start, piece, frames in _pieces(words):
        tables = slice(start // TABLE_ENTRIES, (start + _PIECE) // TABLE_ENTRIES)
        least, most = low[tables], high[tables]
        if (least ^ most > _WORD_FRAME).any():
            np.bitwise_and(piece, _WORD_FRAME, frames)
            np.maximum.reduceat(frames, _FIRSTS[: len(most)], out=most)
            np.subtract(frames, _ONE, frames)  # 0 becomes the largest
            np.minimum.reduceat(frames, _FIRSTS[: len(least)], out=least)
            np.add(least, _ONE, least)


class Known(NamedTuple):
    """What pagemap tells of a page that is not in its entry.

    Attributes
    ----------
    flags : uint16 array (frames,)
    anon : uint16
        The flag of frames that are no file's.
    maps : int32 array (frames,)
        Entries of level 1 that map a frame.
    head : int64 array (frames,)
        The first frame of the compound page that a frame is part of.
    huge_maps : int32 array (frames,) or (0,)
        By first frame, the leaves above level 1 that map a compound page; empty: there are none.
    exclusive : bool
        EXCLUSIVE is told, of frames that are mapped once.
    shared : uint64
        What all words have.
    """

    flags: NDArray[np.uint16]
    anon: np.uint16
    maps: NDArray[np.int32]
    head: NDArray[np.int64]
    huge_maps: NDArray[np.int32]
    exclusive: bool
    shared: np.uint64


def mapped(entries: Words, rules: Entries, known: Known, *, out: Words | None = None) -> Words:
    """As `pagemap`, with FILE and EXCLUSIVE of entries that have a struct page; compiled: ImportError without numba.

    Raises
    ------
    IndexError
        An entry maps a frame that nothing is known of.
    """
    from ptewalk.model import bulk_compiled

    entries = _checked(entries)
    words = np.empty_like(entries) if out is None else _checked(out)
    bulk_compiled.mapped(entries, words, Layout.of(rules), known)
    return words


def _put_absent(entries: Words, words: Words, highest: NDArray[np.int64], layout: Layout) -> NDArray[np.intp]:
    """Put right the words of entries that are not 0 and have P=0, of the tables that `highest` is positive of.

    Returns the tables that have a PROT_NONE entry.
    """
    tables = (highest > 0).nonzero()[0]
    hiding = [_NO_TABLES]
    for start in range(0, len(tables), _PIECE // TABLE_ENTRIES):
        places = (tables[start : start + _PIECE // TABLE_ENTRIES, None] * TABLE_ENTRIES + _IN_TABLE).ravel()
        if places[-1] >= len(entries):
            places = places[places < len(entries)]
        part = entries[places]
        absent = ((part & _P == 0) & (part != 0)).nonzero()[0]
        part, places = part[absent], places[absent]
        hidden = part & _PROTNONE != 0
        if hidden.any():
            words[places[hidden]] = hidden_words(part[hidden], layout)
            hiding.append(places[hidden] // TABLE_ENTRIES)
            part, places = part[~hidden], places[~hidden]
        words[places] = swap_words(part, layout)
    return np.concatenate(hiding)


# The rules in plain arithmetic, for a uint64 array; model/bulk_compiled.py compiles them for one entry.

_FRAME, _LOW = np.uint64(FRAME), np.uint64(FRAME_LOW)
_PRESENT, _SWAP = np.uint64(1 << PagemapBit.PRESENT), np.uint64(1 << PagemapBit.SWAP)
_SD_LIFT, _UFFD_LIFT = np.uint64(_SD_UP), np.uint64(PagemapBit.UFFD_WP - SoftBit.UFFD_WP)
_ZERO, _ONE, _HIGHEST = np.uint64(0), np.uint64(1), np.uint64(1 << 63)
_SD_DROP, _UFFD_DROP = np.uint64(63 - PagemapBit.SOFT_DIRTY), np.uint64(63 - PagemapBit.UFFD_WP)
_GUARD_DROP = np.uint64(63 - PagemapBit.GUARD)
_MARKER_UFFD_UP = np.uint64(63 - PAGEMAP_SWAP_TYPE_BITS)
_MARKER_GUARD_UP = np.uint64(61 - PAGEMAP_SWAP_TYPE_BITS)
"""A marker's bits are the lowest of its offset, which stands above the type."""
_PROTNONE_LOW = np.uint64(NotPresentBit.PROTNONE)
_PRESENT_UP = np.uint64(PagemapBit.PRESENT)
_ARM_UP, _SAVED_UP = np.uint64(SoftBit.ARM - EntryBit.RW), np.uint64(SoftBit.SAVED_DIRTY - EntryBit.D)


def cleared(entry: Any, masks: Any) -> Any:
    """Entries after clear_refs 4 (clear_soft_dirty)."""
    present = _ZERO - ((entry | entry >> _PROTNONE_LOW) & _ONE)  # all ones
    raised = (entry << _ARM_UP & masks.arm | entry << _SAVED_UP & masks.saved) & present
    return entry & ~(present & (masks.clear ^ masks.clear_swapped) ^ masks.clear_swapped) | raised


def soft_dirty_bits(entry: Any, layout: Any) -> Any:
    """The bits of entries by which they are soft-dirty: 0, or not."""
    present = _ZERO - ((entry | entry >> _PROTNONE_LOW) & _ONE)
    return entry & (present & (layout.soft_dirty ^ layout.swap_soft_dirty) ^ layout.swap_soft_dirty)


def plain_words(entry: Any, layout: Any) -> Any:
    """The words of entries that are 0 or have P."""
    word = (entry & _FRAME) >> _LOW | entry << _PRESENT_UP
    return word | (entry & layout.soft_dirty) << _SD_LIFT | (entry & layout.uffd) << _UFFD_LIFT


def hidden_words(entry: Any, layout: Any) -> Any:
    """The words of PROT_NONE entries."""
    word = ((entry ^ layout.inverted) & _FRAME) >> _LOW | _PRESENT
    return word | (entry & layout.soft_dirty) << _SD_LIFT | (entry & layout.uffd) << _UFFD_LIFT


def swap_words(entry: Any, layout: Any) -> Any:
    """The words of swap-like entries."""
    kind = entry >> layout.type_down & layout.type_field
    word = (entry ^ layout.offset_flip) >> layout.offset_down & layout.offset_field | kind | _SWAP
    dirty = (entry & layout.swap_soft_dirty) + (_HIGHEST - _ONE)  # the highest bit: it was not 0
    marker = (kind ^ layout.marker) - _ONE  # the highest bit: it is one
    marked = (entry & layout.swap_uffd) + (_HIGHEST - _ONE) | marker & word << _MARKER_UFFD_UP
    guard = marker & word << _MARKER_GUARD_UP & _HIGHEST
    return word | (dirty & _HIGHEST) >> _SD_DROP | (marked & _HIGHEST) >> _UFFD_DROP | guard >> _GUARD_DROP


def scan(entries: Words, rules: Entries, *, permit: bool = True, compiled: bool = False) -> NDArray[np.uint8]:
    """Read and clear soft-dirty in one pass: what `pagemap` would say, then `clear_refs`, with its parameters.

    Returns
    -------
    uint8 array (ceil(n / 8),)
        A bit per entry, the first in the lowest bit: it was soft-dirty.
    """
    entries, masks, layout = _checked(entries), Masks.of(rules, permit=permit), Layout.of(rules)
    if compiled:
        from ptewalk.model import bulk_compiled

        return bulk_compiled.scan(entries, masks, layout)
    table = _Table.of(masks, layout)
    bitmap = np.empty((len(entries) + 7) // 8, np.uint8)
    for start, piece, scratch in _pieces(entries, _LOOKED_UP):
        np.bitwise_and(piece, _FLAGS, scratch)
        bits = np.packbits(table.dirty.take(scratch.view(np.int64)), bitorder="little")
        bitmap[start // 8 : start // 8 + len(bits)] = bits
        _change(piece, scratch, table)
    return bitmap
