"""The compiled lane of an MMU with a table engine, from Python: a story in, a log of what happened out."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.headers import log_accessors, stream_accessors, structures, wide_accessors
from ptewalk.cosim.bench.records import Records
from ptewalk.model.linux import NotPresentBit, SoftBit
from ptewalk.model.x86 import Access, EntryBit
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.engine.beside import MmuCommandLayout
from ptewalk.rtl.engine.table_engine_bins import CHANGED, ENTRIES, SWAPPED
from ptewalk.rtl.log.layouts import LogMode

__all__ = [
    "Kind",
    "MmuEngineLane",
    "Op",
    "RuleOfUnitBroken",
    "Step",
    "Store",
    "Story",
    "Told",
    "log_setup",
    "mmu_engine_lane_files",
]

_HERE: Final = Path(__file__).parent
_TAGS: Final = 4
"""Bits of a tag that the lane drives."""


class RuleOfUnitBroken(Exception):
    """The design broke a rule of its ports."""


class Op(IntEnum):
    """What software does, one step after the other."""

    WRITE = 0
    """{address, value}: past every rule, as any other master."""
    XOR = 1
    """{address, mask}: the same, of a word that is not 0."""
    COPY = 2
    """{from, to}: a table."""
    FREE = 3
    """{address}: a table is told to be out of use."""
    REUSE = 4
    COMMAND = 5
    """{number}: given to the engine, when it has none. A list is of all records that software is not done with; at its
    end software is done with those that were dealt with."""
    PAUSE = 6
    """{cycles}"""
    AWAIT_DONE = 7
    """The command is over."""
    AWAIT_COMPLETE = 8
    """No invalidation waits."""
    AWAIT_SWAPS = 9
    """{count}: so many swaps were made since the beginning, or the command is over."""
    AWAIT_GRANTS = 10
    """{count}: so many, or there are no more stores."""
    INVALIDATE = 11
    """{kind, linear, pcid, wait}"""
    CONTEXT = 12
    """{root frame, control, track, pcid}"""
    LOG = 13
    """{mode, size, stalls, index: see `log_setup`; base frame; time-out; watermark}: the dirty log is set up."""
    HEAD = 14
    """{count}: of records that software is done with."""
    READ_LOG = 15
    """{likelihood, lag}: from now on software has read all records but the last `lag` in so many of 2**32 cycles."""
    EPOCH = 16
    """{parity}"""
    CLEAR_LOG = 17
    """Its flags."""
    ERRORS = 18
    """{address}: from now on plain writes from there on are refused; 0: none."""


class Kind(IntEnum):
    """What happened."""

    ASKED = 0
    """{number of the store}"""
    GRANTED = 1
    """{number, outcome, physical address}"""
    ANSWERED = 2
    """The same, where nothing was granted."""
    RETIRED = 3
    """{number}"""
    SWAP = 4
    """{address, old, new}: a word of tables."""
    WRITE = 5
    """{address, old, new}: a word of a report."""
    COMMAND = 6
    """{number}; of a list the first record, and how many, too"""
    DONE = 7
    """{number}"""
    TAKEN = 8
    """{step}: an invalidation."""
    COMPLETE = 9
    """One that waits."""
    FREED = 10
    """{address}: a table."""
    REUSED = 11
    SET_UP = 12
    """{step}: the dirty log."""
    TAIL = 13
    """{count}"""
    HEAD = 14
    """{count}"""
    FLAGS = 15
    """{flags, lost address}: of `LogStatusLayout`, its first bit 0."""


class Status(IntEnum):
    """How a run ended."""

    COMPLETE = 0
    LATE = 1
    BUS = 2
    STRAY = 3
    NOT_TAKEN = 4
    BAD = 5


_RULES: Final = {
    Status.LATE: "no progress for 30000 cycles",
    Status.BUS: "AXI's rules",
    Status.STRAY: "an answer to nothing that was asked",
    Status.NOT_TAKEN: "a completion without its command being taken",
    Status.BAD: "a step of no kind",
}
_STORE: Final = np.dtype([(name, np.uint64) for name in ("linear", "access", "delay", "after", "retires_after")])
_STEP: Final = np.dtype([(name, np.uint64) for name in ("kind", "a", "b", "c", "d")])
_EVENT: Final = np.dtype([(name, np.uint64) for name in ("cycle", "kind", "a", "b", "c")])
_BATCH: Final = np.dtype(
    [
        (name, np.uint64)
        for name in (
            *("stores", "store_count", "steps", "step_count", "commands", "completions", "memory", "memory_bytes"),
            *(
                "events",
                "event_count",
                "seed",
                "latency",
                "latency_spread",
                "stalls",
                "idle",
                "write",
                "cycles",
                "step",
                "bins",
                "line_ids",
                "swap_soft_dirty",
                "leaf_tables",
            ),
        )
    ]
)
_BINS: Final = np.dtype(
    [
        ("entries", np.uint64, (len(ENTRIES),)),
        *((end, np.uint64, (len(ENTRIES),)) for end in SWAPPED),
        ("changed", np.uint64, (len(CHANGED),)),
    ]
)
_CHANGES: Final = {
    "A": 1 << EntryBit.A,
    "D": 1 << EntryBit.D,
    "SD": 1 << SoftBit.SOFT_DIRTY,
    "SPECIAL": 1 << SoftBit.SPECIAL,
}
"""Bits by their names in `CHANGED`."""


class Store(NamedTuple):
    """An access: it is asked for when software is at step `after`, retires so many cycles after its grant, and not
    before step `retires_after`."""

    linear: int
    access: int = int(Access.WRITE)
    delay: int = 0
    after: int = 0
    retires_after: int = 0


class Step(NamedTuple):
    """An `Op` and what it needs."""

    kind: int
    a: int = 0
    b: int = 0
    c: int = 0
    d: int = 0


def log_setup(
    mode: LogMode,
    base: int,
    *,
    size: int = 9,
    stalls: bool = True,
    time_out: int = 0,
    watermark: int = 0,
    index: int = 511,
) -> Step:
    """The step that sets the dirty log up, by the names of `LogSetupLayout`; `base` is an address."""
    return Step(Op.LOG, int(mode) | size << 2 | stalls << 7 | index << 8, base >> 12, time_out, watermark)


@dataclass
class Story:
    """What is done to the design.

    Attributes
    ----------
    words : uint64 array
        Physical memory from address 0 on; changed in place.
    stores, steps : list
        The two that act: a requester and software.
    commands : list of mapping
        By the names of `MmuCommandLayout`.
    latency, latency_spread : int
    stalls, idle : float
        How likely a channel, and the requester, does nothing in a cycle.
    seed : int
    swap_soft_dirty : int
        The bits by which a swap-like entry is soft-dirty.
    leaf_tables : int
        The address from which on tables of level 1 lie; those above them lie below.
    """

    words: NDArray[np.uint64]
    stores: list[Store] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    commands: list[Mapping[str, Any]] = field(default_factory=list)
    latency: int = 2
    latency_spread: int = 0
    stalls: float = 0.0
    idle: float = 0.0
    seed: int = 0
    swap_soft_dirty: int = 0
    leaf_tables: int = 0


@dataclass(frozen=True)
class Told:
    """What happened.

    Attributes
    ----------
    events : records of {cycle, kind, a, b, c}
        In order; kinds are of `Kind`.
    completions : list of dict
        Of each command, by the names of `CompletionLayout`.
    cycles : int
    bins : records (commands,) of {entries, done, failed, changed}
        What lines of each command held: entries that were read, and that were to be swapped, by `ENTRIES`; and of lines
        whose swap failed what had changed, by `CHANGED`.
    """

    events: Records
    completions: list[dict[str, int]]
    cycles: int
    bins: Records


def _numbers(width: int) -> int:
    """How many 64-bit words a port of this width takes."""
    return -(-width // 64)


def _commands(design: DesignDescription) -> np.dtype[np.void]:
    found = design.stream("table_commands")
    assert found is not None
    return np.dtype([(name, np.uint64, (_numbers(design.width(port)),)) for name, port in found.fields.items()])


def _completions(design: DesignDescription) -> np.dtype[np.void]:
    found = design.stream("table_completions")
    assert found is not None
    return np.dtype([(name, np.uint64) for name in found.fields])


def _list_accessors(design: DesignDescription) -> list[str]:
    """Which records a command's list is of; of a design without lists, such that all compiles."""
    there = bool(design.parameters["lists"])
    body = "c.list_first[0] = first; c.list_count[0] = count;" if there else "(void)c; (void)first; (void)count;"
    return [
        "namespace list {",
        f"template <class C> inline bool asked(const C &c) {{ (void)c; return {'c.lists[0]' if there else '0'}; }}",
        f"template <class C> inline void set(C &c, uint64_t first, uint64_t count) {{ {body} }}",
        "}",
    ]


