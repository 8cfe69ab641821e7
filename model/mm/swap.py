"""Swap: slots, pages written out and read back (mm/swapfile.c, mm/vmscan.c, mm/memory.c:do_swap_page)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import rmap, thp
from ptewalk.model.pte import UFFD_WP
from ptewalk.model.state import frames as page

if TYPE_CHECKING:
    from ptewalk.model.kernel import Kernel
    from ptewalk.model.mm.mmap import Mm
    from ptewalk.model.state.vma import Vma


@dataclass(slots=True)
class Slot:
    """One slot in use.

    Attributes
    ----------
    count : int
        Entries that name it.
    words : uint64 array or None
        Contents; None: all zero.
    frame : int
        Its swap-cache page, 0 for none.
    """

    count: int
    words: NDArray[np.uint64] | None
    frame: int


class SwapDamage(Exception):
    """The seed commit's mremap made an entry name an unused slot (rule A30): the fault ends as if out of memory."""


class SwapDevice:
    """The slots of the one swap device.

    Attributes
    ----------
    hints : dict
        (process, page) to the (type, offset) that the recorded kernel chose for it: no rule determines them.
    """

    def __init__(self) -> None:
        self.slots: dict[tuple[int, int], Slot] = {}
        self.next = 1
        self.hints: dict[tuple[int, int], tuple[int, int]] = {}

    def allocate(self, places: list[tuple[int, int]]) -> tuple[int, int]:
        """A free slot for the page mapped at `places`: (type, offset)."""
        for place in places:
            chosen = self.hints.get(place)
            if chosen is not None and chosen not in self.slots:
                return chosen
        while (0, self.next) in self.slots:
            self.next += 1
        chosen = (0, self.next)
        self.next += 1
        return chosen


def entry_slot(kernel: Kernel, pte: int) -> tuple[int, int]:
    """(type, offset) of a swap entry."""
    return kernel.entries.swp_type(pte), kernel.entries.swp_offset(pte)


def free_entry(kernel: Kernel, pte: int) -> None:
    """One entry less names its slot (free_swap_and_cache)."""
    where = entry_slot(kernel, pte)
    slot = kernel.swap.slots.get(where)
    if slot is None:
        return
    slot.count -= 1
    if slot.count:
        return
    if slot.frame and kernel.frames.mapcount(slot.frame):
        return
    drop_slot(kernel, where)


def drop_slot(kernel: Kernel, where: tuple[int, int]) -> None:
    """Free a slot; its cached page loses it, and is freed when nothing maps it (delete_from_swap_cache)."""
    slot = kernel.swap.slots.pop(where)
    if slot.frame:
        frame = slot.frame
        kernel.frames.cached_slot.pop(frame, None)
        kernel.frames.flags[frame] |= page.DIRTY
        if not kernel.frames.mapcount(frame):
            kernel.put(frame)


def free_cache(kernel: Kernel, frame: int) -> bool:
    """Take a page out of the swap cache when no entry needs its slot (folio_free_swap)."""
    where = kernel.frames.cached_slot.get(frame)
    if where is None or kernel.swap.slots[where].count:
        return False
    drop_slot(kernel, where)
    return True


def name_slot(mm: Mm, at: int, where: tuple[int, int]) -> None:
    """Have the entry of a page name its slot instead of its frame (mm/rmap.c:try_to_unmap_one)."""
    entries = mm.entries
    old = mm.tables.get(at)
    pte = entries.swp_entry_to_pte(*where)
    if entries.SWP_EXCLUSIVE and mm.frames.flags[entries.pte_pfn(old)] & page.EXCLUSIVE:
        pte |= entries.SWP_EXCLUSIVE
    if entries.pte_soft_dirty(old):
        pte |= entries.SWP_SOFT_DIRTY
    if old & UFFD_WP:
        pte |= entries.SWP_UFFD_WP
    mm.tables.set(at, pte)
    mm.kernel.swap.slots[where].count += 1


