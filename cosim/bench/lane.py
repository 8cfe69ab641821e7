"""The batch level's Python side: numpy arrays in and out of the compiled clock loop of cosim/bench/lane.cpp."""

from __future__ import annotations

import ctypes
import math
import time
from dataclasses import dataclass, field, fields
from enum import IntEnum
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.records import EVENT, INTERFERENCE, REQUEST, RESPONSE, Records
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import PAGE_SHIFT

__all__ = ["BatchResult", "BenchError", "CompiledLane", "Conditions", "Counters", "Stalls", "Status"]


class Status(IntEnum):
    """How a run of requests ended; the numbers are those of cosim/bench/lane.cpp."""

    COMPLETE = 0
    TIMEOUT = 1
    STRAY_RESPONSE = 2
    STRAY_MEMORY = 3
    TWO_IN_FLIGHT = 4
    TWO_OUTSTANDING = 5
    UNSTABLE_RESPONSE = 6
    UNSTABLE_READ = 7
    UNSTABLE_SWAP = 8
    EVENTS_FULL = 9
    WRONG_FAULT = 10
    MISSING_FAULT = 11
    NOT_DRAINED = 12
    CONTEXT_IN_FLIGHT = 13
    CONTEXT_OVERTAKEN = 14


RULES: Final = {
    Status.TIMEOUT: "a request must be accepted and answered in time",
    Status.STRAY_RESPONSE: "a response must answer a request in flight, once",
    Status.STRAY_MEMORY: "an access to memory must belong to a request in flight",
    Status.TWO_IN_FLIGHT: "a request must not be accepted while another is in flight",
    Status.TWO_OUTSTANDING: "at most one access to memory may be outstanding",
    Status.UNSTABLE_RESPONSE: "o_responses must hold valid and payload until ready",
    Status.UNSTABLE_READ: "o_reads must hold valid and payload until ready",
    Status.UNSTABLE_SWAP: "o_swaps must hold valid and payload until ready",
    Status.EVENTS_FULL: "the event log must hold every access: give event_capacity",
    Status.WRONG_FAULT: "the fault queue must tell each page fault once, in order, as it was answered",
    Status.MISSING_FAULT: "the fault queue must tell every page fault",
    Status.NOT_DRAINED: "a drain must end once every grant has retired",
    Status.CONTEXT_IN_FLIGHT: "a context must not be taken while a request is in flight",
    Status.CONTEXT_OVERTAKEN: "a context must be taken before a request that is on offer with it",
}
"""What was violated, by status."""


class BenchError(Exception):
    """The gateware broke a rule of its ports, or did not answer in time.

    Attributes
    ----------
    status : Status
        The rule.
    request : int
        Index of the last request that was accepted, -1 when none was.
    cycle : int
        Cycle of the batch.
    """

    def __init__(self, status: Status, request: int, cycle: int) -> None:
        last = f"the last accepted request is {request}" if request >= 0 else "no request was accepted"
        super().__init__(f"{RULES[status]} ({status.name} in cycle {cycle}; {last})")
        self.status = status
        self.request = request
        self.cycle = cycle


@dataclass(frozen=True)
class Stalls:
    """How often each channel stalls: the chance, 0 to below 1, that it does so in a cycle.

    Attributes
    ----------
    requests : float
        An idle cycle before the next request is shown.
    responses, reads, swaps : float
        The channel is not ready.
    """

    requests: float = 0.0
    responses: float = 0.0
    reads: float = 0.0
    swaps: float = 0.0

    def __post_init__(self) -> None:
        for channel in fields(self):
            chance = getattr(self, channel.name)
            if not 0 <= chance < 1:
                raise ValueError(f"stalls: {channel.name} must be a chance from 0 to below 1, not {chance!r}")

    @property
    def thresholds(self) -> tuple[int, int, int, int]:
        """The chances, of 2**32, in the order of the attributes."""
        return tuple(int(getattr(self, channel.name) * 2**32) for channel in fields(self))  # type: ignore[return-value]


@dataclass(frozen=True)
class Conditions:
    """What the testbench is like to the gateware.

    Attributes
    ----------
    latency : int
        Cycles from an access's transfer to its answer, at least 1.
    stalls : Stalls
        Idle cycles and backpressure.
    seed : int
        Of the stalls' pattern, 0 to 2**64 - 1: same seed, same cycles, at both levels.
    max_cycles : int
        Cycles without an accepted request or a response after which a request has timed out.
    linger : int
        Cycles that are watched after the last response, for a second response or a stray access.
    """

    latency: int = 1
    stalls: Stalls = field(default_factory=Stalls)
    seed: int = 0
    max_cycles: int = 100_000
    linger: int = 16

    def __post_init__(self) -> None:
        for name, low, high in (
            ("latency", 1, 2**20),
            ("seed", 0, 2**64 - 1),
            ("max_cycles", 1, 2**62),
            ("linger", 1, 2**31),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}")


