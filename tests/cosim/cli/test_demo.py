"""`ptewalk demo`: what it says, what it draws, and that it can say no."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ptewalk.cosim.cli.demo import COLUMNS, ROWS, picture
from ptewalk.cosim.programs.demo import Frame

README = Path(__file__).resolve().parents[3] / "README.md"
SHELL = ("/bin/sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; done")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [str(Path(sys.executable).with_name("ptewalk")), "demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def frame(*pages: int) -> Frame:
    return Frame(frozenset((1, page) for page in pages), 0, 0, 0)


def test_picture() -> None:
    """Lit when written, then fading, then dark; a new line after `COLUMNS`."""
    cells = [(1, page) for page in range(COLUMNS + 1)]
    text = picture(cells, [frame(0, 1), frame(1)])
    assert text.plain == "■■" + "·" * (COLUMNS - 2) + "\n·"
    styles = {text.plain[span.start]: span.style for span in text.spans}
    assert len({span.style for span in text.spans}) == 3 and len(styles) == 2
    assert picture(cells, [frame(0)] + [frame()] * 5).plain.count("■") == 0
    assert picture([], []).plain == ""


def test_a_cell_stands_for_several_pages() -> None:
    cells = [(1, page) for page in range(2 * COLUMNS * ROWS)]
    text = picture(cells, [frame(1)])
    assert text.plain.splitlines() == ["■" + "·" * (COLUMNS - 1), *["·" * COLUMNS] * (ROWS - 1)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--epoch", "marker"], "--epoch is for a PROGRAM of your own: name one"),
        (["--epoch", "days:3", "--", "/bin/true"], "no epoch 'days:3': give syscalls:N, instructions:N or marker"),
        (["--profile", "linux-2.4"], "no profile 'linux-2.4'"),
    ],
    ids=["epoch", "no such epoch", "profile"],
)
def test_bad_use(arguments: list[str], said: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"ptewalk: {said}") and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_program_of_ones_own() -> None:
    """Each fault that only told of a write is a mark of the walker."""
    done = run("--json", "--", *SHELL)
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)
    assert result["same"] == result["epochs"] >= 3 and result["lost"] == 0 and result["output"]
    kernel, gateware = result["kernel"], result["gateware"]
    assert kernel["marks"] == 0 and gateware["marks"] > 10
    assert kernel["faults"] - gateware["faults"] == gateware["marks"]
    assert kernel["tracking_cycles"] > 10 * gateware["tracking_cycles"]


@pytest.mark.slow
def test_it_can_say_no() -> None:
    """Gateware that grants a store without a mark loses it."""
    done = run("--json", "--mutant", "unmarked-write-granted", "--", *SHELL)
    assert done.returncode == 1 and json.loads(done.stdout)["lost"] > 0


@pytest.mark.slow
def test_readme() -> None:
    """What README shows."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all(f"    {line}\n" in README.read_text() for line in lines[:3])
