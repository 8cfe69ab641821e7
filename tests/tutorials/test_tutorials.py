"""The tutorials: every command of every page is run, in order, in an empty folder, and prints what the page shows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.oracles.linux.guest import missing_tools
from ptewalk.cosim.oracles.linux.kernels import find_kernel

from .pages import Command, File, read, run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "tutorials"
START = "index.md"
TUTORIALS = sorted(path.name for path in FOLDER.glob("*.md") if path.name != START)
LIVE = ("--kernel",)
"""What a page has that asks a live kernel."""


def started(root: Path, programs: Path) -> dict[str, str]:
    """The environment that the start page leaves behind, of a checkout."""
    return {"PTEWALK": str(root), "PATH": f"{programs}:{os.environ['PATH']}"}


def test_every_tutorial_is_on_the_start_page() -> None:
    assert TUTORIALS == ["cocotb.md", "fpga.md", "kernels.md", "research.md"]
    text = (FOLDER / START).read_text()
    assert [name for name in TUTORIALS if f"]({name})" not in text] == []


@pytest.mark.parametrize("name", [START, *TUTORIALS])
def test_a_page_says_how_long_it_takes_and_what_it_needs(name: str) -> None:
    head = (FOLDER / name).read_text().split("\n\n")[1]
    assert head.startswith("*Takes* ") and " *Needs* " in head.replace("\n", " ")


@pytest.mark.parametrize("name", [START, *TUTORIALS])
def test_a_page_can_be_read(name: str) -> None:
    page = read((FOLDER / name).read_text())
    commands = [step for step in page if isinstance(step, Command)]
    assert commands and any(command.printed for command in commands)
    assert name == START or any(isinstance(step, File) for step in page)


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_is_as_it_says(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What takes long (synthesis) runs with `--whole`."""
    text = (FOLDER / name).read_text()
    if any(word in text for word in LIVE):
        if missing_tools():
            pytest.skip("; ".join(missing_tools()))
        try:
            find_kernel("6.12")
        except ToolError as error:
            pytest.skip(str(error))
    if any(word in text for word in ("iverilog", "icarus")) and shutil.which("iverilog") is None:
        pytest.skip("Icarus Verilog was not found")
    environment = started(ROOT, Path(sys.executable).parent)
    if told := run(read(text), tmp_path, environment, long=request.config.getoption("whole")):
        pytest.fail(told, pytrace=False)


@pytest.mark.slow
def test_the_start_is_as_it_says(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """In a fresh clone; with `--whole` alone, since it installs all that there is."""
    page = read((FOLDER / START).read_text())
    clone = tmp_path / "ptewalk"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(clone)], check=True)
    environment = started(clone, clone / ".venv" / "bin")
    if told := run(page, clone, environment, long=request.config.getoption("whole")):
        pytest.fail(told, pytrace=False)
