"""mlock and munlock (mm/mlock.c)."""

from __future__ import annotations

from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import gup, modify
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma


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

    def change(vma: Vma, before: Vma | None, first: int, last: int) -> Vma:
        if vma.huge_level:
            return vma
        flags = vma.flags & ~VmFlag.LOCKED | (VmFlag.LOCKED if lock else 0)
        if flags != vma.flags:
            mm.kernel.lru.drain()
        return modify.modify_flags(mm, vma, before, first, last, flags)

    modify.change_each_area(mm, start, end, change)
    if lock:
        try:
            gup.mm_populate(mm, start, end, ignore_errors=False)
        except Errno as error:
            raise Errno({"EFAULT": "ENOMEM", "ENOMEM": "EAGAIN"}.get(error.name, error.name)) from None
