"""The machine: one kernel with its memory, files, swap and processes, and the system calls they make.

Places are page numbers (linear address >> 12). Every user access, and the kernel's copies to user memory, go through an
`Mmu`; a page fault that it reports is handled and the access tried again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.errors import Errno
from ptewalk.model.linux import (
    HUGE_PAGES,
    HUGETLB_POOL,
    PKRU_AFTER_FAULT,
    TASK_PAGES,
    Profile,
    Track,
    VmFlag,
)
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mm import (
    faults,
    fork,
    gup,
    hugetlb,
    ksm,
    madvise,
    migrate,
    mprotect,
    mremap,
    rmap,
    swap,
    thp,
    uffd,
)
from ptewalk.model.mm.mmap import Mm
from ptewalk.model.mm.swap import SwapDevice
from ptewalk.model.mm.uffd import Userfaultfd
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.paging import PageFault, Request, State, Translated
from ptewalk.model.proc import clear_refs, pagemap_scan
from ptewalk.model.pte import Entries
from ptewalk.model.state import frames as page
from ptewalk.model.state import lru
from ptewalk.model.state.files import File, Files
from ptewalk.model.state.frames import Frames
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import LEVELS_4, LEVELS_5, PAGE_SHIFT, Access, Control

CONTROL: Final = sum(
    1 << bit for bit in (Control.WP, Control.NXE, Control.SMEP, Control.SMAP, Control.PKE, Control.PGE)
)
"""Control bits that the recorded kernels ran with."""
_PROT: Final = {"r": VmFlag.READ, "w": VmFlag.WRITE, "x": VmFlag.EXEC}
_MAY: Final = VmFlag.MAYREAD | VmFlag.MAYWRITE | VmFlag.MAYEXEC
_BATCH: Final = 64
"""Accesses given to the MMU at a time."""
_RETRIES: Final = 16
_FILLED: Final = 0x5A5A5A5A5A5A5A5A


@dataclass(eq=False)
class Process:
    """One process.

    Attributes
    ----------
    who : int
        Its number in the scenario.
    mm : Mm
    parent : int
        The number of the process that forked it.
    pkru : int
    pkeys : set of int
        Allocated protection keys.
    exec_only_key : int
        Key of execute-only mappings; 0 while there is none.
    user : bool
        It is an ordinary user's, not root's.
    sees_frames : bool
        Its pagemap was opened with CAP_SYS_ADMIN.
    uffd : Userfaultfd or None
        Its one userfaultfd; a child has none.
    pinned : dict
        First pinned page to the pinned frames.
    """

    who: int
    mm: Mm
    parent: int = 0
    pkru: int = PKRU_AFTER_FAULT
    pkeys: set[int] = field(default_factory=lambda: {0})
    exec_only_key: int = 0
    user: bool = False
    sees_frames: bool = True
    uffd: Userfaultfd | None = None
    pinned: dict[int, list[int]] = field(default_factory=dict)


class Kernel:
    """One machine under one kernel.

    Parameters
    ----------
    profile : Profile
        The kernel; see `linux.PROFILES`.
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    track : Track
        Who tracks written pages.
    base : int
        Page number of a scenario's window.
    control : int
        Control bits, ``1 << x86.Control.WP`` and so on. LA57 selects five levels.
    mmu : callable
        Makes the MMU for a physical memory; `ModelMmu` by default.
    pagemap_v2 : bool or None
        Whether pagemap has its second layout at the start; None: as the profile does. The 3.11 profiles change to it
        with the
        first clear_refs 4 since boot, unless `pagemap_fixed`.
    pagemap_fixed : bool
        The layout never changes: the seed commit without the one after it.

    watch : bool
        Note which pages may have changed (`Mm.changed`), whatever the profile reports; `exact` always does.

    Attributes
    ----------
    processes : dict
        Number to live process.
    notifications : list of (str, int, int)
        What the MMU notifiers were told: kind, first and last byte.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        soft_dirty: bool = True,
        track: Track = Track.OFF,
        base: int = 0x100000000,
        control: int = CONTROL,
        mmu: Callable[[SparseMemory], Mmu] = ModelMmu,
        pagemap_v2: bool | None = None,
        pagemap_fixed: bool = False,
        watch: bool = False,
    ) -> None:
        self.profile = profile
        self.entries = Entries(profile, soft_dirty=soft_dirty, track=track)
        self.track = track
        self.base = base
        self.control = control if profile.protection_keys else control & ~(1 << Control.PKE)
        self.levels = LEVELS_5 if control & 1 << Control.LA57 else LEVELS_4
        self.memory = SparseMemory()
        self.mmu = mmu(self.memory)
        self.frames = Frames(self.memory)
        self.lru = lru.LruBatches(self.frames, profile)
        self.files = Files(self.frames)
        self.swap = SwapDevice()
        self.pools = {2: hugetlb.Pool(HUGETLB_POOL), 3: hugetlb.Pool(1)}
        self.pagemap_v2 = profile.pagemap_v2 if pagemap_v2 is None else pagemap_v2
        self.pagemap_fixed = pagemap_fixed
        self.watch = watch or profile.exact
        self.processes: dict[int, Process] = {}
        self.notifications: list[tuple[str, int, int]] = []
        self.nodes: dict[int, int] = {}
        self.huge_refused: set[tuple[int, int]] = set()
        """(process, 2 MiB block of the window) for which no huge page can be had."""
        self.maps_above_window = True
        """A process has further mappings above the window: program, libraries, stack."""
        self.new_process(0)

    # What other parts ask.

    def new_process(self, who: int) -> Process:
        """A process with nothing mapped."""
        mm = Mm(self, who)
        process = Process(who, mm)
        mm.process = process
        self.processes[who] = process
        return process

    def memory_row(self, frame: int) -> NDArray[np.uint64] | None:
        """A frame's words, or None when it is all zero and not materialised."""
        row = self.memory.row_of_frame.get(frame)
        return None if row is None else self.memory.words[row]

    def huge_page_available(self, mm: Mm, at: int) -> bool:
        """Can a huge page be had for `at`?"""
        return (mm.who, at - self.base >> 9) not in self.huge_refused

    def hugetlb_pool(self, level: int) -> hugetlb.Pool:
        """The pool of pages that are leaves of `level`."""
        return self.pools[level]

    def clear_seen(self) -> None:
        """A well-formed 4 was written to some clear_refs: pagemap takes its second layout."""
        if not self.pagemap_fixed:
            self.pagemap_v2 = True

    def notify_soft_dirty(self, mm: Mm) -> None:
        """mmu_notifier_invalidate_range_start and _end over the whole address space."""
        self.notifications.append(("soft_dirty", 0, (1 << 64) - 1))

    def node_of(self, frame: int) -> int:
        """NUMA node of a frame; processes run on node 0."""
        return self.nodes.get(frame, 0)

    def set_node(self, mm: Mm, at: int, node: int) -> None:
        """The page that `at` maps now lives on `node`."""
        pmd = mm.tables.get_huge(at)
        frame = thp.pmd_frame(mm, pmd) if pmd else mm.normal_page(mm.tables.get(at))
        self.nodes[frame] = node

    def get_unmapped_area(self, mm: Mm, hint: int, pages: int) -> int:
        """A free range: at the hint where that is free, else from the top of the address space down."""
        if hint and not mm.areas.in_range(hint, hint + pages):
            return hint
        top = TASK_PAGES - (1 << 20)
        for vma in reversed(mm.areas.list):
            if vma.start < top and vma.end > top - pages:
                top = vma.start
        return top - pages

    def mprotect_key(self, mm: Mm, vma: Vma, prot: int, key: int) -> int:
        """The protection key that mprotect gives an area (arch_override_mprotect_pkey)."""
        if not self.control & 1 << Control.PKE:
            return 0
        if key >= 0:
            return key
        process = mm.process
        if prot == VmFlag.EXEC:
            return self._execute_only_key(process)
        current = vma.flags >> VmFlag.PKEY_LOW & 0xF
        if current and current == process.exec_only_key and vma.flags & mprotect.ACCESS == VmFlag.EXEC:
            return 0
        return current

    def _execute_only_key(self, process: Process) -> int:
        """arch/x86/mm/pkeys.c:__execute_only_pkey"""
        if not self.control & 1 << Control.PKE:
            return 0
        if not process.exec_only_key:
            free = [k for k in range(1, 16) if k not in process.pkeys]
            if not free:
                return 0
            process.exec_only_key = free[0]
            process.pkeys.add(free[0])
            process.pkru = process.pkru & ~(3 << 2 * free[0]) | 1 << 2 * free[0]
        return process.exec_only_key

    def key_permits(self, mm: Mm, vma: Vma, write: bool) -> bool:
        """Does PKRU allow the access by the area's key (arch_vma_access_permitted)?"""
        if not self.control & 1 << Control.PKE:
            return True
        rights = mm.process.pkru >> 2 * (vma.flags >> VmFlag.PKEY_LOW & 0xF)
        return not rights & 1 and not (write and rights & 2)

    def is_nonlinear(self, vma: Vma) -> bool:
        """Was remap_file_pages used on the area?"""
        return vma.remapped is not None

    # Frames that lose their last user.

    def put(self, frame: int) -> None:
        """Free a page, or the compound page it belongs to, when nothing uses it any more."""
        frames = self.frames
        flags = int(frames.flags[frame])
        if not flags or flags & (page.FILE | page.ZERO | page.HUGETLB):
            return
        if flags & page.COMPOUND:
            head = int(frames.head[frame])
            run = slice(head, head + HUGE_PAGES)
            if frames.huge_maps.get(head) or frames.maps[run].any() or frames.is_pinned(head):
                return
            for member in range(head, head + HUGE_PAGES):
                frames.free(member)
            return
        if frames.maps[frame] > 0 or frame in frames.pins:
            return
        if frame in frames.cached_slot and not swap.free_cache(self, frame):
            return
        if frames.flags[frame]:
            frames.free(frame)

    put_mapped = put

    def release(self, pfns: NDArray[np.int64]) -> None:
        """As `put` for many frames, whose mappings were just counted down."""
        if not len(pfns):
            return
        frames = self.frames
        dead = np.unique(pfns[frames.maps[pfns] == 0])
        flags = frames.flags[dead]
        special = page.FILE | page.ZERO | page.HUGETLB | page.COMPOUND
        simple = (flags & special) == 0
        if frames.cached_slot or frames.pins:
            for frame in dead.tolist():
                self.put(frame)
            return
        frames.flags[dead[simple]] = 0
        frames.freed.extend(dead[simple].tolist())
        for frame in self.memory.row_of_frame.keys() & set(dead[simple].tolist()):
            self.memory.remove_frame(frame)
        heads = np.unique(frames.head[dead[(flags & page.COMPOUND) != 0]])
        for frame in heads.tolist():
            self.put(frame)

    def truncate_range(self, file: File, first: int, last: int, *, even_cows: bool) -> None:
        """Drop pages [first, last) of a file and every mapping of them (unmap_mapping_range, truncation)."""
        for process in self.processes.values():
            for vma in list(process.mm.areas):
                if vma.file is not file or vma.huge_level:
                    continue
                if vma.remapped is not None:  # unmap_mapping_range_list: every page is looked at
                    for at in range(vma.start, vma.end):
                        if first <= vma.shown_offset(at) < last:
                            process.mm.zap_range(vma, at, at + 1, even_cows=even_cows)
                    continue
                start = max(vma.start, vma.start + first - vma.pgoff)
                end = min(vma.end, vma.start + last - vma.pgoff)
                if start < end:
                    process.mm.zap_range(vma, start, end, even_cows=even_cows)
                    process.mm.replace(start, end)
        for offset in [o for o in file.cache if first <= o < last]:
            frame = file.cache.pop(offset)
            self.lru.drain()
            self.frames.flags[frame] &= 0xFFFF ^ page.FILE
            if not self.frames.maps[frame]:
                self.frames.free(frame)
        for offset in [o for o in file.swapped if first <= o < last]:
            del file.swapped[offset]
        self.mmu.invalidate(None)

    # Accesses.

    def state(self, process: Process) -> State:
        """The MMU's control state while `process` runs."""
        return State(
            root=process.mm.tables.root << PAGE_SHIFT,
            control=self.control,
            pkru=process.pkru if self.profile.protection_keys else 0,
            track=self.track,
            saved_dirty=self.profile.saved_dirty,
            soft_dirty=self.entries.soft_dirty,
        )

    def touch_pages(
        self, process: Process, pages: Sequence[int], access: Access, value: int = 0, *, offset: int = 8
    ) -> list[int | str]:
        """One 1-byte user access per page, at byte `offset` of each.

        Parameters
        ----------
        access : Access
            READ or WRITE.
        value : int
            The byte that is written.

        Returns
        -------
        list
            Per page: the byte read, "ok" for a store, or how the fault ended ("maperr", "accerr", "pkuerr", "bus").
        """
        values: list[int | str] = []
        requests = [Request(at << PAGE_SHIFT | offset, access) for at in pages]
        position = retries = 0
        state = self.state(process)
        while position < len(requests):
            for result in self.mmu.run(state, requests[position : position + _BATCH]):
                if isinstance(result, Translated):
                    values.append(self._do(result.physical, access, value))
                    if access == Access.WRITE:
                        process.mm.store(pages[position])
                    position += 1
                    retries = 0
                elif isinstance(result, PageFault):
                    signal = faults.user_fault(process.mm, pages[position], result.code)
                    retries += 1
                    if signal is None and retries < _RETRIES:
                        break
                    if signal is None:
                        raise AssertionError(f"page {pages[position]:#x} faults for ever, code {result.code:#x}")
                    values.append(signal.value)
                    if self.profile.protection_keys:
                        process.pkru = PKRU_AFTER_FAULT
                        state = self.state(process)
                    position += 1
                    retries = 0
                    break
                else:
                    raise AssertionError(f"user access ended in {result!r}")
        return values

    def _do(self, physical: int, access: Access, value: int) -> int | str:
        """The access itself, at a physical byte address."""
        word, shift = physical & ~7, (physical & 7) * 8
        if access == Access.READ:
            return self.frames.word(word >> PAGE_SHIFT, word & 0xFFF) >> shift & 0xFF
        old = self.memory.load(word)
        self.memory.store(word, old & ~(0xFF << shift) | value << shift)
        return "ok"

    def copy_to_user(self, process: Process, at: int, offset: int, value: int) -> bool:
        """A byte that the kernel stores to user memory; False: EFAULT."""
        request = Request(at << PAGE_SHIFT | offset, Access.WRITE, user=False, ac=True)
        for _ in range(_RETRIES):
            result = self.mmu.run(self.state(process), [request])[0]
            if isinstance(result, Translated):
                self._do(result.physical, Access.WRITE, value)
                process.mm.store(at)
                return True
            if not isinstance(result, PageFault) or faults.user_fault(process.mm, at, result.code) is not None:
                return False
        raise AssertionError(f"page {at:#x} faults for ever")

    def mem_access(self, process: Process, pages: Sequence[int], *, write: bool, value: int = 0) -> list[int | str]:
        """One byte per page through /proc/self/mem at offset 8: the byte, "ok", or "e5" for EIO."""
        values: list[int | str] = []
        for at in pages:
            try:
                frame = gup.access_remote(process.mm, at, write=write)
            except Errno:
                values.append("e5")
                continue
            if write:
                self._do(frame << PAGE_SHIFT | 8, Access.WRITE, value)
                values.append("ok")
            else:
                values.append(self.frames.word(frame, 8) & 0xFF)
        return values

    # System calls.

    def mmap(
        self, process: Process, at: int, pages: int, prot: str, kind: str, file_page: int, flags: Sequence[str]
    ) -> int:
        """mmap with MAP_FIXED; the page number of the mapping."""
        mm = process.mm
        if pages <= 0:
            raise Errno("EINVAL")
        bits = self.protection(prot) | _MAY
        if bits & mprotect.ACCESS == VmFlag.EXEC:
            bits |= self._execute_only_key(process) << VmFlag.PKEY_LOW
        if "growsdown" in flags:
            bits |= VmFlag.GROWSDOWN
        if "locked" in flags:
            bits |= VmFlag.LOCKED
        file: File | None = None
        pgoff = at
        level = 0
        if kind in ("hugetlb", "shugetlb", "hugetlb1g"):
            level = 3 if kind == "hugetlb1g" else 2
            size = 1 << 9 * (level - 1)
            pages = -(-pages // size) * size
            if at % size:
                raise Errno("EINVAL")
            bits |= VmFlag.HUGETLB | VmFlag.DONTEXPAND
            file = self.files.new_anonymous(pages)
            pgoff = 0
            if kind == "shugetlb":
                bits |= VmFlag.SHARED | VmFlag.MAYSHARE
        elif kind == "sanon":
            bits |= VmFlag.SHARED | VmFlag.MAYSHARE
            pgoff = 0
        elif kind != "anon":
            file = self.files.open(kind[1:])
            pgoff = file_page
            if kind[0] == "s":
                bits |= VmFlag.SHARED | VmFlag.MAYSHARE
        if at < 0 or at + pages > TASK_PAGES:
            raise Errno("ENOMEM")
        mm.mmap_region(at, pages, bits, file, pgoff, level)
        if "locked" in flags or "populate" in flags:
            gup.mm_populate(mm, at, at + pages)
        return at

    @staticmethod
    def protection(prot: str) -> int:
        """VmFlag bits of a string of r, w and x."""
        bits = 0
        for letter in prot.replace("-", ""):
            bits |= _PROT[letter]
        return bits

    def mprotect(self, process: Process, at: int, pages: int, prot: str, key: int = -1) -> None:
        """mprotect, or pkey_mprotect with a key; keys are allocated 1, 2, ... up to the one first used."""
        if key >= 0:
            if not self.control & 1 << Control.PKE:
                raise Errno("EINVAL")
            self._allocate_keys(process, key)
        mprotect.do_mprotect(process.mm, at, pages, self.protection(prot), key)

    @staticmethod
    def _allocate_keys(process: Process, key: int) -> None:
        """pkey_alloc of every key up to `key` that the process has not got, with no restriction."""
        for new in range(1, key + 1):
            if new not in process.pkeys:
                process.pkeys.add(new)
                process.pkru &= ~(3 << 2 * new)

    def wrpkru(self, process: Process, key: int, rights: int) -> None:
        """Write one key's rights: 0 none, 1 access disabled, 2 writes disabled."""
        process.pkru = process.pkru & ~(3 << 2 * key) | rights << 2 * key

    def mremap(self, process: Process, at: int, pages: int, new_pages: int, flags: Sequence[str], new_at: int) -> int:
        """mremap; the page number of the result."""
        return mremap.mremap(process.mm, at, pages, new_pages, frozenset(flags), new_at)

    def munmap(self, process: Process, at: int, pages: int) -> None:
        """munmap"""
        process.mm.do_munmap(at, pages)

    def madvise(self, process: Process, at: int, pages: int, advice: str) -> None:
        """madvise"""
        madvise.do_madvise(process.mm, at, pages, advice)

    def mlock(self, process: Process, at: int, pages: int, *, lock: bool) -> None:
        """mlock or munlock"""
        madvise.mlock(process.mm, at, pages, lock=lock)

    def clear_refs(self, target: int, text: str, writer: Process | None = None) -> int:
        """Write to /proc/<target>/clear_refs; bytes taken. The file is its owner's and root's to write."""
        if writer is not None and writer.user and not self.processes[target].user:
            raise Errno("EACCES")
        return clear_refs.write(self.processes[target].mm, text)

    def fork(self, process: Process, child: int) -> None:
        """fork"""
        new = self.new_process(child)
        new.pkru, new.pkeys, new.exec_only_key = process.pkru, set(process.pkeys), process.exec_only_key
        new.user, new.parent = process.user, process.who
        fork.dup_mm(process.mm, new.mm)

    def exit(self, process: Process) -> None:
        """The process ends: everything it maps goes."""
        for pinned in process.pinned.values():
            gup.unpin(process.mm, pinned)
        process.pinned.clear()
        for vma in list(process.mm.areas):
            process.mm.do_munmap(vma.start, vma.end - vma.start)
        self.lru.drain()
        del self.processes[process.who]

    def setuid(self, process: Process) -> None:
        """Become an ordinary user and open pagemap again."""
        process.user = True
        process.sees_frames = not self.profile.hides_frames

    def file_write(self, number: str, offset: int, value: int) -> None:
        """pwrite of one byte at offset 8 of a page of a file."""
        file = self.files.open(number)
        file.pages = max(file.pages, offset + 1)
        frame = self.files.get_page(file, offset)
        self._do(frame << PAGE_SHIFT | 8, Access.WRITE, value)

    def file_read(self, number: str, offset: int) -> int | None:
        """pread of one byte at offset 8 of a page of a file; None beyond its end."""
        file = self.files.open(number)
        if offset >= file.pages:
            return None
        if offset in file.swapped:
            self.files.add_page(file, offset)
        frame = file.cache.get(offset)
        return self.frames.word(frame, 8) & 0xFF if frame else 0

    def ftruncate(self, number: str, pages: int) -> None:
        """Set a file's length."""
        file = self.files.open(number)
        old = file.pages
        file.pages = pages
        if pages < old:
            self.truncate_range(file, pages, max(old, 1 << 40), even_cows=True)

    def uffd_register(self, process: Process, at: int, pages: int, *, asynchronous: bool = False) -> None:
        """Register a range for write-protection with the process's userfaultfd, which is opened when there is none."""
        if process.uffd is None:
            self.uffd_open(process, asynchronous=asynchronous)
        assert process.uffd is not None
        uffd.register(process.mm, process.uffd, at, pages)

    def uffd_open(self, process: Process, *, asynchronous: bool) -> None:
        """Open a userfaultfd, with SIGBUS or with WP_ASYNC; the one that was open is closed."""
        if not self.profile.userfaultfd:
            raise Errno("ENOSYS")
        if process.uffd is not None:
            uffd.release(process.mm, process.uffd)
            process.uffd = None
        if process.user:  # vm.unprivileged_userfaultfd is 0
            raise Errno("EPERM")
        if asynchronous and not self.profile.uffd_async:
            raise Errno("EINVAL")
        process.uffd = Userfaultfd(asynchronous=asynchronous)

    def uffd_unregister(self, process: Process, at: int, pages: int) -> None:
        """Unregister a range."""
        if process.uffd is None:
            raise Errno("EBADF")
        uffd.unregister(process.mm, at, pages)

    def uffd_writeprotect(self, process: Process, at: int, pages: int, *, protect: bool) -> None:
        """Write-protect a range, or take that back."""
        if process.uffd is None:
            raise Errno("EBADF")
        uffd.writeprotect(process.mm, at, pages, protect=protect)

    def pin(self, process: Process, at: int, pages: int) -> None:
        """Register pages as an io_uring buffer."""
        process.pinned[at] = gup.pin(process.mm, at, at + pages)

    def unpin(self, process: Process, at: int) -> None:
        """Unregister the buffer."""
        if at not in process.pinned:
            raise Errno("ENXIO")
        gup.unpin(process.mm, process.pinned.pop(at))

    def move_pages(self, process: Process, at: int, pages: int, node: int) -> list[int | str]:
        """move_pages; a status per page."""
        return migrate.move_pages(process.mm, at, pages, node)

    def fill(self, process: Process, at: int, pages: int) -> None:
        """A process fills pages with bytes 0x5a."""
        for target in range(at, at + pages):
            if self.touch_pages(process, [target], Access.WRITE, 0x5A) != ["ok"]:
                continue
            mm = process.mm
            pmd = mm.tables.get_huge(target)
            frame = thp.pmd_frame(mm, pmd) + (target & HUGE_PAGES - 1) if pmd else mm.normal_page(mm.tables.get(target))
            self.memory.add_frame(frame)[:] = _FILLED

    def sync(self, number: str) -> None:
        """fdatasync: a file with dirty accounting write-protects and cleans what is dirty (mm/rmap.c:page_mkclean)."""
        file = self.files.open(number)
        if not file.counts_dirty:
            return
        for frame in list(file.cache.values()):
            self.frames.flags[frame] &= 0xFFFF ^ page.DIRTY
            for mm, vma, at, _huge in rmap.walk(self, frame):
                pte = mm.tables.get(at)
                if vma.flags & VmFlag.SHARED and (self.entries.pte_shares_write(pte) or self.entries.pte_dirty(pte)):
                    mm.tables.set(at, self.entries.pte_mkclean(self.entries.pte_wrprotect(pte)))
        self.mmu.invalidate(None)

    def swapoff(self) -> None:
        """Every swapped page comes back (mm/swapfile.c:unuse_process)."""
        for process in self.processes.values():
            for vma in process.mm.areas:
                if not vma.huge_level:
                    swap.unuse_range(process.mm, vma)

    def remap_file_pages(self, process: Process, at: int, pages: int, file_page: int) -> None:
        """remap_file_pages (3.11): show other pages of the file in part of a shared mapping (mm/fremap.c)."""
        mm = process.mm
        vma = mm.areas.lookup(at)
        if vma is None or vma.file is None or not vma.flags & VmFlag.SHARED or pages <= 0 or at + pages > vma.end:
            raise Errno("EINVAL")
        if vma.remapped is None and file_page == vma.offset(at):
            gup.mm_populate(mm, at, at + pages)
            return
        mm.zap_range(vma, at, at + pages)
        mm.remapped.update({at + j: file_page + j for j in range(pages)})
        vma.remapped, vma.flags = mm.remapped, vma.flags | VmFlag.NONLINEAR
        gup.mm_populate(mm, at, at + pages)

    def ksm_scan(self, *, use_zero_pages: bool = False) -> None:
        """Full passes of ksmd."""
        ksm.scan(self, use_zero_pages=use_zero_pages)

    def pagemap_scan(self, process: Process, argument: pagemap_scan.Argument) -> pagemap_scan.Answer:
        """The PAGEMAP_SCAN ioctl."""
        if not self.profile.pagemap_scan:
            raise Errno("ENOTTY")

        def store(address: int, data: bytes) -> bool:
            places = enumerate(data, address)
            return all(self.copy_to_user(process, at >> PAGE_SHIFT, at & 0xFFF, byte) for at, byte in places)

        return pagemap_scan.scan(process.mm, argument, store)
