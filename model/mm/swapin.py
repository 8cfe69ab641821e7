"""Pages read back from swap (mm/memory.c:do_swap_page, mm/swapfile.c)."""

from __future__ import annotations

from ptewalk.model.errors import SwapDamage
from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import readahead, release, rmap
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.slots import Slot
from ptewalk.model.state.vma import Vma


def do_swap_page(mm: Mm, vma: Vma, at: int, pte: int, write: bool) -> bool:
    """Read a page back (mm/memory.c:do_swap_page); True when a write fault still has to be handled (do_wp_page)."""
    kernel, frames, entries = mm.kernel, mm.frames, mm.entries
    profile = entries.profile
    where = entries.pte_to_swp_entry(pte)
    if kernel.anon_sizes and len(places := _read_together(mm, vma, at)) > 1:
        return _swap_in_large(mm, vma, places, at, write)
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
        if profile.swapin_reads_ahead:
            readahead.note_found(mm, vma, at, slot)
    elif profile.swapin_reads_ahead and slot.count > 1:
        readahead.around(mm, vma, at)
        frame = slot.frame
    else:
        frame = frames.alloc(page.ANON | page.DIRTY if profile.swapin_always_cached else page.ANON)
        if slot.words is not None:
            kernel.memory.add_frame(frame)[:] = slot.words
        if profile.swapin_through_cache or slot.count > 1:
            slot.frame = frame
            frames.add_to_swap_cache(frame, where)
            kernel.lru.drain()  # swap_vma_readahead
        else:
            exclusive = not profile.swapin_always_cached
    if entries.SWP_EXCLUSIVE and pte & entries.SWP_EXCLUSIVE:
        exclusive = True
    slot.count -= 1
    alone = not frames.mapcount(frame)
    assert vma.anon_vma is not None
    frames.add_anon_rmap(frame, vma.anon_vma.identity, vma.offset(at))
    if frame in frames.cached_slot:
        unneeded = write and alone or vma.flags & VmFlag.LOCKED
        if unneeded and not slot.count and not profile.swapin_reuses_by_mapcount:  # should_try_to_free_swap
            release.free_cache(kernel, frame)
    elif not slot.count and not (slot.frame and frames.maps[slot.frame]):
        release.drop_slot(kernel, where)
    if frame not in frames.cached_slot and frames.references(frame) == 1 and not profile.swapin_always_cached:
        exclusive = True
    rmap.note_locked(mm, vma, frame)
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


def _read_together(mm: Mm, vma: Vma, at: int) -> range:
    """The pages that come back with the one at `at`: those of a large page in the swap cache, or the largest that fits.

    All are alike, and name slots in a row that is aligned as they are (do_swap_page, swapin_folio: can_swapin_thp).
    """
    kernel, entries = mm.kernel, mm.entries
    kind, offset = entries.pte_to_swp_entry(mm.tables.get(at))
    slots = kernel.swap.slots
    cached = slots[kind, offset].frame
    if cached:
        folio = mm.frames.folio(cached)
        sizes = {len(folio): at - (cached - folio.start)}
    elif vma.uffd is not None or vma.flags & VmFlag.NOHUGEPAGE:
        return range(at, at + 1)
    else:
        sizes = {size: at & -size for size in sorted(kernel.anon_sizes, reverse=True)}
    for size, first in sizes.items():
        if first < vma.start or first + size > vma.end or first // HUGE_PAGES != (first + size - 1) // HUGE_PAGES:
            continue
        name = offset - (at - first)
        run = [(kind, name + i) for i in range(size)]
        if not cached and (name % size or not all(_can_be_read(slots.get(where)) for where in run)):
            continue
        found = mm.tables.part(first, first + size)
        flags = mm.tables.get(at) ^ entries.swp_entry_to_pte(kind, offset)
        if all(int(entry) == entries.swp_entry_to_pte(*where) ^ flags for entry, where in zip(found, run, strict=True)):
            return range(first, first + size)
    return range(at, at + 1)


def _can_be_read(slot: Slot | None) -> bool:
    """May a slot be read as part of a large page (non_swapcache_batch)?"""
    return slot is not None and slot.in_row and not slot.frame


def willneed(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """MADV_WILLNEED reads pages into the swap cache one by one (mm/madvise.c:swapin_walk_pmd_entry)."""
    kernel, entries = mm.kernel, mm.entries
    ahead = entries.profile.swapin_reads_ahead and vma.file is None
    kernel.lru.drain()
    for piece in mm.tables.pieces(vma, start, end) if kernel.anon_sizes or ahead else ():
        if piece.leaf:
            continue
        if ahead:
            readahead.read_range(mm, piece.first, piece.last)
        for at in range(piece.first, piece.last):
            pte = mm.tables.get(at)
            if pte and not entries.pte_present(pte) and not entries.is_marker(pte):
                kernel.swap.slots[entries.pte_to_swp_entry(pte)].in_row = False


def _swap_in_large(mm: Mm, vma: Vma, places: range, at: int, write: bool) -> bool:
    """As `do_swap_page` for pages that come back as one large page."""
    kernel, frames, entries = mm.kernel, mm.frames, mm.entries
    rmap.anon_vma_prepare(mm, vma)
    pte = mm.tables.get(at)
    slots = [entries.pte_to_swp_entry(mm.tables.get(place)) for place in places]
    first = kernel.swap.slots[slots[0]].frame
    if not first:
        first = frames.alloc_compound(page.ANON | page.COMPOUND | page.DIRTY, len(places))
        for frame, where in zip(range(first, first + len(places)), slots, strict=True):
            slot = kernel.swap.slots[where]
            if slot.words is not None:
                kernel.memory.add_frame(frame)[:] = slot.words
            slot.frame = frame
            frames.add_to_swap_cache(frame, where)
    assert vma.anon_vma is not None
    for place, where in zip(places, slots, strict=True):
        kernel.swap.slots[where].count -= 1
        frame = kernel.swap.slots[where].frame
        frames.add_anon_rmap(frame, vma.anon_vma.identity, vma.offset(place))
        rmap.note_locked(mm, vma, frame)
    release.free_cache(kernel, first)
    exclusive = bool(pte & entries.SWP_EXCLUSIVE)
    if exclusive:
        frames.set_exclusive(frames.folio_slice(first))
    handled = False
    for i, place in enumerate(places):
        old = mm.tables.get(place)
        new, handled = _swap_in_6_12(mm, vma, old, first + i, exclusive, bool(old & entries.SWP_UFFD_WP), write)
        mm.tables.set(place, new)
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
    """swapoff: entries come back read-only, old, and in 3.11 clean (mm/swapfile.c:unuse_pte)."""
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
            if entries.profile.swapin_off_keeps_marks:
                if not pte & entries.SWP_EXCLUSIVE:
                    mm.frames.clear_exclusive(frame)
                if entries.pte_swp_soft_dirty(pte):
                    new = entries.pte_mksoft_dirty(new)
                if pte & entries.SWP_UFFD_WP:
                    new = entries.pte_mkuffd_wp(new)
            mm.tables.set(at, new)
            release.free_cache(mm.kernel, frame)
