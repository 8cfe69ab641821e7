"""A reset by software, and one of hardware, while something is on its way to tables and back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.sim import Simulator

from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import DriverError, run_async
from ptewalk.cosim.driver.unit import Answer, BridgeFault, Unit
from ptewalk.model.linux import Track
from ptewalk.model.x86 import Access, Outcome
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bus.axi import Response
from ptewalk.rtl.bus.rules import AxiRules, broken_rules
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.registers.map import BY_NAME, COUNTERS, Command
from ptewalk.rtl.registers.table import Access as Kind
from ptewalk.rtl.registers.table import fields_of
from ptewalk.rtl.registers.unit import Unit as Gateware
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

from ..bridge.doubles import SLVERR, Memory
from ..bus.burst_memory import Manager

pytestmark = pytest.mark.thorough

OFFSET = {name: register.offset for name, register in BY_NAME.items()}
MMU = CachingMmuConfig(WalkerConfig(trace=False, tag_bits=4))
PLAIN = UnitConfig(MMU, link=False)
BRIDGED = UnitConfig(CachingMmuConfig(WalkerConfig(trace=False)), bridge=BridgeConfig(data_bits=64, id_bits=4))
TABLES = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4008: 0x5007, 0x4010: 0x6007}
OTHER = {0x1_1000: 0x1_2007, 0x1_2000: 0x1_3007, 0x1_3000: 0x1_4007, 0x1_4008: 0x1_5007}
"""Linear 0x1000 is page 0x5000 by one root, 0x15000 by another; entries typed by hand."""
MARKED = 0x867
"""Accessed, dirty and soft-dirty, of a user's page that is writable [SDM 3A 4-20; soft-dirty is bit 11]."""
LATENCY = 30


class Resettable(Elaboratable):
    """A unit with a reset of its own, and AXI's rules on its way to tables, watched since the rules' own reset."""

    def __init__(self, config: UnitConfig) -> None:
        self.unit = Gateware(config)
        self.tables = self.unit.t_axi if config.bridge else self.unit.m_axi
        self.rules = AxiRules(self.tables, reads=4, writes=4)
        self.domain = ClockDomain("sync")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains += self.domain
        m.submodules += [self.unit, self.rules]
        return m


class Bench:
    """What a test holds in its hands."""

    def __init__(self, ctx: Any, top: Resettable, memory: Memory, above: tuple[Manager, Memory] | None) -> None:
        self.ctx, self.top, self.memory = ctx, top, memory
        self.bus = AmaranthRegisters(ctx, top.unit.s_axil)
        self.broken: set[str] = set()
        if above:
            self.manager, self.data = above

    async def do(self, steps: Any) -> Any:
        return await run_async(self.bus, steps)

    async def ticks(self, count: int) -> None:
        await self.ctx.tick().repeat(count)

    async def open(self, root: int = 0x1000) -> Unit:
        """The unit as after a reset, with a context."""
        unit = await self.do(Unit.open())
        await self.do(unit.context(root, track=Track.NATIVE))
        return unit

    async def resetting(self) -> int:
        return (await self.bus.read(OFFSET["STATUS"])) >> 14 & 1

    def word(self, at: int) -> int:
        return int.from_bytes(self.memory.load(at, 8), "little")


def run(job: Callable[[Bench], Any], config: UnitConfig = PLAIN, *, rng: random.Random | None = None) -> Bench:
    """Run `job(bench)` on tables whose memory answers `LATENCY` cycles later; what rules were broken is kept."""
    top = Resettable(config)
    memory = Memory(top.tables, latency=LATENCY, rng=rng)
    above = (Manager(top.unit.s_axi, rng=rng), Memory(top.unit.m_axi, rng=rng)) if config.bridge else None
    for at, word in (TABLES | OTHER).items():
        memory.store(at, word.to_bytes(8, "little"))
    benches: list[Bench] = []

    async def testbench(ctx: Any) -> None:
        benches.append(Bench(ctx, top, memory, above))
        await benches[0].ticks(80)  # the table of grants is cleared
        await job(benches[0])

    async def watch(ctx: Any) -> None:
        while True:
            found = (await ctx.tick().sample(top.rules.broken))[2]
            benches[0].broken |= set(broken_rules(found))

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    for process in (watch, memory.run, *(one.run for one in above or ())):
        simulator.add_testbench(process, background=True)
    simulator.run()
    return benches[0]


