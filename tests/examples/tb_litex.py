"""In-simulator side of test_litex.py: docs/examples/litex at the byte stream of its UARTBone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any
from unittest import mock

import cocotb
from cocotb.clock import Clock
from cocotb.task import bridge, resume
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge, Timer

from ptewalk.cosim.simulate.run import Job

PATIENCE = 5000
"""Cycles after which a byte will not come."""


class SerialPort:
    """A serial port whose bytes go straight into the SoC; for a thread beside the simulator."""

    def __init__(self, dut: Any) -> None:
        self._dut = dut
        self.sent = self.received = 0

    def write(self, data: bytes | list[int]) -> int:
        resume(self._send)(bytes(data))
        return len(data)

    def read(self, size: int) -> bytes:
        found: bytes = resume(self._receive)(size)
        return found

    def inWaiting(self) -> int:  # noqa: N802 - pyserial's name, which LiteX's client calls
        return 0

    async def _send(self, data: bytes) -> None:
        dut = self._dut
        for byte in data:
            dut.serial_sink_data.value, dut.serial_sink_valid.value = byte, 1
            await self._taken(dut.serial_sink_ready)
            self.sent += 1
        dut.serial_sink_valid.value = 0

    async def _receive(self, size: int) -> bytes:
        dut, found = self._dut, bytearray()
        dut.serial_source_ready.value = 1
        while len(found) < size:
            byte = await self._taken(dut.serial_source_valid)
            found.append(byte)
        dut.serial_source_ready.value = 0
        self.received += size
        return bytes(found)

    async def _taken(self, other: Any) -> int:
        """The edge at which the other side's wire is 1; the byte that it offers there."""
        for _ in range(PATIENCE):
            await ReadOnly()
            ready, byte = int(other.value), self._dut.serial_source_data.value
            await RisingEdge(self._dut.clk)
            if ready:
                return int(byte) if byte.is_resolvable else 0
        raise AssertionError(f"{other._name} stays 0 for {PATIENCE} cycles, after {self.sent} bytes")


@cocotb.test()
async def over_uartbone(dut: Any) -> None:
    """The program of the example, then LiteX's own client; publishes what they found."""
    job = Job.current()
    specification = importlib.util.spec_from_file_location("host", Path(job.values["program"]))
    assert specification is not None and specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    for name in ("sink_valid", "sink_data", "source_ready"):
        getattr(dut, f"serial_{name}").value = 0
    dut.clk.value, dut.rst.value = 0, 1
    await Timer(10, unit="ns")  # an edge before the reset is there would leave X where nothing is reset, in Icarus
    Clock(dut.clk, 10, unit="ns").start()
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    port = SerialPort(dut)
    found = await bridge(example.program)(port)

    from litex.tools.remote.comm_uart import CommUART

    with mock.patch("serial.serial_for_url", return_value=port):
        client = CommUART("the wires above")
    unit, word = await bridge(example.with_litex)(client)
    fault = found.fault
    job.publish(
        {
            "before": found.before,
            "after": found.after,
            "words": found.words,
            "fault": fault and [fault.linear, fault.code, fault.write],
            "by litex": [unit, word],
            "bytes": port.sent + port.received,
        }
    )
