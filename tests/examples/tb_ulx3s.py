"""In-simulator side of test_ulx3s.py: docs/examples/ulx3s at the wires of the board's top."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge

from ptewalk.cosim.driver.lines import UartBone
from ptewalk.cosim.driver.steps import run_async
from ptewalk.cosim.simulate.run import Job
from ptewalk.rtl.board.top import REGISTERS_AT


class SerialLine:
    """An `AsyncBus` at the other end of the line, bit by bit."""

    def __init__(self, dut: Any, divider: int) -> None:
        self._dut, self._divider = dut, divider
        self.sent = self.received = 0

    async def read(self, offset: int) -> int:
        port = Recorder()
        port.answer = bytes(4)
        UartBone(port).read(REGISTERS_AT + offset)  # the same bytes as on a host
        await self._send(port.sent)
        return int.from_bytes(bytes([await self._receive() for _ in range(4)]), "big")

    async def write(self, offset: int, value: int) -> None:
        port = Recorder()
        UartBone(port).write(REGISTERS_AT + offset, value)
        await self._send(port.sent)

    async def wait(self) -> None:
        await ClockCycles(self._dut.clk, 8)

    async def _send(self, data: bytes) -> None:
        self.sent += len(data)
        for byte in data:
            frame = byte << 1 | 1 << 9
            at = 0
            while at < 10:  # a run of equal bits at a time
                bit, length = frame >> at & 1, 1
                while at + length < 10 and frame >> at + length & 1 == bit:
                    length += 1
                self._dut.rx.value = bit
                await ClockCycles(self._dut.clk, self._divider * length)
                at += length

    async def _receive(self) -> int:
        if self._dut.tx.value == 1:
            await FallingEdge(self._dut.tx)
        await ClockCycles(self._dut.clk, self._divider // 2)
        byte = 0
        for place in range(8):
            await ClockCycles(self._dut.clk, self._divider)
            byte |= int(self._dut.tx.value) << place
        await ClockCycles(self._dut.clk, self._divider)
        assert self._dut.tx.value == 1, "no stop bit"
        self.received += 1
        return byte


class Recorder:
    """A serial port that keeps what is sent."""

    sent = b""
    answer = b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def read(self, size: int) -> bytes:
        return self.answer[:size]


@cocotb.test()
async def over_the_line(dut: Any) -> None:
    """The program of the example; publishes what it found."""
    job = Job.current()
    specification = importlib.util.spec_from_file_location("soft_dirty", Path(job.values["program"]))
    assert specification is not None and specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    dut.rx.value = 1
    Clock(dut.clk, 40, unit="ns").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 100)
    line = SerialLine(dut, job.values["divider"])
    before, after, counters, engine = await run_async(line, example.program(zeroed=True))
    told = {"before": before, "after": after, "counters": counters, "engine": engine}
    job.publish({**told, "bytes": line.sent + line.received})
