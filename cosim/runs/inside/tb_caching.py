"""Inside the simulator: random work on an MMU that caches, a chunk after the other, each from a reset."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, Timer

from ptewalk.cosim.bench.caching import CachingBench, CachingConditions, RuleOfCachingBroken
from ptewalk.cosim.bench.streams import Pins
from ptewalk.cosim.bench.walker import described
from ptewalk.cosim.checks.caching import judge_run
from ptewalk.cosim.simulate.run import Job
from ptewalk.cosim.stimulus.caches import CacheStory

_PERIOD_NS = 10


@cocotb.test()
async def caching(dut: Any) -> None:
    """The chunks that the job names; publishes for each its problems and counts."""
    job = Job.current()
    design = described()
    pins = Pins(dut, design)
    clk, rst = pins.port("clk"), pins.port("rst")
    handles = {port.name: pins.port(port.name) for port in design.ports}
    for port in design.ports:
        if port.direction == "input":
            handles[port.name].value = 0
    rst.value = 1
    await Timer(_PERIOD_NS, unit="ns")
    Clock(clk, _PERIOD_NS, unit="ns").start()
    results = []
    for chunk in job.values["chunks"]:
        seed = f"{job.values['seed']} {chunk}"
        story = CacheStory(
            seed, physical_bits=design.parameters["physical_bits"], soft_dirty=design.parameters["soft_dirty"]
        )
        before = story.memory.copy()
        bench = CachingBench(
            design, story, job.values["size"], seed=seed, conditions=CachingConditions(**job.values["conditions"])
        )
        rst.value = 1
        for _ in range(2):
            await RisingEdge(clk)
        rst.value = 0
        driven: dict[str, int] = {}

        def put(name: str, value: int, driven: dict[str, int] = driven) -> None:
            if driven.get(name) != int(value):
                handles[name].value = int(value)
                driven[name] = int(value)

        def get(name: str) -> int:
            return int(handles[name].value)

        broken = []
        try:
            while not bench.done:
                bench.drive(put)
                await RisingEdge(clk)
                bench.sample(get)
        except RuleOfCachingBroken as rule:
            broken.append(str(rule))
        verdict = judge_run(
            bench.log, bench.faults, before, story.memory, lambda name: get(name) if name in handles else None
        )
        results.append({"problems": broken + verdict.problems, "counts": {**verdict.counts, "drains": bench.drains}})
    job.publish({"results": results})
