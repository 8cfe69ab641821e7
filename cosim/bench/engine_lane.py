"""The compiled lane of a table engine, from Python: commands in, completions and reports out."""

from __future__ import annotations

import ctypes
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.headers import stream_accessors, structures, wide_accessors
from ptewalk.cosim.bench.records import Records
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import PAGE_SHIFT
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.engine.table_engine import CommandLayout

__all__ = ["REPORT_BASE", "EngineConditions", "EngineLane", "EngineRun", "RuleOfEngineBroken", "engine_lane_files"]

_SOURCE: Final = Path(__file__).with_name("engine.cpp")
_WORDS: Final = Path(__file__).with_name("words.h")
REPORT_BASE: Final = 1 << 39
"""Where the buffer of reports seems to be: no machine has tables there."""


class RuleOfEngineBroken(Exception):
    """The engine broke a rule of its ports."""


class EngineStatus(IntEnum):
    """How a run ended."""

    COMPLETE = 0
    LATE = 1
    UNSTABLE = 2
    TWO_IN_FLIGHT = 3
    UNALIGNED = 4
    PARTED = 5
    OTHER_VALUE = 6
    NOTHING_CHANGES = 7
    OUTSIDE = 8
    EARLY = 9
    NOT_TAKEN = 10
    TAKEN_EARLY = 11
    TOO_MANY = 12


_RULES: Final = {
    EngineStatus.LATE: "no progress for 20000 cycles",
    EngineStatus.UNSTABLE: "a stream changed before it was taken",
    EngineStatus.TWO_IN_FLIGHT: "a tag has two accesses in flight",
    EngineStatus.UNALIGNED: "an access is not aligned",
    EngineStatus.PARTED: "a beat of another, or too few or too many, inside a transfer",
    EngineStatus.OTHER_VALUE: "a linked swap is from another value than was read",
    EngineStatus.NOTHING_CHANGES: "a swap that changes nothing",
    EngineStatus.OUTSIDE: "a report is written outside its buffer",
    EngineStatus.EARLY: "a command is complete while accesses are in flight",
    EngineStatus.NOT_TAKEN: "a completion without its command being taken",
    EngineStatus.TAKEN_EARLY: "a command is taken with a completion after which another follows",
    EngineStatus.TOO_MANY: "more entries without a home than were in flight",
}


@dataclass(frozen=True)
class EngineConditions:
    """How memory behaves.

    Attributes
    ----------
    latency, latency_spread : int
        Cycles from an access to its answer; with a spread answers come in any order.
    stalls : float
        How likely a stream is held up in a cycle.
    refused : range
        Addresses: the bus refuses what is swapped there, and writes nothing.
    """

    latency: int = 1
    latency_spread: int = 0
    stalls: float = 0.0
    refused: range = range(0)


def _numbers(width: int) -> int:
    """How many 64-bit words a port of this width takes."""
    return -(-width // 64)


def _commands(design: DesignDescription) -> np.dtype[np.void]:
    found = design.stream("commands")
    assert found is not None
    fields = [(name, np.uint64, (_numbers(design.width(port)),)) for name, port in found.fields.items()]
    return np.dtype(fields, align=True)


def _completions(design: DesignDescription) -> np.dtype[np.void]:
    found = design.stream("completions")
    assert found is not None
    return np.dtype([(name, np.uint64) for name in found.fields], align=True)


_FURTHER: Final = np.dtype([(name, np.uint64) for name in ("command", "page", "entry")], align=True)
_COUNTS: Final = ("cycles", "reads", "swaps", "failed_swaps", "writes", "changed_words")
_BATCH: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("commands", "completions", "command_count")),
        *((name, np.uint64) for name in ("further", "further_room", "further_count")),
        *((name, np.uint64) for name in ("keys", "rows", "words", "key_bits", "frame_limit", "absent_is_zero")),
        *((name, np.uint64) for name in ("report", "report_base", "report_bytes", "line_bytes")),
        *((name, np.uint64) for name in ("seed", "latency", "latency_spread", "stalls")),
        *((name, np.uint64) for name in ("refused_start", "refused_end")),
        *((name, np.uint64) for name in _COUNTS),
    ],
    align=True,
)


def engine_lane_files(design: DesignDescription) -> Mapping[str, str]:
    """File name to text of all that is compiled into a model of `design`, 64 bits wide, for this lane."""
    if design.parameters["data_bits"] != 64:
        raise ValueError(f"the compiled lane drives engines of 64 bits, not {design.parameters['data_bits']}")
    values = ", ".join(f"{one.name} = {one.value}" for one in EngineStatus)
    kinds = {"EngineCommand": _commands(design), "EngineCompletion": _completions(design), "EngineBatch": _BATCH}
    kinds["EngineFurther"] = _FURTHER
    records = ["#pragma once", "#include <cstddef>", "#include <cstdint>", *structures(kinds)]
    records += [f"namespace EngineStatus {{ enum : uint32_t {{ {values} }}; }}", ""]
    pins = ["#pragma once", "#include <cstring>", "#include <type_traits>", "namespace pins {"]
    pins += wide_accessors(design, "commands")
    for role in ("completions", "reads", "data", "swaps", "swapped", "writes", "written"):
        pins += stream_accessors(design, role, design.stream(role))
    return {
        "lane.cpp": _SOURCE.read_text(),
        "clock.h": _WORDS.with_name("clock.h").read_text(),
        "words.h": _WORDS.read_text(),
        "engine_records.h": "\n".join(records),
        "engine_pins.h": "\n".join([*pins, "}", ""]),
        "design.json": json.dumps(design.as_json()),
    }


