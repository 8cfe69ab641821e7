"""The protocol level's agents who ask and serve: the requester, and the memory with its second writer."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ptewalk.cosim.bench.ledger import Ledger
from ptewalk.cosim.bench.records import REQUEST, RESPONSE, Channel, EventKind, Status, WordMemory, make
from ptewalk.cosim.bench.streams import Pins, RuleBroken
from ptewalk.model.memory import BusError
from ptewalk.model.x86 import Outcome

__all__ = ["MemoryAgent", "RequesterAgent"]


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
