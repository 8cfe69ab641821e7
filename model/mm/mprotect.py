"""mprotect and pkey_mprotect (mm/mprotect.c)."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.errors import Errno
from ptewalk.model.linux import TASK_PAGES, VmFlag
from ptewalk.model.mm import gup, hugetlb, modify, pkeys, thp
from ptewalk.model.pte import ALL, FRAME_AT, PROTNONE, RW, SPECIAL, UFFD_WP, A, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.tables import PMD_SHIFT
from ptewalk.model.state.vma import Vma

ACCESS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC
_PKEY = 0xF << VmFlag.PKEY_LOW
LARGE_LOW = FRAME_AT[1] ^ FRAME_AT[2]
"""Bits of a frame field that a huge leaf does not use for its frame."""


def do_mprotect(mm: Mm, start: int, pages: int, prot: int, key: int = -1) -> None:
    """Change the rights of pages [start, start + pages) to the VmFlag bits `prot`.

    Parameters
    ----------
    key : int
        Protection key; -1: plain mprotect.

    Raises
    ------
    Errno
        ENOMEM: something there is not mapped; what stands before it is changed already. EACCES, EINVAL.
    """
    if pages <= 0:
        if pages == 0:
            return
        raise Errno("ENOMEM")
    end = start + pages
    if end > TASK_PAGES[mm.tables.levels] + 1:
        raise Errno("ENOMEM")

    def change(vma: Vma, before: Vma | None, first: int, last: int) -> Vma:
        new_key = pkeys.of_mprotect(mm, vma, prot, key)
        flags = vma.flags & ~(ACCESS | _PKEY) | prot | new_key << VmFlag.PKEY_LOW
        if flags & ~(flags >> 4) & ACCESS:
            raise Errno("EACCES")
        return mprotect_fixup(mm, vma, before, first, last, flags)

    modify.change_each_area(mm, start, end, change)


def mprotect_fixup(mm: Mm, vma: Vma, before: Vma | None, start: int, end: int, flags: int) -> Vma:
    """One area's part; the area that covers it afterwards (mm/mprotect.c:mprotect_fixup)."""
    old = vma.flags
    if flags == old:
        return vma
    accounted = VmFlag.ACCOUNT | VmFlag.WRITE | VmFlag.HUGETLB | VmFlag.SHARED | VmFlag.NORESERVE
    if flags & VmFlag.WRITE and not old & accounted:
        flags |= VmFlag.ACCOUNT
    if mm.entries.profile.mprotect_unaccounts and not flags & VmFlag.WRITE and vma.is_anonymous and not vma.anon_vma:
        flags &= ~VmFlag.ACCOUNT
    vma = modify.modify_flags(mm, vma, before, start, end, flags)
    wants = wants_manual_upgrade(mm, vma)
    modify.set_page_prot(mm, vma)
    change_protection(mm, vma, start, end, vma.prot, restore_write=wants)
    locked = old & (VmFlag.WRITE | VmFlag.SHARED | VmFlag.LOCKED) == VmFlag.LOCKED
    if locked and flags & VmFlag.WRITE and mm.entries.profile.mprotect_populates:
        with contextlib.suppress(Errno):
            gup.populate_vma_range(mm, vma, start, end)
    return vma


def wants_manual_upgrade(mm: Mm, vma: Vma) -> bool:
    """May single entries be made writable without a fault?

    A shared area's old protection is looked at, which says no whenever it lacks RW (vma_wants_writenotify).
    """
    if not vma.flags & VmFlag.WRITE:
        return False
    if not vma.flags & VmFlag.SHARED:
        return True
    if vma.file is not None and vma.file.counts_dirty:
        return True
    return vma.prot == mm.entries.vm_page_prot(vma.flags) and modify.wants_writenotify(mm, vma)


def change_protection(
    mm: Mm, vma: Vma, start: int, end: int, prot: int, *, restore_write: bool = False, wp: bool | None = None
) -> None:
    """New protection for every entry of pages [start, end) (change_protection_range).

    Parameters
    ----------
    prot : int
        What pte_modify gives.
    restore_write : bool
        Entries that need no fault become writable (MM_CP_TRY_CHANGE_WRITABLE).
    wp : bool or None
        userfaultfd: True write-protects, False takes that back, None leaves it.
    """
    if vma.huge_level:
        hugetlb.change_protection(mm, vma, start, end, prot, wp)
        return
    entries = mm.entries
    markers = wp is True and vma.uses_markers
    if markers:
        for block in range(start >> PMD_SHIFT, (end - 1 >> PMD_SHIFT) + 1):
            if not mm.tables.is_leaf(block << PMD_SHIFT):
                mm.tables.alloc(block << PMD_SHIFT, 1)
    for piece in mm.tables.pieces(vma, start, end):
        if piece.leaf:
            if piece.whole and (not wp or vma.is_anonymous):
                _change_huge(mm, vma, piece.head, prot, restore_write, wp)
                continue
            thp.split_huge_pmd(mm, vma, piece.head)
            if markers:
                mm.tables.alloc(piece.head, 1)
            elif not vma.is_anonymous:
                continue
        part = mm.tables.part(piece.first, piece.last).copy()
        present = (part & np.uint64(P | PROTNONE)) != 0
        if wp is not None:
            _change_swapped(mm, part, wp, markers)
        if not present.any():
            mm.tables.write(piece.first, part)
            continue
        old = part[present]
        if entries.profile.mprotect_in_batches:
            old = _as_batches(mm, piece.first + np.flatnonzero(present), old)
        new = entries.pte_modify(old, prot)
        if wp:
            new = entries.pte_mkuffd_wp(entries.pte_wrprotect(new))
        elif wp is False:
            new = entries.pte_clear_uffd_wp(new)
        if restore_write and entries.profile.mprotect_restores_private:
            candidates = np.flatnonzero((new & np.uint64(RW | PROTNONE | P)) == np.uint64(P))
            allowed = candidates[_can_change_writable(mm, vma, new[candidates])]
            new[allowed] = entries.pte_mkwrite(new[allowed])
        elif restore_write and vma.flags & VmFlag.SHARED:
            new = np.where(entries.pte_dirty(new) != 0, entries.pte_mkwrite(new), new)
        part[present] = new
        mm.tables.write(piece.first, part)


