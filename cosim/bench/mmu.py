"""The gateware as the operating system's MMU."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.conditions import BatchResult, Conditions, Counters, random_conditions
from ptewalk.cosim.bench.lane import Lane
from ptewalk.cosim.bench.records import EVENT, RESPONSE, EventKind, Records, decode, encode_requests
from ptewalk.model.engine import Engine
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, Result, State

__all__ = ["GatewareMmu", "MmuNotes", "RepeatedMmu"]

_CALM = Conditions(linger=2)


class GatewareMmu:
    """An `Mmu` whose every access is a walk of the gateware.

    Parameters
    ----------
    lane : Lane
    memory : SparseMemory
        The tables, which software and gateware share.
    counters : Counters
        What the gateware counted is added to it.
    seed : int, optional
        Latencies, stalls, drains and the rest are drawn anew for each call; without it memory answers at once.
    watch : callable (BatchResult, SparseMemory), optional
        Told what each call gave.
    tags : int
        How many tags the design has.
    engine : Engine, optional
        What is beside it.
    """

    def __init__(
        self,
        lane: Lane,
        memory: SparseMemory,
        counters: Counters,
        *,
        seed: int | None = None,
        watch: Callable[[BatchResult, SparseMemory], None] = lambda result, memory: None,
        tags: int = 256,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine
        self._lane = lane
        self._memory = memory
        self._counters = counters
        self._rng = None if seed is None else random.Random(f"conditions {seed}")
        self._watch = watch
        self._tags = tags

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`."""
        conditions = _CALM if self._rng is None else random_conditions(self._rng, errors=False)
        tags = [number % self._tags for number in range(len(requests))]
        asked = encode_requests(((state, request) for request in requests), tags)
        result = self._lane.run(asked, self._memory, None, conditions, stop_on_fault=True)
        self._counters.add(result.counters)
        self._watch(result, self._memory)
        return [decode(row) for row in result.responses]

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """Nothing is cached."""


class MmuNotes:
    """What each call of a `GatewareMmu` gave, as arrays, so that another process can repeat it: see `RepeatedMmu`."""

    def __init__(self) -> None:
        self._responses: list[Records] = []
        self._written: list[Records] = []

    def add(self, result: BatchResult) -> None:
        """The call that was made last."""
        events = result.events
        self._responses.append(result.responses)
        self._written.append(events[(events["kind"] == EventKind.SWAP) & (events["done"] != 0)])

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Responses and words written of all calls, one after the other, and how many of each belong to a call."""
        return {
            "responses": np.concatenate([np.zeros(0, RESPONSE), *self._responses]),
            "written": np.concatenate([np.zeros(0, EVENT), *self._written]),
            "answered": np.array([len(rows) for rows in self._responses], np.int64),
            "wrote": np.array([len(rows) for rows in self._written], np.int64),
        }


class RepeatedMmu:
    """An `Mmu` that answers, and writes, as another did: the same work must be given to it.

    Parameters
    ----------
    memory : SparseMemory
    arrays : mapping of str to array
        What `MmuNotes.arrays` gave.
    """

    def __init__(self, memory: SparseMemory, arrays: Mapping[str, NDArray[Any]]) -> None:
        self._memory = memory
        self._arrays = arrays
        self._call = self._response = self._word = 0

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`."""
        answered, wrote = (int(self._arrays[name][self._call]) for name in ("answered", "wrote"))
        self._call += 1
        for event in self._arrays["written"][self._word : self._word + wrote]:
            self._memory.store(int(event["address"]), int(event["new"]))
        rows = self._arrays["responses"][self._response : self._response + answered]
        self._word, self._response = self._word + wrote, self._response + answered
        return [decode(row) for row in rows]

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """Nothing is cached."""

    @property
    def over(self) -> bool:
        """True: all that was noted was asked for."""
        return self._call == len(self._arrays["answered"])
