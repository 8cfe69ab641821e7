"""How a system call of a program ends that does not simply return a number."""

from __future__ import annotations

import errno
from collections.abc import Callable

from ptewalk.cosim.base.errors import ToolError

__all__ = ["Blocked", "CallFails", "MissingCall"]


class CallFails(Exception):
    """The system call fails.

    Parameters
    ----------
    name : str
        Such as ENOENT.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.number: int = getattr(errno, name)

    @staticmethod
    def of(error: OSError) -> CallFails:
        """The same error as the host's."""
        return CallFails(errno.errorcode.get(error.errno or errno.EIO, "EIO"))


class Blocked(Exception):
    """The system call has to wait; it is made again when `ready` says so.

    Parameters
    ----------
    ready : callable
        May it go on?
    deadline : int or None
        Virtual time, in nanoseconds, at which it goes on in any case.
    """

    def __init__(self, ready: Callable[[], bool], deadline: int | None = None) -> None:
        super().__init__()
        self.ready = ready
        self.deadline = deadline


class MissingCall(ToolError):
    """The program made a system call, or asked for a part of one, that is not here."""
