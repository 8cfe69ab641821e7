"""docs/examples/bridge, as README has an integrator run it: exported, built and run by FuseSoC, without Amaranth."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from ptewalk.cosim.simulate.find import compilers, select

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "bridge"
PROGRAMS = Path(sys.executable).parent


def commands() -> dict[str, list[str]]:
    """The two commands of README's section, by program."""
    section = (ROOT / "README.md").read_text().partition("## In a design of your own")[2].partition("\n## ")[0]
    lines = re.findall(r"^    \.venv/bin/(.*)$", section, re.M)
    return {line.split()[0]: shlex.split(line)[1:] for line in lines}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README's `ptewalk export` leaves behind, with the example where README's paths lead."""
    folder = tmp_path_factory.mktemp("integrator")
    (folder / "docs").symlink_to(ROOT / "docs")
    subprocess.run([PROGRAMS / "ptewalk", *commands()["ptewalk"]], cwd=folder, check=True, stdout=subprocess.PIPE)
    return folder


def simulated(folder: Path, tool: str) -> str:
    """What README's `fusesoc run` prints, with a simulator."""
    *arguments, name = commands()["fusesoc"]
    done = subprocess.run(
        [PROGRAMS / "fusesoc", *arguments, "--tool", tool, name],
        cwd=folder,
        env={**os.environ, "XDG_CONFIG_HOME": str(folder), **(by_package() if tool == "verilator" else {})},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def by_package() -> dict[str, str]:
    """The environment that docs/bridge.md names for Verilator of the Python package; none where another is used."""
    root = select("verilator").root
    if root is None:
        return {}
    section = (ROOT / "docs" / "bridge.md").read_text().partition("## In Verilator")[2].partition("\n## ")[0]
    found = re.findall(r'export MAKEFLAGS="(.*)"$', section, re.M)
    assert len(found) == 1
    # The optimisation is the test's: it is the compiler's time that counts here.
    quick = "OPT_FAST=-O0 OPT_SLOW=-O0 OPT_GLOBAL=-O0"
    ccache = " OBJCACHE=ccache" if compilers()["ccache"] else ""
    return {"VERILATOR_ROOT": str(root), "MAKEFLAGS": f"{found[0]} {quick}{ccache}"}


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["icarus", "verilator"])
def test_the_example_passes(folder: Path, tool: str) -> None:
    printed = simulated(folder, tool)
    assert re.findall(r"^(PASSED|FAILED.*)$", printed, re.M) == ["PASSED"], printed


@pytest.mark.slow
def test_the_example_can_fail(folder: Path, tmp_path: Path) -> None:
    """Under a context that tracks nothing what is missing is the mark."""
    bench = (EXAMPLE / "example_tb.sv").read_text().replace("write_register(TRACK, 2)", "write_register(TRACK, 0)")
    assert bench.count("write_register(TRACK, 0)") == 1
    (tmp_path / "bench.sv").write_text(bench)
    made = folder / "results" / "bridge"
    sources = [EXAMPLE / "axi_ram.sv", "bench.sv", made / "ptewalk_bridge.v"]
    build = ["iverilog", "-g2012", "-I", str(made), "-s", "example_tb", "-o", "bench", *map(str, sources)]
    subprocess.run(build, cwd=tmp_path, check=True)
    printed = subprocess.run(["vvp", "-n", "bench"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "the entry: 0000000000008067, not 0000000000008867\n" in printed and "\nFAILED: " in printed
