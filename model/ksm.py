"""Kernel samepage merging (mm/ksm.c)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ptewalk.model import faults
from ptewalk.model import frames as page
from ptewalk.model.linux import VmFlag
from ptewalk.model.pte import SPECIAL, P

if TYPE_CHECKING:
    from ptewalk.model.kernel import Kernel
    from ptewalk.model.mm import Mm
    from ptewalk.model.vma import Vma


def unmerge_range(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Give every KSM page of a range a copy of its own (break_ksm: a write fault)."""
    frames = mm.frames
    for block, first, last, huge in mm.tables.blocks(start, end):
        if huge:
            continue
        del block
        for at in range(first, last):
            pte = mm.tables.get(at)
            if pte & P and not pte & SPECIAL and frames.flags[mm.entries.pte_pfn(pte)] & page.KSM:
                if mm.entries.profile.ksm_unshares:
                    faults.unshare(mm, vma, at, pte)
                else:
                    faults.handle_mm_fault(mm, vma, at, True)


def scan(kernel: Kernel, *, use_zero_pages: bool) -> None:
    """Merge what is equal in all areas with VM_MERGEABLE: what full passes of ksmd come to.

    The second page of a content, in scan order, becomes the KSM page and keeps its soft-dirty mark; the entries of the
    others
    are made anew, read-only and clean (write_protect_page, replace_page).
    """
    stable: dict[bytes, int] = {}
    seen: dict[bytes, tuple[Mm, Vma, int]] = {}
    for _, _, _, frame, content in _candidates(kernel):
        if kernel.frames.flags[frame] & page.KSM:
            stable.setdefault(content, frame)
    for mm, vma, at, frame, content in _candidates(kernel):
        if kernel.frames.flags[frame] & page.KSM:
            continue
        if use_zero_pages and not any(content):
            if _write_protect(mm, at, frame):
                _replace(mm, vma, at, frame, kernel.frames.zero, zero=True)
            continue
        if content in stable:
            if _write_protect(mm, at, frame):
                _replace(mm, vma, at, frame, stable[content], zero=False)
            continue
        first = seen.get(content)
        if first is None:
            seen[content] = (mm, vma, at)
            continue
        first_mm, first_vma, first_at = first
        first_frame = kernel.entries.pte_pfn(first_mm.tables.get(first_at))
        if first_frame == frame:
            continue
        if not _write_protect(first_mm, first_at, first_frame) or not _write_protect(mm, at, frame):
            continue
        kernel.frames.flags[frame] |= page.KSM
        stable[content] = frame
        _replace(first_mm, first_vma, first_at, first_frame, frame, zero=False)
    kernel.mmu.invalidate(None)


def _candidates(kernel: Kernel) -> list[tuple[Mm, Vma, int, int, bytes]]:
    """Present anonymous small pages of mergeable areas, in scan order, with their contents."""
    found = []
    frames = kernel.frames
    for process in kernel.processes.values():
        mm = process.mm
        for vma in mm.areas:
            if not vma.flags & VmFlag.MERGEABLE or vma.anon_vma is None:
                continue
            for block, first, last, huge in mm.tables.blocks(vma.start, vma.end):
                del block
                if huge:
                    continue
                for at in range(first, last):
                    pte = mm.tables.get(at)
                    if not pte & P or pte & SPECIAL:
                        continue
                    frame = kernel.entries.pte_pfn(pte)
                    flags = int(frames.flags[frame])
                    if not flags & page.ANON or flags & page.COMPOUND:
                        continue
                    row = kernel.memory_row(frame)
                    found.append((mm, vma, at, frame, b"" if row is None or not row.any() else row.tobytes()))
    return found


def _write_protect(mm: Mm, at: int, frame: int) -> bool:
    """mm/ksm.c:write_protect_page; False when something else holds the page."""
    entries, frames = mm.entries, mm.frames
    pte = mm.tables.get(at)
    if frames.references(frame) != frames.mapcount(frame) + (frame in frames.cached_slot):
        return False
    if entries.pte_shares_write(pte) or entries.pte_dirty(pte):
        if entries.pte_dirty(pte):
            frames.flags[frame] |= page.DIRTY
        mm.tables.set(at, entries.pte_mkclean(entries.pte_wrprotect(pte)))
    frames.flags[frame] &= 0xFFFF ^ page.EXCLUSIVE
    return True


def _replace(mm: Mm, vma: Vma, at: int, frame: int, kept: int, *, zero: bool) -> None:
    """mm/ksm.c:replace_page"""
    entries, frames = mm.entries, mm.frames
    new = entries.pfn_pte(kept, vma.prot)
    if zero:
        new = entries.pte_mkspecial(new)
        if entries.profile.saved_dirty:
            new = entries.pte_mkdirty(new)
    else:
        frames.maps[kept] += 1
    mm.tables.set(at, new)
    frames.maps[frame] -= 1
    mm.kernel.put_mapped(frame)
