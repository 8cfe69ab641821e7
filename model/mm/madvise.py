"""madvise (mm/madvise.c), and mlock and munlock (mm/mlock.c), which change flags of areas in the same way."""

from __future__ import annotations

from collections.abc import Callable

from ptewalk.model.errors import Errno
from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import (
    collapse,
    filemap,
    guard,
    gup,
    hugetlb,
    ksm,
    migrate,
    mmap,
    modify,
    reclaim,
    release,
    rmap,
    swapin,
    thp,
)
from ptewalk.model.profile import Profile
from ptewalk.model.state import frames as page
from ptewalk.model.state.lru import Batch
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma

_FLAG_ADVICE: dict[str, tuple[int, int]] = {
    "NORMAL": (0, VmFlag.RAND_READ | VmFlag.SEQ_READ),
    "SEQUENTIAL": (VmFlag.SEQ_READ, VmFlag.RAND_READ),
    "RANDOM": (VmFlag.RAND_READ, VmFlag.SEQ_READ),
    "DONTFORK": (VmFlag.DONTCOPY, 0),
    "DOFORK": (0, VmFlag.DONTCOPY),
    "WIPEONFORK": (VmFlag.WIPEONFORK, 0),
    "KEEPONFORK": (0, VmFlag.WIPEONFORK),
    "DONTDUMP": (VmFlag.DONTDUMP, 0),
    "DODUMP": (0, VmFlag.DONTDUMP),
    "HUGEPAGE": (VmFlag.HUGEPAGE, VmFlag.NOHUGEPAGE),
    "NOHUGEPAGE": (VmFlag.NOHUGEPAGE, VmFlag.HUGEPAGE),
    "MERGEABLE": (VmFlag.MERGEABLE, 0),
    "UNMERGEABLE": (0, VmFlag.MERGEABLE),
}
"""Advice to the flags that it sets and clears."""
_NO_THP = VmFlag.HUGETLB | VmFlag.SHARED | VmFlag.MAYSHARE


def knows_advice(profile: Profile, advice: str) -> bool:
    """Does the profile's kernel take this advice (mm/madvise.c:madvise_behavior_valid)?"""
    return advice in profile.madvise_advices


def do_madvise(mm: Mm, start: int, pages: int, advice: str) -> None:
    """The system call.

    Raises
    ------
    Errno
        EINVAL: unknown advice, or one that does not fit the area. ENOMEM: a hole in the range; what is mapped has been
        advised.
    """
    if not knows_advice(mm.entries.profile, advice) or pages < 0:
        raise Errno("EINVAL")
    if not pages:
        return
    end = start + pages
    if advice == "SOFT_OFFLINE":
        migrate.soft_offline(mm, start, end)
        return
    if advice in ("POPULATE_READ", "POPULATE_WRITE") and mm.entries.profile.madvise_populates_before_walking:
        _populate(mm, start, end, write=advice == "POPULATE_WRITE")
        return
    _walk_areas(mm, start, end, lambda vma, before, first, last: _advise(mm, vma, before, first, last, advice))


def _walk_areas(mm: Mm, start: int, end: int, visit: Callable[[Vma, Vma | None, int, int], Vma | None]) -> None:
    """mm/madvise.c:madvise_walk_vmas"""
    hole = False
    vma = mm.areas.find(start)
    before = vma if vma and start > vma.start else mm.areas.neighbours(start)[0]
    at = start
    while True:
        if vma is None:
            raise Errno("ENOMEM")
        if at < vma.start:
            hole = True
            at = vma.start
            if at >= end:
                break
        stop = min(vma.end, end)
        before = visit(vma, before, at, stop)
        at = stop
        if before and at < before.end:
            at = before.end
        if at >= end:
            break
        vma = mm.areas.find(before.end if before else at)
    if hole:
        raise Errno("ENOMEM")


def _advise(mm: Mm, vma: Vma, before: Vma | None, start: int, end: int, advice: str) -> Vma | None:
    """mm/madvise.c:madvise_vma_behavior; the area before the next one."""
    if advice in _FLAG_ADVICE:
        return _change_flags(mm, vma, before, start, end, advice)
    if advice in ("DONTNEED", "DONTNEED_LOCKED", "FREE"):
        _dontneed_free(mm, vma, start, end, advice)
    elif advice in ("COLD", "PAGEOUT"):
        if vma.flags & VmFlag.LOCKED or vma.huge_level:
            raise Errno("EINVAL")
        if advice == "PAGEOUT" and mm.entries.profile.madvise_pageout_is_push:
            reclaim.page_out_3_11(mm, vma, start, end)
        else:
            reclaim.cold_range(mm, vma, start, end, out=advice == "PAGEOUT")
    elif advice in ("POPULATE_READ", "POPULATE_WRITE"):
        _populate(mm, start, end, write=advice == "POPULATE_WRITE")
    elif advice == "WILLNEED":
        swapin.willneed(mm, vma, start, end)
    elif advice == "REMOVE":
        _remove(mm, vma, start, end)
    elif advice == "GUARD_INSTALL":
        guard.install(mm, vma, start, end)
    elif advice == "GUARD_REMOVE":
        guard.remove(mm, vma, start, end)
    elif advice == "COLLAPSE":
        collapse.madvise_collapse(mm, vma, start, end)
    return vma