@dataclass
class Counters:
    """What happened in a run of requests.

    Attributes
    ----------
    cycles : int
        Clock cycles, `Conditions.linger` included.
    reads, swaps : int
        Accesses that were answered.
    failed_swaps : int
        Swaps that were not done, bus errors included.
    foreign_writes : int
        Writes by the second writer.
    marks, mends, delivered_faults : int
        The gateware's own counters, see `rtl.mmu.Mmu`; 0 for a walker alone.
    """

    cycles: int = 0
    reads: int = 0
    swaps: int = 0
    failed_swaps: int = 0
    foreign_writes: int = 0
    marks: int = 0
    mends: int = 0
    delivered_faults: int = 0


@dataclass
class BatchResult:
    """What a batch gave.

    Attributes
    ----------
    requests : Records (n,)
        `REQUEST` records of the requests that were accepted, as the monitor saw them.
    responses : Records (n,)
        `RESPONSE` records, in order; fewer than were asked for only with stop_on_fault.
    events : Records (m,)
        `EVENT` records when they were asked for, else empty.
    counters : Counters
    compiled : bool
        True: the batch level ran it. False: the protocol level.
    seconds : float
        Wall-clock time of the run alone.
    """

    requests: Records
    responses: Records
    events: Records
    counters: Counters
    compiled: bool
    seconds: float


_POINTERS: Final = ("requests", "accepted_requests", "responses", "interferences", "events", "keys", "rows", "words")
_NUMBERS: Final = (
    *("request_count", "interference_count", "event_capacity", "key_bits", "frame_limit", "absent_is_zero"),
    *("latency", "max_cycles", "linger", "stop_on_fault", "seed"),
)
_OUTPUTS: Final = (
    *("status", "response_count", "event_count", "cycles"),
    *("reads", "swaps", "failed_swaps", "foreign_writes", "accepted"),
    *("marks", "mends", "delivered_faults"),
)


class _Batch(ctypes.Structure):
    """The structure of the same name in cosim/bench/lane.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_uint64) for name in _NUMBERS),
        ("stalls", ctypes.c_uint64 * 4),
        *((name, ctypes.c_uint64) for name in _OUTPUTS),
    ]


class CompiledLane:
    """The clock loop that was compiled into the simulator in which this process runs.

    Parameters
    ----------
    library : ctypes.CDLL
        The program itself.
    """

    def __init__(self, library: Any) -> None:
        sizes = [REQUEST.itemsize, RESPONSE.itemsize, INTERFERENCE.itemsize, EVENT.itemsize, ctypes.sizeof(_Batch)]
        compiled = [library.ptewalk_batch_size(which) for which in range(len(sizes))]
        if compiled != sizes:
            raise RuntimeError(f"lane.cpp and lane.py must agree on sizes: {compiled} is not {sizes}")
        self._run = library.ptewalk_batch

    @staticmethod
    @lru_cache(maxsize=1)
    def find() -> CompiledLane | None:
        """The lane of this process; None when the model was built without it, or the simulator is another."""
        library = ctypes.CDLL(None)
        return CompiledLane(library) if hasattr(library, "ptewalk_batch") else None

    def run(
        self,
        requests: Records,
        memory: SparseMemory,
        interferences: Records,
        conditions: Conditions,
        *,
        stop_on_fault: bool,
        event_capacity: int,
    ) -> BatchResult:
        """Run a batch of validated arrays with the clock stopped and low; memory is changed in place.

        Raises
        ------
        BenchError
            A rule was broken; the gateware needs a reset.
        RuntimeError
            The model cannot be found in this program.
        """
        accepted = np.zeros(len(requests), REQUEST)
        responses = np.zeros(len(requests), RESPONSE)
        events = np.zeros(event_capacity, EVENT)
        keys, rows, words = memory.export()
        arrays: dict[str, NDArray[Any]] = dict(
            zip(_POINTERS, (requests, accepted, responses, interferences, events, keys, rows, words), strict=True)
        )
        batch = _Batch(
            **{name: rows.ctypes.data for name, rows in arrays.items()},
            request_count=len(requests),
            interference_count=len(interferences),
            event_capacity=event_capacity,
            key_bits=int(math.log2(len(keys))),
            frame_limit=1 << memory.physical_bits - PAGE_SHIFT,
            absent_is_zero=not memory.strict,
            latency=conditions.latency,
            max_cycles=conditions.max_cycles,
            linger=conditions.linger,
            stop_on_fault=stop_on_fault,
            seed=conditions.seed,
            stalls=conditions.stalls.thresholds,
        )
        started = time.perf_counter()
        status = self._run(ctypes.byref(batch))
        seconds = time.perf_counter() - started
        if status < 0:
            raise RuntimeError("the batch level does not find the model in this program; build it without batch=True")
        if status != Status.COMPLETE:
            raise BenchError(Status(status), batch.accepted - 1, batch.cycles)
        return BatchResult(
            requests=accepted[: batch.accepted],
            responses=responses[: batch.response_count],
            events=events[: batch.event_count],
            counters=Counters(**{counter.name: getattr(batch, counter.name) for counter in fields(Counters)}),
            compiled=True,
            seconds=seconds,
        )
