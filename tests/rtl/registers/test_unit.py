"""The unit used by its registers alone, on block RAM, by the driver."""

from collections.abc import Callable
from typing import Any

import pytest

from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import DriverError, run_async
from ptewalk.cosim.driver.unit import Answer, Fault, Unit, WaitFor
from ptewalk.model.linux import Track
from ptewalk.model.x86 import Access, Invalidation, Outcome
from ptewalk.rtl.bus.axi import Response
from ptewalk.rtl.registers.map import BY_NAME, OF_ENGINE, OF_LISTS, OF_LOG, OF_RINGS, Command

from .unit_bench import OnRam, simulate

pytestmark = pytest.mark.thorough

TABLES = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4008: 0x5007, 0x4010: 0x6005}
"""Linear 0x1000 and 0x2000 are pages 0x5000, and 0x6000, which is read-only; entries typed by hand."""
MARKED = 0x5867
"""The first with accessed, dirty and soft-dirty [SDM 3A 4-20; soft-dirty is bit 11]."""
OFFSET = {name: register.offset for name, register in BY_NAME.items()}


def ok(physical: int) -> Answer:
    return Answer(Outcome.OK, 0, physical, 1, False, False, False)


def by_driver(body: Callable[[Any, AmaranthRegisters, Unit, OnRam, Any], Any], **options: Any) -> None:
    """Run `body(ctx, bus, unit, top, do)`, where `await do(steps)` carries steps out, under TRACK native."""

    async def begin(ctx: Any, bus: AmaranthRegisters, top: OnRam) -> None:
        async def do(steps: Any) -> Any:
            return await run_async(bus, steps)

        unit = await do(Unit.open())
        await do(unit.context(0x1000, track=Track.NATIVE))
        await body(ctx, bus, unit, top, do)

    simulate(begin, words=TABLES, **options)


def test_by_registers_alone() -> None:
    """Everything that the driver does, once, on tables typed by hand."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        assert (unit.built["physical_bits"], unit.built["levels"], unit.built["small_entries"]) == (40, 5, 16)
        assert (unit.built["exclusive"], unit.built["engine"], unit.built["fault_depth"]) == (0, 0, 4)
        assert await do(unit.translate(0x1678, Access.WRITE)) == ok(0x5678)
        assert await do(unit.read_word(0x4008)) == MARKED
        assert await do(unit.translate(0x1678, Access.WRITE)) == ok(0x5678)  # from the TLB
        answer = await do(unit.translate(0x2678, Access.WRITE))
        assert (answer.outcome, answer.code, answer.level) == (Outcome.PAGE_FAULT, 0b111, 1)
        assert (await do(unit.translate(1 << 57))).outcome == Outcome.GENERAL_PROTECTION
        assert await do(unit.store(0x1008, 0x0123_4567_89AB_CDEF)) == ok(0x5008)
        assert await do(unit.load(0x1008)) == (ok(0x5008), 0x0123_4567_89AB_CDEF)
        assert await do(unit.swap_word(0x4008, MARKED ^ 1, 2)) is False
        assert await do(unit.swap_word(0x4008, MARKED, MARKED & ~0x800)) is True
        await do(unit.translate(0x1678, Access.WRITE))
        assert await do(unit.read_word(0x4008)) == MARKED & ~0x800  # still cached: it may be
        await do(unit.invalidate(Invalidation.INVLPG, linear=0x1000))
        await do(unit.translate(0x1678, Access.WRITE))
        assert await do(unit.read_word(0x4008)) == MARKED
        assert await do(unit.pop_fault()) == Fault(0x2678, 0b111, 0)
        assert await do(unit.pop_fault()) is None
        await do(unit.drain())
        counted = await do(unit.counters(clear=True))
        found = [counted[name] for name in ("requests", "marks", "mends", "delivered_faults")]
        assert found == [8, 2, 0, 1]
        assert counted["hits"] == 4 and counted["cycles"] > 500
        again = await do(unit.counters())
        assert (again["marks"], again["hits"]) == (0, 0) and 0 < again["cycles"] < counted["cycles"]
        with pytest.raises(DriverError, match="READ of 0x100000: the bus refused"):
            await do(unit.read_word(1 << 20))
        assert await do(unit.interrupts()) == {"command_done", "bus_error"}

    by_driver(body)


def test_a_context_counts_when_it_is_applied() -> None:
    """Staged values change nothing; a command takes them as they stand when it is written."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        await bus.write(OFFSET["CR3_LO"], 0x7000)
        assert await do(unit.translate(0x1678)) == ok(0x5678)
        await bus.write(OFFSET["COMMAND"], Command.APPLY)
        await bus.write(OFFSET["CR3_LO"], 0x1000)
        assert (await do(unit.translate(0x1678))).outcome == Outcome.PAGE_FAULT

    by_driver(body)


