"""A unit with registers, built and ready to be used in this process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.unit_lane import UnitLane, unit_lane_files
from ptewalk.cosim.checks.unit_performances import UNIT_PERFORMANCES
from ptewalk.cosim.runs.gateware import Gateware, library_of
from ptewalk.cosim.simulate.find import COMPILED
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.presets import CACHING
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["UnitLibrary", "unit_named"]


@dataclass(frozen=True)
class UnitLibrary(Gateware):
    """A model of a unit without a bridge, and its compiled lane as a library."""

    in_process: ClassVar[bool] = True
    needs_engine: ClassVar[bool] = False
    _lane: list[UnitLane] = field(default_factory=list, compare=False)

    @property
    def has_engine(self) -> bool:
        """As `Gateware.has_engine`."""
        return isinstance(self.config, UnitConfig) and self.config.engine is not None

    @staticmethod
    def make(config: UnitConfig | None = None, simulator: str = "verilator") -> UnitLibrary:
        """Build it, or find it built; `ToolError` as `library_of`."""
        config = config or UnitConfig()
        return UnitLibrary(config, library_of(config, unit_lane_files, simulator))

    @property
    def lane(self) -> UnitLane:
        """The model; opened when it is first asked for."""
        if not self._lane:
            self._lane.append(UnitLane(self.model.library))
        return self._lane[0]

    def perform(self, name: str, values: dict[str, Any], *, protocol: bool = False) -> dict[str, Any]:
        """As `Gateware.perform`, here and now."""
        if protocol:
            raise ValueError("a library has no protocol level")
        return UNIT_PERFORMANCES[name](values, self.lane)


def unit_named(design: str, walker: WalkerConfig, simulator: str | None = None) -> UnitLibrary:
    """The unit round a preset that caches, with this walker, built; with a table engine where it has one walker.

    Raises
    ------
    ToolError
        There is no unit of this name, or it cannot be built, or not for this simulator.
    """
    if design not in CACHING:
        raise ToolError(f"registers are before an MMU that caches, not before {design}: give --design mmu-small")
    if simulator not in (None, *COMPILED):
        raise ToolError(
            f"a unit runs by compiled code, on Verilator or CXXRTL only, not on {simulator}: leave out --simulator"
        )
    mmu = replace(CACHING[design], walker=walker)
    engine = EngineConfig(physical_bits=walker.physical_bits) if mmu.walkers == 1 else None
    return UnitLibrary.make(UnitConfig(mmu, engine=engine), simulator or "verilator")