def mmu_engine_lane_files(design: DesignDescription) -> Mapping[str, str]:
    """File name to text of all that is compiled into a model of `design`, 64 bits wide, for this lane."""
    for name, needed in (("data_bits", 64), ("tag_bits", _TAGS)):
        if design.parameters[name] != needed:
            raise ValueError(f"{name} of the compiled lane must be {needed}, not {design.parameters[name]}")
    kinds = {"TrackStore": _STORE, "TrackStep": _STEP, "TrackEvent": _EVENT, "TrackBatch": _BATCH}
    kinds |= {"TrackCommand": _commands(design), "TrackCompletion": _completions(design), "TrackBins": _BINS}
    records = ["#pragma once", "#include <cstddef>", "#include <cstdint>"]
    records += [f"#define AXI_BITS {design.width('m_axi_rdata')}", *structures(kinds)]
    for name, numbers in (("TrackOp", Op), ("TrackKind", Kind), ("TrackStatus", Status)):
        values = ", ".join(f"{member.name} = {member.value}" for member in numbers)
        records.append(f"namespace {name} {{ enum : uint32_t {{ {values} }}; }}")
    masks = {"P": 1 << EntryBit.P, "RW": 1 << EntryBit.RW, "PROT_NONE": 1 << NotPresentBit.PROTNONE, **_CHANGES}
    records += [f"constexpr uint64_t ENTRY_{name} = {mask:#x};" for name, mask in masks.items()]
    changes = ", ".join(hex(_CHANGES.get(name, 0)) for name in CHANGED)
    records.append(f"constexpr uint64_t CHANGES[] = {{{changes}}};  // of the first and the last: none of them, others")
    pins = ["#pragma once", "#include <cstring>", "#include <type_traits>", "namespace pins {"]
    pins += wide_accessors(design, "table_commands")
    pins += log_accessors(design)
    pins += _list_accessors(design)
    roles = ("requests", "responses", "retired", "contexts", "invalidations", "completions", "faults", "setups")
    for role in (*roles, "table_completions"):
        pins += stream_accessors(design, role, design.stream(role))
    return {
        "lane.cpp": (_HERE / "mmu_engine.cpp").read_text(),
        "clock.h": (_HERE / "clock.h").read_text(),
        "axi.h": (_HERE / "axi.h").read_text(),
        "mmu_engine_records.h": "\n".join([*records, ""]),
        "mmu_engine_pins.h": "\n".join([*pins, "}", ""]),
        "design.json": json.dumps(design.as_json()),
    }


