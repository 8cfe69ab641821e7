"""The verbs of a scenario as the numbers that the guest's agent executes, and its answers as the format's values."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.formats.scenarios import Op
from ptewalk.model import x86
from ptewalk.model.linux import ADVICE, ScanCategory
from ptewalk.model.scenario import verbs

PAGE: Final = x86.PAGE_BYTES
SCAN_CATEGORIES: Final = tuple(category.name for category in ScanCategory)
EVERY_PIN: Final = 0
"""The address that stands for all of a process's pins."""
SCAN_NOT_WRITTEN: Final = 0x5A5A_5A5A_5A5A_5A5A
"""walk_end before the ioctl."""
WORD_MASK: Final = (1 << 64) - 1
ERRNO_BASE: Final = 512
VALUE_NAMES: Final = {256: "ok", 257: "maperr", 258: "accerr", 259: "bus", 260: "pkuerr"}

PROT: Final = {"r": 1, "w": 2, "x": 4}
MAP_SHARED, MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_HUGETLB = 0x1, 0x2, 0x10, 0x20, 0x40000
MAP_FLAGS: Final = {"growsdown": 0x100, "locked": 0x2000, "noreserve": 0x4000, "populate": 0x8000}
MAP_HUGE_2MB, MAP_HUGE_1GB = 21 << 26, 30 << 26
MREMAP_FLAGS: Final = {"MAYMOVE": 1, "FIXED": 2, "DONTUNMAP": 4}
UFFD_SIGBUS: Final = 1 << 7
UFFD_ASYNC: Final = 1 << 12 | 1 << 13 | 1 << 15
"""UFFD_FEATURE_WP_HUGETLBFS_SHMEM, WP_UNPOPULATED, WP_ASYNC."""


class Operation(IntEnum):
    """The agent's operations, in the order of its enum."""

    MMAP = 1
    MUNMAP = 2
    MPROTECT = 3
    MREMAP = 4
    MADVISE = 5
    MLOCK = 6
    MUNLOCK = 7
    WRITE = 8
    READ = 9
    MEM_WRITE = 10
    MEM_READ = 11
    SYSCALL_READ_INTO = 12
    FILE_WRITE = 13
    FILE_READ = 14
    FTRUNCATE = 15
    CLEAR_REFS = 16
    FORK = 17
    EXIT = 18
    SETUID = 19
    UFFD_OPEN = 20
    UFFD_REGISTER = 21
    UFFD_UNREGISTER = 22
    UFFD_PROTECT = 23
    PIN = 24
    UNPIN = 25
    PKEY_MPROTECT = 26
    WRPKRU = 27
    PAGEMAP_SCAN = 28
    MOVE_PAGES = 29
    KSM_SCAN = 30
    REMAP_FILE = 31
    FILL = 32
    SYNC = 33
    SWAPOFF = 34
    SWAPON = 35


class ScenarioError(ToolError):
    """One scenario has no answer; others may have one."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation, as the agent takes it."""

    operation: Operation
    arguments: list[int] = field(default_factory=list)
    text: bytes = b""

    def pack(self) -> bytes:
        """The mailbox words from `operation`'s arguments on: 14 words and 64 characters."""
        padded = [argument & WORD_MASK for argument in self.arguments] + [0] * (14 - len(self.arguments))
        return struct.pack("<14Q64s", *padded, self.text)


