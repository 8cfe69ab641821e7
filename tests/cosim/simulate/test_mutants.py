"""Every mutant is caught by its own check: by exit code 1 and not by falling over, a proof's by a counterexample."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ptewalk.cosim.formal.properties import harness_of
from ptewalk.cosim.formal.prove import missing_solver, steps_of
from ptewalk.cosim.formats.samples import KERNELS, WALKS
from ptewalk.cosim.simulate.find import detect
from ptewalk.cosim.simulate.mutants import load_mutants

MUTANTS = load_mutants()


COUNTS = {"rtl": 244, "model": 28}
"""Mutants by the folder that they change: one that is lost must be noticed."""


WHOLE = [name for name, mutant in MUTANTS.items() if mutant.check == ("prove", "mmu-answers")]
CHECKS = {" ".join(one.check): name for name, one in sorted(MUTANTS.items()) if one.check[0] != "prove"}
"""Each check but the proofs to a mutant that it catches."""


def run(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command `ptewalk` in a process of its own, in `folder`."""
    command = [str(Path(sys.executable).with_name("ptewalk")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900, cwd=folder)


def arguments_of(name: str, folder: Path) -> list[str]:
    """A mutant's check with its placeholders filled in."""
    places = {"WALKS": WALKS} | {profile.upper(): path for profile, path in KERNELS.items()}
    for kind in ("own", "contents"):
        places[f"{kind.upper()}-6.1"] = Path(__file__).parents[2] / "data" / f"{kind}-linux-6.1.jsonl.gz"
    arguments = [str(places.get(word, word)) for word in MUTANTS[name].check]
    if arguments[0] == "cosim":
        arguments += ["--output", str(folder / "result.json")]
        arguments += [] if "--seed" in arguments else ["--seed", "1"]
    return arguments


@pytest.mark.parametrize("name", MUTANTS)
def test_its_text_stands_once(name: str) -> None:
    mutant = MUTANTS[name]
    assert (Path(__file__).parents[3] / mutant.file).read_text("utf-8").count(mutant.text) == 1


def test_all_are_there() -> None:
    assert Counter(mutant.package for mutant in MUTANTS.values()) == COUNTS


@pytest.mark.slow
@pytest.mark.share(3)
@pytest.mark.parametrize(
    "name", [name for name, mutant in MUTANTS.items() if mutant.check[0] == "prove" and name not in WHOLE]
)
def test_refuted(name: str, tmp_path: Path) -> None:
    """A counterexample from the start, to an assertion of the property itself; its waves are kept."""
    harness = harness_of(MUTANTS[name].check[1])
    if steps_of(harness) < harness.quick_depth or (harness.bounded and missing_solver(MUTANTS[name].check[1])):
        pytest.skip("ABC was not found")
    refutes(name, tmp_path)


@pytest.mark.slow
@pytest.mark.share(3)
@pytest.mark.parametrize("name", WHOLE)
def test_refuted_in_a_whole_mmu(name: str, tmp_path: Path) -> None:
    """The same by ABC, where it is installed."""
    if missing := missing_solver("mmu-answers"):
        pytest.skip(missing)
    refutes(name, tmp_path)


def refutes(name: str, tmp_path: Path) -> None:
    done = run(*arguments_of(name, tmp_path), "--json", "--mutant", name, folder=tmp_path)
    assert done.returncode == 1, f"{MUTANTS[name].why}: not caught\n{done.stdout}{done.stderr}"
    (result,) = json.loads(done.stdout).values()
    assert result["result"] == "failed", result
    assert result["detail"].startswith("formal/") and "Assert(" in result["detail"]
    assert 0 <= result["step"] < result["searched"]
    assert len(result["values"]) > 10
    assert result["trace"].endswith(f"-{name}.vcd")
    assert (tmp_path / result["trace"]).read_text().startswith("$")


@pytest.mark.slow
@pytest.mark.share(4)
@pytest.mark.parametrize("name", [name for name, mutant in MUTANTS.items() if mutant.check[0] != "prove"])
def test_caught(name: str, tmp_path: Path) -> None:
    arguments = arguments_of(name, tmp_path)
    if "icarus" in arguments and "icarus" not in {simulator.name for simulator in detect()}:
        pytest.skip("Icarus Verilog was not found")
    done = run(*arguments, "--mutant", name)
    assert done.returncode == 1, f"{MUTANTS[name].why}: not caught\n{done.stdout}{done.stderr}"


@pytest.mark.slow
@pytest.mark.share(3)
@pytest.mark.parametrize("name", CHECKS.values())
def test_the_gateware_itself_passes_every_check(name: str, tmp_path: Path) -> None:
    """Exit code 1 means something: without a mutant each check, by the name of one that it catches, exits with 0.

    The proofs are in tests/formal/test_prove.py.
    """
    done = run(*arguments_of(name, tmp_path))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_unknown_mutant() -> None:
    done = run("prove", "--mutant", "no-such")
    assert done.returncode == 2
    assert done.stderr.startswith("ptewalk: no mutant 'no-such'; the nearest of the ")
    assert done.stderr.count("\n") == 1
