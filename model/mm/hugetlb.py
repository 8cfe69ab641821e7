"""hugetlb areas: leaves of 2 MiB or 1 GiB from a reserved pool (mm/hugetlb.c)."""

from __future__ import annotations

from ptewalk.model.errors import Errno, Signal
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import rmap
from ptewalk.model.pte import PSE, UFFD_WP, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.pools import Reservation
from ptewalk.model.state.vma import Vma


def reserve(kernel: MachineState, vma: Vma) -> None:
    """Reserve pool pages for a new mapping (hugetlb_reserve_pages); ENOMEM when there are too few."""
    pool = kernel.pools[vma.huge_level]
    offsets = range(vma.pgoff, vma.pgoff + vma.end - vma.start, vma.leaf_pages)
    if pool.free() < len(offsets):
        raise Errno("ENOMEM")
    pool.reserved += len(offsets)
    vma.reservation = Reservation(set(offsets))


def close(kernel: MachineState, vma: Vma) -> None:
    """The area goes away, and with it what it reserved and did not use (hugetlb_vm_op_close).

    A shared file goes with its last area.
    """
    pool = kernel.pools[vma.huge_level]
    reservation = vma.reservation
    file = vma.file
    if vma.flags & VmFlag.MAYSHARE:
        if any(other.file is file for process in kernel.processes.values() for other in process.mm.areas):
            return
        for frame in file.cache.values() if file else ():
            kernel.frames.flags[frame : frame + vma.leaf_pages] = 0
            kernel.frames.freed.extend(range(frame, frame + vma.leaf_pages))
            pool.used -= 1
        if reservation:
            pool.reserved -= len(reservation.unused)
        return
    if reservation:
        last = vma.pgoff + vma.end - vma.start
        gone = {offset for offset in reservation.unused if vma.pgoff <= offset < last}
        reservation.unused -= gone
        pool.reserved -= len(gone)


def _mkwrite(mm: Mm, entry: int) -> int:
    """huge_pte_mkwrite: RW alone; SAVED_DIRTY does not move back."""
    return entry | 1 << 1


def _make(mm: Mm, vma: Vma, frame: int, *, writable: bool) -> int:
    """make_huge_pte"""
    entries = mm.entries
    entry = entries.pfn_pte(frame, vma.prot) | PSE
    if writable:
        return entries.pte_mkyoung(_mkwrite(mm, entries.pte_mkdirty(entry)))
    return entries.pte_mkyoung(entries.pte_wrprotect(entry))


def _frame(mm: Mm, entry: int) -> int:
    return mm.entries.pte_pfn(entry)


def fault(mm: Mm, vma: Vma, at: int, write: bool) -> Signal | None:
    """mm/hugetlb.c:hugetlb_fault"""
    entries = mm.entries
    size = vma.leaf_pages
    head = at & ~(size - 1)
    level = vma.huge_level
    mm.tables.alloc(at, level)
    entry = mm.tables.get_huge(head, level)
    if not entry or entries.is_marker(entry):
        return _no_page(mm, vma, head, write, marked=bool(entry))
    if not write:
        mm.tables.set_huge(head, entries.pte_mkyoung(entry), level)
        return None
    if entries.pte_write(entry):
        mm.tables.set_huge(head, entries.pte_mkyoung(entries.pte_mkdirty(entry)), level)
        return None
    if entry & UFFD_WP and vma.flags & VmFlag.UFFD_WP:
        if not vma.resolves_itself:
            return Signal.BUS
        entry = entries.pte_clear_uffd_wp(entry)
        mm.tables.set_huge(head, entry, level)
    return _wp(mm, vma, head, entry)


