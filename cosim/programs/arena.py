"""Physical memory that three share: the model's tables and data, the gateware, and the processor."""

from __future__ import annotations

import ctypes
import mmap
from typing import Final

import numpy as np

from ptewalk.cosim.base.errors import ToolError
from ptewalk.model.memory import FixedMemory
from ptewalk.model.x86 import PAGE_BYTES, TABLE_ENTRIES

__all__ = ["LEAST", "Arena"]

LEAST: Final = 16 << 20
"""Bytes below which no program runs."""


class Arena:
    """One anonymous mapping of the host, which is never moved: `size` bytes, zero, taken as they are touched.

    Attributes
    ----------
    memory : FixedMemory
        The mapping as frames.
    address : int
        Where it lies in this process.
    code : set of int
        Frames that were executed: the processor may hold translated code of them.
    code_is_stale : bool
        One of them was freed, or written to by the kernel, since the processor last looked.
    """

    def __init__(self, size: int) -> None:
        if size < LEAST or size % PAGE_BYTES:
            raise ToolError(f"memory of {size} bytes: give a multiple of {PAGE_BYTES}, and at least {LEAST >> 20}M")
        try:
            self._mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OSError as error:
            raise ToolError(f"memory of {size} bytes: {error.strerror}; give less with --memory") from error
        self.size = size
        self.code: set[int] = set()
        self.code_is_stale = False
        words = np.frombuffer(self._mapping, np.uint64).reshape(-1, TABLE_ENTRIES)
        self.memory = FixedMemory(words, self._freed)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._mapping))

    def wrote(self, frame: int) -> None:
        """The kernel wrote to a frame, past the processor."""
        if frame in self.code:
            self.code_is_stale = True

    def _freed(self, frame: int) -> None:
        self.wrote(frame)
        self.code.discard(frame)
