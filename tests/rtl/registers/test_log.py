"""The dirty log behind registers, in Amaranth's simulator: a unit on a memory of bytes, and the driver."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from ptewalk.cosim.driver.dirty_log import EMPTY, UnitLog
from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import DriverError, run_async
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.dirty_log import DirtyLog, LoggingMmu, Record
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import Access, Invalidation, Outcome
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.log.layouts import LogSignature
from ptewalk.rtl.registers.file import RegisterFile
from ptewalk.rtl.registers.log import attach_log
from ptewalk.rtl.registers.log_map import LOG
from ptewalk.rtl.registers.map import BY_NAME, REGISTERS, Command
from ptewalk.rtl.registers.unit import Unit as Gateware
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

from ..bridge.doubles import Memory
from ..bus.burst_memory import Manager
from .unit_bench import simulate

MMU = CachingMmuConfig(WalkerConfig(trace=False, tag_bits=4), log=LogConfig())
CONFIG = UnitConfig(MMU)
OFFSET = {name: register.offset for name, register in BY_NAME.items()}
ROOT, TABLE, RING, OTHER = 0x1000, 0x4000, 0x1_0000, 0x1_1000
PAGES, PCID = 12, 0x5A5
SD, LEAF, UPPER = 0x800, 0x67, 0x67
SIZE = 512


def tables() -> dict[int, int]:
    """Twelve pages."""
    words = {ROOT: 0x2000 | UPPER, 0x2000: 0x3000 | UPPER, 0x3000: TABLE | UPPER}
    return words | {TABLE + 8 * page: (0x100 + page) << 12 | LEAF for page in range(PAGES)}


class Bench:
    """A unit that was opened, whose context is in force; and the golden model beside it."""

    unit: Unit
    log: UnitLog

    def __init__(self, ctx: Any, top: Gateware, memory: Memory, manager: Manager | None) -> None:
        self.ctx, self.memory, self.manager = ctx, memory, manager
        self.bus, self.irq = AmaranthRegisters(ctx, top.s_axil), top.irq
        words = SparseMemory()
        for address, word in tables().items():
            words.store(address, word)
        self.golden = LoggingMmu(words, DirtyLog(RING))

    async def do(self, steps: Any) -> Any:
        return await run_async(self.bus, steps)

    def word(self, address: int) -> int:
        return int.from_bytes(self.memory.load(address, 8), "little")

    async def store(self, page: int) -> None:
        """By the window, and by the golden model."""
        state = State(ROOT, track=Track.NATIVE, pcid=PCID)
        self.golden.run(state, [Request(page << 12, Access.WRITE, user=True)])
        assert (await self.do(self.unit.translate(page << 12, Access.WRITE))).outcome == Outcome.OK

    async def clear(self) -> None:
        """Soft-dirty of every page."""
        for page in range(PAGES):
            at = TABLE + 8 * page
            self.golden.memory.store(at, self.golden.memory.load(at) & ~SD)
            self.memory.store(at, (self.word(at) & ~SD).to_bytes(8, "little"))
        await self.do(self.unit.invalidate(Invalidation.ALL))

    async def fill(self) -> None:
        """The ring is full: software's head is as many records behind."""
        tail = await self.bus.read(OFFSET["LOG_TAIL"])
        await self.bus.write(OFFSET["LOG_HEAD"], (tail - SIZE) % (1 << 19))

    async def raised(self) -> frozenset[str]:
        """What has happened but for ends of commands; forgotten, where it does not last."""
        found: frozenset[str] = await self.do(self.unit.interrupts())
        await self.do(self.unit.clear_interrupts(*found))
        return found - {"command_done"}

    async def status(self, *names: str) -> list[int]:
        found = await self.do(self.log.status())
        return [found[name] for name in names]


