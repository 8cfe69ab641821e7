"""Moving pages to other frames (mm/migrate.c): what an entry loses and gains on its way through a migration entry."""

from __future__ import annotations

import errno
from collections import Counter

from ptewalk.model.errors import Errno
from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import gup, hugetlb, remap, rmap, stack, thp
from ptewalk.model.pte import P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm
from ptewalk.model.state.vma import Vma

UNWRITTEN = -999
"""What a caller that wants to know puts into the statuses before the call."""
_UNMAP_PASSES = 2
"""3.11 tries ten times: the first takes A, the second the entry (mm/migrate.c:migrate_pages)."""


def migrate_frame(mm: Mm, frame: int) -> int:
    """Move a page, small or transparent huge, with all its mappings; its new frame, 0 when it is pinned."""
    kernel, frames = mm.kernel, mm.frames
    head = int(frames.head[frame])
    huge = bool(frames.flags[head] & page.COMPOUND)
    size = len(frames.folio(head))
    mappings = [(offset, m) for offset in range(size) for m in rmap.walk(kernel, head + offset)]
    if frames.is_pinned(head):
        if not frames.flags[head] & page.EXCLUSIVE:
            _remake(mappings, head)
        return 0
    nonlinear = int(frames.maps[head]) - len(mappings) if frames.flags[head] & page.FILE else 0
    for _ in range(_UNMAP_PASSES * (nonlinear > 0)):
        rmap.unmap_nonlinear(kernel, head)
    where = frames.cached_slot.get(head)
    if where and mm.entries.profile.migrate_leaves_slots:  # try_to_unmap_one: its entries name the slot, and stay so
        for _, (other, _, at, _) in mappings:
            rmap.name_slot(other, at, where)
            frames.remove_rmap(head)
        mappings = []
    new = frames.alloc_compound(page.COMPOUND, size) if huge else frames.alloc(0)
    frames.migrate(head, new, size)
    if frames.flags[new] & page.FILE:
        cache = kernel.files.by_identity(int(frames.owner[new])).cache
        cache.update({int(frames.index[new]) + offset: new + offset for offset in range(size)})
    if where:
        kernel.swap.slots[where].frame = new
    _remake(mappings, new)
    anon = huge and frames.flags[new] & page.ANON
    if anon and mm.entries.profile.migrate_marks_partly_mapped and _falls_apart(mappings, size):
        frames.mark_partly_mapped(new)
    return new


def _falls_apart(mappings: list[tuple[int, tuple[Mm, Vma, int, bool]]], size: int) -> bool:
    """Is a large page for a while mapped in parts, as its entries become migration entries (__folio_remove_rmap)?

    Area by area; the one that it is moved to is then taken for mapped in parts too (migrate_folio_move).
    """
    small = Counter(offset for offset, (_, _, _, by_huge) in mappings if not by_huge)
    leaves = {(id(mm), at) for _, (mm, _, at, by_huge) in mappings if by_huge}
    areas: dict[int, list[int]] = {}
    for offset, (mm, vma, at, by_huge) in mappings:
        if by_huge and (id(mm), at) in leaves:
            leaves.discard((id(mm), at))
            areas.setdefault(id(vma), []).append(-1)
        elif not by_huge:
            areas.setdefault(id(vma), []).append(offset)
    huge = sum(offsets.count(-1) for offsets in areas.values())
    for offset in (offset for offsets in areas.values() for offset in offsets):
        if offset < 0:
            huge -= 1
            if not huge and 0 < len(+small) < size:
                return True
            continue
        small[offset] -= 1
        if not small[offset] and not huge and +small:
            return True
    return False


def _remake(mappings: list[tuple[int, tuple[Mm, Vma, int, bool]]], new: int) -> None:
    """Take every entry of a page through a migration entry, to the frame `new` or back to its own."""
    done = set()
    for offset, (mm, vma, at, by_huge) in mappings:
        if not by_huge:
            mm.tables.set(at, remap.remade(mm, vma, mm.tables.get(at), new + offset))
        elif (id(mm), at) not in done:
            done.add((id(mm), at))
            mm.tables.set_huge(at, remap.remade(mm, vma, mm.tables.get_huge(at), new, 2))


