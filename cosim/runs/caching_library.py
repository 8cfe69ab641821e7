"""An MMU that caches, built and ready to be run in this process."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.caching_lane import CachingLane, caching_lane_files
from ptewalk.cosim.checks.caching_performances import CACHING_PERFORMANCES
from ptewalk.cosim.runs.gateware import Gateware, gateware, library_of
from ptewalk.cosim.simulate.find import COMPILED
from ptewalk.rtl.bus.on_axi import AxiMmuConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.presets import CACHING
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["CachingLibrary", "gateware_named"]


@dataclass(frozen=True)
class CachingLibrary(Gateware):
    """A model of an MMU that caches, and its compiled lane as a library."""

    in_process: ClassVar[bool] = True
    _lane: list[CachingLane] = field(default_factory=list, compare=False)

    @staticmethod
    def make(
        config: CachingMmuConfig | AxiMmuConfig | None = None, simulator: str = "verilator", *, covered: bool = False
    ) -> CachingLibrary:
        """Build it, its tables behind AXI4 or not, or find it built; as `library_of`."""
        config = config or CachingMmuConfig()
        return CachingLibrary(config, library_of(config, caching_lane_files, simulator, covered=covered))

    @property
    def lane(self) -> CachingLane:
        """The model; opened when it is first asked for."""
        if not self._lane:
            self._lane.append(CachingLane(self.model.library))
        return self._lane[0]

    def perform(self, name: str, values: dict[str, Any], *, protocol: bool = False) -> dict[str, Any]:
        """As `Gateware.perform`, here and now."""
        if protocol:
            raise ValueError("a library has no protocol level")
        return CACHING_PERFORMANCES[name](values, self.lane, self.design)

    def recorded(
        self, file: Path, indices: list[int] | None = None, *, seed: int | None = None, protocol: bool = False
    ) -> dict[str, Any]:
        """Recorded walks: as `Gateware.recorded`, with `CachedWalks.counts` beside the tally."""
        values = {"file": str(file.absolute()), "indices": indices, "seed": seed}
        told = self.perform("recorded", values, protocol=protocol)
        return {**told["tally"], **{name: count for name, count in told.items() if name != "tally"}}


def gateware_named(
    design: str, walker: WalkerConfig, simulator: str | None = None, *, covered: bool = False
) -> Gateware:
    """The gateware of a name, with this walker, built: "mmu-uncached", or one of `presets.CACHING`.

    With `covered` it tells its points, as `gateware.library_of`.

    Raises
    ------
    ToolError
        It cannot be built, or not for this simulator.
    """
    if design not in CACHING:
        return gateware(simulator, MmuConfig(walker), covered=covered)
    if simulator not in (None, *COMPILED):
        raise ToolError(
            f"{design} runs by compiled code, on Verilator or CXXRTL only, not on {simulator}: leave out --simulator"
        )
    return CachingLibrary.make(replace(CACHING[design], walker=walker), simulator or "verilator", covered=covered)
