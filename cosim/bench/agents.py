"""The protocol level's agents: who asks, serves, empties, retires, drains and watches, a cycle at a time.

In each cycle all agents `sample`, right before the rising edge that ends it, then all `drive`, right after it, for the
next. What they share is the `Ledger` of a batch. lane.cpp has the same agents, in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ptewalk.cosim.bench.conditions import Conditions, Counters, Pattern
from ptewalk.cosim.bench.headers import COUNTERS
from ptewalk.cosim.bench.records import REQUEST, RESPONSE, Channel, EventKind, Records, Status, WordMemory, make
from ptewalk.cosim.bench.streams import Pins, RuleBroken, StreamMonitor, Wire
from ptewalk.model.memory import BusError
from ptewalk.model.x86 import Access, Outcome

__all__ = [
    "Agent",
    "DrainAgent",
    "FaultQueueAgent",
    "Ledger",
    "MemoryAgent",
    "RequesterAgent",
    "RetirementAgent",
    "TraceAgent",
]

_NOTHING = np.zeros(1, REQUEST)[0]


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


class RequesterAgent:
    """Asks, with the context that each request needs, and watches what is accepted and answered.

    Parameters
    ----------
    pins : Pins
    on_accept : callable (index, record)
    on_response : callable (index, record)
    interfere : callable (Ledger)
        Lets the second writer do what falls to an acceptance.
    """

    def __init__(
        self,
        pins: Pins,
        *,
        on_accept: Callable[[int, np.void], None] = lambda index, record: None,
        on_response: Callable[[int, np.void], None] = lambda index, record: None,
        interfere: Callable[[Ledger], None] = lambda ledger: None,
    ) -> None:
        requests = pins.source("requests")
        responses = pins.monitor("responses", Status.UNSTABLE_RESPONSE)
        assert requests is not None and responses is not None, "a design must have requests and responses"
        self._requests, self._responses = requests, responses
        self._contexts = pins.source("contexts")
        self._translation = pins.group("translation")
        self._found: dict[str, int] = {}
        self._on_accept, self._on_response, self._interfere = on_accept, on_response, interfere
        self._in_force: dict[str, int] | None = None
        self._offering = False
        self._accepted_at = self._valid_at = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        for stream in (self._requests, self._contexts, self._responses):
            if stream is not None:
                stream.reset()

    def forget(self) -> None:
        """As `Agent.forget`."""
        for stream in (self._requests, self._contexts, self._responses):
            if stream is not None:
                stream.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`; which context is in force is not known."""
        self._in_force = None
        self._offering = False

    def settled(self) -> bool:
        """As `Agent.settled`."""
        return True

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""
        pattern, cycle = ledger.pattern, ledger.cycle
        if not ledger.presenting:
            self._requests.retract()
        if self._contexts is not None and not self._offering:
            self._contexts.retract()
        if self._may_present(ledger) and not pattern.happens(Channel.REQUESTS, cycle):
            request = ledger.pending.popleft()
            self._requests.offer(request)
            ledger.presenting = True
            if self._contexts is not None and not self._holds(request):
                self._contexts.offer(request)
                self._offering = True
        self._responses.set_ready(not pattern.happens(Channel.RESPONSES, cycle))

    def _may_present(self, ledger: Ledger) -> bool:
        if ledger.presenting or ledger.stopped or not ledger.pending:
            return False
        return not ledger.in_flight or not ledger.stop_on_fault

    def _holds(self, request: np.void) -> bool:
        return self._in_force is not None and all(int(request[k]) == v for k, v in self._in_force.items())

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`."""
        self._responses.sample()
        response = self._responses
        accepted = ledger.presenting and self._requests.ready
        older = ledger.in_flight
        if self._offering and self._contexts is not None and self._contexts.ready:
            self._in_force = dict(self._contexts.seen())
            self._offering = False
            if older and not response.taken:
                raise RuleBroken(Status.CONTEXT_IN_FLIGHT)
        elif accepted and self._offering:
            raise RuleBroken(Status.CONTEXT_OVERTAKEN)
        if older and response.taken:
            ledger.in_flight = False
        if accepted:
            if ledger.in_flight:
                raise RuleBroken(Status.TWO_IN_FLIGHT)
            ledger.in_flight = True
        ledger.walking = older or accepted
        ledger.response_taken = None
        if response.valid and not ledger.walking:
            raise RuleBroken(Status.STRAY_RESPONSE)
        if response.valid and older:
            self._respond(ledger)
        if accepted:
            self._accept(ledger)
            if response.valid and not older:
                ledger.in_flight = not response.taken
                self._respond(ledger)

    def _accept(self, ledger: Ledger) -> None:
        record = make(REQUEST, {**(self._in_force or {}), **self._requests.seen()})
        ledger.presenting = False
        ledger.accepted.append(record)
        self._accepted_at = ledger.progress = ledger.cycle
        ledger.answered_reads = 0
        self._on_accept(len(ledger.accepted) - 1, record)
        self._interfere(ledger)

    def _respond(self, ledger: Ledger) -> None:
        found = {name: int(handle.value) for name, handle in self._translation.items()}
        if self._responses.first:
            self._valid_at = ledger.cycle
        elif self._responses.payload["outcome"] == Outcome.OK and found != self._found:
            raise RuleBroken(Status.UNSTABLE_RESPONSE)
        self._found = found
        if not self._responses.taken:
            return
        if ledger.outstanding:
            raise RuleBroken(Status.STRAY_MEMORY)
        record = make(RESPONSE, self._responses.payload | {"cycles": self._valid_at - self._accepted_at})
        ledger.response_taken = ledger.accepted[len(ledger.answers)], record
        ledger.answers.append(record)
        if found:
            ledger.translations.append(found)
        ledger.progress = ledger.cycle
        ledger.stopped = ledger.stopped or (ledger.stop_on_fault and record["outcome"] != Outcome.OK)
        self._on_response(len(ledger.answers) - 1, record)


class MemoryAgent:
    """Answers reads and swaps out of a memory, each after a latency of its own, and lets a second writer act.

    Several may be outstanding, one of an id in each channel. An address that the memory refuses gets a bus error.

    Parameters
    ----------
    pins : Pins
    memory : WordMemory
    limit : int
        Accesses that may be outstanding.
    """

    def __init__(self, pins: Pins, memory: WordMemory, *, limit: int = 1) -> None:
        reads = pins.monitor("reads", Status.UNSTABLE_READ)
        swaps = pins.monitor("swaps", Status.UNSTABLE_SWAP)
        data, swapped = pins.source("data"), pins.source("swapped")
        assert reads is not None and swaps is not None and data is not None and swapped is not None
        self._reads, self._swaps, self._data, self._swapped = reads, swaps, data, swapped
        self.memory = memory
        self._limit = limit
        self._pending: list[tuple[int, bool, bool, dict[str, int]]] = []  # due, swaps, refused, payload
        self._accesses = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        for stream in (self._reads, self._swaps, self._data, self._swapped):
            stream.reset()
        self._pending.clear()

    def forget(self) -> None:
        """As `Agent.forget`."""
        for stream in (self._reads, self._swaps, self._data, self._swapped):
            stream.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._pending.clear()
        self._accesses = 0

    def settled(self) -> bool:
        """As `Agent.settled`."""
        return True

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`: answers what is due."""
        self._data.retract()
        self._swapped.retract()
        self._reads.set_ready(not ledger.pattern.happens(Channel.READS, ledger.cycle))
        self._swaps.set_ready(not ledger.pattern.happens(Channel.SWAPS, ledger.cycle))
        for swaps in (False, True):
            due = [access for access in self._pending if access[1] == swaps and access[0] <= ledger.cycle]
            if due:
                first = min(due, key=lambda access: access[0])
                self._pending.remove(first)
                ledger.outstanding = len(self._pending)
                (self._answer_swap if swaps else self._answer_read)(ledger, first[2], first[3])

    def _answer_read(self, ledger: Ledger, error: bool, access: dict[str, int]) -> None:
        value = 0
        try:
            value = 0 if error else self.memory.load(access["address"])
        except BusError:
            error = True
        self._data.offer({"value": value, "error": error, "id": access.get("id", 0)})
        self._log(ledger, EventKind.READ, access["address"], value, value, not error, error)
        ledger.counters.reads += 1
        ledger.answered_reads += 1
        self.interfere(ledger)

    def _answer_swap(self, ledger: Ledger, error: bool, access: dict[str, int]) -> None:
        done = False
        address, old, new = access["address"], access["old"], access["new"]
        try:
            done = not error and self.memory.compare_exchange(address, old, new)
        except BusError:
            error = True
        self._swapped.offer({"done": done, "error": error, "id": access.get("id", 0)})
        self._log(ledger, EventKind.SWAP, address, old, new, done, error)
        ledger.counters.swaps += 1
        ledger.counters.failed_swaps += not done

    def interfere(self, ledger: Ledger) -> None:
        """Let the second writer do what falls here."""
        current = len(ledger.accepted) - 1
        while ledger.interferences:
            row = ledger.interferences[0]
            if row["request"] > current or (row["request"] == current and row["after"] > ledger.answered_reads):
                return
            ledger.interferences.popleft()
            if row["request"] == current:
                address, value = int(row["address"]), int(row["value"])
                old = self.memory.load(address)
                self.memory.store(address, value)
                self._log(ledger, EventKind.FOREIGN, address, old, value, True, False)
                ledger.counters.foreign_writes += 1

    @staticmethod
    def _log(ledger: Ledger, kind: EventKind, address: int, old: int, new: int, done: bool, error: bool) -> None:
        ledger.events.append((address, old, new, len(ledger.accepted) - 1, int(kind), done, error))

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`: takes the transfers of the cycle."""
        self._reads.sample()
        self._swaps.sample()
        asked = self._reads.valid + self._swaps.valid
        if not asked:
            return
        if not ledger.walking:
            raise RuleBroken(Status.STRAY_MEMORY)
        if len(self._pending) + asked > self._limit:
            raise RuleBroken(Status.TWO_OUTSTANDING)
        for stream, swaps in ((self._reads, False), (self._swaps, True)):
            if stream.taken:
                self._begin(ledger, swaps, dict(stream.payload))

    def _begin(self, ledger: Ledger, swaps: bool, access: dict[str, int]) -> None:
        if any(other[1] == swaps and other[3].get("id") == access.get("id") for other in self._pending):
            raise RuleBroken(Status.TWO_OUTSTANDING)
        conditions, pattern, number = ledger.conditions, ledger.pattern, self._accesses
        due = ledger.cycle + conditions.latency + pattern.extra(Channel.LATENCY, number, conditions.latency_spread)
        self._pending.append((due, swaps, pattern.happens(Channel.ERRORS, number), access))
        self._accesses += 1
        ledger.outstanding = len(self._pending)


