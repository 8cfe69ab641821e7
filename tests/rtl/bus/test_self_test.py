"""The self-test of what lies below a port: what serves passes, and each way not to serve is told by its own bit."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bus.exclusive import ExclusivePortConfig
from ptewalk.rtl.bus.self_test import CHECKS, SelfTest

OKAY, EXOKAY, SLVERR = 0, 1, 2
SCRATCH = 0x1230
DEFECTS: dict[str, set[str]] = {
    "none": set(),
    "no monitor": {"pair", "spent", "write", "one_byte", "two"},
    "lock believed": {"spent", "write", "one_byte", "other"},
    "never spent": {"spent"},
    "own writes only": {"write", "one_byte"},
    "start compared": {"one_byte"},
    "exclusive writes end nothing": {"other"},
    "one place": {"two"},
}
"""What is wrong with a memory, to the checks that must fail: no others may."""


class Memory:
    """One access at a time, answered in the cycle after; with something wrong."""

    def __init__(self, axi: Any, data_bits: int, defect: str, *, bad: bool = False) -> None:
        self.axi, self.lanes, self.defect, self.bad = axi, data_bits // 64, defect, bad
        self.words: dict[int, int] = {}
        self.reserved: dict[int, int] = {}
        self.accesses = 0

    def read(self, identity: int, address: int, lock: int) -> int:
        if not lock or self.defect == "no monitor":
            return OKAY
        if self.defect == "one place":
            self.reserved.clear()
        self.reserved[identity] = address
        return EXOKAY

    def write(self, identity: int, address: int, lock: int, value: int, strobes: int) -> int:
        word = address & ~7
        held = self.reserved.get(identity) == word or self.defect == "lock believed"
        if lock and self.defect != "no monitor" and not held:
            return OKAY
        mask = sum(0xFF << 8 * byte for byte in range(8) if strobes >> byte & 1)
        self.words[word] = self.words.get(word, 0) & ~mask | value & mask
        for other in list(self.reserved):
            mine = other == identity
            spares = {
                "own writes only": not mine and not lock,
                "start compared": self.reserved[other] != address,
                "never spent": lock and mine,
                "exclusive writes end nothing": lock and not mine,
            }.get(self.defect, False)
            if self.reserved[other] == word and not spares:
                del self.reserved[other]
        return EXOKAY if lock and self.defect != "no monitor" else OKAY

    async def run(self, ctx: Any) -> None:
        axi, parts = self.axi, {}
        for channel in (axi.aw, axi.w, axi.ar):
            ctx.set(channel.ready, 1)
        while True:
            signals = [s for c in (axi.aw, axi.w, axi.ar) for s in (c.valid, c.payload)]
            sampled = (await ctx.tick().sample(*signals))[2:]
            ctx.set(axi.r.valid, 0)
            ctx.set(axi.b.valid, 0)
            aw, w, ar = (sampled[2 * place + 1] if sampled[2 * place] else None for place in range(3))
            if ar is not None:
                self.accesses += 1
                answer = SLVERR if self.bad else self.read(int(ar.id), int(ar.addr), int(ar.lock))
                lane = int(ar.addr) // 8 % self.lanes
                beat = self.words.get(int(ar.addr), 0) << 64 * lane
                ctx.set(axi.r.payload, {"id": int(ar.id), "data": beat, "resp": answer, "last": 1})
                ctx.set(axi.r.valid, 1)
            parts |= {name: part for name, part in (("aw", aw), ("w", w)) if part is not None}
            if len(parts) == 2:
                self.accesses += 1
                aw, w = parts.pop("aw"), parts.pop("w")
                lane = int(aw.addr) // 8 % self.lanes
                assert not int(w.strb) & ~(0xFF << 8 * lane)
                told = (int(w.data) >> 64 * lane & 2**64 - 1, int(w.strb) >> 8 * lane & 0xFF)
                answer = SLVERR if self.bad else self.write(int(aw.id), int(aw.addr), int(aw.lock), *told)
                ctx.set(axi.b.payload, {"id": int(aw.id), "resp": answer})
                ctx.set(axi.b.valid, 1)


def tried(defect: str, data_bits: int = 64, *, bad: bool = False) -> tuple[dict[str, int], Memory]:
    """The result on a memory, twice the same."""
    test = SelfTest(ExclusivePortConfig(data_bits=data_bits))
    memory = Memory(test.m_axi, data_bits, defect, bad=bad)
    found: list[dict[str, int]] = []

    async def bench(ctx: Any) -> None:
        for _ in range(2):
            ctx.set(test.address, SCRATCH)
            ctx.set(test.start, 1)
            await ctx.tick().until(test.done)
            ctx.set(test.start, 0)
            await ctx.tick()
            found.append({str(name): int(ctx.get(test.result[str(name)])) for name, _ in test.result.shape()})

    simulator = Simulator(test)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.run, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert found[0] == found[1]
    return found[0], memory


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_has_its_checks(defect: str) -> None:
    result, memory = tried(defect)
    assert (result.pop("ran"), result.pop("error")) == (1, 0)
    assert {name for name in CHECKS if not result[name]} == DEFECTS[defect]
    assert memory.accesses == 48 and set(memory.words) == {SCRATCH, SCRATCH + 8}


@pytest.mark.parametrize("data_bits", [128, 512])
def test_on_a_wider_bus(data_bits: int) -> None:
    result, _ = tried("none", data_bits)
    assert result == {"ran": 1, **dict.fromkeys(CHECKS, 1), "error": 0}


def test_a_bus_error_ends_it() -> None:
    result, memory = tried("none", bad=True)
    assert result == {"ran": 1, **dict.fromkeys(CHECKS, 0), "error": 1}
    assert memory.accesses == 2
