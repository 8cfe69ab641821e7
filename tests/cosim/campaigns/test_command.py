"""`ptewalk campaign`: each kind of work once, a defect that it finds, and the line that finds it again."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.campaigns.plan import read_plan

PROGRAM = Path(sys.executable).with_name("ptewalk")


def campaign(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), "campaign", *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["standard", "--part", "walks"], "--part NAME and --chunk NUMBER go together, and --size with them"),
        (["standard", "--size", "3"], "--part NAME and --chunk NUMBER go together, and --size with them"),
        (["standard", "--part", "walks", "--chunk", "0", "--share", "2"], "--part runs one chunk here: leave out"),
        (["standard", "--part", "walk", "--chunk", "0"], "standard has no part 'walk': choose of walks, "),
        (["standard", "--part", "walks", "--chunk", "0", "--size", "20001"], "a chunk of walks has 20000 cases at"),
        (["nosuch"], "nosuch: No such file or directory; name a plan file, or one of lines, nightly, standard"),
    ],
)
def test_bad_use(tmp_path: Path, words: list[str], line: str) -> None:
    done = campaign(tmp_path, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("ptewalk: ") and line in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_each_kind_of_work(tmp_path: Path) -> None:
    """A share of the plan `standard`, in two processes."""
    done = campaign(tmp_path, "standard", "--share", "100", "--jobs", "2", "--json")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    least = {"walks": 10_000, "accesses-mmu": 10_000, "accesses-8walkers": 2_000, "bus-64": 900}
    least |= {"scenarios-7.3-native": 30, "scenarios-6.1-fault": 30}
    assert [row["part"] for row in result["parts"]] == [part.name for part in read_plan("standard").parts]
    for row in result["parts"]:
        assert row["comparisons"] >= least[row["part"]] and not row["mismatches"], row
    assert result == json.loads((tmp_path / "results" / "campaign-standard" / "result.json").read_text())


@pytest.mark.slow
def test_a_defect_is_found_and_found_again(tmp_path: Path) -> None:
    few = ("--only", "accesses-mmu", "--share", "500", "--mutant", "upper-tag-not-compared")
    done = campaign(tmp_path, "standard", *few)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    found = next(line for line in lines if line.startswith("accesses-mmu, chunk 0: "))
    words = shlex.split(lines[lines.index(found) + 1].removeprefix("repeat: "))
    assert words[:2] == ["ptewalk", "campaign"] and words[-1] == "upper-tag-not-compared"
    assert int(words[words.index("--size") + 1]) <= 64
    again = campaign(tmp_path, *words[2:])
    assert again.returncode == 1 and found in again.stdout.splitlines()
    assert (tmp_path / "results" / "campaign-standard-upper-tag-not-compared" / "result.json").exists()
