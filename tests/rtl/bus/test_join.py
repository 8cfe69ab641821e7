"""Two managers on one bus: AXI's rules there, each gets its own answers, and neither starves."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from ptewalk.rtl.bus.join import AxiJoin
from ptewalk.rtl.bus.rules import AxiRules, broken_rules

from .burst_memory import Manager, Memory

ALONE = 5


class Told(Memory):
    """Answers each ID by its own; what came is in `order`."""

    def __init__(self, bus: Any, **other: Any) -> None:
        super().__init__(bus, **other)
        self.whose: dict[str, list[int]] = {"ar": [], "aw": []}
        self.order: list[tuple[str, int]] = []

    def step(self) -> None:
        for name in ("ar", "aw"):
            for one in self.seen[name]:
                self.whose[name].append(one["id"])
                self.order.append((name, one["id"]))
                one["id"] = 0
        answered = {name: len(self.out[name]) for name in ("r", "b")}
        super().step()
        for beat in list(self.out["r"])[answered["r"] :]:
            beat["id"] = self.whose["ar"][0]
            if beat["last"]:
                self.whose["ar"].pop(0)
        for beat in list(self.out["b"])[answered["b"] :]:
            beat["id"] = self.whose["aw"].pop(0)


def test_each_field_passes() -> None:
    """Addresses and data of either go out as they are, AxLOCK too, and answers come back so; only the ID of `t_axi` is
    another."""
    dut = AxiJoin(address_bits=32, data_bits=64, id_bits=3, ids=5, alone=ALONE, atomic=True)
    rng = random.Random(13)

    def drawn(payload: Any) -> dict[str, int]:
        return {str(name): rng.getrandbits(field.width) for name, field in payload.shape()}

    async def bench(ctx: Any) -> None:
        bus, sides = dut.m_axi, (dut.s_axi, dut.t_axi)
        for _ in range(40):
            for number, side in enumerate(sides):
                asked = {name: drawn(getattr(side, name).payload) for name in ("aw", "ar", "w")}
                asked["w"]["last"] = 1
                for name, values in asked.items():
                    values |= {"id": 0 if number else rng.randrange(5)} if "id" in values else {}
                    ctx.set(getattr(side, name).payload, values)
                    ctx.set(getattr(side, name).valid, 1)
                    ctx.set(getattr(bus, name).ready, 1)
                for name, values in asked.items():
                    assert ctx.get(getattr(bus, name).valid)
                    found = {key: int(ctx.get(getattr(bus, name).payload[key])) for key in values}
                    wanted = values | ({"id": ALONE} if number and "id" in values else {})
                    assert found == wanted, name
                assert not number or ctx.get(bus.aw.payload.atop) == 0  # `t_axi` has none
                await ctx.tick()
                for name in asked:
                    ctx.set(getattr(side, name).valid, 0)
                for name in ("r", "b"):
                    values = drawn(getattr(bus, name).payload) | {"id": ALONE if number else rng.randrange(5)}
                    ctx.set(getattr(bus, name).payload, values)
                    ctx.set(getattr(bus, name).valid, 1)
                    answer = getattr(side, name)
                    assert ctx.get(answer.valid) and not ctx.get(getattr(sides[1 - number], name).valid)
                    found = {key: int(ctx.get(answer.payload[key])) for key in values}
                    assert found == values | ({"id": 0} if number else {}), name
                    ctx.set(getattr(bus, name).valid, 0)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_bursts_of_both(seed: int | None) -> None:
    """Each writes bursts to a place of its own and reads them; W of one burst may come before its AW."""
    rng = None if seed is None else random.Random(seed)
    top = Module()
    top.submodules.dut = dut = AxiJoin(address_bits=32, data_bits=64, id_bits=3, ids=5, alone=ALONE)
    top.submodules.rules = rules = AxiRules(dut.m_axi, reads=8, writes=8)
    memory = Told(dut.m_axi, rng=rng)
    managers = (Manager(dut.s_axi, rng=rng), Manager(dut.t_axi, rng=rng))
    for number in range(4):
        managers[0].write(number % 4, 0x1000 + 64 * number, [0x100 * number + beat for beat in range(1 + number % 8)])
        managers[1].write(0, 0x2000 + 8 * number, [number])

    async def bench(ctx: Any) -> None:
        for _ in range(600):
            _, _, broken = await ctx.tick().sample(rules.broken)
            assert not broken, broken_rules(broken)
            if all(len(one.seen["b"]) == 4 for one in managers) and not managers[0].out["ar"]:
                break
        for number in range(4):
            managers[0].read(number % 4, 0x1000 + 64 * number, beats=1 + number % 8)
            managers[1].read(0, 0x2000 + 8 * number)
        for _ in range(600):
            _, _, broken = await ctx.tick().sample(rules.broken)
            assert not broken, broken_rules(broken)

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    for one in (memory, *managers):
        simulator.add_testbench(one.run, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert [one["id"] for one in managers[0].seen["b"]] == [number % 4 for number in range(4)]
    assert [one["id"] for one in managers[1].seen["b"]] == [0] * 4
    found = [beat["data"] for beat in managers[0].seen["r"]]
    assert found == [0x100 * number + beat for number in range(4) for beat in range(1 + number % 8)]
    assert [(beat["id"], beat["data"]) for beat in managers[1].seen["r"]] == [(0, number) for number in range(4)]
    if seed is None:
        # In turn, while both ask.
        for name in ("ar", "aw"):
            first = [identity == ALONE for told, identity in memory.order if told == name][:4]
            assert first == [not first[0], first[0]] * 2 or first == [first[0], not first[0]] * 2
