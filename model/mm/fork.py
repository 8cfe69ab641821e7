"""fork: areas are copied, private memory is shared for copy-on-write.

kernel/fork.c:dup_mmap, mm/memory.c:copy_page_range.
"""

from __future__ import annotations

import numpy as np

from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import hugetlb, modify, rmap, thp
from ptewalk.model.pte import PROTNONE, PSE, RW, SPECIAL, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm, Process
from ptewalk.model.state.vma import Vma, anon_vma_fork


def copy_process(parent: Process, child: Process) -> None:
    """Fill the new process `child` from `parent`."""
    child.pkru, child.pkeys, child.exec_only_key = parent.pkru, set(parent.pkeys), parent.exec_only_key
    child.user, child.parent = parent.user, parent.who
    dup_mm(parent.mm, child.mm)


def dup_mm(parent: Mm, child: Mm) -> None:
    """Fill the new address space `child` from `parent`."""
    child.changed, child.stored = parent.changed.copy(), parent.stored.copy()
    child.gup_stored = parent.gup_stored.copy()
    child.remapped.update(parent.remapped)
    for vma in parent.areas:
        if vma.flags & VmFlag.DONTCOPY:
            continue
        twin = vma.copy()
        modify.clear_flags(twin, VmFlag.LOCKED)
        if twin.remapped is not None:
            twin.remapped = child.remapped
        if not vma.flags & VmFlag.MAYSHARE:
            twin.reservation = None
        modify.reset_uffd(child, twin)  # dup_userfaultfd
        wiped = vma.flags & VmFlag.WIPEONFORK
        if not wiped:
            anon_vma_fork(twin, vma)
        child.areas.insert(twin)
        if not wiped:
            _copy_page_range(parent, child, vma, twin)
        else:
            child.replace(vma.start, vma.end)
    if parent.entries.profile.fork_drains:
        parent.kernel.lru.drain()  # the child's first write to its stack, a page that is on no list yet


def _copy_page_range(parent: Mm, child: Mm, vma: Vma, twin: Vma) -> None:
    """mm/memory.c:copy_page_range"""
    copies_hugetlb = vma.huge_level and parent.entries.profile.fork_copies_hugetlb
    if not vma.anon_vma and not copies_hugetlb and vma.remapped is None and not vma.flags & VmFlag.MAYBE_GUARD:
        return
    if vma.huge_level:
        hugetlb.copy_range(child, parent, twin, vma)
        return
    for level in range(parent.tables.levels - 1, 0, -1):
        for at in parent.tables.tables_of(level, vma.start, vma.end):
            child.tables.alloc(at, level)
    for piece in parent.tables.pieces(vma, vma.start, vma.end):
        if piece.leaf:
            if not vma.is_anonymous or _copy_huge_pmd(parent, child, piece.head, twin):
                continue
            thp.split_huge_pmd(parent, vma, piece.head)
            child.tables.alloc(piece.head, 1)
        _copy_part(parent, child, vma, twin, piece.first, piece.last)


def _copy_huge_pmd(parent: Mm, child: Mm, head: int, twin: Vma) -> bool:
    """mm/huge_memory.c:copy_huge_pmd; False when the page is pinned and has to be split."""
    entries, frames = parent.entries, parent.frames
    pmd = parent.tables.get_huge(head)
    if thp.is_huge_zero(parent, pmd):
        if entries.profile.fork_makes_huge_zero_anew:
            child.tables.set_huge(head, entries.pfn_pte(frames.huge_zero, twin.prot, 2) | PSE)
            return True
    else:
        frame = thp.pmd_frame(parent, pmd)
        if entries.profile.fork_copies_pinned and parent.has_pinned and frames.is_pinned(frame):
            return False
        frames.share_huge_rmap(frame)
    pmd = entries.pte_wrprotect(pmd)
    parent.tables.set_huge(head, pmd)
    child.tables.set_huge(head, entries.pte_mkold(entries.pte_clear_uffd_wp(pmd)))
    return True


def _copy_part(parent: Mm, child: Mm, vma: Vma, twin: Vma, first: int, last: int) -> None:
    """copy_pte_range: copy_present_pte and copy_nonpresent_pte of one page table."""
    entries, frames = parent.entries, parent.frames
    source = parent.tables.edit(first, last)
    used = np.flatnonzero(source)
    if not len(used):
        return
    old = source[used]
    present = (old & np.uint64(P | PROTNONE)) != 0
    new = old.copy()
    pinned: list[int] = []
    if present.any():
        pte = old[present]
        normal = (pte & np.uint64(SPECIAL)) == 0
        pfns = entries.pte_pfn(pte[normal]).astype(np.int64)
        if parent.has_pinned and entries.profile.fork_copies_pinned and vma.is_cow:
            kept = []
            for position, pfn in zip(np.flatnonzero(present)[normal], pfns.tolist(), strict=True):
                if frames.flags[pfn] & page.EXCLUSIVE and frames.is_pinned(pfn):
                    pinned.append(int(position))
                else:
                    kept.append(pfn)
            pfns = np.array(kept, np.int64)
        frames.share_rmaps(pfns)
        if vma.is_cow:
            pte = np.where(pte & np.uint64(RW | entries.ARM), entries.pte_wrprotect(pte), pte)
            untouched = old[pinned]
            source[used[present]] = pte
            source[used[pinned]] = untouched
        if vma.flags & VmFlag.SHARED:
            pte = entries.pte_mkclean(pte)
        new[present] = entries.pte_mkold(entries.pte_clear_uffd_wp(pte))
    for position in np.flatnonzero(~present):
        entry = int(old[position])
        if entries.is_marker(entry):
            # copy_pte_marker, make_pte_marker: made anew, without the SD that mremap may have given it
            new[position] = entries.make_guard_marker() if entries.is_guard(entry) else 0
            continue
        slot = parent.kernel.swap.slots.get((entries.swp_type(entry), entries.swp_offset(entry)))
        if slot is not None:  # None: rule A30 of linux-seed
            slot.count += 1
        entry &= ~entries.SWP_EXCLUSIVE
        source[used[position]] = entry
        new[position] = entry & ~entries.SWP_UFFD_WP
    child.tables.edit(first, last)[used] = new
    for position in pinned:
        at = first + int(used[position])
        frame = frames.alloc(0)
        frames.copy(entries.pte_pfn(int(old[position])), frame)
        rmap.add_new_anon(child, twin, at, frame)
        pte_new = entries.pte_mkdirty(entries.pfn_pte(frame, twin.prot))
        child.tables.set(at, entries.pte_mkwrite(pte_new) if twin.flags & VmFlag.WRITE else pte_new)
