"""The board's unit at its two wires, in Amaranth's simulator."""

from dataclasses import replace
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.board.top import BoardConfig, BoardUnit
from ptewalk.rtl.board.uart import Uart
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.log.dirty_log import LogConfig

DIVIDER = 4


class Line:
    """The other end of a serial line, bit by bit."""

    def __init__(self, ctx: Any, top: Any, divider: int = DIVIDER) -> None:
        self._ctx, self._top, self._divider = ctx, top, divider

    async def write(self, data: bytes, *, stop: int = 1) -> None:
        for byte in data:
            for bit in (0, *(byte >> place & 1 for place in range(8)), stop):
                self._ctx.set(self._top.rx, bit)
                await self._ctx.tick().repeat(self._divider)
            self._ctx.set(self._top.rx, 1)

    async def read(self, size: int, limit: int = 2000) -> bytes:
        """So many bytes; fewer when nothing comes for `limit` cycles."""
        data = b""
        while len(data) < size:
            for _ in range(limit):
                if not self._ctx.get(self._top.tx):
                    break
                await self._ctx.tick()
            else:
                return data
            await self._ctx.tick().repeat(self._divider // 2)
            byte = 0
            for place in range(8):
                await self._ctx.tick().repeat(self._divider)
                byte |= self._ctx.get(self._top.tx) << place
            await self._ctx.tick().repeat(self._divider)
            assert self._ctx.get(self._top.tx) == 1  # the stop bit
            data += bytes((byte,))
        return data


def run(top: Any, body: Any) -> None:
    simulator = Simulator(top)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        await ctx.tick().repeat(40)
        await body(ctx, Line(ctx, top))

    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.thorough
def test_messages() -> None:
    """Bytes as LiteX's client sends them, typed by hand; RAM, registers, and the LED's interrupt."""
    top = BoardUnit(BoardConfig(words=8192, divider=DIVIDER, silence=3000))

    async def body(ctx: Any, line: Line) -> None:
        async def ask(text: str, size: int) -> str:
            await line.write(bytes.fromhex(text))
            return (await line.read(size)).hex(" ", 4)

        assert await ask("02 02 20000000", 8) == "57455450 0001000a"  # ID and VERSION
        await line.write(bytes.fromhex("01 03 00000010 11223344 55667788 99aabbcc"))
        assert await ask("02 04 00000010", 16) == "11223344 55667788 99aabbcc 00000000"
        await line.write(bytes.fromhex("03 02 00000012 00000001 00000002"))  # all to one address
        assert await ask("04 02 00000012", 8) == "00000002 00000002"
        assert await ask("02 01 00000013", 4) == "00000000"
        assert await ask("02 01 00004000", 4) == "00000000"  # beyond the RAM
        await line.write(bytes.fromhex("01 01 20000011 00000002"))  # IRQ_MASK
        assert await ask("02 01 20000011", 4) == "00000002"
        assert ctx.get(top.irq) == 0
        await line.write(bytes.fromhex("01 01 20000013 00000002"))  # IRQ_SET
        assert await ask("02 01 20000012", 4) == "00000002" and ctx.get(top.irq) == 1
        await line.write(bytes.fromhex("01 01 20000010 00000002"))  # cleared
        assert await ask("02 01 20000012", 4) == "00000000" and ctx.get(top.irq) == 0
        await line.write(bytes.fromhex("00 ff 09"))  # no commands
        await line.write(bytes.fromhex("02 00 00000010"))  # no words
        assert await line.read(1) == b""
        assert await ask("02 01 00000011", 4) == "55667788"

    run(top, body)


@pytest.mark.thorough
def test_a_message_that_stops_is_forgotten() -> None:
    async def body(ctx: Any, line: Line) -> None:
        for length in (1, 2, 4, 8):
            await line.write(bytes.fromhex("01 01 00000010 deadbeef")[:length])
            await ctx.tick().repeat(3100)
            await line.write(bytes.fromhex("02 01 00000010"))
            assert await line.read(4) == bytes(4)

    run(BoardUnit(BoardConfig(words=512, divider=DIVIDER, silence=3000)), body)


@pytest.mark.parametrize("divider", [4, 7])
def test_uart(divider: int) -> None:
    """Every eighth byte, back to back; what has no stop bit, and a glitch, are dropped."""
    top = Uart(divider=divider)
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    found: list[int] = []
    sent = bytes(range(0, 256, 8))

    async def watch(ctx: Any) -> None:
        while True:
            await ctx.tick()
            if ctx.get(top.received.valid):
                found.append(ctx.get(top.received.payload))

    async def bench(ctx: Any) -> None:
        line = Line(ctx, top, divider)
        await ctx.tick().repeat(20)
        await line.write(sent)
        await ctx.tick().repeat(20 * divider)
        assert bytes(found) == sent
        await line.write(b"\x12", stop=0)
        await ctx.tick().repeat(20 * divider)
        ctx.set(top.rx, 0)
        await ctx.tick()
        ctx.set(top.rx, 1)
        await ctx.tick().repeat(20 * divider)
        assert bytes(found) == sent
        await line.write(b"\x34")
        await ctx.tick().repeat(2 * divider)
        assert found[-1] == 0x34

    async def send(ctx: Any) -> None:
        for byte in sent:
            ctx.set(top.sent.payload, byte)
            ctx.set(top.sent.valid, 1)
            await ctx.tick().until(top.sent.ready)
        ctx.set(top.sent.valid, 0)

    async def hear(ctx: Any) -> None:
        assert await Line(ctx, top, divider).read(len(sent)) == sent

    simulator.add_testbench(bench)
    simulator.add_testbench(send)
    simulator.add_testbench(hear)
    simulator.add_testbench(watch, background=True)
    simulator.run()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="divider must be an integer from 4 to 65535, not 3"):
        BoardConfig(divider=3)
    with pytest.raises(ValueError, match="silence must be longer than two bytes, 80 cycles, not 80"):
        BoardConfig(divider=4, silence=80)
    with pytest.raises(ValueError, match="words must be a power of two"):
        BoardConfig(words=1000)
    with pytest.raises(ValueError, match="log of the MMU of a board must be None: its block RAM has no port for rec"):
        BoardConfig(replace(BoardConfig().mmu, log=LogConfig()))
    with pytest.raises(ValueError, match="engine must be an EngineConfig or None, not 1"):
        BoardConfig(engine=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="data_bits of the engine must be 64 here, not 128"):
        BoardConfig(engine=EngineConfig(physical_bits=32, data_bits=128))
    with pytest.raises(ValueError, match="physical_bits of the engine must be 32 here, not 40"):
        BoardConfig(engine=EngineConfig())
    with pytest.raises(ValueError, match="lists of the engine of a board must be False: it has no log"):
        BoardConfig(engine=EngineConfig(physical_bits=32, lists=True))
    with pytest.raises(ValueError, match="divider must be 16 or more beside an engine, not 8"):
        BoardConfig(engine=EngineConfig(physical_bits=32), divider=8)
