"""The processor: Unicorn, whose MMU is ours.

It runs over the arena, where the frames of physical memory lie, and asks for each page that its TLB does not hold.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import unicorn
from unicorn import unicorn_const as uc_const
from unicorn import x86_const as reg
from unicorn.unicorn_py3.unicorn import uclib

from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.registers import BATCHED, REGISTERS, Registers
from ptewalk.cosim.programs.user_memory import UserMemory
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, Access

__all__ = ["Cpu", "Stop", "Tracer"]

_ACCESS: Final = {
    uc_const.UC_MEM_READ: (Access.READ, uc_const.UC_PROT_READ),
    uc_const.UC_MEM_WRITE: (Access.WRITE, uc_const.UC_PROT_READ | uc_const.UC_PROT_WRITE),
    uc_const.UC_MEM_FETCH: (Access.FETCH, uc_const.UC_PROT_READ | uc_const.UC_PROT_EXEC),
}
"""What is missed to the access that is judged, and the rights that the entry of the TLB then gives.

The right to write is given only when a write was asked for: the walk for it is what marks the page.
"""
_ARGUMENTS: Final = tuple(REGISTERS[name] for name in ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rip", "rflags"))
_PAGE: Final = -PAGE_BYTES
_CR4_SSE: Final = 0x600
"""OSFXSR and OSXMMEXCPT."""
_MXCSR, _FPCW, _EMPTY = 0x1F80, 0x37F, 0xFFFF
_MANY: Final = 4096
"""Fills after which Unicorn's TLB is flushed in any case: only then it looks whether it should be larger."""
SYSCALL_BYTES: Final = 2


@dataclass(frozen=True)
class Stop:
    """Why the processor stopped.

    Attributes
    ----------
    reason : str
        "asked": somebody called `Cpu.stop`; "fault": a page fault that ends in a signal (`UserMemory.fault`);
        "exception": vector `vector`; "pause": the instructions are over.
    vector : int
    """

    reason: str
    vector: int = 0


class Tracer(Protocol):
    """Who records accesses: see `bench.trace_lane.Recorder`.

    Attributes
    ----------
    address : int
        User data of the hooks.
    """

    @property
    def address(self) -> int:
        """User data of the hooks."""

    def hook(self, name: str) -> ctypes.c_void_p:
        """The compiled hook, "memory" or "code"."""

    def attach(self, stop: Callable[[], None]) -> None:
        """Told how to stop the processor from inside a hook."""

    def settle(self) -> None:
        """What was recorded is done, before tables change."""

    def aliases(self, page: int, frame: int) -> bool:
        """The processor's TLB must be emptied first."""

    def filled(self, page: int, frame: int, access: Access) -> None:
        """The processor's TLB is filled."""

    def forget(self) -> None:
        """The processor's TLB is empty."""


