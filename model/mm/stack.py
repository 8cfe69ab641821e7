"""Areas that grow down (mm/mmap.c:expand_downwards), and 3.11's guard page at their low end."""

from __future__ import annotations

from ptewalk.model.linux import STACK_GUARD_GAP, STACK_LIMIT, VmFlag
from ptewalk.model.mm import modify, rmap
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma

_ACCESS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


def find_for_fault(mm: Mm, at: int, *, user: bool) -> Vma | None:
    """The area that a fault at `at` is in.

    3.11 grows no area for a user access far below the stack pointer, as every address of the window is.
    """
    grows = not user or not mm.entries.profile.stack_guard_page
    return find_or_grow(mm, at) if grows else mm.areas.lookup(at)


def find_or_grow(mm: Mm, at: int) -> Vma | None:
    """The area that holds `at`, a stack grown down to it if need be (find_vma, expand_stack)."""
    vma = mm.areas.find(at)
    if vma is None or vma.start <= at:
        return vma
    if not vma.flags & VmFlag.GROWSDOWN:
        return None
    if mm.entries.profile.stack_guard_page:
        before = mm.areas.before(vma)
        if before and before.end == at and not before.flags & VmFlag.GROWSDOWN:
            return None
    return vma if expand_downwards(mm, vma, at) else None


def expand_downwards(mm: Mm, vma: Vma, at: int) -> bool:
    """mm/mmap.c:expand_downwards; VM_SOFTDIRTY is not set."""
    before = mm.areas.before(vma)
    if (
        not mm.entries.profile.stack_guard_page
        and before
        and not before.flags & VmFlag.GROWSDOWN
        and before.flags & _ACCESS
        and at - before.end < STACK_GUARD_GAP
    ):
        return False
    rmap.anon_vma_prepare(mm, vma)
    grown = vma.start - at
    if grown > vma.pgoff or vma.end - at > STACK_LIMIT:
        return False
    mm.touch(at, vma.start)
    modify.grow_down(vma, at)
    return True


def check_guard(mm: Mm, vma: Vma, at: int) -> bool:
    """3.11 keeps the lowest page of a growing area free: a touch of it grows the area (check_stack_guard_page).

    False: there is no room.
    """
    if not mm.entries.profile.stack_guard_page or not vma.flags & VmFlag.GROWSDOWN or at != vma.start:
        return True
    before = mm.areas.before(vma)
    if before and before.end == at:
        return bool(before.flags & VmFlag.GROWSDOWN)
    expand_downwards(mm, vma, at - 1)
    return True


def shown_start(mm: Mm, vma: Vma) -> int:
    """First page that maps and smaps show: 3.11 hides the guard page of an area that grows down."""
    if not mm.entries.profile.stack_guard_page or not vma.flags & VmFlag.GROWSDOWN:
        return vma.start
    before = mm.areas.before(vma)
    continues = before is not None and before.end == vma.start and before.flags & VmFlag.GROWSDOWN
    return vma.start if continues else vma.start + 1
