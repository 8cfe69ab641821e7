"""System calls on descriptors: opening, reading, writing, waiting."""

from __future__ import annotations

import os
import struct
from typing import Final

from ptewalk.cosim.programs.errors import Blocked, CallFails
from ptewalk.cosim.programs.open_files import Descriptor, Folder, HostFile, Kernels, OpenFile, Pipe, PipeEnd
from ptewalk.cosim.programs.opening import AT_FDCWD, open_path, path_of
from ptewalk.cosim.programs.system import System, call, signed
from ptewalk.cosim.programs.task import Task

_CLOEXEC: Final = os.O_CLOEXEC
_LONGEST_TRANSFER: Final = 1 << 24
"""A longer read or write is done in part, as Linux may do."""
_VECTOR: Final = struct.Struct("<QQ")
_DIRENT: Final = struct.Struct("<QqHB")
_POLL: Final = struct.Struct("<ihh")
_POLLIN, _POLLOUT, _POLLERR, _POLLHUP, _POLLNVAL = 1, 4, 8, 16, 32
_TCGETS, _TIOCGWINSZ, _FIONREAD, _FIOCLEX, _FIONBIO = 0x5401, 0x5413, 0x541B, 0x5451, 0x5421
_F_DUPFD, _F_GETFD, _F_SETFD, _F_GETFL, _F_SETFL, _F_GETLK, _F_SETLK, _F_SETLKW = range(8)
_F_DUPFD_CLOEXEC, _F_GETPIPE_SZ, _F_OFD_GETLK = 1030, 1032, 36


# Opening and closing.


@call("open")
def open_(system: System, path: int, flags: int, mode: int) -> int:
    """open"""
    return openat(system, AT_FDCWD, path, flags, mode)


@call("openat")
def openat(system: System, folder: int, path: int, flags: int, mode: int) -> int:
    """openat"""
    start, text = path_of(system, folder, path)
    if not text:
        raise CallFails("ENOENT")
    follow = not flags & os.O_NOFOLLOW and not (flags & os.O_CREAT and flags & os.O_EXCL)
    resolved = system.tree.resolve(start, text, follow=follow)
    file = open_path(system, resolved, flags, mode & ~system.current.umask)
    return system.new_descriptor(file, close_on_exec=bool(flags & _CLOEXEC))


@call("creat")
def creat(system: System, path: int, mode: int) -> int:
    """creat"""
    return openat(system, AT_FDCWD, path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, mode)


@call("close")
def close(system: System, number: int) -> int:
    """close"""
    found = system.current.descriptors.pop(number & 0xFFFFFFFF, None)
    if found is None:
        raise CallFails("EBADF")
    found.drop()
    return 0


@call("close_range")
def close_range(system: System, first: int, last: int, flags: int) -> int:
    """close_range"""
    for number in [number for number in system.current.descriptors if first <= number <= last & 0xFFFFFFFF]:
        if flags & 4:
            system.current.descriptors[number].close_on_exec = True
        else:
            close(system, number)
    return 0


@call("dup")
def dup(system: System, number: int) -> int:
    """dup"""
    return system.new_descriptor(system.file(number))


@call("dup2")
def dup2(system: System, number: int, new: int) -> int:
    """dup2"""
    file = system.file(number)
    return new if number == new else _put_at(system, file, new, close_on_exec=False)


@call("dup3")
def dup3(system: System, number: int, new: int, flags: int) -> int:
    """dup3"""
    if number == new:
        raise CallFails("EINVAL")
    return _put_at(system, system.file(number), new, close_on_exec=bool(flags & _CLOEXEC))


def _put_at(system: System, file: OpenFile, new: int, *, close_on_exec: bool) -> int:
    if new >= system.limits.files:
        raise CallFails("EBADF")
    placed = Descriptor(file, close_on_exec)
    old = system.current.descriptors.pop(new, None)
    system.current.descriptors[new] = placed
    if old is not None:
        old.drop()
    return new


@call("pipe")
def pipe(system: System, address: int) -> int:
    """pipe"""
    return pipe2(system, address, 0)


@call("pipe2")
def pipe2(system: System, address: int, flags: int) -> int:
    """pipe2"""
    made = Pipe()
    ends = [PipeEnd(made, writes=writes, flags=flags & os.O_NONBLOCK) for writes in (False, True)]
    numbers = [system.new_descriptor(end, close_on_exec=bool(flags & _CLOEXEC)) for end in ends]
    system.memory.write(address, struct.pack("<ii", *numbers))
    return 0


