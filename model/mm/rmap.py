"""From frames to the entries that map them, and back (mm/rmap.c)."""

from __future__ import annotations

import numpy as np

from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.pte import PROTNONE, UFFD_WP, A, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.lru import Batch
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.vma import Vma

_BLOCK = HUGE_PAGES - 1


def anon_vma_prepare(mm: Mm, vma: Vma) -> None:
    """Give an area its anon_vma, a neighbour's where that is allowed (mm/rmap.c:__anon_vma_prepare)."""
    if vma.anon_vma:
        return
    anon_vma = mm.areas.find_mergeable_anon_vma(vma)
    if anon_vma is None:
        anon_vma = mm.kernel.new_anon_vma()
    vma.anon_vma = anon_vma
    vma.chain.append(anon_vma)


def add_new_anon(mm: Mm, vma: Vma, at: int, frame: int) -> None:
    """page_add_new_anon_rmap: a new page, exclusive to this area."""
    assert vma.anon_vma is not None
    mm.frames.add_new_anon_rmap(frame, vma.anon_vma.identity, vma.offset(at))
    note_locked(mm, vma, frame)


def note_locked(mm: Mm, vma: Vma, frame: int) -> None:
    """An area begins or ends to map a page (mlock_vma_page, munlock_vma_page)."""
    if vma.flags & VmFlag.LOCKED:
        mm.kernel.lru.add(Batch.MLOCK, frame)


def walk(kernel: MachineState, frame: int) -> list[tuple[Mm, Vma, int, bool]]:
    """Every mapping of `frame`: (address space, area, page number, whether by a huge leaf).

    A huge leaf's page number is that of its first page.
    """
    frames = kernel.frames
    flags = int(frames.flags[frame])
    if flags & page.KSM:
        return _walk_ksm(kernel, frame)
    offset = int(frames.index[frame])
    owner = int(frames.owner[frame])
    found = []
    for process in kernel.processes.values():
        mm = process.mm
        for vma in mm.areas:
            if flags & page.ANON:
                if not vma.chain or vma.chain[0].identity != owner:
                    continue
            elif vma.file is None or vma.file.identity != owner:
                continue
            if vma.huge_level or vma.remapped is not None:
                continue
            at = vma.start + offset - vma.pgoff
            if not vma.start <= at < vma.end:
                continue
            pmd = mm.tables.get_huge(at)
            if pmd:
                if kernel.entries.pte_pfn(pmd, 2) + (at & _BLOCK) == frame:
                    found.append((mm, vma, at & ~_BLOCK, True))
                continue
            pte = mm.tables.get(at)
            if pte & (P | PROTNONE) and kernel.entries.pte_pfn(pte) == frame:
                found.append((mm, vma, at, False))
    return found


def mapped_by(mm: Mm, frame: int) -> int:
    """Entries of one process that map a part of the huge page of `frame`, or all of it."""
    folio = mm.frames.folio(frame)
    head = folio.start
    first, owner = int(mm.frames.index[head]), int(mm.frames.owner[head])
    count = 0
    for vma in mm.areas:
        if owner != (vma.file.identity if vma.file and owner < 0 else vma.chain[0].identity if vma.chain else 0):
            continue
        start = max(vma.start, vma.start + first - vma.pgoff)
        end = min(vma.end, vma.start + first - vma.pgoff + folio.stop - head)
        if start >= end:
            continue
        for piece in mm.tables.pieces(vma, start, end):
            if piece.leaf:
                count += mm.entries.pte_pfn(piece.leaf, 2) == head
                continue
            part = mm.tables.part(piece.first, piece.last)
            pfns = mm.entries.pte_pfn(part[(part & np.uint64(P | PROTNONE)) != 0])
            count += int(np.count_nonzero((pfns >= np.uint64(head)) & (pfns < np.uint64(folio.stop))))
    return count


def _walk_ksm(kernel: MachineState, frame: int) -> list[tuple[Mm, Vma, int, bool]]:
    """Every mapping of a KSM page, which may stand anywhere (mm/ksm.c:rmap_walk_ksm)."""
    found = []
    for process in kernel.processes.values():
        mm = process.mm
        for vma in mm.areas:
            if vma.anon_vma is None:
                continue
            for piece in mm.tables.pieces(vma, vma.start, vma.end):
                if piece.leaf:
                    continue
                part = mm.tables.part(piece.first, piece.last)
                present = (part & np.uint64(P | PROTNONE)) != 0
                same = present & (kernel.entries.pte_pfn(part) == np.uint64(frame))
                found += [(mm, vma, piece.first + position, False) for position in np.flatnonzero(same).tolist()]
    return found


def is_locked(kernel: MachineState, frame: int) -> bool:
    """Does an area with VM_LOCKED map the page (PageUnevictable)?"""
    return any(vma.flags & VmFlag.LOCKED for _, vma, _, _ in walk(kernel, frame))


def unmap_nonlinear(kernel: MachineState, frame: int) -> bool:
    """Age and unmap what remap_file_pages mapped of a page's file (3.11, mm/rmap.c:try_to_unmap_cluster).

    The page itself is not searched for: an entry with A loses A, one without is dropped. True when nothing maps the
    page any more.
    """
    frames, entries = kernel.frames, kernel.entries
    for process in kernel.processes.values():
        for vma in process.mm.areas:
            if vma.remapped is None or vma.file is None or vma.file.identity != int(frames.owner[frame]):
                continue
            for at in range(vma.start, vma.end):
                pte = process.mm.tables.get(at)
                if not pte & (P | PROTNONE) or vma.flags & VmFlag.LOCKED:
                    continue
                if pte & A:
                    process.mm.tables.set(at, entries.pte_mkold(pte))
                    continue
                other = entries.pte_pfn(pte)
                if entries.pte_dirty(pte):
                    frames.mark_dirty(other)
                process.mm.tables.set(at, 0)
                frames.remove_rmap(other)
    return not frames.maps[frame]


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
