"""/proc/kpageflags and /proc/kpagecount: one word per frame of physical memory (fs/proc/page.c)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import KpageflagsBit
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState

Words = NDArray[np.uint64]
FIRST_FRAME: Final = 16
"""Frames below were never memory."""
_COMPOUND: Final = page.COMPOUND | page.HUGETLB


def end(kernel: MachineState) -> int:
    """One past the last frame."""
    return kernel.frames.next


def visible(kernel: MachineState, pfns: NDArray[np.int64]) -> NDArray[np.uint16]:
    """The frames' flags as far as kpageflags shows them.

    3.11 says nothing of a huge page but what its head has, not that it is huge, and nothing of the huge zero page.
    """
    flags = kernel.frames.flags[pfns]
    if kernel.profile.kpage_compound_tails:
        return flags
    tails = kernel.frames.head[pfns] != pfns
    huge_zero = (flags & (page.ZERO | page.COMPOUND)) == page.ZERO | page.COMPOUND
    flags = np.where(tails, flags & page.HUGETLB, flags & (0xFFFF ^ page.COMPOUND))
    return np.where(huge_zero, 0, flags).astype(np.uint16)


def flags(kernel: MachineState, first: int, count: int) -> Words:
    """The kpageflags words of frames [first, first + count).

    Set as the kernel sets them: UPTODATE, DIRTY (PG_dirty, not the entries' D), MMAP, ANON,
    SWAPCACHE, SWAPBACKED, COMPOUND_HEAD, COMPOUND_TAIL, HUGE, KSM, THP, ZERO_PAGE, RESERVED of the zero page, PGTABLE,
    MAPPEDTODISK of anonymous pages (exclusive), BUDDY of free frames, NOPAGE. Always 0, for the model has no LRU lists,
    no reclaim and no I/O: DIRTY of shared hugetlb pages, LOCKED, ERROR, REFERENCED, LRU, ACTIVE, SLAB, WRITEBACK,
    RECLAIM, UNEVICTABLE, MLOCKED, IDLE.
    """
    frames, profile = kernel.frames, kernel.profile
    pfns = np.arange(first, first + count, dtype=np.int64)
    raw, seen = frames.flags[pfns], visible(kernel, pfns)
    tails = frames.head[pfns] != pfns
    words: Words = np.zeros(count, np.uint64)

    def put(bit: KpageflagsBit, where: NDArray[np.bool_]) -> None:
        words[where] |= np.uint64(1 << bit)

    anon = (seen & page.ANON) != 0
    cached = (seen & page.FILE) != 0
    compound = (raw & _COMPOUND) != 0
    whose, own = ~tails, raw
    exclusive = anon & ((raw & page.EXCLUSIVE) != 0)
    if profile.kpage_folio_flags:
        whose, own = np.ones(count, bool), frames.flags[frames.head[pfns]]
        exclusive = anon & ((own & page.EXCLUSIVE) != 0)
    elif frames.huge_maps:
        # One entry for all: its first page has the flag.
        exclusive &= ~(tails & np.isin(frames.head[pfns], np.array(list(frames.huge_maps), np.int64)))
    put(KpageflagsBit.MMAP, counts(kernel, first, count) > 0)
    put(KpageflagsBit.ANON, anon)
    put(KpageflagsBit.KSM, anon if profile.kpage_folio_flags else (seen & page.KSM) != 0)
    put(KpageflagsBit.UPTODATE, (anon | cached) & whose)
    put(KpageflagsBit.DIRTY, (anon | cached) & ((own & page.DIRTY) != 0) & whose)
    put(KpageflagsBit.SWAPBACKED, anon & ((own & (page.LAZYFREE | page.HUGETLB)) == 0) & whose)
    put(KpageflagsBit.COMPOUND_HEAD, compound & ~tails)
    put(KpageflagsBit.COMPOUND_TAIL, compound & tails)
    put(KpageflagsBit.HUGE, (raw & page.HUGETLB) != 0)
    put(KpageflagsBit.THP, (seen & page.COMPOUND) != 0)
    for owner in np.unique(frames.owner[pfns[cached & ~compound]]).tolist():
        if not kernel.files.by_identity(owner).counts_dirty:
            put(KpageflagsBit.SWAPBACKED, cached & ~compound & (frames.owner[pfns] == owner))
    zero = (seen & page.ZERO) != 0
    put(KpageflagsBit.RESERVED, zero & ~compound)
    if profile.kpage_zero_page:
        put(KpageflagsBit.ZERO_PAGE, zero)
    if profile.kpage_exclusive:
        put(KpageflagsBit.MAPPEDTODISK, exclusive)
    put(KpageflagsBit.SWAPCACHE, np.isin(pfns, np.array(list(frames.cached_slot), np.int64)))
    tables = np.isin(pfns, _table_frames(kernel))
    if profile.kpage_zero_page:
        put(KpageflagsBit.PGTABLE, tables)
    put(KpageflagsBit.BUDDY, (raw == 0) & ~tables & (pfns >= FIRST_FRAME))
    put(KpageflagsBit.NOPAGE, pfns < FIRST_FRAME)
    return words


def counts(kernel: MachineState, first: int, count: int) -> Words:
    """The kpagecount words of frames [first, first + count): entries that map each (page_mapcount).

    3.11 counts a huge page's mappings at its head only.
    """
    pfns = np.arange(first, first + count, dtype=np.int64)
    frames = kernel.frames
    found = frames.mapcounts(pfns)
    if not kernel.profile.kpage_compound_tails:
        found = np.where(frames.head[pfns] != pfns, frames.maps[pfns], found)
    return found.astype(np.uint64)


def _table_frames(kernel: MachineState) -> NDArray[np.int64]:
    """Frames that hold page tables."""
    found: list[int] = []
    for process in kernel.processes.values():
        found.extend(process.mm.tables.frames_used())
    return np.array(found, np.int64)
