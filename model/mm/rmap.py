"""From a frame to every entry that maps it (mm/rmap.c:rmap_walk)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.pte import PROTNONE, A, P
from ptewalk.model.state import frames as page

if TYPE_CHECKING:
    from ptewalk.model.kernel import Kernel
    from ptewalk.model.mm.mmap import Mm
    from ptewalk.model.state.vma import Vma

_BLOCK = HUGE_PAGES - 1


def walk(kernel: Kernel, frame: int) -> list[tuple[Mm, Vma, int, bool]]:
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
                if not vma.chain or vma.chain[0].root.identity != owner:
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


def is_locked(kernel: Kernel, frame: int) -> bool:
    """Does an area with VM_LOCKED map the page (PageUnevictable)?"""
    return any(vma.flags & VmFlag.LOCKED for _, vma, _, _ in walk(kernel, frame))


def unmap_nonlinear(kernel: Kernel, frame: int) -> bool:
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
                    frames.flags[other] |= page.DIRTY
                process.mm.tables.set(at, 0)
                frames.maps[other] -= 1
    kernel.mmu.invalidate(None)
    return not frames.maps[frame]


def _walk_ksm(kernel: Kernel, frame: int) -> list[tuple[Mm, Vma, int, bool]]:
    """Every mapping of a KSM page, which may stand anywhere (mm/ksm.c:rmap_walk_ksm)."""
    found = []
    for process in kernel.processes.values():
        mm = process.mm
        for vma in mm.areas:
            if vma.anon_vma is None:
                continue
            for block, first, last, huge in mm.tables.blocks(vma.start, vma.end):
                if huge:
                    continue
                part = mm.tables.part(block, first, last)
                present = (part & np.uint64(P | PROTNONE)) != 0
                same = present & (kernel.entries.pte_pfn(part) == np.uint64(frame))
                found += [(mm, vma, first + position, False) for position in np.flatnonzero(same).tolist()]
    return found