def _no_page(mm: Mm, vma: Vma, head: int, write: bool, *, marked: bool) -> Signal | None:
    """mm/hugetlb.c:hugetlb_no_page"""
    entries, frames = mm.entries, mm.frames
    pool = mm.kernel.pools[vma.huge_level]
    size = vma.leaf_pages
    file = vma.file
    shared = bool(vma.flags & VmFlag.MAYSHARE)
    offset = vma.offset(head)
    frame = file.cache.get(offset, 0) if file else 0
    if vma.page_taken:
        return Signal.BUS
    if not frame:
        if not pool.take(vma.reservation, offset):
            return Signal.BUS
        frame = frames.alloc_compound(page.HUGETLB, size)
        frames.index[frame] = offset
        if shared and file:
            frames.flags[frame : frame + size] |= page.FILE
            frames.owner[frame] = file.identity
            file.cache[offset] = frame
        else:
            rmap.anon_vma_prepare(mm, vma)
            frames.flags[frame : frame + size] |= page.ANON | page.EXCLUSIVE
    frames.huge_maps[frame] = frames.huge_maps.get(frame, 0) + 1
    both = VmFlag.WRITE | VmFlag.SHARED
    entry = _make(mm, vma, frame, writable=vma.flags & both == both)
    if marked:
        entry = entries.pte_mkuffd_wp(entries.pte_wrprotect(entry))
    mm.tables.set_huge(head, entry, vma.huge_level)
    if write and not vma.flags & VmFlag.SHARED and not marked:
        return _wp(mm, vma, head, entry)
    return None


def _wp(mm: Mm, vma: Vma, head: int, entry: int) -> Signal | None:
    """mm/hugetlb.c:hugetlb_wp; without a free page the owner of the reservation takes it from everybody else."""
    entries, frames = mm.entries, mm.frames
    level = vma.huge_level
    size = vma.leaf_pages
    frame = _frame(mm, entry)
    if not vma.flags & VmFlag.MAYSHARE and not _is_only_user(mm, frame):
        if mm.kernel.pools[level].take(vma.reservation, vma.offset(head)):
            new = frames.alloc_compound(page.HUGETLB | page.ANON | page.EXCLUSIVE, size)
            _copy_contents(mm, frame, new, size)
            rmap.anon_vma_prepare(mm, vma)
            frames.huge_maps[new] = 1
            mm.tables.set_huge(head, _make(mm, vma, new, writable=True), level)
            drop(mm, frame, size, level)
            return None
        if vma.reservation is None:
            return Signal.BUS
        _take_from_others(mm, vma, head, frame)
    if not vma.flags & VmFlag.MAYSHARE:
        frames.flags[frame : frame + size] |= page.EXCLUSIVE
    mm.tables.set_huge(head, _mkwrite(mm, entries.pte_mkdirty(entries.pte_mkyoung(entry))), level)
    return None


def _is_only_user(mm: Mm, frame: int) -> bool:
    return mm.frames.mapcount(frame) == 1 and bool(mm.frames.flags[frame] & page.ANON)


def _copy_contents(mm: Mm, source: int, target: int, size: int) -> None:
    for frame in [f for f in mm.frames.memory.row_of_frame if source <= f < source + size]:
        mm.frames.copy(frame, target + frame - source)


def _take_from_others(mm: Mm, vma: Vma, head: int, frame: int) -> None:
    """Unmap a page from every area that does not own the reservation (unmap_ref_private): SIGBUS from then on."""
    offset = vma.offset(head)
    for process in mm.kernel.processes.values():
        for other in process.mm.areas:
            if other is vma or other.file is not vma.file or other.reservation is not None:
                continue
            at = other.start + offset - other.pgoff
            if not other.start <= at < other.end:
                continue
            entry = process.mm.tables.get_huge(at, vma.huge_level)
            if mm.entries.pte_present(entry) and _frame(process.mm, entry) == frame:
                process.mm.tables.set_huge(at, 0, vma.huge_level)
                other.page_taken = True
                drop(mm, frame, vma.leaf_pages, vma.huge_level)


