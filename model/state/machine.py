"""The machine: processes with their address spaces, and the memory, files and swap they share. Fields and notes only.

What a machine does is in mm/, proc/, access.py and kernel.py. Places are page numbers (linear address >> 12).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, cast

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.engine import Engine, HasEngine
from ptewalk.model.errors import Errno
from ptewalk.model.linux import HUGETLB_POOL, PKRU_AFTER_FAULT, STACK_PAGE, Track, VmFlag
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.page_set import PageSet
from ptewalk.model.profile import Profile
from ptewalk.model.pte import Entries
from ptewalk.model.state.areas import Areas
from ptewalk.model.state.choices import Choices
from ptewalk.model.state.files import Files
from ptewalk.model.state.frames import Frames
from ptewalk.model.state.lru import LruBatches
from ptewalk.model.state.pools import Pool
from ptewalk.model.state.slots import SwapDevice
from ptewalk.model.state.tables import PageTables, Stale
from ptewalk.model.state.vma import AnonVma, Userfaultfd
from ptewalk.model.x86 import LEVELS_4, LEVELS_5, PAGE_SHIFT, PCID_BITS, Control

CONTROL: Final = sum(
    1 << bit for bit in (Control.WP, Control.NXE, Control.SMEP, Control.SMAP, Control.PKE, Control.PGE)
)
"""Control bits that the recorded kernels ran with."""
ANON_SIZES: Final = {"16K-64K:always": (4, 8, 16)}
"""Setting of the boot parameter thp_anon to sizes of transparent huge pages, in pages."""
_SINGLE_FLUSHES: Final = 33
"""Pages that are flushed one by one; for more the address space goes (tlb_single_page_flush_ceiling)."""


class Mm:
    """One address space (struct mm_struct).

    Parameters
    ----------
    kernel : MachineState
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
        Pages that may have changed since the last clear: what an `exact` machine reports. Kept when the kernel
        watches.
    stored : PageSet
        Of those the ones that user accesses stored to. Kept when the kernel watches, or the MMU tracks.
    gup_stored : PageSet
        Those that the kernel stored to through get_user_pages since the last clear. Kept when the MMU tracks.
    remapped : dict
        Page to file offset of what remap_file_pages rearranged (3.11).
    mmap_base : int
        Where the search for a free range begins, downwards; 0: 4 GiB below the end of the address space.
    start_brk, brk : int
        The heap's first page, and the one behind its last (mm/brk.py).
    """

    process: Process

    def __init__(self, kernel: MachineState, who: int) -> None:
        self.kernel = kernel
        self.who = who
        self.entries = kernel.entries
        self.frames = kernel.frames
        self.tables = kernel.new_tables(kernel.frames, kernel.stale, kernel.levels, kernel.free_pcid())
        self.areas = Areas(kernel.entries.VM_SOFTDIRTY | VmFlag.MAYBE_GUARD)
        self.has_pinned = False
        self.changed = PageSet()
        self.stored = PageSet()
        self.gup_stored = PageSet()
        self.remapped: dict[int, int] = {}
        self.mmap_base = 0
        self.start_brk = self.brk = 0

    # Notes of what user memory went through.

    def touch(self, start: int, end: int) -> None:
        """Pages [start, end) are mapped, or may have new contents."""
        if self.kernel.watch:
            self.changed.add(start, end)

    def store(self, at: int) -> None:
        """A user access, or the kernel's copy to user memory, stored to the page `at`."""
        self.touch(at, at + 1)
        if self.kernel.watch or self.entries.track != Track.OFF:
            self.stored.add(at, at + 1)

    def gup_store(self, at: int) -> None:
        """The kernel stored to the page `at` through get_user_pages, past its entry."""
        self.touch(at, at + 1)
        if self.entries.track != Track.OFF:
            self.gup_stored.add(at, at + 1)

    def replace(self, start: int, end: int) -> None:
        """What pages [start, end) held is gone."""
        self.touch(start, end)
        self.stored.discard(start, end)
        self.gup_stored.discard(start, end)

    def move(self, old: int, new: int, pages: int) -> None:
        """What `pages` pages from `old` on held is at `new` now."""
        self.touch(new, new + pages)
        self.touch(old, old + pages)
        self.stored.move(old, old + pages, new)
        self.gup_stored.move(old, old + pages, new)
        if self.remapped:
            moved = {at: self.remapped.pop(at) for at in range(old, old + pages) if at in self.remapped}
            self.remapped.update({at - old + new: offset for at, offset in moved.items()})


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


class Flush:
    """See `MachineState.flush`."""

    __slots__ = ("_machine",)

    def __init__(self, machine: MachineState) -> None:
        self._machine = machine

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        if self._machine.stale.ranges:
            self._machine.forget()


