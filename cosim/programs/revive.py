"""An image as a running program: in a fresh process, from data that is checked as it is used."""

from __future__ import annotations

import contextlib
import os
import stat
from base64 import b64decode
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.capture import ADVICE_FLAGS
from ptewalk.cosim.programs.errors import Blocked, CallFails
from ptewalk.cosim.programs.images import Pages
from ptewalk.cosim.programs.open_files import (
    Descriptor,
    HostFile,
    Kernels,
    OpenFile,
    Pipe,
    PipeEnd,
    Stream,
    Text,
)
from ptewalk.cosim.programs.opening import open_path
from ptewalk.cosim.programs.page_cache import Inode
from ptewalk.cosim.programs.registers import Registers
from ptewalk.cosim.programs.signals import Action, Information, Signals
from ptewalk.cosim.programs.system import System
from ptewalk.cosim.programs.task import Task
from ptewalk.model.proc.files import ProcFile
from ptewalk.model.state.files import File
from ptewalk.model.x86 import PAGE_SHIFT

__all__ = ["revive"]

_TOP = 1 << 47


def data_of(said: object) -> bytes:
    """Base64 text. Raises ValueError."""
    if not isinstance(said, str):
        raise ValueError(f"{said!r} is no text")
    return b64decode(said, validate=True)


def whole(said: object, low: int = 0, high: int = 1 << 64) -> int:
    """A whole number. Raises ValueError."""
    if not isinstance(said, int) or isinstance(said, bool) or not low <= said < high:
        raise ValueError(f"{said!r} is no number from {low} to {high - 1}")
    return said


def revive(system: System, number: int, pages: Pages, streams: list[Stream]) -> None:
    """Have a fresh system go on where image `number` was made.

    Parameters
    ----------
    streams : list of Stream
        Standard input, output and error of the new run.

    Raises
    ------
    ToolError
        The image is none, or a file that it needs has changed.
    """
    try:
        _Reviver(system, pages, pages.image(number).state, streams).all()
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ToolError(f"image {number}: {what}; restore another one with --epoch") from error
    except CallFails as error:
        raise ToolError(f"image {number}: {error}: a file that it needs is not there; name the same --root") from error


