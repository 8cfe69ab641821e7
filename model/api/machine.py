"""The way in: `Machine`, one machine under one kernel; `Task` is a process of it.

Addresses and lengths are bytes. A system call that fails raises `Errno`, a user access that ends in a signal raises
`Fault`, and a word or number that no kernel could take raises ValueError or TypeError before anything was done.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ptewalk.model.api import words
from ptewalk.model.api.handles import File
from ptewalk.model.api.task import Task, Tasks
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.proc.files import ProcFs
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import NAMED
from ptewalk.model.state.machine import CONTROL
from ptewalk.model.x86 import LEVELS_4, LEVELS_5, Control

_FILES: Final = 10


class Machine:
    """One machine under one kernel, with its memory, files, swap and tasks.

    Parameters
    ----------
    profile : str or Profile
        The kernel: a name of `PROFILES`, "exact", or a profile of one's own.
    track : str or Track
        Who tracks written pages: "off" (software alone, as on a real machine), "fault" or "native".
    levels : int
        Levels of the page tables: 4, or 5 (LA57).
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    exact : bool
        Pagemap's bit 55 tells exactly which pages may have changed since the last clear, whatever the kernel says.
    mmu : callable
        Makes the memory-management unit for a physical memory; see `ptewalk.model.mmu.Mmu`.
    pagemap_v2 : bool or None
        Whether pagemap has its second layout from the start; None: as the kernel does. Those of 3.11 change to it with
        the first clear_refs 4.
    compiled : bool
        clear_refs, pagemap and PAGEMAP_SCAN work by compiled code, with the same results, many times as fast on large
        areas. ImportError without numba (extra ``fast``).

    Attributes
    ----------
    kernel : Kernel
        The model itself, for who looks closer.
    """

    def __init__(
        self,
        profile: str | Profile = "linux-6.12",
        *,
        track: str | Track = Track.OFF,
        levels: int = LEVELS_4,
        soft_dirty: bool = True,
        exact: bool = False,
        mmu: Callable[[SparseMemory], Mmu] = ModelMmu,
        pagemap_v2: bool | None = None,
        compiled: bool = False,
    ) -> None:
        if not isinstance(profile, Profile):
            profile, by_name = NAMED[words.one_of("profile", profile, NAMED)]
            exact = exact or by_name
        if not isinstance(track, Track):
            track = Track[words.one_of("track", track, [name.lower() for name in Track.__members__]).upper()]
        if levels not in (LEVELS_4, LEVELS_5):
            raise ValueError(f"levels must be {LEVELS_4} or {LEVELS_5}, not {levels!r}")
        self.kernel = Kernel(
            profile,
            soft_dirty=soft_dirty,
            track=track,
            control=CONTROL | (1 << Control.LA57 if levels == LEVELS_5 else 0),
            mmu=mmu,
            pagemap_v2=pagemap_v2,
            exact=exact,
            compiled=compiled,
        )
        self._tasks = Tasks(self.kernel)

    def __repr__(self) -> str:
        return f"<Machine {self.kernel.profile.name}>"

    @property
    def tasks(self) -> list[Task]:
        """The tasks that have not ended, oldest first."""
        return self._tasks.living()

    def spawn(self) -> Task:
        """A new task with nothing mapped."""
        return self._tasks.spawn()

    def file(self, number: int) -> File:
        """One of the machine's files, 0 to 9, all zero: number 4 lies on ext2, the others on tmpfs."""
        if words.whole("number", number) >= _FILES:
            raise ValueError(f"number of a file must be 0 to {_FILES - 1}, not {number!r}")
        return File(self.kernel, number)

    @property
    def proc(self) -> ProcFs:
        """The files of /proc that concern memory: ``machine.proc.open("1/pagemap")``."""
        return ProcFs(self.kernel)

    def swapoff(self) -> None:
        """swapoff(2): every page comes back from swap (mm/swapfile.c:try_to_unuse)."""
        self.kernel.swapoff()

    def ksm_scan(self, *, use_zero_pages: bool = False) -> None:
        """Full passes of ksmd over what was advised MERGEABLE (mm/ksm.c:ksm_do_scan)."""
        self.kernel.ksm_scan(use_zero_pages=use_zero_pages)
