"""Accesses of user memory: by the process itself, by the kernel on its behalf, and through /proc/PID/mem.

Every access of the process, and the kernel's copies to user memory, go through the machine's `Mmu`; a page fault that
it reports is handled and the access tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

from ptewalk.model.errors import Errno, FaultsForEver, Signal
from ptewalk.model.linux import PKRU_AFTER_FAULT, Track
from ptewalk.model.mm import faults, gup, pkeys
from ptewalk.model.paging import GeneralProtection, PageFault, Request, State, Translated
from ptewalk.model.state.machine import MachineState, Process
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, Access

_BATCH: Final = 64
"""Accesses given to the MMU at a time."""
_RETRIES: Final = 16
_FILLING: Final = b"\x5a" * PAGE_BYTES


def state_of(kernel: MachineState, process: Process) -> State:
    """The MMU's control state while `process` runs."""
    return _state(
        process.mm.tables.root << PAGE_SHIFT,
        process.mm.tables.pcid,
        kernel.control,
        process.pkru if pkeys.in_use(kernel) else 0,
        kernel.track,
        kernel.entries.SAVED_DIRTY != 0,
        kernel.entries.soft_dirty,
    )


@lru_cache(maxsize=64)
def _state(root: int, pcid: int, control: int, pkru: int, track: Track, saved_dirty: bool, soft_dirty: bool) -> State:
    return State(
        root=root,
        pcid=pcid,
        control=control,
        pkru=pkru,
        track=track,
        saved_dirty=saved_dirty,
        soft_dirty=soft_dirty,
    )


_request = lru_cache(maxsize=1024)(Request)
"""An access of the process; most places are asked for again and again."""


def reach(kernel: MachineState, process: Process, addresses: Sequence[int], access: Access) -> Iterator[int | str]:
    """User accesses of a byte each, one after the other, faults handled.

    Parameters
    ----------
    addresses : sequence of int
        Linear byte addresses.
    access : Access
        READ or WRITE.

    Yields
    ------
    int or str
        The physical byte address, or how the fault ended: the value of a `Signal`.
    """
    requests = [_request(address, access) for address in addresses]
    position = retries = 0
    state = state_of(kernel, process)
    while position < len(requests):
        for result in kernel.mmu.run(state, requests[position : position + _BATCH]):
            at = addresses[position] >> PAGE_SHIFT
            if isinstance(result, Translated):
                if access == Access.WRITE:
                    process.mm.store(at)
                yield result.physical
                position += 1
                retries = 0
            elif isinstance(result, (PageFault, GeneralProtection)):
                if isinstance(result, PageFault):
                    with kernel.flush():
                        signal = faults.user_fault(process.mm, at, result.code)
                else:
                    signal = Signal.KERNEL
                retries += 1
                if signal is None and retries < _RETRIES:
                    break
                if signal is None:
                    raise FaultsForEver(f"page {at - kernel.base} faults for ever ({result!r})")
                if pkeys.in_use(kernel):
                    process.pkru = PKRU_AFTER_FAULT
                    state = state_of(kernel, process)
                yield signal.value
                position += 1
                retries = 0
                break
            else:
                raise AssertionError(f"user access ended in {result!r}")


def touch_pages(
    kernel: MachineState, process: Process, pages: Sequence[int], access: Access, value: int = 0, *, offset: int = 8
) -> list[int | str]:
    """One 1-byte user access per page, at byte `offset` of each.

    Parameters
    ----------
    access : Access
        READ or WRITE.
    value : int
        The byte that is written.

    Returns
    -------
    list
        Per page: the byte read, "ok" for a store, or how the fault ended, as `reach` tells it.
    """
    values: list[int | str] = []
    for found in reach(kernel, process, [at << PAGE_SHIFT | offset for at in pages], access):
        if found == Signal.KERNEL.value:  # a recording calls every code of SIGSEGV but two "accerr"
            found = Signal.ACCERR.value
        values.append(found if isinstance(found, str) else _do(kernel, found, access, value))
    return values


def copy_to_user(kernel: MachineState, process: Process, at: int, offset: int, value: int) -> bool:
    """A byte that the kernel stores to user memory; False: EFAULT."""
    request = Request(at << PAGE_SHIFT | offset, Access.WRITE, user=False, ac=True)
    for _ in range(_RETRIES):
        result = kernel.mmu.run(state_of(kernel, process), [request])[0]
        if isinstance(result, Translated):
            _do(kernel, result.physical, Access.WRITE, value)
            process.mm.store(at)
            return True
        if not isinstance(result, PageFault):
            return False
        with kernel.flush():
            if faults.user_fault(process.mm, at, result.code) is not None:
                return False
    raise FaultsForEver(f"page {at - kernel.base} faults for ever")


def mem_access(
    kernel: MachineState, process: Process, pages: Sequence[int], *, write: bool, value: int = 0
) -> list[int | str]:
    """One byte per page through /proc/self/mem at offset 8: the byte, "ok", or "e5" for EIO."""
    values: list[int | str] = []
    for at in pages:
        try:
            with kernel.flush():
                frame = gup.access_remote(process.mm, at, write=write)
        except Errno:
            values.append("e5")
            continue
        if write:
            kernel.frames.store_byte(frame, 8, value)
            values.append("ok")
        else:
            values.append(kernel.frames.load_byte(frame, 8))
    return values


def _do(kernel: MachineState, physical: int, access: Access, value: int) -> int | str:
    """The access itself, at a physical byte address."""
    frame, offset = physical >> PAGE_SHIFT, physical & PAGE_BYTES - 1
    if access == Access.READ:
        return kernel.frames.load_byte(frame, offset)
    kernel.frames.store_byte(frame, offset, value)
    return "ok"


def fill(kernel: MachineState, process: Process, at: int, pages: int) -> None:
    """A process fills pages with bytes 0x5a."""
    addresses = [page << PAGE_SHIFT for page in range(at, at + pages)]
    for found in reach(kernel, process, addresses, Access.WRITE):
        if isinstance(found, int):
            kernel.frames.store(found >> PAGE_SHIFT, 0, _FILLING)