def moment_of(channel: str) -> Callable[[Bench], bool]:
    """Whether something of a store is on offer on a channel to tables, or in flight between AR and R, or W and B."""

    def now(bench: Bench) -> bool:
        tables, memory = bench.top.tables, bench.memory
        if channel == "r":
            return bool(memory._reading)
        if channel == "b":
            return bool(memory._writing)
        return bool(bench.ctx.get(getattr(tables, channel).valid))

    return now


@pytest.mark.parametrize("channel", ["ar", "r", "aw", "w", "b"])
def test_with_something_outstanding_on_each_channel(channel: str) -> None:
    """What is on offer stays until memory takes it, and all is answered, before anything is reset.

    The next walk, by other tables, finds what is there; of the store that was in work nothing is told.
    """

    async def job(bench: Bench) -> None:
        await bench.open()
        await bench.bus.write(OFFSET["REQUEST_LINEAR_LO"], 0x1000)
        await bench.bus.write(OFFSET["REQUEST"], BY_NAME["REQUEST"].pack(access=Access.WRITE, user=1, retire=1))
        if channel in ("ar", "aw", "w"):
            bench.memory.held.add(channel)
        await bench.bus.write(OFFSET["COMMAND"], Command.REQUEST)
        while not moment_of(channel)(bench):
            await bench.ctx.tick()
        written = [one.address["addr"] for one in bench.memory._writing]
        await bench.bus.write(OFFSET["DO"], BY_NAME["DO"].pack(soft_reset=1))
        if channel in ("ar", "aw", "w"):
            await bench.ticks(60)
            assert await bench.resetting() and bench.ctx.get(getattr(bench.top.tables, channel).valid)
            bench.memory.held.clear()
        while await bench.resetting():
            assert await bench.bus.read(OFFSET["DONE"]) >= 1
            await bench.bus.try_write(OFFSET["COMMAND"], Command.DRAIN)
            assert bench.bus.responses[-1] == Response.SLVERR or not await bench.resetting()
        assert not bench.memory._reading + bench.memory._writing and not any(bench.memory.out.values())
        assert len(written) == (channel == "b") and all(bench.word(at) != TABLES[at] for at in written)
        unit = await bench.open(0x1_1000)
        assert await bench.do(unit.ended()) <= 2  # a DRAIN that came after the reset, and the context
        found = await bench.do(unit.translate(0x1000, Access.WRITE))
        assert found == Answer(Outcome.OK, 0, 0x1_5000, 1, False, False, False)
        assert bench.word(0x1_4008) == 0x1_5000 | MARKED
        assert (await bench.do(unit.status()))["outcome_unknown"] == 0

    assert not run(job).broken


def test_all_is_as_after_a_reset() -> None:
    """Each register, after all of them were written, a fault, a grant that is not retired, and a full queue."""

    async def job(bench: Bench) -> None:
        bench.memory.latency = 2
        # FAULT_LINEAR, and what FAULT has beside `valid`, count while there is a fault.
        watched = [name for name in BY_NAME if not name.startswith(("COUNT_", "FAULT", "LIMITS", "QOS"))]
        before = {name: await bench.bus.read(OFFSET[name]) for name in watched}
        unit = await bench.open()
        await bench.do(unit.translate(0x3000))
        await bench.do(unit.translate(0x1000, Access.WRITE, retire=False))
        assert (await bench.do(unit.counters()))["marks"] == 1
        for register, field in fields_of(tuple(BY_NAME.values()), Kind.RW):
            await bench.bus.write(register.offset, field.mask)
        await bench.do(unit.raise_interrupts("stall_timeout"))
        while (await bench.do(unit.status()))["room"]:
            await bench.bus.write(OFFSET["COMMAND"], Command.DRAIN)
        assert (await bench.bus.read(OFFSET["FAULT"])) & 1
        changed = {name for name in watched if await bench.bus.read(OFFSET[name]) != before[name]}
        assert {"STATUS", "DONE", "IRQ_RAW", "ANSWER", "CR3_LO", "IRQ_MASK", "MEMORY_OLD_HI"} <= changed
        await bench.do(unit.soft_reset())
        assert {name: await bench.bus.read(OFFSET[name]) for name in watched} == before
        assert not (await bench.bus.read(OFFSET["FAULT"])) & 1
        assert await bench.bus.read(OFFSET["QOS"]) == 0x0F_0000  # as written last
        assert await bench.bus.read(OFFSET["LIMITS"]) == 0x100
        counted = await bench.do(unit.counters())
        assert {name: counted[name] for name in COUNTERS if counted[name]} == {"cycles": counted["cycles"]}
        unit = await bench.open()
        assert (await bench.do(unit.translate(0x1000, Access.WRITE))).physical == 0x5000
        counted = await bench.do(unit.counters())
        assert (counted["hits"], counted["requests"]) == (0, 1)

    assert not run(job).broken


