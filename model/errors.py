"""What the modelled kernel answers when a system call or an access fails."""

from __future__ import annotations

from enum import Enum
from typing import Final

NUMBERS: Final = {
    **dict(EPERM=1, ENOENT=2, ESRCH=3, EIO=5, ENXIO=6, EBADF=9, EAGAIN=11, ENOMEM=12, EACCES=13, EFAULT=14, EBUSY=16),
    **dict(EEXIST=17, ENODEV=19, ENOTDIR=20, EISDIR=21, EINVAL=22, ENOTTY=25, ERANGE=34, ENOSYS=38, EOPNOTSUPP=95),
}
"""Name to Linux's number (include/uapi/asm-generic/errno.h)."""


class Errno(Exception):
    """A system call fails.

    Parameters
    ----------
    name : str
        Such as EINVAL.
    why : str
        The rule that was broken, for who reads the message.

    Attributes
    ----------
    number : int
        Linux's number of the error.
    """

    def __init__(self, name: str, why: str = "") -> None:
        self.name = name
        self.number = NUMBERS[name]
        super().__init__(f"{name} ({self.number})" + (f": {why}" if why else ""))


class Signal(Enum):
    """How a fault ends that cannot be handled."""

    MAPERR = "maperr"
    ACCERR = "accerr"
    PKUERR = "pkuerr"
    BUS = "bus"
    KERNEL = "kernel"
    """SIGSEGV with SI_KERNEL: the address is not canonical (arch/x86/kernel/traps.c:exc_general_protection)."""


class FaultsForEver(Exception):
    """An access never ends: its fault is handled by doing nothing, and happens again."""


class SwapDamage(Exception):
    """The seed commit's mremap made an entry name an unused slot (rule A30): the fault ends as if out of memory."""
