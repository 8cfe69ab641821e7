"""Commands of the table engine from a ring in memory, in Amaranth's simulator: a unit on a memory of bytes."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.cosim.driver.engine_masks import ageing, clearing
from ptewalk.cosim.driver.rings import RingOfCommands
from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import DriverError, run_async
from ptewalk.cosim.driver.table_engine import TableEngine, changing, telling_words
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.engine import Pages
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.registers.map import BY_NAME, Command
from ptewalk.rtl.registers.rings_map import RINGS
from ptewalk.rtl.registers.unit import Unit as Gateware
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

from ..bridge.doubles import Memory

pytestmark = pytest.mark.thorough

MMU = CachingMmuConfig(WalkerConfig(trace=False, tag_bits=4))
CONFIG = UnitConfig(MMU, engine=EngineConfig(lines=2), rings=True)
RULES = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
OFFSET = {name: register.offset for name, register in BY_NAME.items()}
ROOT, TABLE, RING, DONE, REPORT = 0x1000, 0x4000, 0x1_0000, 0x1_1000, 0x1_2000
DIRTY, CLEAN, PAGES = 0x867, 0x67, 40
"""Entries typed by hand: soft-dirty, and what a clear leaves."""


class Bench:
    """A unit that was opened, with rings of four descriptors and four completions."""

    unit: Unit
    ring: RingOfCommands

    def __init__(self, ctx: Any, top: Gateware, memory: Memory) -> None:
        self.ctx, self.memory = ctx, memory
        self.bus, self.irq = AmaranthRegisters(ctx, top.s_axil), top.irq

    async def do(self, steps: Any) -> Any:
        return await run_async(self.bus, steps)

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory.load(address, 8), "little")

    def entries(self) -> list[int]:
        """Of each page, without its frame."""
        return [self.word(TABLE + 8 * page) & 0xFFF for page in range(PAGES)]

    def put(self, address: int, *words: int) -> None:
        for number, word in enumerate(words):
            self.memory.store(address + 8 * number, word.to_bytes(8, "little"))

    def fill(self) -> None:
        """Every page is soft-dirty."""
        self.put(TABLE, *((0x100 + page) << 12 | DIRTY for page in range(PAGES)))

    async def counts(self) -> tuple[int, int]:
        found = BY_NAME["RING_TAIL"].unpack(await self.bus.read(OFFSET["RING_TAIL"]))
        return found["value"], found["told"]

    async def ended(self) -> set[str]:
        """What has happened when all commands have ended; forgotten where it does not last."""
        await self.do(self.unit.await_end(Command.RING))
        found = await self.do(self.unit.interrupts())
        await self.do(self.unit.clear_interrupts(*found))
        return set(found)

    async def give(self, *commands: dict[str, Any]) -> None:
        """Descriptors, by whoever reaches the memory."""
        await self.do(self.ring.stage(commands[0]))
        for number, (command, place) in enumerate(zip(commands, self.ring.places(len(commands)), strict=True)):
            self.put(place, *self.ring.descriptor(command, 0x100 + number))
        await self.do(self.ring.give(len(commands)))

    async def told(self) -> list[dict[str, int]]:
        """Completions, each with the phase of its round; released."""
        numbers = await self.do(self.ring.told())
        found = []
        for number, place in zip(numbers, self.ring.done_places(numbers), strict=True):
            words = [self.word(place + 8 * at) for at in range(4)]
            assert self.ring.holds(words[0], number)
            found.append(self.ring.done(words))
        await self.do(self.ring.release(len(found)))
        return found


def run(job: Callable[[Bench], Awaitable[None]], *, config: UnitConfig = CONFIG) -> None:
    top = Gateware(config)
    memory = Memory(top.m_axi, bits=config.table_bits)

    async def testbench(ctx: Any) -> None:
        bench = Bench(ctx, top, memory)
        for address, word in ((ROOT, 0x2067), (0x2000, 0x3067), (0x3000, TABLE | 0x67)):
            bench.put(address, word)
        bench.fill()
        await ctx.tick().repeat(80)  # the table of grants is cleared
        bench.unit = await bench.do(Unit.open())
        bench.ring = RingOfCommands(bench.unit)
        await bench.do(bench.ring.set_up(RING, 4, DONE, 4))
        await job(bench)

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    simulator.add_testbench(memory.run, background=True)
    simulator.run()


def clear(first: int, last: int) -> dict[str, Any]:
    return changing(Pages(1, 4, first, last), clearing(RULES), RULES)


@pytest.mark.parametrize("bits", [64, 128])
def test_commands_of_a_ring_are_those_of_the_registers(bits: int) -> None:
    """Three areas by a doorbell; three more, so that both rings come round; and then a command by registers."""
    areas = [(0, 5), (5, 6), (8, 31)]

    async def job(bench: Bench) -> None:
        for _ in range(2):
            bench.fill()
            await bench.give(*(clear(*area) for area in areas))
            assert await bench.ended() == {"command_done", "ring_told"}
            told = await bench.told()
            assert [(one["id"], one["stopped"], one["page"], one["changed"]) for one in told] == [
                (0x100 + number, Stop.DONE, last, last - first) for number, (first, last) in enumerate(areas)
            ]
            cleared = {page for area in areas for page in range(*area)}
            assert bench.entries() == [CLEAN if page in cleared else DIRTY for page in range(PAGES)]
        assert await bench.counts() == (6, 6) and "ring_told" not in await bench.ended()
        engine = TableEngine(bench.unit)
        assert await bench.do(engine.clear(Pages(1, 4, 30, 40), RULES)) == (40, 9)
        assert bench.entries()[30:] == [CLEAN] * 10

    run(job, config=UnitConfig(MMU, engine=EngineConfig(lines=2, data_bits=bits), table_bits=bits, rings=True))


def test_by_the_window_alone() -> None:
    """Reports of two ranges: words of pagemap. The driver puts descriptors and reads completions itself."""

    async def job(bench: Bench) -> None:
        spans = [Pages(1, 4, 0, 16), Pages(1, 4, 16, 32)]
        commands = [telling_words(span, RULES, REPORT + 0x80 * number) for number, span in enumerate(spans)]
        told = await bench.do(bench.ring.run(commands))
        assert [(one["id"], one["page"], one["lost"]) for one in told] == [(0, 16, 0), (1, 32, 0)]
        words = [bench.word(REPORT + 8 * page) for page in range(32)]
        assert words == [1 << 63 | 1 << 55 | 0x100 + page for page in range(32)]
        with pytest.raises(ValueError, match="commands of one run share their masks: these differ"):
            await bench.do(bench.ring.run([clear(0, 1), changing(spans[0], ageing(), RULES)]))

    run(job)


def test_a_full_ring_of_completions_waits() -> None:
    """The command is done, and the next one is not begun; descriptors that come meanwhile are done by the same RING."""

    async def job(bench: Bench) -> None:
        await bench.do(bench.ring.set_up(RING, 4, DONE, 1))
        await bench.give(clear(0, 2), clear(2, 4), clear(4, 6))
        await bench.ctx.tick().repeat(1500)
        assert await bench.counts() == (1, 1) and bench.entries()[:6] == [CLEAN] * 4 + [DIRTY] * 2
        bench.put(RING + 3 * 64, *bench.ring.descriptor(clear(6, 8), 0x103))
        await bench.bus.write(OFFSET["RING_HEAD"], 4)
        for number in range(4):
            (told,) = await bench.told()
            assert (told["id"], told["changed"]) == (0x100 + number, 2)
            await bench.ctx.tick().repeat(1500)
        assert await bench.counts() == (4, 4) and await bench.ended() == {"command_done"}
        assert await bench.do(bench.unit.ended()) == 1

    run(job)


@pytest.mark.parametrize("what", ["descriptor", "completion", "table"])
def test_what_the_bus_refuses_raises_bus_error(what: str) -> None:
    """Of a descriptor: nothing is begun; of a completion: the command was done, and no other is."""

    async def job(bench: Bench) -> None:
        bench.memory.bad = {{"descriptor": RING, "completion": DONE, "table": TABLE}[what] >> 12: 2}
        await bench.give(clear(0, 2), clear(2, 4))
        assert "bus_error" in await bench.ended()
        expected = {"descriptor": (0, 0), "completion": (1, 1), "table": (2, 2)}[what]
        assert await bench.counts() == expected
        assert bench.entries()[:4] == ([CLEAN] * 2 if what == "completion" else [DIRTY] * 2) + [DIRTY] * 2
        bench.memory.bad = {}
        if what == "table":
            assert [one["failed"] for one in await bench.told()] == [1, 1]
            return
        await bench.do(bench.unit.begin(Command.RING))
        assert "bus_error" not in await bench.ended()
        assert bench.entries()[:4] == [CLEAN] * 4 and await bench.counts() == (2, 2)

    run(job)


class Once(dict[int, int]):
    """Pages of which the bus refuses one access, and then none."""

    def get(self, page: int, default: Any = None) -> Any:  # type: ignore[override]
        return self.pop(page, default)


def test_the_phase_of_a_completion_is_its_last_word() -> None:
    """Whoever goes by it finds the others there; where the bus refused one of those it stays as it was, and is seen."""

    async def job(bench: Bench) -> None:
        order: list[int] = []

        class Watched(dict[int, int]):
            def __setitem__(self, address: int, byte: int) -> None:
                if address >> 12 == DONE >> 12:
                    order.append(address - DONE)
                super().__setitem__(address, byte)

        bench.memory.bytes = Watched(bench.memory.bytes)
        await bench.do(bench.ring.run([clear(0, 2), clear(2, 4)]))
        assert [address // 8 for address in order if address % 8 == 0] == [3, 2, 1, 0, 7, 6, 5, 4]
        bench.memory.bad = Once({DONE >> 12: 2})
        with pytest.raises(DriverError, match="the bus refused the completion at 0x11040: its command was done"):
            await bench.do(bench.ring.run([clear(4, 6)]))
        assert bench.word(DONE + 0x40) == 0 and bench.entries()[:8] == [CLEAN] * 6 + [DIRTY] * 2
        with pytest.raises(DriverError, match="1 completions wait: release them first"):
            await bench.do(bench.ring.run([clear(6, 8)]))
        await bench.do(bench.ring.release(1))
        with pytest.raises(ValueError, match="a ring of 4 does not hold 5 "):
            await bench.do(bench.ring.run([clear(6, 8)] * 5))
        with pytest.raises(ValueError, match="a move may tell several completions"):
            await bench.do(bench.ring.run([clear(6, 8) | {"moves": 1}]))
        assert [one["changed"] for one in await bench.do(bench.ring.run([clear(6, 8)]))] == [2]

    run(job)


def test_a_list_that_registers_name_is_none_of_a_ring() -> None:
    async def job(bench: Bench) -> None:
        await bench.do(bench.ring.stage(clear(0, 2)))
        await bench.bus.write(OFFSET["TABLE_LIST"], BY_NAME["TABLE_LIST"].pack(lists=1, size=9))
        bench.put(RING, *bench.ring.descriptor(clear(0, 2), 7))
        await bench.do(bench.ring.give(1))
        await bench.ended()
        (told,) = await bench.told()
        assert (told["id"], told["page"], told["changed"]) == (7, 2, 2) and bench.entries()[:2] == [CLEAN] * 2

    run(job, config=UnitConfig(MMU, engine=EngineConfig(lines=2, lists=True), rings=True))


def test_an_abort_ends_the_run() -> None:
    """Behind a store that is not retired: each descriptor is aborted and has changed nothing; then a new run."""

    async def job(bench: Bench) -> None:
        await bench.do(bench.unit.context(ROOT, track=Track.NATIVE))
        await bench.do(bench.unit.translate(0x1000, Access.WRITE, retire=False))
        await bench.bus.write(OFFSET["COMMAND"], Command.DRAIN)
        await bench.give(clear(0, 2), clear(2, 4))
        await bench.do(TableEngine(bench.unit).abort())
        await bench.do(bench.unit.retire())
        await bench.ended()
        assert [(one["stopped"], one["changed"]) for one in await bench.told()] == [(Stop.ABORTED, 0)] * 2
        assert bench.entries()[:4] == [DIRTY] * 4
        await bench.give(clear(0, 2))
        await bench.ended()
        assert [one["stopped"] for one in await bench.told()] == [Stop.DONE] and bench.entries()[:2] == [CLEAN] * 2

    run(job)


def test_without_rings_nothing_of_them_is_there() -> None:
    """RING is refused, and the offsets read as 0."""
    top = Gateware(UnitConfig(MMU, engine=EngineConfig(lines=2)))

    async def bench(ctx: Any) -> None:
        bus = AmaranthRegisters(ctx, top.s_axil)
        unit = await run_async(bus, Unit.open())
        with pytest.raises(ValueError, match="this unit was built without rings: CAPS.rings is 0"):
            RingOfCommands(unit)
        for register in RINGS:
            await bus.write(register.offset, 0xFFFF_FFFF)
            assert await bus.read(register.offset) == 0
        await bus.try_write(OFFSET["COMMAND"], Command.RING)
        assert bus.responses[-1] == 2

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
