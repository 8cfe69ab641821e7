"""get_user_pages: software's own accesses to user memory (mm/gup.c), and what is built on it."""

from __future__ import annotations

from ptewalk.model.errors import Errno, FaultsForEver
from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import faults, hugetlb, pkeys, release, rmap, stack, thp
from ptewalk.model.pte import PROTNONE, UFFD_WP, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma

_ACCESS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


def check_vma_flags(mm: Mm, vma: Vma, *, write: bool, force: bool, remote: bool = False) -> bool:
    """mm/gup.c:check_vma_flags; False: EFAULT. Protection keys do not bind a `remote` access (/proc/PID/mem)."""
    flags = vma.flags
    if write:
        if not flags & VmFlag.WRITE:
            if not force:
                return False
            if vma.huge_level and not mm.entries.profile.gup_forces_hugetlb:
                return False
            if not vma.is_cow:
                return mm.entries.profile.gup_forces_shared and bool(flags & VmFlag.MAYWRITE)
    elif not flags & VmFlag.READ and not force:
        return False
    return remote or pkeys.permits(mm, vma, write)


def _follow(mm: Mm, vma: Vma, at: int, *, write: bool, force: bool, touch: bool) -> int:
    """The frame that `at` maps with the wanted right; 0 when a fault is needed (follow_page_mask)."""
    entries, frames = mm.entries, mm.frames
    if vma.huge_level:
        entry = mm.tables.get_huge(at & ~(vma.leaf_pages - 1), vma.huge_level) if write and force else 0
        may = entries.pte_present(entry) and _may_write(mm, vma, entry, entries.pte_pfn(entry), force)
        return hugetlb.follow(mm, vma, at, write, touch, forced=bool(may))
    pmd = mm.tables.get_huge(at)
    if pmd:
        if not pmd & P and not force:
            return 0
        frame = thp.pmd_frame(mm, pmd)
        if write and not _may_write(mm, vma, pmd, frame, force):
            return 0
        if touch:
            thp.touch_pmd(mm, at, pmd, write or entries.profile.gup_marks_huge)
        return frame + (at & HUGE_PAGES - 1)
    pte = mm.tables.get(at)
    if not pte & (P | PROTNONE) or (not pte & P and not force):
        return 0
    frame = entries.pte_pfn(pte)
    if write and not _may_write(mm, vma, pte, frame, force):
        return 0
    if touch and frame != frames.zero:
        if write and not entries.pte_dirty(pte):
            frames.mark_dirty(frame)
        if mm.kernel.lru.mark_accessed(frame) and not rmap.is_locked(mm.kernel, frame):
            mm.kernel.lru.activate(frame)
    return frame


def _may_write(mm: Mm, vma: Vma, pte: int, frame: int, force: bool) -> bool:
    """mm/gup.c:can_follow_write_pte"""
    entries = mm.entries
    if entries.pte_write(pte):
        return True
    if not force or entries.profile.gup_force_breaks_cow:
        return False
    if vma.flags & (VmFlag.SHARED | VmFlag.MAYSHARE | VmFlag.WRITE):
        return False
    if not mm.frames.flags[frame] & page.EXCLUSIVE:
        return False
    if entries.VM_SOFTDIRTY and not vma.flags & VmFlag.SOFTDIRTY and not entries.pte_soft_dirty(pte):
        return False
    return not (pte & UFFD_WP and vma.flags & VmFlag.UFFD_WP)


def get_page(mm: Mm, vma: Vma, at: int, *, write: bool, force: bool = False, touch: bool = True) -> int:
    """Fault `at` in until it can be used; its frame.

    Raises
    ------
    Errno
        EFAULT: the fault ends in a signal.
    """
    frame = _follow(mm, vma, at, write=write, force=force, touch=touch)
    if frame:
        return frame
    wants = write
    for _ in range(4):
        was_mapped = bool(mm.entries.pte_present(mm.tables.get(at) | mm.tables.get_huge(at)))
        if faults.handle_mm_fault(mm, vma, at, wants) is not None:
            raise Errno("EFAULT")
        if mm.entries.profile.gup_force_breaks_cow and was_mapped and not vma.flags & VmFlag.WRITE:
            wants = False
        frame = _follow(mm, vma, at, write=wants, force=force, touch=touch)
        if frame:
            return frame
    raise FaultsForEver(f"page {at - mm.kernel.base} cannot be had although its faults are handled")


