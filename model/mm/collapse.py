"""MADV_COLLAPSE: small pages, anonymous ones or a file's, become one huge page (mm/khugepaged.c)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ptewalk.model.errors import Errno
from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import release, swapin, thp
from ptewalk.model.pte import PSE, SPECIAL, UFFD_WP, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma


def madvise_collapse(mm: Mm, vma: Vma, start: int, end: int) -> None:
    """mm/khugepaged.c:madvise_collapse

    Raises
    ------
    Errno
        EINVAL: not eligible, nothing ever written there, or no entry is writable, as after clear_refs 4. EAGAIN: a
        page is pinned. EBUSY, before 6.12 EINVAL: an empty entry where a userfaultfd is.
    """
    of_file = vma.file is not None and not vma.huge_level
    eligible = of_file or (vma.is_anonymous and vma.anon_vma)
    suitable = thp.file_suitable if of_file else thp.vma_suitable
    if not eligible or vma.flags & VmFlag.NOHUGEPAGE or not suitable(vma, vma.end - HUGE_PAGES):
        raise Errno("EINVAL")
    mm.kernel.lru.drain()
    first = -(-start // HUGE_PAGES) * HUGE_PAGES
    last = end // HUGE_PAGES * HUGE_PAGES
    failure = "EINVAL"
    good = 0
    for head in range(first, last, HUGE_PAGES):
        refusal = _collapse_file(mm, vma, head) if of_file else _collapse(mm, vma, head)
        if refusal is None:
            good += 1
            continue
        failure = refusal.errno
        if refusal.final:
            break
    if first > last and mm.entries.profile.collapse_part_is_fine:
        return
    if good != (last - first) // HUGE_PAGES:
        raise Errno(failure)


class _Refusal(NamedTuple):
    """Why a block does not become huge; `final`: those behind it are not tried."""

    errno: str
    final: bool = False


def _collapse(mm: Mm, vma: Vma, head: int) -> _Refusal | None:
    """One 2 MiB block: None when it is huge now, else why not (hpage_collapse_scan_pmd, collapse_huge_page)."""
    entries, frames = mm.entries, mm.frames
    if mm.tables.get_huge(head):
        return None
    if not mm.tables.table(head, 1) or vma.start > head or vma.end < head + HUGE_PAGES:
        return _Refusal("EINVAL")
    writable = False
    for at in range(head, head + HUGE_PAGES):
        pte = mm.tables.get(at)
        if not pte or (pte & P and pte & SPECIAL):
            if vma.flags & (VmFlag.UFFD_WP | VmFlag.UFFD_MISSING):
                return _Refusal("EBUSY" if entries.profile.collapse_hole_is_ebusy else "EINVAL", final=True)
            continue
        if not entries.pte_present(pte):
            if pte & entries.SWP_UFFD_WP:
                return _Refusal("EINVAL")
            continue
        if pte & UFFD_WP:
            return _Refusal("EINVAL")
        writable = writable or entries.pte_write(pte)
        frame = entries.pte_pfn(pte)
        if not frames.flags[frame] & page.ANON:
            return _Refusal("EINVAL", final=True)
        if frames.is_pinned(frame):
            return _Refusal("EAGAIN")
    if not writable and not entries.profile.collapse_takes_read_only:
        return _Refusal("EINVAL")
    for at in range(head, head + HUGE_PAGES):
        pte = mm.tables.get(at)
        if entries.is_guard(pte):
            return _Refusal("EINVAL")
        if pte and not entries.pte_present(pte):
            swapin.do_swap_page(mm, vma, at, pte, False)
    new = frames.alloc_compound(page.COMPOUND)
    mapped = []
    for at in range(head, head + HUGE_PAGES):
        frame = mm.entries.vm_normal_page(mm.tables.get(at)) if mm.tables.get(at) else 0
        if frame:
            frames.copy(frame, new + at - head)
            mapped.append(frame)
    frames.free(mm.tables.unlink(head, 1))
    pfns = np.array(mapped, np.int64)
    frames.remove_rmaps(pfns)
    for frame in mapped:
        release.free_cache(mm.kernel, frame)
    release.put_many(mm.kernel, pfns)
    assert vma.anon_vma is not None
    frames.add_new_huge_anon_rmap(new, vma.anon_vma.identity, vma.offset(head))
    pmd = entries.pmd_mkdirty(entries.pfn_pte(new, vma.prot, 2) | PSE)
    mm.tables.set_huge(head, entries.pte_mkwrite(pmd) if vma.flags & VmFlag.WRITE else pmd)
    return None


def _collapse_file(mm: Mm, vma: Vma, head: int) -> _Refusal | None:
    """One 2 MiB block of a file, mapped at `head`.

    hpage_collapse_scan_file, collapse_file; what refuses to be mapped as a whole afterwards is huge all the same, and
    no entry of it is left.
    """
    file, kernel, frames = vma.file, mm.kernel, mm.frames
    assert file is not None
    if vma.start > head or vma.end < head + HUGE_PAGES:
        return _Refusal("EINVAL", final=True)
    first = vma.offset(head)
    cached = [file.cache[offset] for offset in range(first, first + HUGE_PAGES) if offset in file.cache]
    if cached and len(frames.folio(cached[0])) == HUGE_PAGES:
        return _map_again(mm, vma, head, cached[0])
    if any(frames.is_pinned(frame) for frame in cached):
        return _Refusal("EAGAIN")
    if kernel.files.is_empty(file, first):
        return _Refusal("EINVAL", final=True)
    for frame in cached:
        thp.unmap_file_page(kernel, frame)
    huge = kernel.files.add_huge_page(file, first)
    frames.mark_dirty(huge)
    if mm.entries.profile.collapse_retracts_all:
        for process in kernel.processes.values():
            for area in process.mm.areas:
                place = area.start + first - area.pgoff
                inside = area.file is file and area.start <= place and place + HUGE_PAGES <= area.end
                kept = area.flags & (VmFlag.UFFD_WP | VmFlag.MAYBE_GUARD)
                if inside and not place % HUGE_PAGES and not area.anon_vma and not kept:
                    _free_table(process.mm, place)
        return _map_again(mm, vma, head, huge)
    if vma.anon_vma:
        return _Refusal("EINVAL", final=True)
    if not mm.tables.table(head, 1):
        return _Refusal("EINVAL", final=bool(mm.tables.table(head, 2)))
    if vma.flags & VmFlag.UFFD_WP:
        return _Refusal("EINVAL")
    _free_table(mm, head)
    thp.map_file_pmd(mm, vma, head, huge, write=False)
    return None


def _free_table(mm: Mm, head: int) -> None:
    """pmdp_collapse_flush: the table at `head` goes, and with it what stands in it."""
    if mm.tables.table(head, 1):
        mm.frames.free(mm.tables.unlink(head, 1))


def _map_again(mm: Mm, vma: Vma, head: int, huge: int) -> _Refusal | None:
    """Map a huge page that small entries map, or none, as a whole (collapse_pte_mapped_thp)."""
    frames = mm.frames
    if mm.tables.get_huge(head):
        return None
    if vma.flags & VmFlag.UFFD_WP or not mm.tables.table(head, 2):
        return _Refusal("EINVAL")
    mapped = []
    for at in range(head, head + HUGE_PAGES):
        pte = mm.tables.get(at)
        if not pte:
            continue
        if not mm.entries.pte_present(pte):
            return _Refusal("EINVAL")
        if mm.entries.vm_normal_page(pte) != huge + at - head:
            return _Refusal("EINVAL", final=True)
        mapped.append(huge + at - head)
    frames.remove_rmaps(np.array(mapped, np.int64))
    _free_table(mm, head)
    return None if thp.map_file_pmd(mm, vma, head, huge, write=False) else _Refusal("EINVAL", final=True)
