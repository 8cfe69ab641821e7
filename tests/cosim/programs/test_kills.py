"""The table of workloads, and runs that are killed at any moment and go on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.programs.kills import kill_and_restore
from ptewalk.cosim.programs.run import Settings
from ptewalk.cosim.programs.table import tracking_cycles
from ptewalk.cosim.programs.user_memory import ProgramMmu
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.cosim.programs.workloads import WORKLOADS, prepare
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES

Command = Callable[..., tuple[int, str, str]]


def settings(name: str, track: str = "native") -> Settings:
    return Settings(PROFILES["linux-6.1"], Track[track.upper()], seed=1, epoch=WORKLOADS[name].small)


def argv(name: str, tmp_path: Path) -> list[str]:
    if WORKLOADS[name].missing():
        pytest.skip(f"{WORKLOADS[name].program} is not installed")
    prepare(tmp_path, small=True)
    return WORKLOADS[name].argv(tmp_path, small=True)


def test_what_tracking_cost() -> None:
    """A fault is two walks of four levels and the operating system; a mark is a swap."""
    rows = [{"faults": 100, "marks": 0}, {"faults": 40, "marks": 60}]
    told = [tracking_cycles(row, 40, latency=10, trap=1000) for row in rows]
    assert told == [60 * (2 * 45 + 1000), 60 * 11]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "track"), [("collector", "off"), ("join", "native"), ("pipeline", "fault")])
def test_killed_and_restored(tmp_path: Path, name: str, track: str) -> None:
    """The same output, status, epochs and memory, wherever it was killed."""
    command = argv(name, tmp_path)
    killed = kill_and_restore(settings(name, track), command, ModelWalker, 3, "test 1")
    assert killed.problems == [] and killed.kills == 3 and killed.compared + killed.from_the_start == 3
    assert killed.compared >= 2


@pytest.mark.slow
def test_a_save_is_hit_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing is left of the killed runs."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(Path(tempfile.gettempdir()).glob("ptewalk-*"))
    killed = kill_and_restore(settings("collector"), argv("collector", tmp_path), ModelWalker, 2, "save", save_every=1)
    assert killed.problems == [] and killed.inside_a_save == 2
    assert set(Path(tempfile.gettempdir()).glob("ptewalk-*")) <= before


@pytest.mark.slow
def test_without_the_flush_a_killed_run_ends_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProgramMmu, "invalidate", lambda self, linear=None, pcid=0: None)
    killed = kill_and_restore(settings("stencil"), argv("stencil", tmp_path), ModelWalker, 3, "flush", save_every=1)
    assert killed.compared == len(killed.problems) == 2


@pytest.mark.slow
def test_the_command(tmp_path: Path, ptewalk: Command) -> None:
    if WORKLOADS["stencil"].missing():
        pytest.skip("gcc is not installed")
    table = tmp_path / "table.csv"
    asked = ("workloads", "--small", "--only", "stencil", "--profile", "linux-6.12", "--backend", "model", "--json")
    code, printed, errors = ptewalk(*asked, "--csv", str(table))
    assert code == 0, errors
    told: dict[str, Any] = json.loads(printed)
    off, fault, native = told["workloads"]
    assert [one["track"] for one in (off, fault, native)] == ["off", "fault", "native"] and told["wrong"] == []
    assert {one["output"] for one in told["workloads"]} == {"the host's"} and off["epochs"] == 60
    assert off["instructions"] == native["instructions"] > 10_000_000
    assert off["tracking_cycles"] > 1842 * (off["faults"] - native["faults"]) > 0
    assert off["bytes_to_send"] == fault["bytes_to_send"] == native["bytes_to_send"] >= native["changed_bytes"] > 0
    assert table.read_text().count("\n") == 4
    code, _, errors = ptewalk("workloads", "--only", "tetris")
    assert code == 2 and "no workload 'tetris': there are sort, awk" in errors


@pytest.mark.slow
def test_a_gateware_that_forgets_a_mark_is_exit_code_1(ptewalk: Command) -> None:
    if WORKLOADS["stencil"].missing():
        pytest.skip("gcc is not installed")
    asked = ("workloads", "--small", "--only", "stencil", "--profile", "linux-6.1", "--track", "native", "--json")
    code, printed, errors = ptewalk(*asked, "--mutant", "unmarked-write-granted")
    assert code == 1, errors
    assert "stores lost" in json.loads(printed)["wrong"][0]
