"""The protocol level of an MMU that caches: many requests in flight, contexts, invalidations, a second writer.

The bench drives and watches the ports by name, a cycle at a time, and keeps the log that the golden TLB judges. It
knows no simulator: who runs it gives a function that reads a port, and one that drives one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ptewalk.cosim.bench.events import (
    Accept,
    Answer,
    Foreign,
    Invalidate,
    LogEvent,
    Read,
    SetContext,
    Swap,
    WalkEnd,
)
from ptewalk.cosim.bench.records import RESPONSE, context_values, decode, make
from ptewalk.cosim.bench.waits import WaitRules
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import PageFault, Request, State, Translated
from ptewalk.model.x86 import Access, Invalidation, Wait
from ptewalk.rtl.description import DesignDescription

__all__ = ["CachingBench", "CachingConditions", "RuleOfCachingBroken", "Story"]

Get = Callable[[str], int]
Set = Callable[[str, int], None]


class RuleOfCachingBroken(Exception):
    """The design broke a rule of its ports, or did not answer in time."""


class Story(Protocol):
    """Who says what is asked next; `stimulus.caches.CacheStory` is one."""

    memory: SparseMemory

    def request(self) -> Request:
        """The next access."""

    def context(self) -> tuple[State, int, bool]:
        """The next context: state, PCID, keep."""

    def change(self) -> tuple[int, int]:
        """The next write by software: address, value."""

    def invalidation(self, flying: Sequence[int], *, changes: bool = False) -> tuple[Invalidation, int, int]:
        """The next invalidation: kind, linear, PCID; with `changes` of what was changed last, mostly."""


@dataclass(frozen=True)
class CachingConditions:
    """How often what happens: chances in a cycle in which it may, 0 to 1.

    Attributes
    ----------
    idle : float
        No request is offered.
    contexts, invalidations, changes, drains : float
        One of these begins.
    stalls : float
        Each of reads, swaps, responses and faults is not ready.
    errors : float
        An access to memory is refused.
    follows : float
        A change is followed by an invalidation that is mostly of what was changed, within few cycles.
    waits : float
        An invalidation waits, for stores or for all.
    latency, latency_spread : int
        Cycles of an access, and up to so many more.
    tags : int
        Tags in use.
    outstanding : int
        Requests in flight at most; 0: as many as there are tags.
    retirement : int
        What is granted retires a cycle after its answer, and up to so many more.
    """

    idle: float = 0.5
    contexts: float = 0.005
    invalidations: float = 0.01
    changes: float = 0.02
    drains: float = 0.001
    stalls: float = 0.1
    errors: float = 0.0
    follows: float = 0.0
    waits: float = 0.3
    latency: int = 1
    latency_spread: int = 2
    tags: int = 16
    outstanding: int = 0
    retirement: int = 30


class CachingBench:
    """Drives one run of `count` requests.

    Parameters
    ----------
    design : DesignDescription
    story : Story
        Its memory is changed in place.
    count : int
    seed : str
    conditions : CachingConditions

    Attributes
    ----------
    log : list of LogEvent
    when : list of int
        The cycle of each.
    faults : list of (linear, code, tag)
        What the fault queue told, and `expected_faults` what it had to tell.
    drains : int
        Drains that ended.
    waits : WaitRules
        What it knows of invalidations that wait.
    """

    LATE = 2000

    def __init__(
        self,
        design: DesignDescription,
        story: Story,
        count: int,
        *,
        seed: str,
        conditions: CachingConditions | None = None,
    ) -> None:
        self.log: list[LogEvent] = []
        self.when: list[int] = []
        self.faults: list[tuple[int, int, int]] = []
        self.expected_faults: list[tuple[int, int, int]] = []
        self.drains = 0
        self.waits = WaitRules()
        self._design, self._story, self._left = design, story, count
        self._conditions = conditions or CachingConditions()
        self._rng, self._waits_rng = random.Random(seed), random.Random(f"waits {seed}")
        self._cycle = self._progress = self._waited = 0
        self._follows: int | None = None  # the cycle in which the last change is invalidated
        self._flying: dict[int, Request] = {}
        self._granted: dict[int, int] = {}  # tag to the cycle in which it retires
        self._offered: dict[str, Mapping[str, int]] = {}  # role of a stream to what is offered
        self._objects: dict[str, LogEvent] = {}
        self._pending: list[tuple[int, bool, dict[str, int]]] = []  # due, swaps, payload
        self._waits: dict[str, dict[str, int]] = {}
        self._draining = False
        self._context = False  # one was taken
        self._shown: dict[str, Mapping[str, int]] = {}
        self._given: set[str] = set()
        self._lost = 0

    @property
    def done(self) -> bool:
        """All is asked and answered, and nothing is on its way."""
        busy = self._flying or self._offered or self._granted or self._draining or self._pending or self.waits.waiting
        return not self._left and not busy and len(self.faults) + self._lost >= len(self.expected_faults)

    # Driving ---------------------------------------------------------------------------------------------------------

    def drive(self, put: Set) -> None:
        """What the inputs are in the cycle that begins."""
        rng, conditions = self._rng, self._conditions
        self._answer_memory(put)
        if self._context and rng.random() < conditions.changes:
            address, value = self._story.change()
            self._story.memory.store(address, value)
            self._note(Foreign(address, value))
            if conditions.follows and rng.random() < conditions.follows:
                self._follows = self._cycle + rng.choice((0, 0, 1, 2, rng.randrange(20)))
        if "contexts" not in self._offered and (not self._context or rng.random() < conditions.contexts):
            self._offer_context()
        follows = self._follows is not None and self._follows <= self._cycle
        may_invalidate = self._context and "invalidations" not in self._offered
        if may_invalidate and (follows or rng.random() < conditions.invalidations):
            flying = [request.linear for request in self._flying.values()]
            waits = self._waits_rng.random() < conditions.waits
            wait = self._waits_rng.choice((Wait.STORES, Wait.ALL)) if waits else Wait.NONE
            self._offer_invalidation(*self._story.invalidation(flying, changes=follows), wait)
            self._follows = None if follows else self._follows
        if self._context and self._left and "requests" not in self._offered and rng.random() >= conditions.idle:
            self._offer_request()
        for role in ("contexts", "invalidations", "requests"):
            self._show(put, role)
        self._retire(put)
        self._draining |= bool(self._context and self._left and rng.random() < conditions.drains)
        put(self._pin("drain"), self._draining)
        for role in ("responses", "reads", "swaps", "faults"):
            stream = self._design.stream(role)
            assert stream is not None and stream.ready is not None
            put(stream.ready, rng.random() >= conditions.stalls)

    def _note(self, event: LogEvent) -> None:
        self.log.append(event)
        self.when.append(self._cycle)

    def _pin(self, role: str) -> str:
        pin = self._design.pin(role)
        assert pin is not None
        return pin

    def _offer(self, role: str, payload: Mapping[str, int], event: LogEvent) -> None:
        self._offered[role] = payload
        self._objects[role] = event

    def _offer_context(self) -> None:
        state, pcid, keep = self._story.context()
        self._offer("contexts", context_values(state, pcid, keep=keep), SetContext(state, pcid, keep))

    def _offer_invalidation(self, kind: Invalidation, linear: int, pcid: int, wait: Wait) -> None:
        payload = {"kind": kind, "linear": linear, "pcid": pcid, "wait": wait}
        self._offer("invalidations", payload, Invalidate(kind, linear, pcid, wait))

    def _offer_request(self) -> None:
        free = [tag for tag in range(self._conditions.tags) if tag not in self._flying and tag not in self._granted]
        if not free or 0 < self._conditions.outstanding <= len(self._flying):
            return
        request, tag = self._story.request(), self._rng.choice(free)
        fields = {"linear": request.linear, "access": int(request.access), "user": request.user}
        self._offer(
            "requests", fields | {"implicit": request.implicit, "ac": request.ac, "tag": tag}, Accept(tag, request)
        )
        self._left -= 1

    def _show(self, put: Set, role: str) -> None:
        """What stands at a stream into the design; what was taken turns into its complement."""
        offered = self._offered.get(role)
        if offered is self._shown.get(role):
            return
        stream = self._design.stream(role)
        assert stream is not None
        put(stream.valid, offered is not None)
        for field, port in stream.fields.items():
            mask = (1 << self._design.width(port)) - 1
            put(port, int(offered[field]) if offered is not None else ~int(self._shown[role][field]) & mask)
        if offered is not None:
            self._shown[role] = offered
        else:
            del self._shown[role]

    def _give(self, put: Set, role: str, payload: Mapping[str, int] | None) -> None:
        stream = self._design.stream(role)
        assert stream is not None
        put(stream.valid, payload is not None)
        if payload is not None or role in self._given:
            for field, port in stream.fields.items():
                put(port, int(payload[field]) if payload is not None else 0)
        if payload is None:
            self._given.discard(role)
        else:
            self._given.add(role)

    def _retire(self, put: Set) -> None:
        due = [tag for tag, cycle in self._granted.items() if cycle <= self._cycle]
        for tag in due[:1]:
            del self._granted[tag]
            self.waits.retired(tag)
        self._give(put, "retired", {"tag": due[0]} if due else None)

    def _answer_memory(self, put: Set) -> None:
        memory = self._story.memory
        for swaps, role in ((False, "data"), (True, "swapped")):
            due = [access for access in self._pending if access[1] == swaps and access[0] <= self._cycle]
            if not due:
                self._give(put, role, None)
                continue
            self._pending.remove(due[0])
            access = due[0][2]
            address, error = access["address"], self._rng.random() < self._conditions.errors
            try:
                if swaps:
                    done = not error and memory.compare_exchange(address, access["old"], access["new"])
                else:
                    value = 0 if error else memory.load(address)
            except BusError:
                error, done, value = True, False, 0
            if swaps:
                self._give(put, role, {"done": done, "error": error, "id": access["id"]})
                self._note(Swap(address, access["old"], access["new"], done, error, self._walker(access)))
            else:
                self._give(put, role, {"value": value, "error": error, "id": access["id"]})
                self._note(Read(address, value, error, self._walker(access)))

    # Watching --------------------------------------------------------------------------------------------------------

    def sample(self, get: Get) -> None:
        """What the ports say of the cycle that ends."""
        for role in ("requests", "contexts", "invalidations"):
            stream = self._design.stream(role)
            assert stream is not None and stream.ready is not None
            if role in self._offered and get(stream.ready):
                self._accepted(role)
        walked = self._taken(get, "walked")
        if walked is not None:
            walker = self._design.pin("walker")
            self._note(WalkEnd(walked["tag"], 0 if walker is None else get(walker)))
        self._sample_memory(get)
        response = self._taken(get, "responses")
        if response is not None:
            self._respond(response)
        self._lost = get(self._pin("lost_faults"))
        fault = self._taken(get, "faults")
        if fault is not None:
            self.faults.append((fault["linear"], fault["code"], fault["tag"]))
        if self._draining and get(self._pin("drained")):
            if self._flying or self._granted:
                raise RuleOfCachingBroken(
                    f"cycle {self._cycle}: a drain ended while requests or grants were outstanding"
                )
            self._draining = False
            self.drains += 1
        completion = self._taken(get, "completions")
        broken = self.waits.completed(completion["wait"]) if completion is not None else None
        if broken is not None:
            raise RuleOfCachingBroken(f"cycle {self._cycle}: {broken}")
        self._cycle += 1
        if not self._flying and not self._offered and not self.waits.waiting:
            self._progress = self._cycle
        # Contexts and invalidations that wait for nothing are progress, but not of one that waits.
        if completion is not None or not self.waits.waiting:
            self._waited = self._cycle
        if self._cycle - self._waited > self.LATE:
            raise RuleOfCachingBroken(f"cycle {self._cycle}: an invalidation that waits is not complete")
        if self._cycle - self._progress > self.LATE:
            raise RuleOfCachingBroken(f"cycle {self._cycle}: no progress; in flight are tags {sorted(self._flying)}")

    def _accepted(self, role: str) -> None:
        event = self._objects.pop(role)
        del self._offered[role]
        self._note(event)
        if role != "invalidations":  # they go on whatever hangs
            self._progress = self._cycle
        if isinstance(event, Accept):
            self._flying[event.tag] = event.request
            self.waits.accepted(event.tag)
        elif isinstance(event, SetContext):
            self._context = True
        elif isinstance(event, Invalidate):
            self.waits.invalidated(event.wait)

    def _taken(self, get: Get, role: str) -> dict[str, int] | None:
        """The payload of a transfer out of the design; what waits must stand."""
        stream = self._design.stream(role)
        assert stream is not None
        waits = self._waits.pop(role, None)
        if not get(stream.valid):
            if waits is not None:
                raise RuleOfCachingBroken(f"cycle {self._cycle}: {role} withdrew what was not taken")
            return None
        payload = {field: get(port) for field, port in stream.fields.items()}
        if waits is not None and waits != payload:
            raise RuleOfCachingBroken(f"cycle {self._cycle}: {role} changed before it was taken")
        if stream.ready is not None and not get(stream.ready):
            self._waits[role] = payload
            return None
        return payload

    def _sample_memory(self, get: Get) -> None:
        conditions = self._conditions
        for swaps, role in ((False, "reads"), (True, "swaps")):
            access = self._taken(get, role)
            if access is not None:
                if any(self._walker(other[2]) == self._walker(access) for other in self._pending):
                    raise RuleOfCachingBroken(f"cycle {self._cycle}: a walker has two accesses to memory outstanding")
                due = self._cycle + conditions.latency + self._rng.randint(0, conditions.latency_spread)
                self._pending.append((due, swaps, access))

    def _walker(self, access: Mapping[str, int]) -> int:
        """Whose access it is: the low bits of its id, where there are several walkers."""
        return access["id"] % (1 << (int(self._design.parameters["walkers"]) - 1).bit_length())

    def _respond(self, response: dict[str, int]) -> None:
        tag = response["tag"]
        if tag not in self._flying:
            raise RuleOfCachingBroken(f"cycle {self._cycle}: an answer with tag {tag}, which is not in flight")
        request = self._flying.pop(tag)
        result = decode(make(RESPONSE, response))
        self._note(Answer(tag, result))
        self._progress = self._cycle
        store = request.access in (Access.WRITE, Access.RMW)
        reads = self._design.parameters["read_grants"] and request.access != Access.PROBE
        granted = isinstance(result, Translated) and (store or reads)
        self.waits.answered(tag, granted=granted, store=store)
        if granted:
            self._granted[tag] = self._cycle + 1 + self._rng.randint(0, self._conditions.retirement)
        if isinstance(result, PageFault) and request.access != Access.PROBE:
            self.expected_faults.append((request.linear, result.code, tag))
