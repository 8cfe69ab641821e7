"""Gateware built and ready to be run: in a simulator's process by cocotb, or in this process as a library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from amaranth._toolchain.yosys import YosysError

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.headers import lane_files
from ptewalk.cosim.bench.lane import VerilatorLane
from ptewalk.cosim.bench.points import with_points
from ptewalk.cosim.checks.performances import PERFORMANCES
from ptewalk.cosim.runs.plans import walks_plan
from ptewalk.cosim.simulate.build import BuildDir, build, build_library
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.simulate.run import run_test
from ptewalk.model import x86
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.export import Config, describe, export_covered, export_rtlil, export_verilog
from ptewalk.rtl.mmu import MmuConfig

__all__ = [
    "BATCH",
    "CYCLE_TARGETS",
    "LATENCIES",
    "BuiltWalker",
    "Gateware",
    "WalkerLibrary",
    "gateware",
    "library_of",
    "verilog_of",
]

LATENCIES = (1, 4, 16, 40)
"""Memory latencies, in cycles, at which cycles are measured."""
CYCLE_TARGETS = {"walk4": (4, 2), "walk5": (5, 2)}
"""Row to (a, b) of its target, a * L + b cycles."""
SOFTWARE_CYCLES = 1000
"""What a page fault costs in the operating system, in cycles, where nothing else is said: an assumption."""
BATCH = 2000
"""Random walks in a chunk at the batch level."""
_MODULE = "ptewalk.cosim.runs.inside.tb_lane"


def verilog_of(config: Config, *, flat: bool = False, name: str | None = None) -> str:
    """As `export_verilog`; `ToolError` when Yosys cannot run."""
    with _yosys_may_fail():
        return export_verilog(config, flat=flat, name=name)


@contextmanager
def _yosys_may_fail() -> Iterator[None]:
    """`ToolError` when Yosys cannot run."""
    try:
        yield
    except YosysError as error:
        raise ToolError(
            f"Yosys cannot run: {str(error).strip().splitlines()[-1].strip()}; "
            "its cache needs a home that can be written, or name one with YOWASP_CACHE_DIR"
        ) from error


def library_of(
    config: Config,
    files: Callable[[DesignDescription], Mapping[str, str]],
    simulator: str = "verilator",
    *,
    covered: bool = False,
) -> BuildDir:
    """A model of `config` with a compiled lane, as a library.

    Parameters
    ----------
    config : Config
    files : callable
        Name to text of the lane's files for a design, such as `bench.headers.lane_files`.
    simulator : str
        "verilator" or "cxxrtl".
    covered : bool
        True: it tells `bench.points.SeenPoints` which statements of the gateware were in force, and which bits
        toggled; on Verilator alone.

    Raises
    ------
    ToolError
        The simulator was not found, makes no libraries, or cannot build it.
    """
    chosen = select(simulator)
    design = describe(config)
    if covered:
        if chosen.name != "verilator":
            raise ToolError(f"lines are counted on Verilator, not on {chosen.name}: leave out the simulator")
        with _yosys_may_fail():
            made = export_covered(config)
        return build_library(chosen, made.verilog, design, with_points(files(design), made))
    source = export_rtlil(config) if chosen.name == "cxxrtl" else verilog_of(config)
    return build_library(chosen, source, design, files(design))


@dataclass(frozen=True)
class Gateware:
    """A walker, or an MMU, of one configuration, built for one simulator.

    Attributes
    ----------
    config : WalkerConfig or MmuConfig
    model : BuildDir
    """

    config: Config
    model: BuildDir

    in_process: ClassVar[bool] = False
    """True: it runs in this process."""
    needs_engine: ClassVar[bool] = True
    """True: a table engine is beside it in a replay; False: it does itself what that would."""

    @property
    def has_engine(self) -> bool:
        """It has a table engine itself."""
        return False

    @property
    def design(self) -> DesignDescription:
        """What was built."""
        assert self.model.design is not None
        return self.model.design

    @property
    def simulator(self) -> str:
        """The simulator's name and version."""
        return f"{self.model.simulator.name} {self.model.simulator.version_text}"

    def perform(self, name: str, values: dict[str, Any], *, protocol: bool = False) -> dict[str, Any]:
        """What the performance of this name gives; `protocol`: at the protocol level. `ToolError` when it fails."""
        raise NotImplementedError

    def recorded(
        self, file: Path, indices: list[int] | None = None, *, seed: int | None = None, protocol: bool = False
    ) -> dict[str, Any]:
        """Recorded walks of `file` (those of `indices`): what `WalkTally.as_json` gives, with `events` and `traced`.

        With `seed` each walk has latencies, stalls and drains of its own.
        """
        values = {"file": str(file.absolute()), "indices": indices, "seed": seed}
        told = self.perform("recorded", values, protocol=protocol)
        return {**told["tally"], "events": told["events"], "traced": told["traced"]}

    def randomised(
        self, walks: int, seed: int, repeat: str, *, protocol: bool = False, batch: int | None = None
    ) -> dict[str, Any]:
        """Random walks with a second writer against the golden model: counts, and `failure` in words, "" for none.

        With `batch` the one batch of this number, of `walks` walks.
        """
        size = 200 if protocol or not self.model.batch else BATCH
        plan = walks_plan(seed, walks, size)
        chunks = [[chunk.number, chunk.size] for chunk in plan] if batch is None else [[batch, walks]]
        name = self.model.simulator.name + option()
        values = {"seed": seed, "chunks": chunks, "repeat": repeat, "name": name}
        return self.perform("randomised", values, protocol=protocol)

    def timed(self, latencies: tuple[int, ...] = LATENCIES, *, software: int = SOFTWARE_CYCLES) -> list[dict[str, Any]]:
        """Rows of {name, latency, cycles, outcome, swaps, differs, target, total}; target is None where there is none.

        `total` is until the access may go on: after a page fault, `software` cycles of the operating system's (assumed,
        not measured) and a second walk are added to the measured ones. `differs` says what the golden model does not.
        """
        rows: list[dict[str, Any]] = self.perform("timed", {"latencies": list(latencies)})["rows"]
        for row in rows:
            factor, constant = CYCLE_TARGETS.get(row["name"], (None, 0))
            row["target"] = None if factor is None else factor * row["latency"] + constant
        again = {row["latency"]: row["cycles"] for row in rows if row["name"] == "walk4"}
        for row in rows:
            faulted = row["outcome"] != x86.Outcome.OK.name
            row["total"] = row["cycles"] + (software + again[row["latency"]] if faulted else 0)
        return rows


