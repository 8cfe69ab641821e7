"""mremap (mm/mremap.c): areas move, grow and shrink; entries or whole tables move with them."""

from __future__ import annotations

import numpy as np

from ptewalk.model.errors import Errno
from ptewalk.model.linux import TASK_PAGES, VmFlag
from ptewalk.model.mm import gup, ksm, mmap, modify, thp
from ptewalk.model.profile import TableMove
from ptewalk.model.pte import ALL, PROTNONE, UFFD_WP, P
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.tables import PMD_PAGES, PMD_SHIFT, PUD_PAGES
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import PAGE_SHIFT, TABLE_ENTRIES

FLAGS = frozenset(("MAYMOVE", "FIXED", "DONTUNMAP"))


def mremap(mm: Mm, old: int, old_pages: int, new_pages: int, flags: frozenset[str], new: int) -> int:
    """The system call; the page number of the result.

    Raises
    ------
    Errno
        EINVAL, EFAULT, ENOMEM; FIXED may have unmapped the destination, and a shrink its tail, before an EFAULT.
    """
    profile = mm.entries.profile
    if "DONTUNMAP" in flags and not profile.mremap_dontunmap:
        raise Errno("EINVAL")
    if "FIXED" in flags and "MAYMOVE" not in flags:
        raise Errno("EINVAL")
    if "DONTUNMAP" in flags and ("MAYMOVE" not in flags or old_pages != new_pages):
        raise Errno("EINVAL")
    if new_pages <= 0 or old_pages < 0:
        raise Errno("EINVAL")
    if profile.mremap_moves_many:
        return _do_mremap(mm, old, old_pages, new_pages, flags, new)
    if not profile.mremap_checks_addresses_first:
        vma = mm.areas.lookup(old)
        if vma is None:
            raise Errno("EFAULT")
        if vma.huge_level:
            old_pages, new_pages = _whole_hugetlb(vma, old, old_pages, new_pages, new)
    if flags & {"FIXED", "DONTUNMAP"}:
        _check_destination(mm, old, old_pages, new_pages, new)
        return _to_destination(mm, old, old_pages, new_pages, flags, new)
    if old_pages >= new_pages:
        if old_pages > new_pages:
            mmap.do_munmap(mm, old + new_pages, old_pages - new_pages)
        return old
    return _grow(mm, old, old_pages, new_pages, flags)


def _do_mremap(mm: Mm, old: int, old_pages: int, new_pages: int, flags: frozenset[str], new: int) -> int:
    """mm/mremap.c:do_mremap of 6.18: all arguments are checked first, then the area, before anything is unmapped."""
    elsewhere = bool(flags & {"FIXED", "DONTUNMAP"})
    if elsewhere:
        _check_destination(mm, old, old_pages, new_pages, new)
        if "FIXED" in flags and old_pages == new_pages:
            return _remap_move(mm, old, old_pages, flags, new)
    old_pages, new_pages = _check_area(mm, mm.areas.lookup(old), old, old_pages, new_pages, flags, new)
    if elsewhere:
        return _to_destination(mm, old, old_pages, new_pages, flags, new)
    if old_pages >= new_pages:
        if old_pages > new_pages:
            mmap.do_munmap(mm, old + new_pages, old_pages - new_pages)
        return old
    return _grow(mm, old, old_pages, new_pages, flags)


def _check_destination(mm: Mm, old: int, old_pages: int, new_pages: int, new: int) -> None:
    """The destination is in the address space, and apart from the source (check_mremap_params)."""
    if new < 0 or new + new_pages > TASK_PAGES[mm.tables.levels]:
        raise Errno("EINVAL")
    same_overlaps = mm.entries.profile.mremap_same_place_overlaps
    if (old + old_pages > new or (same_overlaps and old == new)) and new + new_pages > old:
        raise Errno("EINVAL")


def _check_area(
    mm: Mm, vma: Vma | None, old: int, old_pages: int, new_pages: int, flags: frozenset[str], new: int
) -> tuple[int, int]:
    """mm/mremap.c:check_prep_vma; the two lengths, in whole hugetlb pages."""
    if vma is None:
        raise Errno("EFAULT")
    if vma.huge_level:
        old_pages, new_pages = _whole_hugetlb(vma, old, old_pages, new_pages, new)
    if new_pages > old_pages or flags & {"FIXED", "DONTUNMAP"}:
        _vma_to_resize(mm, old, min(old_pages, new_pages), new_pages, flags)  # the tail to unmap may leave the area
    return old_pages, new_pages


