"""Moving pages to other frames (mm/migrate.c): what an entry loses and gains on its way through a migration entry."""

from __future__ import annotations

from ptewalk.model.errors import Errno
from ptewalk.model.linux import HUGE_PAGES, VmFlag
from ptewalk.model.mm import gup, remap, rmap, stack, thp
from ptewalk.model.pte import P
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import Mm

_UNMAP_PASSES = 2
"""3.11 tries ten times: the first takes A, the second the entry (mm/migrate.c:migrate_pages)."""


def migrate_frame(mm: Mm, frame: int) -> bool:
    """Move a page, small or transparent huge, with all its mappings; False when it is pinned."""
    kernel, frames = mm.kernel, mm.frames
    head = int(frames.head[frame])
    huge = bool(frames.flags[head] & page.COMPOUND)
    if frames.is_pinned(head) or frames.flags[head] & page.KSM:
        return False
    size = HUGE_PAGES if huge else 1
    mappings = [(offset, m) for offset in range(size) for m in rmap.walk(kernel, head + offset)]
    nonlinear = int(frames.maps[head]) - len(mappings) if frames.flags[head] & page.FILE else 0
    for _ in range(_UNMAP_PASSES * (nonlinear > 0)):
        rmap.unmap_nonlinear(kernel, head)
    run = slice(head, head + size)
    flags = int(frames.flags[head])
    new = frames.alloc_compound(flags) if huge else frames.alloc(flags)
    target = slice(new, new + size)
    frames.flags[target] = frames.flags[run]
    frames.index[target] = frames.index[run]
    frames.owner[target] = frames.owner[run]
    frames.maps[target] = frames.maps[run]
    if head in frames.huge_maps:
        frames.huge_maps[new] = frames.huge_maps.pop(head)
    for offset in range(size):
        frames.copy(head + offset, new + offset)
    if flags & page.FILE:
        kernel.files.by_identity(int(frames.owner[head])).cache[int(frames.index[head])] = new
    if head in frames.cached_slot:
        where = frames.cached_slot.pop(head)
        frames.cached_slot[new] = where
        kernel.swap.slots[where].frame = new
        if mm.entries.profile.reuse_by_mapcount:  # try_to_unmap_one: its entries name the slot, and stay so
            for _, (other, _, at, _) in mappings:
                rmap.name_slot(other, at, where)
            mappings = []
            frames.maps[target] = 0
    done = set()
    for offset, (other, vma, at, by_huge) in mappings:
        if by_huge:
            if (id(other), at) not in done:
                done.add((id(other), at))
                other.tables.set_huge(at, remap.remade(other, vma, other.tables.get_huge(at), new, 2))
        else:
            other.tables.set(at, remap.remade(other, vma, other.tables.get(at), new + offset))
    frames.maps[run] = 0
    for offset in range(size):
        frames.free(head + offset)
    kernel.mmu.invalidate(None)
    return True


def move_pages(mm: Mm, start: int, pages: int, node: int) -> list[int | str]:
    """The system call move_pages: one status per page, a node or a negative error name."""
    if node not in (0, 1):
        raise Errno("ENODEV")
    kernel = mm.kernel
    kernel.lru.drain()
    statuses: list[int | str] = []
    for at in range(start, start + pages):
        vma = mm.areas.lookup(at)
        if vma is None:
            statuses.append(-14)
            continue
        pmd = mm.tables.get_huge(at)
        pte = pmd or mm.tables.get(at)
        frame = 0
        if not pte and vma.is_anonymous and not mm.entries.profile.saved_dirty:
            statuses.append(-14)
            continue
        if vma.huge_level:
            statuses.append(-2)
            continue
        if pte & P or (pte and mm.entries.pte_present(pte) and mm.entries.profile.saved_dirty):
            frame = (
                (0 if thp.is_huge_zero(mm, pmd) else thp.pmd_frame(mm, pmd)) if pmd else mm.entries.vm_normal_page(pte)
            )
            if not frame:
                statuses.append(-14)
                continue
        if not frame:
            statuses.append(-2)
            continue
        head = int(mm.frames.head[frame])
        if kernel.nodes.get(head, 0) == node:
            statuses.append(node)
        elif mm.frames.mapcount(frame) > 1:
            statuses.append(-13)
        elif migrate_frame(mm, frame):
            _set_node(mm, at, node)
            statuses.append(node)
        else:
            statuses.append(-16)
    return statuses


def _set_node(mm: Mm, at: int, node: int) -> None:
    """The page that `at` maps now lives on `node`."""
    pmd = mm.tables.get_huge(at)
    mm.kernel.nodes[thp.pmd_frame(mm, pmd) if pmd else mm.entries.vm_normal_page(mm.tables.get(at))] = node


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
