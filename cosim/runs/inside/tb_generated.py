"""Inside the simulator: scenarios without recordings with the gateware as the MMU, in step with the golden model.

Started by cosim/checks/scenarios.py through `run_test`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import cocotb

from ptewalk.cosim.bench.lane import Counters
from ptewalk.cosim.bench.mmu import GatewareMmu, RunBatch
from ptewalk.cosim.checks.scenarios import Setup, run_all
from ptewalk.cosim.formats.scenarios import without_answers
from ptewalk.cosim.runs.inside.software_bench import run_software
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.linux import Track
from ptewalk.model.profiles import NAMED


def _run_all(values: dict[str, Any], run_batch: RunBatch) -> dict[str, Any]:
    """Every scenario of the job, by way of `run_batch`."""
    counters = Counters()
    profile, exact = NAMED[values["profile"]]
    setup = Setup(
        profile,
        Track[values["track"].upper()],
        values["soft_dirty"],
        lambda memory: GatewareMmu(run_batch, memory, counters),
        exact=exact,
    )
    scenarios = [without_answers(lines) for lines in values["scenarios"]]
    return run_all(scenarios, setup) | {"counters": asdict(counters)}


@cocotb.test()
async def checked(dut: Any) -> None:
    """Scenarios, most of them generated; each store and load goes through the gateware."""
    job = Job.current()
    await run_software(dut, lambda run_batch: job.publish(_run_all(job.values, run_batch)))
