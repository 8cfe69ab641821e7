# amaranth: UnusedElaboratable=no
"""The fault unit between a requester and a walker that the test plays."""

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.model import x86
from ptewalk.rtl.fault_unit import FaultUnit

from .walker_bench import BUS, FETCH, GP, OK, PF, PROBE, READ, RMW, WRITE


class Driver:
    """The requester's and the walker's side of a fault unit."""

    def __init__(self, ctx: Any, unit: FaultUnit) -> None:
        self.ctx = ctx
        self.unit = unit

    def get(self, name: str) -> int:
        value: int = self.ctx.get(getattr(self.unit, name))
        return value

    async def ask(self, linear: int, access: int = READ, tag: int = 0) -> None:
        """A request, taken by the walker at once."""
        ctx, unit = self.ctx, self.unit
        ctx.set(unit.i_requests.payload, {"linear": linear, "access": x86.Access(access), "tag": tag})
        ctx.set(unit.i_requests.valid, 1)
        ctx.set(unit.o_requests.ready, 1)
        assert ctx.get(unit.o_requests.valid) and ctx.get(unit.i_requests.ready)
        assert ctx.get(unit.o_requests.payload.linear) == linear
        await ctx.tick()
        ctx.set(unit.i_requests.valid, 0)
        ctx.set(unit.o_requests.ready, 0)

    def offer(self, outcome: int, code: int = 0, tag: int = 0) -> None:
        """The walker offers its answer."""
        fields = {"outcome": x86.Outcome(outcome), "code": code, "tag": tag}
        self.ctx.set(self.unit.i_responses.payload, fields)
        self.ctx.set(self.unit.i_responses.valid, 1)
        self.ctx.set(self.unit.o_responses.ready, 1)

    async def answer(self, outcome: int, code: int = 0, tag: int = 0) -> None:
        """An answer, delivered in this cycle."""
        self.offer(outcome, code, tag)
        assert self.ctx.get(self.unit.o_responses.valid) and self.ctx.get(self.unit.i_responses.ready)
        await self.ctx.tick()
        self.ctx.set(self.unit.i_responses.valid, 0)

    async def retire(self, tag: int) -> None:
        self.ctx.set(self.unit.i_retired.payload.tag, tag)
        self.ctx.set(self.unit.i_retired.valid, 1)
        await self.ctx.tick()
        self.ctx.set(self.unit.i_retired.valid, 0)

    async def take(self) -> tuple[int, int, int]:
        """(linear, code, tag) of the oldest fault."""
        ctx, faults = self.ctx, self.unit.o_faults
        for _ in range(4):
            if ctx.get(faults.valid):
                break
            await ctx.tick()
        assert ctx.get(faults.valid), "no fault in the queue"
        record = tuple(int(ctx.get(faults.payload[name])) for name in ("linear", "code", "tag"))
        ctx.set(faults.ready, 1)
        await ctx.tick()
        ctx.set(faults.ready, 0)
        return record  # type: ignore[return-value]


def run(test: Callable[[Driver], Any], fault_depth: int = 4) -> None:
    unit = FaultUnit(physical_bits=40, tag_bits=8, fault_depth=fault_depth)
    ended = []

    async def bench(ctx: Any) -> None:
        await test(Driver(ctx, unit))
        ended.append(True)

    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert ended


@pytest.mark.parametrize("fault_depth", [0, 1025, -1, "4", 2.0])
def test_parameter_errors(fault_depth: Any) -> None:
    with pytest.raises(ValueError) as error:
        FaultUnit(physical_bits=40, tag_bits=8, fault_depth=fault_depth)
    assert str(error.value) == f"fault_depth must be an integer from 1 to 1024, not {fault_depth!r}"


def test_adds_no_cycle() -> None:
    """Requests and answers pass in the cycle in which they are offered; `Driver` asserts it."""

    async def test(driver: Driver) -> None:
        for tag in range(3):
            await driver.ask(0x1000 * tag, READ, tag)
            await driver.answer(OK, tag=tag)
        assert not driver.ctx.get(driver.unit.o_faults.valid)

    run(test)


def test_faults_in_order_with_linear_code_and_tag() -> None:
    async def test(driver: Driver) -> None:
        for number in (1, 2, 3):
            await driver.ask(0xFFFF_8000_0000_0000 + number, WRITE, tag=number)
            await driver.answer(PF, code=number + 1, tag=number)
        for number in (1, 2, 3):
            assert await driver.take() == (0xFFFF_8000_0000_0000 + number, number + 1, number)
        assert not driver.ctx.get(driver.unit.o_faults.valid)

    run(test)


