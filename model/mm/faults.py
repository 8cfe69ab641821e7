"""Page faults (mm/memory.c: handle_mm_fault and below; arch/x86/mm/fault.c)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from ptewalk.model.linux import HUGE_PAGES, STACK_GUARD_GAP, STACK_LIMIT, VmFlag
from ptewalk.model.mm import hugetlb, swap, thp, uffd
from ptewalk.model.pte import PROTNONE, SPECIAL, UFFD_WP, P
from ptewalk.model.state import frames as page
from ptewalk.model.x86 import ErrorBit

if TYPE_CHECKING:
    from ptewalk.model.mm.mmap import Mm
    from ptewalk.model.state.vma import Vma

_ACCESS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


class Signal(Enum):
    """How a fault ends that cannot be handled."""

    MAPERR = "maperr"
    ACCERR = "accerr"
    PKUERR = "pkuerr"
    BUS = "bus"


def user_fault(mm: Mm, at: int, code: int) -> Signal | None:
    """A page fault of the page `at` with error code `code` (do_user_addr_fault); None: try the access again."""
    write = bool(code & 1 << ErrorBit.WR)
    grows = not mm.entries.profile.stack_guard_page or not code & 1 << ErrorBit.US
    vma = find_or_grow(mm, at) if grows else mm.areas.lookup(at)
    if vma is None:
        return Signal.MAPERR
    if code & 1 << ErrorBit.PK or not mm.kernel.key_permits(mm, vma, write):
        return Signal.PKUERR
    if write:
        if not vma.flags & VmFlag.WRITE:
            return Signal.ACCERR
    elif code & 1 << ErrorBit.P or not vma.flags & _ACCESS:
        return Signal.ACCERR
    return handle_mm_fault(mm, vma, at, write)


def find_or_grow(mm: Mm, at: int) -> Vma | None:
    """The area that holds `at`, a stack grown down to it if need be (find_vma, expand_stack).

    3.11 grows no area for a user access far below the stack pointer, as every address of the window is.
    """
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
    mm.anon_vma_prepare(vma)
    grown = vma.start - at
    if grown > vma.pgoff or vma.end - at > STACK_LIMIT:
        return False
    mm.touch(at, vma.start)
    vma.start = at
    vma.pgoff -= grown
    return True


def handle_mm_fault(mm: Mm, vma: Vma, at: int, write: bool) -> Signal | None:
    """Make `at` accessible; None when done or to be tried again (mm/memory.c:__handle_mm_fault)."""
    if vma.huge_level:
        return hugetlb.fault(mm, vma, at, write)
    tables = mm.tables
    tables.alloc(at, 2)
    pmd = tables.get_huge(at)
    if not pmd and not tables.table(at, 1):
        if thp.allowed(vma, at) and thp.do_huge_pmd_anonymous_page(mm, vma, at, write):
            return None
    elif pmd:
        if not write or mm.entries.pte_write(pmd):
            thp.touch_pmd(mm, at, pmd, write)
            return None
        if pmd & UFFD_WP and vma.flags & VmFlag.UFFD_WP:
            if not uffd.resolves_itself(vma):
                return Signal.BUS
            pmd = mm.entries.pte_clear_uffd_wp(pmd)
            tables.set_huge(at & ~(HUGE_PAGES - 1), pmd)
        if thp.do_huge_pmd_wp_page(mm, vma, at, pmd):
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
    if not pte & P and pte & PROTNONE and vma.flags & _ACCESS and entries.profile.numa_fault:
        # A PROT_NONE entry of an area that may be accessed counts as a NUMA hint: restored, and the access tried again.
        tables.set(at, entries.pte_mkyoung(entries.pte_modify(pte, vma.prot)))
        return None
    if not pte & (P | PROTNONE):
        if entries.is_marker(pte):
            return _marker_fault(mm, vma, at, pte, write)
        if swap.do_swap_page(mm, vma, at, pte, write):
            return do_wp_page(mm, vma, at, tables.get(at))
        return None
    if write:
        if not entries.pte_write(pte):
            return do_wp_page(mm, vma, at, pte)
        pte = entries.pte_mkdirty(pte)
    tables.set(at, entries.pte_mkyoung(pte))
    return None


def _marker_fault(mm: Mm, vma: Vma, at: int, pte: int, write: bool) -> Signal | None:
    """A fault on a write-protection marker (handle_pte_marker, pte_marker_handle_uffd_wp)."""
    if not vma.flags & VmFlag.UFFD_WP:
        mm.tables.set(at, 0)
        return handle_pte_fault(mm, vma, at, write)
    if vma.is_anonymous:
        return do_anonymous_page(mm, vma, at, write, marked=True)
    return do_fault(mm, vma, at, write, marked=True)


def do_anonymous_page(mm: Mm, vma: Vma, at: int, write: bool, *, marked: bool) -> Signal | None:
    """First touch of anonymous memory (mm/memory.c:do_anonymous_page); `marked`: a uffd-wp marker stood there."""
    entries, tables = mm.entries, mm.tables
    if entries.profile.stack_guard_page and not _guard_stack(mm, vma, at):
        return Signal.BUS
    tables.alloc(at, 1)
    if not write:
        pte = entries.pfn_pte(mm.frames.zero, vma.prot | SPECIAL)
        tables.set(at, entries.pte_mkuffd_wp(pte) if marked else pte)
        return None
    mm.anon_vma_prepare(vma)
    frame = mm.frames.alloc(0)
    mm.add_new_anon(vma, at, frame)
    pte = entries.pfn_pte(frame, vma.prot)
    if vma.flags & VmFlag.WRITE:
        pte = entries.pte_mkwrite(entries.pte_mkdirty(pte))
    if marked:
        pte = entries.pte_mkuffd_wp(pte)
    tables.set(at, pte)
    return None


def _guard_stack(mm: Mm, vma: Vma, at: int) -> bool:
    """3.11 keeps the lowest page of a growing area free: a touch of it grows the area (check_stack_guard_page)."""
    if not vma.flags & VmFlag.GROWSDOWN or at != vma.start:
        return True
    before = mm.areas.before(vma)
    if before and before.end == at:
        return bool(before.flags & VmFlag.GROWSDOWN)
    expand_downwards(mm, vma, at - 1)
    return True


def do_fault(mm: Mm, vma: Vma, at: int, write: bool, *, marked: bool) -> Signal | None:
    """First touch of file memory (mm/memory.c:do_fault)."""
    file = vma.file
    assert file is not None
    offset = vma.shown_offset(at)
    if not write:
        if not marked and not vma.flags & VmFlag.UFFD_WP and _fault_around(mm, vma, at):
            return None
        frame = mm.kernel.files.get_page(file, offset)
        if not frame:
            return Signal.BUS
        mm.tables.alloc(at, 1)
        _set_file_pte(mm, vma, at, frame, write=False, marked=marked)
        return None
    if not vma.flags & VmFlag.SHARED:
        mm.anon_vma_prepare(vma)
        source = mm.kernel.files.get_page(file, offset)
        if not source:
            return Signal.BUS
        mm.tables.alloc(at, 1)
        frame = mm.frames.alloc(0)
        mm.frames.copy(source, frame)
        mm.add_new_anon(vma, at, frame)
        pte = _maybe_write(mm, vma, mm.entries.pte_mkdirty(mm.entries.pfn_pte(frame, vma.prot)))
        if marked:
            pte = mm.entries.pte_mkuffd_wp(mm.entries.pte_wrprotect(pte))
        mm.tables.set(at, pte)
        return None
    frame = mm.kernel.files.get_page(file, offset)
    if not frame:
        return Signal.BUS
    mm.tables.alloc(at, 1)
    _set_file_pte(mm, vma, at, frame, write=True, marked=marked)
    return None


def _set_file_pte(mm: Mm, vma: Vma, at: int, frame: int, *, write: bool, marked: bool) -> None:
    """mm/memory.c:do_set_pte of a page-cache page."""
    entries = mm.entries
    pte = entries.pfn_pte(frame, vma.prot)
    if write:
        pte = _maybe_write(mm, vma, entries.pte_mkdirty(pte))
    if marked:
        pte = entries.pte_mkuffd_wp(entries.pte_wrprotect(pte))
    mm.frames.maps[frame] += 1
    mm.note_locked(vma, frame)
    mm.tables.set(at, pte)


def _maybe_write(mm: Mm, vma: Vma, pte: int) -> int:
    """maybe_mkwrite"""
    return mm.entries.pte_mkwrite(pte) if vma.flags & VmFlag.WRITE else pte


def _fault_around(mm: Mm, vma: Vma, at: int) -> bool:
    """Map the cached pages around a read fault; True when `at` itself was one of them (do_fault_around)."""
    pages = mm.entries.profile.fault_around_pages
    file = vma.file
    if pages <= 1 or file is None:
        return False
    first = max(at & ~(pages - 1), vma.start)
    last = min(first | HUGE_PAGES - 1, vma.end - 1, first + pages - 1)
    if mm.entries.profile.saved_dirty:
        first, last = _window_6_12(vma, at, pages)
    start = vma.offset(first)
    end = min(vma.offset(last), file.pages - 1)
    cached = [offset for offset in range(start, end + 1) if offset in file.cache]
    if not cached:
        return False
    mm.tables.alloc(at, 1)
    mapped = False
    for offset in cached:
        place = first + offset - start
        if mm.tables.get(place):
            continue
        _set_file_pte(mm, vma, place, file.cache[offset], write=False, marked=False)
        mapped = mapped or place == at
    return mapped


def _window_6_12(vma: Vma, at: int, pages: int) -> tuple[int, int]:
    """First and last page of 6.12's fault-around window."""
    index = at & HUGE_PAGES - 1
    from_index = max(index & ~(pages - 1), index - min(index, at - vma.start))
    to_index = min(from_index + pages, HUGE_PAGES, index + vma.end - at) - 1
    return at - index + from_index, at - index + to_index


