"""Inside the simulator: scenarios replayed with the gateware as the MMU, in step with the golden model.

Started by cosim/replay.py through `run_test`.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import cocotb

from ptewalk.cosim.batch import Counters
from ptewalk.cosim.gateware_mmu import GatewareMmu, LockstepJudge, RunBatch
from ptewalk.cosim.replay import ReplayJob
from ptewalk.cosim.run import Job
from ptewalk.cosim.software_bench import run_software
from ptewalk.model.memory import SparseMemory


def _gateware_mmu(run_batch: RunBatch, counters: Counters, memory: SparseMemory) -> GatewareMmu:
    return GatewareMmu(run_batch, memory, counters)


def _replay_all(values: dict[str, Any], run_batch: RunBatch) -> dict[str, Any]:
    """Every job, by way of `run_batch`."""
    results = []
    for fields in values["jobs"]:
        job = ReplayJob.from_json(fields)
        counters = Counters()
        judge = LockstepJudge(job.picture)
        result = job.run(judge, partial(_gateware_mmu, run_batch, counters))
        results.append(result | {"words": judge.words, "counters": asdict(counters)})
    return {"results": results}


@cocotb.test()
async def replayed(dut: Any) -> None:
    """Recorded or generated scenarios; each store and load goes through the gateware."""
    job = Job.current()
    await run_software(dut, lambda run_batch: job.publish(_replay_all(job.values, run_batch)))
