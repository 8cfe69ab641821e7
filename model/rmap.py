"""From a frame to every entry that maps it (mm/rmap.c:rmap_walk)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ptewalk.model import frames as page
from ptewalk.model.linux import HUGE_PAGES
from ptewalk.model.pte import PROTNONE, P

if TYPE_CHECKING:
    from ptewalk.model.kernel import Kernel
    from ptewalk.model.mm import Mm
    from ptewalk.model.vma import Vma

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
            if vma.huge_level:
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