@dataclass(frozen=True)
class EngineRun:
    """What commands gave.

    Attributes
    ----------
    completions : list of dict of str to int
        Of each command the last one, by the names of `CompletionLayout`.
    further : list of (int, int, int)
        What came before: the command's number, a page, and the entry of it that has no home.
    report : uint64 array
        The buffer.
    counts : dict of str to int
        Cycles, and accesses that memory saw: reads, swaps, failed_swaps, writes, changed_words.
    """

    completions: list[dict[str, int]]
    further: list[tuple[int, int, int]]
    report: NDArray[np.uint64]
    counts: dict[str, int]


class EngineLane:
    """A Verilator model of a `TableEngine` in this process, and the clock loop round it.

    Parameters
    ----------
    library : Path
        Built of `engine_lane_files`.
    """

    def __init__(self, library: Path) -> None:
        self.design = DesignDescription.from_json(json.loads(library.with_name("design.json").read_text()))
        self._layout = CommandLayout(self.design.parameters["physical_bits"], lists=self.design.parameters["lists"])
        self._commands, self._completions = _commands(self.design), _completions(self.design)
        # In the process of a simulator that Verilator made, names such as Vtop are the simulator's: its own come first.
        self._library = ctypes.CDLL(str(library), mode=os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))
        self._library.ptewalk_engine_open.restype = ctypes.c_void_p
        self._library.ptewalk_engine_run.restype = ctypes.c_int64
        self._library.ptewalk_engine_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._library.ptewalk_engine_close.argtypes = [ctypes.c_void_p]
        if self._library.ptewalk_engine_size() != _BATCH.itemsize:
            raise RuntimeError("the lane was built of other records than these")
        self._model = ctypes.c_void_p(self._library.ptewalk_engine_open())

    def close(self) -> None:
        """Free the model; nothing can be run afterwards."""
        self._library.ptewalk_engine_close(self._model)

    @property
    def line_bytes(self) -> int:
        """Of a line of the port."""
        return int(self.design.parameters["line_bytes"])

    def record(self, fields: Mapping[str, Any]) -> Records:
        """A command as a record; `fields` by the names of `CommandLayout`, 0 where one is missing."""
        row = np.zeros(1, self._commands)
        for name, field in self._layout:
            value = fields.get(name, 0)
            bits = field.shape.const(value).as_bits() if isinstance(value, Mapping) else int(value)
            numbers = row[0][name]
            numbers[:] = [bits >> 64 * number & (1 << 64) - 1 for number in range(len(numbers))]
        return row

    def run(
        self,
        commands: Sequence[Mapping[str, Any]],
        memory: SparseMemory,
        *,
        report_words: int = 0,
        conditions: EngineConditions = EngineConditions(),  # noqa: B008 - frozen
        seed: int = 0,
    ) -> EngineRun:
        """Commands, one after the other, from a reset.

        Parameters
        ----------
        commands : sequence of mapping
            By the names of `CommandLayout`; reports go to `REPORT_BASE` and beyond.
        memory : SparseMemory
            The tables, changed in place.
        report_words : int
            Size of the buffer.
        conditions : EngineConditions
        seed : int
            Of what they leave to chance.

        Raises
        ------
        RuleOfEngineBroken
        """
        asked = np.concatenate([self.record(command) for command in commands])
        told = np.zeros(len(commands), self._completions)
        report = np.zeros(report_words, np.uint64)
        # All entries of the lines that may be in flight.
        further = np.zeros(len(commands) * self.design.parameters["lines"] * self.line_bytes // 8, _FURTHER)
        keys, rows, words = memory.export()
        batch = np.zeros(1, _BATCH)
        one = batch[0]
        arrays = {"commands": asked, "completions": told, "keys": keys, "rows": rows, "words": words, "report": report}
        arrays["further"] = further
        for name, array in arrays.items():
            one[name] = array.ctypes.data
        one["command_count"] = len(commands)
        one["key_bits"] = int(math.log2(len(keys)))
        one["frame_limit"] = 1 << memory.physical_bits - PAGE_SHIFT
        one["absent_is_zero"] = not memory.strict
        one["report_base"], one["report_bytes"], one["line_bytes"] = REPORT_BASE, 8 * report_words, self.line_bytes
        one["seed"], one["latency"], one["latency_spread"] = seed, conditions.latency, conditions.latency_spread
        one["stalls"], one["further_room"] = int(conditions.stalls * 2**32), len(further)
        one["refused_start"], one["refused_end"] = conditions.refused.start, conditions.refused.stop
        status = EngineStatus(self._library.ptewalk_engine_run(self._model, batch.ctypes.data))
        if status != EngineStatus.COMPLETE:
            raise RuleOfEngineBroken(f"engine, cycle {int(one['cycles'])}: {_RULES[status]}")
        names = told.dtype.names or ()
        completions = [dict(zip(names, map(int, row), strict=True)) for row in told.tolist()]
        before = [(int(number), int(page), int(entry)) for number, page, entry in further[: one["further_count"]]]
        return EngineRun(completions, before, report, {name: int(one[name]) for name in _COUNTS})