class Cpu:
    """One processor.

    Parameters
    ----------
    arena : Arena
    memory : UserMemory
    system_call : callable (int, tuple of int) -> int or None
        Takes number and arguments; gives what RAX is to hold, as an unsigned number, or None when the registers are
        as they are to be. An exception that it raises ends the run, and comes out of `run`.
    """

    def __init__(
        self, arena: Arena, memory: UserMemory, system_call: Callable[[int, tuple[int, ...]], int | None]
    ) -> None:
        self._arena, self._memory, self._system_call = arena, memory, system_call
        uc: Any = unicorn.Uc(uc_const.UC_ARCH_X86, uc_const.UC_MODE_64, reg.UC_CPU_X86_QEMU64)
        self._uc = uc
        uc.mem_map_ptr(0, arena.size, uc_const.UC_PROT_ALL, arena.address)
        uc.ctl_set_tlb_mode(uc_const.UC_TLB_VIRTUAL)
        uc.ctl_exits_enabled(True)  # and there is none: no address ends the run
        uc.hook_add(uc_const.UC_HOOK_TLB_FILL, self._on_fill)
        uc.hook_add(uc_const.UC_HOOK_INSN, self._on_system_call, aux1=reg.UC_X86_INS_SYSCALL)
        self.tracer: Tracer | None = None
        self._hook_time_stamp()
        uc.hook_add(uc_const.UC_HOOK_INTR, self._on_interrupt)
        uc.hook_add(uc_const.UC_HOOK_INSN_INVALID, self._on_invalid)
        uc.reg_write(reg.UC_X86_REG_CR4, uc.reg_read(reg.UC_X86_REG_CR4) | _CR4_SSE)
        self.fresh = self.save().with_(mxcsr=_MXCSR, fpcw=_FPCW, fptag=_EMPTY)
        """The registers of a processor that has run nothing."""
        self.clock: Callable[[], int] = lambda: 0
        """Nanoseconds, for RDTSC."""
        self._fills = 0
        self._in_call = False
        """Unicorn adds the length of SYSCALL to RIP when the hook is over, whatever stands there then."""
        self._asked = False
        self._vector: int | None = None
        self._failed: BaseException | None = None
        self.aborted = False
        """The registers are worth nothing any more."""

    # Registers.

    def save(self) -> Registers:
        """All registers of the program, by name; inside a system call RIP is that of SYSCALL."""
        values = self._uc.reg_read_batch(BATCHED)
        return Registers(dict(zip(REGISTERS, values, strict=True)))

    def load(self, registers: Registers) -> None:
        """Set all registers; what the TLB holds is forgotten."""
        for name, value in registers.values.items():
            self._uc.reg_write(REGISTERS[name], value)
        if self._in_call:
            self["rip"] = registers["rip"] - SYSCALL_BYTES
        self._memory.mmu.refill()

    def __getitem__(self, name: str) -> int:
        return int(self._uc.reg_read(REGISTERS[name]))

    def __setitem__(self, name: str, value: int) -> None:
        self._uc.reg_write(REGISTERS[name], value)

    def trace(self, tracer: Tracer) -> None:
        """Have every access recorded, by compiled code."""
        self.tracer = tracer
        tracer.attach(self._uc.emu_stop)
        for kind, name in (
            (uc_const.UC_HOOK_MEM_READ | uc_const.UC_HOOK_MEM_WRITE, "memory"),
            (uc_const.UC_HOOK_CODE, "code"),
        ):
            self._hook(kind, tracer.hook(name), tracer.address)

    def count(self, hook: ctypes.c_void_p, address: int) -> None:
        """Have each instruction counted by a compiled hook, whose user data is `address`."""
        self._hook(uc_const.UC_HOOK_CODE, hook, address)

    def _hook(self, kind: int, call: ctypes.c_void_p, user: int | None, instruction: int | None = None) -> None:
        """A hook that Unicorn's Python binding cannot make."""
        handle = ctypes.c_size_t()
        status = uclib.uc_hook_add(
            *(self._uc._uch, ctypes.byref(handle), ctypes.c_int(kind), call, ctypes.c_void_p(user)),
            *(ctypes.c_uint64(1), ctypes.c_uint64(0)),
            *(() if instruction is None else (ctypes.c_int(instruction),)),
        )
        if status != uc_const.UC_ERR_OK:
            raise RuntimeError(f"Unicorn takes no hook {kind}: error {status}")

    # Running.

    def run(self, instructions: int = 0) -> Stop:
        """Go on from RIP.

        Parameters
        ----------
        instructions : int
            After which it pauses; 0: they are not counted, which is faster.
        """
        self.refresh()
        self._asked, self._vector, self._memory.fault, self._failed = False, None, None, None
        try:
            self._uc.emu_start(self["rip"], 0, count=instructions)
        except unicorn.UcError as error:
            if self._failed is not None:
                raise self._failed from None
            if self._memory.fault is None and self._vector is None and not self.aborted:
                raise RuntimeError(f"Unicorn stopped at {self['rip']:#x}: {error}") from error
        if self.tracer is not None:
            self.tracer.settle()
        if self._memory.fault is not None:
            return Stop("fault")
        if self._vector is not None:
            return Stop("exception", self._vector)
        return Stop("asked" if self._asked else "pause")

    def stop(self) -> None:
        """From inside a system call: go no further than behind it."""
        self._asked = True
        self._uc.emu_stop()

    def stop_before(self) -> None:
        """From inside a system call: go no further than to the SYSCALL itself."""
        self["rip"] = self["rip"] - SYSCALL_BYTES
        self.stop()

    def save_behind(self) -> Registers:
        """From inside a system call: the registers behind it, but for its result."""
        registers = self.save()
        return registers.with_(rip=registers["rip"] + SYSCALL_BYTES)

    def abort(self) -> None:
        """From another thread: end what runs.

        The program cannot go on: Unicorn may have lost a part of an instruction.
        """
        self.aborted = True
        self._uc.emu_stop()

    def refresh(self) -> None:
        """Forget what the kernel changed: before the program goes on."""
        mmu = self._memory.mmu
        if mmu.stale:
            self._fills = 0
            self._uc.ctl(uc_const.UC_CTL_TLB_FLUSH, uc_const.UC_CTL_IO_WRITE)
            mmu.fresh()
            if self.tracer is not None:
                self.tracer.forget()
        if self._arena.code_is_stale:
            self._uc.ctl_flush_tb()
            self._arena.code_is_stale = False

    def _on_fill(self, uc: Any, linear: int, kind: int, entry: Any, _: object) -> bool:
        access, rights = _ACCESS[kind]
        try:
            physical = self._memory.fill(linear, access)
        except BaseException as error:  # comes out of `run`; the binding would hide it behind an error of its own
            self._failed = error
            return False
        if physical is None:
            return False
        entry.paddr = physical & _PAGE
        entry.perms = rights
        self._fills += 1
        tracer, page, frame = self.tracer, linear >> PAGE_SHIFT, physical >> PAGE_SHIFT
        if self._fills > _MANY or self._memory.mmu.stale or (tracer is not None and tracer.aliases(page, frame)):
            self._memory.mmu.refill()
            self.refresh()
        if tracer is not None:
            tracer.filled(page, frame, access)
        return True

    def _on_system_call(self, uc: Any, _: object) -> None:
        if self.tracer is not None:
            self.tracer.settle()
        number, *arguments, rip, flags = uc.reg_read_batch(_ARGUMENTS)
        uc.reg_write(reg.UC_X86_REG_RCX, rip + SYSCALL_BYTES)  # RIP is still that of SYSCALL
        uc.reg_write(reg.UC_X86_REG_R11, flags)
        self._in_call = True
        try:
            result = self._system_call(number, tuple(arguments))
        finally:
            self._in_call = False
        if result is not None:
            uc.reg_write(reg.UC_X86_REG_RAX, result)
        self.refresh()

    def _hook_time_stamp(self) -> None:
        """Have RDTSC and RDTSCP tell the time of the run, a tick a nanosecond: the host's differs in each run.

        Unicorn can, its Python binding cannot.
        """

        def tell(_: object, __: object) -> int:
            now = self.clock()
            self["rax"], self["rdx"] = now & 0xFFFFFFFF, now >> 32 & 0xFFFFFFFF
            return 1

        self._time_stamp = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(tell)
        for instruction in (reg.UC_X86_INS_RDTSC, reg.UC_X86_INS_RDTSCP):
            self._hook(uc_const.UC_HOOK_INSN, ctypes.cast(self._time_stamp, ctypes.c_void_p), None, instruction)

    def _on_interrupt(self, uc: Any, vector: int, _: object) -> None:
        self._vector = vector
        uc.emu_stop()

    def _on_invalid(self, uc: Any, _: object) -> bool:
        self._vector = 6
        return False
