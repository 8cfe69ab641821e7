"""Inside the simulator: an operating system's software that runs with the gateware as its MMU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cocotb.task import bridge, resume

from ptewalk.cosim.bench.lane import BatchResult, Conditions
from ptewalk.cosim.bench.mmu import RunBatch
from ptewalk.cosim.bench.records import Records
from ptewalk.cosim.bench.walker import WalkerBench
from ptewalk.model.memory import SparseMemory

__all__ = ["run_software"]

_CONDITIONS = Conditions(linger=4)


async def run_software(dut: Any, work: Callable[[RunBatch], None]) -> None:
    """Run `work`, which is ordinary Python, with a `RunBatch` of the gateware, at the batch level if there is one."""
    bench = WalkerBench(dut, SparseMemory(), _CONDITIONS)
    await bench.start()
    if bench.has_batch_level:
        async with bench.halted() as run:
            work(lambda asked, memory: run(asked, memory, stop_on_fault=True))
        return

    async def per_cycle(asked: Records, memory: SparseMemory) -> BatchResult:
        bench.use(memory)
        return await bench.batch(asked, stop_on_fault=True)

    await bridge(work)(resume(per_cycle))