def do_wp_page(mm: Mm, vma: Vma, at: int, pte: int) -> Signal | None:
    """Write to a present read-only entry (mm/memory.c:do_wp_page)."""
    entries, frames = mm.entries, mm.frames
    if pte & UFFD_WP and vma.flags & VmFlag.UFFD_WP:
        if not uffd.resolves_itself(vma):
            return Signal.BUS
        pte = entries.pte_clear_uffd_wp(pte)
        mm.tables.set(at, pte)
    frame = mm.normal_page(pte)
    if frame:
        anon = bool(frames.flags[frame] & page.ANON)
        if not anon and vma.flags & (VmFlag.WRITE | VmFlag.SHARED) == VmFlag.WRITE | VmFlag.SHARED:
            _reuse(mm, vma, at, pte)
            return None
        if anon and _may_reuse(mm, frame):
            if not entries.profile.reuse_by_mapcount:
                frames.flags[frame] |= page.EXCLUSIVE
                if vma.anon_vma:
                    frames.owner[frame] = vma.anon_vma.root.identity
            _reuse(mm, vma, at, pte)
            return None
    _copy(mm, vma, at, frame)
    return None


def _may_reuse(mm: Mm, frame: int) -> bool:
    """May the write go to this anonymous page itself?"""
    frames = mm.frames
    if mm.entries.profile.reuse_by_mapcount:
        return swap.reuse_swap_page(mm.kernel, frame)
    flags = int(frames.flags[frame])
    if flags & page.EXCLUSIVE:
        return True
    if flags & page.KSM or (flags & page.COMPOUND and mm.entries.profile.saved_dirty):
        return False
    if frames.references(frame) > 1 + (frame in frames.cached_slot):
        return False
    swap.free_cache(mm.kernel, frame)
    return frames.references(frame) == 1


