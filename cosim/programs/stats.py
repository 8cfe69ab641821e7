"""What stat tells: the host's for its files, made up for the rest."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from ptewalk.cosim.programs.open_files import HostFile, OpenFile

__all__ = ["Stat"]

_STAT: Final = struct.Struct("<QQQIIIIQqqqQQQQQQ")
_STATX: Final = struct.Struct("<IIQIIIHHQQQQ")
_STATX_TIME: Final = struct.Struct("<qII")
_BASIC_STATS: Final = 0x7FF
_BLOCK: Final = 4096


@dataclass(frozen=True)
class Stat:
    """One file's: what it is, how long, its number, links, device, and when it was changed (nanoseconds)."""

    mode: int
    size: int = 0
    inode: int = 1
    links: int = 1
    device: int = 0
    changed: int = 0
    user: int = 0
    special: int = 0

    @staticmethod
    def of_host(found: os.stat_result, identity: tuple[int, int]) -> Stat:
        """The host's, but for device and inode number (`Nodes.identity`)."""
        device, number = identity
        return Stat(found.st_mode, found.st_size, number, found.st_nlink, device, found.st_mtime_ns, found.st_uid)

    @staticmethod
    def of_file(file: OpenFile) -> Stat:
        """Of an open file."""
        if isinstance(file, HostFile):
            return Stat.of_host(file.stat(), file.identity())
        return Stat(file.mode, file.size, special=file.device)

    def pack(self) -> bytes:
        """struct stat"""
        times = divmod(self.changed, 10**9) * 3
        blocks = -(-self.size // 512)
        return _STAT.pack(
            *(self.device, self.inode, self.links, self.mode, self.user, self.user, 0, self.special),
            *(self.size, _BLOCK, blocks, *times),
        ).ljust(144, b"\0")

    def pack_x(self) -> bytes:
        """struct statx"""
        blocks = -(-self.size // 512)
        seconds, nanoseconds = divmod(self.changed, 10**9)
        head = _STATX.pack(
            *(_BASIC_STATS, _BLOCK, 0, self.links, self.user, self.user, self.mode & 0xFFFF, 0),
            *(self.inode, self.size, blocks, 0),
        )
        time = _STATX_TIME.pack(seconds, nanoseconds, 0)
        return (head + time + _STATX_TIME.pack(0, 0, 0) + time + time).ljust(256, b"\0")
