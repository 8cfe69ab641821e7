"""The compiled lane of a trace, from Python: accesses in, counts out; and what Unicorn's hooks record into.

An access is a word: its kind in bits 63:60 (`x86.Access`, and SUPERVISOR for the operating system's own), the linear
address below.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.caching import RuleOfCachingBroken
from ptewalk.cosim.bench.headers import lane_files, log_accessors, stream_accessors, structures
from ptewalk.cosim.bench.records import Records
from ptewalk.model.linux import SoftBit
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import PAGE_SHIFT, Invalidation
from ptewalk.rtl.description import DesignDescription

__all__ = [
    "KIND_SHIFT",
    "InstructionCounter",
    "OUTSTANDING",
    "SUPERVISOR",
    "Answered",
    "Recorder",
    "TraceCounts",
    "TraceLane",
    "trace_files",
]

_SOURCE: Final = Path(__file__).with_name("trace.cpp")
KIND_SHIFT: Final = 60
SUPERVISOR: Final = 8
OUTSTANDING: Final = 4
"""Requests in flight at most: as many as keep a hit that takes three cycles coming each cycle."""
_NEVER: Final = (1 << 64) - 1


class TraceStatus(IntEnum):
    """How a run ended."""

    COMPLETE = 0
    LATE_ANSWER = 1
    STRAY_ANSWER = 2
    STRAY_RECORD = 3
    MISSING_RECORD = 4


INVALIDATION: Final = np.dtype([(name, np.uint64) for name in ("kind", "linear", "pcid", "wait")], align=True)
_COUNTS: Final = ("cycles", "answered", "walks", "reads", "swaps", "marks", "mends")
_BATCH: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("keys", "rows", "words", "key_bits", "frame_limit", "absent_is_zero")),
        *((name, np.uint64) for name in ("accesses", "access_count", "last", "context", "timings")),
        *((name, np.uint64) for name in ("invalidations", "invalidation_count")),
        *((name, np.uint64) for name in ("latency", "outstanding", "soft_dirty_bit", "epoch")),
        *(
            (name, np.uint64)
            for name in ("done", "stopped", "outcome", "code", "physical", "level", "pwt", "pcd", "pat")
        ),
        *((name, np.uint64) for name in _COUNTS),
        ("hits_of_level", np.uint64, (8,)),
        ("walks_of_reads", np.uint64, (8,)),
        *((name, np.uint64) for name in ("logged", "logged_count")),  # records of the dirty log, since the start
    ],
    align=True,
)
_RECORDER: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("buffer", "count", "capacity", "pages", "frames", "full", "instructions")),
        ("missed", np.uint64, (4,)),
    ],
    align=True,
)
_RULES: Final = {
    TraceStatus.LATE_ANSWER: "no progress for 100000 cycles",
    TraceStatus.STRAY_ANSWER: "an answer with a tag that is not in flight",
    TraceStatus.STRAY_RECORD: "a record in the dirty log without a mark",
    TraceStatus.MISSING_RECORD: "a mark without a record in the dirty log for 100000 cycles",
}


def trace_files(design: DesignDescription) -> Mapping[str, str]:
    """File name to text of all that is compiled into a model of `design` for this lane."""
    kinds = {"TraceBatch": _BATCH, "TraceInvalidation": INVALIDATION, "TraceRecorder": _RECORDER}
    numbers = ", ".join(f"{one.name} = {one.value}" for one in TraceStatus)
    lines = ["#pragma once", "#include <cstddef>", "#include <cstdint>", *structures(kinds)]
    lines.append(f"namespace TraceStatus {{ enum : uint32_t {{ {numbers} }}; }}")
    of_log = {f"record_{name}": f"records.{name}" for name in ("writes", "written")} | {"setups": "log.setups"}
    pins = ["#pragma once", "namespace pins {", *log_accessors(design)]
    for role, path in of_log.items():
        pins += stream_accessors(design, role, next((one for one in design.streams if one.path == path), None))
    return {
        **lane_files(design),
        "lane.cpp": _SOURCE.read_text(),
        "trace_records.h": "\n".join([*lines, ""]),
        "trace_pins.h": "\n".join([*pins, "}", ""]),
    }


@dataclass
class TraceCounts:
    """What was counted, by the lane and by who drives it.

    Attributes
    ----------
    cycles, answered, walks, reads, swaps, marks, mends : int
        `answered` are accesses that were allowed; reads and swaps are of memory.
    faults : int
        Times that an access went to the operating system.
    records : int or None
        Of the dirty log; None: there is none.
    hits : dict of int to int
        Level of the leaf (1: 4 KiB) to answers without a walk.
    walks_of_reads : dict of int to int
        Reads of a walk to such walks.
    """

    cycles: int = 0
    answered: int = 0
    walks: int = 0
    reads: int = 0
    swaps: int = 0
    marks: int = 0
    mends: int = 0
    faults: int = 0
    records: int | None = None
    hits: dict[int, int] = field(default_factory=dict)
    walks_of_reads: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """How a run ended.

    Attributes
    ----------
    done : int
        Accesses that need not be asked again; those behind, in the array, must be.
    stopped : bool
        An answer was not OK: that of the access behind `done`, or, where there is none, of the last request.
    outcome, code, physical, level, pwt, pcd, pat : int
        Of that answer, or of the last request's.
    """

    done: int
    stopped: bool
    outcome: int
    code: int
    physical: int
    level: int
    pwt: int
    pcd: int
    pat: int


class TraceLane:
    """A Verilator model of an MMU that caches, in this process; it is never reset but at the start.

    Parameters
    ----------
    library : Path
        Built of `trace_files`.
    memory : SparseMemory
    latency : int
        Of memory, in cycles.
    outstanding : int
        Requests in flight at most, 1 to 15.
    """

    def __init__(
        self, library: Path, memory: SparseMemory, *, latency: int = 1, outstanding: int = OUTSTANDING
    ) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.ptewalk_trace_open.restype = ctypes.c_void_p
        self._library.ptewalk_trace_run.restype = ctypes.c_int64
        self._library.ptewalk_trace_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        for name in ("close", "reset"):
            getattr(self._library, f"ptewalk_trace_{name}").argtypes = [ctypes.c_void_p]
        if self._library.ptewalk_trace_size() != _BATCH.itemsize:
            raise RuntimeError("the lane was built of other records than these")
        self._lane = ctypes.c_void_p(self._library.ptewalk_trace_open())
        self._library.ptewalk_trace_reset(self._lane)
        self._memory = memory
        self._batch = np.zeros(1, _BATCH)
        self._one = self._batch[0]
        self._one["latency"], self._one["outstanding"] = latency, outstanding
        self._one["soft_dirty_bit"] = int(SoftBit.SOFT_DIRTY)
        self._one["frame_limit"] = 1 << memory.physical_bits - PAGE_SHIFT
        self._one["absent_is_zero"] = not memory.strict
        self._keys: object = None
        self.logs = bool(self._library.ptewalk_trace_logs())
        """There is a dirty log."""

    def close(self) -> None:
        """Free the model; nothing can be run afterwards."""
        self._library.ptewalk_trace_close(self._lane)

    def hook(self, name: str) -> ctypes.c_void_p:
        """The address of a hook for Unicorn, "memory" or "code"; its user data is `Recorder.address`."""
        return ctypes.cast(getattr(self._library, f"ptewalk_trace_{name}"), ctypes.c_void_p)

    def run(
        self,
        accesses: NDArray[np.uint64],
        *,
        last: Records | None = None,
        context: Records | None = None,
        invalidations: Sequence[tuple[Invalidation, int]] = (),
        timings: NDArray[np.uint64] | None = None,
    ) -> Answered:
        """Ask, up to the first answer that is not OK.

        What was in flight then is answered; what of that was not OK is moved right behind `Answered.done`.

        Parameters
        ----------
        accesses : uint64 array (n,)
            Changed in place.
        last : `REQUEST` record (1,)
            One more, of which every field counts.
        context : `REQUEST` record (1,)
            Given before them.
        invalidations : sequence of (Invalidation, int)
            Kind and linear address; after the context, before the requests.
        timings : uint64 array (n, 2)
            Takes the cycles, from the run's start, of acceptance and answer of each access.

        Raises
        ------
        RuleOfCachingBroken
        """
        one = self._one
        keys, rows, words = self._memory.export()
        if keys is not self._keys:
            one["keys"], one["rows"], one["words"] = keys.ctypes.data, rows.ctypes.data, words.ctypes.data
            one["key_bits"] = len(keys).bit_length() - 1
            self._keys = keys
        asked = np.array([(int(kind), linear, 0, 0) for kind, linear in invalidations], INVALIDATION)
        one["accesses"], one["access_count"] = accesses.ctypes.data, len(accesses)
        one["last"] = 0 if last is None else last.ctypes.data
        one["context"] = 0 if context is None else context.ctypes.data
        one["timings"] = 0 if timings is None else timings.ctypes.data
        one["invalidations"], one["invalidation_count"] = asked.ctypes.data, len(asked)
        status = TraceStatus(self._library.ptewalk_trace_run(self._lane, self._batch.ctypes.data))
        if status != TraceStatus.COMPLETE:
            raise RuleOfCachingBroken(f"cycle {int(one['cycles'])}: {_RULES[status]}")
        return Answered(
            done=int(one["done"]),
            stopped=bool(one["stopped"]),
            **{name: int(one[name]) for name in ("outcome", "code", "physical", "level", "pwt", "pcd", "pat")},
        )

    def epoch(self, number: int) -> None:
        """Records of the dirty log have the parity of this number from now on."""
        self._one["epoch"] = number & 1

    def records(self, first: int = 0) -> list[int]:
        """What the dirty log holds: the records since the start, or from the `first`-th on (from 0), in order.

        It is a ring that is read at once.
        """
        count = int(self._one["logged_count"]) - first
        if count <= 0:
            return []
        return list((ctypes.c_uint64 * count).from_address(int(self._one["logged"]) + 8 * first))

    def counts(self) -> TraceCounts:
        """What was counted so far."""
        counts = TraceCounts(records=int(self._one["logged_count"]) if self.logs else None)
        for name in _COUNTS:
            setattr(counts, name, int(self._one[name]))
        for name, told in (("hits_of_level", counts.hits), ("walks_of_reads", counts.walks_of_reads)):
            told.update({place: int(count) for place, count in enumerate(self._one[name]) if count})
        return counts


class Recorder:
    """Where compiled hooks put the accesses of a run.

    Parameters
    ----------
    frames : int
        Of physical memory.
    full : callable
        Called when there is no room; it must `take` what is there, and may raise nothing.
    capacity : int
        Accesses for which there is room.
    """

    def __init__(self, frames: int, full: Callable[[], None], capacity: int) -> None:
        self._buffer = np.zeros(capacity, np.uint64)
        self._pages = np.zeros(frames, np.uint64)
        self._filled: list[int] = []
        self._record = np.zeros(1, _RECORDER)
        self._one = self._record[0]
        self._full = ctypes.CFUNCTYPE(None)(full)
        self._one["buffer"], self._one["capacity"] = self._buffer.ctypes.data, capacity
        self._one["pages"], self._one["frames"] = self._pages.ctypes.data, frames
        self._one["full"] = ctypes.cast(self._full, ctypes.c_void_p).value or 0
        self._one["missed"] = _NEVER
        self.address: int = self._record.ctypes.data

    def take(self) -> NDArray[np.uint64]:
        """What was recorded since the last call; good until the program goes on."""
        count = int(self._one["count"])
        self._one["count"] = 0
        return self._buffer[:count]

    def aliases(self, page: int, frame: int) -> bool:
        """Another page of this frame may be in the processor's TLB: it must be emptied before `filled`."""
        return int(self._pages[frame]) not in (0, page)

    def filled(self, page: int, frame: int, access: int | None) -> None:
        """The processor's TLB is filled, for an access that was asked then; None: one that no hook will tell of."""
        self._pages[frame] = page
        self._filled.append(frame)
        if access is not None:
            self._one["missed"][access] = page

    def forget(self) -> None:
        """The processor's TLB is empty: no frame has a page."""
        self._pages[self._filled] = 0
        self._filled.clear()

    @property
    def instructions(self) -> int:
        """Executed so far."""
        return int(self._one["instructions"])


class InstructionCounter:
    """Counts instructions by compiled code.

    Parameters
    ----------
    library : Path
        Built of `trace_files`.
    """

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._count = np.zeros(1, np.uint64)
        self.hook = ctypes.cast(self._library.ptewalk_trace_count, ctypes.c_void_p)
        self.address: int = self._count.ctypes.data

    @property
    def count(self) -> int:
        """So far."""
        return int(self._count[0])