@call("fcntl")
def fcntl(system: System, number: int, command: int, argument: int) -> int:
    """fcntl; locks are granted, for nobody else is there"""
    file = system.file(number)
    descriptor = system.current.descriptors[number & 0xFFFFFFFF]
    if command in (_F_DUPFD, _F_DUPFD_CLOEXEC):
        return system.new_descriptor(file, close_on_exec=command == _F_DUPFD_CLOEXEC, least=argument)
    if command == _F_GETFD:
        return int(descriptor.close_on_exec)
    if command == _F_SETFD:
        descriptor.close_on_exec = bool(argument & 1)
        return 0
    if command == _F_GETFL:
        return file.flags & ~(_CLOEXEC | os.O_CREAT | os.O_EXCL | os.O_TRUNC)
    if command == _F_SETFL:
        changed = os.O_APPEND | os.O_NONBLOCK
        file.flags = file.flags & ~changed | argument & changed
        return 0
    if command == _F_GETLK:
        system.memory.write(argument, struct.pack("<h", 2))  # F_UNLCK
        return 0
    if command in (_F_SETLK, _F_SETLKW):
        return 0
    if command == _F_GETPIPE_SZ:
        return 65536
    raise CallFails("EINVAL")


@call("flock", "fsync", "fdatasync", "fadvise64")
def nothing_to_do(system: System, number: int) -> int:
    """What has no effect here, but wants an open file"""
    system.file(number)
    return 0


@call("ioctl")
def ioctl(system: System, number: int, request: int, argument: int) -> int:
    """ioctl: nothing is a terminal"""
    file = system.file(number)
    if request == _FIOCLEX:
        system.current.descriptors[number].close_on_exec = True
        return 0
    if request == _FIONBIO:
        on = system.memory.read(argument, 4) != bytes(4)
        file.flags = file.flags & ~os.O_NONBLOCK | (os.O_NONBLOCK if on else 0)
        return 0
    if request == _FIONREAD and isinstance(file, PipeEnd):
        system.memory.write(argument, struct.pack("<i", len(file.pipe.data)))
        return 0
    raise CallFails("ENOTTY")


# Reading and writing.


def _readable(system: System, number: int) -> OpenFile:
    file = system.file(number)
    if file.flags & os.O_ACCMODE == os.O_WRONLY:
        raise CallFails("EBADF")
    return file


def _writable(system: System, number: int) -> OpenFile:
    file = system.file(number)
    if file.flags & os.O_ACCMODE == os.O_RDONLY:
        raise CallFails("EBADF")
    if isinstance(file, Kernels) and file.clears is not None:
        system.before_clear(file.clears)
    return file


@call("read")
def read(system: System, number: int, address: int, count: int) -> int:
    """read"""
    data = _readable(system, number).read(min(count, _LONGEST_TRANSFER))
    system.memory.write(address, data)
    return len(data)


@call("write")
def write(system: System, number: int, address: int, count: int) -> int:
    """write"""
    file = _writable(system, number)
    return file.write(system.memory.read(address, min(count, _LONGEST_TRANSFER)))


@call("pread64")
def pread64(system: System, number: int, address: int, count: int, offset: int) -> int:
    """pread"""
    if signed(offset) < 0:
        raise CallFails("EINVAL")
    data = _readable(system, number).pread(min(count, _LONGEST_TRANSFER), offset)
    system.memory.write(address, data)
    return len(data)


@call("pwrite64")
def pwrite64(system: System, number: int, address: int, count: int, offset: int) -> int:
    """pwrite"""
    if signed(offset) < 0:
        raise CallFails("EINVAL")
    return _writable(system, number).pwrite(system.memory.read(address, min(count, _LONGEST_TRANSFER)), offset)


def _vectors(system: System, address: int, count: int) -> list[tuple[int, int]]:
    if count > 1024:
        raise CallFails("EINVAL")
    data = system.memory.read(address, count * _VECTOR.size)
    return [_VECTOR.unpack_from(data, place) for place in range(0, len(data), _VECTOR.size)]


@call("readv")
def readv(system: System, number: int, address: int, count: int) -> int:
    """readv"""
    vectors = _vectors(system, address, count)
    data = _readable(system, number).read(min(sum(length for _, length in vectors), _LONGEST_TRANSFER))
    place = 0
    for base, length in vectors:
        system.memory.write(base, data[place : place + length])
        place += length
    return len(data)


@call("writev")
def writev(system: System, number: int, address: int, count: int) -> int:
    """writev"""
    file = _writable(system, number)
    return file.write(b"".join(system.memory.read(*vector) for vector in _vectors(system, address, count)))


@call("sendfile")
def sendfile(system: System, out: int, source: int, offset: int, count: int) -> int:
    """sendfile"""
    target, file = _writable(system, out), _readable(system, source)
    if not isinstance(file, HostFile):
        raise CallFails("EINVAL")
    at = system.memory.word(offset) if offset else file.position
    sent = target.write(file.pread(min(count, _LONGEST_TRANSFER), at))
    if offset:
        system.memory.write(offset, struct.pack("<Q", at + sent))
    else:
        file.position = at + sent
    return sent


@call("lseek")
def lseek(system: System, number: int, offset: int, whence: int) -> int:
    """lseek"""
    return system.file(number).seek(signed(offset), whence)


