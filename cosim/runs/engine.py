"""The table engine, built and ready to be run beside an MMU."""

from __future__ import annotations

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.engine_lane import engine_lane_files
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import BuildDir, build_library
from ptewalk.cosim.simulate.find import select
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.export import describe

__all__ = ["built_engine", "can_build"]


def can_build() -> bool:
    """Is there a Verilator that makes models as libraries?"""
    try:
        return select("verilator").can_batch
    except ToolError:
        return False


def built_engine(config: EngineConfig = EngineConfig()) -> BuildDir:  # noqa: B008 - frozen
    """Build it with its compiled lane, or find it built; `ToolError` when that fails or there is no Verilator."""
    design = describe(config)
    return build_library(select("verilator"), verilog_of(config), design, engine_lane_files(design))