@pytest.mark.parametrize("outcome", [OK, GP, BUS])
def test_only_page_faults_are_queued(outcome: int) -> None:
    async def test(driver: Driver) -> None:
        await driver.ask(0x1000)
        await driver.answer(outcome)
        for _ in range(4):
            assert not driver.ctx.get(driver.unit.o_faults.valid)
            await driver.ctx.tick()

    run(test)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_full_queue_holds_the_answer(depth: int) -> None:
    """No fault is lost; an answer that is no fault passes a full queue."""

    async def test(driver: Driver) -> None:
        ctx, unit = driver.ctx, driver.unit
        asked, taken = 0, []
        while True:
            await driver.ask(0x1000 * asked, tag=asked)
            driver.offer(PF, code=4, tag=asked)
            if not ctx.get(unit.o_responses.valid):
                break
            await ctx.tick()
            ctx.set(unit.i_responses.valid, 0)
            asked += 1
        assert depth <= asked <= depth + 1
        for _ in range(5):
            assert not ctx.get(unit.o_responses.valid) and not ctx.get(unit.i_responses.ready)
            await ctx.tick()
        driver.offer(OK)
        assert ctx.get(unit.o_responses.valid) and ctx.get(unit.i_responses.ready)
        driver.offer(PF, code=4, tag=asked)
        taken.append(await driver.take())
        for _ in range(3):
            if ctx.get(unit.o_responses.valid):
                break
            await ctx.tick()
        assert ctx.get(unit.o_responses.valid)
        await ctx.tick()
        ctx.set(unit.i_responses.valid, 0)
        taken += [await driver.take() for _ in range(asked)]
        assert taken == [(0x1000 * number, 4, number) for number in range(asked + 1)]

    run(test, fault_depth=depth)


@pytest.mark.parametrize(
    ("access", "outcome", "grants"),
    [(WRITE, OK, 1), (RMW, OK, 1), (READ, OK, 0), (FETCH, OK, 0), (PROBE, OK, 0)]
    + [(WRITE, PF, 0), (WRITE, GP, 0), (RMW, BUS, 0)],
)
def test_what_a_grant_is(access: int, outcome: int, grants: int) -> None:
    """An OK to a write or rmw, and nothing else."""

    async def test(driver: Driver) -> None:
        await driver.ask(0x1000, access)
        await driver.answer(outcome)
        assert driver.get("o_granted") == grants

    run(test)


def test_drain_waits_for_every_grant() -> None:
    """Retired out of order; one retires in the cycle in which another is granted."""

    async def test(driver: Driver) -> None:
        ctx, unit = driver.ctx, driver.unit
        for tag in (1, 2, 3):
            await driver.ask(0x1000, WRITE, tag)
            await driver.answer(OK, tag=tag)
        assert driver.get("o_granted") == 3
        await driver.ask(0x1000, WRITE, 4)
        ctx.set(unit.i_retired.payload.tag, 2)
        ctx.set(unit.i_retired.valid, 1)
        await driver.answer(OK, tag=4)
        ctx.set(unit.i_retired.valid, 0)
        assert driver.get("o_granted") == 3
        ctx.set(unit.i_drain, 1)
        for left, tag in ((3, 4), (2, 1), (1, 3)):
            assert driver.get("o_granted") == left
            assert not driver.get("o_drained")
            await driver.retire(tag)
        assert driver.get("o_drained")
        ctx.set(unit.i_drain, 0)
        assert not driver.get("o_drained"), "only with i_drain"

    run(test)


def test_drain_waits_for_what_is_in_flight() -> None:
    async def test(driver: Driver) -> None:
        ctx, unit = driver.ctx, driver.unit
        await driver.ask(0x1000, WRITE, 1)
        ctx.set(unit.i_drain, 1)
        for _ in range(3):
            assert not driver.get("o_drained")
            await ctx.tick()
        await driver.answer(OK, tag=1)
        assert not driver.get("o_drained")
        await driver.retire(1)
        assert driver.get("o_drained")

    run(test)


def test_drain_holds_requests() -> None:
    async def test(driver: Driver) -> None:
        ctx, unit = driver.ctx, driver.unit
        ctx.set(unit.i_drain, 1)
        ctx.set(unit.i_requests.payload, {"linear": 0x1000, "access": x86.Access.WRITE})
        ctx.set(unit.i_requests.valid, 1)
        ctx.set(unit.o_requests.ready, 1)
        for _ in range(3):
            assert not ctx.get(unit.o_requests.valid) and not ctx.get(unit.i_requests.ready)
            assert driver.get("o_drained")
            await ctx.tick()
        ctx.set(unit.i_drain, 0)
        assert ctx.get(unit.o_requests.valid) and ctx.get(unit.i_requests.ready)

    run(test)


def test_drain_does_not_withdraw_an_offer() -> None:
    """The walker has seen the request: it goes through, and the drain waits for it."""

    async def test(driver: Driver) -> None:
        ctx, unit = driver.ctx, driver.unit
        ctx.set(unit.i_requests.payload, {"linear": 0x1000, "access": x86.Access.READ})
        ctx.set(unit.i_requests.valid, 1)
        await ctx.tick()
        ctx.set(unit.i_drain, 1)
        for _ in range(2):
            assert ctx.get(unit.o_requests.valid)
            assert not driver.get("o_drained")
            await ctx.tick()
        ctx.set(unit.o_requests.ready, 1)
        await ctx.tick()
        assert not ctx.get(unit.o_requests.valid), "the next one waits"
        assert not driver.get("o_drained")
        await driver.answer(OK)
        assert driver.get("o_drained")

    run(test)
