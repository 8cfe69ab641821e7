"""Writes to /proc/PID/clear_refs (fs/proc/task_mmu.c:clear_refs_write)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ptewalk.model import thp
from ptewalk.model.errors import Errno
from ptewalk.model.linux import Track, VmFlag
from ptewalk.model.pte import ALL, PROTNONE, RW, SPECIAL, A, P
from ptewalk.model.tables import PMD_SHIFT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ptewalk.model.kernel import Kernel
    from ptewalk.model.mm import Mm
    from ptewalk.model.vma import Vma

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


def accept(kernel: Kernel, text: str) -> tuple[int, int]:
    """What is done with `text` before the process is looked for: (command, bytes taken).

    Raises
    ------
    Errno
        EINVAL, ERANGE.
    """
    value, taken = parse(text)
    if value not in kernel.profile.clear_values:
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
        _clear_area_flags(mm)
        mm.kernel.notify_soft_dirty(mm)
    for vma in mm.areas:
        if vma.huge_level:
            continue
        if (value == CLEAR_REFS_ANON and vma.file is not None) or (value == CLEAR_REFS_MAPPED and vma.file is None):
            continue
        _walk(mm, vma, value)
    mm.kernel.mmu.invalidate(None)
    return taken


def _clear_area_flags(mm: Mm) -> None:
    """VM_SOFTDIRTY off; shared writable areas then want to see the first write."""
    flag = mm.entries.VM_SOFTDIRTY
    if not flag:
        return
    for vma in mm.areas:
        if vma.flags & flag:
            vma.flags &= ~flag
            mm.set_page_prot(vma)


def _walk(mm: Mm, vma: Vma, value: int) -> None:
    """clear_refs_pte_range over one area."""
    entries = mm.entries
    for block, first, last, huge in mm.tables.blocks(vma.start, vma.end):
        if huge:
            head = block << PMD_SHIFT
            if not entries.profile.clear_splits_huge:
                _clear_huge(mm, vma, head, value)
                continue
            thp.split_huge_pmd(mm, vma, head)
        part = mm.tables.part(block, first, last)
        if value == CLEAR_REFS_SOFT_DIRTY:
            if entries.soft_dirty:
                part[:] = clear_soft_dirty(mm, vma, part)
        else:
            normal = ((part & np.uint64(P | PROTNONE)) != 0) & ((part & np.uint64(SPECIAL)) == 0)
            part[normal] &= np.uint64(ALL ^ A)


def clear_soft_dirty(mm: Mm, vma: Vma, part: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """What clear_refs 4 makes of a run of entries of one area (fs/proc/task_mmu.c:clear_soft_dirty)."""
    entries = mm.entries
    present = (part & np.uint64(P | PROTNONE)) != 0
    cleared = clear_present(mm, vma, part)
    if mm.has_pinned and vma.is_cow and not entries.profile.reuse_by_mapcount:
        writable = present & ((part & np.uint64(RW)) != 0)
        for position in np.flatnonzero(writable):
            if mm.frames.is_pinned(entries.pte_pfn(int(part[position]))):
                cleared[position] = part[position]
    if not entries.profile.clear_swap:
        return np.where(present, cleared, part)
    return np.where(present, cleared, part & np.uint64(ALL ^ entries.SWP_SOFT_DIRTY))


def clear_present(mm: Mm, vma: Vma, pte: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Present entries write-protected and clean, by the way of tracking.

    `fault`: an entry that was writable is armed instead, unless software must see the first write. `native`: the entry
    stays
    writable.
    """
    entries = mm.entries
    if entries.track == Track.NATIVE:
        return entries.pte_clear_soft_dirty(pte)
    if entries.track == Track.FAULT:
        writable = pte & np.uint64(RW)
        armed = pte & np.uint64(entries.ARM)
        if permit(vma):
            armed = armed | np.where(writable != 0, np.uint64(entries.ARM), np.uint64(0))
        return entries.pte_clear_soft_dirty(entries.pte_wrprotect(pte)) | armed
    return entries.pte_clear_soft_dirty(entries.pte_wrprotect(pte))


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
        cleared = clear_present(mm, vma, np.array([pmd], np.uint64))
        mm.tables.set_huge(head, int(cleared[0]))
