"""Areas split, merge, and get other flags (mm/mmap.c and mm/rmap.c of 3.11 and 6.1, mm/vma.c of 6.12).

Extent, offset, flags and protection of an area are written here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import thp
from ptewalk.model.profile import MergeRule
from ptewalk.model.state.files import File
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Userfaultfd, Vma, anon_vma_clone, unlink_anon_vmas

_UFFD_FLAGS = VmFlag.UFFD_MISSING | VmFlag.UFFD_WP


def check_split(vma: Vma, at: int) -> None:
    """vm_ops->may_split: a hugetlb area splits at its own page size only."""
    if at % vma.leaf_pages:
        raise Errno("EINVAL")


def split(mm: Mm, vma: Vma, page: int, *, new_below: bool) -> Vma:
    """Split `vma` at `page`; the new area, below or above, is returned (mm/mmap.c:split_vma)."""
    check_split(vma, page)
    thp.split_huge_pmd_at(mm, vma, page)
    new = vma.copy()
    anon_vma_clone(new, vma)
    if new_below:
        new.end = page
        vma.pgoff += page - vma.start
        vma.start = page
    else:
        new.start = page
        new.pgoff += page - vma.start
        vma.end = page
    mm.areas.insert(new)
    return new


def set_flags(vma: Vma, flags: int) -> None:
    """vm_flags_set"""
    vma.flags |= flags


def clear_flags(vma: Vma, flags: int) -> None:
    """vm_flags_clear"""
    vma.flags &= ~flags


def modify_flags(mm: Mm, vma: Vma, before: Vma | None, start: int, end: int, flags: int) -> Vma:
    """Give part of an area `flags`, merging or splitting; the area that covers it afterwards (vma_modify_flags)."""
    if flags == vma.flags:
        return vma
    merged = merge(mm, before, Part(start, end, flags, vma, vma.file, vma.offset(start), vma.uffd))
    return merged or _split_off(mm, vma, start, end, flags)


def modify_uffd(mm: Mm, vma: Vma, before: Vma | None, start: int, end: int, uffd: Userfaultfd | None) -> Vma:
    """Register part of an area with `uffd`, or with none, as `modify_flags` does (vma_modify_flags_uffd)."""
    profile = mm.entries.profile
    flags = vma.flags & ~_UFFD_FLAGS | (VmFlag.UFFD_WP if uffd else 0)
    pgoff = vma.offset(start) if profile.modify_uffd_by_part else vma.pgoff
    mark = profile.modify_uffd_keeps_mark
    area = merge(mm, before, Part(start, end, flags, vma, vma.file, pgoff, uffd), keeps_mark=mark)
    if area is None:
        was_protected = vma.flags & VmFlag.UFFD_WP
        area = _split_off(mm, vma, start, end, flags)
        if area.flags & VmFlag.SHARED and area.flags & VmFlag.UFFD_WP != was_protected:  # userfaultfd_set_vm_flags
            set_page_prot(mm, area)
    area.uffd = uffd
    return area


def reset_uffd(mm: Mm, vma: Vma) -> None:
    """An area that was moved or forked is not registered any more, without events (userfaultfd_reset_ctx)."""
    if vma.uffd is not None:
        vma.uffd = None
        clear_flags(vma, _UFFD_FLAGS)
        set_page_prot(mm, vma)


def _split_off(mm: Mm, vma: Vma, start: int, end: int, flags: int) -> Vma:
    """Make pages [start, end) of an area an area of their own, with `flags`."""
    if start != vma.start:
        split(mm, vma, start, new_below=True)
    if end != vma.end:
        split(mm, vma, end, new_below=False)
    vma.flags = flags
    return vma


def expand(vma: Vma, end: int) -> None:
    """Let an area end at `end`, up to which nothing is mapped, and merge with nothing (mm/mmap.c:do_brk_flags)."""
    vma.end = end


def grow_down(vma: Vma, start: int) -> None:
    """Let an area begin at `start`, from which on nothing is mapped (mm/mmap.c:expand_downwards)."""
    vma.pgoff -= vma.start - start
    vma.start = start


def begin_anew(mm: Mm, vma: Vma) -> None:
    """All that an area held is gone: it shares nothing, and its offsets are its addresses (MREMAP_DONTUNMAP)."""
    unlink_anon_vmas(vma)
    if vma.is_anonymous and not mm.entries.profile.modify_keeps_offsets:
        vma.pgoff = vma.start


def grow_up(mm: Mm, vma: Vma, end: int) -> Vma | None:
    """Let an area end at `end`, up to which nothing is mapped: the area, or None (mm/mremap.c: vma_merge_extend)."""
    if mm.entries.profile.modify_merge == MergeRule.CASES:
        expand(vma, end)
        return vma
    return merge(mm, vma, Part(vma.end, end, vma.flags, vma, vma.file, vma.offset(vma.end), vma.uffd))


def copy_vma(mm: Mm, vma: Vma, new: int, pages: int, pgoff: int, keep_source: bool) -> tuple[Vma, Vma]:
    """The area at the destination, merged with a neighbour where possible (mm/mmap.c:copy_vma): (source, new)."""
    may_self_merge = vma.is_anonymous and not vma.anon_vma
    if may_self_merge:
        pgoff = new
    before, _ = mm.areas.neighbours(new)
    source_start = vma.start
    merged = None
    adjacent = new == vma.end or vma.start == new + pages
    exclude = vma if may_self_merge and keep_source and adjacent else None
    if mm.entries.profile.modify_joins_source:
        exclude = None
    apart = vma.uffd is not None and mm.entries.profile.modify_moves_uffd_apart
    if not apart and (exclude is None or mm.entries.profile.modify_merge == MergeRule.RANGES):
        part = Part(new, new + pages, vma.flags, vma, vma.file, pgoff, vma.uffd, moved=True)
        merged = merge(mm, before, part, exclude=exclude, keeps_mark=True)
    if merged:
        _take_anon(merged, vma)
        if merged.start <= source_start < merged.end:
            vma = merged
        return vma, merged
    area = vma.copy()
    area.start, area.end, area.pgoff = new, new + pages, pgoff
    anon_vma_clone(area, vma)
    mm.areas.insert(area)
    return vma, area


def set_page_prot(mm: Mm, vma: Vma) -> None:
    """mm/mmap.c:vma_set_page_prot"""
    flags = vma.flags
    if wants_writenotify(mm, vma):
        flags &= ~VmFlag.SHARED
    vma.prot = mm.entries.vm_page_prot(flags)


def wants_writenotify(mm: Mm, vma: Vma) -> bool:
    """Must the first write of a page fault (mm/mmap.c:vma_wants_writenotify)?"""
    if vma.flags & (VmFlag.WRITE | VmFlag.SHARED) != VmFlag.WRITE | VmFlag.SHARED:
        return False
    if vma.file is not None and vma.file.counts_dirty:
        return True
    if mm.entries.VM_SOFTDIRTY and not vma.flags & VmFlag.SOFTDIRTY and not vma.huge_level:
        return True
    return bool(vma.flags & VmFlag.UFFD_WP)


# Merging.


class Part(NamedTuple):
    """What is to merge with its neighbours: free pages, or an area or a part of one (struct vma_merge_struct)."""

    start: int
    end: int
    flags: int
    """Those that the pages are to have."""
    vma: Vma | None
    """The area whose anon_vma they have; None: they have none."""
    file: File | None
    pgoff: int
    uffd: Userfaultfd | None
    moved: bool = False
    """Is it the copy of an area that mremap moves?"""


def _same_kind(mm: Mm, vma: Vma, part: Part) -> bool:
    """is_mergeable_vma: VM_SOFTDIRTY does not count, nor VM_MAYBE_GUARD."""
    return (
        not (vma.flags ^ part.flags) & ~mm.areas.unimportant
        and vma.file is part.file
        and vma.uffd is part.uffd
        and not vma.huge_level
    )


def _may_share(mm: Mm, part: Part, vma: Vma) -> bool:
    """is_mergeable_anon_vma: an anon_vma that was forked is not shared with more areas."""
    anon_vma = part.vma.anon_vma if part.vma else None
    if anon_vma and vma.anon_vma or not (anon_vma or vma.anon_vma):
        return anon_vma is vma.anon_vma
    if mm.entries.profile.modify_takes_anon and part.vma and anon_vma:
        apart = part.moved and part.file and mm.entries.profile.modify_moves_files_apart
        return len(part.vma.chain) == 1 and not apart
    return len(vma.chain) == 1


def _may_join(before: Vma, after: Vma) -> bool:
    """May both merge with what lies between them (can_vma_merge_right)?"""
    return not before.anon_vma or not after.anon_vma or before.anon_vma is after.anon_vma


def _fits_after(mm: Mm, vma: Vma, part: Part) -> bool:
    """can_vma_merge_after: may the part be added at the end of `vma`?"""
    pgoff = vma.pgoff + vma.end - vma.start
    return _same_kind(mm, vma, part) and _may_share(mm, part, vma) and pgoff == part.pgoff


def _fits_before(mm: Mm, vma: Vma, part: Part) -> bool:
    """can_vma_merge_before: may the part be added before `vma`?"""
    pgoff = part.pgoff + part.end - part.start
    return _same_kind(mm, vma, part) and _may_share(mm, part, vma) and vma.pgoff == pgoff


def _take_anon(target: Vma, source: Vma) -> None:
    """The growing area takes over the anon_vma of the shrinking one (dup_anon_vma)."""
    if source.anon_vma and not target.anon_vma:
        anon_vma_clone(target, source)


def expand_new(mm: Mm, start: int, end: int, flags: int, file: File | None, pgoff: int) -> Vma | None:
    """Make a neighbour cover the new mapping [start, end), if one can (mmap); that area, or None."""
    before, after = mm.areas.neighbours(start)
    part = Part(start, end, flags, None, file, pgoff, None)
    if mm.entries.profile.modify_merge == MergeRule.CASES:
        return merge(mm, before, part)
    chosen: Vma | None = None
    merge_start, merge_end, merge_pgoff = start, end, pgoff
    right = after if after and after.start == end and _fits_before(mm, after, part) else None
    if mm.entries.profile.modify_merge == MergeRule.CASES_EXPAND:
        if right:
            chosen, merge_end, merge_pgoff = right, right.end, right.pgoff - (end - start)
        seen = part._replace(vma=chosen, uffd=chosen.uffd) if chosen else part
        if before and before.end == start and _fits_after(mm, before, seen):
            chosen, merge_start, merge_pgoff = before, before.start, before.pgoff
    else:
        left = before if before and before.end == start and _fits_after(mm, before, part) else None
        if left and right and not _may_join(left, right):
            right = None
        if right:
            chosen, merge_end, merge_pgoff = right, right.end, right.pgoff - (end - start)
        if left:
            chosen, merge_start, merge_pgoff = left, left.start, left.pgoff
    if not chosen:
        return None
    if right and chosen is not right and merge_end == right.end:
        _take_anon(chosen, right)
        mm.areas.delete(right)
    if mm.entries.profile.modify_keeps_marks:
        flags |= (chosen.flags | (right.flags if right else 0)) & mm.areas.unimportant
    chosen.start, chosen.end, chosen.pgoff, chosen.flags = merge_start, merge_end, merge_pgoff, flags
    return chosen


def merge(
    mm: Mm, before: Vma | None, part: Part, *, exclude: Vma | None = None, keeps_mark: bool = False
) -> Vma | None:
    """Merge a part with its neighbours (mm/mmap.c:vma_merge).

    Parameters
    ----------
    before : Vma or None
        The area before the part, or the one that it lies in when it does not start there.
    exclude : Vma or None
        A neighbour that must not be merged with.
    keeps_mark : bool
        Whether VM_SOFTDIRTY, the one flag that may differ, is the neighbour's in the result. It is that of the part
        otherwise.

    Returns
    -------
    Vma or None
        The area that now covers the part, with its flags set; None when nothing merged.
    """
    joined = [(part.start, part.flags)]
    joined += [(other.start, other.flags) for other in mm.areas.in_range(part.start - 1, part.end + 1)]
    area = _merge(mm, before, part, exclude)
    if not area:
        return None
    if not keeps_mark:
        area.flags = part.flags
    if mm.entries.profile.modify_keeps_marks:
        for first, flags in joined:
            if area.start <= first < area.end:
                area.flags |= flags & mm.areas.unimportant
    return area


def _merge(mm: Mm, before: Vma | None, part: Part, exclude: Vma | None) -> Vma | None:
    """As `merge`; what grows keeps its own flags."""
    start, end = part.start, part.end
    mid = mm.areas.find(before.end if before else 0)
    after = mid
    if after and after.end == end:
        after = mm.areas.after(after)
    left = before is not exclude and bool(before and before.end == start and _fits_after(mm, before, part))
    right = after is not exclude and bool(after and after.start == end and _fits_before(mm, after, part))
    inside = before if before and before.end > start else mid if mid and mid.start <= start < mid.end else None
    if mm.entries.profile.modify_merge == MergeRule.RANGES and inside:
        return _merge_existing(mm, inside, before, after, start, end, left, right)
    if left and right and before and after and _may_join(before, after):
        covered = mid if mid is not after else None
        if covered:
            _take_anon(before, covered if covered.anon_vma else after)
            mm.areas.delete(covered)
        else:
            _take_anon(before, after)
        mm.areas.delete(after)
        before.end = after.end
        return before
    if left and before:
        if mid and end > mid.start:
            _give_way(mm, mid, end, before)
        before.end = end
        return before
    if right and after:
        if before and start < before.end:
            _take_anon(after, before)
            _shrink_end(mm, before, start)
        elif mid and mid is not after:
            _take_anon(after, mid)
            mm.areas.delete(mid)
        grow_down(after, start)
        return after
    return None


def _give_way(mm: Mm, vma: Vma, end: int, taker: Vma) -> None:
    """The pages of an area up to `end`, or all of them, go to the area before it."""
    _take_anon(taker, vma)
    if end >= vma.end:
        mm.areas.delete(vma)
        return
    thp.split_huge_pmd_at(mm, vma, end)
    vma.pgoff += end - vma.start
    vma.start = end


def _shrink_end(mm: Mm, vma: Vma, page: int) -> None:
    """Let an area end at `page`."""
    thp.split_huge_pmd_at(mm, vma, page)
    vma.end = page


def _merge_existing(
    mm: Mm, vma: Vma, before: Vma | None, after: Vma | None, start: int, end: int, left: bool, right: bool
) -> Vma | None:
    """mm/vma.c:vma_merge_existing_range of 6.12."""
    at_start, at_end = start == vma.start, end == vma.end
    left = left and at_start and before is not vma
    right = right and at_end
    if left and right and before and after and not _may_join(before, after):
        right = False
    if left and right and before and after:
        _take_anon(before, after if after.anon_vma else vma)
        mm.areas.delete(vma)
        mm.areas.delete(after)
        before.end = after.end
        return before
    if left and before:
        _give_way(mm, vma, end, before)
        before.end = end
        return before
    if right and after:
        _take_anon(after, vma)
        if at_start:
            mm.areas.delete(vma)
        else:
            _shrink_end(mm, vma, start)
        grow_down(after, start)
        return after
    return None


def change_each_area(mm: Mm, start: int, end: int, change: Callable[[Vma, Vma | None, int, int], Vma]) -> None:
    """Change the parts of areas in [start, end), from below (do_mprotect_pkey, apply_vma_lock_flags).

    Parameters
    ----------
    change : callable
        Takes the area, the one before its part, and the part's pages; returns the area that covers it afterwards.

    Raises
    ------
    Errno
        ENOMEM: a hole; what stands before it is changed.
    """
    vma = mm.areas.find(start)
    before = vma if vma and start > vma.start else mm.areas.neighbours(start)[0]
    at = start
    while at < end:
        if vma is None or vma.start > at:
            raise Errno("ENOMEM")
        stop = min(vma.end, end)
        before = change(vma, before, at, stop)
        at = max(stop, before.end)
        vma = mm.areas.find(before.end)
