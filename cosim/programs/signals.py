"""Signals of a process: what it wants done with them, and what its handlers find (arch/x86/kernel/signal.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Final

from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.registers import Registers
from ptewalk.cosim.programs.user_memory import UserMemory

__all__ = ["Action", "Information", "Signals", "enter_handler", "leave_handler"]

SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGKILL, SIGSEGV, SIGPIPE, SIGALRM = 4, 5, 7, 8, 9, 11, 13, 14
SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU = 17, 18, 19, 20, 21, 22
IGNORED_BY_DEFAULT: Final = frozenset((SIGCHLD, SIGCONT, 23, 28))
STOPPING: Final = frozenset((SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU))
LAST: Final = 64
DEFAULT, IGNORE = 0, 1
SA_NODEFER, SA_RESETHAND, SA_ONSTACK, SA_RESTART = 0x40000000, 0x80000000, 0x08000000, 0x10000000
_RED_ZONE: Final = 128
_FP_BYTES: Final = 512
_GENERAL: Final = (
    *(f"r{number}" for number in range(8, 16)),
    *("rdi", "rsi", "rbp", "rbx", "rdx", "rax", "rcx", "rsp", "rip", "rflags"),
)
_CONTEXT: Final = struct.Struct("<18Q4H5Q")
_HEAD: Final = struct.Struct("<QQQiiQ")
_INFORMATION_BYTES: Final = 128
_CONTEXT_BYTES: Final = 256
_UC_BYTES: Final = _HEAD.size + _CONTEXT_BYTES + 8
_FRAME_BYTES: Final = 8 + _UC_BYTES + _INFORMATION_BYTES
_UC_FLAGS: Final = 6
_SELECTORS: Final = (0x33, 0, 0, 0x2B)
_USER_FLAGS: Final = 0x40CD5 | 0x200
"""Flags that a handler may change in what it returns to."""
_DIRECTION_AND_TRAP: Final = 0x500
_SS_DISABLE: Final = 2


@dataclass(frozen=True)
class Action:
    """What sigaction sets."""

    handler: int = DEFAULT
    flags: int = 0
    restorer: int = 0
    mask: int = 0


@dataclass(frozen=True)
class Information:
    """siginfo: the signal, its code, and an address, or who sent it and a status."""

    signal: int
    code: int = 0
    address: int = 0
    sender: int = 0
    status: int = 0
    error: int = 0
    """Error code of a page fault, for the context."""

    def pack(self) -> bytes:
        """struct siginfo"""
        head = struct.pack("<iiii", self.signal, 0, self.code, 0)
        if self.signal in (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP) and self.code > 0:
            return (head + struct.pack("<Q", self.address)).ljust(_INFORMATION_BYTES, b"\0")
        return (head + struct.pack("<IIi", self.sender, 1000, self.status)).ljust(_INFORMATION_BYTES, b"\0")


@dataclass
class Signals:
    """The signals of one process.

    Attributes
    ----------
    actions : dict
        Signal to what was set.
    mask : int
        Bit n - 1: signal n is blocked.
    pending : list of Information
        In the order in which they came, one of each signal at most.
    stack : tuple (int, int)
        Address and size of the alternate stack; size 0: none.
    """

    actions: dict[int, Action] = field(default_factory=dict)
    mask: int = 0
    pending: list[Information] = field(default_factory=list)
    stack: tuple[int, int] = (0, 0)
    saved_mask: int | None = None
    """Of rt_sigsuspend: what is in force again after the handler."""

    def action(self, signal: int) -> Action:
        """What is to be done with a signal."""
        return self.actions.get(signal, Action())

    def ignores(self, signal: int) -> bool:
        """Is it thrown away?"""
        handler = self.action(signal).handler
        return handler == IGNORE or (handler == DEFAULT and signal in IGNORED_BY_DEFAULT)

    def send(self, information: Information) -> None:
        """It comes, if it is not thrown away and not there yet."""
        signal = information.signal
        blocked = self.mask >> signal - 1 & 1
        if (self.ignores(signal) and not blocked) or any(one.signal == signal for one in self.pending):
            return
        self.pending.append(information)

    def next(self) -> Information | None:
        """The first one that is not blocked, by number as Linux does; it stays."""
        free = [one for one in self.pending if one.signal == SIGKILL or not self.mask >> one.signal - 1 & 1]
        return min(free, key=lambda one: one.signal, default=None)

    def fork(self) -> Signals:
        """A child's."""
        return Signals(dict(self.actions), self.mask, [], self.stack)

    def execute(self) -> None:
        """Handlers are gone with the old program; what was ignored stays so."""
        self.actions = {signal: Action(IGNORE) for signal, one in self.actions.items() if one.handler == IGNORE}
        self.stack = (0, 0)


