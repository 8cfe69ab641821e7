"""Protection keys of areas and processes (arch/x86/mm/pkeys.c)."""

from __future__ import annotations

from ptewalk.model.linux import VmFlag
from ptewalk.model.state.machine import MachineState, Mm, Process
from ptewalk.model.state.vma import Vma
from ptewalk.model.x86 import Control

_ACCESS = VmFlag.READ | VmFlag.WRITE | VmFlag.EXEC


def in_use(kernel: MachineState) -> bool:
    """CR4.PKE"""
    return bool(kernel.control & 1 << Control.PKE)


def of_mprotect(mm: Mm, vma: Vma, prot: int, key: int) -> int:
    """The protection key that mprotect gives an area (arch_override_mprotect_pkey)."""
    if not in_use(mm.kernel):
        return 0
    if key >= 0:
        return key
    process = mm.process
    if prot == VmFlag.EXEC:
        return execute_only_key(mm.kernel, process)
    current = vma.flags >> VmFlag.PKEY_LOW & 0xF
    if current and current == process.exec_only_key and vma.flags & _ACCESS == VmFlag.EXEC:
        return 0
    return current


def execute_only_key(kernel: MachineState, process: Process) -> int:
    """arch/x86/mm/pkeys.c:__execute_only_pkey"""
    if not in_use(kernel):
        return 0
    if not process.exec_only_key:
        free = [k for k in range(1, 16) if k not in process.pkeys]
        if not free:
            return 0
        process.exec_only_key = free[0]
        process.pkeys.add(free[0])
        process.pkru = process.pkru & ~(3 << 2 * free[0]) | 1 << 2 * free[0]
    return process.exec_only_key


def permits(mm: Mm, vma: Vma, write: bool) -> bool:
    """Does PKRU allow the access by the area's key (arch_vma_access_permitted)?"""
    if not in_use(mm.kernel):
        return True
    rights = mm.process.pkru >> 2 * (vma.flags >> VmFlag.PKEY_LOW & 0xF)
    return not rights & 1 and not (write and rights & 2)


def allocate(process: Process, key: int) -> None:
    """pkey_alloc of every key up to `key` that the process has not got, with no restriction."""
    for new in range(1, key + 1):
        if new not in process.pkeys:
            process.pkeys.add(new)
            process.pkru &= ~(3 << 2 * new)
