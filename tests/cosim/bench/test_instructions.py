"""How much the compiled lane costs beside a native main on the same model, in instructions, which repeat."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from ptewalk.cosim.bench.headers import lane_files
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import _VERILATOR_FLAGS, _make_variables
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.step import run_command
from ptewalk.rtl.export import describe
from ptewalk.rtl.mmu import MmuConfig

pytestmark = pytest.mark.slow
MOST = 1.11


def counted(program: Path, how: str, requests: int) -> tuple[int, int]:
    """(instructions, clock cycles)."""
    out = program.with_name("callgrind.out")
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", str(program), how, str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None
    return int(found[1]), int(done.stdout)


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
    rates = {}
    for how in ("plain", "lane"):
        few, many = (counted(tmp_path / "model" / "native", how, requests) for requests in (500, 4500))
        rates[how] = (many[0] - few[0]) / (many[1] - few[1])
        assert many[1] > 20_000
    assert rates["lane"] <= MOST * rates["plain"], rates
    print(rates)
