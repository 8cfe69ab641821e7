"""hugetlb areas: leaves of 2 MiB or 1 GiB from a reserved pool (mm/hugetlb.c)."""

from __future__ import annotations

from ptewalk.model.errors import Errno, Signal
from ptewalk.model.linux import GIGANTIC_PAGES, HUGE_PAGES, VmFlag
from ptewalk.model.mm import remap, rmap
from ptewalk.model.pte import PSE, UFFD_WP
from ptewalk.model.state import frames as page
from ptewalk.model.state.files import File
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.pools import Reservation
from ptewalk.model.state.vma import Vma


def reserve(kernel: MachineState, vma: Vma) -> None:
    """Reserve pool pages for a new mapping (hugetlb_reserve_pages), but for NORESERVE; ENOMEM when too few are left."""
    if vma.flags & VmFlag.NORESERVE:
        return
    pool = kernel.pools[vma.huge_level]
    offsets = range(vma.pgoff, vma.pgoff + vma.end - vma.start, vma.leaf_pages)
    if pool.free() < len(offsets):
        raise Errno("ENOMEM")
    pool.reserved += len(offsets)
    vma.reservation = Reservation(set(offsets))


def close(kernel: MachineState, vma: Vma) -> None:
    """A private area goes away, and with it what it reserved and did not use (hugetlb_vm_op_close)."""
    reservation = vma.reservation
    if reservation and not vma.flags & VmFlag.MAYSHARE:
        last = vma.pgoff + vma.end - vma.start
        gone = {offset for offset in reservation.unused if vma.pgoff <= offset < last}
        reservation.unused -= gone
        kernel.pools[vma.huge_level].reserved -= len(gone)


def put_file(kernel: MachineState, vma: Vma) -> None:
    """A shared file that no area maps any more goes, with its pages and what it reserved (hugetlbfs_evict_inode).

    The kernel does so as it returns to the user: pages of a file that mmap replaces are not free for that mmap yet.
    """
    file, reservation = vma.file, vma.reservation
    mapped = any(other.file is file for process in kernel.processes.values() for other in process.mm.areas)
    if file is None or mapped or not vma.flags & VmFlag.MAYSHARE:
        return
    _drop_cached(kernel, file, 0, file.pages)
    if reservation:
        kernel.pools[vma.huge_level].reserved -= len(reservation.unused)
        reservation.unused.clear()


def _drop_cached(kernel: MachineState, file: File, first: int, last: int) -> None:
    """Take what a file has of offsets [first, last) out of its page cache (remove_inode_hugepages)."""
    for offset in [o for o in file.cache if first <= o < last]:
        head = file.cache.pop(offset)
        kernel.frames.delete_from_page_cache(slice(head, head + _size(kernel, head)))
        put(kernel, head)