class MmuEngineLane:
    """A Verilator model of an `MmuEngine` in this process, and the clock loop round it.

    Parameters
    ----------
    library : Path
        Built of `mmu_engine_lane_files`.
    """

    def __init__(self, library: Path) -> None:
        self.design = DesignDescription.from_json(json.loads(library.with_name("design.json").read_text()))
        self._layout = MmuCommandLayout(self.design.parameters["physical_bits"], lists=self.design.parameters["lists"])
        self._commands, self._completions = _commands(self.design), _completions(self.design)
        self._library = ctypes.CDLL(str(library), mode=os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))
        self._library.ptewalk_track_open.restype = ctypes.c_void_p
        self._library.ptewalk_track_run.restype = ctypes.c_int64
        self._library.ptewalk_track_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._library.ptewalk_track_close.argtypes = [ctypes.c_void_p]
        if self._library.ptewalk_track_size() != _BATCH.itemsize:
            raise RuntimeError("the lane was built of other records than these")
        self._model = ctypes.c_void_p(self._library.ptewalk_track_open())

    def close(self) -> None:
        """Free the model; nothing can be run afterwards."""
        self._library.ptewalk_track_close(self._model)

    def _records(self, commands: Sequence[Mapping[str, Any]]) -> Records:
        rows = np.zeros(len(commands), self._commands)
        for place, fields in enumerate(commands):
            for name, shape in self._layout:
                value = fields.get(str(name), 0)
                bits = shape.shape.const(value).as_bits() if isinstance(value, Mapping) else int(value)
                numbers = rows[place][name]
                numbers[:] = [bits >> 64 * number & (1 << 64) - 1 for number in range(len(numbers))]
        return rows

    def run(self, story: Story) -> Told:
        """From a reset to the end of the story.

        Raises
        ------
        RuleOfUnitBroken
        """
        stores = np.array([tuple(one) for one in story.stores], _STORE)
        steps = np.array([tuple(one) for one in story.steps], _STEP)
        asked, told = self._records(story.commands), np.zeros(len(story.commands), self._completions)
        bins: Records = np.zeros(len(story.commands), _BINS)
        batch = np.zeros(1, _BATCH)
        one = batch[0]
        arrays = {"stores": stores, "steps": steps, "commands": asked, "completions": told, "memory": story.words}
        for name, array in {**arrays, "bins": bins}.items():
            one[name] = array.ctypes.data
        one["line_ids"], one["swap_soft_dirty"] = self.design.parameters["lines"] + 1, story.swap_soft_dirty
        one["store_count"], one["step_count"], one["memory_bytes"] = len(stores), len(steps), story.words.nbytes
        one["latency"], one["latency_spread"] = story.latency, story.latency_spread
        one["seed"], one["write"] = story.seed, int(Access.WRITE)
        one["stalls"], one["idle"] = int(story.stalls * 2**32), int(story.idle * 2**32)
        one["leaf_tables"] = story.leaf_tables
        status = Status(self._library.ptewalk_track_run(self._model, batch.ctypes.data))
        if status != Status.COMPLETE:
            raise RuleOfUnitBroken(f"cycle {int(one['cycles'])}, step {int(one['step'])}: {_RULES[status]}")
        count = int(one["event_count"])
        kept = (ctypes.c_uint64 * (5 * count)).from_address(int(one["events"])) if count else b""
        events = np.frombuffer(bytes(kept), _EVENT)
        names = told.dtype.names or ()
        completions = [dict(zip(names, map(int, row), strict=True)) for row in told.tolist()]
        return Told(events, completions, int(one["cycles"]), bins)
