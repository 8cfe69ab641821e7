"""The operating system of a run: its processes, its files, its clock; and the table of its system calls."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.call_numbers import NAMES, NUMBERS
from ptewalk.cosim.programs.cpu import Cpu
from ptewalk.cosim.programs.elf import BadElf, Elf, read_elf
from ptewalk.cosim.programs.errors import Blocked, CallFails, MissingCall
from ptewalk.cosim.programs.loader import Started, start
from ptewalk.cosim.programs.open_files import Descriptor, OpenFile
from ptewalk.cosim.programs.page_cache import Inode, PageCache
from ptewalk.cosim.programs.signals import SIGALRM, SIGCHLD, SIGPIPE, Information
from ptewalk.cosim.programs.task import Task
from ptewalk.cosim.programs.tree import Tree
from ptewalk.cosim.programs.user_memory import UserMemory
from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.memory import BusError
from ptewalk.model.state.machine import Process

__all__ = ["CALLS", "MASK", "Handler", "Limits", "System", "call", "signed"]

MASK: Final = (1 << 64) - 1
_START_NS: Final = 1_700_000_000_000_000_000
"""Virtual time at the start, in nanoseconds since 1970."""
_CALL_NS: Final = 1000
"""Virtual time that a system call takes."""
_MOST_FILES: Final = 1024
_MOST_SCRIPTS: Final = 4

Handler = Callable[..., int]
"""Takes the system and the arguments, as many as it names; gives the result."""
CALLS: Final[dict[int, tuple[Handler, int]]] = {}
"""Number to what answers it, and how many arguments that takes."""


def call(*names: str) -> Callable[[Handler], Handler]:
    """The decorated function answers the system calls of these names."""

    def enter(handler: Handler) -> Handler:
        for name in names:
            CALLS[NUMBERS[name]] = handler, handler.__code__.co_argcount - 1
        return handler

    return enter


def signed(value: int, bits: int = 64) -> int:
    """An unsigned register as a signed number of so many bits."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value


@dataclass(frozen=True)
class Limits:
    """What a run may take: descriptors of a process, and processes."""

    files: int = _MOST_FILES
    tasks: int = 64


