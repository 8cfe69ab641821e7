"""Guard regions: pages that end every access, without an area of their own (mm/madvise.c of 6.13 and later)."""

from __future__ import annotations

import numpy as np

from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import mmap, modify, rmap
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.tables import PMD_SHIFT
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import TABLE_ENTRIES


def install(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """MADV_GUARD_INSTALL: what is mapped in pages [start, end) is dropped, a marker in each (madvise_guard_install).

    Raises
    ------
    Errno
        EINVAL: a locked or hugetlb area.
    """
    if vma.flags & (VmFlag.LOCKED | VmFlag.DONTEXPAND):
        raise Errno("EINVAL")
    if mm.entries.profile.guard_sets_flag:
        modify.set_flags(vma, VmFlag.MAYBE_GUARD)
    if vma.is_anonymous or not mm.entries.profile.guard_sets_flag:
        rmap.anon_vma_prepare(mm, vma)
    mmap.zap_range(mm, vma, start, end)
    mm.replace(start, end)
    for block in range(start >> PMD_SHIFT, (end - 1 >> PMD_SHIFT) + 1):
        head = block << PMD_SHIFT
        mm.tables.alloc(head, 1)
        part = mm.tables.edit(max(start, head), min(end, head + TABLE_ENTRIES))
        # Markers that stand are left alone, with the SD that mremap may have given them (guard_install_pte_entry).
        part[[not mm.entries.is_guard(entry) for entry in part.tolist()]] = mm.entries.make_guard_marker()


def remove(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """MADV_GUARD_REMOVE: the markers of guard regions go, all else stays (madvise_guard_remove).

    Raises
    ------
    Errno
        EINVAL: a hugetlb area.
    """
    if vma.flags & VmFlag.DONTEXPAND:
        raise Errno("EINVAL")
    for piece in mm.tables.pieces(vma, start, end):
        if piece.leaf:
            continue
        part = mm.tables.edit(piece.first, piece.last)
        guards = [position for position in np.flatnonzero(part).tolist() if mm.entries.is_guard(int(part[position]))]
        part[guards] = 0
