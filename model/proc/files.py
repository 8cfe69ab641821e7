"""The files of /proc that concern memory, as objects over a machine.

`ProcFs` opens them by path: ``PID/clear_refs``, ``PID/pagemap``, ``kpageflags``, ``kpagecount``, and the texts of
`TEXTS` and `MACHINE_TEXTS`. Process `who` of a scenario has the PID `pid_of(who)`. Every error is an `Errno`, as the
system call would fail.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.errors import Errno
from ptewalk.model.linux import TASK_PAGES
from ptewalk.model.proc import clear_refs, kpage, pagemap, smaps, status
from ptewalk.model.state.machine import MachineState, Process

__all__ = ["MODES", "ClearRefs", "ProcFile", "ProcFs", "pid_of"]

WORD_BYTES: Final = 8
TEXTS: Final[dict[str, Callable[[MachineState, Process], str]]] = {
    "maps": lambda kernel, process: smaps.maps(process.mm),
    "smaps": lambda kernel, process: smaps.smaps(process.mm),
    "smaps_rollup": lambda kernel, process: smaps.rollup(process.mm),
    "stat": status.stat,
    "statm": status.statm,
    "status": status.status,
    "cmdline": status.cmdline,
    "comm": status.comm,
}
"""Name to the text of a file of a process."""
MACHINE_TEXTS: Final[dict[str, Callable[[MachineState], str]]] = {
    "meminfo": status.meminfo,
    "stat": status.machine_stat,
    "cpuinfo": status.cpuinfo,
    "uptime": status.uptime,
    "loadavg": status.loadavg,
    "version": status.version,
}
"""Name to the text of a file of the machine."""
MODES: Final = {"clear_refs": 0o200, "pagemap": 0o400, "kpageflags": 0o400, "kpagecount": 0o400}
"""Name to access permissions, where they are not 0o444."""
_OF_PROCESS: Final = ("clear_refs", "pagemap", *TEXTS)
_OF_MACHINE: Final = ("kpageflags", "kpagecount", *MACHINE_TEXTS)
SELF: Final = "self"
"""A link to the folder of process 0."""


def pid_of(who: int) -> int:
    """The PID of process `who`: 1 is process 0."""
    return who + 1


class ProcFile:
    """An open file. It reads and writes at an offset, or at its position, which `seek` moves."""

    def __init__(self) -> None:
        self._position = 0

    def pread(self, count: int, offset: int) -> bytes:
        """At most `count` bytes from `offset`; none at the end."""
        raise Errno("EINVAL")

    def pwrite(self, data: bytes, offset: int) -> int:
        """Write `data`; the number of bytes taken."""
        raise Errno("EINVAL")

    def read(self, count: int) -> bytes:
        """As `pread` at the position, which moves on."""
        data = self.pread(count, self._position)
        self._position += len(data)
        return data

    def write(self, data: bytes) -> int:
        """As `pwrite` at the position, which moves on."""
        taken = self.pwrite(data, self._position)
        self._position += taken
        return taken

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; there is no end to seek from (mem_lseek)."""
        if whence not in (os.SEEK_SET, os.SEEK_CUR):
            raise Errno("EINVAL")
        target = offset + (self._position if whence == os.SEEK_CUR else 0)
        if target < 0:
            raise Errno("EINVAL")
        self._position = target
        return target


