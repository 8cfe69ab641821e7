"""The table engine, built and ready to be run beside an MMU."""

from __future__ import annotations

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.engine_lane import engine_lane_files
from ptewalk.cosim.runs.gateware import library_of
from ptewalk.cosim.simulate.build import BuildDir
from ptewalk.cosim.simulate.find import select
from ptewalk.rtl.engine.table_engine import EngineConfig

__all__ = ["built_engine", "can_build"]


def can_build(simulator: str = "verilator") -> bool:
    """Is there a simulator of this name, and does it make models as libraries?"""
    try:
        return select(simulator).can_library
    except ToolError:
        return False


def built_engine(
    config: EngineConfig = EngineConfig(),  # noqa: B008 - frozen
    simulator: str = "verilator",
    *,
    covered: bool = False,
) -> BuildDir:
    """Build it with its compiled lane, or find it built; as `library_of`."""
    return library_of(config, engine_lane_files, simulator, covered=covered)
