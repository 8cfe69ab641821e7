"""System calls on processes: fork, execve, exit, wait4, and what a process asks about itself."""

from __future__ import annotations

import struct
from typing import Final

from ptewalk.cosim.programs.errors import Blocked, CallFails
from ptewalk.cosim.programs.system import System, call, signed
from ptewalk.cosim.programs.task import Task

_ARCH_SET_GS, _ARCH_SET_FS, _ARCH_GET_FS, _ARCH_GET_GS = 0x1001, 0x1002, 0x1003, 0x1004
_CLONE_VM, _CLONE_VFORK, _CLONE_THREAD = 0x100, 0x4000, 0x10000
_CLONE_PARENT_SETTID, _CLONE_CHILD_CLEARTID, _CLONE_CHILD_SETTID, _CLONE_SETTLS = 0x100000, 0x200000, 0x1000000, 0x80000
_CLONE_KNOWN: Final = 0xFF | _CLONE_VM | _CLONE_VFORK | 0x1200000 | _CLONE_PARENT_SETTID | _CLONE_SETTLS
_WNOHANG: Final = 1
_FUTEX_WAIT, _FUTEX_WAKE, _FUTEX_COMMAND = 0, 1, 0x7F
_PR_SET_NAME, _PR_GET_NAME, _PR_SET_PDEATHSIG, _PR_GET_DUMPABLE = 15, 16, 1, 3
_MOST_WORDS: Final = 1 << 16
_USER: Final = 1000


@call("arch_prctl")
def arch_prctl(system: System, code: int, address: int) -> int:
    """arch_prctl: FS and GS"""
    name = {_ARCH_SET_FS: "fs_base", _ARCH_GET_FS: "fs_base", _ARCH_SET_GS: "gs_base", _ARCH_GET_GS: "gs_base"}.get(
        code
    )
    if name is None:
        raise CallFails("EINVAL")
    if code in (_ARCH_SET_FS, _ARCH_SET_GS):
        if address >> 47:
            raise CallFails("EPERM")
        system.cpu[name] = address
    else:
        system.memory.write(address, struct.pack("<Q", system.cpu[name]))
    return 0


@call("set_tid_address")
def set_tid_address(system: System, address: int) -> int:
    """set_tid_address"""
    system.current.clear_tid = address
    return system.current.pid


@call("set_robust_list")
def set_robust_list(system: System, address: int, length: int) -> int:
    """set_robust_list: there is one thread"""
    return 0 if length == 24 else -22


@call("rseq")
def rseq(system: System) -> int:
    """rseq: as a kernel without it"""
    raise CallFails("ENOSYS")


@call("ptewalk_marker")
def marker(system: System) -> int:
    """What ends an epoch of `--epoch marker`: no system call of Linux"""
    raise CallFails("ENOSYS")


@call("clone3", "landlock_create_ruleset", "getcpu", "membarrier")
def not_in_this_kernel(system: System) -> int:
    """What C libraries try first, and do without"""
    raise CallFails("ENOSYS")


@call("prctl")
def prctl(system: System, code: int, argument: int) -> int:
    """prctl: the name"""
    if code == _PR_SET_NAME:
        system.current.name = system.memory.text(argument)[:15]
        return 0
    if code == _PR_GET_NAME:
        system.memory.write(argument, system.current.name.ljust(16, b"\0"))
        return 0
    if code == _PR_GET_DUMPABLE:
        return 1
    if code == _PR_SET_PDEATHSIG:
        return 0
    raise CallFails("EINVAL")


@call("getpid", "gettid")
def getpid(system: System) -> int:
    """getpid"""
    return system.current.pid


@call("getppid")
def getppid(system: System) -> int:
    """getppid"""
    parent = system.current.parent
    return 0 if parent is None else parent.pid


@call("getuid", "geteuid", "getgid", "getegid")
def getuid(system: System) -> int:
    """getuid"""
    return _USER


@call("getresuid", "getresgid")
def getresuid(system: System, real: int, effective: int, saved: int) -> int:
    """getresuid"""
    for address in (real, effective, saved):
        system.memory.write(address, struct.pack("<I", _USER))
    return 0


@call("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid")
def setuid(system: System, user: int) -> int:
    """setuid: to what one is"""
    if user & 0xFFFFFFFF not in (_USER, 0xFFFFFFFF):
        raise CallFails("EPERM")
    return 0


@call("getgroups")
def getgroups(system: System, size: int, address: int) -> int:
    """getgroups: none"""
    return 0


@call("getpgrp")
def getpgrp(system: System) -> int:
    """getpgrp"""
    return system.current.group


@call("getpgid", "getsid")
def getpgid(system: System, pid: int) -> int:
    """getpgid"""
    return _named(system, pid).group