@call("ftruncate")
def ftruncate(system: System, number: int, size: int) -> int:
    """ftruncate"""
    _writable(system, number).truncate(size)
    return 0


@call("getdents64")
def getdents64(system: System, number: int, address: int, count: int) -> int:
    """getdents64, in order of the names"""
    folder = system.file(number)
    if not isinstance(folder, Folder):
        raise CallFails("ENOTDIR")
    data = b""
    while True:
        entry = folder.take()
        if entry is None:
            break
        name, inode, kind = entry
        length = _DIRENT.size + len(name) + 1 + 7 & -8
        if len(data) + length > count:
            folder.position -= 1
            if not data:
                raise CallFails("EINVAL")
            break
        data += (_DIRENT.pack(inode, folder.position, length, kind) + name).ljust(length, b"\0")
    system.memory.write(address, data)
    return len(data)


# Waiting.


@call("poll")
def poll(system: System, address: int, count: int, milliseconds: int) -> int:
    """poll"""
    timeout = signed(milliseconds, 32)
    return _poll(system, address, count, None if timeout < 0 else timeout * 1_000_000)


@call("ppoll")
def ppoll(system: System, address: int, count: int, timeout: int) -> int:
    """ppoll"""
    if not timeout:
        return _poll(system, address, count, None)
    seconds, nanoseconds = struct.unpack("<qq", system.memory.read(timeout, 16))
    return _poll(system, address, count, seconds * 1_000_000_000 + nanoseconds)


def _events(task: Task, number: int, wanted: int) -> int:
    if number < 0:
        return 0
    descriptor = task.descriptors.get(number)
    if descriptor is None:
        return _POLLNVAL
    file = descriptor.file
    found = (_POLLIN if file.readable else 0) | (_POLLOUT if file.writable else 0)
    hung = 0
    if isinstance(file, PipeEnd):
        found &= _POLLOUT if file.writes else _POLLIN
        if file.writes and not file.pipe.readers:
            hung = _POLLERR
        elif not file.writes and not file.pipe.writers:
            hung = _POLLHUP
            found = _POLLIN if file.pipe.data else 0
    return found & wanted | hung


def _poll(system: System, address: int, count: int, timeout: int | None) -> int:
    if count > system.limits.files:
        raise CallFails("EINVAL")
    data = system.memory.read(address, count * _POLL.size)
    asked = [_POLL.unpack_from(data, place)[:2] for place in range(0, len(data), _POLL.size)]
    task = system.current
    found = [_events(task, number, wanted) for number, wanted in asked]
    if not any(found) and timeout != 0 and not system.timed_out():
        raise Blocked(
            lambda: any(_events(task, number, wanted) for number, wanted in asked),
            None if timeout is None else system.now + timeout,
        )
    rows = zip(asked, found, strict=True)
    system.memory.write(address, b"".join(_POLL.pack(number, wanted, seen) for (number, wanted), seen in rows))
    return sum(map(bool, found))


@call("select")
def select(system: System, count: int, reads: int, writes: int, others: int, timeout: int) -> int:
    """select"""
    if not timeout:
        return _select(system, count, (reads, writes, others), None)
    seconds, microseconds = struct.unpack("<qq", system.memory.read(timeout, 16))
    return _select(system, count, (reads, writes, others), seconds * 1_000_000_000 + microseconds * 1000)


@call("pselect6")
def pselect6(system: System, count: int, reads: int, writes: int, others: int, timeout: int) -> int:
    """pselect; the mask is not changed meanwhile"""
    if not timeout:
        return _select(system, count, (reads, writes, others), None)
    seconds, nanoseconds = struct.unpack("<qq", system.memory.read(timeout, 16))
    return _select(system, count, (reads, writes, others), seconds * 1_000_000_000 + nanoseconds)


def _select(system: System, count: int, sets: tuple[int, int, int], timeout: int | None) -> int:
    if count > system.limits.files:
        raise CallFails("EINVAL")
    task = system.current
    size = -(-count // 64) * 8
    wanted = [int.from_bytes(system.memory.read(at, size), "little") & (1 << count) - 1 if at else 0 for at in sets]
    for number in range(count):
        if any(bits >> number & 1 for bits in wanted):
            system.file(number)

    def found() -> list[int]:
        kinds = (_POLLIN | _POLLHUP | _POLLERR, _POLLOUT | _POLLERR, 0)
        return [
            sum(1 << n for n in range(count) if bits >> n & 1 and _events(task, n, kind) & kind)
            for bits, kind in zip(wanted, kinds, strict=True)
        ]

    ready = found()
    if not any(ready) and timeout != 0 and not system.timed_out():
        raise Blocked(lambda: any(found()), None if timeout is None else system.now + timeout)
    for at, bits in zip(sets, ready, strict=True):
        if at:
            system.memory.write(at, bits.to_bytes(size, "little"))
    return sum(bits.bit_count() for bits in ready)
