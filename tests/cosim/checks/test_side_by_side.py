"""`ptewalk kernels`: several kernels side by side, and the document that quotes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks import side_by_side
from ptewalk.cosim.cli.kernels import kernels
from ptewalk.cosim.formats.scenarios import load
from ptewalk.model.profiles import PROFILES

ROOT = Path(__file__).resolve().parents[3]
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


def test_the_document_quotes_what_is_printed() -> None:
    scenarios = load([CHANGES])
    printed = side_by_side.changes(scenarios, [PROFILES[name] for name in side_by_side.KERNELS])
    assert printed in (ROOT / "docs" / "kernels.md").read_text()
    assert printed.count("\n") == len(scenarios) + 2


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
        (["--changes", "--json"], "--changes is of the model's kernels"),
        (["--profile", "linux-9"], "no profile 'linux-9'"),
    ],
)
def test_bad_use(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(kernels, [str(CHANGES), *arguments], standalone_mode=False)
    assert isinstance(done.exception, ToolError) and text in str(done.exception)
