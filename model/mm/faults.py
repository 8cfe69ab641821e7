"""Page faults (mm/memory.c: handle_mm_fault and below; arch/x86/mm/fault.c)."""

from __future__ import annotations

from ptewalk.model.errors import Signal
from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import hugetlb, pkeys, release, rmap, stack, swapin, thp
from ptewalk.model.pte import PROTNONE, RW, SPECIAL, UFFD_WP, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import ErrorBit

_ACCESS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


def user_fault(mm: Mm, at: int, code: int) -> Signal | None:
    """A page fault of the page `at` with error code `code` (do_user_addr_fault); None: try the access again."""
    write = bool(code & 1 << ErrorBit.WR)
    vma = stack.find_for_fault(mm, at, user=bool(code & 1 << ErrorBit.US))
    if vma is None:
        return Signal.MAPERR
    if code & 1 << ErrorBit.PK or not pkeys.permits(mm, vma, write):
        return Signal.PKUERR
    if write:
        if not vma.flags & VmFlag.WRITE:
            return Signal.ACCERR
    elif code & 1 << ErrorBit.P or not vma.flags & _ACCESS:
        return Signal.ACCERR
    return handle_mm_fault(mm, vma, at, write)


def handle_mm_fault(mm: Mm, vma: Vma, at: int, write: bool) -> Signal | None:
    """Make `at` accessible; None when done or to be tried again (mm/memory.c:__handle_mm_fault)."""
    if vma.huge_level:
        return hugetlb.fault(mm, vma, at, write)
    tables = mm.tables
    tables.alloc(at, 2)
    pmd = tables.get_huge(at)
    if not pmd and not tables.table(at, 1):
        if not mm.kernel.anon_sizes and thp.allowed(vma, at) and thp.do_huge_pmd_anonymous_page(mm, vma, at, write):
            return None
    elif pmd:
        if not write or mm.entries.pte_write(pmd):
            thp.touch_pmd(mm, at, pmd, write)
            return None
        if not vma.is_anonymous:
            thp.split_huge_pmd(mm, vma, at & ~(HUGE_PAGES - 1))
        elif pmd & UFFD_WP and vma.flags & VmFlag.UFFD_WP:
            if not vma.resolves_itself:
                return Signal.BUS
            thp.split_huge_pmd(mm, vma, at & ~(HUGE_PAGES - 1))  # wp_huge_pmd: one page alone is resolved
        elif thp.do_huge_pmd_wp_page(mm, vma, at, pmd):
            return None
    return handle_pte_fault(mm, vma, at, write)


def handle_pte_fault(mm: Mm, vma: Vma, at: int, write: bool) -> Signal | None:
    """mm/memory.c:handle_pte_fault"""
    entries, tables = mm.entries, mm.tables
    pte = tables.get(at)
    if not pte:
        if vma.is_anonymous:
            return do_anonymous_page(mm, vma, at, write, marked=False)
        return do_fault(mm, vma, at, write, marked=False)
    if not pte & P and pte & PROTNONE and vma.flags & _ACCESS and entries.profile.faults_numa_hint:
        # A PROT_NONE entry of an area that may be accessed counts as a NUMA hint: restored, and the access tried again.
        tables.set(at, entries.pte_mkyoung(entries.pte_modify(pte, vma.prot)))
        return None
    if not pte & (P | PROTNONE):
        if entries.is_marker(pte):
            return _marker_fault(mm, vma, at, pte, write)
        if swapin.do_swap_page(mm, vma, at, pte, write):
            return do_wp_page(mm, vma, at, tables.get(at))
        return None
    if write:
        if not entries.pte_write(pte):
            return do_wp_page(mm, vma, at, pte)
        pte = entries.pte_mkdirty(pte)
    tables.set(at, entries.pte_mkyoung(pte))
    return None