def run(
    job: Callable[[Bench], Awaitable[None]], *, config: UnitConfig = CONFIG, rng: random.Random | None = None
) -> None:
    """Run `job` with the log off."""
    top = Gateware(config)
    memory = Memory(top.m_axi if config.bridge is None else top.t_axi, rng=rng, bits=config.table_bits)
    for address, word in tables().items():
        memory.store(address, word.to_bytes(8, "little"))
    sides: list[Any] = [memory]
    manager = None
    if config.bridge is not None:
        manager = Manager(top.s_axi, rng=rng)
        sides += [manager, Memory(top.m_axi, rng=rng)]

    async def testbench(ctx: Any) -> None:
        bench = Bench(ctx, top, memory, manager)
        await ctx.tick().repeat(80)  # the table of grants is cleared
        bench.unit = await bench.do(Unit.open())
        bench.log = UnitLog(bench.unit)
        await bench.do(bench.unit.context(ROOT, track=Track.NATIVE, pcid=PCID))
        await job(bench)

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    for side in sides:
        simulator.add_testbench(side.run, background=True)
    simulator.run()


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "by_phase"), [(64, False), (256, True)])
def test_records_are_the_golden_models(by_phase: bool, bits: int) -> None:
    """Stores in two epochs, records of software's between; taken in pieces, and each word is where it should be."""
    rng = random.Random(f"records {by_phase} {bits}")

    async def job(bench: Bench) -> None:
        await bench.do(bench.log.set_up(RING, SIZE))
        taken: list[Record] = []
        for epoch in (1, 0):
            bench.golden.epoch = epoch
            await bench.do(bench.log.epoch(epoch))
            for page in rng.sample(range(PAGES), 7):
                await bench.store(page)
                if rng.random() < 0.3:
                    linear = 0xFFFF_8000_0000_0000 + (rng.randrange(1 << 20) << 12)
                    bench.golden.log.mark(linear, 2, pcid=PCID, epoch=epoch, software=True)
                    await bench.do(bench.log.append(linear, level=2))
                if rng.random() < 0.3:
                    taken += await bench.do(bench.log.take(by_phase=by_phase))
            await bench.clear()
        await bench.do(bench.unit.drain())
        taken += await bench.do(bench.log.take(by_phase=by_phase))
        golden = bench.golden.log
        assert await bench.do(bench.log.take(by_phase=by_phase)) == []
        assert [one.word() for one in taken] == [golden.written[at] for at in golden.order]
        assert {at: bench.word(at) for at in golden.order} == golden.written
        assert len(taken) > 14 and {one.software for one in taken} == {False, True} == {bool(x.epoch) for x in taken}
        assert await bench.bus.read(OFFSET["LOG_TAIL"]) == await bench.bus.read(OFFSET["LOG_HEAD"]) == len(taken)
        assert await bench.status("overflow", "incomplete", "refused", "stalled") == [0, 0, 0, 0]

    run(job, rng=rng, config=UnitConfig(MMU, table_bits=bits))


@pytest.mark.thorough
def test_the_watermark_is_a_level() -> None:
    async def job(bench: Bench) -> None:
        await bench.do(bench.log.set_up(RING, SIZE, watermark=2))
        await bench.do(bench.unit.enable_interrupts("watermark"))
        for page, expected in ((0, 0), (1, 1)):
            await bench.store(page)
            await bench.do(bench.unit.drain())
            await bench.ctx.tick()
            assert bench.ctx.get(bench.irq) == expected == ("watermark" in await bench.raised())
        assert await bench.raised() == {"watermark"}  # it was cleared, and lasts
        await bench.do(bench.log.release(1))
        await bench.raised()
        assert await bench.raised() == set() and not bench.ctx.get(bench.irq)

    run(job)


@pytest.mark.thorough
def test_a_store_that_waits_for_room_does_not_hold_up_software() -> None:
    """It stands at the head of the queue, and head, setup and status are reached past it."""

    async def job(bench: Bench) -> None:
        await bench.do(bench.log.set_up(RING, SIZE))
        await bench.store(0)
        await bench.do(bench.unit.drain())
        for again in (False, True):
            await bench.fill()
            await bench.bus.write(OFFSET["REQUEST_LINEAR_LO"], 0x1000 if again else 0x2000)
            await bench.bus.write(OFFSET["REQUEST"], BY_NAME["REQUEST"].pack(access=1, user=1, retire=1))
            await bench.bus.write(OFFSET["COMMAND"], Command.REQUEST)
            await bench.ctx.tick().repeat(300)
            assert await bench.status("stalled", "overflow") == [1, 0] and "log_stalled" in await bench.raised()
            assert (await bench.do(bench.unit.status()))["busy"] == 1
            if again:
                await bench.do(bench.log.set_up(OTHER, SIZE))
            else:
                await bench.do(bench.log.release(0))
            await bench.do(bench.unit.await_end(Command.REQUEST))
            await bench.do(bench.unit.drain())
            assert (
                await bench.status("stalled") == [0]
                and "log_stalled" not in await bench.raised() | await bench.raised()
            )
        assert (bench.word(RING + 8), bench.word(OTHER)) == (Record(2, 1, PCID).word(), Record(1, 1, PCID).word())

    run(job)


