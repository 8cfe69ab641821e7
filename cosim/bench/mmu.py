"""The gateware as the operating system's MMU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

from ptewalk.cosim.bench.lane import BatchResult, Counters
from ptewalk.cosim.bench.records import Records, decode, encode_requests
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, Result, State

__all__ = ["GatewareMmu", "RunBatch"]

RunBatch = Callable[[Records, SparseMemory], BatchResult]
"""Runs `REQUEST` records on the gateware in a memory, up to the first that is not OK."""


class GatewareMmu:
    """An `Mmu` whose every access is a walk of the gateware.

    Parameters
    ----------
    run_batch : RunBatch
    memory : SparseMemory
        The tables, which software and gateware share.
    counters : Counters
        What the gateware counted is added to it.
    """

    def __init__(self, run_batch: RunBatch, memory: SparseMemory, counters: Counters) -> None:
        self._run_batch = run_batch
        self._memory = memory
        self._counters = counters

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`."""
        result = self._run_batch(encode_requests((state, request) for request in requests), self._memory)
        for field in fields(Counters):
            setattr(
                self._counters, field.name, getattr(self._counters, field.name) + getattr(result.counters, field.name)
            )
        return [decode(row) for row in result.responses]

    def invalidate(self, linear: int | None = None) -> None:
        """Nothing is cached."""
