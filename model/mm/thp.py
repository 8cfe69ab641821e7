"""Transparent huge pages: 2 MiB leaves of anonymous memory (mm/huge_memory.c)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import HUGE_PAGES, SoftBit, VmFlag
from ptewalk.model.mm import release, remap, rmap
from ptewalk.model.profile import SplitDirty
from ptewalk.model.pte import FRAME, PSE, RW, SPECIAL, UFFD_WP, A, D, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.frames import Frames
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.vma import Vma

_BLOCK = HUGE_PAGES - 1
_UNLIKE = np.uint64(FRAME | RW | A | 1 << SoftBit.SOFT_DIRTY | 1 << SoftBit.SAVED_DIRTY | 1 << SoftBit.ARM | D)
"""What entries of one run may differ in."""


def pmd_frame(mm: Mm, pmd: int) -> int:
    """First frame of a huge leaf."""
    return mm.entries.pte_pfn(pmd, 2)


def is_huge_zero(mm: Mm, pmd: int) -> bool:
    """is_huge_zero_pmd"""
    return bool(mm.frames.huge_zero) and pmd_frame(mm, pmd) == mm.frames.huge_zero


def vma_suitable(vma: Vma, at: int) -> bool:
    """transhuge_vma_suitable: the whole 2 MiB around `at` lies in the area."""
    head = at & ~_BLOCK
    return head >= vma.start and head + HUGE_PAGES <= vma.end


def allowed(vma: Vma, at: int) -> bool:
    """May a fault at `at` map a huge page (hugepage_vma_check; THP is enabled for MADV_HUGEPAGE areas only)?"""
    return (
        vma.is_anonymous
        and vma.flags & (VmFlag.HUGEPAGE | VmFlag.NOHUGEPAGE) == VmFlag.HUGEPAGE
        and vma_suitable(vma, at)
    )


def eligible(mm: Mm, vma: Vma) -> bool:
    """Does some size of huge page fit at the end of an anonymous area that may have it (smaps: THPeligible)?"""
    if not mm.kernel.anon_sizes:
        return allowed(vma, vma.end - HUGE_PAGES)
    if not vma.is_anonymous or vma.flags & VmFlag.NOHUGEPAGE:
        return False
    return any((vma.end & -size) - size >= vma.start for size in mm.kernel.anon_sizes)


def anon_pages(mm: Mm, vma: Vma, at: int) -> range:
    """The pages that a first write to anonymous memory maps: the largest that fits (alloc_anon_folio).

    It lies in the area, aligned to its size, and all of it is empty.
    """
    alone = range(at, at + 1)
    if vma.flags & VmFlag.NOHUGEPAGE or vma.uffd is not None:
        return alone
    for size in sorted(mm.kernel.anon_sizes, reverse=True):
        first = at & -size
        if first >= vma.start and first + size <= vma.end and not mm.tables.part(first, first + size).any():
            return range(first, first + size)
    return alone


def file_suitable(vma: Vma, at: int) -> bool:
    """As `vma_suitable`, and the file's pages are aligned in the area as they are in the file."""
    return vma_suitable(vma, at) and not (vma.start - vma.pgoff) % HUGE_PAGES


def map_file_pmd(mm: Mm, vma: Vma, at: int, frame: int, *, write: bool) -> bool:
    """Map the huge page of a file that `frame` is part of as a whole (mm/memory.c:do_set_pmd); False: it cannot be."""
    frames, entries, head = mm.frames, mm.entries, at & ~_BLOCK
    if len(frames.folio(frame)) < HUGE_PAGES or mm.tables.table(head, 1) or mm.tables.get_huge(head):
        return False
    if entries.profile.thp_file_minds_advice and vma.flags & VmFlag.NOHUGEPAGE or not file_suitable(vma, at):
        return False
    first = int(frames.head[frame])
    pmd = entries.pfn_pte(first, vma.prot, 2) | PSE
    if write:
        frames.mark_dirty(first)
        pmd = entries.pmd_mkdirty(pmd)
        if vma.flags & VmFlag.WRITE:
            pmd = entries.pte_mkwrite(pmd)
    frames.add_huge_rmap(first)
    mm.tables.alloc(head, 2)
    mm.tables.set_huge(head, pmd)
    return True


