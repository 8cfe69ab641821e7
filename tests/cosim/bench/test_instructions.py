"""What the compiled lane costs in instructions, which repeat: beside a native main, and on a model of CXXRTL's."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.bench.headers import lane_files
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import _VERILATOR_FLAGS, _make_variables
from ptewalk.cosim.simulate.cxxrtl import compile_library
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.step import run_command
from ptewalk.rtl.export import describe, export_rtlil
from ptewalk.rtl.mmu import MmuConfig

pytestmark = pytest.mark.slow
MOST = 1.11
MOST_OF_CXXRTL = 0.8
"""Of the instructions of a cycle with Verilator's model."""


def counted(program: Path, how: str, requests: int) -> tuple[int, int]:
    """(instructions, clock cycles)."""
    out = program.with_name("callgrind.out")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", str(program), how, str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None
    return int(found[1]), int(done.stdout)


def per_cycle(program: Path, how: str) -> float:
    """Instructions of a clock cycle, the start left out."""
    few, many = (counted(program, how, requests) for requests in (500, 4500))
    assert many[1] > 20_000
    return (many[0] - few[0]) / (many[1] - few[1])


def test_the_lane_costs_little_beside_a_native_main(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind was not found: apt-get install valgrind")
    design = describe(MmuConfig())
    files = {**lane_files(design), "design.v": verilog_of(MmuConfig())}
    files["native.cpp"] = Path(__file__).with_name("native.cpp").read_text()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    simulator = select("verilator")
    flags = ["--cc", "--exe", "--build", *_VERILATOR_FLAGS, "--timescale", "1ns/1ps", "--prefix", "Vtop"]
    flags += ["--Mdir", str(tmp_path / "model"), "-o", "native", "--top-module", design.top]
    flags += ["-CFLAGS", "-DPTEWALK_LIBRARY"]
    sources = [str(tmp_path / name) for name in ("design.v", "lane.cpp", "native.cpp")]
    status = run_command(
        simulator,
        [str(simulator.program), *flags, *sources],
        folder=tmp_path,
        environment={"MAKEFLAGS": " ".join(_make_variables(simulator))},
        log=tmp_path / "log",
        timeout=600,
    )
    assert status == 0, (tmp_path / "log").read_text()
    rates = {how: per_cycle(tmp_path / "model" / "native", how) for how in ("plain", "lane")}
    rates["CXXRTL"] = per_cycle(by_cxxrtl(tmp_path), "lane")
    assert rates["lane"] <= MOST * rates["plain"], rates
    assert rates["CXXRTL"] <= MOST_OF_CXXRTL * rates["lane"], rates
    print(rates)


def by_cxxrtl(folder: Path) -> Path:
    """The same main and lane with a model of CXXRTL's, in one translation unit."""
    (folder / "design.il").write_text(export_rtlil(MmuConfig()))
    (folder / "lane.cpp").write_text((folder / "lane.cpp").read_text() + (folder / "native.cpp").read_text())
    program = folder / "cxxrtl" / "native"
    common: dict[str, Any] = {"folder": folder, "environment": {}, "log": folder / "log", "timeout": 600}
    status = compile_library(select("cxxrtl"), describe(MmuConfig()), folder, program, common, kind=())
    assert status == 0, (folder / "log").read_text()
    return program
