"""The table of grants against a set."""

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.grants import GrantTable


@pytest.mark.thorough
@pytest.mark.parametrize("tag_bits", [1, 2, 5])
@pytest.mark.parametrize(("late", "ahead"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("seed", [1, 2])
def test_against_a_set(tag_bits: int, seed: int, late: bool, ahead: bool) -> None:
    """Grants and retirements of any tag, also of one in one cycle; `taken` is heeded, retirements are not honest."""
    note_bits = 2 if late else 0
    table = GrantTable(tag_bits, late=late, ahead=ahead, note_bits=note_bits)
    rng = random.Random(seed)
    seen = {"taken": 0, "stray": 0, "passing": 0, "full": 0}

    async def bench(ctx: Any) -> None:
        for cycle in range(1 << tag_bits):
            assert not ctx.get(table.ready), cycle
            await ctx.tick()
        assert ctx.get(table.ready)
        out: dict[int, int] = {}  # tag to its note
        gone, fresh, following = 0, None, rng.getrandbits(tag_bits)
        for cycle in range(3000):
            busy = cycle % 200 < 100
            grant, retire = rng.getrandbits(tag_bits), rng.getrandbits(tag_bits)
            retire = grant if rng.random() < 0.2 else retire
            if ahead:
                retire, following = following, retire
                ctx.set(table.find_tag, following)
            if busy and len(out) < 1 << tag_bits:
                grant = rng.choice([tag for tag in range(1 << tag_bits) if tag not in out])
            granting, retiring = rng.random() < (0.9 if busy else 0.3), rng.random() < (0.2 if busy else 0.8)
            ctx.set(table.grant_tag, grant)
            ctx.set(table.look_tag, grant)
            ctx.set(table.grant_bit, ctx.get(table.bit))
            ctx.set(table.retire_tag, retire)
            assert ctx.get(table.taken) == (grant in out)
            granting &= grant not in out
            ctx.set(table.grant, granting)
            ctx.set(table.retire, retiring)
            held = retire in out and retire != fresh  # with `ahead` the last cycle's grant was not there to be found
            note = rng.getrandbits(2)
            if note_bits:
                ctx.set(table.grant_note, note)
                assert ctx.get(table.gone) == (retiring and held)
                assert not ctx.get(table.gone) or ctx.get(table.gone_note) == out[retire]
            # A retirement that is told late was made before a grant of this cycle.
            passing = not late and granting and retiring and grant == retire
            assert ctx.get(table.stray) == (retiring and not held and not passing)
            assert ctx.get(table.count) == len(out) + (gone if late else 0)
            seen["taken"] += grant in out
            seen["stray"] += ctx.get(table.stray)
            seen["passing"] += granting and retiring and grant == retire
            seen["full"] += len(out) == 1 << tag_bits
            await ctx.tick()
            gone = retiring and held
            if gone:
                out.pop(retire, None)
            if granting and not passing:
                out[grant] = note
            fresh = grant if ahead and granting else None

    simulator = Simulator(table)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert min(seen.values()) > 10, seen
