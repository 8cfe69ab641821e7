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
    """The requester's, the walker's and the supervisor's side of a fault unit."""

    def __init__(self, ctx: Any, unit: FaultUnit) -> None:
        self.ctx = ctx
        self.unit = unit
        self.requests, self.responses = unit.requester.requests, unit.requester.responses
        self.retired = unit.requester.retired
        self.to_walker, self.from_walker = unit.walker.requests, unit.walker.responses
        self.supervisor = unit.supervisor

    def get(self, name: str) -> int:
        """A port of the supervisor's side."""
        value: int = self.ctx.get(getattr(self.supervisor, name))
        return value

    def status(self) -> set[str]:
        """The bits of the status that are set."""
        value = self.ctx.get(self.supervisor.status)
        return {name for name in value.shape().members if value[name]}

    def show(self, linear: int, access: int = READ, tag: int = 0) -> None:
        """A request is on offer."""
        fields = {"linear": linear, "access": x86.Access(access), "tag": tag}
        self.ctx.set(self.requests.payload, fields)
        self.ctx.set(self.requests.valid, 1)

    async def ask(self, linear: int, access: int = READ, tag: int = 0) -> None:
        """A request, taken by the walker at once."""
        ctx = self.ctx
        self.show(linear, access, tag)
        ctx.set(self.to_walker.ready, 1)
        assert ctx.get(self.to_walker.valid) and ctx.get(self.requests.ready)
        assert ctx.get(self.to_walker.payload.linear) == linear
        await ctx.tick()
        ctx.set(self.requests.valid, 0)
        ctx.set(self.to_walker.ready, 0)

    def offer(self, outcome: int, code: int = 0, tag: int = 0) -> None:
        """The walker offers its answer."""
        fields = {"outcome": x86.Outcome(outcome), "code": code, "tag": tag}
        self.ctx.set(self.from_walker.payload, fields)
        self.ctx.set(self.from_walker.valid, 1)
        self.ctx.set(self.responses.ready, 1)

    def passes(self) -> bool:
        """The answer on offer goes through in this cycle."""
        valid, ready = self.ctx.get(self.responses.valid), self.ctx.get(self.from_walker.ready)
        assert valid == ready
        return bool(valid)

    async def answer(self, outcome: int, code: int = 0, tag: int = 0) -> None:
        """An answer, delivered in this cycle."""
        self.offer(outcome, code, tag)
        assert self.passes()
        await self.ctx.tick()
        self.ctx.set(self.from_walker.valid, 0)

    async def grant(self, tag: int) -> None:
        """A store that is allowed."""
        await self.ask(0x1000, WRITE, tag)
        await self.answer(OK, tag=tag)

    async def retire(self, tag: int) -> None:
        self.ctx.set(self.retired.payload.tag, tag)
        self.ctx.set(self.retired.valid, 1)
        await self.ctx.tick()
        self.ctx.set(self.retired.valid, 0)

    async def take(self) -> tuple[int, int, int]:
        """(linear, code, tag) of the oldest fault."""
        ctx, faults = self.ctx, self.supervisor.faults
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


def run(test: Callable[[Driver], Any], fault_depth: int = 4, tag_bits: int = 8) -> None:
    """Run `test` once the unit takes requests."""
    unit = FaultUnit(physical_bits=40, tag_bits=tag_bits, fault_depth=fault_depth)
    ended = []

    async def bench(ctx: Any) -> None:
        driver = Driver(ctx, unit)
        for _ in range(1 << tag_bits):
            ctx.set(driver.to_walker.ready, 1)
            assert not ctx.get(driver.requests.ready), "the table of grants is being cleared"
            await ctx.tick()
        ctx.set(driver.to_walker.ready, 0)
        await test(driver)
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


@pytest.mark.parametrize("tag_bits", [0, 11, "4"])
def test_tag_bits_errors(tag_bits: Any) -> None:
    with pytest.raises(ValueError) as error:
        FaultUnit(physical_bits=40, tag_bits=tag_bits)
    assert str(error.value) == f"tag_bits of a fault unit must be an integer from 1 to 10, not {tag_bits!r}"


def test_adds_no_cycle() -> None:
    """Requests and answers pass in the cycle in which they are offered; `Driver` asserts it."""

    async def test(driver: Driver) -> None:
        for tag in range(3):
            await driver.ask(0x1000 * tag, READ, tag)
            await driver.answer(OK, tag=tag)
        assert not driver.ctx.get(driver.supervisor.faults.valid)

    run(test)


