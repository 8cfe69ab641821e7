"""The machine that a scenario leaves behind, run on the gateware."""

from __future__ import annotations

import os
import pickle
from dataclasses import asdict

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.served import ServedState
from ptewalk.cosim.runs.gateware import BuiltWalker
from ptewalk.cosim.simulate.run import run_test
from ptewalk.model.kernel import Kernel
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["left_by_gateware"]


def left_by_gateware(state: ServedState, simulator: str | None, *, timeout: float = 3600.0) -> Kernel:
    """As `ServedState.run`, with every access in the simulator, through the gateware."""
    state.scenario()
    built = BuiltWalker.make(simulator, MmuConfig(WalkerConfig(soft_dirty=state.soft_dirty)))
    values = asdict(state) | {"file": os.path.abspath(state.file)}
    result = run_test(
        built.model, "ptewalk.cosim.runs.inside.tb_procfs", testcase="left_behind", values=values, timeout=timeout
    )
    if not result.passed:
        raise ToolError(f"{built.simulator}: {result.message} (log: {result.log})")
    kernel = pickle.loads(result.arrays["kernel"].tobytes())
    assert isinstance(kernel, Kernel)
    return kernel