def punch_hole(kernel: MachineState, file: File, size: int, first: int, last: int) -> None:
    """fs/hugetlbfs/inode.c:hugetlbfs_punch_hole of offsets [first, last); a part of a page is cleared in place."""
    start, end = -(-first // size) * size, last // size * size
    for head, frame in file.cache.items():
        if not start <= head < end:
            for offset in range(max(first, head), min(last, head + size)):
                if frame + offset - head in kernel.memory.row_of_frame:
                    kernel.memory.frame(frame + offset - head)[:] = 0
    if start >= end:
        return
    for process in kernel.processes.values():
        for vma in process.mm.areas:
            if vma.file is file:
                low, high = vma.start + max(0, start - vma.pgoff), min(vma.end, vma.start + end - vma.pgoff)
                zap(process.mm, vma, low, high)
                process.mm.replace(low, high)
    _drop_cached(kernel, file, start, end)


def _size(kernel: MachineState, head: int) -> int:
    """Frames of the hugetlb page that begins at `head`."""
    frames = kernel.frames
    is_gigantic = head + HUGE_PAGES < len(frames.head) and int(frames.head[head + HUGE_PAGES]) == head
    return GIGANTIC_PAGES if is_gigantic else HUGE_PAGES


def put(kernel: MachineState, head: int) -> None:
    """A hugetlb page that no entry, file or pin uses goes back to its pool (free_huge_page)."""
    frames = kernel.frames
    if frames.huge_maps.get(head) or frames.flags[head] & page.FILE or frames.is_pinned(head):
        return
    size = _size(kernel, head)
    frames.free_compound(head, size)
    kernel.pools[3 if size == GIGANTIC_PAGES else 2].give_back(head, kernel.nodes.pop(head, 0))


def _take(mm: Mm, vma: Vma, offset: int) -> int:
    """A page of the pool; 0 when there is none (alloc_huge_page)."""
    kernel = mm.kernel
    node = kernel.pools[vma.huge_level].take(vma.reservation, offset)
    if node is None:
        return 0
    frame = kernel.frames.alloc_compound(page.HUGETLB, vma.leaf_pages)
    if node:
        kernel.nodes[frame] = node
    return frame


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
    file = vma.file
    shared = bool(vma.flags & VmFlag.MAYSHARE)
    offset = vma.offset(head)
    frame = file.cache.get(offset, 0) if file else 0
    if vma.page_taken:
        return Signal.BUS
    if not frame:
        if not shared and entries.profile.hugetlb_prepares_first:
            rmap.anon_vma_prepare(mm, vma)
        frame = _take(mm, vma, offset)
        if not frame:
            return Signal.BUS
        if shared and file:
            frames.add_to_page_cache(frame, file.identity, offset, vma.leaf_pages)
            file.cache[offset] = frame
            frames.add_huge_rmap(frame)
        else:
            _map_new(mm, vma, head, frame)
    else:
        frames.add_huge_rmap(frame)
    both = VmFlag.WRITE | VmFlag.SHARED
    entry = _make(mm, vma, frame, writable=vma.flags & both == both)
    if marked:
        entry = entries.pte_mkuffd_wp(entries.pte_wrprotect(entry))
    mm.tables.set_huge(head, entry, vma.huge_level)
    if write and not vma.flags & VmFlag.SHARED and not marked:
        return _wp(mm, vma, head, entry)
    return None


def _map_new(mm: Mm, vma: Vma, head: int, frame: int) -> None:
    """A leaf of a private area maps a new page (hugepage_add_new_anon_rmap)."""
    rmap.anon_vma_prepare(mm, vma)
    assert vma.anon_vma is not None
    mm.frames.add_new_huge_anon_rmap(frame, vma.anon_vma.identity, vma.offset(head), vma.leaf_pages)


def _wp(mm: Mm, vma: Vma, head: int, entry: int) -> Signal | None:
    """mm/hugetlb.c:hugetlb_wp; without a free page the owner of the reservation takes it from everybody else."""
    entries = mm.entries
    level = vma.huge_level
    size = vma.leaf_pages
    frame = _frame(mm, entry)
    writable = bool(vma.flags & VmFlag.WRITE) or not entries.profile.hugetlb_forced_is_read_only
    if entry & UFFD_WP:  # the fault comes again, for ever where no userfaultfd answers it
        return None
    if not vma.flags & VmFlag.MAYSHARE and not _is_only_user(mm, frame):
        new = _take(mm, vma, vma.offset(head))
        if new:
            _copy_contents(mm, frame, new, size)
            _map_new(mm, vma, head, new)
            mm.tables.set_huge(head, _make(mm, vma, new, writable=writable), level)
            drop(mm, frame)
            return None
        if vma.reservation is None:
            return Signal.BUS
        _take_from_others(mm, vma, head, frame)
    if not vma.flags & VmFlag.MAYSHARE:
        mm.frames.set_exclusive(slice(frame, frame + size))
    if writable:  # set_huge_ptep_maybe_writable: otherwise nothing changes
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
                process.mm.tables.set_huge(at, _left_behind(mm, entry), vma.huge_level)
                other.page_taken = True
                drop(mm, frame)


def drop(mm: Mm, frame: int) -> None:
    """One mapping of a hugetlb page less."""
    if mm.frames.remove_huge_rmap(frame):
        put(mm.kernel, frame)


def _left_behind(mm: Mm, entry: int) -> int:
    """What stays where a page is dropped but its area is not: a marker of its write-protection."""
    return mm.entries.make_uffd_marker() if entry & UFFD_WP else 0


def zap(mm: Mm, vma: Vma, start: int, end: int, *, drop_markers: bool = False) -> None:
    """mm/hugetlb.c:__unmap_hugepage_range"""
    level = vma.huge_level
    pool = mm.kernel.pools[level]
    for head in [head for head in mm.tables.leaves(level, start, end) if head >= start]:
        entry = mm.tables.get_huge(head, level)
        if not mm.entries.pte_present(entry):
            if drop_markers:
                mm.tables.set_huge(head, 0, level)
            continue
        mm.tables.set_huge(head, 0 if drop_markers else _left_behind(mm, entry), level)
        frame = _frame(mm, entry)
        restores = mm.entries.profile.hugetlb_restores_reserve and not vma.flags & VmFlag.MAYSHARE
        if restores and vma.reservation is not None and mm.frames.huge_maps[frame] == 1:
            pool.restored.add(frame)
            vma.reservation.unused.add(vma.offset(head))
        drop(mm, frame)


def follow(mm: Mm, vma: Vma, at: int, write: bool, touch: bool, *, forced: bool = False) -> int:
    """Frame of `at` for get_user_pages, without rights too; 0 when a fault is needed (follow_hugetlb_page).

    `forced`: a write goes through a read-only entry.
    """
    size = vma.leaf_pages
    entry = mm.tables.get_huge(at & ~(size - 1), vma.huge_level)
    if not mm.entries.pte_present(entry) or (write and not forced and not mm.entries.pte_write(entry)):
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


def table_counts_as_shared(mm: Mm, at: int, level: int, lacks: str = "") -> bool:
    """Is the table of an entry taken for one that several address spaces share (ptdesc_pmd_is_shared)?

    Only a table of level 2 begins with a count of 0 (pagetable_pmd_ctor). That of a table above, with entries of 1 GiB,
    is what its page held before it became a table.

    Parameters
    ----------
    lacks : str
        The letter that a recording does not show of the page now if so.
    """
    if level == 2 or not mm.entries.profile.hugetlb_counts_any_table:
        return False
    choices = mm.kernel.choices
    shown = choices.letters(mm.who, at - mm.kernel.base) if lacks else None
    return choices.counted(mm.tables.table(at, level), None if shown is None else lacks not in shown)


def copy_range(child: Mm, parent: Mm, child_vma: Vma, vma: Vma) -> None:
    """fork of a hugetlb area (copy_hugetlb_page_range): A stays in the child.

    Raises
    ------
    Errno
        ENOMEM: a pinned page has to be copied, and the pool has none left.
    """
    entries, frames = parent.entries, parent.frames
    size, level = vma.leaf_pages, vma.huge_level
    keeps_wp = entries.profile.hugetlb_fork_keeps_wp or child_vma.flags & VmFlag.UFFD_WP
    for at in range(vma.start, vma.end, size):
        if not parent.tables.table(at, level):
            continue
        entry = parent.tables.get_huge(at, level)
        child.tables.alloc(at, level)
        if not entries.pte_present(entry):
            continue
        if table_counts_as_shared(child, at, level, "P"):
            continue
        frame = _frame(parent, entry)
        if frames.flags[frame] & page.ANON and parent.has_pinned and frames.is_pinned(frame):
            new = _take(child, child_vma, vma.offset(at))
            if not new:
                raise Errno("ENOMEM")
            _copy_contents(parent, frame, new, size)
            _map_new(child, child_vma, at, new)
            child.tables.set_huge(at, _make(child, child_vma, new, writable=True), level)
            continue
        frames.add_huge_rmap(frame)
        if vma.is_cow:
            if frames.flags[frame] & page.ANON:
                frames.clear_exclusive(slice(frame, frame + size))
            entry = entries.pte_wrprotect(entry)
            parent.tables.set_huge(at, entry, level)
        child.tables.set_huge(at, entry if keeps_wp else entries.pte_clear_uffd_wp(entry), level)


def mappings(kernel: MachineState, frame: int) -> list[tuple[Mm, Vma, int]]:
    """Every entry that maps a hugetlb page (rmap_walk): address space, area, page number."""
    found = []
    for process in kernel.processes.values():
        mm = process.mm
        for vma in mm.areas:
            for at in range(vma.start, vma.end if vma.huge_level else vma.start, vma.leaf_pages):
                entry = mm.tables.get_huge(at, vma.huge_level)
                if mm.entries.pte_present(entry) and _frame(mm, entry) == frame:
                    found.append((mm, vma, at))
    return found


def migrate(kernel: MachineState, frame: int, node: int) -> bool:
    """Move a hugetlb page to `node`; False when it is pinned (unmap_and_move_huge_page)."""
    frames = kernel.frames
    size = _size(kernel, frame)
    pinned = frames.is_pinned(frame)
    new = frame
    if not pinned:
        old_node = kernel.nodes.pop(frame, 0)
        kernel.pools[2].migrate(old_node, node)
        new = frames.alloc_compound(page.HUGETLB, size)
        if node:
            kernel.nodes[new] = node
    if pinned and frames.flags[frame] & page.EXCLUSIVE:
        return False
    for mm, vma, at in mappings(kernel, frame):
        entry = mm.tables.get_huge(at, vma.huge_level)
        mm.tables.set_huge(at, remap.remade(mm, vma, entry, new) | PSE, vma.huge_level)
    if pinned:
        return False
    frames.migrate(frame, new, size)
    if frames.flags[new] & page.FILE:
        kernel.files.by_identity(int(frames.owner[new])).cache[int(frames.index[new])] = new
    return True
