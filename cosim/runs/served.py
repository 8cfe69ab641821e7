"""The machine that a scenario leaves behind, run on the gateware."""

from __future__ import annotations

import os
from dataclasses import asdict

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.mmu import RepeatedMmu
from ptewalk.cosim.checks.performances import Left, left_behind
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.runs.gateware import WalkerLibrary, gateware
from ptewalk.cosim.simulate.run import run_test
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import ModelMmu
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["left_by_gateware"]


def left_by_gateware(state: ServedState, simulator: str | None) -> Left:
    """As `ServedState.run`, with every access through the gateware, which is compared with the golden model.

    In Verilator it runs in this process. Another simulator's process tells what its MMU answered and wrote; here the
    scenario is run again with that.
    """
    state.scenario()
    built = gateware(simulator, MmuConfig(WalkerConfig(soft_dirty=state.soft_dirty)))
    if isinstance(built, WalkerLibrary):
        return left_behind(state, built.lane, built.design)
    values = asdict(state) | {"file": os.path.abspath(state.file)}
    result = run_test(built.model, "ptewalk.cosim.runs.inside.tb_lane", testcase="served", values=values, timeout=None)
    if not result.passed:
        raise ToolError(f"{built.simulator}: {result.message} (log: {result.log})")
    repeated: list[RepeatedMmu] = []

    def again(memory: SparseMemory) -> RepeatedMmu:
        repeated.append(RepeatedMmu(memory, result.arrays))
        return repeated[-1]

    kernel = state.run(again)
    assert [mmu.over for mmu in repeated] == [True], "the same scenario makes the same accesses"
    kernel.mmu = ModelMmu(kernel.memory)
    return Left(kernel, result.values)
