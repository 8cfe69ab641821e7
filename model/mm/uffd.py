"""userfaultfd write-protection, with SIGBUS or resolved at once (fs/userfaultfd.c, mm/userfaultfd.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import mprotect

if TYPE_CHECKING:
    from ptewalk.model.mm.mmap import Mm
    from ptewalk.model.state.vma import Vma

_UFFD_FLAGS = VmFlag.UFFD_MISSING | VmFlag.UFFD_WP


class Userfaultfd:
    """One userfaultfd of a process.

    Parameters
    ----------
    asynchronous : bool
        WP_ASYNC, WP_UNPOPULATED and WP_HUGETLBFS_SHMEM: a write to a protected page is let through and the protection
        dropped, and empty entries are protected by markers. Otherwise the write ends in SIGBUS.
    """

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous


def resolves_itself(vma: Vma) -> bool:
    """Does a write to a protected page of this area go through (userfaultfd_wp_async)?"""
    return vma.uffd is not None and vma.uffd.asynchronous


def uses_markers(vma: Vma) -> bool:
    """Are empty entries of the area protected by markers (userfaultfd_wp_use_markers)?"""
    return not vma.is_anonymous or resolves_itself(vma)


def _check_range(start: int, pages: int) -> None:
    if pages <= 0 or start < 0:
        raise Errno("EINVAL")


def _set_flags(mm: Mm, vma: Vma, flags: int) -> None:
    """userfaultfd_set_vm_flags"""
    changed = (vma.flags ^ flags) & VmFlag.UFFD_WP
    vma.flags = flags
    if vma.flags & VmFlag.SHARED and changed:
        mm.set_page_prot(vma)


def _each_area(mm: Mm, start: int, end: int) -> list[Vma]:
    areas = mm.areas.in_range(start, end)
    if not areas:
        raise Errno("EINVAL" if mm.areas.find(start) or mm.kernel.maps_above_window else "ENOMEM")
    for vma in areas:
        size = 1 << 9 * (vma.huge_level - 1) if vma.huge_level else 1
        if (vma is areas[0] and start % size) or (end <= vma.end and end % size):
            raise Errno("EINVAL")
    return areas


def register(mm: Mm, fd: Userfaultfd, start: int, pages: int) -> None:
    """UFFDIO_REGISTER for write-protection.

    Raises
    ------
    Errno
        EINVAL: nothing there, or a file that cannot be tracked. EPERM: never writable. EBUSY: another userfaultfd's.
    """
    _check_range(start, pages)
    end = start + pages
    areas = _each_area(mm, start, end)
    for vma in areas:
        if vma.file is not None and vma.file.counts_dirty and not fd.asynchronous:
            raise Errno("EINVAL")
        if not vma.flags & VmFlag.MAYWRITE:
            raise Errno("EPERM")
        if vma.uffd is not None and vma.uffd is not fd:
            raise Errno("EBUSY")
    _change(mm, fd, start, end)


def unregister(mm: Mm, start: int, pages: int) -> None:
    """UFFDIO_UNREGISTER: protection in the range is dropped first."""
    _check_range(start, pages)
    _each_area(mm, start, start + pages)
    _change(mm, None, start, start + pages)


def release(mm: Mm, fd: Userfaultfd) -> None:
    """The userfaultfd is closed: everything registered with it is let go (userfaultfd_release)."""
    for vma in list(mm.areas):
        if vma.uffd is fd and vma in mm.areas.list:
            _change(mm, None, vma.start, vma.end)


def _change(mm: Mm, fd: Userfaultfd | None, start: int, end: int) -> None:
    """Give [start, end) the context `fd`, merging and splitting as the kernel does."""
    vma = mm.areas.find(start)
    before = vma if vma and vma.start < start else mm.areas.neighbours(start)[0]
    at = start
    while vma is not None and vma.start < end:
        at = max(at, vma.start)
        stop = min(vma.end, end)
        already = vma.uffd is None if fd is None else vma.uffd is fd and vma.flags & VmFlag.UFFD_WP
        if not already:
            if fd is None and vma.flags & VmFlag.UFFD_WP:
                protect_range(mm, vma, at, stop, protect=False)
            flags = vma.flags & ~_UFFD_FLAGS | (VmFlag.UFFD_WP if fd else 0)
            pgoff = vma.offset(at) if mm.entries.profile.saved_dirty else vma.pgoff
            merged = mm.areas.merge(before, at, stop, flags, vma.anon_vma, vma.file, pgoff, fd)
            if merged:
                vma = merged
            else:
                if vma.start < at:
                    mm.split(vma, at, new_below=True)
                if vma.end > stop:
                    mm.split(vma, stop, new_below=False)
            _set_flags(mm, vma, flags)
            vma.uffd = fd
        before = vma
        at = vma.end
        vma = mm.areas.after(vma)


def protect_range(mm: Mm, vma: Vma, start: int, end: int, *, protect: bool) -> None:
    """mm/userfaultfd.c:uffd_wp_range"""
    if mm.entries.profile.saved_dirty:
        restore = not protect and mprotect.wants_manual_upgrade(mm, vma)
        mprotect.change_protection(mm, vma, start, end, vma.prot, restore_write=restore, wp=protect)
        return
    flags = vma.flags & ~VmFlag.WRITE if protect else vma.flags
    mprotect.change_protection(mm, vma, start, end, mm.entries.vm_page_prot(flags), wp=protect)


def writeprotect(mm: Mm, start: int, pages: int, *, protect: bool) -> None:
    """UFFDIO_WRITEPROTECT.

    Raises
    ------
    Errno
        ENOENT: not all of it registered (6.1: not one area). EINVAL: not aligned to hugetlb pages.
    """
    _check_range(start, pages)
    end = start + pages
    areas = mm.areas.in_range(start, end)
    one_area = not mm.entries.profile.saved_dirty
    if not areas or (one_area and (areas[0].start > start or areas[0].end < end)):
        raise Errno("ENOENT")
    for vma in areas:
        if not vma.flags & VmFlag.UFFD_WP:
            raise Errno("ENOENT")
        size = 1 << 9 * (vma.huge_level - 1) if vma.huge_level else 1
        if start % size or pages % size:
            raise Errno("EINVAL")
        protect_range(mm, vma, max(start, vma.start), min(end, vma.end), protect=protect)
