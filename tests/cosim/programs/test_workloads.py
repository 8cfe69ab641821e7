"""The workloads that come with this: the host's output, at least 50 epochs, and no store lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs import workloads
from ptewalk.cosim.programs.user_memory import ProgramMmu
from ptewalk.cosim.programs.workloads import OWN, WORKLOADS, build_program, prepare

Run = Callable[..., Any]
pytestmark = pytest.mark.slow
LATER = ("linux-6.12", "linux-7.3")
"""One of them by turns; `ptewalk workloads` runs each program under all three."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What small runs need."""
    path = tmp_path_factory.mktemp("workloads")
    prepare(path, small=True)
    return path


def argv(name: str, folder: Path) -> list[str]:
    workload = WORKLOADS[name]
    if workload.missing():
        pytest.skip(f"{workload.program} is not installed")
    return workload.argv(folder, small=True)


@pytest.mark.parametrize(
    ("name", "profile"),
    [pair for place, name in enumerate(WORKLOADS) for pair in ((name, "linux-6.1"), (name, LATER[place % 2]))],
)
def test_no_store_is_lost(name: str, profile: str, folder: Path, run: Run, of_the_host: Callable[..., bytes]) -> None:
    command = argv(name, folder)
    ended = run(command, profile=profile, epoch=WORKLOADS[name].small)
    assert ended.output == of_the_host(command) and ended.status == 0 and not ended.errors
    epochs = ended.run.epochs.as_json()
    assert epochs["count"] >= 50 and epochs["lost"] == 0 and epochs["elsewhere"] == 0
    assert epochs["reported"] >= epochs["changed"] > 50


@pytest.mark.parametrize(("name", "profile"), list(zip(OWN, ("linux-6.1", *LATER), strict=True)))
def test_own_programs_on_the_gateware(name: str, profile: str, folder: Path, run: Run) -> None:
    """In each way of tracking, with the same pages reported; without tracking it takes more faults."""
    reported, faults = set(), {}
    for track in ("off", "fault", "native"):
        ended = run(argv(name, folder), backend="gateware", profile=profile, track=track, epoch=WORKLOADS[name].small)
        epochs = ended.run.epochs.as_json()
        assert ended.status == 0 and epochs["count"] >= 50 and epochs["lost"] == 0
        reported.add((epochs["reported"], epochs["changed"], ended.output))
        faults[track] = ended.figures["faults"]
    assert len(reported) == 1
    assert faults["off"] > 2 * faults["native"] == 2 * faults["fault"]


def test_the_collector_looks_only_where_something_was_stored(folder: Path, run: Run) -> None:
    ended = run([*argv("collector", folder), "tell"])
    looked = [int(line.split()[2]) for line in ended.output.decode().splitlines() if line.startswith("round")]
    assert len(looked) == 60 and looked[::10] == [0] * 6
    assert all(0 < pages < 32 for place, pages in enumerate(looked) if place % 10)


def test_the_collector_notices_a_store_that_is_not_reported(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProgramMmu, "invalidate", lambda self, linear=None, pcid=0: None)
    ended = run([*argv("collector", folder), "trust"])
    assert ended.status == 1 << 8 and ended.output.endswith(b": a live object would have been freed\n")


def test_what_cannot_be_built_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    bad = tmp_path / "bad.c"
    bad.write_text("int main(void) { return x; }\n")
    with pytest.raises(ToolError, match=r"^gcc cannot build bad\.c: "):
        build_program(bad, tmp_path / "bad")
    monkeypatch.setattr(workloads.shutil, "which", lambda name, path=None: None)
    with pytest.raises(ToolError, match="gcc is not installed"):
        build_program(bad, tmp_path / "bad")
    assert WORKLOADS["join"].missing()
