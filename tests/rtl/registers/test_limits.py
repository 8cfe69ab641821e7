"""A unit on memory that reserves less than the unit would: what its driver finds, and that no update is lost then."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import DriverError, run_async
from ptewalk.cosim.driver.table_engine import TableEngine
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.engine import Pages
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.registers.map import BY_NAME
from ptewalk.rtl.registers.unit import Unit as Gateware
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

from ..bridge.doubles import Memory
from ..bus.burst_memory import Manager
from ..bus.defective_memory import DefectiveMemory

pytestmark = pytest.mark.thorough

MMU = CachingMmuConfig(WalkerConfig(trace=False))
BRIDGE = BridgeConfig(data_bits=64, id_bits=4)
ENGINE = UnitConfig(MMU, bridge=BRIDGE, engine=EngineConfig(lines=2))
WALKERS = UnitConfig(CachingMmuConfig(WalkerConfig(trace=False), walkers=4), bridge=BRIDGE)
RULES = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
PAGES, TABLE, OTHER, SCRATCH = 40, 0x4000, 0x5000, 0x8000
SOFT_DIRTY, ACCESSED, DIRTY = 0x800, 0x20, 0x40


class Bench:
    """A unit with a bridge, a master, and tables behind a monitor with something wrong."""

    def __init__(self, config: UnitConfig, defect: str) -> None:
        self.top, self.rng = Gateware(config), random.Random(defect)
        self.manager, self.data = Manager(self.top.s_axi, rng=random.Random(1)), Memory(self.top.m_axi)
        self.tables = DefectiveMemory(self.top.t_axi, 64, defect)
        self.tables.words |= {0x1000: 0x2067, 0x2000: 0x3067, 0x3000: TABLE | 0x67, 0x3008: OTHER | 0x67}
        self.tables.words |= {TABLE + 8 * page: (0x100 + page) << 12 | SOFT_DIRTY | 7 for page in range(PAGES)}

    def run(self, job: Any) -> None:
        async def testbench(ctx: Any) -> None:
            self.ctx, self.bus = ctx, AmaranthRegisters(ctx, self.top.s_axil)
            await ctx.tick().repeat(80)  # the table of grants is cleared
            await job(self)

        simulator = Simulator(self.top)
        simulator.add_clock(1e-6)
        simulator.add_testbench(testbench)
        for side in (self.manager, self.data, self.tables):
            simulator.add_testbench(side.run, background=True)
        simulator.run()

    async def do(self, steps: Any) -> Any:
        return await run_async(self.bus, steps)

    async def begin(self) -> Unit:
        """The unit, which has tried its memory."""
        unit: Unit = await self.do(Unit.open(scratch=SCRATCH))
        await self.do(unit.context(0x1000, track=Track.NATIVE))
        await self.do(unit.bridge())
        self.tables.exclusive.clear()
        return unit

    def store(self, count: int) -> set[int]:
        """So many stores of the master, to pages at random: which."""
        pages = {self.rng.randrange(PAGES) for _ in range(count)}
        for page in pages:
            self.manager.write(self.rng.randrange(16), page << 12, [page])
        return pages

    async def stored(self, count: int) -> None:
        """All that many are answered."""
        for _ in range(4000):
            if len(self.manager.seen["b"]) == count:
                return
            await self.ctx.tick()
        raise AssertionError(f"{len(self.manager.seen['b'])} of {count} stores")

    def entries(self, of: int) -> int:
        """How many have these bits."""
        return sum(self.tables.words[TABLE + 8 * page] & of == of for page in range(PAGES))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("defect", "in_use"),
    [
        ("none", (4, 128)),
        ("two places", (1, 8)),
        ("first word of a line", (1, 8)),
    ],
)
def test_an_engine_and_stores(defect: str, in_use: tuple[int, int]) -> None:
    """Clears while a master stores: each mark is there, or was told as cleared; D of each page stored to is there.

    Where not all holds, no line is reserved, and one ID alone reserves words.
    """

    async def job(bench: Bench) -> None:
        unit = await bench.begin()
        engine, pages = TableEngine(unit), Pages(1, 4, 0, PAGES)
        assert await bench.do(unit.in_use()) == in_use
        stored: set[int] = set()
        sent = changed = 0
        for _ in range(2):
            stores = bench.store(14)
            stored |= stores
            sent += len(stores)
            stopped, some = await bench.do(engine.clear(pages, RULES))
            assert stopped == PAGES
            changed += some
            await bench.stored(sent)
        assert {answer["resp"] for answer in bench.manager.seen["b"]} == {0}
        marks = (await bench.do(unit.counters()))["marks"]
        assert PAGES + marks - changed == bench.entries(SOFT_DIRTY) and marks > 3 and changed > PAGES
        assert {p for p in range(PAGES) if bench.tables.words[TABLE + 8 * p] & DIRTY} == stored
        of_lines = {words for _, words in bench.tables.exclusive}
        assert of_lines == ({1, 16} if in_use[1] == 128 else {1})
        assert in_use[0] > 1 or len({identity for identity, _ in bench.tables.exclusive}) == 1
        assert await bench.do(unit.status()) | {"no_monitor": 0, "retry_limit": 0} == await bench.do(unit.status())

    Bench(ENGINE, defect).run(job)


@pytest.mark.parametrize("limit", [{}, {"exclusive_ids": 1}, {"words": 1}])
def test_moves_by_words(limit: dict[str, int]) -> None:
    """Whole lines, to another table, on memory that reserves words alone: each entry is where it is to be.

    By the self-test's limits, and by either of the two alone.
    """

    async def job(bench: Bench) -> None:
        unit = await bench.begin()
        if limit:
            limits = BY_NAME["LIMITS"]
            await bench.bus.write(limits.offset, limits.pack(**limit))
        before = [bench.tables.words[TABLE + 8 * page] for page in range(32)]
        engine, pages = TableEngine(unit), Pages(1, 4, 0, 32)
        assert await bench.do(engine.move(pages, 0x200, 1, RULES, marks=True, unprotects=False)) == 32
        assert [bench.tables.words[TABLE + 8 * page] for page in range(32)] == [0] * 32
        moved = [bench.tables.words[OTHER + 8 * page] for page in range(32)]
        assert [entry >> 12 for entry in moved] == [entry >> 12 for entry in before]
        assert {words for _, words in bench.tables.exclusive} == {1}

    Bench(ENGINE, "no lines").run(job)


@pytest.mark.parametrize(("defect", "ids"), [("none", 4), ("two places", 2), ("one place", 1)])
def test_several_walkers(defect: str, ids: int) -> None:
    """They share what holds at once; each store is marked, and answered."""

    async def job(bench: Bench) -> None:
        unit = await bench.begin()
        assert await bench.do(unit.in_use()) == (ids, 8)
        stored = bench.store(30)
        await bench.stored(len(stored))
        assert {answer["resp"] for answer in bench.manager.seen["b"]} == {0}
        wanted = {page for page in range(PAGES) if bench.tables.words[TABLE + 8 * page] & DIRTY}
        assert wanted == stored and bench.entries(ACCESSED) == len(stored)
        assert len({identity for identity, _ in bench.tables.exclusive}) == ids

    Bench(WALKERS, defect).run(job)


def test_nothing_holds() -> None:
    """Marking is refused: the unit is not opened."""

    async def job(bench: Bench) -> None:
        with pytest.raises(DriverError, match="the exclusive monitor does not serve"):
            await bench.begin()

    Bench(ENGINE, "own writes only").run(job)


def test_a_limit_outlasts_a_reset_by_software() -> None:
    """And is lifted by a start on memory that serves."""

    async def job(bench: Bench) -> None:
        unit = await bench.begin()
        await bench.do(unit.soft_reset())
        unit = await bench.do(Unit.open())
        assert await bench.do(unit.in_use()) == (2, 8)
        bench.tables.defect = "none"
        unit = await bench.do(Unit.open(scratch=SCRATCH))
        assert await bench.do(unit.in_use()) == (4, 8)

    Bench(WALKERS, "two places").run(job)