class _Reviver:
    def __init__(self, system: System, pages: Pages, state: dict[str, Any], streams: list[Stream]) -> None:
        self.system, self.pages, self.state, self.streams = system, pages, state, streams
        self.inodes: list[Inode] = []
        self.shared: list[str] = []
        self.files: list[OpenFile] = []

    def all(self) -> None:
        """Everything, in the order in which one thing needs the other."""
        system, state = self.system, self.state
        system.now, system.last_pid = whole(state["now"]), whole(state["last_pid"], 1, 1 << 22)
        system.calls.update({str(name): whole(count) for name, count in state["calls"].items()})
        version, numbers = state["chance"]
        system.chance.setstate((version, tuple(numbers), None))
        self._scratch()
        system.tree.gone = {data_of(path) for path in state["gone"]}
        system.tree.written = whole(state["written"])
        self.inodes = [self._inode(said) for said in state["inodes"]]
        system.tree.nodes.last = whole(state["last_node"])
        system.tree.nodes.touch(system.tree.scratch, whole(state["changed"]))
        self.shared = [self._shared(place, said) for place, said in enumerate(state["shared"])]
        tasks = {whole(said["pid"], 1, 1 << 22): said for said in state["tasks"]}
        if state["current"] not in tasks or 1 not in tasks:
            raise ValueError("its processes are not there")
        self._files()
        del system.tasks[1]
        system.kernel.exit(system.current.process)
        for pid, said in tasks.items():
            system.tasks[pid] = self._task(pid, said)
        for said in state["dead"]:
            dead = Task(whole(said["pid"], 1, 1 << 22), system.tasks[1].process, group=whole(said["group"]))
            dead.status = whole(said["status"], 0, 1 << 16)
            system.tasks[dead.pid] = dead
        system.tasks = dict(sorted(system.tasks.items()))
        for said in (*state["tasks"], *state["dead"]):
            task = system.tasks[said["pid"]]
            task.parent = None if said["parent"] is None else system.tasks[said["parent"]]
            if task.frees_parent and task.parent is not None:
                task.parent.waiting = Blocked(lambda: False)
        system.current = system.tasks[state["current"]]
        system.memory.switch(system.current.process)
        for file in self.files:
            if isinstance(file, Kernels):
                self._open_kernels(file)

    # Files.

    def _scratch(self) -> None:
        tree = self.system.tree
        if os.listdir(tree.scratch):
            raise ToolError(f"{os.fsdecode(tree.scratch)}: it must be empty; name another folder with --scratch")
        for said in self.state["scratch"]:
            path = data_of(said["path"])
            if not path.startswith(b"/") or any(part in (b"", b".", b"..") for part in path[1:].split(b"/")):
                raise ValueError(f"path {path!r}")
            target = tree.scratch + path
            if os.path.realpath(os.path.dirname(target)) != os.path.dirname(target):
                raise ValueError(f"path {path!r} leads through a link")
            mode = whole(said["mode"], 0, 0o10000) & 0o777
            if "link" in said:
                os.symlink(data_of(said["link"]), target)
            elif "contents" in said:
                with os.fdopen(
                    os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600), "wb"
                ) as out:
                    out.write(self.pages.blob(said["contents"]))
                os.chmod(target, mode | 0o600)
            else:
                os.mkdir(target, mode | 0o700)
            tree.nodes.keep(os.lstat(target), whole(said["node"]))
        for said in self.state["scratch"]:
            tree.nodes.touch(tree.scratch + data_of(said["path"]), whole(said["changed"]))

    def _inode(self, said: dict[str, Any]) -> Inode:
        path, system = data_of(said["path"]), self.system
        if "removed" in said:
            name = f"/.removed-{len(self.inodes)}".encode()
            handle = os.open(system.tree.scratch + name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            os.write(handle, self.pages.blob(said["removed"]))
            os.unlink(system.tree.scratch + name)
            system.tree.nodes.keep(os.fstat(handle), whole(said["node"]))
            system.tree.nodes.touch(handle, whole(said["changed"]))
            return system.cache.inode(handle, path, writable=True)
        resolved = system.tree.resolve(b"/", path, follow=False)
        found = system.tree.lstat(resolved)
        if found is None or not stat.S_ISREG(found.st_mode):
            raise CallFails("ENOENT")
        if not said["writable"] and (found.st_size, found.st_mtime_ns) != (said["size"], said["changed"]):
            raise ToolError(f"{os.fsdecode(path)} has changed since the image was made; name a --root with that file")
        return system.inode(resolved, os.O_RDWR if said["writable"] else os.O_RDONLY, 0)

    def _shared(self, place: int, said: dict[str, Any]) -> str:
        """Shared anonymous memory, as a file of the model's; its number."""
        name = f"shared {place}"
        file = self.system.kernel.files.create(name, whole(said["pages"], 0, 1 << 36))
        for offset, *at in said["contents"]:
            self._fill(file, whole(offset, 0, file.pages), self.pages.page(at))
        return name

    def _fill(self, file: File, offset: int, data: bytes) -> None:
        frame = self.system.kernel.files.add_page(file, offset)
        self.system.kernel.frames.store(frame, 0, data)

    def _files(self) -> None:
        pipes = [Pipe(bytearray(data_of(said))) for said in self.state["pipes"]]
        for said in self.state["files"]:
            self.files.append(self._file(said, pipes))

    def _file(self, said: dict[str, Any], pipes: list[Pipe]) -> OpenFile:
        kind, flags, system = said["kind"], whole(said["flags"]), self.system
        if kind == "stream":
            stream = self.streams[whole(said["stream"], 0, 3)]
            stream.skip(whole(said["passed"]))
            return stream
        if kind == "host":
            inode = self.inodes[whole(said["inode"])]
            file = HostFile(inode, flags, data_of(said["path"]), system.cache, system.tree)
            file.position = whole(said["position"])
            return file
        if kind == "pipe":
            return PipeEnd(pipes[whole(said["pipe"])], writes=bool(said["writes"]), flags=flags & ~3)
        if kind == "text":
            text = Text(flags, data_of(said["data"]))
            text.seek(whole(said["position"]), os.SEEK_SET)
            return text
        if kind == "kernel":  # of a process that is not there yet
            waits = Kernels(flags, os.fsdecode(_kernel(said)), ProcFile(), 0)
            waits.seek(whole(said["position"]), os.SEEK_SET)
            return waits
        if kind in ("folder", "device"):
            path = _device(said) if kind == "device" else data_of(said["path"])
            opened = open_path(system, path, flags & ~(os.O_CREAT | os.O_TRUNC | os.O_EXCL), 0)
            if "position" in said:
                opened.seek(whole(said["position"]), os.SEEK_SET)
            return opened
        raise ValueError(f"a file of kind {kind!r}")

    def _open_kernels(self, file: Kernels) -> None:
        """A file of /proc, now that its process is there; one that has ended has nothing to read."""
        with contextlib.suppress(CallFails):
            opened = open_path(self.system, file.path.encode(), file.flags, 0)
            if isinstance(opened, Kernels):
                file.take_over(opened)

    # Processes.

    def _task(self, pid: int, said: dict[str, Any]) -> Task:
        kernel, who = self.system.kernel, whole(said["who"], 0, 1 << 22)
        if who in kernel.processes:
            raise ValueError(f"process {pid} is there twice")
        task = Task(pid, kernel.new_process(who), registers=Registers.from_json(said["registers"]))
        for n, file, close_on_exec in said["descriptors"]:
            task.descriptors[whole(n, 0, 1 << 16)] = Descriptor(self.files[whole(file)], bool(close_on_exec))
        task.folder, task.path, task.name = (data_of(said[name]) for name in ("folder", "path", "name"))
        task.arguments = [data_of(word) for word in said["arguments"]]
        for name in ("umask", "brk", "clear_tid", "group", "alarm_again"):
            setattr(task, name, whole(said[name]))
        task.alarm = None if said["alarm"] is None else whole(said["alarm"])
        task.timed_out, task.frees_parent = bool(said["timed_out"]), bool(said["frees_parent"])
        if said["deadline"] is not None:
            task.waiting = Blocked(lambda: False, whole(said["deadline"]))
        elif said["waits"]:  # its call is made again, unless a signal ends it
            task.waiting = Blocked(lambda: True)
        saved = said["saved_mask"]
        base, size = said["stack"]
        task.signals = Signals(
            {whole(n, 1, 65): Action(*(whole(one) for one in rest)) for n, *rest in said["actions"]},
            whole(said["mask"]),
            [Information(whole(n, 1, 65), *rest) for n, *rest in said["pending"]],
            (whole(base), whole(size)),
            None if saved is None else whole(saved),
        )
        self._memory(task, said)
        return task

    def _memory(self, task: Task, said: dict[str, Any]) -> None:
        system, kernel, process = self.system, self.system.kernel, task.process
        mm = process.mm
        mm.mmap_base, mm.start_brk, mm.brk = (whole(said[name]) for name in ("mmap_base", "start_brk", "heap_end"))
        for area in said["areas"]:
            start, end = whole(area["start"], 0, _TOP), whole(area["end"], 0, _TOP)
            kind = "anon"
            if area["inode"] is not None:
                inode = self.inodes[whole(area["inode"])]
                kind = ("s" if area["shared"] else "p") + system.cache.map(inode)
            elif area["anonymous"] is not None:
                kind = "s" + self.shared[whole(area["anonymous"])]
            rights = "rw" if not area["shared"] else str(area["rights"])
            words = ["growsdown"] if area["grows_down"] else []
            offset = whole(area["offset"]) if kind != "anon" else 0
            kernel.mmap(process, start, end - start, rights, kind, offset, words)
        system.memory.switch(process)
        for at, *place in said["pages"]:
            system.memory.write(whole(at, 0, _TOP >> PAGE_SHIFT) << PAGE_SHIFT, self.pages.page(place))
        for area in said["areas"]:
            start, count = area["start"], area["end"] - area["start"]
            if not area["shared"] and area["rights"] != "rw":
                kernel.mprotect(process, start, count, str(area["rights"]))
            for advice in area["advice"]:
                if advice not in ADVICE_FLAGS:
                    raise ValueError(f"advice {advice!r}")
                kernel.madvise(process, start, count, advice)
            if area["locked"]:
                kernel.mlock(process, start, count, lock=True)


def _device(said: dict[str, Any]) -> bytes:
    names = {0x103: b"null", 0x105: b"zero", 0x107: b"full", 0x109: b"urandom", 0x108: b"random"}
    return b"/dev/" + names[whole(said["device"])]


def _kernel(said: dict[str, Any]) -> bytes:
    path = str(said["path"]).encode()
    if not path.startswith(b"/proc/"):
        raise ValueError(f"path {path!r}")
    return path
