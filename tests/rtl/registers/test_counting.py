"""Counters of 64 bits: copied in one cycle."""

import random
from typing import Any

from amaranth.sim import Simulator

from ptewalk.rtl.registers.counting import Counters


def test_nothing_is_lost_between_copy_and_clear() -> None:
    """Copies and clears at random: what is in all copies that were followed by a clear, and in the last, is the sum."""
    counters = Counters(("a", "b"))
    simulator = Simulator(counters)
    simulator.add_clock(1e-6)
    rng = random.Random(3)

    async def bench(ctx: Any) -> None:
        total, kept, seen = [0, 0], [0, 0], 0
        for number in range(400):
            by = [rng.randrange(4), rng.randrange(4)]
            copy = number == 399 or rng.random() < 0.3
            clear = copy and rng.random() < 0.5
            ctx.set(counters.by, {"a": by[0], "b": by[1]})
            ctx.set(counters.snapshot, copy)
            ctx.set(counters.clear, clear)
            before = [ctx.get(counters.copies.a), ctx.get(counters.copies.b)]
            await ctx.tick()
            found = [ctx.get(counters.copies.a), ctx.get(counters.copies.b)]
            if copy:
                assert [k + f for k, f in zip(kept, found, strict=True)] == total, number
                seen += 1
            else:
                assert found == before
            if clear:
                kept = [k + f for k, f in zip(kept, found, strict=True)]
            total = [t + b for t, b in zip(total, by, strict=True)]
        assert seen > 100 and kept[0] > 100

    simulator.add_testbench(bench)
    simulator.run()


def test_a_copy_stays_while_counting_goes_on() -> None:
    counters = Counters(("a",))
    simulator = Simulator(counters)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        ctx.set(counters.by, {"a": 3})
        await ctx.tick().repeat(10)
        for expected in (30, 93):
            ctx.set(counters.snapshot, 1)
            await ctx.tick()
            ctx.set(counters.snapshot, 0)
            for _ in range(20):
                assert ctx.get(counters.copies.a) == expected
                await ctx.tick()

    simulator.add_testbench(bench)
    simulator.run()
