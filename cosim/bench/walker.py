"""One testbench for the walker, at two levels.

At the *protocol level* Python drives and watches every stream in every cycle, in any simulator. At the *batch level* a
whole array of requests runs in compiled code (lane.cpp). `WalkerBench.batch` takes and gives the same arrays at
both, and the same requests get the same answers in the same cycles.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import Event, RisingEdge, Timer

from ptewalk.cosim.bench.agents import MemoryAgent, RequesterAgent
from ptewalk.cosim.bench.conditions import BatchResult, BenchError, Conditions
from ptewalk.cosim.bench.lane import LinkedLane
from ptewalk.cosim.bench.ledger import Agent, Ledger
from ptewalk.cosim.bench.records import (
    EVENT,
    FAULT,
    INTERFERENCE,
    REQUEST,
    RESPONSE,
    TRANSLATION,
    WALKED,
    WRITTEN,
    Records,
    Status,
    WordMemory,
    encode_requests,
    validate_work,
)
from ptewalk.cosim.bench.streams import Pins, RuleBroken
from ptewalk.cosim.bench.supervisors import DrainAgent, FaultQueueAgent, RetirementAgent, TraceAgent
from ptewalk.cosim.simulate.run import DESIGN_VARIABLE
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.rtl.description import DesignDescription

__all__ = ["WalkerBench", "described"]

SETTLE: Final = 64
"""Cycles, after the linger, in which the fault queue and a drain must come to their end; as in lane.cpp."""
_PERIOD_NS: Final = 10


def described() -> DesignDescription:
    """What this simulation was built of; RuntimeError when nobody says."""
    path = os.environ.get(DESIGN_VARIABLE)
    if path is None:
        raise RuntimeError(
            "this simulation does not say what is simulated: give design=describe(...), or set "
            f"{DESIGN_VARIABLE} to the path of a design.json"
        )
    return DesignDescription.from_json(json.loads(Path(path).read_text()))


class WalkerBench:
    """A walker (or an MMU), its clock, its memory, and one who asks it.

    Parameters
    ----------
    handle : cocotb handle
        What has the design's ports: the top, or an instance, or a top that leads them out under a prefix.
    memory : WordMemory
        Where the tables are; changed in place. With `physical_bits`, it must not have more of them than the walker.
        The batch level needs a `SparseMemory`. A design without a memory port, such as `AxiMmu`, has its memory from
        somebody else: then there are no events of it, and no second writer.
    conditions : Conditions, optional
        Latency, stalls, seed and limits, where a call does not say otherwise.
    design : DesignDescription, optional
        What is simulated; by default what the run was built of.
    prefix : str
        What stands before each port's name.
    clk : cocotb handle, optional
        A clock that somebody else drives, as that one does the reset. By default the bench drives clk and rst.

    Attributes
    ----------
    on_request : list of callable (index, record)
        Protocol level: called with the `REQUEST` record that the monitor saw at the pins, as a request is accepted.
    on_response : list of callable (index, record)
        Protocol level: called with the `RESPONSE` record, as a response is taken.
    agents : list of Agent
        All that have a part in a cycle, in order; others may be added before `start`.
    """

    def __init__(
        self,
        handle: Any,
        memory: WordMemory,
        conditions: Conditions | None = None,
        *,
        design: DesignDescription | None = None,
        prefix: str = "",
        clk: Any = None,
    ) -> None:
        self.design = design or described()
        self.conditions = conditions or Conditions()
        self.on_request: list[Callable[[int, np.void], None]] = []
        self.on_response: list[Callable[[int, np.void], None]] = []
        parameters = self.design.parameters
        self.soft_dirty = bool(parameters["soft_dirty"])
        self.tag_bits = int(parameters["tag_bits"])
        self.physical_bits = int(parameters["physical_bits"])
        self._check(memory)
        self.memory = memory
        self._pins = pins = Pins(handle, self.design, prefix)
        self._memory_agent = None if self.design.stream("reads") is None else MemoryAgent(pins, memory)
        requester = RequesterAgent(
            pins,
            on_accept=lambda index, record: self._tell(self.on_request, index, record),
            on_response=lambda index, record: self._tell(self.on_response, index, record),
            interfere=self._interfere,
        )
        self._trace = TraceAgent(pins)
        self.agents: list[Agent] = [
            requester,
            *(() if self._memory_agent is None else (self._memory_agent,)),
            *(FaultQueueAgent(pins), RetirementAgent(pins), DrainAgent(pins), self._trace),
        ]
        self._own_clock = clk is None
        self._clk = pins.port("clk") if clk is None else clk
        self._clock = Clock(self._clk, _PERIOD_NS, unit="ns") if self._own_clock else None
        self._loop: Any = None
        self._failure: BenchError | None = None
        self._busy = self._running = False
        self._idle_cycles = 0
        self._woken = Event()
        self._ledger = self._nothing()

    @staticmethod
    def _tell(listeners: Sequence[Callable[[int, np.void], None]], index: int, record: np.void) -> None:
        for listener in listeners:
            listener(index, record)

    def _interfere(self, ledger: Ledger) -> None:
        if self._memory_agent is not None:
            self._memory_agent.interfere(ledger)

    def _nothing(self) -> Ledger:
        return Ledger(np.zeros(0, REQUEST), np.zeros(0, INTERFERENCE), self.conditions)

    def _check(self, memory: WordMemory) -> None:
        bits = getattr(memory, "physical_bits", 0)
        if bits > self.physical_bits:
            raise ValueError(
                f"the memory must have at most the walker's {self.physical_bits} physical address bits, not {bits}"
            )

    def _lane(self) -> LinkedLane | None:
        """The batch level, where there is one: never beside somebody else's clock or memory."""
        fits = self._own_clock and isinstance(self.memory, SparseMemory)
        return LinkedLane.find() if fits else None

    @property
    def has_batch_level(self) -> bool:
        """True: `batch` runs in compiled code where it is not told otherwise."""
        return self._lane() is not None

    def use(self, memory: WordMemory) -> None:
        """Give the walker another memory; not while a batch runs. ValueError when it has too many address bits."""
        self._check(memory)
        self.memory = memory
        if self._memory_agent is not None:
            self._memory_agent.memory = memory

    # Coming and going ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the clock and reset the design. Also the way on after a `BenchError`."""
        if self._loop is not None:
            self._loop.cancel()
            if self._clock is not None:
                self._clock.stop()
                await Timer(_PERIOD_NS, unit="ns")
        self._begin(self._nothing())
        self._failure = None
        for agent in self.agents:
            agent.reset()
        if self._clock is not None:
            reset = self._pins.port("rst")
            reset.value = 1
            self._clk.value = 0
            await Timer(_PERIOD_NS, unit="ns")  # no edge while reset is not known: what no reset clears would stay so
            self._clock.start()
            for _ in range(2):
                await RisingEdge(self._clk)
            reset.value = 0
        await RisingEdge(self._clk)
        self._loop = cocotb.start_soon(self._cycles())

    def _begin(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._idle_cycles = 0
        for agent in self.agents:
            agent.begin(ledger)

    async def request(self, state: State, request: Request, *, tag: int = 0) -> np.void:
        """Ask for one translation at the protocol level.

        Returns
        -------
        np.void
            The `RESPONSE` record; `records.decode` makes the model's result of it.

        Raises
        ------
        BenchError
            A rule of a port was broken, or there was no response in time.
        """
        result = await self.batch(encode_requests([(state, request)], [tag]), compiled=False)
        answer: np.void = result.responses[0]
        return answer

    @asynccontextmanager
    async def halted(self) -> AsyncIterator[LinkedLane]:
        """The batch level without awaits: within this context the clock stands still between calls.

        Yields the lane, which runs `REQUEST` records, which must be valid, in any memory with no more physical address
        bits than the walker's. RuntimeError when there is no batch level.
        """
        lane = self._lane()
        if lane is None:
            raise RuntimeError("this model has no batch level; 'ptewalk doctor' says which simulator has one")
        await self._halt()
        try:
            yield lane
        finally:
            self._resume()

    async def batch(
        self,
        requests: Records,
        *,
        interferences: Records | None = None,
        conditions: Conditions | None = None,
        stop_on_fault: bool = False,
        compiled: bool | None = None,
    ) -> BatchResult:
        """Have `requests` translated, one after the other.

        A request is shown while an older one is still in flight, beside its context when that is another; but not with
        `stop_on_fault`.

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
        requests, interferences = validate_work(requests, interferences, self.memory, self.design.parameters)
        if self._loop is None:
            raise RuntimeError("start() must be awaited before batch()")
        if self._failure is not None:
            raise RuntimeError("start() must be awaited again after an error") from self._failure
        if self._busy:
            raise RuntimeError("batch() must not be called while another batch runs")
        lane = self._lane() if compiled is not False else None
        if compiled and lane is None:
            raise RuntimeError("this model has no batch level; 'ptewalk doctor' says which simulator has one")
        self._busy = True
        try:
            if lane is None:
                ledger = Ledger(requests, interferences, conditions, stop_on_fault=stop_on_fault)
                return await self._batch_by_protocol(ledger)
            assert isinstance(self.memory, SparseMemory)
            await self._halt()
            try:
                return lane.run(requests, self.memory, interferences, conditions, stop_on_fault=stop_on_fault)
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
        assert self._clock is not None
        await RisingEdge(self._clk)
        self._clock.stop()
        self._clk.value = 0
        await Timer(_PERIOD_NS, unit="ns")

    def _resume(self) -> None:
        """Let cocotb's clock go on; the compiled loop left every valid and ready at 0."""
        assert self._clock is not None
        for agent in self.agents:
            agent.forget()
        self._clock.start(start_high=False)

    # The protocol level ----------------------------------------------------------------------------------------------

    async def _batch_by_protocol(self, ledger: Ledger) -> BatchResult:
        started = time.perf_counter()
        self._begin(ledger)
        self._running = True
        self._woken.clear()
        await self._woken.wait()
        if self._failure is not None:
            raise self._failure
        return BatchResult(
            requests=np.array(ledger.accepted, REQUEST),
            responses=np.array(ledger.answers, RESPONSE),
            translations=_rows(ledger.translations, TRANSLATION),
            events=np.array(ledger.events, EVENT),
            faults=_rows(ledger.faults, FAULT),
            written=_rows(ledger.written, WRITTEN),
            walked=_rows(ledger.walked, WALKED),
            counters=replace(ledger.counters, cycles=ledger.cycle, **self._trace.counted()),
            compiled=False,
            seconds=time.perf_counter() - started,
        )

    async def _cycles(self) -> None:
        """Sample and drive in each cycle; what goes wrong is raised where a batch is awaited, or here when none is."""
        edge = RisingEdge(self._clk)
        while True:
            await edge
            ledger = self._ledger
            try:
                try:
                    for agent in self.agents:
                        agent.sample(ledger)
                finally:
                    if ledger.cycle < 0:
                        ledger.progress = 0
                    ledger.cycle += 1
                if not ledger.over and ledger.cycle - ledger.progress > ledger.conditions.max_cycles:
                    raise RuleBroken(Status.TIMEOUT)
                ledger.over = ledger.done
                if ledger.over and self._running:
                    self._wind_up(ledger)
            except RuleBroken as broken:
                self._failure = BenchError(broken.status, len(ledger.accepted) - 1, ledger.cycle)
                if not self._running:
                    raise self._failure from None
                self._running = False
                self._woken.set()
                return
            for agent in self.agents:
                agent.drive(ledger)

    def _wind_up(self, ledger: Ledger) -> None:
        """All is asked and answered: the end of the batch, when its linger is over and every agent has settled."""
        linger = ledger.conditions.linger
        settled = all(agent.settled() for agent in self.agents)
        if self._idle_cycles >= linger and settled:
            self._running = False
            self._woken.set()
        elif self._idle_cycles >= linger + SETTLE:
            queues = (agent for agent in self.agents if isinstance(agent, FaultQueueAgent))
            raise RuleBroken(Status.NOT_DRAINED if all(q.settled() for q in queues) else Status.MISSING_FAULT)
        else:
            self._idle_cycles += 1


def _rows(logged: Sequence[Mapping[str, int]], dtype: np.dtype[np.void]) -> Records:
    """Records of what a monitor logged."""
    rows = np.zeros(len(logged), dtype)
    for row, values in zip(rows, logged, strict=True):
        for name, value in values.items():
            row[name] = value
    return rows
