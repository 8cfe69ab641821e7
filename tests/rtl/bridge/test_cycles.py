"""What the bridge costs in cycles: beats a cycle, and latency beside a plain wire."""

from itertools import pairwise
from typing import Any

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.sim import Simulator

from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bus.axi import AxiSignature

from ..bus.burst_memory import Manager
from .bench import LINEAR, Bench, run
from .doubles import Memory

pytestmark = pytest.mark.thorough


class Wire(Component):
    """No bridge."""

    def __init__(self) -> None:
        axi = AxiSignature(address_bits=64, data_bits=64, id_bits=4)
        super().__init__({"s_axi": In(axi), "m_axi": Out(axi)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        connect(m, flipped(self.s_axi), flipped(self.m_axi))
        clocked = Signal()  # the simulator wants one
        m.d.sync += clocked.eq(~clocked)
        return m


async def transfer(ctx: Any, manager: Manager, kinds: str, count: int, beats: int) -> list[int]:
    """In which cycles, from the first one on, the beats of R and the answers B of `count` bursts of each kind come."""
    for number in range(count):
        at = LINEAR + 0x1000 * (number % 8) + 128 * (number % 16)
        if "w" in kinds:
            manager.write(number % 16, at, [number] * beats)
        if "r" in kinds:
            manager.read(number % 16, at, beats=beats)
    found: list[int] = []
    expected = count * (("w" in kinds) + ("r" in kinds) * beats)
    for cycle in range(20_000):
        await ctx.tick()
        for channel in ("r", "b"):
            found += [cycle] * len(manager.seen[channel])
            manager.seen[channel].clear()
        if len(found) >= expected:
            return found
    raise AssertionError("it does not come to its end")


def bridged(kinds: str, count: int, beats: int, latency: int, mode: int = 0, **parameters: int) -> list[int]:
    found: list[int] = []

    async def job(bench: Bench) -> None:
        bench.control(fault_mode=mode)
        found.extend(await transfer(bench.ctx, bench.manager, kinds, count, beats))

    run(job, BridgeConfig(**parameters), latency=latency)
    return found


def wired(kinds: str, beats: int, latency: int) -> list[int]:
    wire = Wire()
    manager, memory = Manager(wire.s_axi), Memory(wire.m_axi, latency=latency)
    found: list[int] = []

    async def job(ctx: Any) -> None:
        found.extend(await transfer(ctx, manager, kinds, 1, beats))

    simulator = Simulator(wire)
    simulator.add_clock(1e-6)
    simulator.add_testbench(job)
    for side in (manager, memory):
        simulator.add_testbench(side.run, background=True)
    simulator.run()
    return found


@pytest.mark.parametrize("latency", [1, 4])
@pytest.mark.parametrize(
    ("kinds", "beats", "least"),
    [("r", 16, 0.98), ("w", 16, 0.98), ("r", 1, 0.9), ("w", 1, 0.9), ("rw", 1, 0.9), ("rw", 16, 1.96)],
)
def test_beats_a_cycle(kinds: str, beats: int, least: float, latency: int) -> None:
    """Over pages that hit; of both directions together where both go. The first and last quarter do not count."""
    count = 160 if beats == 1 else 24
    found = bridged(kinds, count, beats, latency)
    quarter = len(found) // 4
    steady = found[quarter:-quarter]
    weight = {"r": 1, "w": beats, "rw": 2 * beats / (beats + 1)}[kinds]  # beats for each that was found
    assert (len(steady) - 1) * weight / (steady[-1] - steady[0]) >= least


@pytest.mark.parametrize("beats", [1, 4, 16])
@pytest.mark.parametrize("latency", [1, 4, 16])
def test_added_latency(beats: int, latency: int) -> None:
    """From AR to R, and from AW to B: 5, and the burst + 6."""
    assert bridged("r", 1, beats, latency)[-1] - wired("r", beats, latency)[-1] == 5
    assert bridged("w", 1, beats, latency)[-1] - wired("w", beats, latency)[-1] == beats + 6


def test_more_bursts_in_flight_for_a_slower_memory() -> None:
    """16 bursts of one beat are enough up to L = 6; at L = 16 it takes 32."""
    rates = []
    for bursts in (16, 32):
        found = bridged("w", 160, 1, 16, writes=bursts, reads=bursts)
        steady = found[40:-40]
        rates.append((len(steady) - 1) / (steady[-1] - steady[0]))
    assert rates[0] < 0.9 <= rates[1]


@pytest.mark.parametrize("kinds", ["r", "w"])
def test_one_by_one_where_one_may_be_stalled(kinds: str) -> None:
    found = bridged(kinds, 20, 1, 1, mode=1)
    assert {later - earlier for earlier, later in pairwise(found)} == {6}
