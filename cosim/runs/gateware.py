"""Runs of the gateware in a simulator: build what is missing, start it, and give back what it counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth._toolchain.yosys import YosysError

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.simulate.build import BuildDir, build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.simulate.run import run_test
from ptewalk.model import x86
from ptewalk.rtl.export import Config, export_verilog, top_name
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["CYCLE_TARGETS", "LATENCIES", "BuiltWalker", "verilog_of"]

LATENCIES = (1, 4, 16, 40)
"""Memory latencies, in cycles, at which cycles are measured."""
CYCLE_TARGETS = {"walk4": (4, 2), "walk5": (5, 2)}
"""Row to (a, b) of its target, a * L + b cycles."""
SOFTWARE_CYCLES = 1000
"""What a page fault costs in the operating system, in cycles, where nothing else is said: an assumption."""
_MODULE = "ptewalk.cosim.runs.inside.tb_walker"


def verilog_of(config: Config, *, flat: bool = False) -> str:
    """As `export_verilog`; `ToolError` when Yosys cannot run."""
    try:
        return export_verilog(config, flat=flat)
    except YosysError as error:
        raise ToolError(
            f"Yosys cannot run: {str(error).strip().splitlines()[-1].strip()}; "
            "its cache needs a home that can be written, or name one with YOWASP_CACHE_DIR"
        ) from error


@dataclass(frozen=True)
class BuiltWalker:
    """A walker, or an MMU, of one configuration, built for one simulator.

    Attributes
    ----------
    config : WalkerConfig or MmuConfig
    model : BuildDir
    """

    config: Config
    model: BuildDir

    @staticmethod
    def make(simulator: str | None = None, config: Config | None = None, *, waves: bool = False) -> BuiltWalker:
        """Build it (an MMU by default), or find it built; `ToolError` when that fails or there is no simulator."""
        config = config or MmuConfig()
        chosen = select(simulator)
        verilog = verilog_of(config, flat=chosen.name == "icarus" and not waves)
        return BuiltWalker(config, build(chosen, verilog, top_name(config), batch=True, waves=waves))

    @property
    def _walker(self) -> WalkerConfig:
        return self.config.walker if isinstance(self.config, MmuConfig) else self.config

    @property
    def simulator(self) -> str:
        """The simulator's name and version."""
        return f"{self.model.simulator.name} {self.model.simulator.version_text}"

    def recorded(self, file: Path, indices: list[int] | None = None, *, timeout: float = 3600.0) -> dict[str, Any]:
        """Recorded walks of `file` (those of `indices`): what `Tally.as_json` gives."""
        values = {"file": str(file.absolute()), "indices": indices, "physical_bits": self._walker.physical_bits}
        tally: dict[str, Any] = self.run(_MODULE, "recorded", values, timeout)["tally"]
        return tally

    def randomised(
        self,
        walks: int,
        seed: int,
        repeat: str,
        *,
        protocol_walks: int = 0,
        batch: int | None = None,
        folder: Path | None = None,
        timeout: float = 3600.0,
    ) -> dict[str, Any]:
        """Random walks with a second writer against the golden model: counts, and `failure` in words, "" for none.

        With `batch` the one batch of this number, of `walks` walks; with `folder`, where the model was made with waves,
        they are recorded there: `waves` is their file.
        """
        values = {
            "walks": walks,
            "protocol_walks": protocol_walks,
            "seed": seed,
            "batch": batch or 0,
            "whole_batches": batch is not None,
            "name": self.model.simulator.name + option(),
            "repeat": repeat,
            "physical_bits": self._walker.physical_bits,
            "levels": self._walker.levels,
            "gigabyte_pages": self._walker.gigabyte_pages,
        }
        return self.run(_MODULE, "randomised", values, timeout, folder=folder)

    def timed(self, latencies: tuple[int, ...] = LATENCIES, *, software: int = SOFTWARE_CYCLES) -> list[dict[str, Any]]:
        """Rows of {name, latency, cycles, outcome, swaps, target, total}; target is None where there is none.

        `total` is until the access may go on: after a page fault, `software` cycles of the operating system's (assumed,
        not measured) and a second walk are added to the measured ones.
        """
        rows: list[dict[str, Any]] = self.run(_MODULE, "timed", {"latencies": list(latencies)}, 600.0)["rows"]
        for row in rows:
            factor, constant = CYCLE_TARGETS.get(row["name"], (None, 0))
            row["target"] = None if factor is None else factor * row["latency"] + constant
        again = {row["latency"]: row["cycles"] for row in rows if row["name"] == "walk4"}
        for row in rows:
            faulted = row["outcome"] != x86.Outcome.OK.name
            row["total"] = row["cycles"] + (software + again[row["latency"]] if faulted else 0)
        return rows

    def run(
        self, module: str, test: str, values: dict[str, Any], timeout: float, *, folder: Path | None = None
    ) -> dict[str, Any]:
        """One cocotb test of `module`: what it published. Raises `ToolError` when it fails.

        `folder`: where the run's files stay, waves among them; `waves` of the result is their file.
        """
        waves = folder is not None
        result = run_test(self.model, module, testcase=test, values=values, timeout=timeout, folder=folder, waves=waves)
        if not result.passed:
            raise ToolError(f"{self.simulator}: {result.message} (log: {result.log})")
        return result.values | ({"waves": str(result.waves)} if waves else {})
