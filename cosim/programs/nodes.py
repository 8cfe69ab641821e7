"""Numbers and times of the files that a program wrote: the run's own, so that they are the same in each run of it and
after a restore, whatever the host gives its files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

__all__ = ["Nodes"]

_DEVICE: Final = os.makedev(0, 0xFFFFE)
"""No host's: a file of the scratch folder is none of the root, though both may lie on one disk."""


class Nodes:
    """The inode numbers of the scratch folder, in the order in which its files were made.

    Attributes
    ----------
    clock : callable () -> int
        Virtual time, nanoseconds, that a file has when it is made or written.
    last : int
        The last number that was given.
    """

    def __init__(self) -> None:
        self.clock: Callable[[], int] = lambda: 0
        self.last = 0
        self._numbers: dict[tuple[int, int], int] = {}

    def made(self, host: bytes) -> None:
        """Something new lies there: the host may have given it the number of what was removed before."""
        self.last += 1
        self.keep(os.lstat(host), self.last)
        self.touch(host)

    def keep(self, found: os.stat_result, number: int) -> None:
        """What a restored run knew as `number`."""
        self._numbers[found.st_dev, found.st_ino] = number

    def number(self, found: os.stat_result) -> int:
        """Of what lies, or lay, in the scratch folder."""
        return self._numbers[found.st_dev, found.st_ino]

    def identity(self, found: os.stat_result, *, written: bool) -> tuple[int, int]:
        """Device and inode number that stat tells."""
        return (_DEVICE, self.number(found)) if written else (found.st_dev, found.st_ino)

    def touch(self, host: bytes | int, time: int | None = None) -> None:
        """A path or descriptor was written: at virtual time `time`, by default now."""
        at = self.clock() if time is None else time
        os.utime(host, ns=(at, at), follow_symlinks=isinstance(host, int))