class _WordFile(ProcFile, ABC):
    """8-byte words, little-endian; offset and count must be multiples of 8."""

    def __init__(self) -> None:
        super().__init__()
        self._whole = BytesIO()
        """What was read last. It gives its bytes away as they are, and has others when it is written while a reader
        still has them: who reads again and again costs no memory that is new."""

    def pread(self, count: int, offset: int) -> bytes:
        """As `ProcFile.pread`."""
        if offset % WORD_BYTES or count % WORD_BYTES:
            raise Errno("EINVAL")
        first = offset // WORD_BYTES
        words = min(count // WORD_BYTES, self.end() - first)
        if words <= 0:
            return b""
        if self._whole.getbuffer().nbytes != WORD_BYTES * words:
            self._whole = BytesIO(bytes(WORD_BYTES * words))
        self.put(first, np.frombuffer(self._whole.getbuffer(), "<u8"))
        return self._whole.getvalue()

    @abstractmethod
    def end(self) -> int:
        """Words of the file."""

    @abstractmethod
    def put(self, first: int, out: NDArray[np.uint64]) -> None:
        """Put the words from `first` on into `out`, all of which there are."""


class KpageFile(_WordFile):
    """/proc/kpageflags or /proc/kpagecount: a word per frame (see model/proc/kpage.py).

    Parameters
    ----------
    kernel : MachineState
    words : callable
        `kpage.flags` or `kpage.counts`.
    """

    def __init__(self, kernel: MachineState, words: Callable[[MachineState, int, int], NDArray[np.uint64]]) -> None:
        super().__init__()
        self._kernel = kernel
        self._words = words

    def end(self) -> int:
        """Frames of the machine."""
        return kpage.end(self._kernel)

    def put(self, first: int, out: NDArray[np.uint64]) -> None:
        """As `_WordFile.put`."""
        out[:] = self._words(self._kernel, first, len(out))


class _OfProcess:
    """A file of one process."""

    def __init__(self, kernel: MachineState, process: Process) -> None:
        super().__init__()
        self.kernel = kernel
        self.process = process

    @property
    def gone(self) -> bool:
        """The process has ended since the file was opened."""
        return self.kernel.processes.get(self.process.who) is not self.process

    def check(self) -> None:
        """ESRCH when the process has ended (get_proc_task)."""
        if self.gone:
            raise Errno("ESRCH")


class ClearRefs(_OfProcess, ProcFile):
    """/proc/PID/clear_refs: takes "1" to "4", and "5" where the kernel knows it (clear_refs_write)."""

    def pwrite(self, data: bytes, offset: int) -> int:
        """As `ProcFile.pwrite`; the offset does not matter."""
        text = data.decode("latin-1")
        if self.gone:
            clear_refs.accept(self.kernel, text)
            raise Errno("ESRCH")
        return clear_refs.write(self.process.mm, text)


class Pagemap(_OfProcess, _WordFile):
    """/proc/PID/pagemap: a word per page of the address space (pagemap_read).

    Parameters
    ----------
    privileged : bool
        It was opened with CAP_SYS_ADMIN; otherwise frame numbers are 0 where the kernel hides them.
    """

    def __init__(self, kernel: MachineState, process: Process, *, privileged: bool) -> None:
        super().__init__(kernel, process)
        self._privileged = privileged

    def pread(self, count: int, offset: int) -> bytes:
        """As `ProcFile.pread`."""
        if self.gone and self.kernel.profile.files_pagemap_keeps_mm:
            return b""
        self.check()
        return super().pread(count, offset)

    def end(self) -> int:
        """Pages below TASK_SIZE."""
        return TASK_PAGES[self.process.mm.tables.levels]

    def put(self, first: int, out: NDArray[np.uint64]) -> None:
        """As `_WordFile.put`."""
        pagemap.put(self.process.mm, first, out, show_frames=self._privileged)


class _TextFile(ProcFile):
    """A text, which is made when it is read from its start."""

    def __init__(self, make: Callable[[], str]) -> None:
        super().__init__()
        self._make = make
        self._text = b""

    def pread(self, count: int, offset: int) -> bytes:
        """As `ProcFile.pread`."""
        if not offset or not self._text:
            self._text = self._make().encode()
        return self._text[offset : offset + count]


class TextFile(_OfProcess, ProcFile):
    """A text of one process: maps, status and so on."""

    def __init__(self, kernel: MachineState, process: Process, name: str) -> None:
        super().__init__(kernel, process)
        self._file = _TextFile(lambda: TEXTS[name](kernel, process))

    def pread(self, count: int, offset: int) -> bytes:
        """As `ProcFile.pread`."""
        self.check()
        return self._file.pread(count, offset)


class ProcFs:
    """The tree of a kernel's files.

    Parameters
    ----------
    kernel : MachineState
    """

    def __init__(self, kernel: MachineState) -> None:
        self.kernel = kernel

    def names(self, folder: str) -> list[str]:
        """What a folder holds: "" the root, "PID" a process's.

        Raises
        ------
        Errno
            ENOENT, ENOTDIR.
        """
        if not folder:
            return [*(str(pid_of(who)) for who in sorted(self.kernel.processes)), SELF, *_OF_MACHINE]
        process, name = self._find(folder)
        if process is None or name:
            raise Errno("ENOTDIR")
        return self._of_process()

    def is_folder(self, path: str) -> bool:
        """Is `path`, which must exist, a folder? Raises `Errno` ENOENT."""
        return not path or not self._find(path)[1]

    def open(self, path: str, *, privileged: bool = True) -> ProcFile:
        """Open a file.

        Parameters
        ----------
        privileged : bool
            With CAP_SYS_ADMIN.

        Raises
        ------
        Errno
            ENOENT, EISDIR.
        """
        process, name = self._find(path)
        if not name:
            raise Errno("EISDIR")
        if process is None and name in MACHINE_TEXTS:
            return _TextFile(lambda: MACHINE_TEXTS[name](self.kernel))
        if process is None:
            return KpageFile(self.kernel, kpage.flags if name == "kpageflags" else kpage.counts)
        if name == "clear_refs":
            return ClearRefs(self.kernel, process)
        if name == "pagemap":
            return Pagemap(self.kernel, process, privileged=privileged)
        return TextFile(self.kernel, process, name)

    def _of_process(self) -> list[str]:
        """Files of a process; smaps_rollup where the kernel has it."""
        known = self.kernel.profile.files_smaps_rollup
        return [name for name in _OF_PROCESS if known or name != "smaps_rollup"]

    def _find(self, path: str) -> tuple[Process | None, str]:
        """The process and the name of a path; no name: a folder."""
        if path in _OF_MACHINE:
            return None, path
        pid, _, name = path.partition("/")
        pid = str(pid_of(0)) if pid == SELF else pid
        found = {str(pid_of(who)): process for who, process in self.kernel.processes.items()}
        if pid not in found or (name and name not in self._of_process()):
            raise Errno("ENOENT")
        return found[pid], name
