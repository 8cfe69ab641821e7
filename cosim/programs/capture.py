"""A running program as data: what an image holds."""

from __future__ import annotations

import os
import stat
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.epochs import Present, is_private
from ptewalk.cosim.programs.images import Image, digest
from ptewalk.cosim.programs.open_files import Folder, HostFile, Kernels, Null, OpenFile, Pipe, PipeEnd, Stream, Text
from ptewalk.cosim.programs.page_cache import Inode
from ptewalk.cosim.programs.registers import Registers
from ptewalk.cosim.programs.system import System
from ptewalk.cosim.programs.task import Task
from ptewalk.model.linux import VmFlag
from ptewalk.model.state.files import File
from ptewalk.model.state.machine import Process
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import PAGE_BYTES

__all__ = ["ADVICE_FLAGS", "Capture"]

ADVICE_FLAGS: Final = {
    "HUGEPAGE": VmFlag.HUGEPAGE,
    "NOHUGEPAGE": VmFlag.NOHUGEPAGE,
    "DONTFORK": VmFlag.DONTCOPY,
    "WIPEONFORK": VmFlag.WIPEONFORK,
    "MERGEABLE": VmFlag.MERGEABLE,
    "DONTDUMP": VmFlag.DONTDUMP,
}
"""Advice to the flag of an area that it sets."""
_RIGHTS: Final = ((VmFlag.READ, "r"), (VmFlag.WRITE, "w"), (VmFlag.EXEC, "x"))


def text(data: bytes) -> str:
    """Bytes as base64."""
    return b64encode(data).decode()