def access_remote(mm: Mm, at: int, *, write: bool) -> int:
    """The frame through which /proc/PID/mem reads or writes `at` (mm/memory.c:__access_remote_vm, FOLL_FORCE).

    Raises
    ------
    Errno
        EIO: not accessible.
    """
    vma = stack.find_or_grow(mm, at)
    if vma is None or not check_vma_flags(mm, vma, write=write, force=True, remote=True):
        raise Errno("EIO")
    try:
        frame = get_page(mm, vma, at, write=write, force=True)
    except Errno:
        raise Errno("EIO") from None
    if write:
        if not mm.frames.flags[frame] & (page.COMPOUND | page.HUGETLB) or mm.frames.flags[frame] & page.FILE:
            mm.frames.mark_dirty(int(mm.frames.head[frame]))
        mm.gup_store(at)
    return frame


def populate_vma_range(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Fault a range in as mlock does (mm/gup.c:populate_vma_page_range): writable private memory by write faults.

    Raises
    ------
    Errno
        The first page that cannot be had.
    """
    write = vma.flags & (VmFlag.WRITE | VmFlag.SHARED) == VmFlag.WRITE
    force = bool(vma.flags & _ACCESS)
    guarded = stack.shown_start(mm, vma) != vma.start
    at = start
    try:
        while at < end:
            if not check_vma_flags(mm, vma, write=write, force=force):
                raise Errno("EFAULT")
            if not (guarded and at == vma.start and not mm.entries.pte_present(mm.tables.get(at))):
                get_page(mm, vma, at, write=write, force=force)
            at = after_leaf(mm, vma, at)
    finally:
        mm.kernel.lru.drain()


def after_leaf(mm: Mm, vma: Vma, at: int) -> int:
    """The page behind the leaf that maps `at`: get_user_pages takes a huge page in one step."""
    if vma.huge_level:
        return (at // vma.leaf_pages + 1) * vma.leaf_pages
    return (at | HUGE_PAGES - 1) + 1 if mm.tables.get_huge(at) else at + 1


def mm_populate(mm: Mm, start: int, end: int, *, ignore_errors: bool = True) -> None:
    """mm/gup.c:__mm_populate"""
    for vma in mm.areas.in_range(start, end):
        try:
            populate_vma_range(mm, vma, max(start, vma.start), min(end, vma.end))
        except Errno:
            if not ignore_errors:
                raise


def pin(mm: Mm, start: int, end: int) -> list[int]:
    """Pin pages for a device that writes (FOLL_LONGTERM and FOLL_WRITE: an io_uring buffer); their frames.

    Raises
    ------
    Errno
        EFAULT, and EINVAL where the profile wants one file; nothing stays pinned then.
    """
    pinned: list[int] = []
    files = set()
    frames = mm.frames
    touch = False
    try:
        for at in range(start, end):
            vma = mm.areas.lookup(at)
            if vma is None or not check_vma_flags(mm, vma, write=True, force=False):
                raise Errno("EFAULT")
            mm.has_pinned = True
            frame = _follow(mm, vma, at, write=True, force=False, touch=touch)
            if not frame:
                touch = mm.entries.profile.gup_pin_touches
                frame = get_page(mm, vma, at, write=True, touch=touch)
            frames.pin(frame)
            pinned.append(frame)
            files.add(vma.file)
        if mm.entries.profile.gup_pins_one_file and len(files) > 1:
            raise Errno("EINVAL")
    except Errno:
        unpin(mm, pinned)
        raise
    return pinned


def unpin(mm: Mm, pinned: list[int]) -> None:
    """Undo `pin`."""
    frames = mm.frames
    for frame in pinned:
        if frames.unpin(frame):
            if frames.flags[frame] & page.HUGETLB:
                hugetlb.put(mm.kernel, int(frames.head[frame]))
            else:
                release.put(mm.kernel, frame)
