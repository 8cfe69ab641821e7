"""The machine that a scenario leaves behind, run on the gateware."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.performances import Left, left_behind
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.runs.gateware import WalkerLibrary, gateware
from ptewalk.cosim.simulate.run import run_test
from ptewalk.model.kernel import Kernel
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["left_by_gateware"]


def left_by_gateware(state: ServedState, simulator: str | None) -> Left:
    """As `ServedState.run`, with every access through the gateware, which is compared with the golden model.

    In Verilator it runs in this process. Another simulator's process hands the machine over whole.
    """
    state.scenario()
    built = gateware(simulator, MmuConfig(WalkerConfig(soft_dirty=state.soft_dirty)))
    if isinstance(built, WalkerLibrary):
        return left_behind(state, built.lane, built.design)
    values = asdict(state) | {"file": os.path.abspath(state.file)}
    result = run_test(built.model, "ptewalk.cosim.runs.inside.tb_lane", testcase="served", values=values, timeout=None)
    if not result.passed:
        raise ToolError(f"{built.simulator}: {result.message} (log: {result.log})")
    kernel = pickle.loads(result.arrays["kernel"].tobytes())
    assert isinstance(kernel, Kernel)
    return Left(kernel, result.values)