@pytest.mark.thorough
def test_an_overflow_is_told_and_cleared() -> None:
    """Without stalls, and with a time-out; the first address, until it is cleared; and one after that is told anew."""

    async def job(bench: Bench) -> None:
        await bench.do(bench.log.set_up(RING, SIZE, stalls=False))
        pages = iter(range(PAGES))
        for _ in range(2):
            await bench.fill()
            first = next(pages)
            for page in (first, next(pages)):
                await bench.store(page)
            assert await bench.do(bench.log.lost()) == first << 12
            assert await bench.status("overflow", "timed_out") == [1, 0] and await bench.raised() == {"log_overflow"}
            assert await bench.raised() == set()  # it happened, and does not last
            await bench.do(bench.log.clear_status(overflow=1))
            assert await bench.status("overflow") == [0]
        await bench.do(bench.log.set_up(RING, SIZE, time_out=200))
        await bench.fill()
        await bench.store(next(pages))
        assert await bench.status("overflow", "timed_out") == [1, 1] and "log_overflow" in await bench.raised()
        await bench.do(bench.log.clear_status(timed_out=1))
        assert await bench.status("overflow", "timed_out") == [1, 0]
        assert await bench.bus.read(OFFSET["LOG_TAIL"]) == 0

    run(job)


@pytest.mark.thorough
def test_what_was_refused_is_told() -> None:
    """A size that is none turns it off; a record that memory refuses is not known to be there, and the tail passes."""

    async def job(bench: Bench) -> None:
        await bench.do(bench.log.set_up(RING, SIZE))
        await bench.bus.write(OFFSET["LOG"], BY_NAME["LOG"].pack(size=8, mode=1))
        await bench.bus.write(OFFSET["DO"], BY_NAME["DO"].pack(log_setup=1))
        await bench.store(0)
        await bench.do(bench.unit.drain())
        assert await bench.status("refused", "incomplete") == [1, 0] and await bench.raised() == {"log_refused"}
        assert await bench.bus.read(OFFSET["LOG_TAIL"]) == 0
        await bench.do(bench.log.clear_status(refused=1))
        await bench.do(bench.log.set_up(RING, SIZE))
        bench.memory.bad = {RING >> 12: 2}
        await bench.do(bench.log.append(0x5000))
        await bench.ctx.tick().repeat(40)
        assert await bench.status("refused", "incomplete") == [0, 1] and await bench.raised() == {"log_incomplete"}
        bench.memory.bad = {}
        with pytest.raises(DriverError, match="0x0 at 0x10000 is no record: is LOG_STATUS.incomplete 1"):
            await bench.do(bench.log.take())
        assert list(await bench.do(bench.log.unread())) == [0]

    run(job)


@pytest.mark.thorough
def test_a_setup_makes_the_head_0() -> None:
    """As the tail: no mark between finds a ring that only seems full."""

    async def job(bench: Bench) -> None:
        await bench.do(bench.log.set_up(RING, SIZE, stalls=False))
        await bench.fill()
        assert await bench.bus.read(OFFSET["LOG_HEAD"]) == (1 << 19) - SIZE
        await bench.do(bench.log.set_up(OTHER, SIZE, stalls=False))
        assert await bench.bus.read(OFFSET["LOG_HEAD"]) == 0
        await bench.store(3)
        assert [one.page for one in await bench.do(bench.log.take())] == [3]
        assert await bench.status("overflow") == [0]

    run(job)


@pytest.mark.thorough
def test_an_append_waits_for_room() -> None:
    async def job(bench: Bench) -> None:
        with pytest.raises(ValueError, match="the log is off: nothing can be appended"):
            await bench.do(bench.log.append(0x5000))
        await bench.do(bench.log.set_up(RING, SIZE))
        await bench.fill()
        await bench.bus.write(OFFSET["LOG_LINEAR_LO"], 0x5000)
        await bench.bus.write(OFFSET["LOG_APPEND"], BY_NAME["LOG_APPEND"].pack(leaf_level=1))
        await bench.bus.write(OFFSET["DO"], BY_NAME["DO"].pack(log_append=1))
        await bench.ctx.tick().repeat(30)
        assert (await bench.status("appending"), await bench.bus.read(OFFSET["LOG_TAIL"])) == ([1], 0)
        await bench.do(bench.log.release(0))
        await bench.ctx.tick().repeat(30)
        assert (await bench.status("appending"), await bench.bus.read(OFFSET["LOG_TAIL"])) == ([0], 1)
        assert bench.word(RING) == Record(5, 1, PCID, software=True).word()

    run(job)