class FaultQueueAgent:
    """Empties the fault queue, at the pace that the conditions say, and at full pace when all is over.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        self._faults: StreamMonitor | None = pins.monitor("faults", Status.UNSTABLE_FAULT)
        self._lost = pins.pin("lost_faults")
        self._lost_before = self._answered = self._seen = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        if self._faults is not None:
            self._faults.reset()

    def forget(self) -> None:
        """As `Agent.forget`."""
        if self._faults is not None:
            self._faults.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._lost_before = 0 if self._lost is None else int(self._lost.value)
        self._answered = self._seen = 0

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""
        if self._faults is not None:
            self._faults.set_ready(ledger.over or not ledger.pattern.happens(Channel.FAULTS, ledger.cycle))

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`: takes a record."""
        if self._faults is None:
            return
        self._faults.sample()
        if self._faults.taken:
            ledger.faults.append(dict(self._faults.payload))
            self._seen += 1
        if ledger.response_taken is not None:
            request, response = ledger.response_taken
            faulted = response["outcome"] == Outcome.PAGE_FAULT
            self._answered += bool(faulted and request["access"] != Access.PROBE)
        if self._seen > self._answered:
            raise RuleBroken(Status.STRAY_FAULT)
        ledger.counters.most_faults = max(ledger.counters.most_faults, self._answered - self._seen)

    def settled(self) -> bool:
        """As `Agent.settled`: every fault was told, or counted as lost."""
        lost = 0 if self._lost is None else int(self._lost.value) - self._lost_before & 0xFFFF_FFFF
        return self._faults is None or self._seen + lost == self._answered