def _floating(registers: Registers) -> bytes:
    """FXSAVE's 512 bytes."""
    tags = registers["fptag"]
    abridged = sum(1 << place for place in range(8) if tags >> 2 * place & 3 != 3)
    head = struct.pack(
        "<HHBBHQQII", registers["fpcw"], registers["fpsw"], abridged, 0, 0, 0, 0, registers["mxcsr"], 0xFFFF
    )
    stack = b"".join(struct.pack("<QH6x", *registers[f"fp{place}"]) for place in range(8))
    wide = b"".join(int(registers[f"xmm{place}"]).to_bytes(16, "little") for place in range(16))
    return (head + stack + wide).ljust(_FP_BYTES, b"\0")


def _from_floating(data: bytes) -> dict[str, object]:
    control, status, abridged, _, _, _, _, mxcsr, _ = struct.unpack_from("<HHBBHQQII", data)
    found: dict[str, object] = {
        "fpcw": control,
        "fpsw": status,
        "mxcsr": mxcsr & 0xFFFF,
        "fptag": sum((0 if abridged >> place & 1 else 3) << 2 * place for place in range(8)),
    }
    for place in range(8):
        found[f"fp{place}"] = struct.unpack_from("<QH", data, 32 + 16 * place)
    for place in range(16):
        found[f"xmm{place}"] = int.from_bytes(data[160 + 16 * place : 176 + 16 * place], "little")
    return found


def enter_handler(
    memory: UserMemory, signals: Signals, registers: Registers, action: Action, information: Information
) -> Registers:
    """The registers with which a handler begins; its frame is on the stack. Raises `CallFails` EFAULT."""
    top = int(registers["rsp"]) - _RED_ZONE
    base, size = signals.stack
    on_stack = size and base <= int(registers["rsp"]) <= base + size
    if action.flags & SA_ONSTACK and size and not on_stack:
        top = base + size
    floating = top - _FP_BYTES & -64
    frame = (floating - _FRAME_BYTES & -16) - 8
    if frame < 0:
        raise CallFails("EFAULT")
    mask = signals.mask if signals.saved_mask is None else signals.saved_mask
    signals.saved_mask = None
    flags = _SS_DISABLE if not size else 0
    head = _HEAD.pack(_UC_FLAGS, 0, base, flags, 0, size)
    general = [registers[name] for name in _GENERAL]
    context = _CONTEXT.pack(
        *general, *_SELECTORS, information.error, 14 if information.error else 0, mask, information.address, floating
    )
    data = struct.pack("<Q", action.restorer) + head + context.ljust(_CONTEXT_BYTES, b"\0")
    data += struct.pack("<Q", mask) + information.pack()
    memory.write(floating, _floating(registers))
    memory.write(frame, data)
    signals.mask |= action.mask
    if not action.flags & SA_NODEFER:
        signals.mask |= 1 << information.signal - 1
    at = frame + 8
    return registers.with_(
        rip=action.handler,
        rsp=frame,
        rax=0,
        rdi=information.signal,
        rsi=at + _UC_BYTES,
        rdx=at,
        rflags=int(registers["rflags"]) & ~_DIRECTION_AND_TRAP,
    )


def leave_handler(memory: UserMemory, signals: Signals, registers: Registers) -> Registers:
    """rt_sigreturn: the registers before the handler. Raises `CallFails` EFAULT."""
    at = int(registers["rsp"])
    data = memory.read(at, _UC_BYTES)
    fields = _CONTEXT.unpack_from(data, _HEAD.size)
    values: dict[str, object] = dict(zip(_GENERAL, fields, strict=False))
    flags = fields[_GENERAL.index("rflags")] & _USER_FLAGS
    values["rflags"] = int(registers["rflags"]) & ~_USER_FLAGS | flags
    floating = fields[-1]
    if floating:
        values |= _from_floating(memory.read(floating, _FP_BYTES))
    (mask,) = struct.unpack_from("<Q", data, _HEAD.size + _CONTEXT_BYTES)
    signals.mask = mask & ~(1 << SIGKILL - 1 | 1 << SIGSTOP - 1)
    return Registers({**registers.values, **values})