def test_commands_end_in_their_order() -> None:
    """Context, request, context, without waiting between: the request is judged under the first."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        before = await bus.read(OFFSET["DONE"])
        await bus.write(OFFSET["CR3_LO"], 0x1000)
        await bus.write(OFFSET["COMMAND"], Command.APPLY)
        await bus.write(OFFSET["REQUEST_LINEAR_LO"], 0x1678)
        await bus.write(OFFSET["REQUEST"], 1 << 3)
        await bus.write(OFFSET["COMMAND"], Command.REQUEST)
        await bus.write(OFFSET["CR3_LO"], 0x7000)
        await bus.write(OFFSET["COMMAND"], Command.APPLY)
        while await bus.read(OFFSET["STATUS"]) & 1:
            pass
        assert await bus.read(OFFSET["DONE"]) == before + 3
        assert await bus.read(OFFSET["ANSWER"]) == 1 << 2  # OK, from a page table
        assert await bus.read(OFFSET["ANSWER_PHYSICAL_LO"]) == 0x5678

    by_driver(body)


def test_an_invalidation_waits_for_the_windows_store() -> None:
    """Of the three waits, none ends at once; the others end when the store has retired, and hold back a request."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        await do(unit.translate(0x1678, Access.WRITE, retire=False))
        await do(unit.invalidate(Invalidation.ALL, wait=WaitFor.NONE))
        for wait in (WaitFor.STORES, WaitFor.ALL):
            await bus.write(OFFSET["INV"], BY_NAME["INV"].pack(kind=Invalidation.ALL, wait=wait))
            await bus.write(OFFSET["COMMAND"], Command.INVALIDATE)
            await ctx.tick().repeat(300)
            status = await do(unit.status())
            assert (status["busy"], status["granted"]) == (1, 1)
            await do(unit.retire())
            await ctx.tick().repeat(20)
            status = await do(unit.status())
            assert (status["busy"], status["granted"]) == (0, 0)
            assert await do(unit.translate(0x1678, Access.WRITE, retire=False)) == ok(0x5678)
        await do(unit.retire())
        await do(unit.retire())  # once too often: nothing is outstanding, so nothing is told to the MMU
        assert (await do(unit.status()))["stray_retirement"] == 0

    by_driver(body)


def test_a_full_queue_refuses() -> None:
    """SLVERR, and the command is not done; STATUS.room says before how many there is room for."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        await do(unit.translate(0x1678, Access.WRITE, retire=False))
        before = await bus.read(OFFSET["DONE"])
        assert (await do(unit.status()))["room"] == 3
        for room in (2, 1, 0):
            await bus.try_write(OFFSET["COMMAND"], Command.DRAIN)
            assert bus.responses[-1] == Response.OKAY
            assert (await do(unit.status()))["room"] == room
        for _ in range(2):
            await bus.try_write(OFFSET["COMMAND"], Command.DRAIN)
            assert bus.responses[-1] == Response.SLVERR
        await do(unit.retire())
        await ctx.tick().repeat(50)
        assert await bus.read(OFFSET["DONE"]) == before + 3
        assert (await do(unit.status()))["room"] == 3

    by_driver(body, queue_depth=3)


def test_a_kind_that_is_none_is_refused_and_block_ram_has_no_self_test() -> None:
    """As is TABLE where there is no engine. SELFTEST ends, and nothing has run."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        before = await bus.read(OFFSET["DONE"])
        for kind in (0, Command.TABLE, 9, 15):
            await bus.try_write(OFFSET["COMMAND"], kind)
            assert bus.responses[-1] == Response.SLVERR
        for kind, done in ((0x10, 0), (Command.SELFTEST, 1)):
            await bus.try_write(OFFSET["COMMAND"], kind)
            await ctx.tick().repeat(20)
            assert await bus.read(OFFSET["DONE"]) == before + done
        assert not await bus.read(OFFSET["SELFTEST"]) and not (await do(unit.status()))["busy"]

    by_driver(body)