def unmap_file_page(kernel: MachineState, frame: int) -> None:
    """Drop every entry that maps a file's page; uffd-wp leaves markers (mm/rmap.c:try_to_unmap)."""
    entries, frames = kernel.entries, kernel.frames
    for mm, vma, at, huge in rmap.walk(kernel, frame):
        if huge:
            zap_huge_pmd(mm, at)
            continue
        old = mm.tables.get(at)
        if entries.pte_dirty(old):
            frames.mark_dirty(int(frames.head[frame]))
        mm.tables.set(at, entries.make_uffd_marker() if old & UFFD_WP and vma.flags & VmFlag.UFFD_WP else 0)
        frames.remove_rmap(frame)


def split_file_page(kernel: MachineState, frame: int, *, around: bool = False) -> bool:
    """A file's large page becomes pages of the cache that nothing maps; False when a pin forbids it.

    They are single pages, or with `around` as large as they can be beside `frame` (folio_split).
    """
    frames = kernel.frames
    head = int(frames.head[frame])
    if frames.is_pinned(head):
        return False
    for member in frames.folio(head):
        unmap_file_page(kernel, member)
    if frames.is_dirty(head):
        frames.mark_dirty(frames.folio_slice(head))
    if around:
        frames.split_around(head, frame)
    else:
        frames.split_compound(head)
    return True


def _set_new(mm: Mm, vma: Vma, head: int, frame: int) -> None:
    """Map a new huge page for a write."""
    entries = mm.entries
    pmd = entries.pmd_mkdirty(entries.pfn_pte(frame, vma.prot, 2) | PSE)
    if vma.flags & VmFlag.WRITE:
        pmd = entries.pte_mkwrite(pmd)
    assert vma.anon_vma is not None
    mm.frames.add_new_huge_anon_rmap(frame, vma.anon_vma.identity, vma.offset(head))
    rmap.note_locked(mm, vma, frame)
    mm.tables.set_huge(head, pmd)


def do_huge_pmd_anonymous_page(mm: Mm, vma: Vma, at: int, write: bool) -> bool:
    """First fault in 2 MiB; False when no huge page can be had (do_huge_pmd_anonymous_page)."""
    if not mm.kernel.huge_page_available(mm, at):
        return False
    rmap.anon_vma_prepare(mm, vma)
    head = at & ~_BLOCK
    if not write:
        zero = mm.frames.get_huge_zero()
        special = SPECIAL if mm.entries.profile.thp_zero_is_special else 0
        mm.tables.set_huge(head, mm.entries.pfn_pte(zero, vma.prot, 2) | PSE | special)
        return True
    _set_new(mm, vma, head, mm.frames.alloc_compound(page.COMPOUND))
    return True


def do_huge_pmd_wp_page(mm: Mm, vma: Vma, at: int, pmd: int) -> bool:
    """Write to a read-only huge page; False: it was split, the small entry faults next (do_huge_pmd_wp_page)."""
    entries, frames = mm.entries, mm.frames
    head = at & ~_BLOCK
    profile = entries.profile
    if is_huge_zero(mm, pmd):
        if profile.thp_replaces_zero and mm.kernel.huge_page_available(mm, at):
            rmap.anon_vma_prepare(mm, vma)
            _set_new(mm, vma, head, frames.alloc_compound(page.COMPOUND))
            return True
        split_huge_pmd(mm, vma, head)
        return False
    frame = pmd_frame(mm, pmd)
    if profile.thp_reuses_by_mapcount:
        alone = frames.mapcount(frame) == 1
    else:
        alone = bool(frames.flags[frame] & page.EXCLUSIVE) or frames.references(frame) == 1
    if alone:
        frames.set_exclusive(slice(frame, frame + HUGE_PAGES))
        pmd = entries.pmd_mkdirty(entries.pte_mkyoung(pmd))
        if vma.flags & VmFlag.WRITE:
            pmd = entries.pte_mkwrite(pmd)
        mm.tables.set_huge(head, pmd)
        return True
    if profile.thp_copies_whole:
        if mm.kernel.huge_page_available(mm, at) and allowed(vma, at):
            new = frames.alloc_compound(page.COMPOUND)
            for offset in range(HUGE_PAGES):
                frames.copy(frame + offset, new + offset)
            drop_huge_map(mm, frame)
            _set_new(mm, vma, head, new)
            return True
        _copy_all(mm, vma, head, frame)
        return True
    split_huge_pmd(mm, vma, head)
    return False


