"""What a testbench is like to the gateware, what a run of requests gives, and the rules that end it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, fields
from typing import Final

from ptewalk.cosim.bench.records import Channel, Records, Status
from ptewalk.model.memory import MASK64

__all__ = ["RULES", "BatchResult", "BenchError", "Conditions", "Counters", "Pattern", "Stalls", "random_conditions"]

RULES: Final = {
    Status.TIMEOUT: "a request must be accepted and answered in time",
    Status.STRAY_RESPONSE: "a response must answer a request in flight, once",
    Status.STRAY_MEMORY: "an access to memory must belong to a request in flight",
    Status.TWO_IN_FLIGHT: "a request must not be accepted while as many as the design takes are in flight",
    Status.TWO_OUTSTANDING: "no more accesses to memory may be outstanding than the design says, and one of an id",
    Status.UNSTABLE_RESPONSE: "responses must hold valid, payload and what stands beside an OK until ready",
    Status.UNSTABLE_READ: "reads must hold valid and payload until ready",
    Status.UNSTABLE_SWAP: "swaps must hold valid and payload until ready",
    Status.UNSTABLE_FAULT: "faults must hold valid and payload until ready",
    Status.STRAY_FAULT: "the fault queue must tell each page fault that was answered once, and nothing else",
    Status.MISSING_FAULT: "the fault queue must tell every page fault, or count it as lost",
    Status.NOT_DRAINED: "a drain must end once every grant has retired",
    Status.DRAINED_EARLY: "a drain must not end while a request is in flight or a grant outstanding",
    Status.CONTEXT_IN_FLIGHT: "a context must not be taken while a request is in flight",
    Status.CONTEXT_OVERTAKEN: "a request must not be accepted before the context that was offered with it",
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


def _check_chances(what: object, prefix: str, names: tuple[str, ...]) -> None:
    for name in names:
        chance = getattr(what, name)
        if not 0 <= chance < 1:
            raise ValueError(f"{prefix}{name} must be a chance from 0 to below 1, not {chance!r}")


@dataclass(frozen=True)
class Stalls:
    """How often each channel stalls: the chance, 0 to below 1, that it does so in a cycle.

    Attributes
    ----------
    requests : float
        An idle cycle before the next request is shown.
    responses, reads, swaps, faults : float
        The channel is not ready.
    """

    requests: float = 0.0
    responses: float = 0.0
    reads: float = 0.0
    swaps: float = 0.0
    faults: float = 0.0

    def __post_init__(self) -> None:
        _check_chances(self, "stalls: ", tuple(channel.name for channel in fields(self)))


@dataclass(frozen=True)
class Conditions:
    """What the testbench is like to the gateware.

    Attributes
    ----------
    latency : int
        Cycles from an access's transfer to its answer, at least 1; also from a grant to its retirement.
    latency_spread : int
        Each access takes up to so many cycles more, drawn for each.
    retirement_spread : int
        Each grant retires up to so many cycles later, drawn for each, and so in any order.
    stalls : Stalls
        Idle cycles and backpressure.
    errors : float
        The chance that the bus refuses an access.
    drains : float
        The chance, in a cycle in which none goes on, that a drain begins.
    seed : int
        Of all that is drawn, 0 to 2**64 - 1: same seed, same cycles, at every level.
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
    latency_spread: int = 0
    retirement_spread: int = 0
    errors: float = 0.0
    drains: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("latency", 1, 2**20),
            ("latency_spread", 0, 2**20),
            ("retirement_spread", 0, 2**20),
            ("seed", 0, 2**64 - 1),
            ("max_cycles", 1, 2**62),
            ("linger", 1, 2**31),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, not {value!r}")
        _check_chances(self, "", ("errors", "drains"))

    @property
    def thresholds(self) -> tuple[int, ...]:
        """The chances, of 2**32, by `Channel`; 0 for those that are not chances."""
        stalls = self.stalls
        chances = (stalls.requests, stalls.responses, stalls.reads, stalls.swaps, stalls.faults, self.drains)
        return (*(int(chance * 2**32) for chance in chances), 0, int(self.errors * 2**32), 0)


def random_conditions(rng: random.Random, *, errors: bool = True) -> Conditions:
    """Conditions drawn at large: every kind of stall, latencies, drains, a slow fault queue, and errors of the bus."""
    chance = rng.choice((0.0, 0.0, 0.2, 0.6))
    return Conditions(
        latency=rng.choice((1, 1, 2, 3, 7, 16)),
        latency_spread=rng.choice((0, 0, 1, 5, 20)),
        retirement_spread=rng.choice((0, 3, 40)),
        stalls=Stalls(
            *(chance * rng.random(), chance * rng.random(), chance * rng.random(), chance * rng.random()),
            rng.choice((0.0, 0.0, 0.5, 0.98)),
        ),
        errors=rng.choice((0.0, 0.0, 0.01)) if errors else 0.0,
        drains=rng.choice((0.0, 0.0, 0.02)),
        seed=rng.getrandbits(64),
    )


class Pattern:
    """What is drawn: a fixed function of seed, channel and number, the same as in lane.cpp.

    Parameters
    ----------
    conditions : Conditions
    """

    def __init__(self, conditions: Conditions) -> None:
        self._thresholds = conditions.thresholds
        self._offsets = [(channel + 1) * 0x9E3779B97F4A7C15 + conditions.seed & MASK64 for channel in Channel]

    def draw(self, channel: Channel, number: int) -> int:
        """32 bits for the `number`-th cycle, access or grant."""
        x = self._offsets[channel] + number * 0xD1B54A32D192ED03 & MASK64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & MASK64
        x = (x ^ x >> 27) * 0x94D049BB133111EB & MASK64
        return (x ^ x >> 31) >> 32

    def happens(self, channel: Channel, number: int) -> bool:
        """True: in this cycle the channel stalls, or a drain begins; this access is refused."""
        threshold = self._thresholds[channel]
        return bool(threshold) and self.draw(channel, number) < threshold

    def extra(self, channel: Channel, number: int, spread: int) -> int:
        """Cycles more, 0 to `spread`, for an access or a grant."""
        return self.draw(channel, number) % (spread + 1) if spread else 0


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
    drains : int
        Drains that were begun while there was something to ask, and ended.
    most_faults : int
        Page faults that waited in the fault queue at one time, at most.
    marks, mends, delivered_faults, lost_faults : int
        The gateware's own counters, see `rtl.mmu.Mmu`; 0 for a walker alone.
    """

    cycles: int = 0
    reads: int = 0
    swaps: int = 0
    failed_swaps: int = 0
    foreign_writes: int = 0
    drains: int = 0
    most_faults: int = 0
    marks: int = 0
    mends: int = 0
    delivered_faults: int = 0
    lost_faults: int = 0

    def add(self, other: Counters) -> None:
        """Add another's counts to these; `most_faults` is the larger."""
        for one in fields(Counters):
            mine, theirs = getattr(self, one.name), getattr(other, one.name)
            setattr(self, one.name, max(mine, theirs) if one.name == "most_faults" else mine + theirs)


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
        `EVENT` records.
    translations : Records
        `TRANSLATION` records, one for each response; those beside an OK count. Empty where the design has no such port.
    faults, written, walked : Records
        `FAULT`, `WRITTEN` and `WALKED` records; empty where the design has no such port.
    counters : Counters
    compiled : bool
        True: compiled code ran it. False: the protocol level.
    seconds : float
        Wall-clock time of the run alone.
    """

    requests: Records
    responses: Records
    translations: Records
    events: Records
    faults: Records
    written: Records
    walked: Records
    counters: Counters
    compiled: bool
    seconds: float
