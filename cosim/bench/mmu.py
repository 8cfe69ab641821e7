"""The gateware as the operating system's MMU."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ptewalk.cosim.bench.conditions import BatchResult, Conditions, Counters, random_conditions
from ptewalk.cosim.bench.lane import Lane
from ptewalk.cosim.bench.records import decode, encode_requests
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, Result, State

__all__ = ["GatewareMmu"]

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
    ) -> None:
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

    def invalidate(self, linear: int | None = None) -> None:
        """Nothing is cached."""
