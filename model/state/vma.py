"""Areas of an address space (struct vm_area_struct): anon_vma, splitting, and when two of them merge.

mm/mmap.c and mm/rmap.c of 3.11 and 6.1, mm/vma.c of 6.12. All places are page numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING

from ptewalk.model.linux import MergeRule, VmFlag
from ptewalk.model.pte import Entries
from ptewalk.model.state.files import File

if TYPE_CHECKING:
    from ptewalk.model.mm.hugetlb import Reservation
    from ptewalk.model.mm.uffd import Userfaultfd


identities = count(1)
"""Numbers for anon_vmas and files, which frames name as their owner."""


class AnonVma:
    """struct anon_vma: who may share anonymous pages.

    Attributes
    ----------
    root, parent : AnonVma
    children : int
        num_children: anon_vmas below this one; a root counts itself.
    active : int
        num_active_vmas: areas whose own anon_vma this is.
    links : int
        Areas that have it in their chain.
    """

    __slots__ = ("root", "parent", "children", "active", "links", "identity")

    def __init__(self, parent: AnonVma | None = None) -> None:
        self.identity = next(identities)
        self.root: AnonVma = parent.root if parent else self
        self.parent: AnonVma = parent or self
        self.children = 0 if parent else 1
        self.active = 0
        self.links = 0
        if parent:
            parent.children += 1


class Vma:
    """One area: pages [start, end)."""

    __slots__ = (
        "start",
        "end",
        "flags",
        "pgoff",
        "file",
        "anon_vma",
        "chain",
        "prot",
        "uffd",
        "huge_level",
        "remapped",
        "reservation",
        "page_taken",
    )

    def __init__(self, start: int, end: int, flags: int, pgoff: int, file: File | None) -> None:
        self.start = start
        self.end = end
        self.flags = flags
        self.pgoff = pgoff
        self.file = file
        self.anon_vma: AnonVma | None = None
        self.chain: list[AnonVma] = []
        self.prot = 0
        """vm_page_prot"""
        self.uffd: Userfaultfd | None = None
        """vm_userfaultfd_ctx"""
        self.huge_level = 0
        """Level of a hugetlb area's leaves: 2 or 3; 0 for every other area."""
        self.remapped: dict[int, int] | None = None
        """`Mm.remapped` when remap_file_pages was used on the area (3.11); None: never."""
        self.reservation: Reservation | None = None
        """A hugetlb area's own pool pages."""
        self.page_taken = False
        """A hugetlb page was taken from the area for its owner's sake."""

    def copy(self) -> Vma:
        """vm_area_dup: the same area, with no anon_vma yet."""
        twin = Vma(self.start, self.end, self.flags, self.pgoff, self.file)
        twin.prot = self.prot
        twin.uffd = self.uffd
        twin.huge_level = self.huge_level
        twin.remapped = self.remapped
        twin.reservation = self.reservation
        return twin

    @property
    def is_anonymous(self) -> bool:
        """vma_is_anonymous: no vm_ops."""
        return self.file is None and not self.huge_level

    @property
    def is_cow(self) -> bool:
        """is_cow_mapping: private and possibly writable."""
        return self.flags & (VmFlag.SHARED | VmFlag.MAYWRITE) == VmFlag.MAYWRITE

    def offset(self, page: int) -> int:
        """linear_page_index"""
        return self.pgoff + page - self.start

    def shown_offset(self, page: int) -> int:
        """The offset that `page` shows: the linear one, or what remap_file_pages made it."""
        if self.remapped is not None and page in self.remapped:
            return self.remapped[page]
        return self.offset(page)


def link_anon_vma(vma: Vma, anon_vma: AnonVma) -> None:
    """anon_vma_chain_link"""
    vma.chain.append(anon_vma)
    anon_vma.links += 1


def anon_vma_clone(target: Vma, source: Vma, *, reuse: bool) -> None:
    """Link `target` to every anon_vma of `source` (mm/rmap.c:anon_vma_clone).

    `reuse`: an anon_vma that no area uses any more, with at most one child, becomes the target's own (4.0 and later).
    """
    for anon_vma in source.chain:
        link_anon_vma(target, anon_vma)
        if reuse and not target.anon_vma and source.anon_vma and anon_vma.children < 2 and anon_vma.active == 0:
            target.anon_vma = anon_vma
    if target.anon_vma:
        target.anon_vma.active += 1


def unlink_anon_vmas(vma: Vma) -> None:
    """mm/rmap.c:unlink_anon_vmas"""
    for anon_vma in vma.chain:
        anon_vma.links -= 1
        if not anon_vma.links:
            anon_vma.parent.children -= 1
    vma.chain = []
    if vma.anon_vma:
        vma.anon_vma.active -= 1
        vma.anon_vma = None