class RetirementAgent:
    """Retires each grant after a time of its own, and so in any order.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        self._retired = pins.source("retired")
        self._grants: list[tuple[int, int]] = []  # due, tag
        self._number = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        if self._retired is not None:
            self._retired.reset()

    def forget(self) -> None:
        """As `Agent.forget`."""
        if self._retired is not None:
            self._retired.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._grants.clear()
        self._number = 0

    def settled(self) -> bool:
        """As `Agent.settled`."""
        return True

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""
        if self._retired is None:
            return
        if self._retired.valid.value:
            self._retired.valid.set(0)
        due = [grant for grant in self._grants if grant[0] <= ledger.cycle]
        if due:
            first = min(due, key=lambda grant: grant[0])
            self._grants.remove(first)
            self._retired.offer({"tag": first[1]})
            ledger.grants = len(self._grants)

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`: an OK to a write or rmw is a grant."""
        if self._retired is None or ledger.response_taken is None:
            return
        request, response = ledger.response_taken
        if response["outcome"] != Outcome.OK or request["access"] not in (Access.WRITE, Access.RMW):
            return
        conditions = ledger.conditions
        extra = ledger.pattern.extra(Channel.RETIREMENT, self._number, conditions.retirement_spread)
        self._grants.append((ledger.cycle + conditions.latency + extra, int(response["tag"])))
        self._number += 1
        ledger.grants = len(self._grants)