def page_out(kernel: Kernel, frame: int) -> None:
    """Push one page out (mm/vmscan.c:reclaim_pages of that page)."""
    frames = kernel.frames
    flags = int(frames.flags[frame])
    if flags & page.FILE:
        _page_out_file(kernel, frame)
        return
    if flags & page.KSM and not kernel.profile.reuse_by_mapcount:
        return
    mappings = rmap.walk(kernel, frame)
    if any(vma.flags & VmFlag.LOCKED for _, vma, _, _ in mappings):
        return
    entries = kernel.entries
    if flags & page.LAZYFREE:
        dirty = flags & page.DIRTY or any(entries.pte_dirty(mm.tables.get(at)) for mm, _, at, _ in mappings)
        if dirty or frames.is_pinned(frame):
            frames.flags[frame] &= 0xFFFF ^ page.LAZYFREE
            return
        for mm, _vma, at, _huge in mappings:
            mm.replace(at, at + 1)
            mm.tables.set(at, 0)
            frames.maps[frame] -= 1
        kernel.put(frame)
        return
    if frames.is_pinned(frame):
        return
    where = frames.cached_slot.get(frame)
    if where is None:
        places = [(mm.who, at - kernel.base) for mm, _, at, _ in mappings]
        where = kernel.swap.allocate(places)
        kernel.swap.slots[where] = Slot(0, None, frame)
        frames.cached_slot[frame] = where
    slot = kernel.swap.slots[where]
    for mm, _, at, _ in mappings:
        name_slot(mm, at, where)
        frames.maps[frame] -= 1
    row = kernel.memory_row(frame)
    slot.words = None if row is None else row.copy()
    slot.frame = 0
    del frames.cached_slot[frame]
    frames.free(frame)
    kernel.mmu.invalidate(None)


def _page_out_file(kernel: Kernel, frame: int) -> None:
    """A page of a file goes to swap, or to its disk, and leaves no trace in the tables but uffd-wp markers.

    A pinned page, or a dirty one of a disk file, is unmapped like the others, but stays in the page cache
    (shrink_page_list).
    """
    frames = kernel.frames
    mappings = rmap.walk(kernel, frame)
    if any(vma.flags & VmFlag.LOCKED for _, vma, _, _ in mappings):
        return
    file = kernel.files.by_identity(int(frames.owner[frame]))
    for mm, vma, at, _huge in mappings:
        old = mm.tables.get(at)
        if kernel.entries.pte_dirty(old):
            frames.flags[frame] |= page.DIRTY
        marker = old & UFFD_WP and vma.flags & VmFlag.UFFD_WP
        mm.tables.set(at, kernel.entries.make_uffd_marker() if marker else 0)
        frames.maps[frame] -= 1
    kernel.mmu.invalidate(None)
    if frames.maps[frame] and not rmap.unmap_nonlinear(kernel, frame):
        return
    if frames.is_pinned(frame) or (file.counts_dirty and frames.flags[frame] & page.DIRTY):
        return
    row = kernel.memory_row(frame)
    offset = int(frames.index[frame])
    file.swapped[offset] = None if row is None else row.copy()
    del file.cache[offset]
    frames.free(frame)


