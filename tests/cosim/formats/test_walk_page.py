"""docs/walk-format.md: its example is read, its keys are the reader's, its numbers are those of the enumerations."""

from __future__ import annotations

import json
import re
from enum import IntEnum
from pathlib import Path

import pytest

from ptewalk.cosim.checks.walks import check
from ptewalk.cosim.formats.walks import WalkCase, WalkFileError, read_walks, run_on_model, write_walks
from ptewalk.model import x86
from ptewalk.model.linux import Track

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "walk-format.md").read_text()
NUMBERS = {
    "Control bits": x86.Control,
    "Access": x86.Access,
    "Outcome": x86.Outcome,
    "Error code": x86.ErrorBit,
    "Track": Track,
}


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    found = re.search(r"((?:^\|.*\|\n)+)", PAGE.split(f" {heading}\n")[1], re.M)
    assert found is not None
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found[1].splitlines()[2:]]


@pytest.mark.parametrize("heading", NUMBERS)
def test_numbers(heading: str) -> None:
    kind: type[IntEnum] = NUMBERS[heading]
    assert [row[:2] for row in rows(heading)] == [[str(int(member)), f"`{member.name}`"] for member in kind]
    assert all(row[2] for row in rows(heading))


def test_the_example_is_read_and_right(tmp_path: Path) -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.S)
    path = tmp_path / "a.jsonl"
    path.write_text(text)
    (case,) = read_walks(path)
    assert check(case, *run_on_model(case)) is None


def test_every_key_is_in_the_page(tmp_path: Path) -> None:
    """What is written is told, and what the page calls needed is."""
    told = {key.strip("`"): row for row in rows("The walk format") for key in row[0].split(", ")}
    full = WalkCase(
        1, "A", "W", True, 1, 8, ((0x204000, 0),), x86.Outcome.PAGE_FAULT, 6, (0,), (0,), 1, 1, 1, "q", 1, 0x9000
    )
    write_walks(tmp_path / "a.jsonl", [full])
    line = json.loads((tmp_path / "a.jsonl").read_text())
    assert line.keys() == told.keys()
    for key, row in told.items():
        bare = {name: value for name, value in line.items() if name != key}
        (tmp_path / "b.jsonl").write_text(json.dumps(bare) + "\n")
        if row[2] == "refused":
            with pytest.raises(WalkFileError, match=f":1: key '{key}' is missing"):
                read_walks(tmp_path / "b.jsonl")
        else:
            assert len(read_walks(tmp_path / "b.jsonl")) == 1
