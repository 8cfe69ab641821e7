"""Pages read back from swap (mm/memory.c:do_swap_page, mm/swapfile.c)."""

from __future__ import annotations

from ptewalk.model.errors import SwapDamage
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import release, rmap
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.vma import Vma


def do_swap_page(mm: Mm, vma: Vma, at: int, pte: int, write: bool) -> bool:
    """Read a page back (mm/memory.c:do_swap_page); True when a write fault still has to be handled (do_wp_page)."""
    kernel, frames, entries = mm.kernel, mm.frames, mm.entries
    profile = entries.profile
    where = entries.pte_to_swp_entry(pte)
    slot = kernel.swap.slots.get(where)
    if slot is None:
        raise SwapDamage(f"the entry names slot {where[1]}, which is not in use: the kernel kills processes (rule A30)")
    rmap.anon_vma_prepare(mm, vma)
    exclusive = False
    if slot.frame and profile.swapin_through_cache and not _belongs(mm, vma, at, slot.frame):
        frame = frames.alloc(page.ANON | page.DIRTY)
        frames.copy(slot.frame, frame)
    elif slot.frame:
        frame = slot.frame
    else:
        frame = frames.alloc(page.ANON | page.DIRTY if profile.swapin_dirties else page.ANON)
        if slot.words is not None:
            kernel.memory.add_frame(frame)[:] = slot.words
        if profile.swapin_through_cache or slot.count > 1:
            slot.frame = frame
            frames.add_to_swap_cache(frame, where)
            kernel.lru.drain()  # swap_vma_readahead
        else:
            exclusive = True
    if entries.SWP_EXCLUSIVE and pte & entries.SWP_EXCLUSIVE:
        exclusive = True
    slot.count -= 1
    alone = not frames.mapcount(frame)
    assert vma.anon_vma is not None
    frames.add_anon_rmap(frame, vma.anon_vma.identity, vma.offset(at))
    rmap.note_locked(mm, vma, frame)
    if frame in frames.cached_slot:
        if write and not slot.count and alone and not profile.swapin_reuses_by_mapcount:
            release.free_cache(kernel, frame)
    elif not slot.count and not (slot.frame and frames.maps[slot.frame]):
        release.drop_slot(kernel, where)
    if frame not in frames.cached_slot and frames.references(frame) == 1:
        exclusive = True
    new = entries.pfn_pte(frame, vma.prot)
    handled = False
    if profile.swapin_reuses_by_mapcount:
        if write and reuse_swap_page(kernel, frame):
            new = entries.pte_mkdirty(new)
            if vma.flags & VmFlag.WRITE:
                new = entries.pte_mkwrite(new)
            handled = True
        elif vma.flags & VmFlag.LOCKED:
            release.free_cache(kernel, frame)
    elif exclusive:
        frames.set_exclusive(frame)
        if write:
            new = entries.pte_mkdirty(new)
            if vma.flags & VmFlag.WRITE:
                new = entries.pte_mkwrite(new)
            handled = True
    if entries.pte_swp_soft_dirty(pte):
        new = entries.pte_mksoft_dirty(new)
    wp = bool(pte & entries.SWP_UFFD_WP)
    if wp:
        new = entries.pte_wrprotect(entries.pte_mkuffd_wp(new))
    if profile.swapin_restores_write:
        new, handled = _swap_in_6_12(mm, vma, pte, frame, exclusive, wp, write)
    mm.tables.set(at, new)
    return write and not handled


def _belongs(mm: Mm, vma: Vma, at: int, frame: int) -> bool:
    """May a swap-cache page be mapped at `at`, or was it KSM that put it there (mm/ksm.c:ksm_might_need_to_copy)?"""
    frames = mm.frames
    assert vma.anon_vma is not None
    return int(frames.owner[frame]) == vma.anon_vma.identity and int(frames.index[frame]) == vma.offset(at)


def _swap_in_6_12(mm: Mm, vma: Vma, pte: int, frame: int, exclusive: bool, wp: bool, write: bool) -> tuple[int, bool]:
    """The entry that 6.12's do_swap_page writes, and whether the write is done with."""
    entries = mm.entries
    new = entries.pfn_pte(frame, vma.prot)
    soft_dirty = bool(entries.pte_swp_soft_dirty(pte))
    if soft_dirty:
        new = entries.pte_mksoft_dirty(new)
    if wp:
        new = entries.pte_mkuffd_wp(new)
    handled = False
    if exclusive:
        tracks = entries.VM_SOFTDIRTY and not vma.flags & VmFlag.SOFTDIRTY and not soft_dirty
        if vma.flags & VmFlag.WRITE and not (wp and vma.flags & VmFlag.UFFD_WP) and not tracks:
            new = entries.pte_mkwrite(new)
            if write:
                new = entries.pte_mkdirty(new)
                handled = True
    return new, handled


def reuse_swap_page(kernel: MachineState, frame: int) -> bool:
    """3.11: is this the only user of the page or its slot? The slot goes then (mm/swapfile.c:reuse_swap_page)."""
    frames = kernel.frames
    if frames.flags[frame] & page.KSM:
        return False
    count = frames.mapcount(frame)
    where = frames.cached_slot.get(frame)
    if where is not None:
        count += kernel.swap.slots[where].count
    if count > 1:
        return False
    if where is not None:
        release.drop_slot(kernel, where)
    return True


def swapoff(kernel: MachineState) -> None:
    """Every swapped page comes back (mm/swapfile.c:unuse_process)."""
    for process in kernel.processes.values():
        for vma in process.mm.areas:
            if not vma.huge_level:
                _unuse_range(process.mm, vma)


def _unuse_range(mm: Mm, vma: Vma) -> None:
    """swapoff: entries come back read-only, old and clean (mm/swapfile.c:unuse_pte)."""
    entries = mm.entries
    for piece in mm.tables.pieces(vma, vma.start, vma.end):
        if piece.leaf:
            continue
        for at in range(piece.first, piece.last):
            pte = mm.tables.get(at)
            if not pte or entries.pte_present(pte) or entries.is_marker(pte):
                continue
            do_swap_page(mm, vma, at, pte, False)
            frame = entries.pte_pfn(mm.tables.get(at))
            new = entries.pte_mkold(entries.pfn_pte(frame, vma.prot))
            mm.tables.set(at, new)
            release.free_cache(mm.kernel, frame)
