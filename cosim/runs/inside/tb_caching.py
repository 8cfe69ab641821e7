"""Inside the simulator: work on an MMU that caches, each piece from a reset: random, or what is recited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from ptewalk.cosim.bench.caching import CachingBench, CachingConditions, RuleOfCachingBroken
from ptewalk.cosim.bench.events import Accept, Answer
from ptewalk.cosim.bench.streams import Pins
from ptewalk.cosim.bench.walker import described
from ptewalk.cosim.checks.caching import judge_run
from ptewalk.cosim.simulate.run import Job
from ptewalk.cosim.stimulus.caches import CacheStory
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import Access, Invalidation

_PERIOD_NS = 10
_SETTLE = 4
"""Cycles after the last answer in which counters may still count."""


class _Stage:
    """The design with its clock, and all inputs at 0."""

    def __init__(self, dut: Any) -> None:
        self.design = described()
        self._pins = Pins(dut, self.design)
        self.handles = {port.name: self._pins.port(port.name) for port in self.design.ports}
        for port in self.design.ports:
            if port.direction == "input":
                self.handles[port.name].value = 0

    async def begin(self) -> None:
        """The clock starts."""
        self.handles["rst"].value = 1
        await Timer(_PERIOD_NS, unit="ns")
        Clock(self.handles["clk"], _PERIOD_NS, unit="ns").start()

    def get(self, name: str) -> int:
        """The value of a port."""
        return int(self.handles[name].value)

    async def perform(self, bench: CachingBench) -> list[str]:
        """Run a bench to its end, from a reset; the rules that were broken."""
        rst, clk = self.handles["rst"], self.handles["clk"]
        rst.value = 1
        for _ in range(2):
            await RisingEdge(clk)
        rst.value = 0
        driven: dict[str, int] = {}

        def put(name: str, value: int) -> None:
            if driven.get(name) != int(value):
                self.handles[name].value = int(value)
                driven[name] = int(value)

        try:
            while not bench.done:
                bench.drive(put)
                await RisingEdge(clk)
                bench.sample(self.get)
            for _ in range(_SETTLE):
                await RisingEdge(clk)
        except RuleOfCachingBroken as rule:
            return [str(rule)]
        return []


@cocotb.test()
async def caching(dut: Any) -> None:
    """The chunks that the job names; publishes for each its problems and counts."""
    job = Job.current()
    stage = _Stage(dut)
    design = stage.design
    await stage.begin()
    results = []
    for chunk in job.values["chunks"]:
        seed = f"{job.values['seed']} {chunk}"
        parameters = design.parameters
        story = CacheStory(seed, **{name: parameters[name] for name in ("physical_bits", "soft_dirty", "levels")})
        before = story.memory.copy()
        bench = CachingBench(
            design, story, job.values["size"], seed=seed, conditions=CachingConditions(**job.values["conditions"])
        )
        broken = await stage.perform(bench)
        verdict = judge_run(
            *(bench.log, bench.faults, before, story.memory),
            lambda name: stage.get(name) if name in stage.handles else None,
        )
        results.append(
            {
                "problems": broken + verdict.problems,
                "counts": {**verdict.counts, **bench.waits.counts, "drains": bench.drains},
            }
        )
    job.publish({"results": results})


class _Recited:
    """A story that says what it was given, under one context."""

    def __init__(self, memory: SparseMemory, state: State, asked: Sequence[Request]) -> None:
        self.memory, self._state, self._asked = memory, state, iter(asked)

    def request(self) -> Request:
        """The next access."""
        return next(self._asked)

    def context(self) -> tuple[State, int, bool]:
        """The one context."""
        return self._state, 0, False

    def change(self) -> tuple[int, int]:
        """There is none."""
        raise AssertionError("nothing is changed")

    def invalidation(self, flying: Sequence[int], *, changes: bool = False) -> tuple[Invalidation, int, int]:
        """There is none."""
        raise AssertionError("nothing is invalidated")


@cocotb.test()
async def recited(dut: Any) -> None:
    """The accesses of the job, on its memory: publishes problems, and the cycles of each acceptance and answer."""
    values = Job.current().values
    stage = _Stage(dut)
    await stage.begin()
    memory = SparseMemory.of({int(address): value for address, value in values["words"].items()})
    asked = [Request(linear, Access(access)) for linear, access in values["asked"]]
    state = State(values["root"], values["control"], track=Track(values["track"]))
    before = memory.copy()
    bench = CachingBench(
        *(stage.design, _Recited(memory, state, asked), len(asked)),
        seed="recited",
        conditions=CachingConditions(**values["conditions"]),
    )
    broken = await stage.perform(bench)
    verdict = judge_run(
        *(bench.log, bench.faults, before, memory),
        lambda name: stage.get(name) if name in stage.handles else None,
    )
    flying: dict[int, int] = {}
    timings: list[list[int]] = []
    for cycle, event in zip(bench.when, bench.log, strict=True):
        if isinstance(event, Accept):
            flying[event.tag] = len(timings)
            timings.append([cycle, 0])
        elif isinstance(event, Answer):
            timings[flying.pop(event.tag)][1] = cycle
    Job.current().publish({"problems": broken + verdict.problems, "timings": timings})
