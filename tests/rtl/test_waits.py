"""Invalidations that wait: complete when what they wait for is over, soon after it, and not for what comes later."""

import random
from collections import Counter
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.model.x86 import Wait
from ptewalk.rtl.waits import Waits

SOON = 6
"""Cycles from the last event that is waited for to the completion, at most."""


class Model:
    """Who is in flight or granted, and what each invalidation that waits waits for: in truth, and at most."""

    def __init__(self) -> None:
        self.flying: dict[int, int] = {}  # number to its epoch
        self.granted: dict[int, tuple[int, bool]] = {}  # number to (epoch, store)
        self.waiting: list[tuple[Wait, set[int]]] = []
        self.most: set[int] = set()  # of the first: what was before the one before it was complete

    def before(self, wait: Wait) -> set[int]:
        """What one waits for that is accepted now."""
        granted = {number for number, (_, store) in self.granted.items() if store or wait == Wait.ALL}
        return {*self.flying} | granted

    def drop(self, number: int, kinds: tuple[Wait, ...] = (Wait.STORES, Wait.ALL)) -> None:
        for wait, numbers in self.waiting:
            if wait in kinds:
                numbers.discard(number)
        if self.waiting and self.waiting[0][0] in kinds:
            self.most.discard(number)


@pytest.mark.parametrize("reads", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_against_sets(reads: bool, seed: int) -> None:
    unit = Waits(most=40, reads=reads)
    rng = random.Random(f"{reads} {seed}")
    seen: Counter[str] = Counter()

    async def bench(ctx: Any) -> None:
        model, number, since = Model(), 0, 0
        for cycle in range(3000):
            calm = cycle // 100 % 2  # nearly nothing ends
            events = dict.fromkeys(("accepted", "left", "stored", "begins"), 0)
            if reads:
                events |= {"read_granted": 0, "read": 0}
            epoch = ctx.get(unit.epoch)
            if ctx.get(unit.completions.valid):
                wait, numbers = model.waiting.pop(0)
                assert numbers == set(), "it is over before what it waits for"
                assert ctx.get(unit.completions.payload.wait) == wait
                seen[f"{wait.name}"] += 1
                seen["others outstanding"] += bool(model.granted)
                seen["reads outstanding"] += any(not store for _, store in model.granted.values())
                if model.waiting:
                    seen["second"] += 1
                    model.most, since = model.before(model.waiting[0][0]), cycle
            retiring = [number for number in model.granted if rng.random() < (0.01 if calm else 0.2)][:1]
            answering = [number for number in model.flying if rng.random() < (0.02 if calm else 0.4)][:1]
            if len(model.flying) + len(model.granted) < 40 and rng.random() < 0.6:
                number += 1
                events["accepted"] = 1
                model.flying[number] = epoch
            if ctx.get(unit.room) and rng.random() < 0.15:
                wait = rng.choice((Wait.STORES, Wait.ALL))
                events["begins"] = 1
                ctx.set(unit.wait, wait)
                model.waiting.append((wait, model.before(wait)))
                if len(model.waiting) == 1:
                    model.most, since = model.before(wait), cycle
                assert len(model.waiting) <= 2
            for one in answering:
                of, kind = model.flying.pop(one), rng.choice(("left", "store", "read") if reads else ("left", "store"))
                if kind == "store":
                    model.granted[one] = (of & 1, True)
                    continue
                events["left"] = 1
                ctx.set(unit.left_epoch, of & 1)
                if kind == "read":
                    events["read_granted"] = 1
                    ctx.set(unit.read_epoch, of >> 1)
                    model.granted[one] = (of >> 1, False)
                model.drop(one, (Wait.STORES,) if kind == "read" else (Wait.STORES, Wait.ALL))
            for one in retiring:
                of, store = model.granted.pop(one)
                model.drop(one)
                events["stored" if store else "read"] = 1
                ctx.set(unit.stored_epoch if store else unit.retired_epoch, of)
            for name, happens in events.items():
                ctx.set(getattr(unit, name), happens)
            if model.most or not model.waiting:
                since = cycle
            assert cycle - since <= SOON, "it waits for what it has not to wait for"
            await ctx.tick()

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert min(seen["STORES"], seen["ALL"], seen["second"], seen["others outstanding"]) >= 10
    assert not reads or seen["reads outstanding"] >= 10
