"""Pages written out (mm/vmscan.c), and what asks for that (mm/madvise.c: MADV_COLD, MADV_PAGEOUT)."""

from __future__ import annotations

from ptewalk.model.linux import HUGE_PAGES, SoftBit, VmFlag
from ptewalk.model.mm import release, rmap, thp
from ptewalk.model.profile import LazyBatch
from ptewalk.model.pte import FRAME_AT, RW, UFFD_WP, A
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.slots import Slot
from ptewalk.model.state.vma import Vma


def page_out(kernel: MachineState, frame: int) -> None:
    """Push one page out (mm/vmscan.c:reclaim_pages of that page)."""
    frames = kernel.frames
    flags = int(frames.flags[frame])
    if flags & page.FILE:
        _page_out_file(kernel, frame)
        return
    mappings = rmap.walk(kernel, frame)
    if any(vma.flags & VmFlag.LOCKED for _, vma, _, _ in mappings):
        return
    entries = kernel.entries
    if flags & page.LAZYFREE:
        dirty = flags & page.DIRTY or any(entries.pte_dirty(mm.tables.get(at)) for mm, _, at, _ in mappings)
        if dirty or frames.is_pinned(frame):
            frames.set_swapbacked(frame)
            return
        for mm, _vma, at, _huge in mappings:
            mm.replace(at, at + 1)
            mm.tables.set(at, 0)
            frames.remove_rmap(frame)
        release.put(kernel, frame)
        return
    if frames.is_pinned(frame):
        return
    where = frames.cached_slot.get(frame)
    if where is None:
        places = [(mm.who, at - kernel.base) for mm, _, at, _ in mappings]
        where = kernel.swap.allocate(places)
        kernel.swap.slots[where] = Slot(0, None, frame)
        frames.add_to_swap_cache(frame, where)
    slot = kernel.swap.slots[where]
    for mm, _, at, _ in mappings:
        rmap.name_slot(mm, at, where)
        frames.remove_rmap(frame)
    row = kernel.memory_row(frame)
    slot.words = None if row is None else row.copy()
    slot.frame = 0
    frames.delete_from_swap_cache(frame)
    frames.free(frame)


def _page_out_file(kernel: MachineState, frame: int) -> None:
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
            frames.mark_dirty(frame)
        marker = old & UFFD_WP and vma.flags & VmFlag.UFFD_WP
        mm.tables.set(at, kernel.entries.make_uffd_marker() if marker else 0)
        frames.remove_rmap(frame)
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
    for piece in mm.tables.pieces(vma, start, end):
        last = piece.last
        if piece.leaf:
            if piece.first != piece.head or thp.is_huge_zero(mm, piece.leaf):
                continue
            thp.split_huge_pmd(mm, vma, piece.head)
            last = piece.head + HUGE_PAGES
        for at in range(piece.first, last):
            pte = mm.tables.get(at)
            if mm.entries.pte_present(pte) and mm.entries.vm_normal_page(pte):
                page_out(mm.kernel, mm.entries.pte_pfn(pte))


def cold_range(mm: Mm, vma: Vma, start: int, end: int, *, out: bool) -> None:
    """MADV_COLD, and with `out` MADV_PAGEOUT: A is cleared, and pages that only this process maps are reclaimed."""
    kernel, frames, entries = mm.kernel, mm.frames, mm.entries
    keeps_a = out and entries.profile.reclaim_keeps_accessed
    kernel.lru.drain()
    for piece in mm.tables.pieces(vma, start, end):
        if piece.leaf:
            head, pmd = piece.head, piece.leaf
            frame = thp.pmd_frame(mm, pmd)
            if thp.is_huge_zero(mm, pmd) or thp.is_shared(mm, frame):
                continue
            if piece.whole:
                if not keeps_a:
                    mm.tables.set_huge(head, entries.pte_mkold(pmd))
                whole_file = frames.flags[frame] & page.FILE and entries.profile.reclaim_swaps_files_whole
                if not out or frames.is_pinned(frame) and not whole_file:
                    continue
                if frames.flags[frame] & page.LAZYFREE and not entries.profile.reclaim_splits_lazy:
                    _discard_huge(mm, head, mm.tables.get_huge(head))
                else:
                    thp.split_huge_pmd(mm, vma, head)
                    _page_out_folio(mm, frame)
                continue
            if not thp.split_huge_page(mm, frame):
                continue
        victims = []
        for at, pages, frame in thp.advised_pages(mm, piece.first, piece.last):
            if not frame or thp.folio_mapcount(frames, frame) != pages:
                continue
            for place in range(at, at if keeps_a else at + pages):
                mm.tables.set(place, entries.pte_mkold(mm.tables.get(place)))
            victims.append(frame)
            frames.clear_referenced(frame)
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
    frames = mm.frames
    folio = frames.folio(frame)
    head = folio.start
    if frames.flags[head] & page.FILE and mm.entries.profile.reclaim_swaps_files_whole:
        _page_out_file_folio(mm.kernel, folio)
        return
    if frames.is_pinned(head):
        return
    if frames.flags[head] & page.FILE:
        if thp.split_huge_page(mm, head):
            for member in folio:
                page_out(mm.kernel, member)
        return
    if frames.flags[head] & page.LAZYFREE:
        _discard_folio(mm.kernel, folio)
        return
    if frames.is_partly_mapped(head):
        thp.split_huge_page(mm, head)
    elif mm.kernel.anon_sizes:
        _name_slots(mm, folio)
    if frames.flags[head] & page.COMPOUND:
        thp.dissolve(mm, head)
    for member in folio:
        if frames.maps[member]:
            page_out(mm.kernel, member)


