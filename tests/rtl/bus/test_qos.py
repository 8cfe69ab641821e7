"""AxQOS that software sets: each access has one that was set, the newest where none was on offer, and keeps it."""

import random
from typing import Any

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.sim import Simulator

from ptewalk.rtl.bus.axi import AxiSignature
from ptewalk.rtl.bus.qos import stamp_qos

from ..bridge.doubles import Memory
from .burst_memory import Manager


class Stamped(Component):
    """Wires, but for AxQOS."""

    def __init__(self) -> None:
        axi = AxiSignature(address_bits=32, data_bits=64, id_bits=3)
        super().__init__({"s_axi": In(axi), "m_axi": Out(axi), "qos": In(4)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        connect(m, flipped(self.s_axi), flipped(self.m_axi))
        stamp_qos(m, self.m_axi, self.qos, "own")
        return m


def test_what_is_on_offer_keeps_it() -> None:
    """Changed in any cycle, on a memory that takes addresses late, and sees to it that no offer changes."""
    top, rng = Stamped(), random.Random(5)
    manager, memory = Manager(top.s_axi, rng=random.Random(6)), Memory(top.m_axi, rng=random.Random(7))

    async def bench(ctx: Any) -> None:
        for number in range(60):
            manager.read(number % 8, 0x1000 + 64 * number)
            manager.write(number % 8, 0x1000 + 64 * number, [number])
        for number in range(400):
            ctx.set(top.qos, number // 40 if number < 360 else 12)
            if number < 200:
                ctx.set(top.qos, rng.randrange(10))
            await ctx.tick()
        await ctx.tick().repeat(4)
        manager.read(1, 0x2000)
        manager.write(1, 0x2000, [1])
        await ctx.tick().repeat(60)
        assert (len(memory.reads), len(memory.writes)) == (61, 61)
        for taken in (memory.reads, memory.writes):
            assert len({one["qos"] for one in taken[:-1]}) > 5 and taken[-1]["qos"] == 12

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    for side in (manager, memory):
        simulator.add_testbench(side.run, background=True)
    simulator.run()
