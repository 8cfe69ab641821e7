"""In-simulator side of test_simulators.py: tests that pass, fail, hang, kill their simulator, or record waves."""

from __future__ import annotations

import os
import signal
from typing import Any

import cocotb
import numpy as np
from cocotb.triggers import Timer

from ptewalk.cosim.simulate.run import Job


@cocotb.test()
async def counts(dut: Any) -> None:
    """Gives back what it was given, and counts clock edges."""
    job = Job.current()
    for _ in range(job.values["edges"]):
        dut.clk.value = 0
        await Timer(1, unit="ns")
        dut.clk.value = 1
        await Timer(1, unit="ns")
    job.publish({"count": int(dut.count.value)}, {"twice": np.asarray(job.arrays["numbers"]) * 2})


@cocotb.test()
async def fails(dut: Any) -> None:
    """An assertion that does not hold."""
    await Timer(1, unit="ns")
    assert int(dut.width_out.value) == 1, "the width is not one"


@cocotb.test()
async def hangs(dut: Any) -> None:
    """Never ends."""
    while True:
        await Timer(1, unit="us")


@cocotb.test()
async def dies(dut: Any) -> None:
    """Ends its simulator without results."""
    print("these are my last words", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
