"""What benches of a unit have in common: its registers' manager, its memory, a clock and a reset."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from ptewalk.cosim.driver.simulated import CocotbRegisters


def pauses(rng: random.Random) -> Iterator[bool]:
    """A channel that stalls one cycle in four."""
    while True:
        yield rng.random() < 0.25


async def start(
    dut: Any, rng: random.Random, *, size: int, manager_stalls: bool = False
) -> tuple[CocotbRegisters, AxiRam]:
    """The registers and `size` bytes of memory, whose channels stall, of a unit that was reset and may be used."""
    manager = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk, dut.rst)
    memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=size)
    for side in (manager, memory) if manager_stalls else (memory,):
        for channels in (side.write_if, side.read_if):
            for name in ("aw", "w", "b", "ar", "r"):
                channel = getattr(channels, f"{name}_channel", None)
                if channel is not None:
                    channel.set_pause_generator(pauses(random.Random(rng.random())))
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 300)  # the table of grants is cleared
    return CocotbRegisters(manager, dut.clk), memory
