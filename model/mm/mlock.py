"""mlock and munlock (mm/mlock.c)."""

from __future__ import annotations

from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import gup, modify
from ptewalk.model.state.machine import Mm


def do_mlock(mm: Mm, start: int, pages: int, *, lock: bool) -> None:
    """mlock and munlock (mm/mlock.c:do_mlock).

    Raises
    ------
    Errno
        ENOMEM: a hole in the range; what stands before it is locked already.
    """
    if pages <= 0:
        return
    end = start + pages
    vma = mm.areas.find(start)
    if vma is None or vma.start > start:
        raise Errno("ENOMEM")
    before = vma if start > vma.start else mm.areas.before(vma)
    at = start
    while True:
        stop = min(vma.end, end)
        flags = vma.flags & ~VmFlag.LOCKED | (VmFlag.LOCKED if lock else 0)
        if flags != vma.flags and not vma.huge_level:
            mm.kernel.lru.drain()
        before = vma if vma.huge_level else modify.modify_flags(mm, vma, before, at, stop, flags)
        at = max(stop, before.end)
        if at >= end:
            break
        following = mm.areas.find(before.end)
        if following is None or following.start != at:
            raise Errno("ENOMEM")
        vma = following
    if lock:
        try:
            gup.mm_populate(mm, start, end, ignore_errors=False)
        except Errno as error:
            raise Errno({"EFAULT": "ENOMEM", "ENOMEM": "EAGAIN"}.get(error.name, error.name)) from None