@pytest.mark.thorough
def test_pml_by_registers() -> None:
    """Two buffers in turn; the second is full after two entries, and the store that waits has its entry in the next."""

    async def job(bench: Bench) -> None:
        log, golden = bench.log, DirtyLog(RING, pml=True)
        bench.golden.log = golden
        for base in (RING, OTHER):
            bench.memory.store(base, EMPTY.to_bytes(8, "little") * 512)
        await bench.do(log.set_up_pml(RING))
        for page in (4, 9, 2):
            await bench.store(page)
        await bench.do(bench.unit.drain())
        assert await bench.do(log.index()) == golden.index == 508
        assert {at: bench.word(at) for at in golden.written} == golden.written
        assert await bench.do(log.take_pml(OTHER)) == [0x4000, 0x9000, 0x2000]
        assert {bench.word(RING + 8 * place) for place in range(512)} == {EMPTY}
        await bench.do(log.set_up_pml(OTHER, first=1))
        bench.golden.log = DirtyLog(OTHER, pml=True, index=1)
        for page in (5, 6):
            await bench.store(page)
        await bench.do(bench.unit.drain())
        assert (await bench.do(log.index()), await bench.status("stalled")) == (0xFFFF, [0])
        await bench.bus.write(OFFSET["REQUEST_LINEAR_LO"], 0x7000)
        await bench.bus.write(OFFSET["COMMAND"], Command.REQUEST)
        await bench.ctx.tick().repeat(200)
        assert await bench.status("stalled", "overflow") == [1, 0]
        assert await bench.do(log.take_pml(RING)) == [0x5000, 0x6000]
        assert bench.word(RING + 8 * 511) == 0x7000

    run(job)


@pytest.mark.thorough
def test_bursts_of_a_bridge_are_recorded() -> None:
    """A burst that finds the ring full waits without an answer; it is answered when software makes room."""
    config = UnitConfig(MMU, bridge=BridgeConfig(data_bits=64, id_bits=4))

    async def job(bench: Bench) -> None:
        manager = bench.manager
        assert manager is not None

        async def answered(count: int) -> None:
            for _ in range(400):
                await bench.ctx.tick()
            assert len(manager.seen["b"]) == count

        await bench.do(bench.unit.bridge(whose="user"))
        await bench.do(bench.log.set_up(RING, SIZE))
        manager.write(1, 0x3000, [7])
        await answered(1)
        await bench.fill()
        manager.write(1, 0x6000, [8])
        await answered(1)
        assert await bench.status("stalled") == [1]
        await bench.do(bench.log.release(0))
        await answered(2)
        expected = [Record(page, 1, PCID).word() for page in (3, 6)]
        assert [bench.word(RING + 8 * place) for place in range(3)] == [*expected, 0]

    run(job, config=config, rng=random.Random(3))


def test_what_happens_in_the_cycle_of_a_clear_is_told_again() -> None:
    """The bit stays, as the log promises, and so does nobody who cleared the interrupt before miss it."""
    registers = tuple(one for one in REGISTERS if one in LOG or one.name == "DO")
    file, log, m = RegisterFile(registers), LogSignature(40).create(), Module()
    m.submodules.file = file
    _, events = attach_log(m, file, log)
    count = Signal(4)
    m.d.sync += count.eq(count + events["log_overflow"])
    simulator = Simulator(m)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        bus = AmaranthRegisters(ctx, file.bus)
        for overflow in (0, 1, 1, 0, 1, 1):
            ctx.set(log.status.overflow, overflow)
            await ctx.tick()
        assert ctx.get(count) == 2
        for names, expected in ((("incomplete", "refused"), 2), (("overflow",), 3), (("timed_out",), 3)):
            await bus.write(OFFSET["LOG_STATUS"], BY_NAME["LOG_STATUS"].pack(**dict.fromkeys(names, 1)))
            await ctx.tick().repeat(2)
            assert ctx.get(count) == expected

    simulator.add_testbench(bench)
    simulator.run()


def test_without_a_log_nothing_of_it_is_there() -> None:
    """Its offsets read as 0 and ignore writes, and the driver says so."""

    async def body(bus: AmaranthRegisters, _: object) -> None:
        unit = await run_async(bus, Unit.open())
        assert unit.built["log"] == 0
        with pytest.raises(ValueError, match="this unit was built without a dirty log: CAPS.log is 0"):
            UnitLog(unit)
        for register in LOG:
            await bus.write(register.offset, 0xFFFF_FFFF)
            assert await bus.read(register.offset) == 0
        await bus.write(OFFSET["DO"], BY_NAME["DO"].pack(log_setup=1, log_append=1))
        assert await run_async(bus, unit.interrupts()) == set()

    simulate(lambda ctx, bus, top: body(bus, top))
