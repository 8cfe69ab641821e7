"""What the modelled kernel answers when a system call or an access fails."""

from __future__ import annotations

from enum import Enum


class Errno(Exception):
    """A system call fails with the error `name`, such as EINVAL."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Signal(Enum):
    """How a fault ends that cannot be handled."""

    MAPERR = "maperr"
    ACCERR = "accerr"
    PKUERR = "pkuerr"
    BUS = "bus"


class SwapDamage(Exception):
    """The seed commit's mremap made an entry name an unused slot (rule A30): the fault ends as if out of memory."""