@dataclass(frozen=True)
class BuiltWalker(Gateware):
    """Gateware in a simulator's process, driven by cocotb."""

    @staticmethod
    def make(simulator: str | None = None, config: Config | None = None, *, waves: bool = False) -> BuiltWalker:
        """Build it (an MMU by default), or find it built; `ToolError` when that fails or there is no simulator."""
        config = config or MmuConfig()
        chosen = select(simulator)
        verilog = verilog_of(config, flat=chosen.name == "icarus" and not waves)
        design = describe(config)
        model = build(chosen, verilog, design.top, design=design, lane=lane_files(design), waves=waves)
        return BuiltWalker(config, model)

    def perform(
        self, name: str, values: dict[str, Any], *, protocol: bool = False, folder: Path | None = None
    ) -> dict[str, Any]:
        """As `Gateware.perform`, in a process of its own.

        `folder`: where the run's files stay, waves among them; `waves` of the result is their file.
        """
        job = {"performance": name, "values": values, "protocol": protocol}
        waves = folder is not None
        result = run_test(
            self.model, _MODULE, testcase="performed", values=job, timeout=None, folder=folder, waves=waves
        )
        if not result.passed:
            raise ToolError(f"{self.simulator}: {result.message} (log: {result.log})")
        return result.values | ({"waves": str(result.waves)} if waves else {})


@dataclass(frozen=True)
class WalkerLibrary(Gateware):
    """Gateware in this process: a model and the compiled lane as a library."""

    in_process: ClassVar[bool] = True
    _lane: list[VerilatorLane] = field(default_factory=list, compare=False)

    @staticmethod
    def make(config: Config | None = None, simulator: str = "verilator", *, covered: bool = False) -> WalkerLibrary:
        """Build it (an MMU by default), or find it built; as `library_of`."""
        config = config or MmuConfig()
        return WalkerLibrary(config, library_of(config, lane_files, simulator, covered=covered))

    @property
    def lane(self) -> VerilatorLane:
        """The model; opened when it is first asked for."""
        if not self._lane:
            self._lane.append(VerilatorLane(self.model.library, self.design))
        return self._lane[0]

    def perform(self, name: str, values: dict[str, Any], *, protocol: bool = False) -> dict[str, Any]:
        """As `Gateware.perform`, here and now."""
        if protocol:
            raise ValueError("a library has no protocol level")
        return PERFORMANCES[name](values, self.lane, self.design)


def gateware(simulator: str | None = None, config: Config | None = None, *, covered: bool = False) -> Gateware:
    """What runs most in least time: a library where the simulator can make one, else a simulator's process.

    With `covered` a library that tells its points, as `library_of`.
    """
    chosen = select(simulator)
    if covered or chosen.can_library:
        return WalkerLibrary.make(config, chosen.name, covered=covered)
    return BuiltWalker.make(simulator, config)