class _Batch:
    """What move_pages has isolated and not moved yet: heads, with the first of their places in the call."""

    def __init__(self, mm: Mm, statuses: list[int], node: int) -> None:
        self.mm, self.statuses, self.node = mm, statuses, node
        self.heads: list[int] = []
        self.first = 0

    def add(self, at: int) -> int:
        """Isolate the page at `at`: 1, or its status (add_page_for_migration)."""
        mm = self.mm
        frame = _page_to_move(mm, at)
        if frame < 0:
            return frame
        head = int(mm.frames.head[frame])
        if mm.kernel.nodes.get(head, 0) == self.node:
            return 0
        takes_tails = mm.entries.profile.migrate_takes_tails
        is_hugetlb = mm.frames.flags[frame] & page.HUGETLB
        shared = thp.is_shared(mm, frame) if takes_tails and not is_hugetlb else mm.frames.mapcount(frame) > 1
        if shared or (is_hugetlb and frame != head and not takes_tails):
            return -errno.EACCES
        if head in self.heads:
            return -errno.EBUSY
        self.heads.append(head)
        return 1

    def move(self, end: int) -> int:
        """Move what is isolated and give the places before `end` their status; pages that could not be moved."""
        heads, self.heads = self.heads, []
        if not heads:
            return 0
        mm = self.mm
        failed = sum(not _move_to_node(mm, head, self.node) for head in heads)
        if not failed:
            self.statuses[self.first : end] = [self.node] * (end - self.first)
        return failed


def _page_to_move(mm: Mm, at: int) -> int:
    """Frame that `at` maps; a negative error number when there is none that could move (follow_page)."""
    vma = mm.areas.lookup(at)
    if vma is None:
        return -errno.EFAULT
    profile = mm.entries.profile
    if vma.huge_level:
        entry = mm.tables.get_huge(at & ~(vma.leaf_pages - 1), vma.huge_level)
        return mm.entries.pte_pfn(entry) + at % vma.leaf_pages if mm.entries.pte_present(entry) else -errno.ENOENT
    pmd = mm.tables.get_huge(at)
    pte = pmd or mm.tables.get(at)
    if not pte:
        return -errno.EFAULT if vma.is_anonymous and profile.migrate_empty_is_efault else -errno.ENOENT
    if not (pte & P or (mm.entries.pte_present(pte) and profile.migrate_sees_prot_none)):
        return -errno.ENOENT
    if pmd:
        return -errno.EFAULT if thp.is_huge_zero(mm, pmd) else thp.pmd_frame(mm, pmd) + at % HUGE_PAGES
    return mm.entries.vm_normal_page(pte) or -errno.EFAULT


def _move_to_node(mm: Mm, head: int, node: int) -> bool:
    """Move a page, or a huge page that is mapped in parts by its parts; False when one cannot be moved."""
    kernel, frames = mm.kernel, mm.frames
    if frames.flags[head] & page.HUGETLB:
        return hugetlb.migrate(kernel, head, node)
    heads, profile = [head], mm.entries.profile
    if frames.flags[head] & (page.COMPOUND | page.FILE) == page.COMPOUND and profile.migrate_splits_partly_mapped:
        run = frames.folio(head)
        gaps = head not in frames.huge_maps and not frames.maps[frames.folio_slice(head)].all()
        if gaps or frames.is_partly_mapped(head):
            if not thp.split_huge_page(mm, head):
                return False
            heads = [frame for frame in run if frames.maps[frame]]
    moved = [migrate_frame(mm, frame) for frame in heads]
    for new in moved:
        if new and node:
            kernel.nodes[new] = node
    return all(moved)


def move_pages(mm: Mm, start: int, pages: int, node: int) -> tuple[int, list[int]]:
    """The system call move_pages (do_pages_move).

    Returns
    -------
    failed : int
        Pages that were not moved.
    statuses : list of int
        Per page a node or a negative error number; `UNWRITTEN` where the call writes none.
    """
    if node not in (0, 1):
        raise Errno("ENODEV")
    mm.kernel.lru.drain()
    statuses = [UNWRITTEN] * pages
    batch = _Batch(mm, statuses, node)
    for i in range(pages):
        if not batch.heads:
            batch.first = i
        found = batch.add(start + i)
        if found > 0:
            continue
        statuses[i] = found or node
        failed = batch.move(i)
        if failed:
            return failed + pages - i - 1, statuses
    return batch.move(pages), statuses


def soft_offline(mm: Mm, start: int, end: int) -> None:
    """MADV_SOFT_OFFLINE: pages move away from their frames, huge ones are split first (mm/memory-failure.c).

    A page that cannot move ends the call, and its error is lost (mm/madvise.c:madvise_hwpoison declares `ret` twice).
    """
    for at in range(start, end):
        vma = stack.find_or_grow(mm, at)
        if vma is None:
            raise Errno("EFAULT")
        mapped = mm.tables.get(at) | mm.tables.get_huge(at)
        if not mapped & P and not vma.flags & VmFlag.READ:  # get_user_pages_fast asks the entry first
            raise Errno("EFAULT")
        frame = gup.get_page(mm, vma, at, write=False, touch=False)
        if mm.frames.flags[frame] & page.ZERO:
            return
        if mm.frames.flags[frame] & page.COMPOUND:
            thp.split_huge_page(mm, frame)
        if not migrate_frame(mm, frame):
            return