def _copy_all(mm: Mm, vma: Vma, head: int, frame: int) -> None:
    """512 copies, all dirty (3.11's do_huge_pmd_wp_page_fallback)."""
    entries = mm.entries
    mm.tables.set_huge(head, 0)
    mm.tables.alloc(head, 1)
    for offset in range(HUGE_PAGES):
        new = mm.frames.alloc(0)
        mm.frames.copy(frame + offset, new)
        rmap.add_new_anon(mm, vma, head + offset, new)
        pte = entries.pte_mkdirty(entries.pfn_pte(new, vma.prot))
        mm.tables.set(head + offset, entries.pte_mkwrite(pte) if vma.flags & VmFlag.WRITE else pte)
    drop_huge_map(mm, frame)


def folio_mapcount(frames: Frames, frame: int) -> int:
    """Entries that map the page, or any part of its huge page."""
    if not frames.flags[frame] & page.COMPOUND:
        return int(frames.maps[frame])
    return int(frames.maps[frames.folio_slice(frame)].sum()) + frames.huge_maps.get(int(frames.head[frame]), 0)


def is_shared(mm: Mm, frame: int, *, whole: bool = False) -> bool:
    """Does more than one entry map a huge page, as far as madvise looks (6.12: folio_likely_mapped_shared)?

    6.18 asks for another process (folio_maybe_mapped_shared).
    6.1 looks at the one small page, or with `whole` at all of the huge one.
    """
    frames = mm.frames
    count = folio_mapcount(frames, frame)
    if not mm.entries.profile.thp_advises_whole:
        return (count if whole else frames.mapcount(frame)) != 1
    if mm.entries.profile.thp_shared_by_process and frames.flags[frame] & page.COMPOUND:
        return count > rmap.mapped_by(mm, frame)
    head = int(frames.head[frame])
    return count > 1 and (head in frames.huge_maps or count > len(frames.folio(frame)) or int(frames.maps[head]) > 1)


def advised_pages(mm: Mm, first: int, last: int, *, by_head: bool = False) -> Iterator[tuple[int, int, int]]:
    """(page number, pages, frame) of pages [first, last) of one table, for MADV_FREE, COLD and PAGEOUT.

    The frame is 0 where no page is mapped. A huge page is split and its parts follow; 6.12 leaves one whole that is
    mapped here in one piece. Where a split is not possible 6.1 ends, and 6.12 goes on behind it. `by_head`: 6.1
    takes the first part's mappings for those of all (folio_estimated_sharers).
    """
    frames, entries = mm.frames, mm.entries
    at = first
    while at < last:
        pte = mm.tables.get(at)
        frame = mm.entries.vm_normal_page(pte) if pte and entries.pte_present(pte) else 0
        pages = 1
        if frame and frames.flags[frame] & page.COMPOUND:
            looked_at = int(frames.head[frame]) if by_head else frame
            if entries.profile.thp_advises_whole:
                pages = _mapped_run(mm, at, last)
            if pages < len(frames.folio(frame)):
                if not is_shared(mm, looked_at) and split_huge_page(mm, frame):
                    continue
                if not entries.profile.thp_advises_whole:
                    return
                at += pages
                continue
        yield at, pages, frame
        at += pages