class MachineState:
    """One machine under one kernel: what it has, and what is noted of it.

    Parameters
    ----------
    profile : Profile
        The kernel; see `profiles.PROFILES`.
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
        Whether pagemap has its second layout at the start; None, with the profiles that change it: no. They change to
        it with the first clear_refs 4 since boot, unless `pagemap_fixed`. The others always have it.
    pagemap_fixed : bool
        The layout never changes: the seed commit without the one after it.
    watch : bool
        Note which pages may have changed (`Mm.changed`); an `exact` machine always does.
    exact : bool
        pagemap's bit 55 tells exactly which pages may have changed since the last clear, and nothing else.
    memory : SparseMemory or None
        Physical memory; None: a new one that grows.
    reuse_frames : bool
        A frame that was freed is given out again, from the next step on (`Frames.begin_step`).
    thp_anon : str
        The boot parameter for sizes of transparent huge pages: "16K-64K:always", or empty.
    compiled : bool
        Where many entries are read or changed at once, that is done by compiled code, with the same result. ImportError
        without numba.
    tables : callable (Frames, Stale, int, int) -> PageTables
        Makes the page tables of a new address space; its parameters are those of `PageTables`, the default.

    Attributes
    ----------
    anon_sizes : tuple of int
        Sizes below 2 MiB, in pages, that anonymous memory is mapped by; where there are any, 2 MiB are not.
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
        exact: bool = False,
        memory: SparseMemory | None = None,
        reuse_frames: bool = False,
        thp_anon: str = "",
        compiled: bool = False,
        tables: Callable[[Frames, Stale, int, int], PageTables] = PageTables,
    ) -> None:
        if compiled and importlib.util.find_spec("numba") is None:
            raise ImportError("compiled=True needs numba: pip install 'ptewalk[fast]'")
        self.compiled = compiled
        self.new_tables = tables
        self.profile = profile
        self.entries = Entries(profile, soft_dirty=soft_dirty, track=track)
        self.track = track
        self.base = base
        self.control = control if "pkey_mprotect" in profile.verbs else control & ~(1 << Control.PKE)
        self.levels = LEVELS_5 if control & 1 << Control.LA57 else LEVELS_4
        self.memory = SparseMemory() if memory is None else memory
        self.mmu = mmu(self.memory)
        self._beside = cast(HasEngine, self.mmu) if hasattr(self.mmu, "engine") else None  # isinstance takes long
        self.frames = Frames(self.memory, reuse=reuse_frames)
        self.stale = Stale()
        self._flush = Flush(self)
        self.lru = LruBatches(self.frames, profile)
        self.files = Files(self.frames)
        self.choices = Choices()
        self.swap = SwapDevice(self.choices)
        self.ksm_scanned: set[tuple[int, int]] = set()
        self.pools = {2: Pool(*HUGETLB_POOL), 3: Pool(1)}
        self.pagemap_v2 = profile.machine_pagemap_v2 or bool(pagemap_v2)
        self.pagemap_fixed = pagemap_fixed
        self.anon_sizes: tuple[int, ...] = ()
        if thp_anon and profile.machine_thp_anon:
            self.anon_sizes = ANON_SIZES[thp_anon]
        self.exact = exact
        self.watch = watch or exact
        self.processes: dict[int, Process] = {}
        self.notifications: list[tuple[str, int, int]] = []
        self.nodes: dict[int, int] = {}
        """Frame to its NUMA node; node 0, where processes run, is not noted."""
        self.anon_vmas = 0
        """Root anon_vmas made so far: the last one's identity."""
        self.maps_above_window = True
        """A process has further mappings above the window: program, libraries, stack."""
        self.new_process(0)

    @property
    def engine(self) -> Engine | None:
        """What changes and reads many entries in its place, where the MMU has that beside it."""
        return self._beside.engine if self._beside is not None else None

    def new_process(self, who: int) -> Process:
        """A process with nothing mapped. Raises `Errno` EAGAIN when there is no PCID for it."""
        mm = Mm(self, who)
        mm.tables.alloc(STACK_PAGE, 1)
        process = Process(who, mm)
        mm.process = process
        self.processes[who] = process
        return process

    def free_pcid(self) -> int:
        """The lowest number, from 1 on, that no address space has. Raises `Errno` EAGAIN when there is none."""
        used = {process.mm.tables.pcid for process in self.processes.values()}
        pcid = next(number for number in range(1, len(used) + 2) if number not in used)
        if pcid >> PCID_BITS:
            raise Errno("EAGAIN")
        return pcid

    def new_anon_vma(self) -> AnonVma:
        """A root anon_vma."""
        self.anon_vmas += 1
        return AnonVma(identity=self.anon_vmas)

    def flush(self) -> Flush:
        """Round a system call, a fault, or what else changes entries: when it ends, by an error too, the MMU is told.

        Which pages that concerns `PageTables` notes as it writes (tlb_gather_mmu, tlb_finish_mmu, ptep_clear_flush).
        """
        return self._flush

    def forget(self) -> None:
        """The MMU forgets what it may hold of pages whose entries allow less by now, and of no others."""
        spaces: dict[int, list[tuple[int, int]]] = {}
        for pcid, first, last in self.stale.take():
            spaces.setdefault(pcid, []).append((first, last))
        for pcid, ranges in spaces.items():
            if sum(last - first for first, last in ranges) > _SINGLE_FLUSHES:
                self.mmu.invalidate(None, pcid)
                continue
            for first, last in ranges:
                for at in range(first, last):
                    self.mmu.invalidate(at << PAGE_SHIFT, pcid)

    def memory_row(self, frame: int) -> NDArray[np.uint64] | None:
        """A frame's words, or None when it is all zero and not materialised."""
        row = self.memory.row_of_frame.get(frame)
        return None if row is None else self.memory.words[row]

    def huge_page_available(self, mm: Mm, at: int) -> bool:
        """Can a huge page be had for `at`?"""
        return self.choices.huge_page_to_be_had(mm.who, at - self.base)

    def clear_seen(self) -> None:
        """A well-formed 4 was written to some clear_refs: pagemap takes its second layout."""
        if not self.pagemap_fixed:
            self.pagemap_v2 = True

    def notify_soft_dirty(self, mm: Mm) -> None:
        """mmu_notifier_invalidate_range_start and _end over the whole address space."""
        self.notifications.append(("soft_dirty", 0, (1 << 64) - 1))
