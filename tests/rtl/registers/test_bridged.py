"""A unit with a bridge in it, by its registers: window and bursts share one MMU."""

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import run_async
from ptewalk.cosim.driver.unit import BridgeFault, Unit
from ptewalk.model.linux import Track
from ptewalk.model.x86 import Access, Invalidation, Outcome
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.registers.map import BY_NAME, Command
from ptewalk.rtl.registers.map import Wait as WaitFor
from ptewalk.rtl.registers.unit import Unit as Gateware
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

from ..bridge.bench import Bench
from ..bridge.doubles import OKAY, SLVERR, Memory
from ..bus.axi_memory import AxiMemory
from ..bus.burst_memory import Manager
from ..walker_bench import LEAF, SD, TABLE, US, A, D, P, slot, tables

pytestmark = pytest.mark.thorough

LINEAR, FRAME = 0x0000_5A5A_7654_3000, 0x12_3456_7000
OFFSET = {name: register.offset for name, register in BY_NAME.items()}
CONFIG = UnitConfig(CachingMmuConfig(WalkerConfig(trace=False)), bridge=BridgeConfig(data_bits=64, id_bits=4))


class Stored(dict[int, int]):
    """The words of a memory of bytes."""

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self._memory = memory

    def __getitem__(self, at: int) -> int:
        return int.from_bytes(self._memory.load(at, 8), "little")


class Whole(Bench):
    """A manager and memories round the unit, with the driver.

    Attributes
    ----------
    words : dict of int to int
        The tables.
    unit : Unit
    """

    words: dict[int, int]
    unit: Unit
    bus: AmaranthRegisters

    @property
    def leaf(self) -> int:
        return self.words[slot(LINEAR, 1)]

    async def do(self, steps: Any) -> Any:
        return await run_async(self.bus, steps)

    async def clear(self) -> None:
        """Soft-dirty of the leaf, by registers alone."""
        old = await self.do(self.unit.read_word(slot(LINEAR, 1)))
        assert await self.do(self.unit.swap_word(slot(LINEAR, 1), old, old & ~SD))
        await self.do(self.unit.invalidate(Invalidation.INVLPG, linear=LINEAR))


def run(
    job: Any,
    leaf: int = LEAF & ~D & ~A,
    *,
    rng: random.Random | None = None,
    config: UnitConfig = CONFIG,
    pages: int = 1,
) -> None:
    """Run `job(bench)` with so many pages mapped, and tracking; at the end nothing is under way."""
    top = Gateware(config)
    manager, memory = Manager(top.s_axi, rng=rng), Memory(top.m_axi, rng=rng)
    words = tables(LINEAR, leaf) | {slot(LINEAR, 1) + 8 * page: leaf + 0x1000 * page for page in range(pages)}
    table: Any = AxiMemory(top.t_axi, rng=rng, words=words)
    if config.monitor:
        table = Memory(top.t_axi, rng=rng)
        table.words = Stored(table)
        for at, word in words.items():
            table.store(at, word.to_bytes(8, "little"))

    async def testbench(ctx: Any) -> None:
        bench = Whole(ctx, top, manager, memory, None)  # type: ignore[arg-type]
        bench.words, bench.bus = table.words, AmaranthRegisters(ctx, top.s_axil)
        await bench.ticks(80)  # the table of grants is cleared
        bench.unit = await bench.do(Unit.open())
        assert bench.unit.built["bridge"] == 1 and bench.unit.built["tag_bits"] == 6
        await bench.do(bench.unit.context(TABLE[4], track=Track.NATIVE))
        await bench.do(bench.unit.bridge())
        await job(bench)
        await bench.do(bench.unit.drain())
        assert not (await bench.do(bench.unit.status()))["bridge_busy"]

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    for side in (manager, memory, table):
        simulator.add_testbench(side.run, background=True)
    simulator.run()


def test_bursts_wait_until_the_bridge_is_enabled() -> None:
    async def job(bench: Whole) -> None:
        await bench.do(bench.unit.bridge(enable=False))
        bench.manager.write(1, LINEAR, [7])
        await bench.ticks(100)
        assert bench.memory.writes == [] and bench.leaf & SD == 0
        assert (await bench.do(bench.unit.status()))["bridge_busy"] == 1
        await bench.do(bench.unit.bridge())
        assert [answer["resp"] for answer in await bench.wait("b")] == [OKAY]
        assert bench.leaf & SD == SD

    run(job)