def _mapped_run(mm: Mm, at: int, last: int) -> int:
    """Entries from `at` on that map consecutive parts of one huge page alike (folio_pte_batch)."""
    entries = mm.entries
    part = mm.tables.part(at, last)
    first = int(part[0])
    frame = entries.pte_pfn(first)
    left = mm.frames.folio(frame).stop - frame
    alike = (entries.pte_pfn(part) == np.uint64(frame) + np.arange(len(part), dtype=np.uint64)) & (
        (part & ~_UNLIKE) == np.uint64(first) & ~_UNLIKE
    )
    run = len(part) if alike.all() else int(np.argmin(alike))
    return min(run, left)


def touch_pmd(mm: Mm, at: int, pmd: int, write: bool) -> None:
    """A, D and soft-dirty on for a write (touch_pmd); x86 changes nothing otherwise (pmdp_set_access_flags)."""
    if write:
        mm.tables.set_huge(at & ~_BLOCK, mm.entries.pmd_mkdirty(mm.entries.pte_mkyoung(pmd)))


def drop_huge_map(mm: Mm, frame: int) -> None:
    """page_remove_rmap of a huge mapping."""
    mm.frames.remove_huge_rmap(frame)
    release.put(mm.kernel, frame)


def zap_huge_pmd(mm: Mm, head: int) -> None:
    """Drop a whole huge leaf (zap_huge_pmd)."""
    pmd = mm.tables.get_huge(head)
    mm.tables.set_huge(head, 0)
    if not is_huge_zero(mm, pmd):
        drop_huge_map(mm, pmd_frame(mm, pmd))


def split_huge_pmd_at(mm: Mm, vma: Vma, at: int) -> None:
    """Split the huge leaf that a boundary at `at` would cut (split_huge_pmd_if_needed)."""
    if vma.huge_level or not at & _BLOCK:
        return
    if mm.tables.is_leaf(at):
        split_huge_pmd(mm, vma, at & ~_BLOCK)


def _fill(mm: Mm, head: int, first: int, flags: int, step: int) -> None:
    """Replace the leaf at `head` by a table whose entry i has frame first + i * step and bits `flags`."""
    fields: NDArray[np.uint64] = (
        np.arange(HUGE_PAGES, dtype=np.uint64) * np.uint64(step) + np.uint64(first)
    ) << np.uint64(12)
    if mm.entries.inverts_prot_none and not flags & P:
        fields ^= np.uint64(FRAME)
    mm.tables.fill(head, fields | np.uint64(flags))


def split_huge_pmd(mm: Mm, vma: Vma, head: int) -> None:
    """Replace a huge leaf by 512 entries.

    __split_huge_pmd_locked; 3.11: the page itself is split, in every process. A leaf of a file's page is dropped, for
    it can be had again: there is no table then.
    """
    pmd = mm.tables.get_huge(head)
    if not vma.is_anonymous:
        if mm.entries.pte_dirty(pmd):
            mm.frames.mark_dirty(pmd_frame(mm, pmd))
        zap_huge_pmd(mm, head)
        return
    entries = mm.entries
    if is_huge_zero(mm, pmd):
        flags = vma.prot | SPECIAL | pmd & UFFD_WP
        _fill(mm, head, mm.frames.zero, flags, 0)
        return
    frame = pmd_frame(mm, pmd)
    if entries.profile.thp_split_dirty == SplitDirty.ALWAYS:
        for other, area, place, huge in rmap.walk(mm.kernel, frame):
            if huge:
                _split_mapping(other, area, place, other.tables.get_huge(place))
        dissolve(mm, frame)
        return
    _split_mapping(mm, vma, head, pmd)


