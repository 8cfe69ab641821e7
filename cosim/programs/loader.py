"""exec: a program and its interpreter into a new address space, and its stack (fs/exec.c, fs/binfmt_elf.c)."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ptewalk.cosim.programs.elf import EXEC, READ, WRITE, BadElf, Elf, Segment, read_elf
from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.page_cache import Inode, PageCache
from ptewalk.cosim.programs.user_memory import UserMemory
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import STACK_PAGE, VmFlag
from ptewalk.model.mm import modify, stack
from ptewalk.model.state.machine import Process
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT

__all__ = ["Started", "read_program", "start"]

_STACK_TOP: Final = STACK_PAGE + 1 << PAGE_SHIFT
_STACK_EXPAND: Final = 32
"""Pages (setup_arg_pages)."""
_MMAP_BASE: Final = STACK_PAGE + 1 - (128 << 20 >> PAGE_SHIFT)
"""128 MiB below the stack's end (arch/x86/mm/mmap.c:mmap_base, no randomisation)."""
_PIE_BASE: Final = 0x555555554000
"""ELF_ET_DYN_BASE"""
_PLATFORM: Final = b"x86_64\0"
_HWCAP: Final = 0x178BFBFD
"""CPUID.1:EDX of QEMU's qemu64."""
_MINSIGSTKSZ: Final = 1440
_RSEQ_BYTES, _RSEQ_ALIGN = 28, 32
"""What is used of struct rseq, and its alignment."""
_AT: Final = dict(
    **dict(PHDR=3, PHENT=4, PHNUM=5, PAGESZ=6, BASE=7, FLAGS=8, ENTRY=9, UID=11, EUID=12, GID=13, EGID=14),
    **dict(
        PLATFORM=15,
        HWCAP=16,
        CLKTCK=17,
        SECURE=23,
        RANDOM=25,
        HWCAP2=26,
        RSEQ_FEATURE_SIZE=27,
        RSEQ_ALIGN=28,
        EXECFN=31,
        MINSIGSTKSZ=51,
    ),
)
_USER: Final = 1000
_MOST_ARGUMENT_BYTES: Final = 2 << 20


@dataclass(frozen=True)
class Started:
    """Where a program begins.

    Attributes
    ----------
    entry, stack : int
        RIP and RSP.
    brk : int
        Where the heap starts, in bytes.
    """

    entry: int
    stack: int
    brk: int


def _letters(flags: int) -> str:
    return "".join(letter for bit, letter in ((READ, "r"), (WRITE, "w"), (EXEC, "x")) if flags & bit) or "-"


