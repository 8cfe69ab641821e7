"""A share of a test's parameters: each n-th, always the same; all with --whole; what was left out is counted."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")
TESTS = """
import pytest

@pytest.mark.share(3)
@pytest.mark.parametrize("number", range(7))
def test_shared(number):
    pass

def test_other():
    pass
"""


def run(folder: Path, *arguments: str) -> str:
    """What pytest prints of `TESTS`."""
    (folder / "conftest.py").write_text(CONFTEST.read_text("utf-8"))
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = share(n): each n-th\n")
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, timeout=100).stdout


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "kept", "left_out"),
    [
        ([], "036", 4),
        (["-n", "2"], "036", 4),
        (["--whole"], "0123456", 0),
        (["-n", "2", "--whole"], "0123456", 0),
        (["test_it.py::test_shared[4]"], "4", 0),
        (["-k", "4 or 5"], "4", 1),
    ],
)
def test_each_third(arguments: list[str], kept: str, left_out: int, tmp_path: Path) -> None:
    """Of those that are asked for, the first, and each third after it."""
    said = run(tmp_path, *arguments)
    passed = [line for line in said.splitlines() if "PASSED" in line]
    assert sorted(re.findall(r"test_shared\[(\d)\]", "\n".join(passed))) == list(kept)
    assert f"{len(passed)} passed" in said
    line = f"left out: {left_out} of test_it.py::test_shared: --whole runs them too"
    assert (line in said) is bool(left_out)