def page_out_3_11(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """The recorder's push through 3.11's reclaim: a huge page goes when its head is in the range, then all of it."""
    for block, first, last, huge in mm.tables.blocks(start, end):
        head = block * HUGE_PAGES
        if huge:
            pmd = mm.tables.get_huge(head)
            if first != head or thp.is_huge_zero(mm, pmd):
                continue
            thp.split_huge_pmd(mm, vma, head)
            last = head + HUGE_PAGES
        for at in range(first, last):
            pte = mm.tables.get(at)
            if mm.entries.pte_present(pte) and mm.normal_page(pte):
                page_out(mm.kernel, mm.entries.pte_pfn(pte))


def unuse_range(mm: Mm, vma: Vma) -> None:
    """swapoff: entries come back read-only, old and clean (mm/swapfile.c:unuse_pte)."""
    entries = mm.entries
    for block, first, last, huge in mm.tables.blocks(vma.start, vma.end):
        if huge:
            continue
        del block
        for at in range(first, last):
            pte = mm.tables.get(at)
            if not pte or entries.pte_present(pte) or entries.is_marker(pte):
                continue
            do_swap_page(mm, vma, at, pte, False)
            frame = entries.pte_pfn(mm.tables.get(at))
            new = entries.pte_mkold(entries.pfn_pte(frame, vma.prot))
            mm.tables.set(at, new)
            free_cache(mm.kernel, frame)


def cold_range(mm: Mm, vma: Vma, start: int, end: int, *, out: bool) -> None:
    """MADV_COLD, and with `out` MADV_PAGEOUT: A is cleared, and pages that only this process maps are reclaimed."""
    kernel, frames, entries = mm.kernel, mm.frames, mm.entries
    keeps_a = out and entries.profile.advises_whole
    kernel.lru.drain()
    for block, first, last, huge in mm.tables.blocks(start, end):
        if huge:
            head = block * HUGE_PAGES
            pmd = mm.tables.get_huge(head)
            frame = thp.pmd_frame(mm, pmd)
            if thp.is_huge_zero(mm, pmd) or thp.is_shared(mm, frame):
                continue
            if last - first == HUGE_PAGES:
                if not keeps_a:
                    mm.tables.set_huge(head, entries.pte_mkold(pmd))
                if out and not frames.is_pinned(frame):
                    thp.split_huge_pmd(mm, vma, head)
                    _page_out_folio(mm, frame)
                continue
            if not thp.split_huge_page(mm, frame):
                continue
        victims = []
        for at, pages, frame in thp.advised_pages(mm, first, last):
            if not frame or thp.folio_mapcount(frames, frame) != pages:
                continue
            for place in range(at, at if keeps_a else at + pages):
                mm.tables.set(place, entries.pte_mkold(mm.tables.get(place)))
            victims.append(frame)
            frames.flags[frame] &= 0xFFFF ^ page.REFERENCED
        for frame in victims:
            if not out:
                if not rmap.is_locked(kernel, frame):
                    kernel.lru.deactivate(frame)
            elif frames.flags[frame] & page.COMPOUND:
                _page_out_folio(mm, frame)
            else:
                page_out(kernel, frame)


def _page_out_folio(mm: Mm, frame: int) -> None:
    """A huge page that small entries map goes out, every part of it; MADV_FREE is forgotten when it is dirty."""
    frames, entries = mm.frames, mm.entries
    head = int(frames.head[frame])
    run = slice(head, head + HUGE_PAGES)
    if frames.is_pinned(head):
        return
    if frames.flags[head] & page.LAZYFREE:
        mappings = [m for member in range(head, head + HUGE_PAGES) for m in rmap.walk(mm.kernel, member)]
        dirty = (frames.flags[run] & page.DIRTY).any()
        if dirty or any(entries.pte_dirty(other.tables.get(at)) for other, _, at, _ in mappings):
            frames.flags[run] &= 0xFFFF ^ page.LAZYFREE
            return
    thp.dissolve(mm, head)
    for member in range(head, head + HUGE_PAGES):
        page_out(mm.kernel, member)


def do_swap_page(mm: Mm, vma: Vma, at: int, pte: int, write: bool) -> bool:
    """Read a page back (mm/memory.c:do_swap_page); True when a write fault still has to be handled (do_wp_page)."""
    kernel, frames, entries = mm.kernel, mm.frames, mm.entries
    old_rules = entries.profile.reuse_by_mapcount
    where = entry_slot(kernel, pte)
    slot = kernel.swap.slots.get(where)
    if slot is None:
        raise SwapDamage(f"the entry names slot {where[1]}, which is not in use: the kernel kills processes (rule A30)")
    mm.anon_vma_prepare(vma)
    exclusive = False
    if slot.frame and old_rules and not _belongs(mm, vma, at, slot.frame):
        frame = frames.alloc(page.ANON | page.DIRTY)
        frames.copy(slot.frame, frame)
    elif slot.frame:
        frame = slot.frame
    else:
        frame = frames.alloc(page.ANON)
        if slot.words is not None:
            kernel.memory.add_frame(frame)[:] = slot.words
        if old_rules or slot.count > 1:
            slot.frame = frame
            frames.cached_slot[frame] = where
            kernel.lru.drain()  # swap_vma_readahead
        else:
            exclusive = True
    if entries.SWP_EXCLUSIVE and pte & entries.SWP_EXCLUSIVE:
        exclusive = True
    slot.count -= 1
    alone = not frames.mapcount(frame)
    frames.maps[frame] += 1
    mm.note_locked(vma, frame)
    if frame in frames.cached_slot:
        if write and not slot.count and alone and not old_rules:
            free_cache(kernel, frame)
    elif not slot.count and not (slot.frame and frames.maps[slot.frame]):
        drop_slot(kernel, where)
    frames.index[frame] = vma.offset(at)
    assert vma.anon_vma is not None
    frames.owner[frame] = vma.anon_vma.root.identity
    if frame not in frames.cached_slot and frames.references(frame) == 1:
        exclusive = True
    new = entries.pfn_pte(frame, vma.prot)
    handled = False
    if old_rules:
        if write and reuse_swap_page(kernel, frame):
            new = entries.pte_mkdirty(new)
            if vma.flags & VmFlag.WRITE:
                new = entries.pte_mkwrite(new)
            handled = True
        elif vma.flags & VmFlag.LOCKED:
            free_cache(kernel, frame)
    elif exclusive:
        frames.flags[frame] |= page.EXCLUSIVE
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
    if entries.profile.swap_in_restores_write:
        new, handled = _swap_in_6_12(mm, vma, pte, frame, exclusive, wp, write)
    mm.tables.set(at, new)
    return write and not handled


def _belongs(mm: Mm, vma: Vma, at: int, frame: int) -> bool:
    """May a swap-cache page be mapped at `at`, or was it KSM that put it there (mm/ksm.c:ksm_might_need_to_copy)?"""
    frames = mm.frames
    assert vma.anon_vma is not None
    return int(frames.owner[frame]) == vma.anon_vma.root.identity and int(frames.index[frame]) == vma.offset(at)


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


def reuse_swap_page(kernel: Kernel, frame: int) -> bool:
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
        drop_slot(kernel, where)
    return True