class _Loader:
    def __init__(self, kernel: Kernel, process: Process, memory: UserMemory, cache: PageCache) -> None:
        self.kernel, self.process, self.memory, self.cache = kernel, process, memory, cache

    def map(self, elf: Elf, inode: Inode, bias: int) -> int:
        """Map all segments; the end of bss, where a heap would start."""
        number = self.cache.map(inode)
        for segment in elf.segments:
            self._map_segment(segment, number, bias)
        last = max(elf.segments, key=lambda one: one.address + one.size)
        file_end = max(one.address + one.file_size for one in elf.segments) + bias
        end = last.address + last.size + bias
        first, stop = -(-file_end // PAGE_BYTES), -(-end // PAGE_BYTES)
        if first < stop:
            self.kernel.mmap(self.process, first, stop - first, "rwx" if last.flags & EXEC else "rw", "anon", 0, [])
        if end > file_end and file_end % PAGE_BYTES and last.flags & WRITE:
            self.memory.write(file_end, bytes(-file_end % PAGE_BYTES))
        return stop * PAGE_BYTES

    def _map_segment(self, segment: Segment, number: str, bias: int) -> None:
        before = segment.address % PAGE_BYTES
        pages = -(-(segment.file_size + before) // PAGE_BYTES)
        if pages:
            at, offset = segment.address + bias - before, segment.offset - before
            letters, kind = _letters(segment.flags), f"p{number}"
            self.kernel.mmap(self.process, at >> PAGE_SHIFT, pages, letters, kind, offset >> PAGE_SHIFT, [])

    def place(self, elf: Elf) -> int:
        """The bias of an interpreter, or of a program that is its own."""
        pages = -(-(elf.high - elf.low) // PAGE_BYTES)
        return (self.kernel.get_unmapped_area(self.process, 0, pages) << PAGE_SHIFT) - elf.low


def start(
    kernel: Kernel,
    process: Process,
    memory: UserMemory,
    cache: PageCache,
    program: tuple[Elf, Inode],
    open_program: Callable[[bytes], tuple[Elf, Inode]],
    path: bytes,
    arguments: Sequence[bytes],
    environment: Sequence[bytes],
    random_bytes: bytes,
) -> Started:
    """Fill the empty address space of `process`.

    Parameters
    ----------
    open_program : callable
        Opens the interpreter by its path.
    path : bytes
        As it was given to execve (AT_EXECFN).
    random_bytes : bytes
        16 (AT_RANDOM).

    Raises
    ------
    CallFails
        E2BIG, and what `open_program` raises.
    """
    elf, inode = program
    interpreter = None if elf.interpreter is None else open_program(elf.interpreter)
    if sum(map(len, (*arguments, *environment))) + 8 * len((*arguments, *environment)) > _MOST_ARGUMENT_BYTES:
        raise CallFails("E2BIG")
    process.mm.mmap_base = _MMAP_BASE
    letters = "rwx" if elf.executable_stack else "rw"
    kernel.mmap(process, STACK_PAGE, 1, letters, "anon", 0, ["growsdown"])
    pointer, texts = _push_texts(memory, path, arguments, environment)
    area = process.mm.areas.lookup(STACK_PAGE)
    assert area is not None and area.flags & VmFlag.GROWSDOWN
    stack.expand_downwards(process.mm, area, area.start - _STACK_EXPAND)
    modify.clear_flags(area, VmFlag.SOFTDIRTY)  # setup_arg_pages gives it flags without
    loader = _Loader(kernel, process, memory, cache)
    bias = 0
    if elf.movable:
        bias = _PIE_BASE - elf.low if interpreter else loader.place(elf)
    brk = loader.map(elf, inode, bias)
    base, entry = 0, elf.entry + bias
    if interpreter is not None:
        base = loader.place(interpreter[0])
        loader.map(*interpreter, base)
        entry = interpreter[0].entry + base
    process.mm.start_brk = process.mm.brk = brk >> PAGE_SHIFT
    auxiliary = {
        **dict(MINSIGSTKSZ=_MINSIGSTKSZ, HWCAP=_HWCAP, PAGESZ=PAGE_BYTES, CLKTCK=100),
        **dict(PHDR=elf.headers_address + bias, PHENT=56, PHNUM=elf.header_count, BASE=base, FLAGS=0),
        **dict(ENTRY=elf.entry + bias, UID=_USER, EUID=_USER, GID=_USER, EGID=_USER, SECURE=0),
        **dict(RANDOM=0, HWCAP2=0, EXECFN=texts[0], PLATFORM=0),
    }
    if _tells_rseq(kernel.profile.name):
        auxiliary |= dict(RSEQ_FEATURE_SIZE=_RSEQ_BYTES, RSEQ_ALIGN=_RSEQ_ALIGN)
    pointer = _push_tables(memory, pointer & -16, len(arguments), texts[1:], auxiliary, random_bytes)
    return Started(entry, pointer, brk)


def _tells_rseq(profile: str) -> bool:
    """Has this kernel two more entries in the auxiliary vector, as from 6.3 on (create_elf_tables)?"""
    found = re.fullmatch(r"linux-(\d+)\.(\d+)", profile)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 3)


def _push_texts(
    memory: UserMemory, path: bytes, arguments: Sequence[bytes], environment: Sequence[bytes]
) -> tuple[int, list[int]]:
    """Path, arguments and environment at the top of the stack; the lowest address, and that of each of them."""
    places = []
    pointer = _STACK_TOP - 8
    for text in (path, *reversed(environment), *reversed(arguments)):
        pointer -= len(text) + 1
        memory.write(pointer, text + b"\0")
        places.append(pointer)
    split = 1 + len(environment)
    return pointer, [places[0], *reversed(places[split:]), *reversed(places[1:split])]


def _push_tables(
    memory: UserMemory, pointer: int, argc: int, texts: list[int], auxiliary: dict[str, int], random_bytes: bytes
) -> int:
    """What a program finds at RSP (create_elf_tables)."""
    pointer -= len(_PLATFORM)
    memory.write(pointer, _PLATFORM)
    auxiliary["PLATFORM"] = pointer
    pointer -= 16
    memory.write(pointer, random_bytes)
    auxiliary["RANDOM"] = pointer
    words = [argc, *texts[:argc], 0, *texts[argc:], 0]
    pairs = [word for name, value in auxiliary.items() for word in (_AT[name], value)] + [0, 0]
    pointer = pointer - 8 * len(pairs) - 8 * len(words) & -16
    memory.write(pointer, struct.pack(f"<{len(words) + len(pairs)}Q", *words, *pairs))
    return pointer


def read_program(data: bytes) -> Elf:
    """As `read_elf`. Raises `CallFails` ENOEXEC."""
    try:
        return read_elf(data)
    except BadElf as error:
        raise CallFails("ENOEXEC") from error
