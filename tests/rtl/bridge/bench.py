"""A bridge between a manager and memory, with a double of the MMU beside it, in Amaranth's own simulator."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from amaranth.sim import Simulator

from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.core import Bridge

from ..bus.burst_memory import Fields, Manager, fields_of
from .doubles import PAGE, Memory, Mmu

LINEAR, FRAME = 0x1234_5678_9000, 0x42_1234
"""The first page that `run` maps, and its frame; so are the 15 pages after it, to the frames after."""


class Bench:
    """What a test holds in its hands."""

    def __init__(self, ctx: Any, bridge: Any, manager: Manager, memory: Memory, mmu: Mmu) -> None:
        self.ctx, self.bridge, self.manager, self.memory, self.mmu = ctx, bridge, manager, memory, mmu
        self.faults: list[Fields] = []

    def control(self, **fields: int) -> None:
        """Set controls."""
        for name, value in fields.items():
            self.ctx.set(self.bridge.control[name], value)

    async def pulse(self, name: str) -> None:
        """A control, for a cycle."""
        self.control(**{name: 1})
        await self.ctx.tick()
        self.control(**{name: 0})

    def status(self, name: str) -> int:
        return int(self.ctx.get(self.bridge.status[name]))

    async def ticks(self, count: int) -> None:
        for _ in range(count):
            await self.ctx.tick()

    async def wait(self, channel: str, count: int = 1, limit: int = 3000) -> list[Fields]:
        """The next transfers of `channel`."""
        for _ in range(limit):
            if len(self.manager.seen[channel]) >= count:
                taken = self.manager.seen[channel][:count]
                del self.manager.seen[channel][:count]
                return taken
            await self.ctx.tick()
        raise AssertionError(f"{len(self.manager.seen[channel])} of {count} on {channel}")

    async def read(self, at: int, beats: int = 1, *, identity: int = 1, **other: int) -> tuple[int, list[int]]:
        """Answer and values of a read."""
        self.manager.read(identity, at, beats=beats, **other)
        answers = await self.wait("r", beats)
        assert [answer["last"] for answer in answers] == [0] * (beats - 1) + [1]
        assert {answer["id"] for answer in answers} == {identity}
        assert len({answer["resp"] for answer in answers}) == 1
        return answers[0]["resp"], [answer["data"] for answer in answers]

    async def write(self, at: int, values: list[int], *, identity: int = 1, **other: int) -> int:
        """The answer of a write."""
        self.manager.write(identity, at, values, **other)
        (answer,) = await self.wait("b")
        assert answer["id"] == identity
        return answer["resp"]

    async def fault(self) -> Fields:
        """The next record."""
        for _ in range(200):
            if self.ctx.get(self.bridge.faults.valid):
                record = fields_of(self.ctx.get(self.bridge.faults.payload))
                self.ctx.set(self.bridge.faults.ready, 1)
                await self.ctx.tick()
                self.ctx.set(self.bridge.faults.ready, 0)
                return record
            await self.ctx.tick()
        raise AssertionError("no record")


class _Machine:
    """A bridge of one configuration, simulated anew for each test."""

    def __init__(self, config: BridgeConfig) -> None:
        self.bridge = Bridge(config)
        self.sides: dict[str, Any] = {}
        self.simulator = Simulator(self.bridge)
        self.simulator.add_clock(1e-6)
        self.testbench: Callable[[Any], Awaitable[None]] | None = None
        self.used = False
        self.simulator.add_testbench(self._run)
        for name in ("manager", "memory", "mmu"):
            self.simulator.add_testbench(partial(self._side, name), background=True)

    async def _run(self, ctx: Any) -> None:
        assert self.testbench is not None
        await self.testbench(ctx)

    async def _side(self, name: str, ctx: Any) -> None:
        await self.sides[name].run(ctx)


@lru_cache
def _machine(config: BridgeConfig) -> _Machine:
    return _Machine(config)


def run(
    job: Callable[[Bench], Awaitable[None]],
    config: BridgeConfig | None = None,
    *,
    rng: random.Random | None = None,
    latency: int = 1,
) -> Bench:
    """Run `job(bench)`, with the bridge enabled; at the end nothing is under way."""
    config = replace(config or BridgeConfig(), read_grants=True)
    machine = _machine(config)
    bridge = machine.bridge
    manager = Manager(bridge.s_axi, rng=rng)
    memory = Memory(bridge.m_axi, rng=rng, latency=latency, bits=config.data_bits)
    mmu = Mmu(bridge.mmu, rng=rng)
    for page in range(16):
        mmu.map(LINEAR // PAGE + page, FRAME + page)
    benches = []

    async def testbench(ctx: Any) -> None:
        bench = Bench(ctx, bridge, manager, memory, mmu)
        benches.append(bench)
        bench.control(enable=1, final_response=1)
        await job(bench)
        await bench.ticks(4)
        assert not bench.status("busy") and not mmu.granted and not mmu.reading

    machine.sides, machine.testbench = {"manager": manager, "memory": memory, "mmu": mmu}, testbench
    if machine.used:
        machine.simulator.reset()
    machine.used = True
    machine.simulator.run()
    return benches[0]
