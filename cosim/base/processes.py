"""Child processes that do not outlive who began them."""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Final

__all__ = ["told_of_parents_end"]

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None
"""Loaded once: nothing is loaded between fork and exec."""


def told_of_parents_end(by: signal.Signals) -> bool:
    """Have this process get a signal when the process that began it has ended, however it did.

    Of Linux alone (PR_SET_PDEATHSIG of prctl(2)): False elsewhere, where nothing is done.
    """
    if _LIBC is None:
        return False
    _LIBC.prctl(_PR_SET_PDEATHSIG, by)
    return True