def _reuse(mm: Mm, vma: Vma, at: int, pte: int) -> None:
    """mm/memory.c:wp_page_reuse"""
    entries = mm.entries
    mm.tables.set(at, _maybe_write(mm, vma, entries.pte_mkdirty(entries.pte_mkyoung(pte))))


def unshare(mm: Mm, vma: Vma, at: int, pte: int) -> None:
    """An exclusive copy, as little writable and as soft-dirty as before (wp_page_copy with FAULT_FLAG_UNSHARE)."""
    entries = mm.entries
    _copy(mm, vma, at, mm.normal_page(pte))
    new = entries.pfn_pte(entries.pte_pfn(mm.tables.get(at)), vma.prot)
    mm.tables.set(at, new | entries.pte_soft_dirty(pte) | pte & UFFD_WP)


def _copy(mm: Mm, vma: Vma, at: int, old: int) -> None:
    """mm/memory.c:wp_page_copy; `old` is 0 for the zero page."""
    entries, frames = mm.entries, mm.frames
    mm.anon_vma_prepare(vma)
    frame = frames.alloc(0)
    if old:
        frames.copy(old, frame)
    mm.add_new_anon(vma, at, frame)
    mm.tables.set(at, _maybe_write(mm, vma, entries.pte_mkdirty(entries.pfn_pte(frame, vma.prot))))
    if old:
        frames.maps[old] -= 1
        mm.note_locked(vma, old)
        mm.kernel.put_mapped(old)
