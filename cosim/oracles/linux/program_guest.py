"""A real Linux kernel under QEMU that runs one program under ptrace, and stops it where an epoch ends.

Example
-------
::

    from ptewalk.cosim.oracles.linux.program_guest import GuestProgram, ProgramGuest, guest_file

    program = GuestProgram(["/bin/true"], files=[guest_file(path) for path in ("/bin", "/bin/true")], marker=True)
    with ProgramGuest("6.1") as guest:
        guest.start(program)
        ...
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.oracles.linux.guest import Guest, GuestDied
from ptewalk.cosim.oracles.linux.image import GuestKernel, build_agent, cpio
from ptewalk.cosim.oracles.linux.state import read_tables
from ptewalk.model import x86

__all__ = ["ONE_PROCESS", "Area", "Call", "ProgramState", "GuestFile", "GuestProgram", "ProgramGuest"]

ONE_PROCESS: Final = (
    "the program makes a process, or runs another program: --against takes one process; compare each program by itself"
)
TRACER_SOURCE: Final = Path(__file__).with_name("tracer.c")
COMMAND_START, COMMAND_PARK, COMMAND_UNPARK, COMMAND_NEXT, COMMAND_FILE, COMMAND_END = range(1, 7)
SYSCALLS, MARKER = 1, 2
STARTED, EPOCH, ENDED, PROCESS = range(1, 5)
# Byte offsets in the mailbox: struct mailbox of tracer.c.
AT_TEXT, AT_STOPPED, AT_LOG, AT_STATE = 64, 65536, 131072, 262144
TEXT_BYTES: Final = 65472
AREA_WORDS: Final = 16
TASK_END: Final = 1 << 47
_TREE: Final = "tree"


class GuestFile(NamedTuple):
    """A file, folder or link of the program's tree.

    Attributes
    ----------
    path : str
        Absolute.
    mode : int
    data : bytes
        Contents, or what a link says.
    changed : int
        Seconds since 1970.
    """

    path: str
    mode: int
    data: bytes
    changed: int


class Told(NamedTuple):
    """What a system call is to tell the program in the guest, as it was told elsewhere.

    Attributes
    ----------
    call : int
        How many calls were made with it; 0: execve.
    stack, result : int
        RSP and RAX, unsigned. Where the guest's are others, nothing is told.
    address : int
    data : bytes
        What is put there; empty: RAX itself is told.
    """

    call: int
    stack: int
    result: int
    address: int = 0
    data: bytes = b""

    def pack(self) -> bytes:
        """struct answer of tracer.c, and the data"""
        return struct.pack("<qQQQq", self.call, self.stack, self.result, self.address, len(self.data)) + self.data


@dataclass(frozen=True)
class GuestProgram:
    """What the guest runs.

    Attributes
    ----------
    path : bytes
        Of the program; `arguments` begin with its name.
    arguments, environment : sequences of bytes
    folder : bytes
        Where it starts.
    files : sequence of GuestFile
        Its tree; folders before what is in them.
    stdin : bytes
    told : sequence of Told
        In the order of calls.
    count : int
        An epoch ends before each so many system calls; 0: at each marker.
    """

    path: bytes
    arguments: Sequence[bytes]
    environment: Sequence[bytes]
    folder: bytes
    files: Sequence[GuestFile]
    stdin: bytes = b""
    told: Sequence[Told] = ()
    count: int = 0


class Area(NamedTuple):
    """One mapping: addresses, rights as smaps has them, and VmFlags."""

    start: int
    end: int
    rights: str
    flags: tuple[str, ...]


class Call(NamedTuple):
    """A system call that was made: its number and RAX behind it, unsigned."""

    number: int
    result: int


@dataclass
class ProgramState:
    """A program's memory where an epoch ends, and the system calls since the last one.

    Attributes
    ----------
    areas : list of Area
    pages, words : int64 array, uint64 array
        Pages that are present or swapped, and their page map entries.
    calls : list of Call
        Made since the last epoch.
    leaf_pages, leaf_levels, leaves : arrays
        The raw leaf entries: first page, level, entry.
    """

    areas: list[Area]
    pages: NDArray[np.int64]
    words: NDArray[np.uint64]
    calls: list[Call]
    leaf_pages: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    leaf_levels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    leaves: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))


class ProgramGuest(Guest):
    """A guest for one program; a context manager.

    The processor is the one that Unicorn shows (qemu64, without AVX), addresses are not random, and there is no vDSO.

    Parameters
    ----------
    kernel : str, GuestKernel or None
        As `find_kernel` takes it.
    program : GuestProgram
    seconds : float
        Time limit from one epoch to the next.
    """

    def __init__(self, kernel: str | GuestKernel | None, program: GuestProgram, *, seconds: float = 300.0) -> None:
        options = " vdso=0 rootfstype=ramfs"
        super().__init__(kernel, seconds=seconds, cpu="qemu64,+rdrand", board="pc-i440fx-5.0", options=options)
        self.program = program
        self.status = 0
        """The program's, as wait4 gives it, when it has ended."""
        self._root = 0

    def initramfs(self) -> Path:
        """The tracer, and the program's tree in a folder of its own."""
        folders = ("dev", "proc", "sys", _TREE, f"{_TREE}/proc", f"{_TREE}/dev")
        entries = [(name, 0o040755, b"", (0, 0)) for name in folders]
        entries.append(("dev/console", 0o020600, b"", (5, 1)))
        entries.append(("init", 0o100755, build_agent(TRACER_SOURCE).read_bytes(), (0, 0)))
        entries.append(("stdin", 0o100600, self.program.stdin, (0, 0)))
        answers = b"".join(one.pack() for one in self.program.told)
        entries.append(("answers", 0o100600, answers, (0, 0)))
        entries += [(_TREE + one.path, one.mode, one.data, (0, 0)) for one in self.program.files]
        target = self.scratch / "initramfs"
        target.write_bytes(cpio(entries, {_TREE + one.path: one.changed for one in self.program.files}))
        return target

    def epochs(self) -> Iterator[ProgramState]:
        """What is there when the program starts, and then at the end of each epoch.

        Raises
        ------
        ToolError
            The program makes a process or runs another program, or the guest is lost.
        """
        try:
            yield from self._epochs()
        except GuestDied as error:
            raise ToolError(str(error)) from error

    def _epochs(self) -> Iterator[ProgramState]:
        program = self.program
        texts = [program.folder, program.path, *program.arguments, *program.environment]
        text = b"".join(one + b"\0" for one in texts)
        if len(text) > TEXT_BYTES:
            raise ToolError(f"the guest takes {TEXT_BYTES} bytes of arguments and environment, not {len(text)}")
        kind = SYSCALLS if program.count else MARKER
        numbers = (kind, program.count, len(program.arguments), len(program.environment), 0)
        self._ask("the start of the program", COMMAND_START, payload=struct.pack("<5q", *numbers) + text)
        first = self._epoch()
        yield first
        self._find_root((int(first.pages[-1]), int(first.words[-1]) & ((1 << 55) - 1)))
        while True:
            self._ask("the next epoch", COMMAND_NEXT)
            stopped, status, _ = self._words(AT_STOPPED, 3).tolist()
            if stopped == PROCESS:
                raise ToolError(ONE_PROCESS)
            if stopped == ENDED:
                self.status = status
                return
            yield self._epoch()

    def calls(self) -> list[Call]:
        """The system calls since the last epoch."""
        count = int(self._words(AT_STOPPED + 24, 1)[0])
        rows = self._words(AT_LOG, 2 * count).view(np.uint64).reshape(-1, 2).tolist()
        return [Call(number, result) for number, result in rows]

    def output(self) -> tuple[bytes, bytes]:
        """What the program wrote to standard output and error; it is ended."""
        self._ask("the end of the program", COMMAND_END)
        return self._file("/stdout"), self._file("/stderr")

    def _file(self, path: str) -> bytes:
        parts: list[bytes] = []
        while True:
            offset = sum(map(len, parts))
            payload = struct.pack("<5q", 0, 0, 0, 0, offset) + path.encode() + b"\0"
            self._ask(f"the reading of {path}", COMMAND_FILE, payload=payload)
            count = int(self._words(AT_STOPPED + 48, 1)[0])
            if count <= 0:
                return b"".join(parts)
            parts.append(self._box[AT_STATE : AT_STATE + count].tobytes())

    def _epoch(self) -> ProgramState:
        _, _, _, _, area_count, page_count = self._words(AT_STOPPED, 6).tolist()
        words = self._words(AT_STATE, AREA_WORDS * area_count + 2 * page_count)
        areas = []
        for record in words[: AREA_WORDS * area_count].reshape(-1, AREA_WORDS):
            rights, *flags = record[2:].tobytes().split(b"\0", 1)[0].decode("ascii").split()
            areas.append(Area(int(record[0]), int(record[1]), rights, tuple(flags)))
        pages = words[AREA_WORDS * area_count :].reshape(-1, 2)
        epoch = ProgramState(areas, pages[:, 0].copy(), pages[:, 1].astype(np.uint64), self.calls())
        if self._root:
            leaves = read_tables(self._row, self._root, x86.LEVELS_4, 0, TASK_END).leaves
            epoch.leaf_pages = np.array([leaf.page for leaf in leaves], np.int64)
            epoch.leaf_levels = np.array([leaf.level for leaf in leaves], np.int64)
            epoch.leaves = np.array([leaf.entry for leaf in leaves], np.uint64)
        return epoch

    def _find_root(self, stack: tuple[int, int]) -> None:
        """CR3 of the program, which sleeps in the kernel at its first system call until it was read.

        Parameters
        ----------
        stack : tuple
            A page of it and the frame there, by which its tables are known from others.
        """
        end = time.monotonic() + self.seconds
        while not self._root:
            self._ask("the search for CR3", COMMAND_PARK)
            soon = time.monotonic() + 1
            while not self._root and time.monotonic() < soon:
                registers = self._qmp.registers(self.seconds)
                root = registers["CR3"] & ~0xFFF & ((1 << 52) - 1)
                if registers.get("HLT") == 1 and self._maps(root, *stack):
                    self._root = root
            self._ask("the return from the search for CR3", COMMAND_UNPARK)
            if time.monotonic() > end:
                raise self._died("the program's page tables are not found")

    def _maps(self, root: int, page: int, frame: int) -> bool:
        address = page << x86.PAGE_SHIFT
        leaves = read_tables(self._row, root, x86.LEVELS_4, address, x86.PAGE_BYTES).leaves
        return [leaf.entry >> x86.PAGE_SHIFT & ((1 << 40) - 1) for leaf in leaves] == [frame]