def _change_flags(mm: Mm, vma: Vma, before: Vma | None, start: int, end: int, advice: str) -> Vma:
    """Advice that is a flag of the area; a merge gives the result this area's flags (madvise_update_vma)."""
    on, off = _FLAG_ADVICE[advice]
    if advice == "WIPEONFORK" and (vma.file or vma.flags & VmFlag.SHARED):
        raise Errno("EINVAL")
    refuses = advice in ("HUGEPAGE", "NOHUGEPAGE") and mm.entries.profile.madvise_refuses_repeated_huge
    if refuses and vma.flags & (on | _NO_THP):
        raise Errno("EINVAL")
    if advice == "DOFORK" and vma.flags & VmFlag.DONTEXPAND and mm.entries.profile.madvise_keeps_special_unforked:
        raise Errno("EINVAL")
    if advice == "DODUMP" and not vma.huge_level and vma.flags & VmFlag.DONTEXPAND:
        raise Errno("EINVAL")
    if advice == "MERGEABLE" and vma.flags & (VmFlag.SHARED | VmFlag.MAYSHARE | VmFlag.HUGETLB):
        on = 0
    if advice == "UNMERGEABLE" and vma.flags & VmFlag.MERGEABLE and vma.anon_vma:
        ksm.unmerge_range(mm, vma, start, end)
    return modify.modify_flags(mm, vma, before, start, end, vma.flags & ~off | on)


def _dontneed_free(mm: Mm, vma: Vma, start: int, end: int, advice: str) -> None:
    """mm/madvise.c:madvise_dontneed_free"""
    if vma.huge_level:
        size = vma.leaf_pages
        if advice == "FREE" or start % size or not mm.entries.profile.madvise_drops_hugetlb:
            raise Errno("EINVAL")
        end -= end % size
    elif vma.flags & VmFlag.LOCKED and advice != "DONTNEED_LOCKED":
        raise Errno("EINVAL")
    if start >= end:
        return
    if advice == "FREE":
        if not vma.is_anonymous:
            raise Errno("EINVAL")
        _free(mm, vma, start, end)
    else:
        mmap.zap_range(mm, vma, start, end, reclaim_tables=mm.entries.profile.madvise_reclaims_tables)
        mm.replace(start, end)


def _free(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """MADV_FREE: A and D off, soft-dirty stays (mm/madvise.c:madvise_free_pte_range)."""
    entries, frames = mm.entries, mm.frames
    mm.kernel.lru.drain()
    for piece in mm.tables.pieces(vma, start, end):
        if piece.leaf:
            head, pmd = piece.head, piece.leaf
            frame = thp.pmd_frame(mm, pmd)
            if thp.is_huge_zero(mm, pmd) or thp.is_shared(mm, frame, whole=True):
                continue
            if piece.whole:
                mm.tables.set_huge(head, entries.pte_mkclean(entries.pte_mkold(pmd)))
                frames.clear_dirty(slice(frame, frame + HUGE_PAGES))
                frames.mark_lazyfree(slice(frame, frame + HUGE_PAGES))
                continue
            if not thp.split_huge_page(mm, frame):
                continue
        for at, pages, frame in thp.advised_pages(mm, piece.first, piece.last, by_head=True):
            if not frame:
                pte = mm.tables.get(at)
                if pte and not entries.pte_present(pte) and not entries.is_marker(pte):
                    release.free_entry(mm.kernel, pte)
                    mm.tables.set(at, 0)
                continue
            run = slice(frame, frame + pages)
            if frame in frames.cached_slot or (frames.flags[run] & page.DIRTY).any():
                if thp.folio_mapcount(frames, frame) != pages:
                    continue
                if frame in frames.cached_slot and not release.free_cache(mm.kernel, frame):
                    continue
                frames.clear_dirty(run)
            for place in range(at, at + pages):
                mm.tables.set(place, entries.pte_mkclean(entries.pte_mkold(mm.tables.get(place))))
            if frames.flags[frame] & (page.ANON | page.LAZYFREE) == page.ANON and not rmap.is_locked(mm.kernel, frame):
                frames.mark_lazyfree(run)
                mm.kernel.lru.add(Batch.LAZYFREE, frame)


def _populate(mm: Mm, start: int, end: int, *, write: bool) -> None:
    """mm/madvise.c:madvise_populate: ENOMEM at a hole, EINVAL without the right, EFAULT on SIGBUS."""
    at = start
    while at < end:
        vma = mm.areas.lookup(at)
        if vma is None:
            raise Errno("ENOMEM")
        if not gup.check_vma_flags(mm, vma, write=write, force=False):
            raise Errno("EINVAL")
        stop = min(vma.end, end)
        try:
            while at < stop:
                gup.get_page(mm, vma, at, write=write)
                at = gup.after_leaf(mm, vma, at)
        finally:
            mm.kernel.lru.drain()


def _remove(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """mm/madvise.c:madvise_remove: punch a hole in the file."""
    if vma.flags & VmFlag.LOCKED or vma.file is None or vma.remapped is not None:
        raise Errno("EINVAL")
    needed = VmFlag.SHARED | (VmFlag.WRITE if mm.entries.profile.madvise_remove_needs_write else VmFlag.MAYWRITE)
    if vma.flags & needed != needed:
        raise Errno("EACCES")
    if vma.file.counts_dirty:
        raise Errno("EOPNOTSUPP")
    if vma.huge_level:
        if not mm.entries.profile.madvise_punches_hugetlb:
            raise Errno("EOPNOTSUPP")
        hugetlb.punch_hole(mm.kernel, vma.file, vma.leaf_pages, vma.offset(start), vma.offset(end))
        return
    filemap.truncate_range(mm.kernel, vma.file, vma.offset(start), vma.offset(end), even_cows=False)
