"""What the bridge does with bursts that are not allowed, by the rules of docs/bridge.md."""

from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bridge.faults import BurstFaults
from ptewalk.rtl.bridge.layouts import FaultMode

from .bench import FRAME, LINEAR, Bench, run
from .doubles import BUS_ERROR, GENERAL_PROTECTION, OKAY, PAGE, PAGE_FAULT, SLVERR

BAD = LINEAR + 0x40_0000
"""A page that is mapped by no test but as it says."""


@pytest.mark.parametrize(("outcome", "code"), [(PAGE_FAULT, 0x8017), (GENERAL_PROTECTION, 0), (BUS_ERROR, 0)])
def test_faults_are_recorded(outcome: int, code: int) -> None:
    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE, code=code, outcome=outcome)
        assert not bench.status("fault")
        assert await bench.write(BAD + 0x20, [1] * 4, identity=7) == SLVERR
        assert bench.status("fault")
        expected = {"linear": BAD + 0x20, "code": code, "id": 7, "len": 3, "kind": outcome, "stalled": 0}
        assert await bench.fault() == expected | {"write": 1}
        assert (await bench.read(BAD + 0x20, 4, identity=7))[0] == SLVERR
        assert await bench.fault() == expected | {"write": 0}
        assert not bench.status("fault")

    bench = run(job)
    assert not bench.memory.reads and not bench.memory.writes and not bench.mmu.retired


def test_a_full_queue_stalls_nobody() -> None:
    """Who finds no room is answered all the same, stalled or not; that is told until cleared."""

    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE)
        for number in range(4):
            await bench.read(BAD + 8 * number)
        assert not bench.status("fault_overflow")
        bench.control(fault_mode=1)
        assert (await bench.read(BAD + 0x100))[0] == SLVERR
        assert await bench.write(BAD + 0x100, [1]) == SLVERR
        assert bench.status("fault_overflow")
        await bench.pulse("clear_overflow")
        assert not bench.status("fault_overflow")
        assert [(await bench.fault())["linear"] for _ in range(4)] == [BAD + 8 * number for number in range(4)]
        assert not bench.status("fault")

    run(job)


@pytest.mark.parametrize(("name", "clear"), [("fault_overflow", "clear_overflow"), ("stall_timeout", "clear_timeout")])
def test_what_is_raised_as_it_is_cleared_is_raised(name: str, clear: str) -> None:
    """With the clear held a bit is up all the same, for as many cycles as what raises it."""

    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE)
        if name == "fault_overflow":
            for number in range(4):
                await bench.read(BAD + 8 * number)
        else:
            bench.control(fault_mode=1, timeout=5)
        bench.control(**{clear: 1})
        bench.manager.read(1, BAD, beats=1)
        up = 0
        for _ in range(40):
            await bench.ticks(1)
            up += bench.status(name)
        assert up in (1, 2) and not bench.status(name)
        assert (await bench.wait("r"))[0]["resp"] == SLVERR
        while bench.status("fault"):
            await bench.fault()

    run(job)


@pytest.mark.thorough
@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("end", ["retry", "retry twice", "abort", "timeout"])
def test_stalled(write: bool, end: str) -> None:
    """The head of a direction waits, with no grant; those behind it too, and have none; the other direction goes on."""

    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE)
        bench.control(fault_mode=1, timeout=200 if end == "timeout" else 0)
        kind = "write" if write else "read"
        for at in (BAD, LINEAR, LINEAR + PAGE):
            if write:
                bench.manager.write(2, at, [1, 2])
            else:
                bench.manager.read(2, at, beats=2)
        record = await bench.fault()
        assert (record["stalled"], record["kind"], record["write"]) == (1, PAGE_FAULT, write)
        await bench.ticks(100)
        assert bench.status(f"stalled_{kind}") and not bench.mmu.granted and len(bench.mmu.requests) == 1
        assert not bench.manager.seen["b"] and not bench.manager.seen["r"]
        for _ in range(2):  # whosever turn it is
            if write:
                assert (await bench.read(LINEAR))[0] == OKAY
            else:
                assert await bench.write(LINEAR, [1]) == OKAY
        failed = end in ("abort", "timeout")
        if end == "retry twice":
            await bench.pulse(f"retry_{kind}")
            assert (await bench.fault())["stalled"] == 1
        if end.startswith("retry"):
            bench.mmu.map(BAD // PAGE, FRAME + 9)
        if end == "timeout":
            assert not bench.status("stall_timeout")
            await bench.ticks(100)
            assert bench.status("stall_timeout")
            await bench.pulse("clear_timeout")
            assert not bench.status("stall_timeout")
        else:
            await bench.pulse(f"{end.split()[0]}_{kind}")
        expected = [SLVERR if failed else OKAY, OKAY, OKAY]
        if write:
            assert [answer["resp"] for answer in await bench.wait("b", 3)] == expected
            assert bench.memory.load((FRAME + 9) * PAGE, 1) == (b"\0" if failed else b"\1")
        else:
            assert [answer["resp"] for answer in await bench.wait("r", 6)][::2] == expected
        assert not bench.status(f"stalled_{kind}")

    run(job)


@pytest.mark.parametrize("outcome", [GENERAL_PROTECTION, BUS_ERROR])
def test_what_cannot_be_mended_is_not_stalled(outcome: int) -> None:
    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE, outcome=outcome)
        bench.control(fault_mode=1)
        assert await bench.write(BAD, [1]) == SLVERR
        assert (await bench.fault())["stalled"] == 0

    run(job)


def test_nobody_is_stalled_before_a_grant() -> None:
    """The mode changes while a write behind was asked about: the fault is answered, or that grant would wait."""

    async def job(bench: Bench) -> None:
        bench.mmu.fault(BAD // PAGE)
        bench.mmu.slow.add(BAD // PAGE)
        bench.manager.write(1, BAD, [1])
        bench.manager.write(1, LINEAR, [2])
        await bench.ticks(40)
        assert len(bench.mmu.granted) == 1
        bench.control(fault_mode=1)
        bench.mmu.slow.clear()
        assert [answer["resp"] for answer in await bench.wait("b", 2)] == [SLVERR, OKAY]
        assert (await bench.fault())["stalled"] == 0

    run(job)


@pytest.mark.parametrize("timeout", [0, 1, 2, 3, 9])
def test_a_stall_lasts_as_many_cycles_as_the_timeout_says(timeout: int) -> None:
    """Twice in a row; of 0 it is over in no 30 cycles."""
    unit = BurstFaults()
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        ctx.set(unit.mode, FaultMode.STALL)
        ctx.set(unit.timeout, timeout)
        ctx.set(unit.outcome, PAGE_FAULT)
        for name in ("judged", "alone", "reported", "room"):
            ctx.set(getattr(unit, name), 1)
        for _ in range(2):
            await ctx.tick()
            stalled = 0
            while ctx.get(unit.stalled) and stalled < 30:
                stalled += 1
                assert ctx.get(unit.times_out) == (stalled == timeout)
                await ctx.tick()
            assert stalled == (timeout or 30)
            if timeout:
                assert ctx.get(unit.failed)
                ctx.set(unit.passes, 1)
                await ctx.tick()
                ctx.set(unit.passes, 0)

    simulator.add_testbench(bench)
    simulator.run()
