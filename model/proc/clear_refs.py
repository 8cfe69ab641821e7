"""Writes to /proc/PID/clear_refs (fs/proc/task_mmu.c:clear_refs_write)."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model import bulk
from ptewalk.model.engine import Engine
from ptewalk.model.errors import Errno
from ptewalk.model.linux import VmFlag
from ptewalk.model.mm import modify, thp
from ptewalk.model.pte import ALL, PROTNONE, RW, SPECIAL, A, P
from ptewalk.model.state.machine import MachineState, Mm
from ptewalk.model.state.tables import ALL_TABLES, PMD_PAGES, SPAN_TABLES
from ptewalk.model.state.vma import Vma

Words = NDArray[np.uint64]
CLEAR_REFS_ALL: Final = 1
CLEAR_REFS_ANON: Final = 2
CLEAR_REFS_MAPPED: Final = 3
CLEAR_REFS_SOFT_DIRTY: Final = 4
CLEAR_REFS_MM_HIWATER_RSS: Final = 5
_BUFFER_BYTES: Final = 12
"""PROC_NUMBUF less the terminating zero."""
_INT_LIMIT: Final = 1 << 31
_WHITE_SPACE: Final = " \t\n\v\f\r"


def parse(text: str) -> tuple[int, int]:
    """What the kernel makes of the text: (value, bytes taken).

    At most 12 bytes are taken, a NUL ends the text, white space is stripped, and the rest is a number of base 10
    (lib/kstrtox.c:kstrtoint).

    Raises
    ------
    Errno
        EINVAL: not a number. ERANGE: a number beyond int.
    """
    taken = min(len(text.encode("latin-1", "replace")), _BUFFER_BYTES)
    digits = text[:taken].split("\0", 1)[0].strip(_WHITE_SPACE)
    sign = -1 if digits.startswith("-") else 1
    if digits[:1] in ("+", "-"):
        digits = digits[1:]
    if not digits or any(c not in "0123456789" for c in digits):
        raise Errno("EINVAL")
    value = sign * int(digits)
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise Errno("ERANGE")
    return value, taken


def accept(kernel: MachineState, text: str) -> tuple[int, int]:
    """What is done with `text` before the process is looked for: (command, bytes taken).

    Raises
    ------
    Errno
        EINVAL, ERANGE.
    """
    value, taken = parse(text)
    if value not in kernel.profile.clear_refs_values:
        raise Errno("EINVAL")
    if value == CLEAR_REFS_SOFT_DIRTY:
        kernel.clear_seen()
    return value, taken


def write(mm: Mm, text: str) -> int:
    """Write `text` to the clear_refs file of the process with `mm`; the number of bytes taken.

    Raises
    ------
    Errno
        EINVAL, ERANGE.
    """
    value, taken = accept(mm.kernel, text)
    if value == CLEAR_REFS_MM_HIWATER_RSS:
        return taken
    if value == CLEAR_REFS_SOFT_DIRTY:
        mm.changed.clear()
        mm.stored.clear()
        mm.gup_stored.clear()
        _clear_area_flags(mm)
        mm.kernel.notify_soft_dirty(mm)
    with mm.kernel.flush():
        mm.tables.forget_all()  # whatever was changed
        for vma in mm.areas:
            if vma.huge_level:
                continue
            if (value == CLEAR_REFS_ANON and vma.file is not None) or (value == CLEAR_REFS_MAPPED and vma.file is None):
                continue
            _walk(mm, vma, value)
    return taken


def _clear_area_flags(mm: Mm) -> None:
    """VM_SOFTDIRTY off; shared writable areas then want to see the first write."""
    flag = mm.entries.VM_SOFTDIRTY
    if not flag:
        return
    for vma in mm.areas:
        if vma.flags & flag:
            modify.clear_flags(vma, flag)
            modify.set_page_prot(mm, vma)


def _walk(mm: Mm, vma: Vma, value: int) -> None:
    """clear_refs_pte_range over one area."""
    splits = mm.entries.profile.clear_refs_splits_huge
    engine = mm.kernel.engine
    if engine is not None:
        _by_engine(mm, vma, value, engine)
        return
    for piece in mm.tables.pieces(vma, vma.start, vma.end, together=ALL_TABLES):
        if piece.leaf:
            if not splits:
                _clear_huge(mm, vma, piece.head, value)
                continue
            thp.split_huge_pmd(mm, vma, piece.head)
        change = clear_soft_dirty if value == CLEAR_REFS_SOFT_DIRTY else _clear_accessed
        mm.tables.change(piece.first, piece.last, partial(change, mm, vma))


def _by_engine(mm: Mm, vma: Vma, value: int, engine: Engine) -> None:
    """As `_walk`: an engine changes the entries; what is to be split, and what is pinned, is found here."""
    rules, splits = mm.entries, mm.entries.profile.clear_refs_splits_huge
    kept = _pinned(mm, vma) if value == CLEAR_REFS_SOFT_DIRTY else []
    at = vma.start
    for last in [*kept, vma.end]:
        while at < last:
            pages = mm.tables.pages(at, last)
            if value == CLEAR_REFS_SOFT_DIRTY:
                at = engine.clear(pages, rules, permit=permit(vma), splits=splits)
            else:
                at = engine.make_old(pages, rules, splits=splits)
            if at < last:
                thp.split_huge_pmd(mm, vma, at & -PMD_PAGES)
        at = last + 1


def _pinned(mm: Mm, vma: Vma) -> list[int]:
    """Pages of an area whose level-1 entries stay as they are, since they may map a pinned page."""
    kept: list[int] = []
    if keeps_pinned(mm, vma):
        for piece in mm.tables.pieces(vma, vma.start, vma.end, together=SPAN_TABLES):
            if not piece.leaf:
                places = pinned_places(mm, mm.tables.entries(piece.first, piece.last))
                kept += (piece.first + places).tolist()
    return kept


def _clear_accessed(mm: Mm, vma: Vma, part: Words) -> None:
    """What clear_refs 1 to 3 make of a run of entries, in place (ptep_test_and_clear_young)."""
    normal = ((part & np.uint64(P | PROTNONE)) != 0) & ((part & np.uint64(SPECIAL)) == 0)
    part[normal] &= np.uint64(ALL ^ A)


def clear_soft_dirty(mm: Mm, vma: Vma, part: Words) -> None:
    """What clear_refs 4 makes of a run of entries of one area, in place (fs/proc/task_mmu.c:clear_soft_dirty).

    An entry that may map a pinned page of a private area stays as it is.
    """
    entries, compiled = mm.entries, mm.kernel.compiled
    if not keeps_pinned(mm, vma):
        bulk.clear_refs(part, entries, permit=permit(vma), compiled=compiled)
        return
    pinned = pinned_places(mm, part)
    kept = part[pinned]
    bulk.clear_refs(part, entries, permit=permit(vma), compiled=compiled)
    part[pinned] = kept


def keeps_pinned(mm: Mm, vma: Vma) -> bool:
    """May some entries of the area stay as they are?"""
    return mm.has_pinned and vma.is_cow and mm.entries.profile.clear_refs_keeps_pinned


def pinned_places(mm: Mm, part: Words) -> NDArray[np.intp]:
    """Places of writable entries that may map a pinned page."""
    entries, frames = mm.entries, mm.frames
    writable = np.flatnonzero(((part & np.uint64(P | PROTNONE)) != 0) & ((part & np.uint64(RW)) != 0))
    heads = frames.head[entries.pte_pfn(part[writable]).view(np.int64)]
    near = writable[np.isin(heads, frames.head[np.array(list(frames.pins), np.int64)])]
    return near[[frames.is_pinned(entries.pte_pfn(entry)) for entry in part[near].tolist()]]


def permit(vma: Vma) -> bool:
    """May the MMU mend this area's entries by itself? Not where the file system must see the first write."""
    return not (vma.flags & VmFlag.SHARED and vma.file is not None and vma.file.counts_dirty)


def _clear_huge(mm: Mm, vma: Vma, head: int, value: int) -> None:
    """clear_soft_dirty_pmd, or A off."""
    entries = mm.entries
    pmd = mm.tables.get_huge(head)
    if value != CLEAR_REFS_SOFT_DIRTY:
        mm.tables.set_huge(head, entries.pte_mkold(pmd))
    elif entries.soft_dirty:
        entry = np.array([pmd], np.uint64)
        bulk.clear_refs(entry, entries, permit=permit(vma))
        mm.tables.set_huge(head, int(entry[0]))