def _marker_fault(mm: Mm, vma: Vma, at: int, pte: int, write: bool) -> Signal | None:
    """A fault on a marker (handle_pte_marker, pte_marker_handle_uffd_wp)."""
    if mm.entries.is_guard(pte):
        return Signal.MAPERR
    if not vma.flags & VmFlag.UFFD_WP:
        mm.tables.set(at, 0)
        return handle_pte_fault(mm, vma, at, write)
    if vma.is_anonymous:
        return do_anonymous_page(mm, vma, at, write, marked=True)
    return do_fault(mm, vma, at, write, marked=True)


def do_anonymous_page(mm: Mm, vma: Vma, at: int, write: bool, *, marked: bool) -> Signal | None:
    """First touch of anonymous memory (mm/memory.c:do_anonymous_page); `marked`: a uffd-wp marker stood there."""
    entries, tables = mm.entries, mm.tables
    if not stack.check_guard(mm, vma, at):
        return Signal.BUS
    tables.alloc(at, 1)
    if not write:
        pte = entries.pfn_pte(mm.frames.zero, vma.prot | SPECIAL)
        tables.set(at, entries.pte_mkuffd_wp(pte) if marked else pte)
        return None
    rmap.anon_vma_prepare(mm, vma)
    places = range(at, at + 1) if marked else thp.anon_pages(mm, vma, at)
    pages = len(places)
    first = mm.frames.alloc(0) if pages == 1 else mm.frames.alloc_compound(page.COMPOUND, pages)
    for place, frame in zip(places, range(first, first + pages), strict=True):
        rmap.add_new_anon(mm, vma, place, frame)
        pte = entries.pfn_pte(frame, vma.prot)
        if vma.flags & VmFlag.WRITE:
            pte = entries.pte_mkwrite(entries.pte_mkdirty(pte))
        if marked:
            pte = entries.pte_mkuffd_wp(pte)
        tables.set(place, pte)
    return None


def do_fault(mm: Mm, vma: Vma, at: int, write: bool, *, marked: bool) -> Signal | None:
    """First touch of file memory (mm/memory.c:do_fault)."""
    file = vma.file
    assert file is not None
    if not write:
        if not marked and not vma.flags & VmFlag.UFFD_WP and _fault_around(mm, vma, at):
            return None
        frame = _file_page(mm, vma, at)
        if not frame:
            return Signal.BUS
        if not thp.map_file_pmd(mm, vma, at, frame, write=False):
            mm.tables.alloc(at, 1)
            whole = _folio_places(mm, vma, at, frame) if mm.entries.profile.faults_around_folio else None
            for place in whole or (at,):
                _set_file_pte(mm, vma, place, frame + place - at, write=False, marked=marked)
        return None
    if not vma.flags & VmFlag.SHARED:
        rmap.anon_vma_prepare(mm, vma)
        source = _file_page(mm, vma, at)
        if not source:
            return Signal.BUS
        mm.tables.alloc(at, 1)
        frame = mm.frames.alloc(0)
        mm.frames.copy(source, frame)
        rmap.add_new_anon(mm, vma, at, frame)
        pte = _maybe_write(mm, vma, mm.entries.pte_mkdirty(mm.entries.pfn_pte(frame, vma.prot)))
        if marked:
            pte = mm.entries.pte_mkuffd_wp(mm.entries.pte_wrprotect(pte))
        mm.tables.set(at, pte)
        return None
    frame = _file_page(mm, vma, at)
    if not frame:
        return Signal.BUS
    if thp.map_file_pmd(mm, vma, at, frame, write=True):
        return None
    mm.tables.alloc(at, 1)
    places = _folio_places(mm, vma, at, frame)
    for place in places or (at,):
        _set_file_pte(mm, vma, place, frame + place - at, write=True, marked=marked)
    return None


