"""The command after `pip install .` without extras: the model's commands work, the others name what they need."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from ptewalk.cosim.cli.extras import _BROUGHT, missing_extra
from ptewalk.cosim.cli.main import commands
from ptewalk.cosim.formats import samples

ROOT = Path(__file__).resolve().parents[3]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
BLOCKED = (*sorted(_BROUGHT), "numba", "z3", "yowasp_runtime", "wasmtime")
PROGRAM = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from ptewalk.cosim.cli.main import main
main()
"""
SELFTEST = str(ROOT / "tests" / "data" / "selftest-soft-dirty.jsonl")
WALKS = str(samples.WALKS)


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command with nothing that an extra brings."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "arguments",
    [
        ["walks", "--limit", "300", WALKS],
        ["replay", SELFTEST, "--profile", "linux-6.1"],
        ["replay", "--generate", "20", "--seed", "1", "--track", "native"],
        ["accuracy", "--generate", "4", "--seed", "1"],
        ["--version"],
        ["cosim", "--help"],
    ],
    ids=lambda arguments: " ".join(arguments[:2])[:20],
)
def test_the_model_needs_no_extra(arguments: list[str], tmp_path: Path) -> None:
    done = run(arguments, tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("arguments", "extra", "module"),
    [
        (["cosim", "--walks", "100"], "cosim", "amaranth"),
        (["cycles"], "cosim", "amaranth"),
        (["bench"], "cosim", "amaranth"),
        (["waves", "--seed", "1", "--batch", "0"], "cosim", "amaranth"),
        (["walks", "--backend", "gateware", WALKS], "cosim", "amaranth"),
        (["walks", "--backend", "unicorn", WALKS], "cosim", "unicorn"),
        (["replay", "--backend", "gateware", SELFTEST], "cosim", "amaranth"),
        (["procfs", "--backend", "gateware", "there", SELFTEST], "cosim", "amaranth"),
        (["export", "-o", "made/walker.v"], "rtl", "amaranth"),
        (["synth", "--config", "walker"], "synth", "amaranth"),
        (["prove"], "formal", "amaranth"),
        (["board", "ulx3s"], "board", "amaranth"),
    ],
    ids=lambda value: " ".join(value[:3])[:24] if isinstance(value, list) else value,
)
def test_what_needs_an_extra_says_which(arguments: list[str], extra: str, module: str, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    done = run(arguments, tmp_path)
    said = f"{arguments[0]} needs the extra {extra} ({module} is not installed)"
    assert done.stderr == f"ptewalk: {said}: in the checkout, pip install '.[{extra}]'\n"
    assert (done.returncode, done.stdout) == (2, "")
    assert [path.name for path in tmp_path.iterdir()] == ["there"], "nothing is written"


def test_every_command_has_an_extra_that_there_is() -> None:
    for name in commands.commands:
        text = missing_extra(name, "amaranth.hdl")
        assert text is not None and text.split("'.[")[1].rstrip("]'") in EXTRAS
    assert missing_extra("cosim", "no_such_module") is None and missing_extra("cosim", None) is None


def test_another_module_that_is_missing_is_a_defect(tmp_path: Path) -> None:
    program = PROGRAM.replace("main()\n", "sys.modules['ptewalk.cosim.checks.walks'] = None\nmain()\n")
    command = [sys.executable, "-c", program, "walks", WALKS]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 3 and "Traceback" in done.stderr
