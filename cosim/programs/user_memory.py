"""User memory of a running program: fills of the processor's TLB, page faults, and the kernel's copies.

Each translation is a walk by whoever is the machine's MMU: the golden model, or the gateware.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.arena import Arena
from ptewalk.cosim.programs.errors import CallFails
from ptewalk.cosim.programs.swapper import Swapper
from ptewalk.model.access import state_of
from ptewalk.model.engine import Engine
from ptewalk.model.errors import FaultsForEver, Signal
from ptewalk.model.kernel import Kernel
from ptewalk.model.memory import BusError
from ptewalk.model.mm import faults
from ptewalk.model.paging import PageFault, Request, Result, State, Translated
from ptewalk.model.state.frames import by_page
from ptewalk.model.state.machine import Process
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, Access

__all__ = ["Figures", "ProgramMmu", "UserMemory", "Walk"]

Walk = Callable[[State, Request], Result]
"""One walk of the tables."""
_RETRIES: Final = 16
_LONGEST_TEXT: Final = 1 << 17


class ProgramMmu:
    """The kernel's `Mmu`, which remembers that the processor's TLB has to be flushed.

    Parameters
    ----------
    walk : callable (State, Request) -> Result
    forget : callable (int or None), optional
        Told what whoever walks must forget: a linear address, or None for everything.

    Attributes
    ----------
    walks : int
        Walks so far, of fills and of the kernel's copies.
    stale : bool
        Something that may be cached allows less by now.
    engine : Engine or None
        What does to tables what clear_refs, pagemap and mremap do; None: the model's own arrays.
    """

    def __init__(self, walk: Walk, forget: Callable[[int | None], None] = lambda linear: None) -> None:
        self._walk, self._forget = walk, forget
        self.walks = 0
        self.stale = False
        self.engine: Engine | None = None
        self._pages: set[int] | None = set()  # what is stale; None: everything

    def walk(self, state: State, request: Request) -> Result:
        """One walk."""
        self.walks += 1
        return self._walk(state, request)

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`."""
        results: list[Result] = []
        for request in requests:
            results.append(self.walk(state, request))
            if not isinstance(results[-1], Translated):
                break
        return results

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """As `Mmu.invalidate`: the processor can only forget everything, and does so before it goes on."""
        self._forget(linear)
        self.stale = True
        if linear is None:
            self._pages = None
        elif self._pages is not None:
            self._pages.add(linear & -PAGE_BYTES)

    def refill(self) -> None:
        """The processor must forget everything, and nobody else need: another process runs, or the like."""
        self.stale, self._pages = True, None

    def fresh(self, linear: int | None = None) -> None:
        """The processor forgot everything; or, of one page alone, is about to fill it anew, which replaces the old."""
        if linear is None:
            self._pages = set()
        elif self._pages is not None:
            self._pages.discard(linear & -PAGE_BYTES)
        self.stale = self._pages is None or bool(self._pages)