class _Encoder:
    """Encodes the operations of one scenario; they come as `verbs.arguments` gives them."""

    def __init__(self, base: int) -> None:
        self.base = base

    def address(self, page: int) -> int:
        return self.base + page * PAGE

    def range(self, op: Op) -> list[int]:
        return [self.address(op["page"]), op["n"] * PAGE]

    @staticmethod
    def prot(op: Op) -> int:
        text = op["prot"]
        return 0 if text == "-" else sum(PROT[letter] for letter in set(text))

    def mmap(self, op: Op, step: int) -> Call:
        kind, flags, file, offset = op["kind"], MAP_FIXED, -1, 0
        flags |= sum(MAP_FLAGS[name] for name in set(op["flags"]))
        if kind in ("anon", "sanon"):
            flags |= MAP_ANONYMOUS
        elif kind in ("hugetlb", "shugetlb"):
            flags |= MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_2MB
        elif kind == "hugetlb1g":
            flags |= MAP_ANONYMOUS | MAP_HUGETLB | MAP_HUGE_1GB
        else:
            file, offset = int(kind[1:]), op["file_page"] * PAGE
        flags |= MAP_SHARED if kind[0] == "s" else MAP_PRIVATE
        return Call(Operation.MMAP, [*self.range(op), self.prot(op), flags, file, offset])

    def munmap(self, op: Op, step: int) -> Call:
        return Call(Operation.MUNMAP, self.range(op))

    def mprotect(self, op: Op, step: int) -> Call:
        return Call(Operation.MPROTECT, [*self.range(op), self.prot(op)])

    def mremap(self, op: Op, step: int) -> Call:
        flags = sum(MREMAP_FLAGS[name] for name in set(op["flags"]))
        return Call(Operation.MREMAP, [*self.range(op), op["new_n"] * PAGE, flags, self.address(op["new_page"])])

    def madvise(self, op: Op, step: int) -> Call:
        return Call(Operation.MADVISE, [*self.range(op), ADVICE[op["advice"]]])

    def mlock(self, op: Op, step: int) -> Call:
        return Call(Operation.MLOCK, self.range(op))

    def munlock(self, op: Op, step: int) -> Call:
        return Call(Operation.MUNLOCK, self.range(op))

    def _touch(self, operation: Operation, op: Op, step: int) -> Call:
        return Call(operation, [self.address(op["page"]), op["n"], op["step"], (step + 1) & 255])

    def write(self, op: Op, step: int) -> Call:
        return self._touch(Operation.WRITE, op, step)

    def read(self, op: Op, step: int) -> Call:
        return self._touch(Operation.READ, op, step)

    def mem_write(self, op: Op, step: int) -> Call:
        return self._touch(Operation.MEM_WRITE, op, step)

    def mem_read(self, op: Op, step: int) -> Call:
        return self._touch(Operation.MEM_READ, op, step)

    def syscall_read_into(self, op: Op, step: int) -> Call:
        return Call(Operation.SYSCALL_READ_INTO, [self.address(op["page"]) + 16])

    def file_write(self, op: Op, step: int) -> Call:
        return Call(Operation.FILE_WRITE, [op["file"], op["file_page"] * PAGE + 8, (step + 1) & 255])

    def file_read(self, op: Op, step: int) -> Call:
        return Call(Operation.FILE_READ, [op["file"], op["file_page"] * PAGE + 8])

    def ftruncate(self, op: Op, step: int) -> Call:
        return Call(Operation.FTRUNCATE, [op["file"], op["n"] * PAGE])

    def clear_refs(self, op: Op, step: int) -> Call:
        text = op["value"].encode()
        target = op["who"] if op["target"] is None else op["target"]
        return Call(Operation.CLEAR_REFS, [target, len(text)], text)

    clearraw = clear_refs

    def fork(self, op: Op, step: int) -> Call:
        return Call(Operation.FORK, [op["child"]])

    def exit(self, op: Op, step: int) -> Call:
        return Call(Operation.EXIT)

    def setuid(self, op: Op, step: int) -> Call:
        return Call(Operation.SETUID)

    def uffd_reg(self, op: Op, step: int) -> Call:
        return Call(Operation.UFFD_REGISTER, [*self.range(op), UFFD_SIGBUS])

    def uffd_wp(self, op: Op, step: int) -> Call:
        return Call(Operation.UFFD_PROTECT, [*self.range(op), 1])

    def uffd_unwp(self, op: Op, step: int) -> Call:
        return Call(Operation.UFFD_PROTECT, [*self.range(op), 0])

    def uffd_async_open(self, op: Op, step: int) -> Call:
        return Call(Operation.UFFD_OPEN, [0, 0, UFFD_ASYNC])

    def uffd_async_reg(self, op: Op, step: int) -> Call:
        return Call(Operation.UFFD_REGISTER, [*self.range(op), UFFD_ASYNC])

    def uffd_async_unreg(self, op: Op, step: int) -> Call:
        return Call(Operation.UFFD_UNREGISTER, self.range(op))

    uffd_async_wp = uffd_wp
    uffd_async_unwp = uffd_unwp

    def pin(self, op: Op, step: int) -> Call:
        return Call(Operation.PIN, self.range(op))

    def unpin(self, op: Op, step: int) -> Call:
        page = op["page"]
        return Call(Operation.UNPIN, [EVERY_PIN if page is None else self.address(page)])

    def pkey_mprotect(self, op: Op, step: int) -> Call:
        return Call(Operation.PKEY_MPROTECT, [*self.range(op), self.prot(op), op["key"]])

    def wrpkru(self, op: Op, step: int) -> Call:
        return Call(Operation.WRPKRU, [op["key"], op["rights"]])

    def pagemap_scan(self, op: Op, step: int) -> Call:
        start, end = verbs.scan_bounds(op, self.base)
        numbers = [op[key] for key in ("max_pages", "category_inverted", "category_mask", "category_anyof_mask")]
        vector = op["vec"]
        return Call(
            Operation.PAGEMAP_SCAN,
            [
                *(op["size"], op["flags"], start, end, SCAN_NOT_WRITTEN, vector or 0),
                *(op["vec_len"], *numbers, op["return_mask"]),
                *(int(vector is None), int(op["fd"] != -1)),
            ],
        )

    def move_pages(self, op: Op, step: int) -> Call:
        return Call(Operation.MOVE_PAGES, [self.address(op["page"]), op["n"], op["node"]])

    def ksm_scan(self, op: Op, step: int) -> Call:
        return Call(Operation.KSM_SCAN, [int(op["use_zero_pages"])])

    def ksm(self, op: Op, step: int) -> Call:
        return Call(Operation.KSM_SCAN, [0])

    def remapfile(self, op: Op, step: int) -> Call:
        return Call(Operation.REMAP_FILE, [*self.range(op), op["file_page"]])

    def same(self, op: Op, step: int) -> Call:
        return Call(Operation.FILL, self.range(op))

    def sync(self, op: Op, step: int) -> Call:
        return Call(Operation.SYNC, [op["file"]])

    def swapoff(self, op: Op, step: int) -> Call:
        return Call(Operation.SWAPOFF)

    def swapon(self, op: Op, step: int) -> Call:
        return Call(Operation.SWAPON)