class Capture:
    """Makes one image after the other of a run.

    Parameters
    ----------
    system : System
    settings : dict
        What a new process needs to know of the run: it stands in each image.
    """

    def __init__(self, system: System, settings: Mapping[str, Any]) -> None:
        self._system = system
        self._settings = dict(settings)
        self._places: dict[Process, dict[int, list[int]]] = {}
        self._shared_places: dict[tuple[File, int], list[int]] = {}
        self._file_places: dict[str, list[int]] = {}
        self._dirty: dict[Process, set[int]] = {}
        self._dirty_frames: set[int] = set()
        self._pages = bytearray()
        self._blobs: list[bytes] = []
        self._number = 0
        self.written_pages = 0

    def note(self, found: Mapping[Process, Sequence[Present]]) -> None:
        """What is reported at the end of an epoch, before it is cleared."""
        for process, pages in found.items():
            self._dirty.setdefault(process, set()).update(one.page for one in pages if one.reported)
            self._dirty_frames.update(one.frame for one in pages if one.reported)

    def take(self, number: int, found: Mapping[Process, Sequence[Present]], registers: Registers) -> Image:
        """The image of this moment; `registers` are those of the process that runs.

        Raises
        ------
        ToolError
            The program has what no image can hold.
        """
        self._number = number
        self._pages, self._blobs = bytearray(), []
        system = self._system
        alive = [task for task in system.tasks.values() if task.status is None]
        self._places = {process: places for process, places in self._places.items() if process in found}
        self._files: list[dict[str, Any]] = []
        self._file_numbers: dict[int, int] = {}
        self._inodes: list[Inode] = []
        self._pipes: list[Pipe] = []
        self._shared: list[File] = []
        tasks = [self._task(task, found.get(task.process, ()), registers) for task in alive]
        dead = [self._dead(task) for task in system.tasks.values() if task.status is not None]
        state = {
            "settings": self._settings,
            "now": system.now,
            "last_pid": system.last_pid,
            "current": system.current.pid,
            "calls": dict(system.calls),
            "chance": [system.chance.getstate()[0], list(system.chance.getstate()[1])],
            "tasks": tasks,
            "dead": dead,
            "files": self._files,
            "pipes": [text(bytes(pipe.data)) for pipe in self._pipes],
            "shared": [self._shared_file(file) for file in self._shared],
            "inodes": [self._inode(inode) for inode in self._inodes],
            "scratch": self._scratch(),
            "gone": sorted(text(path) for path in system.tree.gone),
            "written": system.tree.written,
            "last_node": system.tree.nodes.last,
            "changed": os.lstat(system.tree.scratch).st_mtime_ns,
        }
        self._dirty.clear()
        self._dirty_frames.clear()
        self.written_pages += len(self._pages) // PAGE_BYTES
        return Image(state, bytes(self._pages), self._blobs)

    # Processes.

    def _task(self, task: Task, found: Sequence[Present], registers: Registers) -> dict[str, Any]:
        own = registers if task is self._system.current and task.registers is None else task.registers
        assert own is not None
        mm = task.process.mm
        signals = task.signals
        return {
            "pid": task.pid,
            "who": task.process.who,
            "parent": None if task.parent is None else task.parent.pid,
            "registers": own.as_json(),
            "descriptors": [[n, self._file(one.file), one.close_on_exec] for n, one in task.descriptors.items()],
            "folder": text(task.folder),
            "path": text(task.path),
            "name": text(task.name),
            "arguments": [text(word) for word in task.arguments],
            **{name: getattr(task, name) for name in ("umask", "brk", "clear_tid", "group", "alarm", "alarm_again")},
            "timed_out": task.timed_out,
            "waits": task.waiting is not None,
            "frees_parent": task.frees_parent,
            "deadline": None if task.waiting is None else task.waiting.deadline,
            "actions": [[n, one.handler, one.flags, one.restorer, one.mask] for n, one in signals.actions.items()],
            "mask": signals.mask,
            "saved_mask": signals.saved_mask,
            "pending": [[one.signal, one.code, one.address, one.sender, one.status] for one in signals.pending],
            "stack": list(signals.stack),
            "mmap_base": mm.mmap_base,
            "start_brk": mm.start_brk,
            "heap_end": mm.brk,
            "areas": [self._area(vma) for vma in mm.areas],
            "pages": self._own_pages(task.process, found),
        }

    @staticmethod
    def _dead(task: Task) -> dict[str, Any]:
        parent = None if task.parent is None else task.parent.pid
        return {"pid": task.pid, "parent": parent, "status": task.status, "group": task.group}

    def _area(self, vma: Vma) -> dict[str, Any]:
        if vma.huge_level:
            raise ToolError("the program has hugetlb pages, and no image can hold them; leave --checkpoint away")
        inode = None
        shared = bool(vma.flags & VmFlag.SHARED)
        of: int | None = None
        if vma.file is not None:
            number = self._system.kernel.files.number_of(vma.file)[1]
            if number is None:
                if vma.file not in self._shared:
                    self._shared.append(vma.file)
                of = self._shared.index(vma.file)
            else:
                inode = self._inode_number(self._system.cache.mapped[number])
        return {
            "start": vma.start,
            "end": vma.end,
            "rights": "".join(letter for bit, letter in _RIGHTS if vma.flags & bit) or "-",
            "shared": shared,
            "inode": inode,
            "anonymous": of,
            "offset": vma.pgoff,
            "grows_down": bool(vma.flags & VmFlag.GROWSDOWN),
            "locked": bool(vma.flags & VmFlag.LOCKED),
            "advice": [name for name, bit in ADVICE_FLAGS.items() if vma.flags & bit],
        }

    def _own_pages(self, process: Process, found: Sequence[Present]) -> list[list[int]]:
        """[page, image, place] of each private page."""
        before = self._places.get(process)
        dirty = self._dirty.get(process, set())
        now: dict[int, list[int]] = {}
        for one in found:
            if not is_private(self._system.kernel, one):
                continue
            old = None if before is None else before.get(one.page)
            now[one.page] = self._add(one.frame, one.words) if old is None or one.page in dirty else old
        self._places[process] = now
        return [[at, *place] for at, place in now.items()]

    def _add(self, frame: int, words: NDArray[np.uint64] | None = None) -> list[int]:
        """Keep what a frame holds, or the words of a page that is in none."""
        row = self._system.kernel.memory_row(frame) if frame else words
        self._pages += bytes(PAGE_BYTES) if row is None else row.tobytes()
        return [self._number, len(self._pages) // PAGE_BYTES - 1]

    def _shared_file(self, file: File) -> dict[str, Any]:
        """Shared anonymous memory: a page is taken anew where a mapping reports it, or none is there to report."""
        mapped = {
            vma.offset(at)
            for task in self._system.tasks.values()
            if task.status is None
            for vma in task.process.mm.areas
            if vma.file is file
            for at in range(vma.start, vma.end)
            if task.process.mm.tables.get(at)
        }
        rows = []
        for offset, frame in sorted(file.cache.items()):
            old = self._shared_places.get((file, offset))
            if old is None or frame in self._dirty_frames or offset not in mapped:
                old = self._shared_places[file, offset] = self._add(frame)
            rows.append([offset, *old])
        return {"pages": file.pages, "contents": rows}

    # Files.

    def _file(self, file: OpenFile) -> int:
        """The number of an open file, described once."""
        if id(file) in self._file_numbers:
            return self._file_numbers[id(file)]
        number = self._file_numbers[id(file)] = len(self._files)
        said: dict[str, Any] = {"flags": file.flags}
        self._files.append(said)
        if isinstance(file, Stream):
            said |= {"kind": "stream", "stream": file.number, "passed": file.passed}
        elif isinstance(file, HostFile):
            said |= {"kind": "host", "inode": self._inode_number(file.inode), "position": file.position}
            said |= {"path": text(file.path)}
        elif isinstance(file, Folder):
            said |= {"kind": "folder", "path": text(file.path), "position": file.position}
        elif isinstance(file, PipeEnd):
            if file.pipe not in self._pipes:
                self._pipes.append(file.pipe)
            said |= {"kind": "pipe", "pipe": self._pipes.index(file.pipe), "writes": file.writes}
        elif isinstance(file, Null):
            said |= {"kind": "device", "device": file.device}
        elif isinstance(file, Text):
            said |= {"kind": "text", "data": text(file.data), "position": file.position}
        elif isinstance(file, Kernels):
            said |= {"kind": "kernel", "path": file.path, "position": file.seek(0, os.SEEK_CUR)}
        else:
            raise ToolError(f"an open {type(file).__name__} is in no image; leave --checkpoint away")
        return number

    def _inode_number(self, inode: Inode) -> int:
        if inode not in self._inodes:
            self._inodes.append(inode)
        return self._inodes.index(inode)

    def _inode(self, inode: Inode) -> dict[str, Any]:
        found = os.fstat(inode.handle)
        said: dict[str, Any] = {"path": text(inode.path), "writable": inode.writable, "size": inode.size}
        if not inode.writable:
            return said | {"changed": found.st_mtime_ns}
        host = self._system.tree.host(inode.path)
        here = None if host is None else os.lstat(host)
        if here is None or (here.st_dev, here.st_ino) != (found.st_dev, found.st_ino):
            node = said["node"] = self._system.tree.nodes.number(found)
            said["changed"] = found.st_mtime_ns
            said["removed"] = self._blob(f"inode {node}", self._system.cache.read(inode, 0, inode.size))
        return said

    def _blob(self, key: str, data: bytes) -> list[int]:
        """Where bytes lie: those of an earlier image when they are the same."""
        key = f"{key} {digest(data)}"
        if key not in self._file_places:
            self._blobs.append(data)
            self._file_places[key] = [self._number, len(self._blobs) - 1]
        return self._file_places[key]

    def _scratch(self) -> list[dict[str, Any]]:
        """The scratch folder: folders, links and files, in an order in which they can be made."""
        self._system.cache.write_back()
        scratch = self._system.tree.scratch
        rows: list[dict[str, Any]] = []
        for folder, folders, names in os.walk(scratch):
            for name in sorted((*folders, *names)):
                whole = os.path.join(folder, name)
                path, found = whole[len(scratch) :], os.lstat(whole)
                said: dict[str, Any] = {"path": text(path), "mode": stat.S_IMODE(found.st_mode)}
                said |= {"node": self._system.tree.nodes.number(found), "changed": found.st_mtime_ns}
                if stat.S_ISLNK(found.st_mode):
                    said["link"] = text(os.readlink(whole))
                elif stat.S_ISREG(found.st_mode):
                    with open(whole, "rb") as handle:
                        said["contents"] = self._blob(text(path), handle.read())
                rows.append(said)
        return rows