@dataclass
class Figures:
    """What a run counts of its memory."""

    fills: int = 0
    """Misses of the processor's TLB."""
    faults: int = 0
    """Page faults that the operating system handled."""
    kernel_bytes: int = 0
    """Bytes that the kernel copied from and to user memory."""

    def as_json(self) -> dict[str, int]:
        """Name to number."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


class UserMemory:
    """The memory of the process that runs.

    Parameters
    ----------
    kernel : Kernel
        Made with `mmu` and with the arena's memory.
    mmu : ProgramMmu
    arena : Arena

    Attributes
    ----------
    fault : tuple (Signal, int) or None
        How the last fill failed, and at which address.
    """

    def __init__(self, kernel: Kernel, mmu: ProgramMmu, arena: Arena) -> None:
        self._kernel = kernel
        self.mmu = mmu
        self._arena = arena
        self._rows = arena.memory.row_of_frame
        self.figures = Figures()
        self.fault: tuple[Signal, int] | None = None
        self.wrote: Callable[[int, bytes], None] = lambda linear, data: None
        """Told of what the kernel copied to the program."""
        self.swapper: Swapper | None = None
        self.switch(kernel.processes[0])

    def switch(self, process: Process) -> None:
        """Another process runs, or this one has another address space."""
        self._process = process
        self._state = state_of(self._kernel, process)
        self.mmu.refill()

    def fill(self, linear: int, access: Access) -> int | None:
        """The physical address of an access of the program, its fault handled; None: it failed (see `fault`)."""
        self.figures.fills += 1
        found = self._reach(Request(linear, access))
        if isinstance(found, Signal):
            self.fault = found, linear
            return None
        frame = found >> PAGE_SHIFT
        if frame not in self._rows:
            self._add(frame)
        if access == Access.WRITE:
            self._process.mm.store(linear >> PAGE_SHIFT)
        elif access == Access.FETCH:
            self._arena.code.add(frame)
        if self.mmu.stale:
            self.mmu.fresh(linear)
        return found

    def _add(self, frame: int) -> None:
        try:
            self._arena.memory.add_frame(frame)
        except BusError as error:
            raise self._full() from error

    def _full(self) -> ToolError:
        return ToolError(
            f"the program needs more physical memory than {self._arena.size >> 20}M; give it more with --memory"
        )

    def _reach(self, request: Request) -> int | Signal:
        kernel, process = self._kernel, self._process
        if self.swapper is not None:
            self.swapper.relieve(process, self.figures.faults)
        for _ in range(_RETRIES):
            result = self.mmu.walk(self._state, request)
            if isinstance(result, Translated):
                return result.physical
            if not isinstance(result, PageFault):
                return Signal.KERNEL
            self.figures.faults += 1
            kernel.frames.begin_step()
            try:
                with kernel.flush():
                    signal = faults.user_fault(process.mm, request.linear >> PAGE_SHIFT, result.code)
            except BusError as error:
                raise self._full() from error
            if signal is not None:
                return signal
        raise FaultsForEver(f"the page at {request.linear:#x} faults for ever")

    # The kernel's copies.

    def _kernel_reach(self, linear: int, access: Access) -> int:
        if linear >> 64 or linear < 0:
            raise CallFails("EFAULT")
        found = self._reach(Request(linear, access, user=False, ac=True))
        if isinstance(found, Signal):
            raise CallFails("EFAULT")
        return found

    def read(self, linear: int, length: int) -> bytes:
        """Bytes of the program. Raises `CallFails` EFAULT."""
        parts = []
        for at, size in by_page(linear, length):
            physical = self._kernel_reach(at, Access.READ)
            parts.append(self._kernel.frames.load(physical >> PAGE_SHIFT, physical % PAGE_BYTES, size))
        self.figures.kernel_bytes += length
        return b"".join(parts)

    def write(self, linear: int, data: bytes) -> None:
        """Bytes to the program. Raises `CallFails` EFAULT, with what lies before the bad page stored."""
        for at, size in by_page(linear, len(data)):
            physical = self._kernel_reach(at, Access.WRITE)
            frame = physical >> PAGE_SHIFT
            if frame not in self._rows:
                self._add(frame)
            self._kernel.frames.store(frame, physical % PAGE_BYTES, data[at - linear : at - linear + size])
            self._process.mm.store(at >> PAGE_SHIFT)
            self._arena.wrote(frame)
        self.wrote(linear, data)
        self.figures.kernel_bytes += len(data)

    def text(self, linear: int) -> bytes:
        """A string that a zero byte ends. Raises `CallFails` EFAULT, E2BIG."""
        found = b""
        while len(found) < _LONGEST_TEXT:
            part = self.read(linear + len(found), PAGE_BYTES - (linear + len(found)) % PAGE_BYTES)
            end = part.find(b"\0")
            if end >= 0:
                return found + part[:end]
            found += part
        raise CallFails("E2BIG")

    def word(self, linear: int) -> int:
        """The 64-bit word at an address. Raises `CallFails` EFAULT."""
        return int.from_bytes(self.read(linear, 8), "little")