def _split_mapping(mm: Mm, vma: Vma, head: int, pmd: int) -> None:
    """One address space's part of a split."""
    entries, frames = mm.entries, mm.frames
    frame = pmd_frame(mm, pmd)
    rule = entries.profile.thp_split_dirty
    pte = vma.prot
    if vma.flags & VmFlag.WRITE:
        pte = entries.pte_mkwrite(pte)
    if not pmd & RW:
        pte = entries.pte_wrprotect(pte)
        pte |= pmd & entries.ARM
    if not pmd & A:
        pte = entries.pte_mkold(pte)
    if rule == SplitDirty.ALWAYS or (rule == SplitDirty.IF_DIRTY and entries.pte_dirty(pmd)):
        pte = entries.pte_mkdirty(pte)
    if entries.pmd_soft_dirty(pmd):
        pte = entries.pte_mksoft_dirty(pte)
    pte |= pmd & UFFD_WP
    if entries.pte_dirty(pmd):
        frames.mark_dirty(slice(frame, frame + HUGE_PAGES))
    frames.split_huge_rmap(frame)
    rmap.note_locked(mm, vma, frame)
    _fill(mm, head, frame, pte, 1)


def dissolve(mm: Mm, frame: int) -> None:
    """The compound page becomes pages of their own; those that nothing maps are freed (__split_huge_page)."""
    frames = mm.frames
    run = frames.folio_slice(frame)
    frames.split_compound(run.start)
    release.put_many(mm.kernel, run.start + np.flatnonzero(frames.maps[run] == 0))


def split_huge_page(mm: Mm, frame: int) -> bool:
    """Split the compound page and every mapping of it (split_huge_page); False when a pin forbids it.

    Mappings pass through migration entries: a dirty one comes back by pte_mkdirty, so with soft-dirty; 6.12 maps
    subpages that hold zeros to the zero page.
    """
    frames = mm.frames
    head = int(frames.head[frame])
    if frames.flags[head] & page.FILE:
        return split_file_page(mm.kernel, head)
    if frames.is_pinned(head):
        return False
    if mm.entries.profile.thp_split_dirty == SplitDirty.ALWAYS:
        for other, area, place, huge in rmap.walk(mm.kernel, head):
            if huge:
                split_huge_pmd(other, area, place)
                return True
        return True
    places: list[tuple[Mm, Vma, int]] = []
    run = frames.folio_slice(head)
    for offset in range(run.stop - head):
        for other, area, place, huge in rmap.walk(mm.kernel, head + offset):
            if huge:
                pmd = other.tables.get_huge(place)
                frames.split_huge_rmap(head)
                _fill(other, place, head, pmd & ~(PSE | FRAME), 1)
                places += [(other, area, place + i) for i in range(HUGE_PAGES)]
            elif not any(o is other and p == place for o, _, p in places):
                places.append((other, area, place))
        if not frames.maps[run].sum() - len(places):
            break
    dirty = (frames.flags[run] & page.DIRTY).any()
    if dirty or any(mm.entries.pte_dirty(other.tables.get(at)) for other, _, at in places):
        frames.mark_dirty(run)
    for other, area, at in places:
        _remap_after_split(other, area, at)
    dissolve(mm, head)
    return True


def _remap_after_split(mm: Mm, vma: Vma, at: int) -> None:
    """What a migration entry and back makes of the entry of `at` (mm/migrate.c:remove_migration_pte)."""
    entries, frames = mm.entries, mm.frames
    old = mm.tables.get(at)
    frame = entries.pte_pfn(old)
    if entries.profile.thp_split_maps_zeros and not vma.flags & VmFlag.LOCKED and _holds_zeros(mm, frame):
        pte = vma.prot | SPECIAL | entries.pte_soft_dirty(old) | old & UFFD_WP
        mm.tables.set(at, entries.pfn_pte(frames.zero, pte))
        frames.remove_rmap(frame)
        return
    mm.tables.set(at, remap.remade(mm, vma, old, frame))


def _holds_zeros(mm: Mm, frame: int) -> bool:
    row = mm.kernel.memory_row(frame)
    return row is None or not row.any()