def drop(mm: Mm, frame: int, size: int, level: int) -> None:
    """One mapping of a hugetlb page less; a private page that nothing maps goes back to the pool."""
    frames = mm.frames
    frames.huge_maps[frame] -= 1
    if frames.huge_maps[frame]:
        return
    del frames.huge_maps[frame]
    if frames.flags[frame] & page.FILE:
        return
    for member in [f for f in frames.memory.row_of_frame if frame <= f < frame + size]:
        frames.memory.remove_frame(member)
    frames.flags[frame : frame + size] = 0
    frames.freed.extend(range(frame, frame + size))
    mm.kernel.pools[level].give_back()


def zap(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """mm/hugetlb.c:__unmap_hugepage_range"""
    size, level = vma.leaf_pages, vma.huge_level
    for key in sorted(k for k in mm.tables.huge[level] if start <= k * size < end):
        entry = mm.tables.get_huge(key * size, level)
        mm.tables.set_huge(key * size, 0, level)
        if mm.entries.pte_present(entry):
            drop(mm, _frame(mm, entry), size, level)


def follow(mm: Mm, vma: Vma, at: int, write: bool, touch: bool) -> int:
    """Frame of `at` for get_user_pages; 0 when a fault is needed (follow_hugetlb_page)."""
    size = vma.leaf_pages
    entry = mm.tables.get_huge(at & ~(size - 1), vma.huge_level)
    if not entry & P or (write and not mm.entries.pte_write(entry)):
        return 0
    if touch and write and mm.entries.profile.hugetlb_touched and vma.huge_level == 2:
        new = mm.entries.pte_mkdirty(mm.entries.pte_mkyoung(entry))
        mm.tables.set_huge(at & ~(size - 1), new, vma.huge_level)
    return _frame(mm, entry) + (at & size - 1)


def change_protection(mm: Mm, vma: Vma, start: int, end: int, prot: int, wp: bool | None) -> None:
    """mm/hugetlb.c:hugetlb_change_protection"""
    entries = mm.entries
    size, level = vma.leaf_pages, vma.huge_level
    for at in range(start, end, size):
        entry = mm.tables.get_huge(at, level)
        if entries.pte_present(entry):
            new = entries.pte_modify(entry & ~PSE, prot) | PSE
            if wp:
                new = entries.pte_mkuffd_wp(entries.pte_wrprotect(new))
            elif wp is False:
                new = entries.pte_clear_uffd_wp(new)
            mm.tables.set_huge(at, new, level)
        elif entry:
            if wp is False:
                mm.tables.set_huge(at, 0, level)
        elif wp:
            mm.tables.alloc(at, level)
            mm.tables.set_huge(at, entries.make_uffd_marker(), level)


def copy_range(child: Mm, parent: Mm, child_vma: Vma, vma: Vma) -> None:
    """fork of a hugetlb area (copy_hugetlb_page_range): A stays in the child."""
    entries, frames = parent.entries, parent.frames
    size, level = vma.leaf_pages, vma.huge_level
    for at in range(vma.start, vma.end, size):
        if not parent.tables.table(at, level):
            continue
        entry = parent.tables.get_huge(at, level)
        child.tables.alloc(at, level)
        if not entries.pte_present(entry):
            continue
        frame = _frame(parent, entry)
        if frames.flags[frame] & page.ANON and frames.is_pinned(frame):
            new = frames.alloc_compound(page.HUGETLB | page.ANON | page.EXCLUSIVE, size)
            _copy_contents(parent, frame, new, size)
            frames.huge_maps[new] = 1
            child.tables.set_huge(at, _make(child, child_vma, new, writable=True), level)
            continue
        frames.huge_maps[frame] += 1
        if vma.is_cow:
            if frames.flags[frame] & page.ANON:
                frames.flags[frame : frame + size] &= 0xFFFF ^ page.EXCLUSIVE
            entry = entries.pte_wrprotect(entry)
            parent.tables.set_huge(at, entry, level)
        if not child_vma.flags & VmFlag.UFFD_WP:
            entry = entries.pte_clear_uffd_wp(entry)
        child.tables.set_huge(at, entry, level)
