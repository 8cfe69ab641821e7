"""Software's invalidations beside those of a command's end: nobody is left out, and who need not wait does not."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import pytest
from amaranth.sim import Simulator

from ptewalk.model.x86 import Invalidation, Wait
from ptewalk.rtl.engine.ending import MOST_ADDRESSES, Ending, Invalidations

MOST_TAKEN = 40
"""Cycles that one may be on offer while there is room."""


class Taken(NamedTuple):
    cycle: int
    own: bool
    wait: Wait


class Mmu:
    """Takes what waits for nothing when it is idle, what waits if there is room too; a store takes `delay` cycles."""

    def __init__(self, delay: int, busy: int, most: int = 2) -> None:
        self.delay, self.busy, self.most = delay, busy, most
        self.ends: deque[int] = deque()
        self.works_until = 0

    def ready(self, cycle: int, wait: Wait) -> bool:
        return cycle >= self.works_until and (wait == Wait.NONE or len(self.ends) < self.most)

    def take(self, cycle: int, wait: Wait) -> None:
        self.works_until = cycle + self.busy
        if wait != Wait.NONE:
            # Stores begin every fourth cycle; what waits is complete when the last before it has retired.
            self.ends.append(max(cycle // 4 * 4 + self.delay, self.ends[-1] + 1 if self.ends else 0))


def run(delay: int, busy: int, software: Wait, own: Wait, begins: int, cycles: int, step: int = 3) -> list[Taken]:
    """Software always offers one of a kind; the end of a command offers its own from a cycle on, until it is taken."""
    dut, mmu, taken = Invalidations(), Mmu(delay, busy), list[Taken]()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.software.payload, {"kind": Invalidation.ADDRESS, "wait": software})
        ctx.set(dut.own.payload, {"kind": Invalidation.PCID, "wait": own})
        ctx.set(dut.software.valid, 1)
        ctx.set(dut.paused, 1)
        for cycle in range(cycles):
            ctx.set(dut.own.valid, cycle >= begins and not any(one.own for one in taken))
            ctx.set(dut.stepped, cycle % step == 0)
            completes = bool(mmu.ends) and mmu.ends[0] <= cycle
            ctx.set(dut.completions.valid, completes)
            if completes:
                mmu.ends.popleft()
            wait = Wait(int(ctx.get(dut.invalidations.payload.wait)))
            ctx.set(dut.invalidations.ready, mmu.ready(cycle, wait))
            if ctx.get(dut.invalidations.valid) and ctx.get(dut.invalidations.ready):
                mmu.take(cycle, wait)
                taken.append(Taken(cycle, bool(ctx.get(dut.own.ready)), wait))
                assert taken[-1].own != bool(ctx.get(dut.software.ready))
            await ctx.tick()

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return taken


@pytest.mark.parametrize("delay", [16, 17, 20, 21, 30])
@pytest.mark.parametrize("begins", [200, 201])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_own_and_softwares_take_turns(delay: int, begins: int, step: int) -> None:
    """Both wait for room, which opens at even distances or at odd ones."""
    taken = run(delay, 1, Wait.STORES, Wait.STORES, begins, 400, step)
    assert len(taken) > 10
    (own,) = [one.cycle for one in taken if one.own]
    assert own - begins <= 2 * delay + MOST_TAKEN


@pytest.mark.parametrize("busy", [1, 2, 4, 6])
@pytest.mark.parametrize("step", [1, 2, 5])
def test_a_storm_of_those_that_wait_for_nothing(busy: int, step: int) -> None:
    """They do not keep out one that waits, when there is room."""
    taken = run(20, busy, Wait.NONE, Wait.STORES, 100, 300, step)
    (own,) = [one.cycle for one in taken if one.own]
    assert own - 100 <= MOST_TAKEN
    assert sum(not one.own for one in taken) > 15


@pytest.mark.parametrize("own", [Wait.NONE, Wait.STORES])
def test_who_waits_for_room_holds_up_none_that_does_not(own: Wait) -> None:
    """There is no room for long: those that wait for nothing go on."""
    other = Wait.STORES if own == Wait.NONE else Wait.NONE
    taken = run(10_000, 1, other, own, 100, 700)
    free = [one.cycle for one in taken if one.wait == Wait.NONE and one.cycle >= 100]
    assert free and free[0] <= 100 + MOST_TAKEN
    if own == Wait.STORES:  # two of software's are not there to fill the room: it is taken, and software goes on
        assert len(free) > 10 and [one.own for one in taken].count(True) == 1


def told(span: dict[str, int]) -> list[tuple[Invalidation, int, int, Wait]]:
    """What the end of a command invalidates: kind, address, PCID and wait of each; it is over after the drain alone."""
    dut, sent = Ending(), list[tuple[Invalidation, int, int, Wait]]()

    async def bench(ctx: Any) -> None:
        ctx.set(dut.span, span)
        ctx.set(dut.valid, 1)
        for cycle in range(4 * MOST_ADDRESSES):
            ctx.set(dut.invalidations.ready, cycle % 3 != 0)
            if ctx.get(dut.invalidations.valid) and ctx.get(dut.invalidations.ready):
                asked = ctx.get(dut.invalidations.payload)
                sent.append((Invalidation(asked.kind), int(asked.linear), int(asked.pcid), Wait(int(asked.wait))))
            assert not ctx.get(dut.over)
            await ctx.tick()
        ctx.set(dut.drained, 1)
        await ctx.tick()
        ctx.set(dut.drained, 0)
        assert ctx.get(dut.over)
        ctx.set(dut.valid, 0)
        await ctx.tick().repeat(2)
        assert not ctx.get(dut.over)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return sent


@pytest.mark.parametrize("pages", [1, 2, 3, MOST_ADDRESSES - 1, MOST_ADDRESSES])
@pytest.mark.parametrize(
    ("page", "la57", "first"),
    [
        (0x1234, 0, 0x1234 << 12),
        (0x8_0000_0000, 0, 0xFFFF_8000_0000_0000),
        (0x8_0000_0000, 1, 0x8_0000_0000 << 12),
        (1 << 44, 1, 0xFF00_0000_0000_0000),
    ],
)
def test_each_page_of_a_few_by_its_address(pages: int, page: int, la57: int, first: int) -> None:
    """Every page once, in order, by its canonical address; only the last one waits."""
    waits = [Wait.NONE] * (pages - 1) + [Wait.STORES]
    due = [(Invalidation.ADDRESS, first + 4096 * number, 5, wait) for number, wait in enumerate(waits)]
    assert told({"page": page, "pages": pages, "la57": la57, "pcid": 5}) == due


@pytest.mark.parametrize(
    ("span", "kind", "wait"),
    [
        ({"pages": MOST_ADDRESSES + 1}, Invalidation.PCID, Wait.STORES),
        ({"pages": 1 << 20}, Invalidation.PCID, Wait.STORES),
        ({"pages": 1, "whole": 1}, Invalidation.PCID, Wait.STORES),
        ({"pages": 2, "whole": 1, "reads": 1}, Invalidation.PCID, Wait.ALL),
        ({"pages": 1, "shared": 1}, Invalidation.ALL, Wait.STORES),
    ],
)
def test_more_than_a_few_pages_by_their_pcid(span: dict[str, int], kind: Invalidation, wait: Wait) -> None:
    """What is not by address is one invalidation, of all PCIDs where something global was changed."""
    ((found, _, pcid, waited),) = told({"page": 7, "pcid": 9, **span})
    assert (found, pcid, waited) == (kind, 9, wait)