@pytest.mark.parametrize("wait", [WaitFor.STORES, WaitFor.ALL])
@pytest.mark.parametrize("write", [False, True])
def test_what_an_invalidation_waits_for(write: bool, wait: WaitFor) -> None:
    """Of a burst that memory does not answer: for a store always, for a read where all is waited for; others go on."""

    async def job(bench: Whole) -> None:
        await bench.read(LINEAR)
        bench.memory.stuck = True
        if write:
            bench.manager.write(1, LINEAR, [1])
        else:
            bench.manager.read(1, LINEAR, beats=2)
        await bench.ticks(60)
        await bench.bus.write(OFFSET["INV"], BY_NAME["INV"].pack(kind=Invalidation.NOT_GLOBAL, wait=wait))
        await bench.bus.write(OFFSET["COMMAND"], Command.INVALIDATE)
        await bench.ticks(80)
        waits = write or wait == WaitFor.ALL
        assert (await bench.do(bench.unit.status()))["busy"] == waits
        # What is asked meanwhile is translated and sent.
        bench.manager.read(2, LINEAR + 8)
        await bench.ticks(80)
        assert bench.memory.reads[-1]["id"] == 2
        assert (await bench.do(bench.unit.status()))["busy"] == waits
        bench.memory.stuck = False
        await bench.wait("b" if write else "r", 1)
        await bench.ticks(40)
        assert (await bench.do(bench.unit.status()))["busy"] == 0

    run(job)


def test_bursts_and_window_at_random() -> None:
    """Each store has its mark after each clear, whoever made it; bytes are those last written; nothing hangs."""
    rng = random.Random(11)

    async def job(bench: Whole) -> None:
        words: dict[int, int] = {}
        clears = stores = 0
        for _ in range(24):
            at = LINEAR + 8 * rng.randrange(16)
            kind = rng.randrange(4)
            if kind == 0:
                words[at] = rng.getrandbits(64)
                assert await bench.write(at, [words[at]], identity=rng.randrange(16)) == OKAY
                assert bench.leaf & (D | SD) == D | SD
                stores += 1
            elif kind == 1 and words:
                at = rng.choice(sorted(words))
                assert await bench.read(at) == (OKAY, [words[at]])
            elif kind == 2:
                await bench.clear()
                clears += 1
            else:  # both at once
                words[at] = rng.getrandbits(64)
                bench.manager.write(3, at, [words[at]])
                access = rng.choice((Access.READ, Access.WRITE))
                answer = await bench.do(bench.unit.translate(at, access))
                assert (answer.outcome, answer.physical) == (Outcome.OK, FRAME + at - LINEAR)
                assert [answer["resp"] for answer in await bench.wait("b")] == [OKAY]
                assert bench.leaf & (D | SD) == D | SD
        assert clears >= 3 and stores >= 3
        for at, value in words.items():
            assert bench.memory.load(FRAME + at - LINEAR, 8) == value.to_bytes(8, "little")
        status = await bench.do(bench.unit.status())
        assert (status["tag_reused"], status["stray_retirement"]) == (0, 0)

    run(job, rng=rng)


@pytest.mark.slow
def test_several_walkers_behind_a_monitor() -> None:
    """Stores to six pages at once, by the bridge and the window, with four walkers, while each page is cleared.

    Tables lie in a memory without a monitor. Each store has its mark after each clear, and walks overlap.
    """
    rng = random.Random(5)
    mmu = CachingMmuConfig(WalkerConfig(trace=False), walkers=4, waiting=16)
    config = UnitConfig(mmu, bridge=BridgeConfig(data_bits=64, id_bits=4), monitor=True)

    async def job(bench: Whole) -> None:
        assert (bench.unit.built["walkers"], bench.unit.built["exclusive_ids"]) == (4, 4)
        pages = range(6)
        for round_ in range(2):
            for page in pages:
                bench.manager.write(page, LINEAR + 0x1000 * page, [round_ << 8 | page])
            answer = await bench.do(bench.unit.translate(LINEAR + 0x1000 * rng.choice(pages) + 8, Access.WRITE))
            assert answer.outcome == Outcome.OK
            assert {beat["resp"] for beat in await bench.wait("b", len(pages))} == {OKAY}
            leaves = [bench.words[slot(LINEAR, 1) + 8 * page] for page in pages]
            assert [leaf & (D | SD) for leaf in leaves] == [D | SD] * len(pages)
            for page, leaf in enumerate(leaves):
                assert await bench.do(bench.unit.swap_word(slot(LINEAR, 1) + 8 * page, leaf, leaf & ~SD))
                await bench.do(bench.unit.invalidate(Invalidation.INVLPG, linear=LINEAR + 0x1000 * page))
        status = await bench.do(bench.unit.status())
        assert not any(status[name] for name in ("tag_reused", "stray_retirement", "no_monitor", "retry_limit"))
        counted = await bench.do(bench.unit.counters())
        assert counted["marks"] == 2 * len(pages)

    run(job, rng=rng, config=config, pages=6)


