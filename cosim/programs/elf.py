"""ELF files, as far as exec looks at them (fs/binfmt_elf.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ptewalk.model.x86 import PAGE_BYTES

__all__ = ["BadElf", "Elf", "Segment", "read_elf"]

_HEADER: Final = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_LOAD, _INTERPRETER, _STACK = 1, 3, 0x6474E551
_EXECUTABLE, _SHARED = 2, 3
_X86_64: Final = 62
_MACHINES: Final = {3: "i386", 8: "MIPS", 20: "PowerPC", 21: "PowerPC64", 40: "ARM", 183: "AArch64", 243: "RISC-V"}
_MOST_HEADERS: Final = 64
_END: Final = 1 << 47
EXEC, WRITE, READ = 1, 2, 4
"""p_flags"""


class BadElf(Exception):
    """Not a program that can run; the text says why."""


@dataclass(frozen=True)
class Segment:
    """A PT_LOAD program header: `file_size` bytes from `offset` on, then zeros up to `size`, at `address`."""

    flags: int
    offset: int
    address: int
    file_size: int
    size: int


@dataclass(frozen=True)
class Elf:
    """What a program file says of itself.

    Attributes
    ----------
    entry : int
    segments : tuple of Segment
    interpreter : bytes or None
        Path of the dynamic linker.
    movable : bool
        ET_DYN: it may lie anywhere.
    headers : int
        Offset in the file of the program headers, of which there are `header_count`.
    executable_stack : bool
    """

    entry: int
    segments: tuple[Segment, ...]
    interpreter: bytes | None
    movable: bool
    headers: int
    header_count: int
    executable_stack: bool

    @property
    def low(self) -> int:
        """First page of the program."""
        return self.segments[0].address & -PAGE_BYTES

    @property
    def high(self) -> int:
        """End of its last segment."""
        return max(segment.address + segment.size for segment in self.segments)

    @property
    def headers_address(self) -> int:
        """Where the program headers lie in memory, before it is moved; 0 when no segment holds them."""
        for segment in self.segments:
            if segment.offset <= self.headers < segment.offset + segment.file_size:
                return self.headers - segment.offset + segment.address
        return 0


def read_elf(data: bytes) -> Elf:
    """The program that `data`, a whole file, holds.

    Raises
    ------
    BadElf
        Says what is wrong.
    """
    if len(data) < _HEADER.size or data[:4] != b"\x7fELF":
        raise BadElf("not an ELF file" if data[:4] != b"\x7fELF" else "its ELF header is cut off")
    ident, kind, machine, _, entry, headers, _, _, _, entry_size, count, _, _, _ = _HEADER.unpack_from(data)
    if ident[4] != 2 or ident[5] != 1 or machine != _X86_64:
        name = _MACHINES.get(machine, f"machine {machine}")
        raise BadElf(
            f"made for {name}, not for x86-64" if machine != _X86_64 else "not a 64-bit little-endian ELF file"
        )
    if kind not in (_EXECUTABLE, _SHARED):
        raise BadElf("an object file, not a program")
    if entry_size != _PROGRAM_HEADER.size or not 0 < count <= _MOST_HEADERS:
        raise BadElf(
            f"{count} program headers of {entry_size} bytes: at most {_MOST_HEADERS} of {_PROGRAM_HEADER.size} are read"
        )
    if headers + count * entry_size > len(data):
        raise BadElf("its program headers are cut off")
    segments: list[Segment] = []
    interpreter, executable_stack = None, True
    for number in range(count):
        what, flags, offset, address, _, file_size, size, _ = _PROGRAM_HEADER.unpack_from(
            data, headers + number * entry_size
        )
        if what == _LOAD:
            segments.append(_segment(data, Segment(flags, offset, address, file_size, size), segments))
        elif what == _INTERPRETER:
            path = data[offset : offset + file_size]
            if len(path) != file_size or not path.endswith(b"\0") or len(path) < 2:
                raise BadElf("the name of its interpreter is cut off")
            interpreter = path[:-1]
        elif what == _STACK:
            executable_stack = bool(flags & EXEC)
    if not segments:
        raise BadElf("no segment to load")
    return Elf(entry, tuple(segments), interpreter, kind == _SHARED, headers, count, executable_stack)


def _segment(data: bytes, segment: Segment, before: list[Segment]) -> Segment:
    if segment.offset + segment.file_size > len(data):
        raise BadElf("a segment is cut off")
    if segment.file_size > segment.size or (segment.offset - segment.address) % PAGE_BYTES:
        raise BadElf("a segment's size or alignment is wrong")
    if segment.address + segment.size > _END or (before and segment.address < before[-1].address + before[-1].size):
        raise BadElf("a segment lies where none can")
    return segment
