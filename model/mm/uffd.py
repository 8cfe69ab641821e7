"""userfaultfd write-protection, with SIGBUS or resolved at once (fs/userfaultfd.c, mm/userfaultfd.c)."""

from __future__ import annotations

from ptewalk.model.errors import Errno
from ptewalk.model.linux import STACK_PAGE, VmFlag
from ptewalk.model.mm import modify, mprotect
from ptewalk.model.state.machine import Mm, Process
from ptewalk.model.state.vma import Userfaultfd, Vma


def open_new(process: Process, *, asynchronous: bool) -> None:
    """Open a process's userfaultfd; the one that was open is closed.

    Raises
    ------
    Errno
        ENOSYS, EPERM; EINVAL: the kernel does not know WP_ASYNC.
    """
    profile = process.mm.entries.profile
    if "uffd_reg" not in profile.verbs:
        raise Errno("ENOSYS")
    if process.uffd is not None:
        release(process.mm, process.uffd)
        process.uffd = None
    if process.user:  # vm.unprivileged_userfaultfd is 0
        raise Errno("EPERM")
    refused = asynchronous and "uffd_async_open" not in profile.verbs
    process.uffd = Userfaultfd(asynchronous=asynchronous, refused=refused)
    opened(process)


def opened(process: Process) -> Userfaultfd:
    """The process's userfaultfd.

    Raises
    ------
    Errno
        EBADF: it has none. EINVAL: it stayed open when its features were refused (userfaultfd_is_initialized).
    """
    if process.uffd is None:
        raise Errno("EBADF")
    if process.uffd.refused:
        raise Errno("EINVAL")
    return process.uffd


def _check_range(start: int, pages: int) -> None:
    if pages <= 0 or start < 0:
        raise Errno("EINVAL")


def _each_area(mm: Mm, start: int, end: int) -> list[Vma]:
    areas = mm.areas.in_range(start, end)
    if not areas:
        above = mm.areas.find(start) or (mm.kernel.maps_above_window and start <= STACK_PAGE)
        raise Errno("EINVAL" if above or mm.entries.profile.uffd_empty_is_einval else "ENOMEM")
    for vma in areas:
        size = vma.leaf_pages
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
        if vma.uffd is not fd:
            if fd is None and vma.flags & VmFlag.UFFD_WP:
                protect_range(mm, vma, at, stop, protect=False)
            vma = modify.modify_uffd(mm, vma, before, at, stop, fd)
        before = vma
        at = vma.end
        vma = mm.areas.after(vma)


def protect_range(mm: Mm, vma: Vma, start: int, end: int, *, protect: bool) -> None:
    """mm/userfaultfd.c:uffd_wp_range"""
    if mm.entries.profile.uffd_restores_write:
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
    one_area = not mm.entries.profile.uffd_wp_spans_areas
    if not areas or (one_area and (areas[0].start > start or areas[0].end < end)):
        raise Errno("ENOENT")
    for vma in areas:
        if not vma.flags & VmFlag.UFFD_WP:
            raise Errno("ENOENT")
        size = vma.leaf_pages
        if start % size or pages % size:
            raise Errno("EINVAL")
        protect_range(mm, vma, max(start, vma.start), min(end, vma.end), protect=protect)
