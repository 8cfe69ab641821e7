"""The heap (mm/mmap.c:brk). Places are page numbers."""

from __future__ import annotations

from ptewalk.model.errors import Errno
from ptewalk.model.linux import STACK_GUARD_GAP, VmFlag
from ptewalk.model.mm import mmap, modify
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma

_FLAGS = VmFlag.READ | VmFlag.WRITE | VmFlag.MAYREAD | VmFlag.MAYWRITE | VmFlag.MAYEXEC | VmFlag.ACCOUNT


def brk(mm: Mm, end: int) -> int:
    """Let the heap end before the page `end`, if it can; the page before which it ends then (the system call brk)."""
    if end < mm.start_brk:
        return mm.brk
    if end < mm.brk:
        mmap.do_munmap(mm, end, mm.brk - end)
    elif end > mm.brk:
        try:
            _grow(mm, mm.brk, end)
        except Errno:
            return mm.brk
    mm.brk = end
    return end


def _grow(mm: Mm, start: int, end: int) -> None:
    """mm/mmap.c:do_brk_flags: the heap's own last area grows, else there is a new one; bss never does (6.1)."""
    after = mm.areas.find(start)
    if after is not None:
        gap = STACK_GUARD_GAP if after.flags & VmFlag.GROWSDOWN else 0
        if after.start < end + gap:
            raise Errno("ENOMEM")
    flags = _FLAGS
    before = mm.areas.before(after) if after is not None else next(reversed(mm.areas.list), None)
    soft_dirty = mm.entries.VM_SOFTDIRTY
    if (
        before is not None
        and before.end == start
        and before.start >= mm.start_brk
        and before.is_anonymous
        and not (before.flags ^ flags) & ~soft_dirty
        and before.uffd is None
    ):
        modify.expand(before, end)
        modify.set_flags(before, soft_dirty)
        vma = before
    else:
        vma = Vma(start, end, flags | soft_dirty, start, None)
        mm.areas.insert(vma)
    modify.set_page_prot(mm, vma)
    mm.touch(start, end)
