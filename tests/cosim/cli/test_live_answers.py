"""A live kernel compared with the model: what was answered is kept until the result is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.files import CACHE_VARIABLE
from ptewalk.cosim.checks import live
from ptewalk.cosim.cli import scenarios as cli
from ptewalk.cosim.formats.scenarios import Line, ScenarioRequest, as_request, load, request_lines, scenario_lines
from ptewalk.cosim.oracles.linux import machine as linux_vm
from ptewalk.cosim.oracles.linux import recorder
from ptewalk.cosim.oracles.linux.image import GuestKernel

from .program import Run

OWN = Path(__file__).parents[2] / "data" / "flips-linux-7.3.jsonl.gz"
KERNEL = GuestKernel(Path("vmlinuz"), "7.3.4", "7.3.4", None)
ANSWERED = load([OWN])[:5]
STEPS = sum(len(one.steps) for one in ANSWERED)
BARE = [line for one in ANSWERED for line in request_lines(as_request(one))]
"""The scenarios without what the kernel answered."""


class Recorded:
    """A machine that answers as the recording says."""

    asked: list[str]
    interrupted = ""

    def __init__(self, kernel: GuestKernel, **needs: Any) -> None:
        self.alive = True
        for name in ("two_nodes", "gigantic", "five_levels", "thp_anon"):
            setattr(self, name, needs[name])

    def __enter__(self) -> Recorded:
        return self

    def close(self) -> None:
        self.alive = False

    def run(self, request: ScenarioRequest) -> list[Line]:
        if request.name == self.interrupted:
            raise KeyboardInterrupt
        type(self).asked.append(request.name)
        return scenario_lines(next(one for one in ANSWERED if one.name == request.name))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Recorded]:
    class Vm(Recorded):
        asked: list[str] = []

    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(linux_vm, "LinuxVm", Vm)
    for module in (recorder, live):
        monkeypatch.setattr(module, "find_kernel", lambda name: KERNEL)
        monkeypatch.setattr(module, "require_tools", lambda: None)
    return Vm


def journals(folder: Path) -> list[Path]:
    return list((folder / "cache" / "answers").glob("*.journal"))


def test_an_interrupted_run_goes_on(run: Run, machine: type[Recorded], tmp_path: Path) -> None:
    names = [one.name for one in ANSWERED]
    Path("bare.jsonl").write_text("".join(json.dumps(line) + "\n" for line in BARE))
    command = ("replay", "bare.jsonl", "--backend", "linux", "--profile", "linux-7.3", "--json")
    machine.interrupted = names[3]
    code, out, err = run(*command)
    assert (code, out) == (130, "") and "interrupted; the same command goes on from there" in err
    assert machine.asked == names[:3] and len(journals(tmp_path)) == 1
    machine.interrupted = ""
    code, out, _ = run(*command)
    told = json.loads(out)
    assert code == 0 and machine.asked == names
    assert [told[name] for name in ("resumed", "scenarios", "agree", "differ")] == [3, 5, STEPS, 0]
    assert "journal" not in told and journals(tmp_path) == []


def test_ctrl_c_after_the_last_answer_loses_none(
    run: Run,
    machine: type[Recorded],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first difference is asked again in many pieces: the answers are kept until it is told."""
    lines = [line | ({"ret": 77} if line.get("i") == 0 else {}) for one in ANSWERED for line in scenario_lines(one)]
    Path("wrong.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cli, "_reduce", interrupted)
        code, _, _ = run("replay", "wrong.jsonl", "--backend", "linux", "--profile", "linux-7.3", "--json")
    assert code == 130 and len(machine.asked) == 5 and len(journals(tmp_path)) == 1
    monkeypatch.setattr(cli, "_reduce", lambda *arguments: None)
    code, out, _ = run("replay", "wrong.jsonl", "--backend", "linux", "--profile", "linux-7.3", "--json")
    assert code == 1 and len(machine.asked) == 5 and journals(tmp_path) == []
    assert (json.loads(out)["differ"], json.loads(out)["resumed"]) == (5, 5)


def test_other_scenarios_have_a_journal_of_their_own(machine: type[Recorded]) -> None:
    assert live.journal_of(ANSWERED, None) == live.journal_of(list(ANSWERED), None)
    assert live.journal_of(ANSWERED, None) != live.journal_of(ANSWERED[1:], None)
