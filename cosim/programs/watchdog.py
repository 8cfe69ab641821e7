"""Ends a program that does not come back by itself: at Ctrl-C, and when its time is over.

Unicorn hears neither while it runs translated code, and Python runs its handler of a signal only when Unicorn is back.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Final

__all__ = ["Watchdog"]

_AGAIN: Final = 0.05
_GRACE: Final = 0.5
"""Seconds after a signal in which Python may hear of it by itself, at the program's next system call or page."""


class Watchdog:
    """A context in which `abort` is called when the time is over, or a signal came.

    Parameters
    ----------
    abort : callable
        Called again and again until the context ends; from another thread.
    seconds : float
        0: without end.

    Attributes
    ----------
    late : bool
        The time is over.
    """

    def __init__(self, abort: Callable[[], None], seconds: float) -> None:
        self._abort = abort
        self._deadline = time.monotonic() + seconds if seconds else None
        self.late = False

    def __enter__(self) -> Watchdog:
        self._ends, self._end = os.pipe()
        self._wakes, wake = os.pipe()
        os.set_blocking(wake, False)
        self._wake = wake
        self._of_main = threading.current_thread() is threading.main_thread()
        self._before = signal.set_wakeup_fd(wake, warn_on_full_buffer=False) if self._of_main else -1
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._of_main:
            signal.set_wakeup_fd(self._before)
        os.write(self._end, b"x")
        self._thread.join()
        for handle in (self._ends, self._end, self._wakes, self._wake):
            os.close(handle)

    def _watch(self) -> None:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        ready, _, _ = select.select([self._ends, self._wakes], [], [], left)
        if self._ends in ready:
            return
        self.late = not ready
        if ready and select.select([self._ends], [], [], _GRACE)[0]:
            return
        while not select.select([self._ends], [], [], _AGAIN)[0]:
            self._abort()
