"""The TLB against its contract: a hit is the last fill that covers the address, and that nothing took since."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.tlb import Tlb, TlbOp

SHIFT = {1: 12, 2: 21, 3: 30}
LINEARS = [
    0x40_0000_0000 + offset for offset in (0, 0x1000, 0x2000, 0x8000, 0x20_0000, 0x21_0000, 0x60_0000, 0x4000_0000)
]


@dataclass
class Kept:
    """What a fill left: a 4 KiB page, or the 2 MiB of a large page in which the filled address lies."""

    level: int
    linear: int
    slot: int
    is_global: bool
    frame: int

    def serves(self, linear: int, slot: int) -> bool:
        shift = SHIFT[min(self.level, 2)]
        return linear >> shift == self.linear >> shift and (self.slot == slot or self.is_global)

    def covered(self, linear: int, slot: int) -> bool:
        """By an invalidation of this address: of any in the page."""
        shift = SHIFT[self.level]
        return linear >> shift == self.linear >> shift and (self.slot == slot or self.is_global)


class Contract:
    """What may be found: no ways, no sets, no replacement."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []

    def do(self, kind: TlbOp, new: Kept) -> None:
        keep = {
            TlbOp.FILL: lambda kept: not self._replaced(kept, new),
            TlbOp.DROP: lambda kept: not kept.covered(new.linear, new.slot),
            TlbOp.DROP_LOCAL: lambda kept: kept.is_global or not kept.covered(new.linear, new.slot),
            TlbOp.FLUSH: lambda kept: False,
            TlbOp.FLUSH_LOCAL: lambda kept: kept.is_global,
        }[kind]
        self.kept = [kept for kept in self.kept if keep(kept)]
        if kind == TlbOp.FILL:
            self.kept.append(new)

    @staticmethod
    def _replaced(kept: Kept, new: Kept) -> bool:
        """A fill takes what would serve beside it in its bank: of its slot, global, or any when it is global itself."""
        one_bank = (kept.level == 1) == (new.level == 1)
        return one_bank and (kept.serves(new.linear, new.slot) or (new.is_global and new.serves(kept.linear, 0)))

    def found(self, linear: int, slot: int) -> list[Kept]:
        return [kept for kept in self.kept if kept.serves(linear, slot)]


def frame_of(kept: Kept, linear: int) -> int:
    """Frame number of the 4 KiB page in what was kept."""
    low = (1 << SHIFT[kept.level] - 12) - 1
    return kept.frame & ~low | linear >> 12 & low


@pytest.mark.thorough
@pytest.mark.parametrize(("shape", "seed"), [((2, 2), 1), ((4, 1), 2), ((8, 4), 3)])
def test_a_hit_is_what_was_filled_last_and_nothing_took(shape: tuple[int, int], seed: int) -> None:
    rng = random.Random(seed)
    tlb = Tlb(physical_bits=40, slot_bits=2, small=shape, large=shape)
    contract, seen = Contract(), Counter[str]()

    async def operate(ctx: Any, kind: TlbOp, linear: int, slot: int) -> None:
        level, is_global, frame = rng.choice((1, 1, 1, 2, 3)), rng.random() < 0.3, rng.getrandbits(28)
        low = (1 << SHIFT[level] - 12) - 1
        frame = frame & ~low | linear >> 12 & low
        ops = tlb.ops
        entry = {"frame": frame, "level": level, "pkey": frame & 15}
        ctx.set(ops.payload, {"kind": kind, "linear": linear, "slot": slot, "entry": entry, "g": is_global})
        ctx.set(ops.valid, 1)
        ctx.set(tlb.own, 1)
        assert ctx.get(ops.ready)
        await ctx.tick()
        ctx.set(ops.valid, 0)
        ctx.set(tlb.own, 0)
        cycles = 0
        while ctx.get(tlb.busy):
            cycles += 1
            await ctx.tick()
        assert cycles == 2
        contract.do(kind, Kept(level, linear, slot, is_global, frame))
        if kind == TlbOp.FILL:
            hit, got = await look(ctx, linear, slot)
            assert hit and got in [frame_of(kept, linear) for kept in contract.found(linear, slot)]

    async def look(ctx: Any, linear: int, slot: int) -> tuple[int, int]:
        ctx.set(tlb.linear, linear)
        ctx.set(tlb.slot, slot)
        ctx.set(tlb.look, 1)
        await ctx.tick()
        ctx.set(tlb.look, 0)
        large = ctx.get(tlb.entry.level) > 1
        frame = ctx.get(tlb.entry.frame)
        return ctx.get(tlb.hit), frame & ~511 | linear >> 12 & 511 if large else frame

    async def test(ctx: Any) -> None:
        for _ in range(900):
            linear, slot = rng.choice(LINEARS) + rng.choice((0, 0, 0x8_0000)), rng.randrange(3)
            if rng.random() < 0.35:
                kinds = (*(TlbOp.FILL,) * 8, TlbOp.DROP, TlbOp.DROP, TlbOp.DROP_LOCAL, TlbOp.FLUSH_LOCAL)
                kind = rng.choice((*kinds, TlbOp.FLUSH) if rng.random() < 0.3 else kinds)
                await operate(ctx, kind, linear, slot)
                seen[kind.name] += 1
                continue
            hit, frame = await look(ctx, linear, slot)
            found = contract.found(linear, slot)
            seen["hits" if hit else "misses"] += 1
            if hit:
                assert found, f"{linear:#x} of slot {slot} hit, and nothing serves it"
                allowed = {frame_of(kept, linear) for kept in found}  # one of each bank at most
                assert len(found) == len({kept.level == 1 for kept in found})
                assert frame in allowed, f"{linear:#x} of slot {slot}: frame {frame:#x}, expected one of {allowed}"

    simulator = Simulator(tlb)
    simulator.add_clock(1e-6)
    simulator.add_testbench(test)
    simulator.run()
    assert seen["hits"] > 100 and seen["misses"] > 50 and all(seen[kind.name] > 3 for kind in TlbOp)
