"""clear_refs, pagemap and scan over flat arrays of leaf entries, near the speed of memory.

For whole address spaces: millions of level-1 entries as they stand in tables. The rules are those of model/pte.py, by
profile and way of tracking; what needs the operating system's other state (file pages, exclusive mappings, pins, areas)
is not in an entry, and is left to model/pagemap.py and model/clear_refs.py. Arrays are worked on in pieces that stay in
the processor's second-level cache, in place, without a Python loop over pages.

`compiled=True` takes a single compiled pass over the array instead (model/bulk_compiled.py), where numba is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import PAGEMAP_SWAP_TYPE_BITS, PagemapBit, Profile, SoftBit, Track
from ptewalk.model.pte import FRAME, PROTNONE, RW, UFFD_WP, D, Entries, P
from ptewalk.model.x86 import FRAME_LOW, EntryBit

__all__ = ["Masks", "clear_refs", "pagemap", "scan"]

Words = NDArray[np.uint64]

_PIECE: Final = 1 << 14
"""Entries of a piece: 128 KiB, and as much again for what is worked out of them."""
_ONE: Final = np.uint64(1)
_ALL: Final = (1 << 64) - 1
_PRESENT_OUT: Final = np.uint64(1 << PagemapBit.PRESENT)
_SD_UP: Final = np.uint64(PagemapBit.SOFT_DIRTY - SoftBit.SOFT_DIRTY)
_UFFD_UP: Final = np.uint64(PagemapBit.UFFD_WP - SoftBit.UFFD_WP)


@dataclass(frozen=True, slots=True)
class Masks:
    """What clear_refs 4 does to an entry, as numbers.

    Attributes
    ----------
    present : int
        Bits cleared in a present entry.
    swapped : int
        Bits cleared in a swap-like entry.
    save_dirty : bool
        D of a present entry moves to SAVED_DIRTY.
    arm : bool
        A present entry with RW gets ARM.
    """

    present: int
    swapped: int
    save_dirty: bool
    arm: bool

    @staticmethod
    def of(profile: Profile, track: Track, *, permit: bool = True, soft_dirty: bool = True) -> Masks:
        """The masks of a profile, a way of tracking, and a mapping that the MMU may mend (`permit`) or not."""
        entries = Entries(profile, soft_dirty=soft_dirty, track=track)
        if not soft_dirty:
            return Masks(0, 0, False, False)
        native = entries.track == Track.NATIVE
        return Masks(
            present=entries.SOFT_DIRTY if native else entries.SOFT_DIRTY | RW,
            swapped=entries.SWP_SOFT_DIRTY if profile.clear_swap else 0,
            save_dirty=bool(entries.SAVED_DIRTY) and not native,
            arm=entries.track == Track.FAULT and permit,
        )


def _checked(entries: Words) -> Words:
    if not isinstance(entries, np.ndarray) or entries.dtype != np.uint64 or entries.ndim != 1:
        found = f"{entries.dtype}, shape {entries.shape}" if isinstance(entries, np.ndarray) else type(entries).__name__
        raise TypeError(f"entries must be a one-dimensional uint64 array, not {found}")
    return entries


def _pieces(entries: Words) -> Iterator[tuple[slice, Words, Words]]:
    """(place, piece, scratch of the same length) of each piece, in order."""
    scratch = np.empty(min(len(entries), _PIECE), np.uint64)
    for start in range(0, len(entries), _PIECE):
        piece = entries[start : start + _PIECE]
        yield slice(start, start + len(piece)), piece, scratch[: len(piece)]


def clear_refs(
    entries: Words,
    profile: Profile,
    track: Track = Track.OFF,
    *,
    permit: bool = True,
    soft_dirty: bool = True,
    compiled: bool = False,
) -> None:
    """clear_refs 4 on a run of level-1 entries, in place (fs/proc/task_mmu.c:clear_soft_dirty).

    Parameters
    ----------
    entries : uint64 array (n,)
        Raw entries of one area that is not hugetlb and has no pinned pages.
    permit : bool
        In `fault`: the MMU may mend these entries.
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    compiled : bool
        One compiled pass; ImportError without numba.
    """
    masks = Masks.of(profile, track, permit=permit, soft_dirty=soft_dirty)
    entries = _checked(entries)
    if compiled:
        from ptewalk.model import bulk_compiled

        bulk_compiled.clear_refs(entries, masks)
        return
    for _, piece, scratch in _pieces(entries):
        _clear_piece(piece, scratch, masks)


def _is_plain(piece: Words, scratch: Words) -> bool:
    """Every entry that is not 0 is present."""
    np.bitwise_and(piece, np.uint64(P | PROTNONE), out=scratch)
    return np.count_nonzero(scratch) == np.count_nonzero(piece)


def _clear_piece(piece: Words, scratch: Words, masks: Masks) -> None:
    if not masks.present | masks.swapped:
        return
    if not _is_plain(piece, scratch):
        present = (piece & np.uint64(P | PROTNONE)) != 0
        swapped = piece[~present] & np.uint64(_ALL ^ masks.swapped)
        _clear_present(piece, scratch, masks)
        piece[~present] = swapped
        return
    _clear_present(piece, scratch, masks)


def _clear_present(piece: Words, scratch: Words, masks: Masks) -> None:
    """What becomes of present entries; an entry of 0 stays 0."""
    clear = masks.present
    if masks.arm:
        np.bitwise_and(piece, np.uint64(RW), out=scratch)
        scratch <<= np.uint64(SoftBit.ARM - EntryBit.RW)
        piece |= scratch
    if masks.save_dirty:
        np.bitwise_and(piece, np.uint64(D), out=scratch)
        scratch <<= np.uint64(SoftBit.SAVED_DIRTY - EntryBit.D)
        piece |= scratch
        clear |= D
    piece &= np.uint64(_ALL ^ clear)


def pagemap(
    entries: Words, profile: Profile, *, soft_dirty: bool = True, out: Words | None = None, compiled: bool = False
) -> Words:
    """The pagemap words (second layout) of a run of level-1 entries (fs/proc/task_mmu.c:pte_to_pagemap_entry).

    FILE and EXCLUSIVE are 0: they are the frame's, not the entry's.

    Parameters
    ----------
    entries : uint64 array (n,)
        Raw entries.
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
    rules = Entries(profile, soft_dirty=soft_dirty)
    if compiled:
        from ptewalk.model import bulk_compiled

        odd = bulk_compiled.pagemap(entries, words, rules.SOFT_DIRTY)
        if odd:
            for place, piece, _ in _pieces(entries):
                _odd_words(piece, words[place], rules)
        return words
    for place, piece, scratch in _pieces(entries):
        word = words[place]
        np.bitwise_and(piece, np.uint64(FRAME), out=word)
        word >>= np.uint64(FRAME_LOW)
        np.left_shift(piece, np.uint64(PagemapBit.PRESENT), out=scratch)  # P is bit 0: nothing else is left
        word |= scratch
        odd = np.count_nonzero(scratch) != np.count_nonzero(piece)
        if rules.SOFT_DIRTY:
            np.bitwise_and(piece, np.uint64(rules.SOFT_DIRTY), out=scratch)
            scratch <<= _SD_UP
            word |= scratch
        if odd or (profile.pagemap_exclusive and np.bitwise_or.reduce(piece) & UFFD_WP):
            _odd_words(piece, word, rules)
    return words


