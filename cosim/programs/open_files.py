"""What a descriptor of a program stands for."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import BinaryIO, Final, TypeVar

from ptewalk.cosim.programs.errors import Blocked, CallFails
from ptewalk.cosim.programs.page_cache import Inode, PageCache
from ptewalk.cosim.programs.tree import Tree
from ptewalk.model.errors import Errno
from ptewalk.model.proc.files import ClearRefs, ProcFile
from ptewalk.model.state.machine import Process

__all__ = ["Descriptor", "Folder", "HostFile", "Kernels", "Null", "OpenFile", "Pipe", "PipeEnd", "Stream", "Text"]

_T = TypeVar("_T")
_PIPE_BYTES: Final = 65536
_ATOMIC: Final = 4096


class OpenFile:
    """An open file, which descriptors share (struct file).

    Attributes
    ----------
    flags : int
        Of open.
    users : int
        Descriptors that stand for it.
    """

    mode = stat.S_IFREG | 0o644
    size = 0
    device = 0

    def __init__(self, flags: int = 0) -> None:
        self.flags = flags
        self.users = 0

    def read(self, count: int) -> bytes:
        """At most `count` bytes."""
        raise CallFails("EINVAL")

    def write(self, data: bytes) -> int:
        """Bytes taken."""
        raise CallFails("EINVAL")

    def pread(self, count: int, offset: int) -> bytes:
        """As `read`, at a place."""
        raise CallFails("ESPIPE")

    def pwrite(self, data: bytes, offset: int) -> int:
        """As `write`, at a place."""
        raise CallFails("ESPIPE")

    def seek(self, offset: int, whence: int) -> int:
        """lseek"""
        raise CallFails("ESPIPE")

    def truncate(self, size: int) -> None:
        """ftruncate"""
        raise CallFails("EINVAL")

    @property
    def readable(self) -> bool:
        """Would `read` return at once?"""
        return True

    @property
    def writable(self) -> bool:
        """Would `write` return at once?"""
        return True

    def close(self) -> None:
        """The last descriptor is gone."""


@dataclass
class Descriptor:
    """A number of a process, and what it stands for."""

    file: OpenFile
    close_on_exec: bool = False

    def __post_init__(self) -> None:
        self.file.users += 1

    def drop(self) -> None:
        """It is closed."""
        self.file.users -= 1
        if not self.file.users:
            self.file.close()


class HostFile(OpenFile):
    """A regular file of the root or of the scratch folder."""

    def __init__(self, inode: Inode, flags: int, path: bytes, cache: PageCache, tree: Tree) -> None:
        super().__init__(flags)
        self.inode, self.path = inode, path
        self._cache, self._tree = cache, tree
        self.position = 0
        inode.users += 1

    @property
    def size(self) -> int:  # type: ignore[override]
        """Bytes."""
        return self.inode.size

    def stat(self) -> os.stat_result:
        """The host's."""
        return os.fstat(self.inode.handle)

    def identity(self) -> tuple[int, int]:
        """Device and inode number that stat tells."""
        return self._tree.nodes.identity(self.stat(), written=self.inode.writable)

    def read(self, count: int) -> bytes:
        """As `OpenFile.read`."""
        data = self.pread(count, self.position)
        self.position += len(data)
        return data

    def pread(self, count: int, offset: int) -> bytes:
        """As `OpenFile.pread`."""
        return self._cache.read(self.inode, offset, count)

    def write(self, data: bytes) -> int:
        """As `OpenFile.write`."""
        if self.flags & os.O_APPEND:
            self.position = self.size
        taken = self.pwrite(data, self.position)
        self.position += taken
        return taken

    def pwrite(self, data: bytes, offset: int) -> int:
        """As `OpenFile.pwrite`."""
        self._tree.spend(max(0, offset + len(data) - self.size))
        self._cache.write(self.inode, offset, data)
        self._tree.nodes.touch(self.inode.handle)
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        """As `OpenFile.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: self.size}.get(whence)
        if base is None or base + offset < 0:
            raise CallFails("EINVAL")
        self.position = base + offset
        return self.position

    def truncate(self, size: int) -> None:
        """As `OpenFile.truncate`."""
        self._tree.spend(max(0, size - self.size))
        self._cache.truncate(self.inode, size)
        self._tree.nodes.touch(self.inode.handle)

    def close(self) -> None:
        """As `OpenFile.close`."""
        self.inode.users -= 1
        self._cache.put(self.inode)


class Folder(OpenFile):
    """A folder: what it held when it was opened."""

    mode = stat.S_IFDIR | 0o755

    def __init__(self, path: bytes, names: Callable[[], list[tuple[bytes, int, int]]], flags: int) -> None:
        super().__init__(flags)
        self.path = path
        self._list = names
        self.entries: list[tuple[bytes, int, int]] | None = None
        self.position = 0

    def take(self) -> tuple[bytes, int, int] | None:
        """The next (name, number, kind); None at the end."""
        if self.entries is None:
            self.entries = self._list()
        if self.position == len(self.entries):
            return None
        self.position += 1
        return self.entries[self.position - 1]

    def read(self, count: int) -> bytes:
        """As `OpenFile.read`."""
        raise CallFails("EISDIR")

    def seek(self, offset: int, whence: int) -> int:
        """As `OpenFile.seek`: to the start, or to where a name was."""
        if whence != os.SEEK_SET:
            raise CallFails("EINVAL")
        self.position, self.entries = offset, None if not offset else self.entries
        return offset


class Null(OpenFile):
    """/dev/null, /dev/zero, and with `chance` /dev/urandom."""

    mode = stat.S_IFCHR | 0o666

    def __init__(self, flags: int, device: int, *, zeros: bool = False, chance: random.Random | None = None) -> None:
        super().__init__(flags)
        self.device = device
        self._zeros, self._chance = zeros, chance

    def read(self, count: int) -> bytes:
        """As `OpenFile.read`."""
        if self._chance is not None:
            return self._chance.randbytes(count)
        return bytes(count) if self._zeros else b""

    def write(self, data: bytes) -> int:
        """As `OpenFile.write`."""
        return len(data)

    def seek(self, offset: int, whence: int) -> int:
        """As `OpenFile.seek`."""
        return 0


class Stream(OpenFile):
    """Standard input, output or error: the host's."""

    mode = stat.S_IFIFO | 0o600

    def __init__(self, number: int, source: BinaryIO | None, sink: BinaryIO | None) -> None:
        super().__init__(os.O_RDONLY if sink is None else os.O_WRONLY)
        self.number, self._source, self._sink = number, source, sink
        self.passed = 0

    def read(self, count: int) -> bytes:
        """As `OpenFile.read`."""
        if self._source is None:
            raise CallFails("EBADF")
        data = self._source.read1(count) if hasattr(self._source, "read1") else self._source.read(count)
        self.passed += len(data)
        return bytes(data)

    def write(self, data: bytes) -> int:
        """As `OpenFile.write`."""
        if self._sink is None:
            raise CallFails("EBADF")
        try:
            self._sink.write(data)
            self._sink.flush()
        except BrokenPipeError as error:
            raise CallFails("EPIPE") from error
        self.passed += len(data)
        return len(data)

    def skip(self, count: int) -> None:
        """The first `count` bytes passed in an earlier run."""
        while self._source is not None and self.passed < count and self.read(min(1 << 16, count - self.passed)):
            pass
        self.passed = count