class DrainAgent:
    """Drains: at any time, as the conditions say, and when all is over; and clears the status as a batch begins.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        handle = pins.pin("drain")
        self._drain = None if handle is None else Wire(handle)
        self._drained = pins.pin("drained")
        clear = [port for path, port in pins.design.plain.items() if ".clear." in f".{path}"]
        self._clear = [Wire(pins.port(port)) for port in clear]
        self._over = False
        self._grants_before = 0

    def reset(self) -> None:
        """As `Agent.reset`."""
        for wire in (*([self._drain] if self._drain else ()), *self._clear):
            wire.forget()
            wire.set(0)

    def forget(self) -> None:
        """As `Agent.forget`."""
        for wire in (*([self._drain] if self._drain else ()), *self._clear):
            wire.forget()

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._over = False

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""
        if self._drain is None:
            return
        if not ledger.draining and not ledger.over and ledger.pattern.happens(Channel.DRAINS, ledger.cycle):
            ledger.draining = True
        self._drain.set(int(ledger.draining or ledger.over))
        for wire in self._clear:
            wire.set(int(ledger.cycle == 0))
        self._grants_before = ledger.grants

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`: a drain ends."""
        if self._drained is None:
            return
        self._over = bool(self._drained.value)
        if not self._over:
            return
        if ledger.walking or self._grants_before:
            raise RuleBroken(Status.DRAINED_EARLY)
        ledger.counters.drains += ledger.draining
        ledger.draining = False
        ledger.progress = ledger.cycle

    def settled(self) -> bool:
        """As `Agent.settled`: nothing is in flight, the design says too."""
        return self._drained is None or self._over


class TraceAgent:
    """Keeps what the trace port tells, and what the gateware's counters count.

    Parameters
    ----------
    pins : Pins
    """

    def __init__(self, pins: Pins) -> None:
        self._written = pins.monitor("written", Status.COMPLETE)
        self._walked = pins.monitor("walked", Status.COMPLETE)
        self._counters: dict[str, Any] = {name: pin for name in COUNTERS if (pin := pins.pin(name)) is not None}
        self._before: dict[str, int] = {}

    def reset(self) -> None:
        """As `Agent.reset`."""

    def forget(self) -> None:
        """As `Agent.forget`."""

    def begin(self, ledger: Ledger) -> None:
        """As `Agent.begin`."""
        self._before = {name: int(pin.value) for name, pin in self._counters.items()}

    def drive(self, ledger: Ledger) -> None:
        """As `Agent.drive`."""

    def sample(self, ledger: Ledger) -> None:
        """As `Agent.sample`."""
        for stream, log in ((self._written, ledger.written), (self._walked, ledger.walked)):
            if stream is not None:
                stream.sample()
                if stream.valid:
                    log.append(dict(stream.payload))

    def settled(self) -> bool:
        """As `Agent.settled`."""
        return True

    def counted(self) -> dict[str, int]:
        """The gateware's own counters since `begin`."""
        return {name: int(pin.value) - self._before[name] & 0xFFFF_FFFF for name, pin in self._counters.items()}
