"""What the protocol level's agents share: the state of one batch, and what each of them does in a cycle.

In each cycle all agents `sample`, right before the rising edge that ends it, then all `drive`, right after it, for the
next. What they share is the `Ledger` of a batch. lane.cpp has the same agents, in the same order.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np

from ptewalk.cosim.bench.conditions import Conditions, Counters, Pattern
from ptewalk.cosim.bench.records import Records

__all__ = ["Agent", "Ledger"]


class Ledger:
    """One batch: what is asked, what happened so far, and what the agents tell one another.

    Parameters
    ----------
    requests, interferences : Records
    conditions : Conditions
    stop_on_fault : bool
    """

    def __init__(
        self, requests: Records, interferences: Records, conditions: Conditions, *, stop_on_fault: bool = False
    ) -> None:
        self.conditions = conditions
        self.pattern = Pattern(conditions)
        self.pending = deque(requests)
        self.interferences = deque(interferences)
        self.stop_on_fault = stop_on_fault
        self.cycle = -1
        self.progress = 0
        self.presenting = False
        self.in_flight = False
        self.walking = False
        """A request is in flight in the cycle that is sampled."""
        self.stopped = False
        self.over = False
        self.draining = False
        self.outstanding = 0
        """Accesses to memory that are not answered."""
        self.grants = 0
        """Grants that have not retired."""
        self.answered_reads = 0
        self.response_taken: tuple[np.void, np.void] | None = None
        """Request and response of this cycle."""
        self.accepted: list[np.void] = []
        self.answers: list[np.void] = []
        self.translations: list[dict[str, int]] = []
        self.events: list[tuple[int, ...]] = []
        self.faults: list[dict[str, int]] = []
        self.written: list[dict[str, int]] = []
        self.walked: list[dict[str, int]] = []
        self.counters = Counters()

    @property
    def done(self) -> bool:
        """Nothing is left to ask or to wait for."""
        asked = self.stopped or not self.pending
        return asked and not (self.in_flight or self.presenting or self.grants or self.draining)


class Agent(Protocol):
    """One who has a part in each cycle."""

    def reset(self) -> None:
        """The design is reset: leave every input alone, expect nothing."""

    def begin(self, ledger: Ledger) -> None:
        """A batch begins; raises nothing."""

    def drive(self, ledger: Ledger) -> None:
        """What the inputs are to be in the cycle that begins."""

    def sample(self, ledger: Ledger) -> None:
        """What the pins say of the cycle that ends; raises `RuleBroken`."""

    def settled(self) -> bool:
        """True: nothing is still to come, all else being over."""

    def forget(self) -> None:
        """Compiled code drove the inputs, and left no valid and no ready high."""