def _odd_words(piece: Words, word: Words, rules: Entries) -> None:
    """Put right the words of entries that are PROT_NONE, swap-like, or write-protected by userfaultfd."""
    profile = rules.profile
    if profile.pagemap_exclusive:
        word |= (piece & np.uint64(UFFD_WP) * (piece & _ONE)) << _UFFD_UP
    other = np.flatnonzero((piece != 0) & (piece & np.uint64(P) == 0))
    if not len(other):
        return
    odd = piece[other]
    none = (odd & np.uint64(PROTNONE)) != 0
    hidden = odd[none]
    fixed = rules.pte_pfn(hidden) | _PRESENT_OUT
    fixed |= (hidden & np.uint64(rules.SOFT_DIRTY)) << _SD_UP
    if profile.pagemap_exclusive:
        fixed |= (hidden & np.uint64(UFFD_WP)) << _UFFD_UP
    word[other[none]] = fixed
    swapped = odd[~none]
    kind, offset = rules.swp_type(swapped), rules.swp_offset(swapped)
    fixed = (kind | offset << np.uint64(PAGEMAP_SWAP_TYPE_BITS)) & np.uint64((1 << 55) - 1)
    fixed |= np.uint64(1 << PagemapBit.SWAP)
    mask = rules.SWP_SOFT_DIRTY if profile.swap.soft_dirty is not None else rules.SOFT_DIRTY
    fixed[(swapped & np.uint64(mask)) != 0] |= np.uint64(1 << PagemapBit.SOFT_DIRTY)
    if rules.SWP_UFFD_WP:
        marked = (swapped & np.uint64(rules.SWP_UFFD_WP)) != 0
        if profile.swap.marker_type is not None:
            marked |= kind == np.uint64(profile.swap.marker_type)
        fixed[marked] |= np.uint64(1 << PagemapBit.UFFD_WP)
    word[other[~none]] = fixed


def scan(
    entries: Words,
    profile: Profile,
    track: Track = Track.OFF,
    *,
    permit: bool = True,
    compiled: bool = False,
) -> NDArray[np.uint8]:
    """Read and clear soft-dirty in one pass: what `pagemap` would say, then clear_refs 4.

    Returns
    -------
    uint8 array (ceil(n / 8),)
        A bit per entry, the first in the lowest bit: it was soft-dirty.
    """
    masks = Masks.of(profile, track, permit=permit)
    entries = _checked(entries)
    if compiled:
        from ptewalk.model import bulk_compiled

        return bulk_compiled.scan(entries, masks, _swap_mask(profile))
    bitmap = np.empty((len(entries) + 7) // 8, np.uint8)
    swap_mask = np.uint64(_swap_mask(profile))
    soft_dirty = np.uint64(1 << SoftBit.SOFT_DIRTY)
    for place, piece, scratch in _pieces(entries):
        plain = _is_plain(piece, scratch)
        if plain:
            np.bitwise_and(piece, soft_dirty, out=scratch)
            dirty = scratch != 0
        else:
            dirty = np.where(scratch != 0, piece & soft_dirty, piece & swap_mask) != 0
        bits = np.packbits(dirty, bitorder="little")
        bitmap[place.start // 8 : place.start // 8 + len(bits)] = bits
        (_clear_present if plain else _clear_piece)(piece, scratch, masks)
    return bitmap


def _swap_mask(profile: Profile) -> int:
    """The bit by which a swap-like entry is reported soft-dirty."""
    rules = Entries(profile)
    return rules.SWP_SOFT_DIRTY if profile.swap.soft_dirty is not None else rules.SOFT_DIRTY