def test_a_level_stays_until_its_cause_goes() -> None:
    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        await do(unit.enable_interrupts("fault"))
        await ctx.tick()
        assert ctx.get(top.irq) == 0
        for linear in (0x2000, 0x2008):
            await do(unit.translate(linear, Access.WRITE))
        for linear in (0x2000, 0x2008):
            await do(unit.clear_interrupts("fault", "command_done"))
            assert ctx.get(top.irq) == 1
            assert await do(unit.interrupts()) == {"fault"}
            assert (await do(unit.pop_fault())).linear == linear
        assert await do(unit.interrupts()) == set()
        assert ctx.get(top.irq) == 0

    by_driver(body)


def test_what_is_lost_is_told() -> None:
    """Five faults in a queue of four places; the bit of STATUS and the interrupt are cleared one by one."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        for number in range(6):
            await do(unit.translate(0x2000 + 8 * number, Access.WRITE))
        counted = await do(unit.counters())
        assert counted["delivered_faults"] == 6 and counted["lost_faults"] == 2
        assert "fault_overflow" in await do(unit.interrupts())
        await do(unit.clear_interrupts("fault_overflow"))
        assert "fault_overflow" not in await do(unit.interrupts())
        assert (await do(unit.status()))["fault_overflow"] == 1
        await do(unit.clear_status(fault_overflow=1))
        assert (await do(unit.status()))["fault_overflow"] == 0
        assert [(await do(unit.pop_fault())).linear for _ in range(4)] == [0x2000, 0x2008, 0x2010, 0x2018]

    by_driver(body)


def test_a_set_in_the_cycle_of_a_clear_wins() -> None:
    """The port raises `no_monitor` at each distance from a clear of it: only a clear that comes later clears it."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        bit = BY_NAME["IRQ_RAW"].pack(no_monitor=1)
        await do(unit.enable_interrupts("no_monitor"))
        ended = []
        channels = top.s_axil
        for distance in range(8):
            await do(unit.clear_interrupts("no_monitor"))
            assert await bus.read(OFFSET["IRQ_RAW"]) & bit == 0
            ctx.set(channels.aw.payload.addr, OFFSET["IRQ_RAW"])
            ctx.set(channels.w.payload, {"data": bit, "strb": 15})
            cleared_at = None
            for cycle in range(12):
                ctx.set(channels.aw.valid, cycle == 2)
                ctx.set(channels.w.valid, cycle == 2)
                ctx.set(channels.b.ready, 1)
                if cycle == distance:
                    ctx.set(top.port_status.no_monitor, 1)
                if ctx.get(top.core.file.told.IRQ_RAW.no_monitor):
                    cleared_at = cycle
                await ctx.tick()
            ctx.set(channels.b.ready, 0)
            assert cleared_at == 3
            ended.append((await bus.read(OFFSET["IRQ_RAW"]) & bit) != 0)
            assert ctx.get(top.irq) == ended[-1]
            ctx.set(top.port_status.no_monitor, 0)
            await ctx.tick().repeat(2)
        assert ended == [False, False, False, True, True, True, True, True]

    by_driver(body)


