# amaranth: UnusedElaboratable=no
"""Delivery, between a pipeline and a requester that the test plays: order, the fault queue, grants, status."""

from collections.abc import Callable
from typing import Any

from amaranth.sim import Simulator

from ptewalk.model import x86
from ptewalk.rtl.delivery import Delivery

OK, FAULT = x86.Outcome.OK, x86.Outcome.PAGE_FAULT


class Driver:
    """The pipeline's, the requester's and the supervisor's side."""

    def __init__(self, ctx: Any, unit: Delivery) -> None:
        self.ctx, self.unit = ctx, unit

    def status(self) -> set[str]:
        """The bits of the status that are set."""
        value = self.ctx.get(self.unit.supervisor.status)
        return {name for name in value.shape().members if value[name]}

    def get(self, name: str) -> int:
        """A port of the supervisor's side."""
        value: int = self.ctx.get(getattr(self.unit.supervisor, name))
        return value

    async def load(self, tag: int, outcome: x86.Outcome = OK, *, store: bool = False, probe: bool = False) -> None:
        """The pipeline has an answer; it may be taken."""
        assert self.ctx.get(self.unit.take)
        response = {"tag": tag, "outcome": outcome, "code": 6}
        fields = {"response": response, "linear": 0x1000 + tag, "store": store, "probe": probe}
        self.ctx.set(self.unit.look_tag, tag)
        self.ctx.set(self.unit.look, 1)
        await self.ctx.tick()
        self.ctx.set(self.unit.look, 0)
        self.ctx.set(self.unit.outgoing, fields)
        self.ctx.set(self.unit.load, 1)
        await self.ctx.tick()
        self.ctx.set(self.unit.load, 0)

    async def take(self) -> int | None:
        """The tag of the answer that the requester takes in this cycle; None: none is on offer."""
        self.ctx.set(self.unit.responses.ready, 1)
        valid = self.ctx.get(self.unit.responses.valid)
        tag = self.ctx.get(self.unit.responses.payload.tag)
        await self.ctx.tick()
        self.ctx.set(self.unit.responses.ready, 0)
        return tag if valid else None

    async def retire(self, tag: int) -> None:
        """A store of this tag is in memory; it counts when this returns."""
        self.ctx.set(self.unit.retired.payload.tag, tag)
        self.ctx.set(self.unit.retired.valid, 1)
        await self.ctx.tick()
        self.ctx.set(self.unit.retired.valid, 0)
        await self.ctx.tick()
        await self.ctx.tick()


def run(test: Callable[[Driver], Any], *, fault_depth: int = 2) -> None:
    unit = Delivery(physical_bits=40, tag_bits=3, fault_depth=fault_depth)
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        while not ctx.get(unit.ready):
            await ctx.tick()
        await test(Driver(ctx, unit))

    simulator.add_testbench(bench)
    simulator.run()


def test_two_answers_wait_in_order() -> None:
    async def test(driver: Driver) -> None:
        await driver.load(1)
        await driver.load(2)
        assert not driver.ctx.get(driver.unit.take)
        assert [await driver.take(), await driver.take(), await driver.take()] == [1, 2, None]
        assert driver.ctx.get(driver.unit.take)

    run(test)


def test_page_faults_are_queued_but_a_probes_are_not() -> None:
    async def test(driver: Driver) -> None:
        for tag, probe in ((1, False), (2, True), (3, False)):
            await driver.load(tag, FAULT, probe=probe)
            assert await driver.take() == tag
        await driver.ctx.tick()
        seen = []
        for _ in range(3):
            if driver.ctx.get(driver.unit.supervisor.faults.valid):
                fault = driver.ctx.get(driver.unit.supervisor.faults.payload)
                seen.append((fault.tag, fault.linear, fault.code))
            driver.ctx.set(driver.unit.supervisor.faults.ready, 1)
            await driver.ctx.tick()
        assert seen == [(1, 0x1001, 6), (3, 0x1003, 6)]

    run(test)


def test_status_is_kept_until_it_is_cleared() -> None:
    """Each bit has a clear of its own, and one that is raised in the cycle of its clearing stays."""

    async def test(driver: Driver) -> None:
        ctx, clear = driver.ctx, driver.unit.supervisor.clear
        await driver.retire(1)
        for tag in range(4):
            await driver.load(tag, FAULT)
            assert await driver.take() == tag
        await ctx.tick()  # a fault is queued, or lost, in the cycle after its answer
        assert driver.status() == {"stray_retirement", "fault_overflow"}
        ctx.set(clear.fault_overflow, 1)
        await ctx.tick()
        assert driver.status() == {"stray_retirement"}
        ctx.set(clear.fault_overflow, 0)
        ctx.set(driver.unit.retired.valid, 1)
        await ctx.tick()
        ctx.set(driver.unit.retired.valid, 0)
        ctx.set(clear.stray_retirement, 1)
        await ctx.tick()
        assert driver.status() == {"stray_retirement"}
        await ctx.tick()
        assert driver.status() == set()

    run(test)


def test_a_tag_that_is_out_is_not_granted_again() -> None:
    async def test(driver: Driver) -> None:
        await driver.load(5, store=True)
        assert (await driver.take(), driver.get("granted")) == (5, 1)
        await driver.load(5, store=True)
        for _ in range(3):
            assert await driver.take() is None
        assert driver.status() == {"tag_reused"} and driver.get("granted") == 1
        await driver.retire(5)
        assert (await driver.take(), driver.get("granted")) == (5, 1)
        driver.ctx.set(driver.unit.supervisor.drain, 1)
        driver.ctx.set(driver.unit.idle, 1)
        assert not driver.get("drained")
        await driver.retire(5)
        assert driver.get("granted") == 0 and driver.get("drained")

    run(test)
