"""MADV_COLLAPSE: small pages become one huge page (mm/khugepaged.c)."""

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
    eligible = vma.is_anonymous and vma.anon_vma and not vma.flags & VmFlag.NOHUGEPAGE
    if not eligible or not thp.vma_suitable(vma, vma.end - HUGE_PAGES):
        raise Errno("EINVAL")
    mm.kernel.lru.drain()
    first = -(-start // HUGE_PAGES) * HUGE_PAGES
    last = end // HUGE_PAGES * HUGE_PAGES
    failure = "EINVAL"
    good = 0
    for head in range(first, last, HUGE_PAGES):
        refusal = _collapse(mm, vma, head)
        if refusal is None:
            good += 1
            continue
        failure = refusal.errno
        if refusal.final:
            break
    if good != (last - first) // HUGE_PAGES:
        raise Errno(failure)
    mm.kernel.mmu.invalidate(None)


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
    if not writable:
        return _Refusal("EINVAL")
    for at in range(head, head + HUGE_PAGES):
        pte = mm.tables.get(at)
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
    np.subtract.at(frames.maps, pfns, 1)
    for frame in mapped:
        release.free_cache(mm.kernel, frame)
    release.put_many(mm.kernel, pfns)
    run = slice(new, new + HUGE_PAGES)
    frames.flags[run] |= page.ANON | page.EXCLUSIVE
    frames.index[run] = vma.offset(head) + np.arange(HUGE_PAGES)
    assert vma.anon_vma is not None
    frames.owner[run] = vma.anon_vma.identity
    frames.huge_maps[new] = 1
    pmd = entries.pmd_mkdirty(entries.pfn_pte(new, vma.prot, 2) | PSE)
    mm.tables.set_huge(head, entries.pte_mkwrite(pmd) if vma.flags & VmFlag.WRITE else pmd)
    return None
