"""Swap entries read into the swap cache before anybody asks for them (mm/swap_state.c).

Modern kernels before 7.2 do so when several entries name the slot of a page that comes back: neighbours in the area
come with it. Who reads one of those later finds it in the cache, and it is exclusive only where its entry says so.
"""

from __future__ import annotations

from ptewalk.model.linux import HUGE_PAGES
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.slots import Slot
from ptewalk.model.state.vma import Readahead, Vma

WINDOW = 8
"""Pages of a readahead at most (page_cluster of 3)."""
HITS = 63
"""What the number of hits saturates at (SWAP_RA_HITS_MAX)."""


def read(kernel: MachineState, where: tuple[int, int], slot: Slot) -> int:
    """Read a slot into the swap cache; the frame (__read_swap_cache_async)."""
    frame = kernel.frames.alloc(page.ANON)
    if slot.words is not None:
        kernel.memory.add_frame(frame)[:] = slot.words
    slot.frame = frame
    slot.ahead = False
    kernel.frames.add_to_swap_cache(frame, where)
    return frame


def read_range(mm: Mm, start: int, end: int, fault: int | None = None) -> None:
    """Read what the entries of pages `start` to `end` name; with a `fault` the others are noted as ahead of it."""
    entries = mm.entries
    for at in range(start, end):
        pte = mm.tables.get(at)
        if not pte or entries.pte_present(pte) or entries.is_marker(pte):
            continue
        where = entries.pte_to_swp_entry(pte)
        slot = mm.kernel.swap.slots.get(where)
        if slot is not None and not slot.frame:
            read(mm.kernel, where, slot)
            slot.ahead = fault not in (None, at)


def note_found(mm: Mm, vma: Vma, at: int, slot: Slot) -> None:
    """A fault at `at` found its page in the cache (swap_cache_get_folio, swap_update_readahead)."""
    if slot.frame in mm.frames.folios or mm.frames.flags[slot.frame] & page.COMPOUND:
        return
    vma.readahead = Readahead(at, vma.readahead.window, min(vma.readahead.hits + slot.ahead, HITS))
    slot.ahead = False


def around(mm: Mm, vma: Vma, at: int) -> None:
    """Read the page of a fault and its neighbours (swap_vma_readahead, swap_vma_ra_win)."""
    before = vma.readahead
    window = _window(before, at)
    vma.readahead = Readahead(at, window, 0)
    if at == before.page + 1:
        first = at
    elif before.page == at + 1:
        first = at - window + 1
    else:
        first = at - (window - 1) // 2
    table = at - at % HUGE_PAGES
    start, end = max(first, vma.start, table), min(first + window, vma.end, table + HUGE_PAGES)
    read_range(mm, start, end, at)
    if window > 1:
        mm.kernel.lru.drain()


def _window(before: Readahead, at: int) -> int:
    """__swapin_nr_pages"""
    if before.hits:
        window = max(4, 1 << (before.hits + 1).bit_length())
    else:
        window = 2 if at in (before.page - 1, before.page + 1) else 1
    return max(min(window, WINDOW), before.window // 2)