def test_an_answer_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reset waits for it, and the driver says what to do."""

    async def job(bench: Bench) -> None:
        unit = await bench.open()
        bench.memory.stuck = True
        await bench.do(unit.begin(Command.READ))
        await bench.ticks(10)
        monkeypatch.setattr("ptewalk.cosim.driver.unit.POLLS", 20)
        with pytest.raises(DriverError, match="did not end within 20 polls: an answer is outstanding; empty a log"):
            await bench.do(unit.soft_reset())
        bench.memory.stuck = False
        await bench.ticks(60)
        assert not await bench.resetting()

    assert not run(job).broken


def test_a_grant_and_a_drain_hold_up_no_burst() -> None:
    """A read that the bridge has offered is translated and answered, though DRAIN waits for a store of the window."""

    async def job(bench: Bench) -> None:
        bench.memory.latency = 2
        unit = await bench.open()
        await bench.do(unit.bridge())
        await bench.do(unit.translate(0x1000, Access.WRITE, retire=False))
        await bench.bus.write(OFFSET["COMMAND"], Command.DRAIN)
        await bench.ticks(20)
        bench.manager.read(1, 0x1000)
        await bench.ticks(60)
        assert not bench.manager.seen["r"]
        await bench.do(unit.soft_reset())
        assert [answer["id"] for answer in bench.manager.seen["r"]] == [1]

    assert not run(job, BRIDGED).broken


def test_a_self_test_that_waits_is_not_begun() -> None:
    """The answer to a record of the log is outstanding, and so SELFTEST waits; the reset comes before it."""
    config = UnitConfig(replace(MMU, log=LogConfig()))

    async def job(bench: Bench) -> None:
        await bench.open()
        for name, value in (("LOG_BASE_LO", 0x4_0000), ("MEMORY_ADDRESS_LO", 0x5_0000), ("REQUEST_LINEAR_LO", 0x1000)):
            await bench.bus.write(OFFSET[name], value)
        await bench.bus.write(OFFSET["LOG"], BY_NAME["LOG"].pack(mode=1, size=9))
        await bench.bus.write(OFFSET["DO"], BY_NAME["DO"].pack(log_setup=1))
        await bench.bus.write(OFFSET["REQUEST"], BY_NAME["REQUEST"].pack(access=Access.WRITE, user=1, retire=1))
        for command in (Command.REQUEST, Command.SELFTEST):
            await bench.bus.write(OFFSET["COMMAND"], command)
        while not any(one.address["addr"] == 0x4_0000 for one in bench.memory._writing):
            await bench.ctx.tick()
        bench.memory.stuck = True
        await bench.ticks(40)
        await bench.bus.write(OFFSET["DO"], BY_NAME["DO"].pack(soft_reset=1))
        await bench.ticks(10)
        bench.memory.stuck = False
        while await bench.resetting():
            pass
        assert not bench.memory._reading + bench.memory._writing and not any(bench.memory.out.values())
        unit = await bench.open()
        assert not (await bench.do(unit.self_test(0x5_0000)))["error"]
        await bench.do(unit.soft_reset())

    assert not run(job, config).broken


def test_bursts_of_a_bridge_are_answered() -> None:
    """Those that memory has are done, all others refused, one that is stalled or waits for `enable` among them."""

    async def job(bench: Bench) -> None:
        bench.memory.latency = 2
        unit = await bench.open()
        await bench.do(unit.bridge(stall=True))
        bench.manager.write(1, 0x1000, [7])
        while not bench.data.writes:
            await bench.ctx.tick()
        bench.data.stuck = True  # its answer
        bench.manager.write(2, 0x8000, [8])  # nothing is mapped there: it is stalled
        bench.manager.read(3, 0x1000, beats=4)
        while not (await bench.do(unit.status()))["stalled_write"]:
            pass
        await bench.do(unit.bridge(enable=False))
        bench.manager.read(4, 0x1008)
        await bench.ticks(40)
        bench.manager.seen["r"].clear()
        await bench.bus.write(OFFSET["DO"], BY_NAME["DO"].pack(soft_reset=1))
        await bench.ticks(40)
        bench.manager.write(5, 0x1010, [9])  # comes too late: it waits
        assert await bench.resetting()
        bench.data.stuck = False
        while await bench.resetting():
            pass
        answers = {answer["id"]: answer["resp"] for answer in bench.manager.seen["b"]}
        assert answers == {1: 0, 2: SLVERR} and bench.data.load(0x5000, 1) == b"\7"
        assert {beat["resp"] for beat in bench.manager.seen["r"] if beat["id"] == 4} == {SLVERR}
        assert sum(beat["last"] for beat in bench.manager.seen["r"] if beat["id"] == 4) == 1
        assert (await bench.bus.read(OFFSET["CTRL"])) & 1 == 0 and await bench.do(unit.pop_bridge_fault()) is None
        unit = await bench.open(0x1_1000)
        await bench.do(unit.bridge())
        await bench.ticks(200)
        assert bench.manager.seen["b"][-1] == {"id": 5, "resp": 0} and bench.data.load(0x1_5010, 1) == b"\t"

    assert not run(job, BRIDGED).broken


@pytest.mark.parametrize("seed", range(2))
def test_at_any_time(seed: int) -> None:
    """Bursts and the window at random, on memories that answer in any order: each burst has its answer, and after each
    reset all goes on by other tables."""
    rng = random.Random(seed)

    async def job(bench: Bench) -> None:
        sent = {"b": 0, "r": 0}
        for number in range(5):
            root = 0x1000 if number % 2 else 0x1_1000
            unit = await bench.open(root)
            await bench.do(unit.bridge(stall=rng.random() < 0.5))
            assert (await bench.do(unit.translate(0x1000))).physical == root + 0x4000
            for _ in range(rng.randint(1, 6)):
                at = rng.choice((0x1000, 0x1000, 0x2000, 0x9000))
                if rng.random() < 0.5:
                    bench.manager.write(rng.randrange(16), at, [number] * rng.randint(1, 4))
                    sent["b"] += 1
                else:
                    bench.manager.read(rng.randrange(16), at, beats=rng.randint(1, 4))
                    sent["r"] += 1
            await bench.bus.write(OFFSET["REQUEST_LINEAR_LO"], 0x1000)
            await bench.bus.write(OFFSET["COMMAND"], Command.REQUEST)
            await bench.ticks(rng.randint(1, 120))
            await bench.do(unit.soft_reset())
        unit = await bench.open()
        await bench.do(unit.bridge())
        await bench.ticks(800)
        seen = bench.manager.seen
        refused = sum(one["resp"] == SLVERR for one in (*seen["b"], *seen["r"]))
        assert (len(seen["b"]), sum(beat["last"] for beat in seen["r"])) == (sent["b"], sent["r"])
        assert refused > 1 and sum(sent.values()) > 9

    assert not run(job, BRIDGED, rng=random.Random(rng.random())).broken


@pytest.mark.parametrize("both", [False, True])
def test_a_reset_of_hardware_is_one_of_the_memory_side_too(both: bool) -> None:
    """Of the unit alone, the bench notices answers that nobody asked for; of both, there are none, and the next walk is
    right."""

    async def job(bench: Bench) -> None:
        await bench.open()
        await bench.bus.write(OFFSET["REQUEST_LINEAR_LO"], 0x1000)
        await bench.bus.write(OFFSET["COMMAND"], Command.REQUEST)
        while not moment_of("r")(bench):
            await bench.ctx.tick()
        bench.ctx.set(bench.top.domain.rst, 1)
        if both:
            bench.memory._reading.clear()
            bench.memory._writing.clear()
        await bench.ctx.tick()
        bench.ctx.set(bench.top.domain.rst, 0)
        await bench.ticks(LATENCY + 60)
        if both:
            unit = await bench.open(0x1_1000)
            assert (await bench.do(unit.translate(0x1000))).physical == 0x1_5000

    assert run(job).broken == (set() if both else {"R_EARLY"})


def test_a_stalled_burst_leaves_no_record() -> None:
    """A record of before is gone: what software has not read is lost."""

    async def job(bench: Bench) -> None:
        bench.memory.latency = 2
        unit = await bench.open()
        await bench.do(unit.bridge())
        bench.manager.read(1, 0x8000)
        await bench.ticks(120)
        await bench.do(unit.soft_reset())
        assert await bench.do(unit.pop_bridge_fault()) is None
        unit = await bench.open()
        await bench.do(unit.bridge())
        bench.manager.read(2, 0x8008)
        await bench.ticks(120)
        found = await bench.do(unit.pop_bridge_fault())
        assert isinstance(found, BridgeFault) and (found.linear, found.id) == (0x8008, 2)

    assert not run(job, BRIDGED).broken
