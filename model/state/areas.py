"""The areas of one address space, in order (mm_struct's tree of areas). All places are page numbers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from ptewalk.model.linux import VmFlag
from ptewalk.model.state.vma import AnonVma, Vma, unlink_anon_vmas


class Areas:
    """The areas of one address space, sorted. How they split and merge is in mm/modify.py.

    Parameters
    ----------
    unimportant : int
        Flags that do not keep areas apart: VM_SOFTDIRTY where the kernel has it, and VM_MAYBE_GUARD.
    """

    def __init__(self, unimportant: int) -> None:
        self.unimportant = unimportant
        self.list: list[Vma] = []

    def __iter__(self) -> Iterator[Vma]:
        return iter(self.list)

    def _position(self, page: int) -> int:
        """Index of the first area that ends after `page`."""
        position = bisect_right(self.list, page, key=lambda vma: vma.start)
        if position and self.list[position - 1].end > page:
            position -= 1
        return position

    def find(self, page: int) -> Vma | None:
        """The first area that ends after `page` (find_vma)."""
        position = self._position(page)
        return self.list[position] if position < len(self.list) else None

    def lookup(self, page: int) -> Vma | None:
        """The area that holds `page` (vma_lookup)."""
        vma = self.find(page)
        return vma if vma and vma.start <= page else None

    def neighbours(self, page: int) -> tuple[Vma | None, Vma | None]:
        """The last area that ends at or before `page`, and the first that ends after it."""
        position = self._position(page)
        before = self.list[position - 1] if position else None
        return before, self.list[position] if position < len(self.list) else None

    def before(self, vma: Vma) -> Vma | None:
        """The area before `vma`."""
        position = self._position(vma.start)
        return self.list[position - 1] if position else None

    def after(self, vma: Vma) -> Vma | None:
        """The area after `vma`."""
        position = self._position(vma.start) + 1
        return self.list[position] if position < len(self.list) else None

    def in_range(self, start: int, end: int) -> list[Vma]:
        """The areas that overlap pages [start, end)."""
        found = []
        for vma in self.list[self._position(start) :]:
            if vma.start >= end:
                break
            found.append(vma)
        return found

    def insert(self, vma: Vma) -> None:
        """vma_link"""
        self.list.insert(bisect_right(self.list, vma.start, key=lambda v: v.start), vma)

    def remove(self, vma: Vma) -> None:
        """Take an area out of the list."""
        del self.list[self._position(vma.start)]

    def delete(self, vma: Vma) -> None:
        """Take an area out and free it."""
        self.remove(vma)
        unlink_anon_vmas(vma)

    def find_mergeable_anon_vma(self, vma: Vma) -> AnonVma | None:
        """A neighbour's anon_vma that a first fault may share (mm/mmap.c:find_mergeable_anon_vma)."""
        after = self.after(vma)
        if after and self._may_share(vma, after) and after.anon_vma and len(after.chain) == 1:
            return after.anon_vma
        before = self.before(vma)
        if before and self._may_share(before, vma) and before.anon_vma and len(before.chain) == 1:
            return before.anon_vma
        return None

    def _may_share(self, first: Vma, second: Vma) -> bool:
        """anon_vma_compatible: the flags differ at most in rights and soft-dirty."""
        ignored = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC | self.unimportant
        return (
            first.end == second.start
            and first.file is second.file
            and not (first.flags ^ second.flags) & ~ignored
            and second.pgoff == first.pgoff + second.start - first.start
        )