def test_faults_of_both_have_their_own_records() -> None:
    """A read-only page: the burst is answered SLVERR; the window's fault is not the bridge's. One too many is told."""

    async def job(bench: Whole) -> None:
        assert await bench.write(LINEAR + 8, [1], identity=5) == SLVERR
        assert "fault" in await bench.do(bench.unit.interrupts())
        assert (await bench.do(bench.unit.translate(LINEAR + 16, Access.WRITE))).outcome == Outcome.PAGE_FAULT
        assert await bench.do(bench.unit.interrupts()) >= {"fault"}
        expected = BridgeFault(LINEAR + 8, 1, 0b111, 5, 1, write=True, stalled=False)
        assert await bench.do(bench.unit.pop_bridge_fault()) == expected
        assert await bench.do(bench.unit.pop_bridge_fault()) is None
        fault = await bench.do(bench.unit.pop_fault())
        assert (fault.linear, fault.code) == (LINEAR + 16, 0b111)
        assert await bench.do(bench.unit.pop_fault()) is None
        await bench.do(bench.unit.clear_interrupts("fault"))
        assert "fault" not in await bench.do(bench.unit.interrupts())
        for number in range(5):
            assert "fault_overflow" not in await bench.do(bench.unit.interrupts())
            assert await bench.write(LINEAR + 8 * number, [1]) == SLVERR
        assert "fault_overflow" in await bench.do(bench.unit.interrupts())
        status = await bench.do(bench.unit.status())
        assert (status["bridge_overflow"], status["fault_overflow"]) == (1, 0)
        assert bench.memory.writes == []
        # Its modes are what was written.
        fields = {"fault_mode": 1, "final_response": 0, "ac": 1, "map_cache": 1, "timeout": 0x1234_5678}
        fields |= {"pat_map": 0x8765_4321, "fixed_prot": 1, "enable": 1}
        for whose in ("user", "supervisor"):
            for fetch in (False, True):
                modes = {"stall": True, "timeout": 0x1234_5678, "final_response": False, "ac": True}
                await bench.do(bench.unit.bridge(**modes, whose=whose, fetch=fetch, pat_map=0x8765_4321))
                control = bench.bridge.core.bridge.control
                wanted = fields | {"user": whose == "user", "fetch": fetch}
                assert {name: int(bench.ctx.get(control[name])) for name in wanted} == wanted

    run(job, leaf=FRAME | P | US)


def test_a_stalled_burst_is_mended_retried_and_timed_out() -> None:
    """Software makes the page writable by a swap, while the burst waits; it holds no grant, so that ends."""

    async def job(bench: Whole) -> None:
        await bench.do(bench.unit.bridge(stall=True))
        bench.manager.write(2, LINEAR, [0x55])
        await bench.ticks(200)
        record = await bench.do(bench.unit.pop_bridge_fault())
        assert (record.write, record.stalled, record.kind) == (True, True, 1)
        assert (await bench.do(bench.unit.status()))["stalled_write"] == 1
        old = await bench.do(bench.unit.read_word(slot(LINEAR, 1)))
        assert await bench.do(bench.unit.swap_word(slot(LINEAR, 1), old, old | 2))
        await bench.do(bench.unit.invalidate(Invalidation.INVLPG, linear=LINEAR))
        await bench.do(bench.unit.resume(write=True, retry=True))
        assert [answer["resp"] for answer in await bench.wait("b")] == [OKAY]
        assert bench.memory.load(FRAME, 1) == b"\x55"
        for abort in (True, False):
            await bench.do(bench.unit.bridge(stall=True, timeout=0 if abort else 300))
            bench.manager.read(4, LINEAR ^ 1 << 40)
            await bench.ticks(60)
            if abort:
                await bench.do(bench.unit.resume(write=False, retry=False))
            assert [answer["resp"] for answer in await bench.wait("r")] == [SLVERR]
            assert await bench.do(bench.unit.pop_bridge_fault()) is not None
            timed_out = "stall_timeout" in await bench.do(bench.unit.interrupts())
            assert timed_out == (not abort) == bool((await bench.do(bench.unit.status()))["stall_timeout"])
        await bench.do(bench.unit.clear_status(stall_timeout=1))
        assert (await bench.do(bench.unit.status()))["stall_timeout"] == 0

    run(job, leaf=FRAME | P | US)


def test_without_a_bridge() -> None:
    with pytest.raises(ValueError, match="this unit was built without a bridge"):
        next(Unit({"bridge": 0}).bridge())
    with pytest.raises(ValueError, match="whose must be user or supervisor, not 'mine'"):
        next(Unit({"bridge": 1}).bridge(whose="mine"))
    with pytest.raises(ValueError, match="fetch counts only where whose says whose bursts are"):
        next(Unit({"bridge": 1}).bridge(fetch=True))
    with pytest.raises(ValueError, match="bridge must be a BridgeConfig or None, not 1"):
        UnitConfig(bridge=1)  # type: ignore[arg-type]
