"""Mapping and unmapping (mm/mmap.c, and mm/memory.c:unmap_page_range). Places are page numbers."""

from __future__ import annotations

import numpy as np

from ptewalk.model.errors import Errno
from ptewalk.model.linux import STACK_PAGE, TASK_PAGES, VmFlag
from ptewalk.model.mm import gup, hugetlb, modify, pkeys, release, rmap, thp
from ptewalk.model.pte import PROTNONE, SPECIAL, UFFD_WP, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.files import File
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma, unlink_anon_vmas
from ptewalk.model.x86 import INDEX_BITS, LEVELS_4, TABLE_ENTRIES

_ACCESS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC
_MMAP_MIN_PAGES = 16
"""vm.mmap_min_addr: 64 KiB."""
_MAY = VmFlag.MAYREAD | VmFlag.MAYWRITE | VmFlag.MAYEXEC


def do_mmap(
    mm: Mm,
    at: int,
    pages: int,
    prot: int,
    kind: str,
    file_page: int,
    *,
    locked: bool,
    grows_down: bool,
    populate: bool,
    no_reserve: bool,
) -> None:
    """mmap with MAP_FIXED.

    Parameters
    ----------
    prot : int
        VmFlag bits.
    kind : str
        "anon", "sanon", "hugetlb", "shugetlb", "hugetlb1g", or "s" or "p" and the number of a file; "r": shared, of a
        file that is open for reading only.

    Raises
    ------
    Errno
        EINVAL, ENOMEM.
    """
    kernel = mm.kernel
    if pages <= 0:
        raise Errno("EINVAL")
    bits = prot | _MAY
    if bits & _ACCESS == VmFlag.EXEC:
        bits |= pkeys.execute_only_key(kernel, mm.process) << VmFlag.PKEY_LOW
    if grows_down:
        bits |= VmFlag.GROWSDOWN
    if locked:
        bits |= VmFlag.LOCKED
    if no_reserve:
        bits |= VmFlag.NORESERVE
    file: File | None = None
    pgoff = at
    level = 0
    if kind in ("hugetlb", "shugetlb", "hugetlb1g"):
        level = 3 if kind == "hugetlb1g" else 2
        size = 1 << INDEX_BITS * (level - 1)
        pages = -(-pages // size) * size
        if at % size:
            raise Errno("EINVAL")
        bits |= VmFlag.HUGETLB | VmFlag.DONTEXPAND
        file = kernel.files.new_anonymous(pages)
        pgoff = 0
        if kind == "shugetlb":
            bits |= VmFlag.SHARED | VmFlag.MAYSHARE
    elif kind == "sanon":
        bits |= VmFlag.SHARED | VmFlag.MAYSHARE
        pgoff = 0
    elif kind != "anon":
        file = kernel.files.open(kind[1:])
        pgoff = file_page
        if kind[0] == "s":
            bits |= VmFlag.SHARED | VmFlag.MAYSHARE
        elif kind[0] == "r":
            bits = bits & ~VmFlag.MAYWRITE | VmFlag.MAYSHARE
    if at < 0 or at + pages > TASK_PAGES[mm.tables.levels]:
        raise Errno("ENOMEM")
    replaced: list[Vma] = []
    try:
        mmap_region(mm, at, pages, bits, file, pgoff, level, replaced)
        if locked or populate:
            gup.mm_populate(mm, at, at + pages)
    finally:
        for vma in replaced:
            hugetlb.put_file(kernel, vma)


def mmap_region(
    mm: Mm,
    start: int,
    pages: int,
    flags: int,
    file: File | None,
    pgoff: int,
    huge_level: int,
    replaced: list[Vma],
) -> Vma:
    """mm/mmap.c:mmap_region; what was mapped there is unmapped first, and its hugetlb areas are added to `replaced`."""
    end = start + pages
    try:
        unmap_areas(mm, start, pages, replaced)
    except Errno:
        if mm.entries.profile.mmap_passes_errors_on:  # vms_gather_munmap_vmas passes the error on
            raise
        raise Errno("ENOMEM") from None
    if not huge_level and flags & (VmFlag.SHARED | VmFlag.WRITE | VmFlag.NORESERVE) == VmFlag.WRITE:
        flags |= VmFlag.ACCOUNT
    flags |= mm.entries.VM_SOFTDIRTY
    vma = None
    if not huge_level:
        vma = modify.expand_new(mm, start, end, flags, file, pgoff)
    if vma is None:
        if file is None and flags & VmFlag.SHARED:
            file = mm.kernel.files.new_anonymous(pages)
        vma = Vma(start, end, flags & ~VmFlag.LOCKED if huge_level else flags, pgoff, file)
        vma.huge_level = huge_level
        if huge_level:
            hugetlb.reserve(mm.kernel, vma)
        mm.areas.insert(vma)
    modify.set_page_prot(mm, vma)
    mm.touch(start, end)
    return vma


def get_unmapped_area(mm: Mm, hint: int, pages: int, *, align: int = 1) -> int:
    """A free range: at the hint where that is free, else from the top of the address space down.

    Parameters
    ----------
    align : int
        Pages that the range's start is a multiple of: a hugetlb mapping's own page size.

    Raises
    ------
    Errno
        ENOMEM: there is none.
    """
    end = hint + pages
    if hint and not hint % align and end <= TASK_PAGES[mm.tables.levels] and not mm.areas.in_range(hint, end):
        return hint
    top = TASK_PAGES[mm.tables.levels if hint > TASK_PAGES[LEVELS_4] else LEVELS_4] - (1 << 20)
    if mm.mmap_base and hint <= TASK_PAGES[LEVELS_4]:
        top = mm.mmap_base
    at = (top - pages) // align * align
    for vma in reversed(mm.areas.list):
        if vma.start < at + pages and vma.end > at:
            at = (vma.start - pages) // align * align
    if at < _MMAP_MIN_PAGES:
        raise Errno("ENOMEM")
    return at


def do_munmap(mm: Mm, start: int, pages: int) -> None:
    """The system call."""
    gone: list[Vma] = []
    unmap_areas(mm, start, pages, gone)
    for vma in gone:
        hugetlb.put_file(mm.kernel, vma)


def unmap_areas(mm: Mm, start: int, pages: int, gone: list[Vma]) -> None:
    """mm/mmap.c:do_munmap; where only the end cannot be split off (hugetlb), the split at the start stays.

    hugetlb areas that go are added to `gone`: their files are still to be put.
    """
    end = start + pages
    if pages <= 0 or start < 0 or end > TASK_PAGES[mm.tables.levels]:
        raise Errno("EINVAL")
    overlapping = mm.areas.in_range(start, end)
    if not overlapping:
        return
    first = overlapping[0]
    if first.start < start:
        modify.check_split(first, start)
        overlapping[0] = modify.split(mm, first, start, new_below=False)
    last = overlapping[-1]
    if last.end > end:
        modify.check_split(last, end)
        overlapping[-1] = modify.split(mm, last, end, new_below=True)
    for vma in overlapping:
        mm.areas.remove(vma)
    for vma in overlapping:
        zap_range(mm, vma, vma.start, vma.end, drop_markers=True)
        if vma.huge_level:
            hugetlb.close(mm.kernel, vma)
            gone.append(vma)
    _free_tables(mm, overlapping[0].start, overlapping[-1].end)
    for vma in overlapping:
        unlink_anon_vmas(vma)
    mm.replace(start, end)
    for at in [at for at in mm.remapped if start <= at < end]:
        del mm.remapped[at]


def _free_tables(mm: Mm, start: int, end: int) -> None:
    """free_pgtables: the tables that neither the neighbours nor the process's own stack need."""
    before, after = mm.areas.neighbours(start)
    floor, ceiling = before.end if before else 0, after.start if after else 0
    if start > STACK_PAGE:
        floor = max(floor, STACK_PAGE + 1)
    else:
        ceiling = min(ceiling or STACK_PAGE, STACK_PAGE)
    mm.tables.free_range(start, end, floor, ceiling)


def exit_mmap(mm: Mm) -> None:
    """The process ends: what it pinned and mapped goes (mm/mmap.c:exit_mmap)."""
    for pinned in mm.process.pinned.values():
        gup.unpin(mm, pinned)
    mm.process.pinned.clear()
    for vma in list(mm.areas):
        do_munmap(mm, vma.start, vma.end - vma.start)
    mm.tables.forget_all()  # the next address space may have its PCID
    if mm.entries.profile.mmap_drains:
        mm.kernel.lru.drain()


def zap_range(
    mm: Mm,
    vma: Vma,
    start: int,
    end: int,
    *,
    drop_markers: bool = False,
    even_cows: bool = True,
    reclaim_tables: bool = False,
) -> None:
    """Drop the entries of pages [start, end) of one area (mm/memory.c:unmap_page_range).

    `drop_markers`: write-protection of a file mapping is forgotten with them, and guard regions go; otherwise markers
    keep both. `even_cows`: drop private copies of a file's pages too (truncation), not page-cache pages alone.
    `reclaim_tables`: a table of which all is dropped goes too (zap_pte_range with reclaim_pt).
    """
    if vma.huge_level:
        hugetlb.zap(mm, vma, start, end, drop_markers=drop_markers)
        return
    for piece in mm.tables.pieces(vma, start, end):
        if piece.leaf:
            if piece.whole:
                thp.zap_huge_pmd(mm, piece.head)
                continue
            thp.split_huge_pmd(mm, vma, piece.head)
            if not vma.is_anonymous:
                continue
        _zap_part(mm, vma, piece.first, piece.last, drop_markers, even_cows)
        whole = piece.last - piece.first == TABLE_ENTRIES
        if reclaim_tables and whole and not mm.tables.part(piece.first, piece.last).any():
            mm.frames.free(mm.tables.unlink(piece.first, 1))
    if mm.entries.profile.mmap_drains:
        mm.kernel.lru.drain()


def _zap_part(mm: Mm, vma: Vma, first: int, last: int, drop_markers: bool, even_cows: bool) -> None:
    part = mm.tables.edit(first, last)
    used = np.flatnonzero(part)
    if not len(used):
        return
    entries = part[used]
    present = (entries & np.uint64(P | PROTNONE)) != 0
    pages = entries[present]
    pages = pages[(pages & np.uint64(SPECIAL)) == 0]
    pfns = mm.entries.pte_pfn(pages).astype(np.int64)
    if vma.file is not None:
        dirty = pfns[(mm.entries.pte_dirty(pages) != 0) & ((mm.frames.flags[pfns] & page.FILE) != 0)]
        mm.frames.mark_dirty(mm.frames.head[dirty])
    keep = np.zeros(len(entries), bool)
    if not even_cows:
        anon = (mm.frames.flags[pfns] & page.ANON) != 0
        kept_pfns = set(pfns[anon].tolist())
        if kept_pfns:
            all_pfns = mm.entries.pte_pfn(entries)
            keep = present & np.isin(all_pfns, np.array(sorted(kept_pfns), np.uint64))
        pfns = pfns[~anon]
    markers: list[int] = []
    for position in np.flatnonzero(~present):
        entry = int(entries[position])
        if mm.entries.is_marker(entry):
            if not drop_markers and (not vma.is_anonymous or mm.entries.is_guard(entry)):
                keep[position] = True
        elif even_cows:
            release.free_entry(mm.kernel, entry)
        else:
            keep[position] = True
    if not drop_markers and not vma.is_anonymous and vma.flags & VmFlag.UFFD_WP:
        protection = np.where(present, np.uint64(UFFD_WP), np.uint64(mm.entries.SWP_UFFD_WP))
        markers = used[((entries & protection) != 0) & ~keep].tolist()
    part[used[~keep]] = 0
    for marked in markers:
        part[marked] = mm.entries.make_uffd_marker()
    if vma.flags & VmFlag.LOCKED:
        for pfn in pfns.tolist():
            rmap.note_locked(mm, vma, pfn)
    release.unmap_frames(mm.kernel, pfns)
