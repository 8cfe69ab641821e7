"""Inside the simulator: a performance of cosim/checks/performances.py, on the linked lane or at the protocol level.

Started by cosim/runs/gateware.py through `run_test`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cocotb
from cocotb.task import bridge, resume

from ptewalk.cosim.bench.conditions import BatchResult, BenchError
from ptewalk.cosim.bench.lane import Asked, Lane
from ptewalk.cosim.bench.mmu import MmuNotes
from ptewalk.cosim.bench.walker import WalkerBench
from ptewalk.cosim.checks.performances import PERFORMANCES, left_behind
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.memory import SparseMemory

_FEW_BITS = 13
"""Physical address bits that every design has."""

__all__ = ["CocotbLane", "run_software"]


class CocotbLane(Lane):
    """The protocol level as a lane: each batch is a cocotb task, and who calls waits in a thread of its own.

    Parameters
    ----------
    bench : WalkerBench
    """

    def __init__(self, bench: WalkerBench) -> None:
        self._bench = bench
        self._run = resume(self._batch)

    async def _batch(self, asked: Asked) -> BatchResult:
        self._bench.use(asked.memory)
        try:
            return await self._bench.batch(
                asked.requests,
                interferences=asked.interferences,
                conditions=asked.conditions,
                stop_on_fault=asked.stop_on_fault,
                compiled=False,
            )
        except BenchError:
            await self._bench.start()
            raise

    def perform(self, asked: Asked) -> BatchResult:
        """As `Lane.run`; to be called in a thread that `cocotb.task.bridge` started."""
        result: BatchResult = self._run(asked)
        return result


async def run_software(dut: Any, work: Callable[[Lane, WalkerBench], None], *, protocol: bool = False) -> None:
    """Run `work`, which is ordinary Python, with a lane: the linked one if there is one, unless `protocol`."""
    bench = WalkerBench(dut, SparseMemory(_FEW_BITS))  # each batch brings its own memory
    await bench.start()
    if bench.has_batch_level and not protocol:
        async with bench.halted() as lane:
            work(lane, bench)
        return
    await bridge(work)(CocotbLane(bench), bench)


@cocotb.test()
async def performed(dut: Any) -> None:
    """The performance that the job names; publishes what it gave."""
    job = Job.current()

    def work(lane: Lane, bench: WalkerBench) -> None:
        job.publish(PERFORMANCES[job.values["performance"]](job.values["values"], lane, bench.design))

    await run_software(dut, work, protocol=job.values["protocol"])


@cocotb.test()
async def served(dut: Any) -> None:
    """One scenario on the gateware up to a step; publishes what every call of it gave."""
    job = Job.current()

    def work(lane: Lane, bench: WalkerBench) -> None:
        notes = MmuNotes()
        left = left_behind(ServedState(**job.values), lane, bench.design, notes)
        job.publish(left.told, notes.arrays())

    await run_software(dut, work)
