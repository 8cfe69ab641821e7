"""docs/examples/litex: the bridge in a LiteX SoC, simulated at its UARTBone with the example's own program."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.description import DesignDescription, PortDescription
from ptewalk.rtl.registers.map import ID

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "docs" / "examples" / "litex"
PAGE = (HERE.parents[1] / "docs" / "bridge.md").read_text()
PROGRAMS = Path(sys.executable).parent
INPUTS = {"clk": 1, "rst": 1, "serial_sink_data": 8, "serial_sink_valid": 1, "serial_source_ready": 1}
OUTPUTS = {"serial_source_data": 8, "serial_source_valid": 1, "serial_sink_ready": 1}
PORTS = [PortDescription(name, "input", width) for name, width in INPUTS.items()]
PORTS += [PortDescription(name, "output", width) for name, width in OUTPUTS.items()]
SOC = DesignDescription("soc", "soc", {}, tuple(PORTS), (), {})
"""What cocotb sees of it."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the two commands of docs/bridge.md leave the SoC."""
    folder = tmp_path_factory.mktemp("litex")
    (folder / "docs").symlink_to(EXAMPLE.parents[1])
    section = PAGE.partition("## In a LiteX SoC")[2].partition("\n## ")[0]
    *commands, test = re.findall(r"^    \.venv/bin/(.*)$", section, re.M)
    assert [command.split()[0] for command in commands] == ["ptewalk", "python"]
    assert test == "pytest tests/examples/test_litex.py", "which is this"
    for command in commands:
        program, *arguments = command.split()
        subprocess.run([PROGRAMS / program, *arguments], cwd=folder, check=True, capture_output=True)
    return folder / "results" / "litex"


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["icarus", "verilator"])
def test_the_soc_marks_what_its_host_stores(made: Path, simulator: str) -> None:
    """Those pages are dirty that were stored to, before the clear and after it; what is read-only is refused."""
    text = "".join((made / name).read_text() for name in ("soc.v", "ptewalk_bridge.v"))
    model = build(select(simulator), text, "soc", design=SOC)
    values = {"program": str(EXAMPLE / "host.py")}
    result = run_test(model, "tb_litex", values=values, module_path=HERE, timeout=200)
    assert result.message == ""
    told = result.values
    assert (told["before"], told["after"]) == ([0, 1, 5], [2, 5])
    assert told["words"] == [0x100, 0x101, 0x102, 0, 0, 0x105, 0, 0]
    assert told["fault"] == [0x4000_7000, 7, True]
    assert told["by litex"] == [ID, 0x1234_5678]
    assert told["bytes"] > 3000


@pytest.mark.thorough
def test_what_is_refused(tmp_path: Path) -> None:
    """A line each, and nothing is written."""
    (tmp_path / "bridge.v").write_text("module ptewalk_bridge; endmodule\n")
    for arguments, line in (
        (["bridge.v"], "usage: soc.py BRIDGE.v FOLDER\n"),
        (["b.v", "."], f"{tmp_path}/b.v is not there: write it with ptewalk export --name ptewalk_bridge\n"),
        (["bridge.v", "made"], "made is no folder: make it first\n"),
    ):
        command = [sys.executable, EXAMPLE / "soc.py", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (1, line)
    assert [path.name for path in tmp_path.iterdir()] == ["bridge.v"]
