"""The registers on AXI4-Lite, against a table of the test's own."""

from typing import Any

from amaranth.sim import Simulator

from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.rtl.bus.axi import Response
from ptewalk.rtl.registers.file import RegisterFile
from ptewalk.rtl.registers.table import Access, Field, Register

TABLE = (
    Register("SAID", 0x000, (Field("low", 0, 4, Access.RO, ""), Field("high", 28, 4, Access.RO, "")), ""),
    Register("KEPT", 0x004, (Field("word", 0, 32, Access.RW, "", 0x1234_5678),), ""),
    Register("MIXED", 0x00C, (Field("kept", 3, 2, Access.RW, ""), Field("seen", 9, 1, Access.W1C, "")), ""),
    Register("SET", 0x010, (Field("seen", 9, 1, Access.W1S, ""),), ""),
    Register("NUMBER", 0x014, (Field("low", 0, 8, Access.RW, ""), Field("high", 8, 8, Access.RW, "")), "", zeroed=True),
    Register("DONE", 0xFFC, (Field("kind", 0, 12, Access.WO, ""),), "", refusable=True),
)


def test_every_access() -> None:
    file = RegisterFile(TABLE)
    simulator = Simulator(file)
    simulator.add_clock(1e-6)
    told: list[tuple[int, int, int, int]] = []
    ended = False

    async def watch(ctx: Any) -> None:
        while not ended:
            *_, mixed, raised, kind = await ctx.tick().sample(
                file.told.MIXED.seen, file.told.SET.seen, file.told.DONE.kind
            )
            if mixed or raised or kind:
                told.append((mixed, raised, kind, 0))

    async def bench(ctx: Any) -> None:
        nonlocal ended
        bus = AmaranthRegisters(ctx, file.bus)
        ctx.set(file.now.SAID.low, 0xA)
        ctx.set(file.now.SAID.high, 0x5)
        ctx.set(file.now.MIXED.seen, 1)
        assert await bus.read(0x000) == 0x5000_000A
        assert await bus.read(0x004) == 0x1234_5678  # its reset value
        await bus.write(0x004, 0xAABB_CCDD, strobes=0b0101)
        assert await bus.read(0x004) == 0x12BB_56DD
        assert ctx.get(file.held.KEPT.word) == 0x12BB_56DD
        await bus.write(0x000, 0xFFFF_FFFF)
        assert await bus.read(0x000) == 0x5000_000A
        await bus.write(0x008, 0xFFFF_FFFF)  # no register
        assert await bus.read(0x008) == 0
        assert told == []
        await bus.write(0x00C, 0x0000_0010)
        assert await bus.read(0x00C) == 0x210
        await bus.write(0x00C, 0xFFFF_FFFF, strobes=0b0001)
        assert (await bus.read(0x00C), told) == (0x218, [])  # the W1C field is in byte 1
        await bus.write(0x00C, 0x0000_0208)
        assert (await bus.read(0x00C), told) == (0x208, [(1, 0, 0, 0)])
        await bus.write(0x010, 0x200)
        assert (await bus.read(0x010), told[1:]) == (0, [(0, 1, 0, 0)])
        await bus.write(0xFFC, 0xABC)
        await bus.write(0xFFC, 0xABC, strobes=0b0010)
        assert (await bus.read(0xFFC), told[2:]) == (0, [(0, 0, 0xABC, 0), (0, 0, 0xA00, 0)])
        assert set(bus.responses) == {Response.OKAY}
        ctx.set(file.refuse.DONE, 1)
        await bus.try_write(0xFFC, 0xABC, strobes=0b0001)
        assert ctx.get(file.offered.DONE) == 0xBC
        await bus.try_write(0xFFC, 0xABC)
        assert (bus.responses[-1], len(told)) == (Response.SLVERR, 4)
        await bus.try_write(0x010, 0x200)
        assert (bus.responses[-1], told[4:]) == (Response.OKAY, [(0, 1, 0, 0)])
        await bus.write(0x014, 0xFFFF_1234)
        assert await bus.read(0x014) == 0x1234
        ctx.set(file.zero.NUMBER, 1)
        await ctx.tick()
        assert (await bus.read(0x014), await bus.read(0x004)) == (0, 0x12BB_56DD)
        await bus.write(0x014, 0x1234)  # zero in the cycle of a write wins
        ctx.set(file.zero.NUMBER, 0)
        assert await bus.read(0x014) == 0
        ended = True

    simulator.add_testbench(bench)
    simulator.add_testbench(watch, background=True)
    simulator.run()


def test_what_is_loaded() -> None:
    """By the hardware: a register of those that may be, whole, and over what software writes in that cycle."""
    file = RegisterFile(TABLE, loadable=frozenset({"NUMBER", "MIXED"}))

    async def bench(ctx: Any) -> None:
        bus = AmaranthRegisters(ctx, file.bus)
        ctx.set(file.load, 1)
        for offset, value in ((0x014, 0xFFFF_1234), (0x00C, 0x0000_0010), (0x004, 0xFFFF_FFFF), (0x008, 0xFFFF_FFFF)):
            ctx.set(file.loaded, offset)
            ctx.set(file.value, value)
            await ctx.tick()
        assert [await bus.read(offset) for offset in (0x014, 0x00C, 0x004)] == [0x1234, 0x10, 0x1234_5678]
        ctx.set(file.loaded, 0x014)
        ctx.set(file.value, 0x77)
        await bus.write(0x014, 0x99)
        ctx.set(file.load, 0)
        assert await bus.read(0x014) == 0x77
        await bus.write(0x014, 0x99)
        assert await bus.read(0x014) == 0x99

    simulator = Simulator(file)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def test_address_and_data_in_any_order_and_answers_that_wait() -> None:
    """AW before W and after it; B and R stay as they are until they are taken; a read and a write at once."""
    file = RegisterFile(TABLE)
    simulator = Simulator(file)
    simulator.add_clock(1e-6)
    bus = file.bus

    async def bench(ctx: Any) -> None:
        for first, second in ((bus.aw, bus.w), (bus.w, bus.aw)):
            for value in (0x1111_0000, 0x2222_0000):
                ctx.set(bus.aw.payload.addr, 0x004)
                ctx.set(bus.w.payload, {"data": value, "strb": 15})
                ctx.set(bus.ar.payload.addr, 0x004)
                ctx.set(first.valid, 1)
                await ctx.tick().repeat(5)
                assert (ctx.get(first.ready), ctx.get(bus.b.valid)) == (0, 0)
                ctx.set(second.valid, 1)
                ctx.set(bus.ar.valid, 1)
                await ctx.tick()
                for channel in (bus.aw, bus.w, bus.ar):
                    ctx.set(channel.valid, 0)
                await ctx.tick().repeat(2)
                for _ in range(4):
                    assert (ctx.get(bus.b.valid), ctx.get(bus.r.valid)) == (1, 1)
                    assert (ctx.get(bus.aw.ready), ctx.get(bus.ar.ready)) == (0, 0)
                    await ctx.tick()
                assert ctx.get(file.held.KEPT.word) == value
                for channel in (bus.b, bus.r):
                    ctx.set(channel.ready, 1)
                await ctx.tick()
                for channel in (bus.b, bus.r):
                    ctx.set(channel.ready, 0)
                assert (ctx.get(bus.b.valid), ctx.get(bus.r.valid)) == (0, 0)

    simulator.add_testbench(bench)
    simulator.run()
