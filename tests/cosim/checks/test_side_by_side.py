"""`ptewalk kernels`: several kernels side by side, and the document that quotes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks import side_by_side
from ptewalk.cosim.cli.kernels import kernels
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.oracles.linux.image import GuestKernel
from ptewalk.cosim.oracles.linux.recorder import Recording
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.format import Scenario

ROOT = Path(__file__).resolve().parents[3]
FLIPS = ROOT / "tests" / "data" / "flips-linux-7.3.jsonl.gz"
CHANGES = ROOT / "tests" / "data" / "changes.jsonl"


def rows(name: str, *profiles: str) -> list[dict[str, object]]:
    """The rows of one scenario of the file."""
    [scenario] = [scenario for scenario in load([CHANGES]) if scenario.name == name]
    return side_by_side.compare(
        scenario, {profile: side_by_side.on_model(scenario, PROFILES[profile]) for profile in profiles}
    )


def test_rows_name_the_pages_that_differ() -> None:
    found = rows("change_mprotect_batch", "linux-6.12", "linux-7.3")
    assert [row["differs"] for row in found] == [False] * 6 + [True]
    assert found[-1]["pages"] == [[0, 0, 400, {"linux-6.12": "PX", "linux-7.3": "PXD"}]]
    assert all(not row["differs"] for row in rows("change_mprotect_batch", "linux-7.2", "linux-7.3"))


def test_a_verb_that_a_kernel_has_not() -> None:
    found = rows("change_scan_guard", "linux-6.1", "linux-6.12", "linux-7.3")
    assert found[-1]["answers"] == {"linux-6.1": "not known", "linux-6.12": "EINVAL", "linux-7.3": "0 []"}


@pytest.mark.thorough
def test_the_document_quotes_what_is_printed() -> None:
    scenarios = load([CHANGES])
    printed = side_by_side.changes(scenarios, [PROFILES[name] for name in side_by_side.KERNELS])
    text = (ROOT / "docs" / "kernels.md").read_text()
    assert printed in re.sub(r" \(live [0-9.]+\)(?= \|)", "", text).replace(side_by_side.SAME, "")
    assert printed.count("\n") == len(scenarios) + 2


def test_the_document_says_of_every_cell_that_the_live_kernel_agreed() -> None:
    table = [line.strip("| ").split(" | ") for line in (ROOT / "docs" / "kernels.md").read_text().splitlines()]
    head, *cells = [row for row in table if len(row) == len(side_by_side.KERNELS) + 2]
    assert [re.sub(r"(?<=live )[0-9.]+", "N", name) for name in head[2:6]] == [
        f"{name} (live N)" for name in side_by_side.KERNELS[1:]
    ]
    assert len(cells) == len(load([CHANGES]))
    asked = [cell for row in cells for cell in row[2:6] if cell != "-"]
    assert len(asked) > 80 and all(cell.endswith(side_by_side.SAME) for cell in asked)


def answers(monkeypatch: pytest.MonkeyPatch, version: str, **changed: object) -> list[Scenario]:
    """A live kernel that answers as it did when it was recorded, but for fields of the last step."""
    [scenario] = [one for one in load([FLIPS]) if one.name == "guard_fork_moved"]
    last = scenario.steps[-1]
    steps = [*scenario.steps[:-1], replace(last, recorded={**(last.recorded or {}), **changed})]
    monkeypatch.setattr(side_by_side, "find_kernel", lambda name: GuestKernel(Path("vmlinuz"), version, version, None))
    done = Recording(version, failures=[("x", "died")])
    monkeypatch.setattr(side_by_side, "ask", lambda *a, **o: ([replace(scenario, steps=steps)], done))
    return [scenario]


def test_a_live_kernel_stands_beside_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    scenarios = answers(monkeypatch, "7.3.4")
    trial = side_by_side.try_live(scenarios, "7.3", None)
    assert (trial.profile, trial.version) == ("linux-7.3", "7.3.4")
    assert trial.told == {"guard_fork_moved": side_by_side.SAME, "x": " (**no answer: died**)"}
    head, _, row = side_by_side.changes(scenarios, [PROFILES["linux-7.3"]], [trial]).splitlines()
    assert "| linux-7.3 (live 7.3.4) |" in head and "| 8 reported (=) |" in row


def test_a_live_kernel_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = side_by_side.try_live(answers(monkeypatch, "7.3.4", ret=5), "7.3", None)
    assert trial.told["guard_fork_moved"].startswith(" (**live: guard_fork_moved step 5: ret")
    arguments = [str(FLIPS), "--name", "guard_fork_moved", "--changes", "--kernel", "7.3"]
    done = CliRunner().invoke(kernels, arguments, standalone_mode=False)
    assert done.return_value == 1 and "live: guard_fork_moved step 5" in done.output


def test_a_kernel_that_no_profile_describes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolError, match="no profile describes Linux 5.10.1"):
        side_by_side.try_live(answers(monkeypatch, "5.10.1"), "FILE", None)


def test_the_command() -> None:
    done = CliRunner().invoke(kernels, [str(CHANGES), "--name", "change_guard", "--json"], standalone_mode=False)
    assert done.return_value == 0
    [told] = json.loads(done.output)["scenarios"]
    assert told["kernels"] == list(side_by_side.KERNELS)
    assert told["steps"][2]["answers"] == dict(zip(told["kernels"], ["EINVAL"] * 3 + ["ok"] * 2, strict=True))
    done = CliRunner().invoke(kernels, [str(CHANGES), "--name", "change_guard"], standalone_mode=False)
    assert "SGD" in done.output and "2!" in done.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--name", "none"], "no scenario of that name: none"),
        (["--changes", "--json"], "--changes prints Markdown: leave out --json"),
        (["--profile", "linux-9"], "no profile 'linux-9'"),
    ],
)
def test_bad_use(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(kernels, [str(CHANGES), *arguments], standalone_mode=False)
    assert isinstance(done.exception, ToolError) and text in str(done.exception)