def test_irq_set() -> None:
    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        names = ("fault", "fault_overflow", "command_done", "bus_error", "no_monitor")
        await do(unit.clear_interrupts(*names))
        for name in names:
            await do(unit.raise_interrupts(name))
            assert await do(unit.interrupts()) == {name}
            assert ctx.get(top.irq) == 0
            await do(unit.enable_interrupts(name))
            await ctx.tick()
            assert ctx.get(top.irq) == 1
            assert await bus.read(OFFSET["IRQ_NOW"]) == BY_NAME["IRQ_RAW"].pack(**{name: 1})
            await do(unit.enable_interrupts())
            await do(unit.clear_interrupts(name))
            assert await do(unit.interrupts()) == set()

    by_driver(body)


def test_what_the_port_raises_is_an_interrupt_once() -> None:
    """Though STATUS keeps it."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        await do(unit.clear_interrupts("command_done"))
        for status, interrupt in (("outcome_unknown", "bus_error"), ("no_monitor", "no_monitor")):
            ctx.set(top.port_status[status], 1)
            await ctx.tick().repeat(2)
            assert await do(unit.interrupts()) == {interrupt} and (await do(unit.status()))[status] == 1
            await do(unit.clear_interrupts(interrupt))
            assert await do(unit.interrupts()) == set() and (await do(unit.status()))[status] == 1
            ctx.set(top.port_status[status], 0)

    by_driver(body)


def test_each_staged_field_is_what_was_written() -> None:
    """Contexts, invalidations and requests with another value in each field."""

    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        staged = top.core.commands.staged
        context = {"pcid": 0x5A3, "keep": True, "pkru": 0x1234_5678, "pkrs": 0x9ABC_DEF1, "saved_dirty": True}
        for control in (1 << bit for bit in range(8)):
            await do(unit.context(0x98_7654_3000, control=control, track=Track.FAULT, **context))
            names = [str(name) for name, _ in staged.context.control.shape() if ctx.get(staged.context.control[name])]
            assert names == [BY_NAME["CONTROL"].fields[control.bit_length() - 1].name]
        assert ctx.get(staged.context.root) == 0x987_6543 and ctx.get(staged.context.track) == Track.FAULT
        assert {name: ctx.get(staged.context[name]) for name in context} == context
        await do(unit.invalidate(Invalidation.ALL, linear=0xFFFF_8123_4567_8000, pcid=0xC35, wait=WaitFor.STORES))
        kept = staged.invalidation
        assert (ctx.get(kept.linear), ctx.get(kept.pcid)) == (0xFFFF_8123_4567_8000, 0xC35)
        assert (ctx.get(kept.kind), ctx.get(kept.wait)) == (Invalidation.ALL, WaitFor.STORES)
        for name in ("user", "implicit", "ac", "retire"):
            others = dict.fromkeys(("user", "implicit", "ac", "retire"), False) | {name: True}
            await do(unit.translate(0xFFFF_8765_4321_0008, Access.PROBE, **others))
            request = staged.request.request
            assert (ctx.get(request.linear), ctx.get(request.access)) == (0xFFFF_8765_4321_0008, Access.PROBE)
            found = {one: bool(ctx.get(request[one])) for one in ("user", "implicit", "ac")}
            assert found | {"retire": bool(ctx.get(staged.request.retire))} == others

    by_driver(body)


def test_reserved_offsets_read_as_0_and_ignore_writes() -> None:
    async def body(ctx: Any, bus: AmaranthRegisters, unit: Unit, top: OnRam, do: Any) -> None:
        absent = OF_ENGINE | OF_LISTS | OF_LOG | OF_RINGS
        free = sorted(set(range(0, 4096, 4)) - {at for name, at in OFFSET.items() if name not in absent})
        assert {0x03C, 0x0CC, 0x140, 0x1A0, 0x1C0, 0x200, 0xFFC} <= set(free)
        for offset in (*free[:40], *free[40::24], free[-1]):
            await bus.write(offset, 0xFFFF_FFFF)
            assert await bus.read(offset) == 0
        assert await do(unit.translate(0x1678)) == ok(0x5678)

    by_driver(body)
