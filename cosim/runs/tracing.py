"""The gateware that a trace goes through, built as a library; and the same at protocol level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.bench.trace_lane import OUTSTANDING, trace_files
from ptewalk.cosim.runs.gateware import library_of, verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.model.paging import Request, State
from ptewalk.rtl.export import describe
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.presets import CACHING

__all__ = ["recited", "trace_library"]


def trace_library(design_name: str = "mmu", simulator: str = "verilator", *, log: bool = False) -> Path:
    """A preset that caches, with a dirty log or without, and the lane of a trace; `ToolError` as `library_of`."""
    config = CACHING[design_name]
    if log and config.walkers > 1:
        raise ToolError(f"a dirty log is of an MMU with one walker, not of {design_name}: give another --design")
    config = replace(config, log=LogConfig()) if log else config
    return library_of(config, trace_files, simulator).library


def recited(
    words: Mapping[int, int], state: State, asked: Sequence[Request], *, latency: int, design_name: str = "mmu"
) -> dict[str, Any]:
    """Accesses at protocol level, asked as a trace asks them.

    Parameters
    ----------
    words : mapping of int to int
        Physical memory: address to word.
    state : State
    asked : sequence of Request

    Returns
    -------
    dict
        problems (what the golden TLB does not permit), timings ([cycle of acceptance, of answer] of each access).

    Raises
    ------
    ToolError
        There is no Verilator, or it failed.
    """
    config = CACHING[design_name]
    design = describe(config)
    model = build(select("verilator"), verilog_of(config), design.top, design=design)
    quiet = CachingConditions(
        *(0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        latency=latency,
        latency_spread=0,
        tags=1 << 6,
        outstanding=OUTSTANDING,
        retirement=0,
    )
    job = {
        "words": {str(address): value for address, value in words.items()},
        "conditions": asdict(quiet),
        "root": state.root,
        "control": state.control,
        "track": int(state.track),
        "asked": [[request.linear, int(request.access)] for request in asked],
    }
    result = run_test(model, "ptewalk.cosim.runs.inside.tb_caching", testcase="recited", values=job, timeout=None)
    if not result.passed:
        raise ToolError(f"verilator: {result.message} (log: {result.log})")
    return result.values