class System:
    """One run's operating system.

    Parameters
    ----------
    kernel : Kernel
    memory : UserMemory
    arena : Arena
    tree : Tree
    seed : int
        Of getrandom and its like.
    streams : tuple
        Standard input, output and error.

    Attributes
    ----------
    tasks : dict
        Process number to process, dead ones that nobody waited for included.
    current : Task
        The one that runs.
    calls : Counter
        Name of a system call to how often it was made.
    now : int
        Virtual time, in nanoseconds.
    cpu : Cpu
        Put here by who makes it.
    yields : bool
        The current process lets another one run.
    """

    cpu: Cpu

    def __init__(
        self,
        kernel: Kernel,
        memory: UserMemory,
        arena: Arena,
        tree: Tree,
        seed: int,
        streams: Sequence[OpenFile],
        limits: Limits | None = None,
    ) -> None:
        self.kernel, self.memory, self.arena, self.tree = kernel, memory, arena, tree
        self.chance = random.Random(f"program {seed}")
        self.cache = PageCache(kernel, arena, tree.nodes)
        self.limits = limits or Limits()
        self.calls: Counter[str] = Counter()
        self.now = _START_NS
        tree.nodes.clock = lambda: self.now
        tree.nodes.touch(tree.scratch)
        self.before_call: Callable[[int], None] = lambda number: None
        """Told of each system call before it is made."""
        self.after_call: Callable[[int, int], None] = lambda number, result: None
        """Told of each system call that was made, and of what RAX is then (0: the registers were replaced)."""
        self.before_clear: Callable[[Process], None] = lambda process: None
        """Told of a process before the program itself clears its soft-dirty bits."""
        self.origins: dict[Process, Process] = {}
        """Process to the one whose address space it copied, since the last epoch."""
        self.departures = 0
        """Processes that ended, or ran another program."""
        self.yields = False
        self.replaced = False
        first = Task(1, kernel.processes[0])
        for number, stream in enumerate(streams):
            first.descriptors[number] = Descriptor(stream)
        self.tasks: dict[int, Task] = {1: first}
        self.current = first
        self.last_pid = 1

    # Programs.

    def execute(self, path: bytes, arguments: Sequence[bytes], environment: Sequence[bytes]) -> Started:
        """execve: the current process runs another program. Raises `CallFails`, with the old one as it was."""
        task = self.current
        words = list(arguments)
        asked = path
        for _ in range(_MOST_SCRIPTS):
            resolved = self.tree.resolve(task.folder, asked)
            inode, data = self.open_program(resolved)
            if data[:2] != b"#!":
                break
            line = data[2 : max(data.find(b"\n"), 0) or len(data)].strip().split(None, 1)
            if not line:
                raise CallFails("ENOEXEC")
            words = [line[0], *line[1:], asked, *words[1:]]
            asked = line[0]
        else:
            raise CallFails("ELOOP")
        program = self._elf(data), inode
        if program[0].interpreter is not None:  # before anything is lost
            self._interpreter(program[0].interpreter)
        old = task.process
        self.drop_memory(task)
        self.departures += 1
        task.process = self.kernel.new_process(old.who)
        task.process.parent = old.parent
        self.memory.switch(task.process)
        started = start(
            *(self.kernel, task.process, self.memory, self.cache, program, self._interpreter),
            *(path, words, environment, self.chance.randbytes(16)),
        )
        task.brk = started.brk
        task.path, task.name, task.arguments = resolved, resolved.rsplit(b"/", 1)[-1][:15], words
        task.clear_tid = 0
        task.signals.execute()
        for number in [number for number, one in task.descriptors.items() if one.close_on_exec]:
            task.descriptors.pop(number).drop()
        return started

    def find(self, name: bytes, environment: Sequence[bytes]) -> bytes:
        """The path of a program: a name without a slash is looked for in PATH."""
        if b"/" in name:
            return name
        path = next((one[5:] for one in environment if one.startswith(b"PATH=")), b"")
        for folder in path.split(b":"):
            with contextlib.suppress(CallFails):
                found = self.tree.lstat(self.tree.resolve(b"/", folder + b"/" + name))
                if found is not None and stat.S_ISREG(found.st_mode) and found.st_mode & 0o111:
                    return folder + b"/" + name
        return name

    def open_program(self, path: bytes) -> tuple[Inode, bytes]:
        """The inode and the bytes of a file that is to be executed. Raises `CallFails`."""
        found = self.tree.lstat(path)
        if found is None:
            raise CallFails("ENOENT")
        if not stat.S_ISREG(found.st_mode) or not found.st_mode & 0o111:
            raise CallFails("EACCES")
        inode = self.inode(path, os.O_RDONLY, 0)
        return inode, self.cache.read(inode, 0, inode.size)

    def inode(self, path: bytes, flags: int, mode: int) -> Inode:
        """The inode of a resolved path, opened."""
        handle = self.tree.open(path, flags, mode)
        writable = self.tree.host(path) == self.tree.scratch + path
        return self.cache.inode(handle, path, writable=writable)

    def _elf(self, data: bytes) -> Elf:
        try:
            return read_elf(data)
        except BadElf as error:
            raise CallFails("ENOEXEC") from error

    def _interpreter(self, path: bytes) -> tuple[Elf, Inode]:
        inode, data = self.open_program(self.tree.resolve(b"/", path))
        return self._elf(data), inode

    def drop_memory(self, task: Task) -> None:
        """The address space of a process goes, its page tables included."""
        tables = task.process.mm.tables.frames_used
        self.kernel.exit(task.process)
        for frame in tables():
            self.kernel.frames.free(frame)

    def explain(self, path: bytes) -> str:
        """Why a program cannot run, for who asked for it; "" when it could."""
        try:
            resolved = self.tree.resolve(self.current.folder, path)
            _, data = self.open_program(resolved)
            elf = read_elf(data) if data[:2] != b"#!" else None
            if elf is not None and elf.interpreter is not None:
                try:
                    self._interpreter(elf.interpreter)
                except CallFails:
                    return f"its interpreter {os.fsdecode(elf.interpreter)} is not there; name a --root that has it"
        except CallFails as error:
            return f"{os.strerror(error.number)}; name a program below --root"
        except BadElf as error:
            return f"{error}; give an x86-64 Linux program"
        return ""

    # System calls.

    def system_call(self, number: int, arguments: tuple[int, ...]) -> int | None:
        """As `answer`; where a signal is due afterwards the processor stops."""
        self.before_call(number)
        result = self.answer(number, arguments)
        task = self.current
        if task.waiting is None:
            self.after_call(number, result or 0)
        if task.alarm is not None and self.now >= task.alarm:
            self.ring(task)
        if task.signals.pending and task.signals.next() is not None:
            self.cpu.stop()
        return result

    def ring(self, task: Task) -> None:
        """The alarm of a process goes off."""
        task.alarm = self.now + task.alarm_again if task.alarm_again else None
        task.signals.send(Information(SIGALRM))

    def answer(self, number: int, arguments: tuple[int, ...]) -> int | None:
        """Answer a system call of the current process.

        Returns
        -------
        int or None
            RAX, unsigned; None: the registers were replaced.

        Raises
        ------
        MissingCall
            There is none of that number here.
        """
        found = CALLS.get(number)
        name = NAMES.get(number, f"number {number}")
        if found is None:
            raise MissingCall(f"system call {number} ({name}) is not there: see what is in docs/run.md")
        self.calls[name] += 1
        self.now += _CALL_NS
        handler, count = found
        self.kernel.frames.begin_step()
        try:
            result = handler(self, *arguments[:count]) & MASK
            if self.replaced:
                self.replaced = False
                return None
            self.current.timed_out = False
            return result
        except CallFails as error:
            if error.number == errno.EPIPE:
                self.current.signals.send(Information(SIGPIPE))
            return -error.number & MASK
        except Blocked as blocked:  # it counts when it is made again, and ends
            self.calls[name] -= 1
            self.now -= _CALL_NS
            self._wait(blocked)
            return None
        except Errno as error:
            return -error.number & MASK
        except BusError as error:
            raise ToolError(
                f"the program needs more physical memory than {self.arena.size >> 20}M; give it more with --memory"
            ) from error

    def _wait(self, blocked: Blocked) -> None:
        """The current process waits, and makes its system call again then."""
        self.current.waiting = blocked
        self.cpu.stop_before()

    def timed_out(self) -> bool:
        """Is the system call made again because its time is over? To be asked once."""
        over, self.current.timed_out = self.current.timed_out, False
        return over

    # Processes.

    def begin(self, started: Started) -> None:
        """The current process goes on at the start of a program."""
        task = self.current
        self.cpu.load(self.cpu.fresh.with_(rip=started.entry, rsp=started.stack, rflags=0x202))
        self.replaced = True
        self.cpu.stop()
        self._free_parent(task)

    def _free_parent(self, task: Task) -> None:
        if task.frees_parent:
            task.frees_parent = False
            if task.parent is not None:
                task.parent.waiting = None

    def fork(self, *, shares: bool) -> Task:
        """A child of the current process, which runs later; `shares`: the parent waits for it (vfork)."""
        if sum(task.status is None for task in self.tasks.values()) >= self.limits.tasks:
            raise CallFails("EAGAIN")
        parent = self.current
        pid = self.last_pid + 1
        self.kernel.fork(parent.process, pid - 1)
        self.last_pid = pid
        child = Task(pid, self.kernel.processes[pid - 1], parent, registers=self.cpu.save_behind().with_(rax=0))
        self.origins[child.process] = parent.process
        child.descriptors = {
            number: Descriptor(one.file, one.close_on_exec) for number, one in parent.descriptors.items()
        }
        for name in ("folder", "umask", "brk", "path", "name", "arguments", "group"):
            setattr(child, name, getattr(parent, name))
        child.signals = parent.signals.fork()
        mm, old = child.process.mm, parent.process.mm
        mm.mmap_base, mm.start_brk, mm.brk = old.mmap_base, old.start_brk, old.brk
        self.tasks[pid] = child
        if shares:
            child.frees_parent = True
            parent.waiting = Blocked(lambda: False)
            self.cpu.stop()
        return child

    def end(self, task: Task, status: int) -> None:
        """A process ends with a status as wait4 gives it."""
        if task.clear_tid:
            with contextlib.suppress(CallFails):
                self.memory.write(task.clear_tid, bytes(4))
        for one in task.descriptors.values():
            one.drop()
        task.descriptors.clear()
        self.drop_memory(task)
        self.departures += 1
        task.status = status
        for other in self.tasks.values():
            if other.parent is task:
                other.parent = None
                other.waited_for = True
        self._free_parent(task)
        if task.parent is not None:
            task.parent.signals.send(Information(SIGCHLD, 1, sender=task.pid, status=status >> 8))
        self.cpu.stop()

    def file(self, number: int) -> OpenFile:
        """What a descriptor of the current process stands for. Raises `CallFails` EBADF."""
        found = self.current.descriptors.get(number & 0xFFFFFFFF)
        if found is None:
            raise CallFails("EBADF")
        return found.file

    def new_descriptor(self, file: OpenFile, *, close_on_exec: bool = False, least: int = 0) -> int:
        """A number for an open file. Raises `CallFails` EMFILE."""
        number = self.current.free_number(least)
        if number >= self.limits.files:
            raise CallFails("EMFILE")
        self.current.descriptors[number] = Descriptor(file, close_on_exec)
        return number

    def missing(self, what: str) -> MissingCall:
        """A part of a system call that is not here."""
        return MissingCall(f"{what} is not there: see what is in docs/run.md")
