"""Inside the simulator: one scenario on the gateware up to a step, and the machine it leaves behind.

Started by cosim/procfs/serve.py through `run_test`.
"""

from __future__ import annotations

import pickle
from dataclasses import asdict
from typing import Any

import cocotb
import numpy as np

from ptewalk.cosim.bench.lane import Counters
from ptewalk.cosim.bench.mmu import GatewareMmu, RunBatch
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.runs.inside.software_bench import run_software
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.mmu import ModelMmu


@cocotb.test()
async def left_behind(dut: Any) -> None:
    """Publishes the kernel with all of physical memory, as `ServedState.run` gives it, and the gateware's counters."""
    job = Job.current()

    def work(run_batch: RunBatch) -> None:
        counters = Counters()
        kernel = ServedState(**job.values).run(lambda memory: GatewareMmu(run_batch, memory, counters))
        kernel.mmu = ModelMmu(kernel.memory)  # the gateware stays in the simulator
        job.publish({"counters": asdict(counters)}, {"kernel": np.frombuffer(pickle.dumps(kernel), np.uint8)})

    await run_software(dut, work)
