"""Frames and swap slots that lose their last user (mm/swap.c:__folio_put, mm/swapfile.c)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState


def put(kernel: MachineState, frame: int) -> None:
    """Free a page, or the compound page it belongs to, when nothing uses it any more."""
    frames = kernel.frames
    flags = int(frames.flags[frame])
    if not flags or flags & (page.FILE | page.ZERO | page.HUGETLB):
        return
    if flags & page.COMPOUND:
        run = frames.folio_slice(frame)
        if frames.huge_maps.get(run.start) or frames.maps[run].any() or frames.is_pinned(frame):
            return
        if any(member in frames.cached_slot for member in frames.folio(frame)):
            free_cache(kernel, frame)
            return
        frames.free_compound(run.start, run.stop - run.start)
        return
    if frames.maps[frame] > 0 or frame in frames.pins:
        return
    if frame in frames.cached_slot and not free_cache(kernel, frame):
        return
    if frames.flags[frame]:
        frames.free(frame)


def put_many(kernel: MachineState, pfns: NDArray[np.int64]) -> None:
    """As `put` for many frames, whose mappings were just counted down."""
    if not len(pfns):
        return
    frames = kernel.frames
    dead = np.unique(pfns[frames.maps[pfns] == 0])
    flags = frames.flags[dead]
    special = page.FILE | page.ZERO | page.HUGETLB | page.COMPOUND
    simple = (flags & special) == 0
    if frames.cached_slot or frames.pins:
        for frame in dead.tolist():
            put(kernel, frame)
        return
    frames.free_many(dead[simple])
    heads = np.unique(frames.head[dead[(flags & page.COMPOUND) != 0]])
    for frame in heads.tolist():
        put(kernel, frame)


def unmap_frames(kernel: MachineState, pfns: NDArray[np.int64]) -> None:
    """page_remove_rmap and put_page of small mappings of these frames."""
    if not len(pfns):
        return
    kernel.frames.remove_rmaps(pfns)
    put_many(kernel, pfns)


def free_entry(kernel: MachineState, pte: int) -> None:
    """One entry less names its slot (free_swap_and_cache)."""
    where = kernel.entries.pte_to_swp_entry(pte)
    slot = kernel.swap.slots.get(where)
    if slot is None:
        return
    slot.count -= 1
    if slot.count:
        return
    if slot.frame and kernel.frames.folios.get(int(kernel.frames.head[slot.frame])):
        if not kernel.frames.maps[kernel.frames.folio_slice(slot.frame)].any():
            free_cache(kernel, slot.frame)
        return
    if slot.frame and kernel.frames.mapcount(slot.frame):
        return
    drop_slot(kernel, where)


def drop_slot(kernel: MachineState, where: tuple[int, int]) -> None:
    """Free a slot; its cached page loses it, and is freed when nothing maps it (delete_from_swap_cache)."""
    slot = kernel.swap.slots.pop(where)
    if slot.frame:
        frame = slot.frame
        kernel.frames.delete_from_swap_cache(frame)
        kernel.frames.mark_dirty(frame)
        if not kernel.frames.mapcount(frame):
            put(kernel, frame)


def free_cache(kernel: MachineState, frame: int) -> bool:
    """Take a page out of the swap cache when no entry needs its slot (folio_free_swap)."""
    slots = [where for member in kernel.frames.folio(frame) if (where := kernel.frames.cached_slot.get(member))]
    if not slots or any(kernel.swap.slots[where].count for where in slots):
        return False
    for where in slots:
        drop_slot(kernel, where)
    return True