@call("setpgid")
def setpgid(system: System, pid: int, group: int) -> int:
    """setpgid"""
    task = _named(system, pid)
    task.group = group or task.pid
    return 0


@call("setsid")
def setsid(system: System) -> int:
    """setsid"""
    system.current.group = system.current.pid
    return system.current.pid


def _named(system: System, pid: int) -> Task:
    task = system.tasks.get(pid) if pid else system.current
    if task is None or task.status is not None:
        raise CallFails("ESRCH")
    return task


@call("sched_yield")
def sched_yield(system: System) -> int:
    """sched_yield: another process runs"""
    system.yields = True
    system.cpu.stop()
    return 0


@call("sched_getaffinity")
def sched_getaffinity(system: System, pid: int, size: int, address: int) -> int:
    """sched_getaffinity: one processor"""
    if size < 8:
        raise CallFails("EINVAL")
    system.memory.write(address, struct.pack("<Q", 1))
    return 8


@call("futex")
def futex(system: System, address: int, operation: int, value: int) -> int:
    """futex: there is one thread, so nobody is woken"""
    command = operation & _FUTEX_COMMAND
    if command == _FUTEX_WAKE:
        return 0
    if command == _FUTEX_WAIT:
        if system.memory.read(address, 4) != struct.pack("<I", value & 0xFFFFFFFF):
            raise CallFails("EAGAIN")
        raise Blocked(lambda: False)
    raise system.missing(f"futex operation {command}")


@call("socket")
def socket(system: System) -> int:
    """socket: there is no network"""
    raise CallFails("EAFNOSUPPORT")


# fork, execve, exit, wait4.


@call("fork")
def fork(system: System) -> int:
    """fork"""
    return system.fork(shares=False).pid


@call("vfork")
def vfork(system: System) -> int:
    """vfork: as fork, but the parent waits until the child runs another program or ends"""
    return system.fork(shares=True).pid


@call("clone")
def clone(system: System, flags: int, stack: int, parent_tid: int, child_tid: int, tls: int) -> int:
    """clone: as fork; threads are not there"""
    if flags & _CLONE_THREAD or flags & ~_CLONE_KNOWN:
        raise system.missing(f"clone with flags {flags:#x} (threads, namespaces)")
    if flags & _CLONE_VM and not flags & _CLONE_VFORK:
        raise system.missing("clone that shares memory")
    child = system.fork(shares=bool(flags & _CLONE_VFORK))
    assert child.registers is not None
    if stack:
        child.registers = child.registers.with_(rsp=stack)
    if flags & _CLONE_SETTLS:
        child.registers = child.registers.with_(fs_base=tls)
    if flags & _CLONE_CHILD_CLEARTID:
        child.clear_tid = child_tid
    if flags & _CLONE_PARENT_SETTID:
        system.memory.write(parent_tid, struct.pack("<I", child.pid))
    if flags & _CLONE_CHILD_SETTID:
        system.memory.switch(child.process)
        system.memory.write(child_tid, struct.pack("<I", child.pid))
        system.memory.switch(system.current.process)
    return child.pid


@call("execve")
def execve(system: System, path: int, arguments: int, environment: int) -> int:
    """execve"""
    asked = system.memory.text(path)
    words, variables = (_texts(system, address) for address in (arguments, environment))
    system.begin(system.execute(asked, words or [b""], variables))
    return 0


def _texts(system: System, address: int) -> list[bytes]:
    found: list[bytes] = []
    while address and (pointer := system.memory.word(address + 8 * len(found))):
        found.append(system.memory.text(pointer))
        if len(found) > _MOST_WORDS:
            raise CallFails("E2BIG")
    return found


@call("exit", "exit_group")
def exit_group(system: System, status: int) -> int:
    """exit"""
    system.end(system.current, (status & 0xFF) << 8)
    return 0


@call("wait4")
def wait4(system: System, pid: int, status: int, options: int, usage: int) -> int:
    """wait4"""
    wanted = signed(pid, 32)
    me = system.current

    def children() -> list[Task]:
        of_mine = [one for one in system.tasks.values() if one.parent is me and not one.waited_for]
        if wanted > 0:
            return [one for one in of_mine if one.pid == wanted]
        return of_mine if wanted == -1 else [one for one in of_mine if one.group == (-wanted or me.group)]

    if not children():
        raise CallFails("ECHILD")
    ended = next((one for one in children() if one.status is not None), None)
    if ended is None:
        if options & _WNOHANG:
            return 0
        raise Blocked(lambda: any(one.status is not None for one in children()))
    if status:
        system.memory.write(status, struct.pack("<I", ended.status))
    if usage:
        system.memory.write(usage, bytes(144))
    ended.waited_for = True
    del system.tasks[ended.pid]
    return ended.pid
