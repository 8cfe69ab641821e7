"""A unit's core with its registers on block RAM, in Amaranth's simulator."""

from collections.abc import Awaitable, Callable
from typing import Any

from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out, connect, flipped
from amaranth.sim import Simulator

from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.rtl.bus.axi_lite import AxiLiteSignature
from ptewalk.rtl.bus.lock import LockRam, LockRamConfig
from ptewalk.rtl.bus.lock_lines import LockLines
from ptewalk.rtl.bus.slots import PortStatusLayout
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.registers.unit import MemoryPath, UnitCore
from ptewalk.rtl.walker import WalkerConfig

MMU = CachingMmuConfig(WalkerConfig(trace=False, tag_bits=4))


class OnRam(Component):
    """The core, with a `LockRam` of 64 KiB; lines of its engine, if there is one, go there too, or elsewhere."""

    def __init__(
        self,
        mmu: CachingMmuConfig = MMU,
        *,
        queue_depth: int = 4,
        engine: EngineConfig | None = None,
        elsewhere: bool = True,
    ) -> None:
        self.core = UnitCore(mmu, queue_depth=queue_depth, path=MemoryPath(), engine=engine)
        self.ram = LockRam(LockRamConfig(physical_bits=mmu.walker.physical_bits))
        self.on_ram = None if engine is None or elsewhere else LockLines(engine)
        lines = {} if engine is None or not elsewhere else {"lines": self.core.signature.members["lines"]}
        registers = {"s_axil": In(AxiLiteSignature(address_bits=12)), "irq": Out(1)}
        super().__init__({**registers, "port_status": In(PortStatusLayout()), **lines})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.core = core = self.core
        m.submodules.ram = ram = self.ram
        connect(m, flipped(self.s_axil), core.s_axil)
        connect(m, core.memory, ram.memory)
        m.d.comb += [self.irq.eq(core.irq), core.port_status.eq(self.port_status)]
        if "lines" in self.signature.members:
            connect(m, core.lines, flipped(self.lines))
        if self.on_ram is not None:
            m.submodules.on_ram = self.on_ram
            connect(m, core.lines, self.on_ram.lines)
            connect(m, self.on_ram.words, ram.words)
        return m


def simulate(
    body: Callable[[Any, AmaranthRegisters, OnRam], Awaitable[None]],
    *,
    words: dict[int, int] | None = None,
    mmu: CachingMmuConfig = MMU,
    queue_depth: int = 4,
    engine: EngineConfig | None = None,
) -> None:
    """Run `body` with the registers of a unit whose RAM begins with `words`, by address."""
    unit = OnRam(mmu, queue_depth=queue_depth, engine=engine, elsewhere=False)
    content = [0] * 8192
    for address, value in (words or {}).items():
        content[address >> 3] = value
    unit.ram.ram.init = content
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)

    async def bench(ctx: Any) -> None:
        await ctx.tick().repeat(40)  # the table of grants is cleared
        await body(ctx, AmaranthRegisters(ctx, unit.s_axil), unit)

    simulator.add_testbench(bench)
    simulator.run()