def _page_out_file_folio(kernel: MachineState, folio: range) -> None:
    """A large page of shared memory goes to swap as it is (shmem_writeout); one that is pinned is unmapped alone."""
    frames = kernel.frames
    if any(rmap.is_locked(kernel, member) for member in folio):
        return
    for member in folio:
        thp.unmap_file_page(kernel, member)
    if frames.is_pinned(folio.start):
        return
    file = kernel.files.by_identity(int(frames.owner[folio.start]))
    first = int(frames.index[folio.start])
    run = range(first, first + len(folio))
    for offset, frame in zip(run, folio, strict=True):
        row = kernel.memory_row(frame)
        file.swapped[offset] = None if row is None else row.copy()
        file.swapped_together[offset] = run
        del file.cache[offset]
    frames.free_compound(folio.start, len(folio))


def _discard_folio(kernel: MachineState, folio: range) -> None:
    """Drop the small entries of a large page with MADV_FREE, until one is dirty (mm/rmap.c:try_to_unmap_one).

    That one stays, and MADV_FREE is forgotten. Entries that are unmapped together are all made as the first of them,
    with A if any has it, and by pte_mkdirty if any but the first is dirty.
    """
    frames, entries = kernel.frames, kernel.entries
    run = frames.folio_slice(folio.start)
    places: dict[tuple[int, int], tuple[Mm, list[int]]] = {}
    for member in folio:
        for mm, vma, at, _ in rmap.walk(kernel, member):
            places.setdefault((mm.who, vma.start), (mm, []))[1].append(at)
    for mm, pages in places.values():
        while pages:
            batch = _batch(mm, pages)
            del pages[: len(batch)]
            old = [mm.tables.get(at) for at in batch]
            first = old[0]
            if any(entries.pte_dirty(pte) for pte in old[1:]):
                first = entries.pte_mkdirty(first)
            if any(pte & A for pte in old):
                first = entries.pte_mkyoung(first)
            if entries.pte_dirty(first):
                frames.mark_dirty(run)
            if (frames.flags[run] & page.DIRTY).any():
                frames.set_swapbacked(run)
                for at, pte in zip(batch, old, strict=True):
                    mm.tables.set(at, first & ~FRAME_AT[1] | pte & FRAME_AT[1])
                return
            for at, pte in zip(batch, old, strict=True):
                mm.replace(at, at + 1)
                mm.tables.set(at, 0)
                frames.remove_rmap(entries.pte_pfn(pte))
    release.put(kernel, folio.start)


def _batch(mm: Mm, pages: list[int]) -> list[int]:
    """The first of these pages, and those behind it that are unmapped with it."""
    entries = mm.entries
    kind = entries.profile.reclaim_lazy_batch
    if kind == LazyBatch.ONE:
        return pages[:1]
    ignored = A | entries.DIRTY_BITS | FRAME_AT[1] | entries.ARM
    if kind == LazyBatch.ANY:
        ignored |= RW | 1 << SoftBit.SOFT_DIRTY
    like = mm.tables.get(pages[0]) & ~ignored
    count = 1
    while count < len(pages) and pages[count] == pages[0] + count and pages[count] % HUGE_PAGES:
        if mm.tables.get(pages[count]) & ~ignored != like:
            break
        count += 1
    return pages[:count]


def _discard_huge(mm: Mm, head: int, pmd: int) -> None:
    """A whole huge page with MADV_FREE, without a split (mm/huge_memory.c:__discard_anon_folio_pmd_locked)."""
    frames = mm.frames
    folio = frames.folio_slice(thp.pmd_frame(mm, pmd))
    if mm.entries.pte_dirty(pmd) or (frames.flags[folio] & page.DIRTY).any():
        frames.mark_dirty(folio)
        frames.set_swapbacked(folio)
        return
    mm.replace(head, head + HUGE_PAGES)
    thp.zap_huge_pmd(mm, head)


def _name_slots(mm: Mm, folio: range) -> None:
    """A large page that has no slots gets some in a row, so that it can be read back as one."""
    frames, swap = mm.frames, mm.kernel.swap
    locked = any(rmap.is_locked(mm.kernel, member) for member in folio)
    if locked or frames.flags[folio.start] & page.LAZYFREE or any(member in frames.cached_slot for member in folio):
        return
    for member, where in zip(folio, swap.allocate_run(len(folio)), strict=True):
        swap.slots[where] = Slot(0, None, member, in_row=True)
        frames.add_to_swap_cache(member, where)
