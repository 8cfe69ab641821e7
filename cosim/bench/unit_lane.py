"""The compiled lane of a unit that is used by its registers: a bus for the driver, and memory behind the tables."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.headers import structures
from ptewalk.cosim.bench.records import Records
from ptewalk.cosim.driver.steps import DriverError
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import PAGE_SHIFT
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.registers.map import BY_NAME

__all__ = ["ROOM_BASE", "UnitLane", "unit_lane_files"]

_FOLDER: Final = Path(__file__).parent
_HEADERS: Final = ("axi.h", "caching_axi.h", "clock.h", "words.h")
PAUSE: Final = 4
"""Cycles of the first wait after a write; each further one is twice as long as the one before."""
_LONGEST: Final = 256
_SHARE: Final = 2**32
_LINE_WORDS: Final = 16
_COMMAND: Final = BY_NAME["COMMAND"].offset
_MEMORY: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("keys", "rows", "words", "key_bits", "frame_limit", "absent_is_zero")),
        *((name, np.uint64) for name in ("seed", "stalls", "latency", "latency_spread")),
        *((name, np.uint64) for name in ("room", "room_base", "room_words")),
    ],
    align=True,
)
_EVENT: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("address", "old", "new")),
        *((name, np.uint8) for name in ("writes", "done", "error")),
    ],
    align=True,
)
"""What memory was asked for: a word that was read, `old`, or a write of `new` where `old` was, `done` or not.

A burst is an event for each of its words; of a write, for those with a strobe.
"""
ROOM_BASE: Final = 1 << 39
"""Physical address of the room for reports: beyond what any memory here holds."""
_BROKEN: Final = {-1: "an offer on the tables' bus changed before it was taken", -2: "no answer for 5000 cycles"}


def unit_lane_files(design: DesignDescription) -> Mapping[str, str]:
    """File name to text of all that is compiled into a model of `design`, a `Unit` without a bridge, for this lane."""
    bits = design.width("m_axi_rdata")
    lines = ["#pragma once", "#include <cstddef>", "#include <cstdint>", f"#define AXI_BITS {bits}"]
    lines += structures({"UnitMemory": _MEMORY, "UnitEvent": _EVENT})
    texts = {name: (_FOLDER / name).read_text() for name in _HEADERS}
    return {**texts, "lane.cpp": (_FOLDER / "unit.cpp").read_text(), "unit_records.h": "\n".join([*lines, ""])}


class UnitLane:
    """A model of a unit in this process, as a `driver.steps.Bus`. Time passes in accesses and waits only.

    Parameters
    ----------
    library : Path
        Built of `unit_lane_files`.

    Attributes
    ----------
    accesses : int
        Reads and writes of registers so far.
    commands : int
        Writes to COMMAND that were taken since the reset.
    """

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        for name in ("open", "events"):
            getattr(self._library, f"ptewalk_unit_{name}").restype = ctypes.c_void_p
        for name in ("size", "cycles"):
            getattr(self._library, f"ptewalk_unit_{name}").restype = ctypes.c_uint64
        handle, number = ctypes.c_void_p, ctypes.c_uint32
        arguments: dict[str, list[Any]] = {"close": [], "reset": [], "cycles": [], "memory": [handle], "wait": [number]}
        arguments |= {"read": [number, handle], "write": [number, number], "events": [handle]}
        for name, given in arguments.items():
            getattr(self._library, f"ptewalk_unit_{name}").argtypes = [handle, *given]
        if self._library.ptewalk_unit_size() != _MEMORY.itemsize + _EVENT.itemsize:
            raise RuntimeError("the lane was built of other records than these")
        self._lane = ctypes.c_void_p(self._library.ptewalk_unit_open())
        self._read, self._write = self._library.ptewalk_unit_read, self._library.ptewalk_unit_write
        self._value = ctypes.c_uint32()
        self._at = ctypes.addressof(self._value)
        self._count = ctypes.c_uint64()
        self._kept: tuple[Any, ...] = ()
        self._room = np.zeros(0, np.uint64)
        self.accesses = self.commands = 0
        self._pause = PAUSE

    def close(self) -> None:
        """Free the model; nothing can be used afterwards."""
        self._library.ptewalk_unit_close(self._lane)

    def reset(self, memory: SparseMemory) -> None:
        """Reset the unit, with this memory behind it."""
        self._library.ptewalk_unit_reset(self._lane)
        self.commands = 0
        self.remember(memory)

    def room(self, words: int) -> NDArray[np.uint64]:
        """Room for a report of the table engine, at `ROOM_BASE`, of words that are 0: from the next `remember` on.

        Reports are written by lines: there is room to the end of the last one.
        """
        self._room = np.zeros(-(-words // _LINE_WORDS) * _LINE_WORDS, np.uint64)
        return self._room[:words]

    def remember(
        self, memory: SparseMemory, *, seed: int = 0, stalls: float = 0.0, latency: int = 1, latency_spread: int = 0
    ) -> None:
        """The memory, in which software may have changed anything and now waits, and how it answers from now on.

        Parameters
        ----------
        memory : SparseMemory
            Changed in place by the unit, until the next call.
        seed : int
            Of what is left to chance, below 2**64.
        stalls : float
            How likely a channel is held up in a cycle, of the tables' bus and of the registers' answers.
        latency, latency_spread : int
            Cycles of memory, at least, and how many more at most.
        """
        arrays = memory.export()
        record = np.zeros(1, _MEMORY)
        one: Any = record[0]
        parts: tuple[Any, ...] = arrays
        for name, array in zip(("keys", "rows", "words"), parts, strict=True):
            one[name] = array.ctypes.data
        one["key_bits"] = int(math.log2(len(arrays[0])))
        one["frame_limit"] = 1 << memory.physical_bits - PAGE_SHIFT
        one["absent_is_zero"] = not memory.strict
        one["seed"], one["stalls"] = seed, int(stalls * _SHARE)
        one["latency"], one["latency_spread"] = latency, latency_spread
        one["room"], one["room_base"], one["room_words"] = self._room.ctypes.data, ROOM_BASE, len(self._room)
        self._library.ptewalk_unit_memory(self._lane, record.ctypes.data)
        self._kept = (*arrays, self._room)

    @property
    def cycles(self) -> int:
        """Cycles since the reset."""
        return int(self._library.ptewalk_unit_cycles(self._lane))

    def events(self) -> Records:
        """What memory was asked for since the last call."""
        at = self._library.ptewalk_unit_events(self._lane, ctypes.addressof(self._count))
        found: Records = np.frombuffer(ctypes.string_at(at, self._count.value * _EVENT.itemsize), _EVENT)
        return found

    def read(self, offset: int) -> int:
        """As `driver.steps.Bus`; `DriverError` when the unit refuses, or breaks a rule of its ports."""
        self.accesses += 1
        response = self._read(self._lane, offset, self._at)
        if response:
            _refused("read", offset, response)
        return self._value.value

    def write(self, offset: int, value: int) -> None:
        """As `read`."""
        self.accesses += 1
        self._pause = PAUSE
        response = self._write(self._lane, offset, value)
        if response:
            _refused("write", offset, response)
        self.commands += offset == _COMMAND

    def wait(self) -> None:
        """As `driver.steps.Bus`."""
        response = self._library.ptewalk_unit_wait(self._lane, self._pause)
        self._pause = min(2 * self._pause, _LONGEST)
        if response:
            raise DriverError(f"while it waits: {_BROKEN.get(response, f'response {response}')}")


def _refused(what: str, offset: int, response: int) -> None:
    raise DriverError(f"{what} of register {offset:#05x}: {_BROKEN.get(response, f'response {response}')}")
