"""One testbench for the walker, at two levels.

At the *protocol level* Python drives and watches every stream in every cycle, in any simulator. At the *batch level* a
whole array of requests runs in compiled code (lane.cpp). `WalkerBench.batch` takes and gives the same arrays at
both, and the same requests get the same answers in the same cycles.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import Event, RisingEdge, Timer

from ptewalk.cosim.bench.lane import BatchResult, BenchError, CompiledLane, Conditions, Counters, Status
from ptewalk.cosim.bench.records import (
    EVENT,
    INTERFERENCE,
    REQUEST,
    RESPONSE,
    EventKind,
    Records,
    encode_requests,
    make,
    validate_interferences,
    validate_requests,
)
from ptewalk.cosim.bench.streams import (
    FaultUnitPort,
    MemoryResponder,
    Pattern,
    RuleBroken,
    StreamMonitor,
    StreamSource,
)
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import Outcome

__all__ = ["WalkerBench"]

_PERIOD_NS = 10
_CONTROL = ("root", "control", "pkru", "pkrs", "track", "saved_dirty")
_RESPONSE = ("physical", "tag", "code", "outcome", "level", "pwt", "pcd", "pat")


class WalkerBench:
    """A walker (or an MMU), its clock, its memory, and one who asks it.

    Parameters
    ----------
    dut : cocotb handle
        The top, `ptewalk_walker` or `ptewalk_mmu`.
    memory : SparseMemory
        Where the tables are; changed in place. It must not have more physical address bits than the walker.
    conditions : Conditions, optional
        Latency, stalls, seed and limits, where a call does not say otherwise.

    Attributes
    ----------
    on_request : list of callable (index, record)
        Protocol level: called with the `REQUEST` record that the monitor saw at the pins, as a request is accepted.
    on_response : list of callable (index, record)
        Protocol level: called with the `RESPONSE` record, as a response is taken.
    """

    def __init__(self, dut: Any, memory: SparseMemory, conditions: Conditions | None = None) -> None:
        self.dut = dut
        self.memory = memory
        self.conditions = conditions or Conditions()
        self.on_request: list[Callable[[int, np.void], None]] = []
        self.on_response: list[Callable[[int, np.void], None]] = []
        self.soft_dirty = hasattr(dut, "contexts__payload__track")
        self.tag_bits = len(dut.requester__requests__payload__tag)
        self.physical_bits = len(dut.memory__reads__payload__address)
        if memory.physical_bits > self.physical_bits:
            raise ValueError(
                f"the memory must have at most the walker's {self.physical_bits} physical address bits, "
                f"not {memory.physical_bits}"
            )
        widths = (("linear", 64), ("access", 3), ("user", 1), ("implicit", 1), ("ac", 1), ("tag", self.tag_bits))
        self._request_fields = [name for name, _ in widths]
        self._requests = StreamSource(dut, "requester__requests", widths, ("linear",))
        self._request_ready = dut.requester__requests__ready
        self._control_names = _CONTROL if self.soft_dirty else _CONTROL[:4]
        self._contexts = StreamSource(
            dut,
            "contexts",
            [(name, len(getattr(dut, f"contexts__payload__{name}"))) for name in self._control_names],
            ("root", "control", "pkru", "pkrs"),
        )
        self._context_ready = dut.contexts__ready
        self._request_pins = [getattr(dut, f"requester__requests__payload__{name}") for name in self._request_fields]
        self._control_pins = [getattr(dut, f"contexts__payload__{name}") for name in self._control_names]
        self._responses = StreamMonitor(dut, "requester__responses", _RESPONSE, Status.UNSTABLE_RESPONSE)
        self._memory_port = MemoryResponder(dut, memory, self._on_event)
        self._fault_unit = FaultUnitPort(dut) if hasattr(dut, "supervisor__drain") else None
        self._clock = Clock(dut.clk, _PERIOD_NS, unit="ns")
        self._loop: Any = None
        self._failure: BenchError | None = None
        self._busy = False
        self._woken = Event()
        self._clear(self.conditions)

    @property
    def has_batch_level(self) -> bool:
        """True: `batch` runs in compiled code where it is not told otherwise."""
        return CompiledLane.find() is not None

    def use(self, memory: SparseMemory) -> None:
        """Give the walker another memory; not while a batch runs. ValueError when it has too many address bits."""
        if memory.physical_bits > self.physical_bits:
            raise ValueError(
                f"the memory must have at most the walker's {self.physical_bits} physical address bits, "
                f"not {memory.physical_bits}"
            )
        self.memory = self._memory_port.memory = memory

    # Coming and going ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the clock and reset the design. Also the way on after a `BenchError`."""
        if self._loop is not None:
            self._loop.cancel()
            self._clock.stop()
            await Timer(_PERIOD_NS, unit="ns")
        self._clear(self.conditions)
        self._failure = None
        self._requests.reset()
        self._responses.reset()
        self._memory_port.reset()
        if self._fault_unit:
            self._fault_unit.reset()
        self._contexts.reset()
        self.dut.rst.value = 1
        self._clock.start()
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)
        self._loop = cocotb.start_soon(self._cycles())

    async def request(self, state: State, request: Request, *, tag: int = 0) -> np.void:
        """Ask for one translation at the protocol level.

        Returns
        -------
        np.void
            The `RESPONSE` record; `transactions.decode` makes the model's result of it.

        Raises
        ------
        BenchError
            A rule of a port was broken, or there was no response in time.
        """
        result = await self.batch(encode_requests([(state, request)], [tag]), compiled=False)
        answer: np.void = result.responses[0]
        return answer

    @asynccontextmanager
    async def halted(self) -> AsyncIterator[Callable[..., BatchResult]]:
        """The batch level without awaits: within this context the clock stands still between calls.

        Yields a function of (requests, memory, stop_on_fault) that runs `REQUEST` records, which must be valid, in any
        memory with no more physical address bits than the walker's. RuntimeError when there is no batch level.
        """
        lane = CompiledLane.find()
        if lane is None:
            raise RuntimeError("this model has no batch level; 'ptewalk doctor' says which simulator has one")
        none = np.zeros(0, INTERFERENCE)

        def run(requests: Records, memory: SparseMemory, *, stop_on_fault: bool = False) -> BatchResult:
            return lane.run(requests, memory, none, self.conditions, stop_on_fault=stop_on_fault, event_capacity=0)

        await self._halt()
        try:
            yield run
        finally:
            self._resume()

    async def batch(
        self,
        requests: Records,
        *,
        interferences: Records | None = None,
        conditions: Conditions | None = None,
        stop_on_fault: bool = False,
        event_capacity: int = 0,
        compiled: bool | None = None,
    ) -> BatchResult:
        """Have `requests` translated, one after the other.

        A request is shown while an older one is still in flight, unless `stop_on_fault` is on; with another context
        than the one before that is on offer beside it.

        Parameters
        ----------
        requests : Records (n,)
            `REQUEST` records.
        interferences : Records (m,), optional
            `INTERFERENCE` records: what a second writer does.
        conditions : Conditions, optional
            Instead of the bench's own.
        stop_on_fault : bool
            Stop after the first response that is not OK; the requests after it are not begun.
        event_capacity : int
            Most `EVENT` records to return; 0: none are kept.
        compiled : bool, optional
            True: at the batch level, RuntimeError when there is none. False: at the protocol level. None: at the batch
            level when there is one.

        Raises
        ------
        TypeError, ValueError
            An array is not what it must be; nothing was begun.
        BenchError
            A rule of a port was broken, or there was no response in time. `start` again before the next call.
        """
        conditions = conditions or self.conditions
        requests = validate_requests(
            requests, physical_bits=self.physical_bits, tag_bits=self.tag_bits, soft_dirty=self.soft_dirty
        )
        if interferences is None:
            interferences = np.zeros(0, INTERFERENCE)
        interferences = validate_interferences(interferences, requests=len(requests), memory=self.memory)
        if event_capacity < 0:
            raise ValueError(f"event_capacity must not be negative, not {event_capacity!r}")
        if self._loop is None:
            raise RuntimeError("start() must be awaited before batch()")
        if self._failure is not None:
            raise RuntimeError("start() must be awaited again after an error") from self._failure
        if self._busy:
            raise RuntimeError("batch() must not be called while another batch runs")
        lane = CompiledLane.find() if compiled is not False else None
        if compiled and lane is None:
            raise RuntimeError("this model has no batch level; 'ptewalk doctor' says which simulator has one")
        self._busy = True
        try:
            if lane is None:
                return await self._batch_by_protocol(requests, interferences, conditions, stop_on_fault, event_capacity)
            await self._halt()
            try:
                return lane.run(
                    requests,
                    self.memory,
                    interferences,
                    conditions,
                    stop_on_fault=stop_on_fault,
                    event_capacity=event_capacity,
                )
            finally:
                self._resume()
        except BenchError as error:
            self._failure = error
            self._loop.cancel()
            raise
        finally:
            self._busy = False

    # The batch level -------------------------------------------------------------------------------------------------

    async def _halt(self) -> None:
        """Stop the clock, low, with every write done."""
        await RisingEdge(self.dut.clk)
        self._clock.stop()
        self.dut.clk.value = 0
        await Timer(_PERIOD_NS, unit="ns")

    def _resume(self) -> None:
        """Let cocotb's clock go on; the compiled loop left every valid and ready at 0."""
        self._requests.forget()
        self._responses.ready.value = 0
        self._memory_port.forget()
        if self._fault_unit:
            self._fault_unit.forget()
        self._contexts.forget()
        self._clock.start(start_high=False)

    # The protocol level ----------------------------------------------------------------------------------------------

    def _clear(self, conditions: Conditions) -> None:
        """Nothing to ask, nothing in flight; cycle 0 comes next."""
        self._now = conditions
        self._pattern = Pattern(conditions.stalls, conditions.seed)
        self._cycle = -1
        self._pending: deque[np.void] = deque()
        self._shown: np.void | None = None
        self._in_flight = False
        self._offering = False
        self._context: dict[str, int] | None = None
        self._accepted: list[np.void] = []
        self._answers: list[np.void] = []
        self._events: list[tuple[int, ...]] = []
        self._event_capacity = 0
        self._interferences: deque[np.void] = deque()
        self._counters = Counters()
        self._stop_on_fault = self._stopped = False
        self._accepted_at = self._valid_at = self._progress = self._answered_reads = 0
        self._idle_cycles = 0
        self._events_full = self._running = False

    async def _batch_by_protocol(
        self,
        requests: Records,
        interferences: Records,
        conditions: Conditions,
        stop_on_fault: bool,
        event_capacity: int,
    ) -> BatchResult:
        started = time.perf_counter()
        self._clear(conditions)
        self._running = True
        self._pending.extend(requests)
        self._interferences.extend(interferences)
        self._stop_on_fault, self._event_capacity = stop_on_fault, event_capacity
        if self._fault_unit:
            self._fault_unit.begin()
        self._woken.clear()
        await self._woken.wait()
        if self._failure is not None:
            raise self._failure
        if self._fault_unit:
            self._counters = replace(self._counters, **self._fault_unit.counted())
        return BatchResult(
            requests=np.array(self._accepted, REQUEST),
            responses=np.array(self._answers, RESPONSE),
            events=np.array(self._events, EVENT),
            counters=replace(self._counters, cycles=self._cycle),
            compiled=False,
            seconds=time.perf_counter() - started,
        )

    async def _cycles(self) -> None:
        """Sample and drive in each cycle; what goes wrong is raised where a batch is awaited, or here when none is."""
        edge = RisingEdge(self.dut.clk)
        while True:
            await edge
            try:
                self._sample()
                over = self._over()
                if self._cycle >= 0 and not over and self._cycle + 1 - self._progress > self._now.max_cycles:
                    raise RuleBroken(Status.TIMEOUT)
                if self._fault_unit and over and self._running and self._idle_cycles == self._now.linger:
                    self._fault_unit.settle()
            except RuleBroken as broken:
                self._failure = BenchError(broken.status, len(self._accepted) - 1, self._cycle + 1)
                if not self._running:
                    raise self._failure from None
                self._running = False
                self._woken.set()
                return
            self._cycle += 1
            if over and self._running:
                self._idle_cycles += 1
                if self._idle_cycles > self._now.linger:
                    self._running = False
                    self._woken.set()
            self._drive(over)

    def _over(self) -> bool:
        waits = self._fault_unit is not None and self._fault_unit.pending
        return not self._in_flight and self._shown is None and (self._stopped or not self._pending) and not waits

    def _sample(self) -> None:
        """What the pins say of the cycle that ends."""
        older = self._in_flight
        self._responses.sample()
        response = self._responses
        accepted = self._shown is not None and bool(self._request_ready.value)
        if accepted and self._offering:
            raise RuleBroken(Status.CONTEXT_OVERTAKEN)
        if self._offering and bool(self._context_ready.value):
            if older:
                raise RuleBroken(Status.CONTEXT_IN_FLIGHT)
            self._offering = False
            self._context = {n: int(pin.value) for n, pin in zip(self._control_names, self._control_pins, strict=True)}
        if older and response.taken:
            self._in_flight = False
        if accepted:
            if self._in_flight:
                raise RuleBroken(Status.TWO_IN_FLIGHT)
            self._in_flight = True
        if response.valid and not older and not accepted:
            raise RuleBroken(Status.STRAY_RESPONSE)
        if response.valid and older:
            self._respond()
        if accepted:
            self._accept()
            if response.valid and not older:
                self._in_flight = not response.taken
                self._respond()
        self._memory_port.sample(self._cycle, older or accepted)
        if self._fault_unit:
            self._fault_unit.sample()
        if self._events_full:
            raise RuleBroken(Status.EVENTS_FULL)

    def _accept(self) -> None:
        seen = zip(self._request_fields, self._request_pins, strict=True)
        record = make(REQUEST, {name: int(pin.value) for name, pin in seen} | (self._context or {}))
        self._shown = None
        self._accepted.append(record)
        self._accepted_at = self._progress = self._cycle
        self._answered_reads = 0
        for listener in self.on_request:
            listener(len(self._accepted) - 1, record)
        self._interfere()

    def _respond(self) -> None:
        if self._responses.first:
            self._valid_at = self._cycle
        if not self._responses.taken:
            return
        if self._memory_port.outstanding is not None:
            raise RuleBroken(Status.STRAY_MEMORY)
        values = dict(zip(_RESPONSE, self._responses.payload, strict=True))
        record = make(RESPONSE, values | {"cycles": self._valid_at - self._accepted_at})
        self._answers.append(record)
        if self._fault_unit:
            self._fault_unit.answered(self._accepted[-1], record, self._cycle + self._now.latency)
        self._progress = self._cycle
        self._stopped = self._stopped or (self._stop_on_fault and record["outcome"] != Outcome.OK)
        for listener in self.on_response:
            listener(len(self._answers) - 1, record)

    def _drive(self, over: bool) -> None:
        """What the pins are to be in the cycle that begins."""
        cycle = self._cycle
        if not self._offering:
            self._contexts.retract()
        if self._shown is None:
            self._requests.retract()
            if self._may_show() and not self._pattern.stalls("requests", cycle):
                self._show(self._pending.popleft())
        self._responses.ready.set(not self._pattern.stalls("responses", cycle))
        self._memory_port.reads.ready.set(not self._pattern.stalls("reads", cycle))
        self._memory_port.swaps.ready.set(not self._pattern.stalls("swaps", cycle))
        self._memory_port.latency = self._now.latency
        self._memory_port.drive(cycle)
        if self._fault_unit:
            self._fault_unit.drive(cycle, over)

    def _may_show(self) -> bool:
        """A request is shown beside an older one, unless that one may be the last."""
        if self._stopped or not self._pending:
            return False
        return not self._in_flight or not self._stop_on_fault

    def _show(self, request: np.void) -> None:
        """Offer `request`, and with it its context, if that is another than the one before."""
        context = {name: int(request[name]) for name in self._control_names}
        if context != self._context:
            self._contexts.offer(list(context.values()))
            self._offering, self._context = True, context
        self._requests.offer([int(request[name]) for name in self._request_fields])
        self._shown = request

    def _on_event(self, kind: EventKind, address: int, old: int, new: int, done: bool, error: bool) -> None:
        if self._event_capacity:
            if len(self._events) == self._event_capacity:
                self._events_full = True
            else:
                self._events.append((address, old, new, len(self._accepted) - 1, int(kind), done, error, 0))
        if kind is EventKind.READ:
            self._counters.reads += 1
            self._answered_reads += 1
            self._interfere()
        elif kind is EventKind.SWAP:
            self._counters.swaps += 1
            self._counters.failed_swaps += not done
        else:
            self._counters.foreign_writes += 1

    def _interfere(self) -> None:
        """Let the second writer do what falls here."""
        current = len(self._accepted) - 1
        while self._interferences:
            row = self._interferences[0]
            if row["request"] > current or (row["request"] == current and row["after"] > self._answered_reads):
                return
            self._interferences.popleft()
            if row["request"] == current:
                address, value = int(row["address"]), int(row["value"])
                old = self.memory.load(address)
                self.memory.store(address, value)
                self._on_event(EventKind.FOREIGN, address, old, value, True, False)
