"""One walk of the gateware at a time, at the least cost: for a processor that asks at each miss of its own TLB."""

from __future__ import annotations

from dataclasses import fields
from typing import Final

import numpy as np

from ptewalk.cosim.bench.conditions import BenchError, Conditions, Counters
from ptewalk.cosim.bench.headers import BATCH
from ptewalk.cosim.bench.lane import VerilatorLane
from ptewalk.cosim.bench.records import REQUEST, RESPONSE, Status, encode_requests
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Request, Result, State, Translated
from ptewalk.model.x86 import PAGE_SHIFT, Outcome

__all__ = ["SingleWalker"]

_CALM: Final = Conditions(linger=4)


def _offset(dtype: np.dtype[np.void], name: str) -> int:
    assert dtype.fields is not None
    return int(dtype.fields[name][1])


class SingleWalker:
    """Calls the lane with one request, in buffers that are kept.

    Parameters
    ----------
    lane : VerilatorLane
    memory : SparseMemory
        The tables, which the gateware reads and writes in place.
    conditions : Conditions, optional
        By default memory answers at once, and nothing stalls.

    Attributes
    ----------
    walks, cycles : int
        Requests so far, and their cycles from request to answer.
    """

    def __init__(self, lane: VerilatorLane, memory: SparseMemory, conditions: Conditions = _CALM) -> None:
        if memory.physical_bits > lane.design.parameters["physical_bits"]:
            raise ValueError("the memory has more physical address bits than the gateware")
        self._call = lane.entry()
        self._memory = memory
        self.walks = self.cycles = 0
        self._request = np.zeros(1, REQUEST)
        self._accepted = np.zeros(1, REQUEST)
        self._response = np.zeros(2, RESPONSE)
        self._batch = np.zeros(1, BATCH)
        one = self._batch[0]
        for name, array in (
            ("requests", self._request),
            ("accepted_requests", self._accepted),
            ("responses", self._response),
        ):
            one[name] = array.ctypes.data
        one["request_count"] = 1
        one["frame_limit"] = 1 << memory.physical_bits - PAGE_SHIFT
        one["absent_is_zero"] = not memory.strict
        for name in ("latency", "latency_spread", "retirement_spread", "max_cycles", "linger", "seed"):
            one[name] = getattr(conditions, name)
        one["thresholds"] = conditions.thresholds
        self._raw = memoryview(self._batch.view(np.uint8))  # type: ignore[arg-type]
        self._template = bytes(self._raw)
        self._address = self._batch.ctypes.data
        counted = [counter.name for counter in fields(Counters)]
        first = _offset(BATCH, counted[0]) // 8
        assert counted == [name for name in BATCH.names or ()][-len(counted) :]
        self._counted = self._batch.view(np.uint64)[first : first + len(counted)]
        self._totals = np.zeros(len(counted), np.uint64)
        self._keys: object = None
        self._state: State | None = None
        self._linear = memoryview(self._request.view(np.uint64))[_offset(REQUEST, "linear") // 8 :]  # type: ignore[arg-type]
        self._bytes = memoryview(self._request.view(np.uint8))  # type: ignore[arg-type]
        self._kind = [_offset(REQUEST, name) for name in ("access", "user", "implicit", "ac")]
        self._answer = memoryview(self._response.view(np.uint8))  # type: ignore[arg-type]
        self._answer_words = memoryview(self._response.view(np.uint32))  # type: ignore[arg-type]
        self._physical = memoryview(self._response.view(np.uint64))[_offset(RESPONSE, "physical") // 8 :]  # type: ignore[arg-type]
        self._code = memoryview(self._response.view(np.uint16))[_offset(RESPONSE, "code") // 2 :]  # type: ignore[arg-type]
        self._at = {name: _offset(RESPONSE, name) for name in RESPONSE.names or ()}

    @property
    def counters(self) -> dict[str, int]:
        """What the gateware and the testbench counted, in all walks; `cycles` are those of the walks alone."""
        names = (counter.name for counter in fields(Counters))
        totals = {name: int(total) for name, total in zip(names, self._totals, strict=True)}
        del totals["most_faults"]  # does not add
        return totals | {"cycles": self.cycles}

    def invalidate(self, linear: int | None) -> None:
        """Nothing is cached by a walker, so nothing is forgotten."""

    def walk(self, state: State, request: Request) -> Result:
        """Translate one request. Raises `BenchError` when the gateware breaks a rule of its ports."""
        if state is not self._state:
            self._request[:] = encode_requests([(state, request)], [0])
            self._state = state
        self._linear[0] = request.linear
        access, user, implicit, ac = self._kind
        of = self._bytes
        of[access], of[user], of[implicit], of[ac] = request.access, request.user, request.implicit, request.ac
        keys, rows, words = self._memory.export()
        if keys is not self._keys:
            one = self._batch[0]
            self._raw[:] = self._template
            one["keys"], one["rows"], one["words"] = keys.ctypes.data, rows.ctypes.data, words.ctypes.data
            one["key_bits"] = len(keys).bit_length() - 1
            self._template = bytes(self._raw)
            self._keys = keys
        else:
            self._raw[:] = self._template
        status = self._call(self._address)
        if status != Status.COMPLETE:
            self._keys = None
            raise BenchError(Status(status), 0, int(self._batch[0]["cycles"]))
        self._totals += self._counted
        self.walks += 1
        self.cycles += self._answer_words[self._at["cycles"] // 4]
        outcome = self._answer[self._at["outcome"]]
        if outcome == Outcome.OK:
            level, pwt, pcd, pat = (self._answer[self._at[name]] for name in ("level", "pwt", "pcd", "pat"))
            return Translated(self._physical[0], level, bool(pwt), bool(pcd), bool(pat))
        if outcome == Outcome.PAGE_FAULT:
            return PageFault(self._code[0])
        return GeneralProtection() if outcome == Outcome.GENERAL_PROTECTION else BusFault()