class Text(OpenFile):
    """What the kernel tells in a file of /proc or /sys."""

    mode = stat.S_IFREG | 0o444

    def __init__(self, flags: int, data: bytes) -> None:
        super().__init__(flags)
        self.data = data
        self.position = 0

    def read(self, count: int) -> bytes:
        """As `OpenFile.read`."""
        data = self.pread(count, self.position)
        self.position += len(data)
        return data

    def pread(self, count: int, offset: int) -> bytes:
        """As `OpenFile.pread`."""
        return self.data[offset : offset + count]

    def seek(self, offset: int, whence: int) -> int:
        """As `OpenFile.seek`."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.position}.get(whence)
        if base is None or base + offset < 0:
            raise CallFails("EINVAL")
        self.position = base + offset
        return self.position


class Kernels(OpenFile):
    """A file of /proc that the model serves."""

    def __init__(self, flags: int, path: str, file: ProcFile, mode: int) -> None:
        super().__init__(flags)
        self.path = path
        self._file = file
        self.mode = stat.S_IFREG | mode

    def take_over(self, other: Kernels) -> None:
        """Stand for what `other` stands for, at this one's position."""
        position = self._file.seek(0, os.SEEK_CUR)
        self._file, self.mode = other._file, other.mode
        self._file.seek(position, os.SEEK_SET)

    @property
    def clears(self) -> Process | None:
        """The process whose soft-dirty bits a write to it may clear."""
        return self._file.process if isinstance(self._file, ClearRefs) else None

    def read(self, count: int) -> bytes:
        """As `OpenFile.read`."""
        return self._asked(lambda: self._file.read(count))

    def pread(self, count: int, offset: int) -> bytes:
        """As `OpenFile.pread`."""
        return self._asked(lambda: self._file.pread(count, offset))

    def write(self, data: bytes) -> int:
        """As `OpenFile.write`."""
        return self._asked(lambda: self._file.write(data))

    def pwrite(self, data: bytes, offset: int) -> int:
        """As `OpenFile.pwrite`."""
        return self._asked(lambda: self._file.pwrite(data, offset))

    def seek(self, offset: int, whence: int) -> int:
        """As `OpenFile.seek`."""
        return self._asked(lambda: self._file.seek(offset, whence))

    @staticmethod
    def _asked(ask: Callable[[], _T]) -> _T:
        try:
            return ask()
        except Errno as error:
            raise CallFails(error.name) from error


