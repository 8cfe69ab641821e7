"""PCID slots against a dictionary: one live slot a PCID, and no number again before the count comes round."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.slots import PcidSlots


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_against_a_dictionary(bits: int) -> None:
    rng, slots = random.Random(bits), PcidSlots(bits)
    wraps = 0

    async def test(ctx: Any) -> None:
        nonlocal wraps
        live, current, given = {0: 0}, 0, {0}
        for _ in range(400):
            pcid = rng.choice((0, 1, 2, 5, 0xFFF, 0x800))
            for name in ("renew", "use", "end"):
                ctx.set(getattr(slots, name), 0)
            ctx.set(slots.pcid, pcid)
            ctx.set(slots.look, 1)
            await ctx.tick()
            ctx.set(slots.look, 0)
            assert ctx.get(slots.found) == (pcid in live)
            if pcid in live:
                assert ctx.get(slots.slot) == live[pcid]
            what = rng.choice(("renew", "use", "end", ""))
            if (what == "use" and pcid not in live) or (what == "end" and live.get(pcid) == current):
                continue
            for name in ("renew", "use", "end"):
                ctx.set(getattr(slots, name), name == what)
            wrapped = ctx.get(slots.wraps)
            await ctx.tick()
            if what == "renew":
                if wrapped:
                    wraps += 1
                    live, given = {}, set()
                current = live[pcid] = ctx.get(slots.current)
                assert current not in given, "a number was given out again"
                given.add(current)
            elif what == "use":
                current = live[pcid]
            elif what == "end":
                live.pop(pcid, None)
            assert ctx.get(slots.current) == current
            assert len(set(live.values())) == len(live)

    simulator = Simulator(slots)
    simulator.add_clock(1e-6)
    simulator.add_testbench(test)
    simulator.run()
    assert wraps > 400 // 4 // (1 << bits) // 3
