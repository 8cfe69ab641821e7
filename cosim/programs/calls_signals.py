"""System calls on signals."""

from __future__ import annotations

import struct
from typing import Final

from ptewalk.cosim.programs.errors import Blocked, CallFails
from ptewalk.cosim.programs.signals import LAST, SIGKILL, SIGSTOP, Action, Information, leave_handler
from ptewalk.cosim.programs.system import System, call, signed
from ptewalk.cosim.programs.task import Task

_ACTION: Final = struct.Struct("<QQQQ")
_STACK: Final = struct.Struct("<QiiQ")
_TIMES: Final = struct.Struct("<4q")
_NEVER: Final = 1 << SIGKILL - 1 | 1 << SIGSTOP - 1
_BLOCK, _UNBLOCK, _SETMASK = 0, 1, 2
_SI_USER, _SI_TKILL = 0, -6
_SS_DISABLE, _LEAST_STACK = 2, 2048
_SECOND: Final = 10**9


@call("rt_sigaction")
def rt_sigaction(system: System, signal: int, new: int, old: int, size: int) -> int:
    """sigaction"""
    if size != 8 or not 1 <= signal <= LAST or (new and signal in (SIGKILL, SIGSTOP)):
        raise CallFails("EINVAL")
    signals = system.current.signals
    before = signals.action(signal)
    if new:
        handler, flags, restorer, mask = _ACTION.unpack(system.memory.read(new, _ACTION.size))
        signals.actions[signal] = Action(handler, flags, restorer, mask & ~_NEVER)
        if signals.ignores(signal):
            signals.pending = [one for one in signals.pending if one.signal != signal]
    if old:
        system.memory.write(old, _ACTION.pack(before.handler, before.flags, before.restorer, before.mask))
    return 0


@call("rt_sigprocmask")
def rt_sigprocmask(system: System, how: int, new: int, old: int, size: int) -> int:
    """sigprocmask"""
    if size != 8:
        raise CallFails("EINVAL")
    signals = system.current.signals
    before = signals.mask
    if new:
        given = system.memory.word(new) & ~_NEVER
        if how not in (_BLOCK, _UNBLOCK, _SETMASK):
            raise CallFails("EINVAL")
        signals.mask = {_BLOCK: before | given, _UNBLOCK: before & ~given, _SETMASK: given}[how]
    if old:
        system.memory.write(old, struct.pack("<Q", before))
    return 0


@call("rt_sigpending")
def rt_sigpending(system: System, address: int) -> int:
    """sigpending"""
    bits = sum(1 << one.signal - 1 for one in system.current.signals.pending)
    system.memory.write(address, struct.pack("<Q", bits))
    return 0


@call("rt_sigreturn")
def rt_sigreturn(system: System) -> int:
    """The end of a handler"""
    task = system.current
    system.cpu.load(leave_handler(system.memory, task.signals, system.cpu.save()))
    system.replaced = True
    system.cpu.stop()
    return 0


@call("rt_sigsuspend")
def rt_sigsuspend(system: System, address: int) -> int:
    """sigsuspend"""
    signals = system.current.signals
    if signals.saved_mask is None:
        signals.saved_mask = signals.mask
    signals.mask = system.memory.word(address) & ~_NEVER
    raise Blocked(lambda: False)


@call("pause")
def pause(system: System) -> int:
    """pause"""
    raise Blocked(lambda: False)


@call("sigaltstack")
def sigaltstack(system: System, new: int, old: int) -> int:
    """sigaltstack"""
    signals = system.current.signals
    base, size = signals.stack
    before = _STACK.pack(base, 0 if size else _SS_DISABLE, 0, size)
    if new:
        at, flags, _, length = _STACK.unpack(system.memory.read(new, _STACK.size))
        if flags & _SS_DISABLE:
            signals.stack = (0, 0)
        elif length < _LEAST_STACK:
            raise CallFails("ENOMEM")
        else:
            signals.stack = (at, length)
    if old:
        system.memory.write(old, before)
    return 0


@call("kill")
def kill(system: System, pid: int, signal: int) -> int:
    """kill: only processes of the run are there"""
    wanted = signed(pid, 32)
    alive = [task for task in system.tasks.values() if task.status is None]
    if wanted > 0:
        chosen = [task for task in alive if task.pid == wanted]
    elif wanted == -1:
        chosen = [task for task in alive if task is not system.current]
    else:
        group = -wanted or system.current.group
        chosen = [task for task in alive if task.group == group]
    return _send(system, chosen, signal, _SI_USER)


@call("tkill")
def tkill(system: System, pid: int, signal: int) -> int:
    """tkill"""
    return tgkill(system, pid, pid, signal)


@call("tgkill")
def tgkill(system: System, group: int, pid: int, signal: int) -> int:
    """tgkill"""
    chosen = [task for task in system.tasks.values() if task.pid == pid == group and task.status is None]
    return _send(system, chosen, signal, _SI_TKILL)


def _send(system: System, chosen: list[Task], signal: int, code: int) -> int:
    if not 0 <= signal <= LAST:
        raise CallFails("EINVAL")
    if not chosen:
        raise CallFails("ESRCH")
    for task in chosen if signal else []:
        task.signals.send(Information(signal, code, sender=system.current.pid))
    return 0


@call("alarm")
def alarm(system: System, seconds: int) -> int:
    """alarm"""
    task = system.current
    left = 0 if task.alarm is None else max(1, -(-(task.alarm - system.now) // _SECOND))
    task.alarm = system.now + (seconds & 0xFFFFFFFF) * _SECOND if seconds & 0xFFFFFFFF else None
    task.alarm_again = 0
    return left


@call("setitimer")
def setitimer(system: System, which: int, new: int, old: int) -> int:
    """setitimer: real time alone"""
    if which:
        raise system.missing("setitimer of processor time")
    task = system.current
    left = 0 if task.alarm is None else max(0, task.alarm - system.now)
    before = _TIMES.pack(*_parts(task.alarm_again), *_parts(left))
    if new:
        again, again_micro, first, first_micro = _TIMES.unpack(system.memory.read(new, _TIMES.size))
        after = first * _SECOND + first_micro * 1000
        task.alarm = system.now + after if after else None
        task.alarm_again = again * _SECOND + again_micro * 1000
    if old:
        system.memory.write(old, before)
    return 0


def _parts(nanoseconds: int) -> tuple[int, int]:
    return nanoseconds // _SECOND, nanoseconds % _SECOND // 1000
