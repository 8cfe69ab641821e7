"""A table engine behind registers, in Amaranth's simulator: what a command that does not do all tells software."""

from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.cosim.driver.engine_masks import clearing
from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import DriverError, run_async
from ptewalk.cosim.driver.table_engine import Listed, ListTold, TableEngine, changing, telling_words
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.dirty_log import Record
from ptewalk.model.engine import Pages
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.registers.engine_map import TABLE_LIST
from ptewalk.rtl.registers.map import BY_NAME, Command

from ..engine.line_memory import LineMemory
from .unit_bench import OnRam

ENGINE = EngineConfig(lines=2)
RULES = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
TABLES = {0x1000: 0x2067, 0x2000: 0x3067, 0x3000: 0x4067, 0x4008: 0x5867}
"""Page 1 is soft-dirty; entries typed by hand."""
REPORT = 0x8000
PAGES = Pages(1, 4, 0, 16)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("bad", "words", "stopped", "wrong"),
    [
        ({}, False, Stop.DONE, ()),
        ({0x3000}, False, Stop.BUS_ERROR, ()),
        ({0x4008}, False, Stop.BUS_ERROR, ("failed",)),
        ({REPORT}, True, Stop.DONE, ("lost",)),
    ],
)
def test_a_command_that_the_bus_refuses_raises_bus_error(
    bad: set[int], words: bool, stopped: Stop, wrong: tuple[str, ...]
) -> None:
    """Of an upper table, of a line of entries, of a line of the report; and the next command raises nothing."""
    top = OnRam(engine=ENGINE)
    memory = LineMemory(top.lines, ENGINE.data_bits, ENGINE.line_bytes, words=dict(TABLES), bad=set(bad))
    command = telling_words(PAGES, RULES, REPORT) if words else changing(PAGES, clearing(RULES), RULES)

    async def bench(ctx: Any) -> None:
        bus = AmaranthRegisters(ctx, top.s_axil)
        await ctx.tick().repeat(40)  # the table of grants is cleared
        engine = TableEngine(unit := await run_async(bus, Unit.open()))
        (told,) = await run_async(bus, engine.run(command))
        assert told["stopped"] == stopped
        assert tuple(name for name in ("failed", "given_up", "lost") if told[name]) == wrong
        assert await run_async(bus, unit.interrupts()) == {"command_done", *(("bus_error",) if bad else ())}
        memory.bad.clear()
        await run_async(bus, unit.clear_interrupts("command_done", "bus_error"))
        await run_async(bus, engine.run(command))
        assert await run_async(bus, unit.interrupts()) == {"command_done"}

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.run, background=True)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.thorough
def test_an_abort_reaches_a_command_that_waits_in_the_queue() -> None:
    """It is told as aborted and has changed nothing; the next one does all, and an abort without one is nothing."""
    top = OnRam(engine=ENGINE)
    top.ram.ram.init = [TABLES.get(8 * place, 0) for place in range(8192)]
    memory = LineMemory(top.lines, ENGINE.data_bits, ENGINE.line_bytes, words=dict(TABLES))
    command = changing(PAGES, clearing(RULES), RULES)

    async def bench(ctx: Any) -> None:
        bus = AmaranthRegisters(ctx, top.s_axil)
        await ctx.tick().repeat(40)  # the table of grants is cleared
        engine = TableEngine(unit := await run_async(bus, Unit.open()))
        await run_async(bus, unit.context(0x1000, track=Track.NATIVE))
        await run_async(bus, engine.abort())  # there is none
        await run_async(bus, unit.translate(0x1000, Access.WRITE, retire=False))
        await bus.write(BY_NAME["COMMAND"].offset, Command.DRAIN)  # waits for the store
        await run_async(bus, engine.begin(command))
        await run_async(bus, engine.abort())
        await ctx.tick().repeat(100)
        assert await bus.read(BY_NAME["TABLE_TOLD"].offset) == 0
        await run_async(bus, unit.retire())
        (told,) = await run_async(bus, engine.end())
        assert (told["stopped"], told["changed"], memory.words) == (Stop.ABORTED, 0, TABLES)
        (told,) = await run_async(bus, engine.run(command))
        assert (told["stopped"], told["changed"]) == (Stop.DONE, 1)
        assert memory.words[0x4008] == 0x5067

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(memory.run, background=True)
    simulator.run()


@pytest.mark.thorough
def test_a_list_by_registers() -> None:
    """Of five records: dirty, clean by then, of a page that nothing maps, of another PCID, and none. Then a range."""
    config = EngineConfig(lines=2, lists=True)
    top, ring = OnRam(engine=config), 0x9000
    pages = [Record(1, 1, 5), Record(1, 1, 5), Record(0x1000, 1, 5), Record(2, 1, 6), Record(3, 1, 5, phase=0)]
    words = {ring + 8 * number: one.word() for number, one in enumerate(pages, 2)}
    memory = LineMemory(top.lines, config.data_bits, config.line_bytes, words=TABLES | words)

    async def bench(ctx: Any) -> None:
        bus = AmaranthRegisters(ctx, top.s_axil)
        await ctx.tick().repeat(40)  # the table of grants is cleared
        engine = TableEngine(unit := await run_async(bus, Unit.open()))
        assert unit.built["lists"] == 1
        told = await run_async(bus, engine.clear_list(Listed(ring, 512, 2, 4), PAGES, RULES, REPORT, pcid=5))
        assert told == ListTold(changed=1, absent=2)
        assert (memory.words[0x4008], memory.words[REPORT]) == (0x5067, 0b0001)
        with pytest.raises(DriverError, match="a list ended as ABORTED bad at record 1, before 2"):
            await run_async(bus, engine.clear_list(Listed(ring, 512, 5, 2), PAGES, RULES, REPORT, pcid=5))
        memory.words[0x4008] = TABLES[0x4008]
        assert await run_async(bus, engine.clear(PAGES, RULES, pcid=5)) == (PAGES.last, 1)
        assert await run_async(bus, unit.interrupts()) == {"command_done"}

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(memory.run, background=True)
    simulator.run()


def test_without_lists_nothing_of_them_is_there() -> None:
    """Their offsets read as 0 beside an engine without them, and the driver says so before it asks."""
    top = OnRam(engine=ENGINE)

    async def bench(ctx: Any) -> None:
        bus = AmaranthRegisters(ctx, top.s_axil)
        engine = TableEngine(unit := await run_async(bus, Unit.open()))
        assert (unit.built["engine"], unit.built["lists"]) == (1, 0)
        for register in TABLE_LIST:
            await bus.write(register.offset, 0xFFFF_FFFF)
            assert await bus.read(register.offset) == 0
        with pytest.raises(ValueError, match="this unit was built without lists: CAPS.lists is 0"):
            await run_async(bus, engine.clear_list(Listed(0x9000, 512, 0, 1), PAGES, RULES, REPORT))

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
