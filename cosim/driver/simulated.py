"""Registers in a simulator: cocotbext-axi's manager, or Amaranth's own simulator."""

from __future__ import annotations

from typing import Any, Final

from cocotb.triggers import ClockCycles

from ptewalk.cosim.driver.steps import DriverError

__all__ = ["AmaranthRegisters", "CocotbRegisters"]

PAUSE: Final = 8
"""Cycles of a wait."""
_OKAY: Final = 0


class CocotbRegisters:
    """An `AsyncBus` on a manager as `cocotbext.axi.AxiLiteMaster`.

    Parameters
    ----------
    manager
        Has `await read(address, length)` and `await write(address, data)`, whose results have `resp`.
    clk
        The clock's handle.
    base : int
        Address of the registers.

    Attributes
    ----------
    accesses : int
        Reads and writes so far.
    """

    def __init__(self, manager: Any, clk: Any, base: int = 0) -> None:
        self._manager, self._clk, self._base = manager, clk, base
        self.accesses = 0

    async def read(self, offset: int) -> int:
        self.accesses += 1
        found = await self._manager.read(self._base + offset, 4)
        _accept("read", offset, int(found.resp))
        return int.from_bytes(found.data, "little")

    async def write(self, offset: int, value: int) -> None:
        self.accesses += 1
        done = await self._manager.write(self._base + offset, value.to_bytes(4, "little"))
        _accept("write", offset, int(done.resp))

    async def wait(self) -> None:
        await ClockCycles(self._clk, PAUSE)


class AmaranthRegisters:
    """An `AsyncBus` on an AXI4-Lite interface in Amaranth's simulator.

    Parameters
    ----------
    ctx
        A testbench's context.
    bus
        The component's `s_axil`.

    Attributes
    ----------
    responses : list of int
        BRESP and RRESP of every access, in order.
    """

    def __init__(self, ctx: Any, bus: Any) -> None:
        self._ctx, self._bus = ctx, bus
        self.responses: list[int] = []

    async def read(self, offset: int) -> int:
        ctx, bus = self._ctx, self._bus
        ctx.set(bus.ar.payload.addr, offset)
        await self._offer(bus.ar)
        found = await self._take(bus.r)
        _accept("read", offset, self.responses[-1])
        return int(found.data)

    async def write(self, offset: int, value: int, *, strobes: int = 15) -> None:
        await self.try_write(offset, value, strobes=strobes)
        _accept("write", offset, self.responses[-1])

    async def try_write(self, offset: int, value: int, *, strobes: int = 15) -> None:
        """Write, whatever is answered."""
        ctx, bus = self._ctx, self._bus
        ctx.set(bus.aw.payload.addr, offset)
        ctx.set(bus.w.payload, {"data": value, "strb": strobes})
        ctx.set(bus.w.valid, 1)
        await self._offer(bus.aw)  # both are taken in one cycle
        ctx.set(bus.w.valid, 0)
        await self._take(bus.b)

    async def wait(self) -> None:
        await self._ctx.tick().repeat(PAUSE)

    async def _offer(self, channel: Any) -> None:
        self._ctx.set(channel.valid, 1)
        await self._ctx.tick().until(channel.ready)
        self._ctx.set(channel.valid, 0)

    async def _take(self, channel: Any) -> Any:
        self._ctx.set(channel.ready, 1)
        (found,) = await self._ctx.tick().sample(channel.payload).until(channel.valid)
        self._ctx.set(channel.ready, 0)
        self.responses.append(int(found.resp))
        return found


def _accept(what: str, offset: int, response: int) -> None:
    if response != _OKAY:
        raise DriverError(f"{what} of register {offset:#05x}: response {response}")