def _file_page(mm: Mm, vma: Vma, at: int) -> int:
    """The page-cache page for a fault; with MADV_HUGEPAGE a huge one where none is yet (mm/shmem.c:shmem_get_folio)."""
    file, files = vma.file, mm.kernel.files
    assert file is not None
    offset = vma.shown_offset(at)
    if (
        vma.flags & VmFlag.HUGEPAGE
        and offset < file.pages
        and mm.entries.profile.faults_huge_shmem
        and not file.counts_dirty
        and (thp.file_suitable(vma, at) or not mm.entries.profile.faults_huge_shmem_suits_area)
        and files.is_empty(file, offset)
    ):
        return files.add_huge_page(file, offset) + offset % HUGE_PAGES
    return files.get_page(file, offset)


def _folio_places(mm: Mm, vma: Vma, at: int, frame: int) -> range | None:
    """The pages that one fault maps where the whole of a huge page fits among empty entries (finish_fault of 6.12)."""
    frames = mm.frames
    file = vma.file
    if not mm.entries.profile.faults_whole_folio or not frames.flags[frame] & page.COMPOUND or vma.uffd is not None:
        return None
    if file is None or mm.kernel.files.number_of(file)[1] is not None:
        return None
    places = _mapped_whole(mm, vma, at, frame)
    return None if any(mm.tables.get(place) for place in places or ()) else places


def _mapped_whole(mm: Mm, vma: Vma, at: int, frame: int) -> range | None:
    """Where the large page of a file would stand that `frame` is part of, if that is inside area and page table."""
    folio = mm.frames.folio(frame)
    first = at - (frame - folio.start)
    last = first + len(folio) - 1
    fits = first >= vma.start and last < vma.end and first // HUGE_PAGES == last // HUGE_PAGES
    return range(first, last + 1) if fits else None


def _set_file_pte(mm: Mm, vma: Vma, at: int, frame: int, *, write: bool, marked: bool) -> None:
    """mm/memory.c:do_set_pte of a page-cache page."""
    entries = mm.entries
    pte = entries.pfn_pte(frame, vma.prot)
    if write:
        mm.frames.mark_dirty(int(mm.frames.head[frame]))
        pte = _maybe_write(mm, vma, entries.pte_mkdirty(pte))
    elif pte & RW and mm.frames.is_dirty(frame) and entries.profile.faults_mark_dirty_files:
        pte = entries.pte_mkdirty(pte)
    if marked:
        pte = entries.pte_mkuffd_wp(entries.pte_wrprotect(pte))
    mm.frames.add_rmap(frame)
    rmap.note_locked(mm, vma, frame)
    mm.tables.set(at, pte)


def _maybe_write(mm: Mm, vma: Vma, pte: int) -> int:
    """maybe_mkwrite"""
    return mm.entries.pte_mkwrite(pte) if vma.flags & VmFlag.WRITE else pte


def _fault_around(mm: Mm, vma: Vma, at: int) -> bool:
    """Map the cached pages around a read fault; True when `at` itself was one of them (do_fault_around)."""
    pages = mm.entries.profile.faults_around_pages
    file = vma.file
    if pages <= 1 or file is None:
        return False
    first = max(at & ~(pages - 1), vma.start)
    last = min(first | HUGE_PAGES - 1, vma.end - 1, first + pages - 1)
    cached_here = file.cache.get(vma.offset(at), 0)
    if cached_here and mm.entries.profile.faults_around_folio:
        whole = _mapped_whole(mm, vma, at, cached_here)
        if whole is not None and len(whole) > pages:
            first, last = whole.start, whole.stop - 1
    start = vma.offset(first)
    end = min(vma.offset(last), file.pages - 1)
    cached = [offset for offset in range(start, end + 1) if offset in file.cache]
    if not cached:
        return False
    if thp.map_file_pmd(mm, vma, first + cached[0] - start, file.cache[cached[0]], write=False):
        return True
    mm.tables.alloc(at, 1)
    mapped = False
    for offset in cached:
        place = first + offset - start
        if mm.tables.get(place):
            continue
        _set_file_pte(mm, vma, place, file.cache[offset], write=False, marked=False)
        mapped = mapped or place == at
    return mapped


