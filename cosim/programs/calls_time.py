"""System calls that tell the time, which is virtual, and numbers that are nobody's."""

from __future__ import annotations

import struct
from typing import Final

from ptewalk.cosim.programs.errors import Blocked, CallFails
from ptewalk.cosim.programs.system import MASK, System, call

_TIMESPEC: Final = struct.Struct("<qq")
_REALTIME, _LAST_CLOCK = 0, 11
_BOOT_NS: Final = 1_699_999_000_000_000_000
_SECOND: Final = 10**9
_ABSOLUTE: Final = 1
_UTSNAME: Final = 65
_RELEASES: Final = {
    "linux-seed": b"3.11.0",
    "linux-3.11": b"3.11.0",
    "linux-6.12": b"6.12.0",
    "linux-6.18": b"6.18.0",
    "linux-7.2": b"7.2.0",
    "linux-7.3": b"7.3.0",
}
_LIMITS: Final = {3: (8 << 20, MASK), 7: (1024, 1024), 6: (64, 64)}


@call("clock_gettime")
def clock_gettime(system: System, clock: int, address: int) -> int:
    """clock_gettime"""
    if clock > _LAST_CLOCK and clock & 0xFFFFFFFF < 0x80000000:
        raise CallFails("EINVAL")
    now = system.now if clock == _REALTIME else system.now - _BOOT_NS
    system.memory.write(address, _TIMESPEC.pack(*divmod(now, _SECOND)))
    return 0


@call("clock_getres")
def clock_getres(system: System, clock: int, address: int) -> int:
    """clock_getres"""
    if address:
        system.memory.write(address, _TIMESPEC.pack(0, 1))
    return 0


@call("gettimeofday")
def gettimeofday(system: System, address: int) -> int:
    """gettimeofday"""
    seconds, nanoseconds = divmod(system.now, _SECOND)
    if address:
        system.memory.write(address, _TIMESPEC.pack(seconds, nanoseconds // 1000))
    return 0


@call("time")
def time(system: System, address: int) -> int:
    """time"""
    seconds = system.now // _SECOND
    if address:
        system.memory.write(address, struct.pack("<q", seconds))
    return seconds


@call("times")
def times(system: System, address: int) -> int:
    """times"""
    ticks = (system.now - _BOOT_NS) // 10_000_000
    if address:
        system.memory.write(address, struct.pack("<4q", ticks, 0, 0, 0))
    return ticks


@call("nanosleep")
def nanosleep(system: System, address: int) -> int:
    """nanosleep"""
    return _sleep(system, system.now + _duration(system, address))


@call("clock_nanosleep")
def clock_nanosleep(system: System, clock: int, flags: int, address: int) -> int:
    """clock_nanosleep"""
    until = _duration(system, address)
    if not flags & _ABSOLUTE:
        return _sleep(system, system.now + until)
    return _sleep(system, until if clock == _REALTIME else until + _BOOT_NS)


def _duration(system: System, address: int) -> int:
    seconds, nanoseconds = _TIMESPEC.unpack(system.memory.read(address, _TIMESPEC.size))
    if seconds < 0 or not 0 <= nanoseconds < _SECOND:
        raise CallFails("EINVAL")
    return int(seconds * _SECOND + nanoseconds)


def _sleep(system: System, until: int) -> int:
    if system.timed_out() or until <= system.now:
        return 0
    raise Blocked(lambda: False, until)


@call("getrusage")
def getrusage(system: System, who: int, address: int) -> int:
    """getrusage"""
    seconds, nanoseconds = divmod(system.now - _BOOT_NS, _SECOND)
    system.memory.write(address, struct.pack("<4q", seconds, nanoseconds // 1000, 0, 0).ljust(144, b"\0"))
    return 0


@call("uname")
def uname(system: System, address: int) -> int:
    """uname"""
    release = _RELEASES.get(system.kernel.profile.name, b"6.1.0")
    texts = (b"Linux", b"ptewalk", release, b"#1 ptewalk", b"x86_64", b"(none)")
    system.memory.write(address, b"".join(text.ljust(_UTSNAME, b"\0") for text in texts))
    return 0


@call("sysinfo")
def sysinfo(system: System, address: int) -> int:
    """sysinfo"""
    total = system.arena.size
    used = len(system.arena.memory.row_of_frame) << 12
    system.memory.write(
        address,
        struct.pack("<q3Q", (system.now - _BOOT_NS) // _SECOND, 0, 0, 0)
        + struct.pack("<6QHxxxxxxQQI", total, max(0, total - used), 0, 0, 0, 0, len(system.tasks), 0, 0, 1).ljust(
            80, b"\0"
        ),
    )
    return 0


@call("getrlimit")
def getrlimit(system: System, resource: int, address: int) -> int:
    """getrlimit"""
    return prlimit64(system, 0, resource, 0, address)


@call("prlimit64")
def prlimit64(system: System, pid: int, resource: int, new: int, old: int) -> int:
    """prlimit64: limits are told, and changes of them taken and forgotten"""
    if resource > 15:
        raise CallFails("EINVAL")
    if old:
        system.memory.write(old, struct.pack("<QQ", *_LIMITS.get(resource, (MASK, MASK))))
    return 0


@call("setrlimit")
def setrlimit(system: System, resource: int, new: int) -> int:
    """setrlimit: taken and forgotten"""
    return prlimit64(system, 0, resource, new, 0)


@call("getrandom")
def getrandom(system: System, address: int, count: int, flags: int) -> int:
    """getrandom"""
    count = min(count, 1 << 20)
    system.memory.write(address, system.chance.randbytes(count))
    return count