def _as_batches(mm: Mm, pages: NDArray[np.int64], old: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Entries of one large page, alike but for A and D, as one is read for them all (modify_prot_start_ptes).

    A is that of any; D of any but the first comes by pte_mkdirty, and with it soft-dirty.
    """
    entries, frames = mm.entries, mm.frames
    pfns = entries.pte_pfn(old).astype(np.int64)
    large = ((frames.flags[pfns] & page.COMPOUND) != 0) & ((old & np.uint64(SPECIAL)) == 0)
    if not large.any():
        return old
    alike = old & np.uint64(ALL ^ (FRAME_AT[1] | A | entries.DIRTY_BITS))
    follows = np.zeros(len(old), bool)
    follows[1:] = (
        (np.diff(pages) == 1)
        & (np.diff(pfns) == 1)
        & (frames.head[pfns[1:]] == frames.head[pfns[:-1]])
        & (alike[1:] == alike[:-1])
        & large[1:]
        & large[:-1]
    )
    starts = np.flatnonzero(~follows)
    lengths = np.diff(np.append(starts, len(old)))
    dirty = entries.pte_dirty(old) != 0
    later = np.add.reduceat((dirty & follows).astype(np.int64), starts) > 0
    young = np.bitwise_or.reduceat(old & np.uint64(A), starts)
    first = old[starts] | young
    first = np.where(later, entries.pte_mkdirty(first), first)
    bits = np.uint64(ALL ^ FRAME_AT[1])
    return old & ~bits | np.repeat(first & bits, lengths)


def _change_swapped(mm: Mm, part: NDArray[np.uint64], wp: bool, markers: bool) -> None:
    """Write-protection of entries that are not present, and of empty ones by markers."""
    entries = mm.entries
    absent = np.flatnonzero((part & np.uint64(P | PROTNONE)) == 0)
    for position in absent:
        entry = int(part[position])
        if not entry:
            if markers:
                part[position] = entries.make_uffd_marker()
        elif entries.is_guard(entry):
            continue
        elif entries.is_marker(entry):
            if not wp:
                part[position] = 0
        else:
            part[position] = entry | entries.SWP_UFFD_WP if wp else entry & ~entries.SWP_UFFD_WP


def _can_change_writable(mm: Mm, vma: Vma, pte: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of these entries may become writable without a fault (mm/mprotect.c:can_change_pte_writable)."""
    entries, frames = mm.entries, mm.frames
    good = np.ones(len(pte), bool)
    shared = bool(vma.flags & VmFlag.SHARED)
    if shared or not entries.profile.mprotect_restores_clean:
        good &= entries.pte_dirty(pte) != 0
    if entries.VM_SOFTDIRTY and not vma.flags & VmFlag.SOFTDIRTY:
        good &= entries.pte_soft_dirty(pte) != 0
    if vma.flags & VmFlag.UFFD_WP:
        good &= (pte & np.uint64(UFFD_WP)) == 0
    if not shared:
        pfns = entries.pte_pfn(pte).astype(np.int64)
        good &= (pte & np.uint64(SPECIAL)) == 0
        good &= (frames.flags[pfns] & (page.ANON | page.EXCLUSIVE)) == page.ANON | page.EXCLUSIVE
    return good


def _change_huge(mm: Mm, vma: Vma, head: int, prot: int, restore_write: bool, wp: bool | None) -> None:
    """mm/huge_memory.c:change_huge_pmd"""
    entries = mm.entries
    old = mm.tables.get_huge(head)
    pmd = entries.pte_modify(old, prot, 2)
    if entries.profile.mprotect_forgets_huge_dirty and old & RW and not pmd & RW:
        pmd = entries.pte_mkclean(pmd)
    if wp:
        pmd = entries.pte_mkuffd_wp(entries.pte_wrprotect(pmd))
    elif wp is False:
        pmd = entries.pte_clear_uffd_wp(pmd)
    if (
        restore_write
        and entries.profile.mprotect_restores_huge
        and pmd & (P | RW) == P
        and not thp.is_huge_zero(mm, pmd)
        and _can_change_writable(mm, vma, np.array([pmd & ~LARGE_LOW], np.uint64))[0]
    ):
        pmd = entries.pte_mkwrite(pmd)
    mm.tables.set_huge(head, pmd)
