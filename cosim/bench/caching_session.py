"""An MMU that caches, asked a little at a time: what one call leaves in its caches is there in the next."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.bench.caching_lane import (
    DIRECTIVE,
    CachingLane,
    CachingRun,
    CachingWork,
    DirectiveKind,
    context_records,
    request_records,
)
from ptewalk.cosim.bench.events import Invalidate, SetContext
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request

__all__ = ["CALM", "CachingSession", "quiet_conditions"]

CALM: Final = CachingConditions(idle=0.0, stalls=0.0, drains=0.0, latency_spread=0)
"""Memory answers at once, and nothing waits."""


def quiet_conditions(rng: random.Random, tags: int) -> CachingConditions:
    """Latencies, stalls, pauses and drains, drawn; no errors of the bus.

    Parameters
    ----------
    rng : random.Random
    tags : int
        How many the design has.
    """
    return CachingConditions(
        idle=rng.choice((0.0, 0.2, 0.7)),
        stalls=rng.choice((0.0, 0.1, 0.4)),
        drains=rng.choice((0.0, 0.02)),
        latency=rng.choice((1, 1, 2, 4, 16)),
        latency_spread=rng.choice((0, 2, 12)),
        tags=min(tags, rng.choice((1, 16, 256))),
    )


class CachingSession:
    """One MMU from its reset on, on a lane that nobody else may use in between.

    Parameters
    ----------
    lane : CachingLane
    """

    def __init__(self, lane: CachingLane) -> None:
        self._lane = lane
        self._seen: Mapping[str, int] | None = None
        self._runs = 0

    @property
    def fresh(self) -> bool:
        """The next call begins with a reset: nothing is cached, and there is no context."""
        return self._seen is None

    def ask(
        self,
        memory: SparseMemory,
        before: Sequence[SetContext | Invalidate],
        requests: Sequence[Request],
        *,
        conditions: CachingConditions = CALM,
        seed: int = 0,
        stop_on_fault: bool = False,
    ) -> CachingRun:
        """Requests, one after the other.

        Parameters
        ----------
        memory : SparseMemory
            Changed in place.
        before : sequence of SetContext or Invalidate
            What is done before the first request, in order. After a reset the first is a context.
        requests : sequence of Request
        conditions : CachingConditions
        seed : int
            Of what they leave to chance, below 2**64.
        stop_on_fault : bool
            Nothing is asked after an answer that is not OK.

        Returns
        -------
        CachingRun
            Its `counters` are those of this call.

        Raises
        ------
        RuleOfCachingBroken
            The design broke a rule of its ports; the next call begins with a reset.
        """
        contexts = [event for event in before if isinstance(event, SetContext)]
        rows = []
        for event in before:
            if isinstance(event, SetContext):
                rows.append((0, 0, 0, 0, contexts.index(event), 0, DirectiveKind.CONTEXT, 0, 0))
            else:
                kinds = (DirectiveKind.INVALIDATION, int(event.kind), int(event.wait))
                rows.append((event.linear, 0, 0, 0, 0, event.pcid, *kinds))
        told = [(context.state, context.pcid, context.keep) for context in contexts]
        asked = list(requests)
        work = CachingWork(
            request_records(asked), asked, told, context_records(told), np.array(rows, DIRECTIVE), memory
        )
        if not self.fresh and self._lane.runs != self._runs:
            raise RuntimeError("another session ran on this lane in between")
        known, self._seen = self._seen, None
        run = self._lane.run(work, seed, conditions, go_on=known is not None, serial=True, stop_on_fault=stop_on_fault)
        self._seen, self._runs = run.counters, self._lane.runs
        if known is None:
            return run
        counters = {name: (value - known[name]) % 2**32 for name, value in run.counters.items()}
        return replace(run, counters=counters)
