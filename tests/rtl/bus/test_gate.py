"""A gate on AXI: wires while it is open; closed, what has begun ends, nothing else begins, no offer is withdrawn."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bus.gate import AxiGate

from ..bridge.doubles import Memory
from .burst_memory import Manager


class Watched:
    """A gate between a manager and a memory, which sees to it that no offer is changed or withdrawn."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.gate = AxiGate(address_bits=32, data_bits=64, id_bits=3)
        self.manager = Manager(self.gate.s_axi, rng=rng)
        self.memory = Memory(self.gate.m_axi, rng=rng, latency=4)

    def run(self, bench: Any) -> None:
        simulator = Simulator(self.gate)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        for side in (self.manager, self.memory):
            simulator.add_testbench(side.run, background=True)
        simulator.run()

    def answered(self) -> int:
        """Bursts of which the manager has the whole answer."""
        return len(self.manager.seen["b"]) + sum(beat["last"] for beat in self.manager.seen["r"])

    def taken(self) -> int:
        """Bursts that memory took."""
        return len(self.memory.reads) + len(self.memory.writes)


def test_open_it_is_wires() -> None:
    """Each payload, valid and ready passes in the same cycle."""
    gate = AxiGate(address_bits=32, data_bits=64, id_bits=3, atomic=True)
    rng = random.Random(3)

    async def bench(ctx: Any) -> None:
        above, below = gate.s_axi, gate.m_axi
        for _ in range(60):
            for name in ("aw", "w", "ar", "b", "r"):
                source, sink = (above, below) if name in ("aw", "w", "ar") else (below, above)
                one, other = getattr(source, name), getattr(sink, name)
                drawn = {str(field): rng.getrandbits(layout.width) for field, layout in one.payload.shape()}
                valid, ready = rng.getrandbits(1), rng.getrandbits(1)
                ctx.set(one.payload, drawn)
                ctx.set(one.valid, valid)
                ctx.set(other.ready, ready)
                assert (ctx.get(other.valid), ctx.get(one.ready)) == (valid, ready)
                assert {str(field): ctx.get(other.payload[field]) for field, _ in other.payload.shape()} == drawn
            await ctx.tick()

    simulator = Simulator(gate)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("held", [(), ("ar",), ("aw",), ("w",), ("aw", "w"), ("b", "r")])
def test_closed_with_something_outstanding_on_each_channel(held: tuple[str, ...]) -> None:
    """What was on offer, or begun, is taken and answered; then it is quiet, and what comes next waits."""
    watched = Watched()
    manager, memory = watched.manager, watched.memory

    async def bench(ctx: Any) -> None:
        async def ticks(count: int) -> None:
            await ctx.tick().repeat(count)

        memory.held |= {name for name in held if name in ("aw", "w", "ar")}
        manager.held |= {name for name in held if name in ("b", "r")}
        manager.read(1, 0x1000, beats=3)
        manager.write(2, 0x2000, [1, 2, 3])
        await ticks(4)
        ctx.set(watched.gate.stop, 1)
        for identity in (3, 4):
            manager.read(identity, 0x3000)
            manager.write(identity, 0x4000, [5])
        await ticks(60)
        assert ctx.get(watched.gate.quiet) == (not held)
        memory.held.clear()
        manager.held.clear()
        await ticks(60)
        assert ctx.get(watched.gate.quiet)
        assert watched.answered() == watched.taken() == 2
        assert not {beat["id"] for beat in manager.seen["r"]} - {1} and manager.seen["b"] == [{"id": 2, "resp": 0}]
        ctx.set(watched.gate.stop, 0)
        await ticks(80)
        assert watched.answered() == watched.taken() == 6

    watched.run(bench)


@pytest.mark.parametrize("first", ["aw", "w"])
def test_of_a_write_that_was_begun_the_rest_passes(first: str) -> None:
    """The address alone was taken, or some data alone: the rest comes when the gate is closed, and only that."""
    watched = Watched()
    manager = watched.manager

    async def bench(ctx: Any) -> None:
        if first == "aw":
            manager.out["aw"].append(manager.address(1, 0x1000, beats=3))
        else:
            manager.send([7, 8, 9])
        await ctx.tick().repeat(4 if first == "aw" else 2)
        ctx.set(watched.gate.stop, 1)
        await ctx.tick().repeat(20)
        assert not ctx.get(watched.gate.quiet) and watched.answered() == 0
        if first == "aw":
            manager.send([7, 8, 9])
        else:
            manager.out["aw"].append(manager.address(1, 0x1000, beats=3))
        manager.write(2, 0x2000, [1])
        await ctx.tick().repeat(40)
        assert ctx.get(watched.gate.quiet) and watched.answered() == watched.taken() == 1
        assert watched.memory.load(0x1000, 24)[::8] == bytes((7, 8, 9))

    watched.run(bench)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(4))
def test_closed_at_any_time(seed: int) -> None:
    """Random bursts on a memory that answers in any order: none is lost, none begins while it is closed."""
    rng = random.Random(seed)
    watched = Watched(random.Random(rng.random()))
    manager = watched.manager

    async def bench(ctx: Any) -> None:
        sent = waits = 0
        for _ in range(30):
            for _ in range(rng.randrange(5)):
                sent += 1
                if rng.random() < 0.5:
                    manager.read(rng.randrange(8), rng.randrange(256) << 8, beats=rng.randint(1, 4))
                else:
                    values = [rng.getrandbits(64) for _ in range(rng.randint(1, 4))]
                    manager.write(rng.randrange(8), rng.randrange(256) << 8, values)
            await ctx.tick().repeat(rng.randint(1, 20))
            ctx.set(watched.gate.stop, 1)
            while not ctx.get(watched.gate.quiet):
                waits += 1
                await ctx.tick()
            await ctx.tick()
            before = watched.answered()
            assert before == watched.taken()
            await ctx.tick().repeat(rng.randint(1, 30))
            assert watched.answered() == watched.taken() == before and ctx.get(watched.gate.quiet)
            ctx.set(watched.gate.stop, 0)
        await ctx.tick().repeat(400)
        assert watched.answered() == watched.taken() == sent > 30 and waits > 100

    watched.run(bench)


def test_what_an_atomic_transaction_finds_is_waited_for() -> None:
    """B alone does not end it where R answers it too."""
    gate = AxiGate(address_bits=32, data_bits=64, id_bits=3, atomic=True)

    async def bench(ctx: Any) -> None:
        above, below = gate.s_axi, gate.m_axi
        ctx.set(above.aw.payload, {"id": 1, "atop": 0b110001, "len": 1, "size": 3})
        for beat in range(2):
            ctx.set(above.aw.valid, beat == 0)
            ctx.set(above.w.valid, 1)
            ctx.set(above.w.payload.last, beat)
            for ready in (below.aw.ready, below.w.ready, above.b.ready, above.r.ready):
                ctx.set(ready, 1)
            await ctx.tick()
        ctx.set(above.w.valid, 0)
        ctx.set(gate.stop, 1)
        for channel, left in ((below.b, 1), (below.r, 0)):
            assert not ctx.get(gate.quiet)
            if channel is below.r:
                ctx.set(channel.payload.last, 1)
            ctx.set(channel.valid, 1)
            await ctx.tick()
            ctx.set(channel.valid, 0)
            await ctx.tick()
            assert ctx.get(gate.quiet) == (not left)

    simulator = Simulator(gate)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
