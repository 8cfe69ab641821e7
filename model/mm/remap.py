"""What an entry loses and gains on its way through a migration entry (mm/migrate.c:remove_migration_pte)."""

from __future__ import annotations

from ptewalk.model.linux import VmFlag
from ptewalk.model.pte import PSE, RW, UFFD_WP, A
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma


def remade(mm: Mm, vma: Vma, old: int, frame: int, level: int = 1) -> int:
    """The entry for `frame` that takes the place of `old` (remove_migration_pte, remove_migration_pmd).

    3.11 keeps neither soft-dirty nor D nor A. 6.1 restores D by pte_mkdirty, which adds soft-dirty; 6.12 takes that
    back for small entries.
    """
    entries = mm.entries
    new = entries.pfn_pte(frame, vma.prot, level) | (PSE if level > 1 else 0)
    if entries.profile.remap_forgets:
        new = entries.pte_mkold(new)
        return entries.pte_mkwrite(new) if old & RW else new
    soft_dirty = bool(entries.pte_soft_dirty(old))
    if soft_dirty:
        new = entries.pte_mksoft_dirty(new)
    if not old & A:
        new = entries.pte_mkold(new)
    if entries.pte_dirty(old):
        new = entries.pte_mkdirty(new)
        if level == 1 and not entries.profile.remap_marks and not soft_dirty:
            new = entries.pte_clear_soft_dirty(new)
    if old & RW:
        return entries.pte_mkwrite(new) if vma.flags & VmFlag.WRITE else new
    if old & UFFD_WP:
        new = entries.pte_mkuffd_wp(new)
        return entries.pte_wrprotect(new) if level > 1 else new
    if level > 1 or entries.profile.remap_protects:
        new = entries.pte_wrprotect(new)
    return new | old & entries.ARM
