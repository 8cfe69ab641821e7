"""An address space (struct mm_struct): mapping, unmapping, and what every other part needs of it.

mm/mmap.c, mm/memory.c. Places are page numbers.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.errors import Errno
from ptewalk.model.linux import HUGE_PAGES, TASK_PAGES, Track, VmFlag
from ptewalk.model.mm import hugetlb, swap, thp
from ptewalk.model.page_set import PageSet
from ptewalk.model.pte import PROTNONE, SPECIAL, UFFD_WP, P
from ptewalk.model.state import frames as page
from ptewalk.model.state.lru import Batch
from ptewalk.model.state.tables import PMD_SHIFT, PageTables
from ptewalk.model.state.vma import AnonVma, Areas, Vma, link_anon_vma, unlink_anon_vmas

if TYPE_CHECKING:
    from ptewalk.model.kernel import Kernel, Process
    from ptewalk.model.state.files import File


class Mm:
    """One address space.

    Parameters
    ----------
    kernel : Kernel
        The machine.
    who : int
        The process's number in the scenario.

    Attributes
    ----------
    process : Process
    areas : Areas
    tables : PageTables
    has_pinned : bool
        MMF_HAS_PINNED: some page was pinned through this address space.
    changed : PageSet
        Pages that may have changed since the last clear: what the profile `exact` reports. Kept when the kernel
        watches.
    stored : PageSet
        Of those the ones that user accesses stored to. Kept when the kernel watches, or the MMU tracks.
    remapped : dict
        Page to file offset of what remap_file_pages rearranged (3.11).
    """

    process: Process

    def __init__(self, kernel: Kernel, who: int) -> None:
        self.kernel = kernel
        self.who = who
        self.entries = kernel.entries
        self.frames = kernel.frames
        self.tables = PageTables(kernel.frames, kernel.levels)
        self.areas = Areas(kernel.entries, partial(thp.split_huge_pmd_at, self))
        self.has_pinned = False
        self.changed = PageSet()
        self.stored = PageSet()
        self.remapped: dict[int, int] = {}

    # Small helpers of mm/memory.c and mm/rmap.c.

    def touch(self, start: int, end: int) -> None:
        """Pages [start, end) are mapped, or may have new contents."""
        if self.kernel.watch:
            self.changed.add(start, end)

    def store(self, at: int) -> None:
        """A user access, or the kernel's copy to user memory, stored to the page `at`."""
        self.touch(at, at + 1)
        if self.kernel.watch or self.entries.track != Track.OFF:
            self.stored.add(at, at + 1)

    def replace(self, start: int, end: int) -> None:
        """What pages [start, end) held is gone."""
        self.touch(start, end)
        self.stored.discard(start, end)

    def move(self, old: int, new: int, pages: int) -> None:
        """What `pages` pages from `old` on held is at `new` now."""
        self.touch(new, new + pages)
        self.touch(old, old + pages)
        self.stored.move(old, old + pages, new)
        if self.remapped:
            moved = {at: self.remapped.pop(at) for at in range(old, old + pages) if at in self.remapped}
            self.remapped.update({at - old + new: offset for at, offset in moved.items()})

    def anon_vma_prepare(self, vma: Vma) -> None:
        """Give an area its anon_vma, a neighbour's where that is allowed (mm/rmap.c:__anon_vma_prepare)."""
        if vma.anon_vma:
            return
        anon_vma = self.areas.find_mergeable_anon_vma(vma)
        if anon_vma is None:
            anon_vma = AnonVma()
        vma.anon_vma = anon_vma
        anon_vma.active += 1
        link_anon_vma(vma, anon_vma)

    def normal_page(self, pte: int) -> int:
        """Frame of a present entry that has a struct page (vm_normal_page); 0 for the zero page."""
        if pte & SPECIAL:
            return 0
        return self.entries.pte_pfn(pte)

    def add_new_anon(self, vma: Vma, at: int, frame: int) -> None:
        """page_add_new_anon_rmap: a new page, exclusive to this area."""
        frames = self.frames
        frames.flags[frame] |= page.ANON | page.EXCLUSIVE
        frames.maps[frame] += 1
        frames.index[frame] = vma.offset(at)
        if vma.anon_vma:
            frames.owner[frame] = vma.anon_vma.root.identity
        self.note_locked(vma, frame)

    def note_locked(self, vma: Vma, frame: int) -> None:
        """An area begins or ends to map a page (mlock_vma_page, munlock_vma_page)."""
        if vma.flags & VmFlag.LOCKED:
            self.kernel.lru.add(Batch.MLOCK, frame)

    def set_page_prot(self, vma: Vma) -> None:
        """mm/mmap.c:vma_set_page_prot"""
        flags = vma.flags
        if self.wants_writenotify(vma):
            flags &= ~VmFlag.SHARED
        vma.prot = self.entries.vm_page_prot(flags)

    def wants_writenotify(self, vma: Vma) -> bool:
        """Must the first write of a page fault (mm/mmap.c:vma_wants_writenotify)?"""
        if vma.flags & (VmFlag.WRITE | VmFlag.SHARED) != VmFlag.WRITE | VmFlag.SHARED:
            return False
        if vma.file is not None and vma.file.counts_dirty:
            return True
        if self.entries.VM_SOFTDIRTY and not vma.flags & VmFlag.SOFTDIRTY and not vma.huge_level:
            return True
        return bool(vma.flags & VmFlag.UFFD_WP)

    def shown_start(self, vma: Vma) -> int:
        """First page that maps and smaps show: 3.11 hides the guard page of an area that grows down."""
        if not self.entries.profile.stack_guard_page or not vma.flags & VmFlag.GROWSDOWN:
            return vma.start
        before = self.areas.before(vma)
        continues = before is not None and before.end == vma.start and before.flags & VmFlag.GROWSDOWN
        return vma.start if continues else vma.start + 1

    # mmap.

    def mmap_region(
        self, start: int, pages: int, flags: int, file: File | None, pgoff: int, huge_level: int = 0
    ) -> Vma:
        """mm/mmap.c:mmap_region; what was mapped there is unmapped first."""
        end = start + pages
        try:
            self.do_munmap(start, pages)
        except Errno:
            if self.entries.profile.saved_dirty:  # vms_gather_munmap_vmas passes the error on
                raise
            raise Errno("ENOMEM") from None
        if not huge_level and flags & (VmFlag.SHARED | VmFlag.WRITE | VmFlag.NORESERVE) == VmFlag.WRITE:
            flags |= VmFlag.ACCOUNT
        vma = None
        if not huge_level:
            vma = self.areas.expand_new(start, end, flags, file, pgoff)
        if vma is None:
            if file is None and flags & VmFlag.SHARED:
                file = self.kernel.files.new_anonymous(pages)
            vma = Vma(start, end, flags, pgoff, file)
            vma.huge_level = huge_level
            if huge_level:
                hugetlb.reserve(self.kernel, vma)
            self.areas.insert(vma)
        if huge_level:
            vma.flags &= ~VmFlag.LOCKED
        vma.flags |= self.entries.VM_SOFTDIRTY
        self.set_page_prot(vma)
        self.touch(start, end)
        return vma

    # munmap.

    def do_munmap(self, start: int, pages: int) -> None:
        """mm/mmap.c:do_munmap; where only the end cannot be split off (hugetlb), the split at the start stays."""
        end = start + pages
        if pages <= 0 or start < 0 or end > TASK_PAGES:
            raise Errno("EINVAL")
        overlapping = self.areas.in_range(start, end)
        if not overlapping:
            return
        first = overlapping[0]
        if first.start < start:
            self.check_split(first, start)
            overlapping[0] = self.areas.split(first, start, new_below=False)
        last = overlapping[-1]
        if last.end > end:
            self.check_split(last, end)
            overlapping[-1] = self.areas.split(last, end, new_below=True)
        for vma in overlapping:
            self.areas.remove(vma)
        for vma in overlapping:
            self.zap_range(vma, vma.start, vma.end, drop_markers=True)
            if vma.huge_level:
                hugetlb.close(self.kernel, vma)
        before, after = self.areas.neighbours(start)
        self.tables.free_range(
            overlapping[0].start, overlapping[-1].end, before.end if before else 0, after.start if after else 0
        )
        for vma in overlapping:
            unlink_anon_vmas(vma)
        self.replace(start, end)
        for at in [at for at in self.remapped if start <= at < end]:
            del self.remapped[at]
        self.kernel.mmu.invalidate(None)

    def check_split(self, vma: Vma, at: int) -> None:
        """vm_ops->may_split: a hugetlb area splits at its own page size only."""
        if vma.huge_level and at % (1 << 9 * (vma.huge_level - 1)):
            raise Errno("EINVAL")

    def split(self, vma: Vma, at: int, *, new_below: bool) -> Vma:
        """mm/mmap.c:split_vma"""
        self.check_split(vma, at)
        return self.areas.split(vma, at, new_below=new_below)

    def zap_range(self, vma: Vma, start: int, end: int, *, drop_markers: bool = False, even_cows: bool = True) -> None:
        """Drop the entries of pages [start, end) of one area (mm/memory.c:unmap_page_range).

        `drop_markers`: write-protection of a file mapping is forgotten with them; otherwise a marker keeps it.
        `even_cows`: drop private copies of a file's pages too (truncation), not page-cache pages alone.
        """
        if vma.huge_level:
            hugetlb.zap(self, vma, start, end)
            return
        for block, first, last, huge in self.tables.blocks(start, end):
            if huge:
                if last - first == HUGE_PAGES:
                    thp.zap_huge_pmd(self, first)
                    continue
                thp.split_huge_pmd(self, vma, block << PMD_SHIFT)
            self._zap_part(vma, block, first, last, drop_markers, even_cows)
        self.kernel.lru.drain()

    def _zap_part(self, vma: Vma, block: int, first: int, last: int, drop_markers: bool, even_cows: bool) -> None:
        part = self.tables.part(block, first, last)
        used = np.flatnonzero(part)
        if not len(used):
            return
        entries = part[used]
        present = (entries & np.uint64(P | PROTNONE)) != 0
        pages = entries[present]
        pages = pages[(pages & np.uint64(SPECIAL)) == 0]
        pfns = self.entries.pte_pfn(pages).astype(np.int64)
        keep = np.zeros(len(entries), bool)
        if not even_cows:
            anon = (self.frames.flags[pfns] & page.ANON) != 0
            kept_pfns = set(pfns[anon].tolist())
            if kept_pfns:
                all_pfns = self.entries.pte_pfn(entries)
                keep = present & np.isin(all_pfns, np.array(sorted(kept_pfns), np.uint64))
            pfns = pfns[~anon]
        markers: list[int] = []
        for position in np.flatnonzero(~present):
            entry = int(entries[position])
            if self.entries.is_marker(entry):
                if not drop_markers:
                    keep[position] = True
            elif even_cows:
                swap.free_entry(self.kernel, entry)
            else:
                keep[position] = True
        if not drop_markers and not vma.is_anonymous:
            wp = present & ((entries & np.uint64(UFFD_WP)) != 0) & ~keep
            markers = [int(used[i]) for i in np.flatnonzero(wp)]
        part[used[~keep]] = 0
        for marked in markers:
            part[marked] = self.entries.make_uffd_marker()
        self.unmap_frames(pfns)

    def unmap_frames(self, pfns: NDArray[np.int64]) -> None:
        """page_remove_rmap and put_page of small mappings of these frames."""
        if not len(pfns):
            return
        frames = self.frames
        np.subtract.at(frames.maps, pfns, 1)
        self.kernel.release(pfns)
