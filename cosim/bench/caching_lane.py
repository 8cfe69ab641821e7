"""The compiled lane of an MMU that caches, from Python: arrays of work in, the log of what happened out."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from ptewalk.cosim.bench.caching import CachingConditions, RuleOfCachingBroken
from ptewalk.cosim.bench.events import Accept, Answer, Foreign, Invalidate, LogEvent, Read, SetContext, Swap, WalkEnd
from ptewalk.cosim.bench.headers import lane_files, structures
from ptewalk.cosim.bench.records import REQUEST, Records, context_values, result_of
from ptewalk.cosim.bench.waits import WAIT_COUNTS
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import PAGE_SHIFT, Invalidation, Wait
from ptewalk.rtl.description import DesignDescription

__all__ = [
    "DIRECTIVE",
    "CachingLane",
    "CachingRun",
    "CachingWork",
    "DirectiveKind",
    "caching_lane_files",
    "context_records",
    "request_records",
]

_SOURCE: Final = Path(__file__).with_name("caching.cpp")
_AXI: Final = ("axi.h", "caching_axi.h")
"""Headers for tables behind AXI4."""


class DirectiveKind(IntEnum):
    """What is done beside requests."""

    CHANGE = 0
    CONTEXT = 1
    INVALIDATION = 2


class CachingKind(IntEnum):
    """What an event of the log is."""

    READ = 0
    SWAP = 1
    FOREIGN = 2
    ACCEPT = 3
    CONTEXT = 4
    INVALIDATE = 5
    WALK_END = 6
    ANSWER = 7
    FAULT = 8


class CachingStatus(IntEnum):
    """How a run ended."""

    COMPLETE = 0
    LATE_ANSWER = 1
    UNSTABLE = 2
    TWO_OUTSTANDING = 3
    STRAY_ANSWER = 4
    DRAINED_EARLY = 5
    COMPLETE_EARLY = 6


DIRECTIVE: Final = np.dtype(
    [
        ("address", np.uint64),  # of the word that is changed; the linear address of an invalidation
        ("value", np.uint64),
        ("request", np.uint32),  # so many requests must have been accepted
        ("delay", np.uint32),  # cycles after the directive before
        ("index", np.uint32),  # of the context
        ("pcid", np.uint16),
        ("kind", np.uint8),  # DirectiveKind
        ("invalidation", np.uint8),  # x86.Invalidation
        ("wait", np.uint8),  # x86.Wait
    ],
    align=True,
)
"""What happens beside the requests, in order."""
_EVENT: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("address", "old", "new", "cycle")),
        # `index`: of the request, context or directive; of an access to memory and of a walk's end, the walker.
        *(("tag", np.uint32), ("index", np.uint32), ("code", np.uint16)),
        *((name, np.uint8) for name in ("kind", "done", "error", "outcome", "level", "pwt", "pcd", "pat")),
    ],
    align=True,
)
_COUNTERS: Final = ("delivered_faults", "lost_faults", "marks", "mends", "hits", "overtaken", "replays", "wraps")
_WAITS: Final = ("completed_stores", "completed_all", "accepted_waiting")
"""Invalidations that were complete, by what they waited for; requests accepted while one waited."""
_BATCH: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("requests", "contexts", "directives", "keys", "rows", "words")),
        *((name, np.uint64) for name in ("request_count", "directive_count", "key_bits", "frame_limit")),
        ("absent_is_zero", np.uint64),  # as in `headers.BATCH`
        *((name, np.uint64) for name in ("go_on", "serial", "stop_on_fault")),
        *((name, np.uint64) for name in ("seed", "tags", "latency", "latency_spread")),
        *((name, np.uint64) for name in ("idle", "stalls", "errors", "drains")),
        *((name, np.uint64) for name in ("log", "log_count", "cycles", "drains_done", *_WAITS, *_COUNTERS)),
    ],
    align=True,
)
_RULES: Final = {
    CachingStatus.LATE_ANSWER: "no progress for 5000 cycles",
    CachingStatus.UNSTABLE: "a stream changed before it was taken",
    CachingStatus.TWO_OUTSTANDING: "a walker has two accesses to memory outstanding",
    CachingStatus.STRAY_ANSWER: "an answer with a tag that is not in flight",
    CachingStatus.DRAINED_EARLY: "a drain ended while requests or grants were outstanding",
    CachingStatus.COMPLETE_EARLY: "an invalidation was complete before what it waits for, or as none that waits",
}


def caching_lane_files(design: DesignDescription) -> Mapping[str, str]:
    """File name to text of all that is compiled into a model of `design` for this lane."""
    numbers = []
    for kind in (DirectiveKind, CachingKind, CachingStatus, Wait):
        values = ", ".join(f"{one.name} = {one.value}" for one in kind)
        numbers.append(f"namespace {kind.__name__} {{ enum : uint32_t {{ {values} }}; }}")
    kinds = {"Directive": DIRECTIVE, "CachingEvent": _EVENT, "CachingBatch": _BATCH}
    lines = ["#pragma once", "#include <cstddef>", "#include <cstdint>", *structures(kinds), *numbers, ""]
    files = {**lane_files(design), "lane.cpp": _SOURCE.read_text()}
    if any(port.name == "m_axi_rdata" for port in design.ports):
        lines.insert(1, f"#define AXI_BITS {design.width('m_axi_rdata')}")
        files |= {name: _SOURCE.with_name(name).read_text() for name in _AXI}
    return {**files, "caching_records.h": "\n".join(lines)}


@dataclass(frozen=True)
class CachingWork:
    """What is asked in one run.

    Attributes
    ----------
    requests : Records (n,)
        `REQUEST` records; their contexts and tags do not count.
    asked : list of Request
        The same for the golden side.
    contexts : list of (State, int, bool)
        State, PCID, keep; `contexts_records` are they as `REQUEST` records.
    directives : Records (m,)
        `DIRECTIVE` records. The first is a context.
    memory : SparseMemory
        Changed in place.
    """

    requests: Records
    asked: list[Request]
    contexts: list[tuple[State, int, bool]]
    context_records: Records
    directives: Records
    memory: SparseMemory


@dataclass
class CachingRun:
    """What a run gave.

    Attributes
    ----------
    events : Records
        The log; `read` makes `LogEvent`s of it.
    cycles, drains : int
    counters : dict of str to int
        The gateware's, since the reset.
    waits : dict of str to int
        Of invalidations that waited: see `WaitRules.counts`.
    """

    work: CachingWork
    events: Records
    cycles: int
    drains: int
    counters: dict[str, int] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)

    def read(self) -> Iterator[LogEvent]:
        """The log for the golden TLB."""
        work, directives = self.work, self.work.directives.tolist()
        names = DIRECTIVE.names or ()
        at_kind, at_linear, at_pcid, at_wait = (
            names.index(name) for name in ("invalidation", "address", "pcid", "wait")
        )
        for row in self.events.tolist():
            address, old, new, _, tag, index, code, kind, done, error, outcome, level, pwt, pcd, pat = row
            if kind == CachingKind.READ:
                yield Read(address, old, bool(error), index)
            elif kind == CachingKind.SWAP:
                yield Swap(address, old, new, bool(done), bool(error), index)
            elif kind == CachingKind.FOREIGN:
                yield Foreign(address, new)
            elif kind == CachingKind.ACCEPT:
                yield Accept(tag, work.asked[index])
            elif kind == CachingKind.CONTEXT:
                yield SetContext(*work.contexts[index])
            elif kind == CachingKind.INVALIDATE:
                asked = directives[index]
                yield Invalidate(Invalidation(asked[at_kind]), asked[at_linear], asked[at_pcid], Wait(asked[at_wait]))
            elif kind == CachingKind.WALK_END:
                yield WalkEnd(tag, index)
            elif kind == CachingKind.ANSWER:
                yield Answer(tag, result_of(outcome, address, level, pwt, pcd, pat, code))

    def faults(self) -> list[tuple[int, int, int]]:
        """(linear, code, tag) of each record of the fault queue."""
        rows = self.events[self.events["kind"] == CachingKind.FAULT]
        return list(zip(*(rows[name].tolist() for name in ("address", "code", "tag")), strict=True))


class CachingLane:
    """A Verilator model of the gateware in this process, and the clock loop round it.

    Parameters
    ----------
    library : Path
        Built of `caching_lane_files`.

    Attributes
    ----------
    runs : int
        How many there were.
    """

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.ptewalk_caching_open.restype = ctypes.c_void_p
        self._library.ptewalk_caching_run.restype = ctypes.c_int64
        self._library.ptewalk_caching_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._library.ptewalk_caching_close.argtypes = [ctypes.c_void_p]
        if self._library.ptewalk_caching_size() != _BATCH.itemsize:
            raise RuntimeError("the lane was built of other records than these")
        self._lane = ctypes.c_void_p(self._library.ptewalk_caching_open())
        self.runs = 0

    def close(self) -> None:
        """Free the model; nothing can be run afterwards."""
        self._library.ptewalk_caching_close(self._lane)

    def run(
        self,
        work: CachingWork,
        seed: int,
        conditions: CachingConditions,
        *,
        go_on: bool = False,
        serial: bool = False,
        stop_on_fault: bool = False,
    ) -> CachingRun:
        """One run.

        Parameters
        ----------
        work : CachingWork
        seed : int
            Of what the conditions leave to chance, below 2**64.
        conditions : CachingConditions
        go_on : bool
            Not from a reset: what the run before left in the caches is there, and its context.
        serial : bool
            A request waits for the answer before it, and for the directives that are due.
        stop_on_fault : bool
            Nothing is asked after an answer that is not OK. Goes with `serial`.

        Raises
        ------
        RuleOfCachingBroken
            The design broke a rule of its ports. It must be reset.
        """
        self.runs += 1
        keys, rows, words = work.memory.export()
        batch = np.zeros(1, _BATCH)
        one = batch[0]
        arrays: dict[str, Any] = {"requests": work.requests, "contexts": work.context_records}
        arrays |= {"directives": work.directives, "keys": keys, "rows": rows, "words": words}
        for name, array in arrays.items():
            one[name] = array.ctypes.data
        one["request_count"], one["directive_count"] = len(work.requests), len(work.directives)
        one["key_bits"] = int(math.log2(len(keys)))
        one["frame_limit"] = 1 << work.memory.physical_bits - PAGE_SHIFT
        one["absent_is_zero"] = not work.memory.strict
        one["go_on"], one["serial"], one["stop_on_fault"] = go_on, serial, stop_on_fault
        one["seed"], one["tags"] = seed, conditions.tags
        one["latency"], one["latency_spread"] = conditions.latency, conditions.latency_spread
        for name in ("idle", "stalls", "errors", "drains"):
            one[name] = int(getattr(conditions, name) * 2**32)
        status = CachingStatus(self._library.ptewalk_caching_run(self._lane, batch.ctypes.data))
        if status != CachingStatus.COMPLETE:
            raise RuleOfCachingBroken(f"cycle {int(one['cycles'])}: {_RULES[status]}")
        size = int(one["log_count"]) * _EVENT.itemsize
        raw = ctypes.string_at(int(one["log"]), size)
        events: Records = np.frombuffer(raw, _EVENT)
        counters = {name: int(one[name]) for name in _COUNTERS}
        waits = dict(zip(WAIT_COUNTS, (int(one[name]) for name in _WAITS), strict=True))
        return CachingRun(work, events, int(one["cycles"]), int(one["drains_done"]), counters, waits)


def request_records(asked: list[Request]) -> Records:
    """`REQUEST` records without contexts and tags."""
    records = np.zeros(len(asked), REQUEST)
    for name in ("linear", "access", "user", "implicit", "ac"):
        records[name] = [int(getattr(request, name)) for request in asked]
    return records


def context_records(contexts: list[tuple[State, int, bool]]) -> Records:
    """`REQUEST` records of contexts alone."""
    records = np.zeros(len(contexts), REQUEST)
    for number, (state, pcid, keep) in enumerate(contexts):
        for name, value in context_values(state, pcid, keep=keep).items():
            records[number][name] = value
    return records