def do_wp_page(mm: Mm, vma: Vma, at: int, pte: int) -> Signal | None:
    """Write to a present read-only entry (mm/memory.c:do_wp_page)."""
    entries, frames = mm.entries, mm.frames
    if pte & UFFD_WP and vma.flags & VmFlag.UFFD_WP:
        if not vma.resolves_itself:
            return Signal.BUS
        pte = entries.pte_clear_uffd_wp(pte)
        mm.tables.set(at, pte)
    frame = mm.entries.vm_normal_page(pte)
    if frame:
        anon = bool(frames.flags[frame] & page.ANON)
        if not anon and vma.flags & (VmFlag.WRITE | VmFlag.SHARED) == VmFlag.WRITE | VmFlag.SHARED:
            frames.mark_dirty(int(frames.head[frame]))
            _reuse(mm, vma, at, pte)
            return None
        if anon and _may_reuse(mm, at, frame):
            if not entries.profile.faults_reuse_by_mapcount:
                assert vma.anon_vma is not None
                frames.move_anon_rmap(frame, vma.anon_vma.identity)
            _reuse(mm, vma, at, pte)
            return None
    _copy(mm, vma, at, frame)
    return None


def _may_reuse(mm: Mm, at: int, frame: int) -> bool:
    """May the write go to this anonymous page itself (wp_can_reuse_anon_folio)?"""
    frames = mm.frames
    if mm.entries.profile.faults_reuse_by_mapcount:
        return swapin.reuse_swap_page(mm.kernel, frame)
    flags = int(frames.flags[frame])
    if flags & page.EXCLUSIVE:
        return True
    if flags & page.KSM:
        return False
    if flags & page.COMPOUND and mm.entries.profile.faults_copy_compound:
        return mm.entries.profile.faults_reuse_compound and _owns_compound(mm, frame)
    empties = mm.entries.profile.faults_empty_batches and frames.waiting[frame]
    if empties and mm.kernel.choices.keeps_frame(mm.who, at - mm.kernel.base):
        mm.kernel.lru.drain()  # here, or where another page that is on no list yet was written
    if frames.references(frame) > 1 + (frame in frames.cached_slot):
        return False
    release.free_cache(mm.kernel, frame)
    return frames.references(frame) == 1


def _owns_compound(mm: Mm, frame: int) -> bool:
    """Is a huge page mapped by this process alone, in more than one place, and used by nobody else?

    __wp_can_reuse_large_anon_folio
    """
    mapped = thp.folio_mapcount(mm.frames, frame)
    return mapped > 1 and mm.frames.references(frame) == mapped == rmap.mapped_by(mm, frame)


def _reuse(mm: Mm, vma: Vma, at: int, pte: int) -> None:
    """mm/memory.c:wp_page_reuse"""
    entries = mm.entries
    mm.tables.set(at, _maybe_write(mm, vma, entries.pte_mkdirty(entries.pte_mkyoung(pte))))


def unshare(mm: Mm, vma: Vma, at: int, pte: int) -> None:
    """An exclusive copy, as little writable and as soft-dirty as before (wp_page_copy with FAULT_FLAG_UNSHARE)."""
    entries = mm.entries
    _copy(mm, vma, at, mm.entries.vm_normal_page(pte))
    new = entries.pfn_pte(entries.pte_pfn(mm.tables.get(at)), vma.prot)
    mm.tables.set(at, new | entries.pte_soft_dirty(pte) | pte & UFFD_WP)


def _copy(mm: Mm, vma: Vma, at: int, old: int) -> None:
    """mm/memory.c:wp_page_copy; `old` is 0 for the zero page."""
    entries, frames = mm.entries, mm.frames
    rmap.anon_vma_prepare(mm, vma)
    frame = frames.alloc(0)
    if old:
        frames.copy(old, frame)
    rmap.add_new_anon(mm, vma, at, frame)
    mm.tables.set(at, _maybe_write(mm, vma, entries.pte_mkdirty(entries.pfn_pte(frame, vma.prot))))
    if old:
        frames.remove_rmap(old)
        rmap.note_locked(mm, vma, old)
        release.put(mm.kernel, old)