def encode_operation(op: Op, step: int, base: int) -> Call:
    """The call for `op`, step number `step` of a scenario whose page 0 is at address `base`.

    Raises
    ------
    ScenarioError
        The operation is not what the format says; with the line that a reader of files gives.
    """
    try:
        given = verbs.arguments(op, strict=False)
    except verbs.OperationError as error:
        raise ScenarioError(f"step {step}: {error}") from None
    encoder: Callable[[Op, int], Call] = getattr(_Encoder(base), given["op"])
    return encoder(given, step)


def encode_all(name: str, ops: Sequence[Op], base: int) -> list[Call]:
    """The calls of a scenario, in which whatever acts, or is acted upon, must live.

    Raises
    ------
    ScenarioError
        As `encode_operation`, with the scenario's name; or a process does not live, or lives already.
    """
    calls, lives = [], verbs.Lives()
    for step, op in enumerate(ops):
        try:
            calls.append(encode_operation(op, step, base))
            lives.check(op)
        except verbs.OperationError as error:
            raise ScenarioError(f"{name} step {step}: {error}") from None
        except ScenarioError as error:
            raise ScenarioError(f"{name} {error}") from None
        lives.follow(op)
    return calls


def decode_value(value: int) -> int | str:
    """One element of `vals`."""
    if value >= ERRNO_BASE:
        return f"e{value - ERRNO_BASE}"
    return VALUE_NAMES.get(value, value)


def errno_name(number: int) -> str | None:
    """The name of errno `number`; None for 0."""
    return errno.errorcode.get(number, str(number)) if number else None


def decode_scan(scan_end: int, regions: list[tuple[int, int, int]], base: int) -> dict[str, object]:
    """The `scan` of a step: where PAGEMAP_SCAN stopped, and the regions that it gave."""
    walk_end = None if scan_end == SCAN_NOT_WRITTEN else (scan_end - base) >> x86.PAGE_SHIFT
    found = []
    for start, end, categories in regions:
        names = [name for bit, name in enumerate(SCAN_CATEGORIES) if categories >> bit & 1]
        found.append([(start - base) >> x86.PAGE_SHIFT, (end - start) >> x86.PAGE_SHIFT, names])
    return {"walk_end": walk_end, "regions": found}
