"""Inside the simulator: scenarios replayed with the gateware as the MMU, in step with the golden model.

Started by cosim/checks/replay.py through `run_test`.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import cocotb

from ptewalk.cosim.bench.lane import Counters
from ptewalk.cosim.bench.mmu import GatewareMmu, RunBatch
from ptewalk.cosim.checks.lockstep import LockstepJudge
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.runs.inside.software_bench import run_software
from ptewalk.cosim.simulate.run import Job
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