def test_faults_in_order_with_linear_code_and_tag() -> None:
    async def test(driver: Driver) -> None:
        for number in (1, 2, 3):
            await driver.ask(0xFFFF_8000_0000_0000 + number, WRITE, tag=number)
            await driver.answer(PF, code=number + 1, tag=number)
        for number in (1, 2, 3):
            assert await driver.take() == (0xFFFF_8000_0000_0000 + number, number + 1, number)
        assert not driver.ctx.get(driver.supervisor.faults.valid)

    run(test)


@pytest.mark.parametrize("outcome", [OK, GP, BUS])
def test_only_page_faults_are_queued(outcome: int) -> None:
    async def test(driver: Driver) -> None:
        await driver.ask(0x1000)
        await driver.answer(outcome)
        for _ in range(4):
            assert not driver.ctx.get(driver.supervisor.faults.valid)
            await driver.ctx.tick()

    run(test)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_full_queue_stalls_nobody(depth: int) -> None:
    """Every fault is answered in the cycle in which the walker offers it; the oldest records stay, the rest is lost."""

    async def test(driver: Driver) -> None:
        ctx, unit = driver.ctx, driver.unit
        kept = 0
        for number in range(8):
            await driver.ask(0x1000 * number, tag=number)
            driver.offer(PF, code=4, tag=number)
            assert driver.passes()
            assert ctx.get(unit.o_delivered)
            lost = ctx.get(unit.o_lost)
            assert lost or kept == number, "once full, the queue stays full"
            kept += not lost
            await ctx.tick()
            ctx.set(driver.from_walker.valid, 0)
            assert driver.status() == ({"fault_overflow"} if lost else set())
        assert depth <= kept <= depth + 1
        assert [await driver.take() for _ in range(kept)] == [(0x1000 * number, 4, number) for number in range(kept)]
        assert not ctx.get(driver.supervisor.faults.valid)
        await driver.ask(0x9000, tag=9)
        await driver.answer(PF, code=6, tag=9)
        assert await driver.take() == (0x9000, 6, 9)

    run(test, fault_depth=depth)


def test_drain_does_not_wait_for_the_queue() -> None:
    async def test(driver: Driver) -> None:
        for number in range(4):
            await driver.ask(0x1000, tag=number)
            await driver.answer(PF, code=4, tag=number)
        driver.ctx.set(driver.supervisor.drain, 1)
        assert driver.get("drained")

    run(test, fault_depth=1)


def test_probe_leaves_no_record() -> None:
    async def test(driver: Driver) -> None:
        await driver.ask(0x1000, PROBE, 3)
        driver.offer(PF, code=6, tag=3)
        assert driver.passes()
        assert not driver.ctx.get(driver.unit.o_delivered)
        await driver.answer(PF, code=6, tag=3)
        for _ in range(4):
            assert not driver.ctx.get(driver.supervisor.faults.valid)
            await driver.ctx.tick()

    run(test)


def test_status_is_kept_until_it_is_cleared() -> None:
    """A bit that is raised in the cycle of its clearing stays."""

    async def test(driver: Driver) -> None:
        ctx, clear = driver.ctx, driver.supervisor.clear
        await driver.retire(1)
        assert driver.status() == {"stray_retirement"}
        ctx.set(clear.fault_overflow, 1)
        ctx.set(clear.tag_reused, 1)
        await ctx.tick()
        assert driver.status() == {"stray_retirement"}, "each bit has a clear of its own"
        ctx.set(clear.stray_retirement, 1)
        await driver.retire(1)
        assert driver.status() == {"stray_retirement"}
        await ctx.tick()
        assert driver.status() == set()

    run(test)


# Tags ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tag_bits", [1, 3])
def test_a_tag_names_one_grant(tag_bits: int) -> None:
    """All tags can be out at once; a tag that is out is not given again, and the count never wraps."""

    async def test(driver: Driver) -> None:
        ctx, tags = driver.ctx, 1 << tag_bits
        for tag in range(tags):
            await driver.grant(tag)
        assert driver.get("granted") == tags
        assert driver.status() == set()
        await driver.ask(0x2000, WRITE, 1)
        driver.offer(OK, tag=1)
        for _ in range(3):
            assert not driver.passes()
            await ctx.tick()
        assert driver.status() == {"tag_reused"}
        ctx.set(driver.supervisor.drain, 1)
        assert not driver.get("drained")
        await driver.retire(0)
        assert not driver.passes(), "another tag's"
        await driver.retire(1)
        assert driver.passes()
        assert driver.get("granted") == tags - 2
        await ctx.tick()
        ctx.set(driver.from_walker.valid, 0)
        assert driver.get("granted") == tags - 1
        for tag in range(1, tags):
            assert not driver.get("drained")
            await driver.retire(tag)
        assert driver.get("drained")

    run(test, tag_bits=tag_bits)