@dataclass(eq=False)
class Pipe:
    """A pipe: what is in it, and how many open files read and write it."""

    data: bytearray = field(default_factory=bytearray)
    readers: int = 0
    writers: int = 0


class PipeEnd(OpenFile):
    """One end of a pipe."""

    mode = stat.S_IFIFO | 0o600

    def __init__(self, pipe: Pipe, *, writes: bool, flags: int = 0) -> None:
        super().__init__(flags | (os.O_WRONLY if writes else os.O_RDONLY))
        self.pipe, self.writes = pipe, writes
        pipe.writers += writes
        pipe.readers += not writes

    @property
    def readable(self) -> bool:
        """As `OpenFile.readable`."""
        return bool(self.pipe.data) or not self.pipe.writers

    @property
    def writable(self) -> bool:
        """As `OpenFile.writable`."""
        return len(self.pipe.data) <= _PIPE_BYTES - _ATOMIC or not self.pipe.readers

    def read(self, count: int) -> bytes:
        """As `OpenFile.read`."""
        if self.writes:
            raise CallFails("EBADF")
        if not self.readable and count:
            if self.flags & os.O_NONBLOCK:
                raise CallFails("EAGAIN")
            raise Blocked(lambda: self.readable)
        data = bytes(self.pipe.data[:count])
        del self.pipe.data[:count]
        return data

    def write(self, data: bytes) -> int:
        """As `OpenFile.write`."""
        if not self.writes:
            raise CallFails("EBADF")
        if not self.pipe.readers:
            raise CallFails("EPIPE")
        room = _PIPE_BYTES - len(self.pipe.data)
        if room < min(len(data), _ATOMIC):
            if self.flags & os.O_NONBLOCK:
                raise CallFails("EAGAIN")
            raise Blocked(lambda: not self.pipe.readers or _PIPE_BYTES - len(self.pipe.data) >= min(len(data), _ATOMIC))
        self.pipe.data += data[:room]
        return min(room, len(data))

    def close(self) -> None:
        """As `OpenFile.close`."""
        self.pipe.writers -= self.writes
        self.pipe.readers -= not self.writes
