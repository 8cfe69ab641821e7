"""Kernel samepage merging (mm/ksm.c)."""

from __future__ import annotations

from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import faults, release, thp
from ptewalk.model.pte import SPECIAL, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.vma import Vma


def unmerge_range(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """Give every KSM page of a range a copy of its own (break_ksm: a write fault)."""
    frames, profile = mm.frames, mm.entries.profile
    for piece in mm.tables.pieces(vma, start, end):
        if piece.leaf:
            continue
        for at in range(piece.first, piece.last):
            pte = mm.tables.get(at)
            if not mm.entries.pte_present(pte) or profile.ksm_needs_access and not pte & P:
                continue
            if pte & SPECIAL:
                if profile.ksm_unshares and mm.entries.pte_dirty(pte):  # is_ksm_zero_pte
                    faults.unshare(mm, vma, at, pte)
            elif frames.flags[mm.entries.pte_pfn(pte)] & page.KSM:
                if profile.ksm_unshares:
                    faults.unshare(mm, vma, at, pte)
                else:
                    faults.handle_mm_fault(mm, vma, at, True)


def scan(kernel: MachineState, *, use_zero_pages: bool) -> None:
    """Merge what is equal in all areas with VM_MERGEABLE: full passes of ksmd, until one changes nothing.

    The second page of a content, in scan order, becomes the KSM page and keeps its soft-dirty mark; the entries of the
    others are made anew, read-only and clean (write_protect_page, replace_page). A huge page is split for it.
    """
    kernel.lru.drain()
    while _pass(kernel, use_zero_pages):
        pass
    kernel.ksm_scanned = {(mm.who, at) for mm, _, at, _, _ in _candidates(kernel, every=True)}


def _pass(kernel: MachineState, use_zero_pages: bool) -> bool:
    """One pass (ksm_do_scan); whether it changed anything."""
    frames = kernel.frames
    stable: dict[bytes, list[int]] = {}
    seen: dict[bytes, tuple[Mm, Vma, int]] = {}
    candidates = _candidates(kernel)
    for _, _, _, frame, content in candidates:
        if frames.flags[frame] & page.KSM and frame not in stable.setdefault(content, []):
            stable[content].append(frame)
    changed = False
    for mm, vma, at, frame, content in candidates:
        if frames.flags[frame] & page.KSM or _frame_at(mm, at) != frame:
            continue
        if use_zero_pages and not content:
            changed = _merge(mm, vma, at, frames.zero, zero=True) or changed
            continue
        kept = _with_room(kernel, stable.get(content, []))
        if kept:
            changed = _merge(mm, vma, at, kept, zero=False) or changed
            continue
        in_tree = seen.get(content) or next(iter(seen.values()), None)
        if in_tree and kernel.profile.ksm_needs_access and _is_hidden(in_tree[0], in_tree[2]):
            continue  # get_mergeable_page: the search ends at a page that cannot be had, be it the same or the root
        if content not in seen:
            seen[content] = (mm, vma, at)
            continue
        first_mm, first_vma, first_at = seen[content]
        first = _frame_at(first_mm, first_at)
        if first in (0, frame) or _is_late(kernel, (first_mm.who, first_at), (mm.who, at)):
            continue
        if frames.flags[frame] & page.COMPOUND and frames.head[first] == frames.head[frame]:
            # Both hold a reference of the one compound page: 3.11 splits it all the same, later kernels only split it.
            split = thp.split_huge_page(mm, frame)
            changed = changed or split
            if not (split and kernel.profile.ksm_merges_within_huge):
                continue
        if not _write_protect(mm, at):
            continue
        frames.set_stable(frame)
        stable.setdefault(content, []).append(frame)
        del seen[content]
        _merge(first_mm, first_vma, first_at, frame, zero=False)
        changed = True
    return changed


def _is_hidden(mm: Mm, at: int) -> bool:
    """Is the page mapped PROT_NONE?"""
    entry = mm.tables.get_huge(at) or mm.tables.get(at)
    return bool(mm.entries.pte_present(entry)) and not entry & P


def _with_room(kernel: MachineState, kept: list[int]) -> int:
    """The KSM page of a content with most users that may have one more; 0 for none (stable_node_dup)."""
    limit, maps = kernel.profile.ksm_max_sharing, kernel.frames.maps
    free = [frame for frame in kept if limit is None or maps[frame] < limit]
    return max(free, key=lambda frame: int(maps[frame]), default=0)


def _merge(mm: Mm, vma: Vma, at: int, kept: int, *, zero: bool) -> bool:
    """try_to_merge_one_page"""
    if not _write_protect(mm, at):
        return False
    _replace(mm, vma, at, _frame_at(mm, at), kept, zero=zero)
    return True


def _frame_at(mm: Mm, at: int) -> int:
    """The frame that a present entry or huge leaf maps at `at`, PROT_NONE or not; 0 for none, or the zero page."""
    pmd = mm.tables.get_huge(at)
    if mm.entries.pte_present(pmd):
        return thp.pmd_frame(mm, pmd) + (at & HUGE_PAGES - 1)
    pte = mm.tables.get(at)
    return mm.entries.vm_normal_page(pte) if mm.entries.pte_present(pte) else 0


def _is_skipped(kernel: MachineState, who: int, at: int) -> bool:
    """Does ksmd leave out a page that it scanned in vain before, as the recording shows (should_skip_rmap_item)?"""
    if not kernel.profile.ksm_skips or (who, at) not in kernel.ksm_scanned:
        return False
    return "X" in (kernel.choices.letters(who, at - kernel.base) or "")


def _is_late(kernel: MachineState, first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Did ksmd leave out one of two (process, page) until others had merged, as the recording shows?

    Then the second does not keep its frame, as the second of a content would.
    """
    if not kernel.profile.ksm_skips or not {first, second} & kernel.ksm_scanned:
        return False
    who, place = second[0], second[1] - kernel.base
    return kernel.choices.frame(who, place) is not None and not kernel.choices.keeps_frame(who, place)


def _candidates(kernel: MachineState, *, every: bool = False) -> list[tuple[Mm, Vma, int, int, bytes]]:
    """Present anonymous pages of mergeable areas, in scan order, with their contents: nothing when all zero.

    `every`: those too that are left out.
    """
    found = []
    frames = kernel.frames
    for process in kernel.processes.values():
        mm = process.mm
        for vma in mm.areas:
            if not vma.flags & VmFlag.MERGEABLE or vma.anon_vma is None:
                continue
            for piece in mm.tables.pieces(vma, vma.start, vma.end):
                for at in range(piece.first, piece.last):
                    frame = _frame_at(mm, at)
                    if not frame or not frames.flags[frame] & page.ANON:
                        continue
                    if not every and _is_skipped(kernel, mm.who, at):
                        continue
                    row = kernel.memory_row(frame)
                    found.append((mm, vma, at, frame, b"" if row is None or not row.any() else row.tobytes()))
    return found


def _write_protect(mm: Mm, at: int) -> bool:
    """mm/ksm.c:write_protect_page, behind the split of a huge page; False when something else holds the page."""
    entries, frames = mm.entries, mm.frames
    frame = _frame_at(mm, at)
    if frames.flags[frame] & page.COMPOUND and not thp.split_huge_page(mm, frame):
        return False
    if _frame_at(mm, at) != frame:
        return False
    pte = mm.tables.get(at)
    if frames.references(frame) != frames.mapcount(frame) + (frame in frames.cached_slot):
        return False
    if entries.pte_shares_write(pte) or entries.pte_dirty(pte):
        if entries.pte_dirty(pte):
            frames.mark_dirty(frame)
        mm.tables.set(at, entries.pte_mkclean(entries.pte_wrprotect(pte)))
    frames.clear_exclusive(frame)
    return True


def _replace(mm: Mm, vma: Vma, at: int, frame: int, kept: int, *, zero: bool) -> None:
    """mm/ksm.c:replace_page"""
    entries, frames = mm.entries, mm.frames
    new = entries.pfn_pte(kept, vma.prot)
    if zero:
        new = entries.pte_mkspecial(new)
        if entries.profile.ksm_marks_zero_pages:
            new = entries.pte_mkdirty(new)
    else:
        frames.add_rmap(kept)
    mm.tables.set(at, new)
    frames.remove_rmap(frame)
    release.put(mm.kernel, frame)