def test_what_is_no_store_may_have_a_tag_that_is_out() -> None:
    async def test(driver: Driver) -> None:
        await driver.grant(5)
        for access, outcome in ((READ, OK), (PROBE, OK), (WRITE, PF), (WRITE, GP)):
            await driver.ask(0x1000, access, 5)
            await driver.answer(outcome, tag=5)
        assert driver.get("granted") == 1
        assert driver.status() == set()

    run(test)


def test_a_retirement_without_a_grant_is_ignored_and_told() -> None:
    async def test(driver: Driver) -> None:
        await driver.retire(0)
        assert (driver.get("granted"), driver.status()) == (0, {"stray_retirement"})
        await driver.grant(2)
        await driver.retire(3)
        assert driver.get("granted") == 1
        await driver.retire(2)
        await driver.retire(2)
        assert driver.get("granted") == 0
        await driver.grant(2)
        assert driver.get("granted") == 1

    run(test)


def test_retired_in_the_cycle_of_its_answer() -> None:
    async def test(driver: Driver) -> None:
        for _ in range(3):
            await driver.ask(0x1000, WRITE, 6)
            driver.offer(OK, tag=6)
            assert driver.passes()
            await driver.retire(6)
            driver.ctx.set(driver.from_walker.valid, 0)
            assert driver.get("granted") == 0
        assert driver.status() == set()
        await driver.grant(6)
        assert driver.get("granted") == 1

    run(test)


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
        assert driver.get("granted") == grants

    run(test)


def test_drain_waits_for_every_grant() -> None:
    """Retired out of order; one retires in the cycle in which another is granted."""

    async def test(driver: Driver) -> None:
        ctx = driver.ctx
        for tag in (1, 2, 3):
            await driver.grant(tag)
        assert driver.get("granted") == 3
        await driver.ask(0x1000, WRITE, 4)
        ctx.set(driver.retired.payload.tag, 2)
        ctx.set(driver.retired.valid, 1)
        await driver.answer(OK, tag=4)
        ctx.set(driver.retired.valid, 0)
        assert driver.get("granted") == 3
        ctx.set(driver.supervisor.drain, 1)
        for left, tag in ((3, 4), (2, 1), (1, 3)):
            assert driver.get("granted") == left
            assert not driver.get("drained")
            await driver.retire(tag)
        assert driver.get("drained")
        ctx.set(driver.supervisor.drain, 0)
        assert not driver.get("drained"), "only with i_drain"

    run(test)


def test_drain_waits_for_what_is_in_flight() -> None:
    async def test(driver: Driver) -> None:
        ctx, _unit = driver.ctx, driver.unit
        await driver.ask(0x1000, WRITE, 1)
        ctx.set(driver.supervisor.drain, 1)
        for _ in range(3):
            assert not driver.get("drained")
            await ctx.tick()
        await driver.answer(OK, tag=1)
        assert not driver.get("drained")
        await driver.retire(1)
        assert driver.get("drained")

    run(test)


def test_drain_holds_requests() -> None:
    async def test(driver: Driver) -> None:
        ctx, _unit = driver.ctx, driver.unit
        ctx.set(driver.supervisor.drain, 1)
        driver.show(0x1000, WRITE)
        ctx.set(driver.to_walker.ready, 1)
        for _ in range(3):
            assert not ctx.get(driver.to_walker.valid) and not ctx.get(driver.requests.ready)
            assert driver.get("drained")
            await ctx.tick()
        ctx.set(driver.supervisor.drain, 0)
        assert ctx.get(driver.to_walker.valid) and ctx.get(driver.requests.ready)

    run(test)


def test_drain_does_not_withdraw_an_offer() -> None:
    """The walker has seen the request: it goes through, and the drain waits for it."""

    async def test(driver: Driver) -> None:
        ctx, _unit = driver.ctx, driver.unit
        driver.show(0x1000)
        await ctx.tick()
        ctx.set(driver.supervisor.drain, 1)
        for _ in range(2):
            assert ctx.get(driver.to_walker.valid)
            assert not driver.get("drained")
            await ctx.tick()
        ctx.set(driver.to_walker.ready, 1)
        await ctx.tick()
        assert not ctx.get(driver.to_walker.valid), "the next one waits"
        assert not driver.get("drained")
        await driver.answer(OK)
        assert driver.get("drained")

    run(test)