def anon_vma_fork(child: Vma, parent: Vma, *, reuse: bool) -> None:
    """mm/rmap.c:anon_vma_fork"""
    if not parent.anon_vma:
        return
    anon_vma_clone(child, parent, reuse=reuse)
    if child.anon_vma:
        return
    child.anon_vma = AnonVma(parent.anon_vma)
    child.anon_vma.active += 1
    link_anon_vma(child, child.anon_vma)


class Areas:
    """The areas of one address space, sorted, and the rules by which they split and merge.

    Parameters
    ----------
    entries : Entries
        The kernel.
    split_huge : callable
        Called with an area and a page number before a boundary is put at that page (vma_adjust_trans_huge).
    """

    def __init__(self, entries: Entries, split_huge: Callable[[Vma, int], None]) -> None:
        self.entries = entries
        self.rule = entries.profile.merge
        self.split_huge = split_huge
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

    def split(self, vma: Vma, page: int, *, new_below: bool) -> Vma:
        """Split `vma` at `page`; the new area, below or above, is returned (mm/mmap.c:__split_vma)."""
        self.split_huge(vma, page)
        new = vma.copy()
        anon_vma_clone_split(new, vma)
        if new_below:
            new.end = page
            vma.pgoff += page - vma.start
            vma.start = page
            self.list.insert(self._position(vma.start), new)
        else:
            new.start = page
            new.pgoff += page - vma.start
            vma.end = page
            self.list.insert(self._position(vma.start) + 1, new)
        return new

    # Merging.

    def _same_kind(self, vma: Vma, flags: int, file: File | None, uffd: Userfaultfd | None) -> bool:
        """is_mergeable_vma: VM_SOFTDIRTY does not count."""
        return (
            not (vma.flags ^ flags) & ~self.entries.VM_SOFTDIRTY
            and vma.file is file
            and vma.uffd is uffd
            and not vma.huge_level
        )

    @staticmethod
    def _anon_compatible(first: AnonVma | None, second: AnonVma | None, vma: Vma | None) -> bool:
        """is_mergeable_anon_vma"""
        if (not first or not second) and (vma is None or len(vma.chain) == 1):
            return True
        return first is second

    def _fits_after(
        self, vma: Vma, flags: int, anon_vma: AnonVma | None, file: File | None, pgoff: int, uffd: Userfaultfd | None
    ) -> bool:
        """can_vma_merge_after: may the range be added at the end of `vma`?"""
        return (
            self._same_kind(vma, flags, file, uffd)
            and self._anon_compatible(anon_vma, vma.anon_vma, vma)
            and vma.pgoff + vma.end - vma.start == pgoff
        )

    def _fits_before(
        self, vma: Vma, flags: int, anon_vma: AnonVma | None, file: File | None, pgoff: int, uffd: Userfaultfd | None
    ) -> bool:
        """can_vma_merge_before: may a range whose end has offset `pgoff` be added before `vma`?"""
        return (
            self._same_kind(vma, flags, file, uffd)
            and self._anon_compatible(anon_vma, vma.anon_vma, vma)
            and vma.pgoff == pgoff
        )

    def _take_anon(self, target: Vma, source: Vma) -> None:
        """The growing area takes over the anon_vma of the shrinking one (dup_anon_vma)."""
        if source.anon_vma and not target.anon_vma:
            target.anon_vma = source.anon_vma
            target.chain = []
            anon_vma_clone(target, source, reuse=False)

    def expand_new(self, start: int, end: int, flags: int, file: File | None, pgoff: int) -> Vma | None:
        """Make a neighbour cover the new mapping [start, end), if one can (mmap); that area, or None."""
        before, after = self.neighbours(start)
        if self.rule == MergeRule.CASES:
            return self.merge(before, start, end, flags, None, file, pgoff, None)
        chosen: Vma | None = None
        merge_start, merge_end, merge_pgoff = start, end, pgoff
        right = (
            after
            if after and after.start == end and self._fits_before(after, flags, None, file, pgoff + end - start, None)
            else None
        )
        if self.rule == MergeRule.CASES_EXPAND:
            if right:
                chosen, merge_end, merge_pgoff = right, right.end, right.pgoff - (end - start)
            if before and before.end == start:
                anon_vma, uffd = (chosen.anon_vma, chosen.uffd) if chosen else (None, None)
                if self._fits_after(before, flags, anon_vma, file, pgoff, uffd):
                    chosen, merge_start, merge_pgoff = before, before.start, before.pgoff
        else:
            left = (
                before
                if before and before.end == start and self._fits_after(before, flags, None, file, pgoff, None)
                else None
            )
            if left and right and not self._anon_compatible(left.anon_vma, right.anon_vma, None):
                right = None
            if right:
                chosen, merge_end, merge_pgoff = right, right.end, right.pgoff - (end - start)
            if left:
                chosen, merge_start, merge_pgoff = left, left.start, left.pgoff
        if not chosen:
            return None
        if right and chosen is not right and merge_end == right.end:
            self._take_anon(chosen, right)
            self.delete(right)
        chosen.start, chosen.end, chosen.pgoff = merge_start, merge_end, merge_pgoff
        return chosen

    def merge(
        self,
        before: Vma | None,
        start: int,
        end: int,
        flags: int,
        anon_vma: AnonVma | None,
        file: File | None,
        pgoff: int,
        uffd: Userfaultfd | None,
        *,
        exclude: Vma | None = None,
    ) -> Vma | None:
        """Merge pages [start, end), which get `flags`, with their neighbours (mm/mmap.c:vma_merge).

        Parameters
        ----------
        before : Vma or None
            The area before the range, or the one that the range lies in when it does not start there.
        start, end, flags, anon_vma, file, pgoff, uffd
            The range: free, or one area, or part of one.
        exclude : Vma or None
            A neighbour that must not be merged with.

        Returns
        -------
        Vma or None
            The area that now covers the range; None when nothing merged.
        """
        mid = self.find(before.end if before else 0)
        after = mid
        if after and after.end == end:
            after = self.after(after)
        left = bool(before and before.end == start and self._fits_after(before, flags, anon_vma, file, pgoff, uffd))
        right = bool(
            after and after.start == end and self._fits_before(after, flags, anon_vma, file, pgoff + end - start, uffd)
        )
        left = left and before is not exclude
        right = right and after is not exclude
        inside = before if before and before.end > start else mid if mid and mid.start <= start < mid.end else None
        if self.rule == MergeRule.RANGES and inside:
            return self._merge_existing(inside, before, after, start, end, left, right)
        if left and right and before and after and self._anon_compatible(before.anon_vma, after.anon_vma, None):
            covered = mid if mid is not after else None
            if covered:
                self._take_anon(before, covered if covered.anon_vma else after)
                self.delete(covered)
            else:
                self._take_anon(before, after)
            self.delete(after)
            before.end = after.end
            return before
        if left and before:
            if mid and end > mid.start:
                self._take_anon(before, mid)
                if end >= mid.end:
                    self.delete(mid)
                else:
                    self._shrink_start(mid, end)
            before.end = end
            return before
        if right and after:
            if before and start < before.end:
                self._take_anon(after, before)
                self.split_huge(before, start)
                before.end = start
            elif mid and mid is not after:
                self._take_anon(after, mid)
                self.delete(mid)
            after.pgoff -= after.start - start
            after.start = start
            return after
        return None

    def _shrink_start(self, vma: Vma, page: int) -> None:
        """Move the start of an area up to `page`."""
        self.split_huge(vma, page)
        vma.pgoff += page - vma.start
        vma.start = page

    def _merge_existing(
        self, vma: Vma, before: Vma | None, after: Vma | None, start: int, end: int, left: bool, right: bool
    ) -> Vma | None:
        """mm/vma.c:vma_merge_existing_range of 6.12."""
        at_start, at_end = start == vma.start, end == vma.end
        left = left and at_start and before is not vma
        right = right and at_end
        if left and right and before and after and not self._anon_compatible(before.anon_vma, after.anon_vma, None):
            right = False
        if left and right and before and after:
            self._take_anon(before, after if after.anon_vma else vma)
            self.delete(vma)
            self.delete(after)
            before.end = after.end
            return before
        if left and before:
            self._take_anon(before, vma)
            if at_end:
                self.delete(vma)
            else:
                self._shrink_start(vma, end)
            before.end = end
            return before
        if right and after:
            self._take_anon(after, vma)
            if at_start:
                self.delete(vma)
            else:
                self.split_huge(vma, start)
                vma.end = start
            after.pgoff -= after.start - start
            after.start = start
            return after
        return None

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
        ignored = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC | self.entries.VM_SOFTDIRTY
        return (
            first.end == second.start
            and first.file is second.file
            and not (first.flags ^ second.flags) & ~ignored
            and second.pgoff == first.pgoff + second.start - first.start
        )


def anon_vma_clone_split(new: Vma, vma: Vma) -> None:
    """A split area keeps the anon_vma and all its links."""
    new.anon_vma = vma.anon_vma
    anon_vma_clone(new, vma, reuse=False)
