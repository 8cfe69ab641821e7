"""A manager above an exclusive monitor above a memory, in Amaranth's own simulator."""

import random
from typing import Any

from amaranth.hdl import Module
from amaranth.sim import Simulator

from ptewalk.rtl.bus.monitor import ExclusiveMonitor, MonitorConfig
from ptewalk.rtl.bus.rules import AxiRules, broken_rules

from .burst_memory import Manager, Memory

AT = 0x12_3456_7040


class Bench:
    """A manager above a monitor above a memory."""

    def __init__(self, ctx: Any, manager: Manager, memory: Memory) -> None:
        self.ctx, self.manager, self.memory = ctx, manager, memory

    async def wait(self, channel: str, limit: int = 300) -> dict[str, int]:
        """The next transfer of `channel`."""
        for _ in range(limit):
            if self.manager.seen[channel]:
                return self.manager.seen[channel].pop(0)
            await self.ctx.tick()
        raise AssertionError(f"nothing on {channel}")

    async def read(self, identity: int, at: int = AT, *, lock: int = 1, beats: int = 1, **other: int) -> int:
        """The answer of a read, the same of every beat."""
        self.manager.read(identity, at, beats=beats, lock=lock, **other)
        answers = [await self.wait("r") for _ in range(beats)]
        assert [answer["last"] for answer in answers] == [0] * (beats - 1) + [1]
        assert {answer["id"] for answer in answers} == {identity}
        assert len({answer["resp"] for answer in answers}) == 1
        return answers[0]["resp"]

    async def write(self, identity: int, values: list[int], at: int = AT, *, lock: int = 1, **other: int) -> int:
        """The answer of a write."""
        self.manager.write(identity, at, values, lock=lock, **other)
        answer = await self.wait("b")
        assert answer["id"] == identity
        return answer["resp"]


def run(
    job: Any,
    config: MonitorConfig | None = None,
    *,
    rng: random.Random | None = None,
    latency: int = 2,
    watched: bool = False,
) -> Memory:
    """Run `job(bench)`; the memory after it. `watched`: AXI's rules are, on both sides in every cycle."""
    config = config or MonitorConfig()
    monitor = ExclusiveMonitor(config)
    manager = Manager(monitor.s_axi, rng=rng)
    memory = Memory(monitor.m_axi, rng=rng, latency=latency, bits=config.data_bits)
    top = Module()
    top.submodules.monitor = monitor
    rules = [AxiRules(axi, reads=8, writes=8) for axi in (monitor.s_axi, monitor.m_axi) if watched]
    top.submodules += rules

    async def bench(ctx: Any) -> None:
        await job(Bench(ctx, manager, memory))

    async def watch(ctx: Any) -> None:
        async for _, _, *found in ctx.tick().sample(*(one.broken for one in rules)):
            assert not [broken_rules(bits) for bits in found if bits]

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(watch, background=True)
    for side in (manager, memory):
        simulator.add_testbench(side.run, background=True)
    simulator.run()
    return memory