def _whole_hugetlb(vma: Vma, old: int, old_pages: int, new_pages: int, new: int) -> tuple[int, int]:
    """Lengths in whole pages of a hugetlb area, which does not grow (align_hugetlb)."""
    size = vma.leaf_pages
    old_pages, new_pages = -(-old_pages // size) * size, -(-new_pages // size) * size
    if old % size or new % size or new_pages > old_pages:
        raise Errno("EINVAL")
    return old_pages, new_pages


def _remap_move(mm: Mm, old: int, pages: int, flags: frozenset[str], new: int) -> int:
    """Move every area in a range, with the holes between them (mm/mremap.c:remap_move of 6.18).

    An error leaves what was moved before it.
    """
    end, at, target = old + pages, old, new
    last_end: int | None = None
    while at < end:
        vma = mm.areas.find(at)
        if vma is None or vma.start >= end:
            break
        first, stop = max(vma.start, old), vma.end
        length = min(end, stop) - first
        if last_end is None and first > old:
            raise Errno("EFAULT")
        if vma.uffd is not None and (last_end is not None or stop < end):  # vma_multi_allowed
            raise Errno("EFAULT")
        place = target + (vma.start - last_end if last_end is not None else 0)
        length, _ = _check_area(mm, vma, first, length, length, flags, place)
        _to_destination(mm, first, length, length, flags, place)
        at, last_end, target = stop, stop, place + length
    if last_end is None:
        raise Errno("EFAULT")
    return new


def _vma_to_resize(mm: Mm, at: int, old_pages: int, new_pages: int, flags: frozenset[str]) -> Vma:
    """mm/mremap.c:vma_to_resize"""
    vma = mm.areas.lookup(at)
    if vma is None:
        raise Errno("EFAULT")
    profile = mm.entries.profile
    if profile.mremap_refuses_hugetlb and vma.huge_level:
        raise Errno("EINVAL")
    if not old_pages and not profile.mremap_empties_private and not vma.flags & (VmFlag.SHARED | VmFlag.MAYSHARE):
        raise Errno("EINVAL")
    if "DONTUNMAP" in flags and vma.flags & VmFlag.DONTEXPAND:
        raise Errno("EINVAL")
    if old_pages > vma.end - at:
        raise Errno("EFAULT")
    if new_pages > old_pages and vma.flags & VmFlag.DONTEXPAND:
        raise Errno("EFAULT")
    return vma


def _to_destination(mm: Mm, old: int, old_pages: int, new_pages: int, flags: frozenset[str], new: int) -> int:
    """mm/mremap.c:mremap_to"""
    if "FIXED" in flags:
        mmap.do_munmap(mm, new, new_pages)
    if old_pages > new_pages:
        mmap.do_munmap(mm, old + new_pages, old_pages - new_pages)
        old_pages = new_pages
    vma = _vma_to_resize(mm, old, old_pages, new_pages, flags)
    if "FIXED" not in flags:
        new = mmap.get_unmapped_area(mm, new, new_pages)
    return _move_vma(mm, vma, old, old_pages, new_pages, new, "DONTUNMAP" in flags)


def _grow(mm: Mm, old: int, old_pages: int, new_pages: int, flags: frozenset[str]) -> int:
    """In place where there is room, else by moving."""
    vma = _vma_to_resize(mm, old, old_pages, new_pages, flags)
    end, new_end = old + old_pages, old + new_pages
    if end == vma.end:
        following = mm.areas.after(vma)
        if not (following and following.start < new_end) and new_end <= TASK_PAGES[mm.tables.levels]:
            merged = modify.grow_up(mm, vma, new_end)
            if merged is None:
                raise Errno("ENOMEM")
            mm.touch(end, new_end)
            if merged.flags & VmFlag.LOCKED:
                gup.mm_populate(mm, end, new_end)
            return old
    if "MAYMOVE" not in flags:
        raise Errno("ENOMEM")
    new = mmap.get_unmapped_area(mm, 0, new_pages)
    return _move_vma(mm, vma, old, old_pages, new_pages, new, False)


def _move_vma(mm: Mm, vma: Vma, old: int, old_pages: int, new_pages: int, new: int, keep_source: bool) -> int:
    """mm/mremap.c:move_vma"""
    modify.check_split(vma, old)
    modify.check_split(vma, old + old_pages)
    if vma.flags & VmFlag.MERGEABLE:
        ksm.unmerge_range(mm, vma, old, old + old_pages)
    profile = mm.entries.profile
    if keep_source and vma.flags & VmFlag.LOCKED and not profile.mremap_unlocks_all:
        if vma.start != old:
            modify.split(mm, vma, old, new_below=True)
        if vma.end != old + old_pages:
            modify.split(mm, vma, old + old_pages, new_below=False)
    flags = vma.flags
    vma, area = modify.copy_vma(mm, vma, new, new_pages, vma.offset(old), keep_source)
    moved = _move_page_tables(mm, vma, area, old, new, old_pages)
    if not vma.flags & VmFlag.MAYSHARE:
        (vma if moved or profile.mremap_failure_takes_reserve else area).reservation = None
    if not moved:
        mmap.do_munmap(mm, new, new_pages)
        raise Errno("ENOMEM")
    mm.move(old, new, old_pages)
    mm.touch(new + old_pages, new + new_pages)
    modify.reset_uffd(mm, area)  # mremap_userfaultfd_prep
    if keep_source:
        modify.clear_flags(vma, VmFlag.LOCKED)
        if vma.start == old and vma.end == old + old_pages:
            modify.begin_anew(mm, vma)
        return new
    if not old_pages:
        modify.clear_flags(vma, VmFlag.ACCOUNT)
    else:
        accounted = flags & VmFlag.ACCOUNT
        left_below, left_above = vma.start < old, vma.end > old + old_pages
        mmap.do_munmap(mm, old, old_pages)
        for left, at in ((left_below, old - 1), (left_above, old + old_pages)):
            rest = mm.areas.lookup(at) if left else None
            if rest is not None:
                modify.set_flags(rest, accounted)
    if flags & VmFlag.LOCKED and new_pages > old_pages:
        gup.mm_populate(mm, new + old_pages, new + new_pages)
    return new


def _move_page_tables(mm: Mm, vma: Vma, area: Vma, old: int, new: int, pages: int) -> bool:
    """mm/mremap.c:move_page_tables; False when it failed."""
    if not pages:
        return True
    if vma.huge_level:
        return _move_hugetlb(mm, vma, old, new, pages)
    rule = mm.entries.profile.mremap_table_move
    tables = mm.tables
    end = old + pages
    by_table = rule != TableMove.NEVER and vma.uffd is None
    if rule == TableMove.REALIGNED:
        old, new = _realign(mm, vma, area, old, new, pages)
    clear_wp = vma.uffd is not None
    while old < end:
        extent = _extent(PUD_PAGES, old, new, end)
        if not tables.table(old, 2):
            old, new = old + extent, new + extent
            continue
        tables.alloc(new, 3)
        if by_table and extent == PUD_PAGES and not tables.table(new, 2):
            _relink(mm, old, new, 2)
            old, new = old + extent, new + extent
            continue
        extent = _extent(PMD_PAGES, old, new, end)
        block = old >> PMD_SHIFT
        huge = tables.is_leaf(old)
        if not huge and not tables.table(old, 1):
            old, new = old + extent, new + extent
            continue
        tables.alloc(new, 2)
        if huge:
            splits = mm.entries.profile.mremap_splits_nohugepage and area.flags & VmFlag.NOHUGEPAGE
            if extent == PMD_PAGES and not splits:
                _move_huge_pmd(mm, old, new, clear_wp)
                old, new = old + extent, new + extent
                continue
            thp.split_huge_pmd(mm, vma, block << PMD_SHIFT)
            if not vma.is_anonymous:
                old, new = old + extent, new + extent
                continue
        elif by_table and extent == PMD_PAGES and not tables.table(new, 1):
            _relink(mm, old, new, 1)
            old, new = old + extent, new + extent
            continue
        tables.alloc(new, 1)
        _move_ptes(mm, old, new, extent, clear_wp)
        old, new = old + extent, new + extent
    return True


def _extent(size: int, old: int, new: int, end: int) -> int:
    """Pages up to the next boundary of `size` at either end (get_extent)."""
    return min(size - old % size, end - old, size - new % size)


def _realign(mm: Mm, vma: Vma, area: Vma, old: int, new: int, pages: int) -> tuple[int, int]:
    """6.12 starts at the 2 MiB boundary below when nothing else is mapped there (try_realign_addr)."""
    offset = old % PMD_PAGES
    if not offset or offset != new % PMD_PAGES or pages < PMD_PAGES - offset:
        return old, new
    if not _can_align_down(mm, vma, old) or not _can_align_down(mm, area, new):
        return old, new
    return old - offset, new - offset


def _can_align_down(mm: Mm, vma: Vma, at: int) -> bool:
    """mm/mremap.c:can_align_down"""
    masked = at & ~(PMD_PAGES - 1)
    if vma.start != at:
        return False
    before = mm.areas.before(vma)
    return before is None or before.end <= masked


def _relink(mm: Mm, old: int, new: int, level: int) -> None:
    """A whole table moves (move_normal_pmd, move_normal_pud): the entry that points to it."""
    engine = mm.kernel.engine
    if engine is None:
        mm.tables.relink(old, new, level)
        return
    pages = mm.tables.pages(old, old + (PMD_PAGES if level == 1 else PUD_PAGES))
    engine.move(pages, new, level + 1, mm.entries, marks=False, unprotects=False)
    mm.tables.relinked(old, new, level)


def _move_huge_pmd(mm: Mm, old: int, new: int, clear_wp: bool) -> None:
    """mm/huge_memory.c:move_huge_pmd, with the seed commit's mark."""
    engine = mm.kernel.engine
    if engine is not None:
        pages = mm.tables.pages(old, old + PMD_PAGES)
        engine.move(pages, new, 2, mm.entries, marks=True, unprotects=clear_wp)
        mm.tables.moved_huge(old, new)
        return
    pmd = mm.entries.pmd_mksoft_dirty(mm.tables.get_huge(old))
    mm.tables.set_huge(old, 0)
    mm.tables.set_huge(new, mm.entries.pte_clear_uffd_wp(pmd) if clear_wp else pmd)


def _move_ptes(mm: Mm, old: int, new: int, pages: int, clear_wp: bool) -> None:
    """Move single entries and mark them soft-dirty (mm/mremap.c:move_ptes, the seed commit's hunk)."""
    entries, engine = mm.entries, mm.kernel.engine
    if engine is not None:
        for at in (old, new):
            mm.tables.forget(at, at + pages)
        engine.move(mm.tables.pages(old, old + pages), new, 1, entries, marks=True, unprotects=clear_wp)
        return
    source = mm.tables.edit(old, old + pages)
    target = mm.tables.edit(new, new + pages)
    used = np.flatnonzero(source)
    if not len(used):
        return
    moved = source[used]
    present = (moved & np.uint64(P | PROTNONE)) != 0
    if clear_wp:
        swapped = moved & np.uint64(ALL ^ entries.SWP_UFFD_WP)
        for position in np.flatnonzero(~present):
            if entries.is_marker(int(moved[position])) and not entries.is_guard(int(moved[position])):
                moved[position] = 0
                swapped[position] = 0
        moved = np.where(present, moved & np.uint64(ALL ^ UFFD_WP), swapped)
    marked = np.where(present, entries.pte_mksoft_dirty(moved), entries.pte_swp_mksoft_dirty(moved))
    target[used] = np.where(moved != 0, marked, moved)
    source[used] = 0


def _move_hugetlb(mm: Mm, vma: Vma, old: int, new: int, pages: int) -> bool:
    """mm/hugetlb.c:move_hugetlb_page_tables: nothing is marked.

    Where no table stands, the walk goes on behind what the missing table would map, and the number of bytes done is
    kept in an int: after such a jump a large page's move can look as if it had failed.
    """
    size, level = vma.leaf_pages, vma.huge_level
    last_entry = size * (TABLE_ENTRIES - 1)
    shift = new - old
    at, end = old, old + pages
    while at < end:
        if not mm.tables.table(at, level):
            at |= last_entry
        else:
            entry = mm.tables.get_huge(at, level)
            if entry:
                mm.tables.alloc(at + shift, level)
                mm.tables.set_huge(at, 0, level)
                if vma.uffd is not None:  # its destination is not registered
                    entry = 0 if mm.entries.is_marker(entry) else mm.entries.pte_clear_uffd_wp(entry)
                mm.tables.set_huge(at + shift, entry, level)
        at += size
    done = (pages + at - end) << PAGE_SHIFT & 0xFFFF_FFFF
    return done >= 1 << 31 or done >= pages << PAGE_SHIFT
