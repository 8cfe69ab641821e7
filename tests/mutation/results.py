"""What became of each change: a line of a file, and the report."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from .changes import PARTS, ROOT

GOAL = 0.9
"""Of the changes, so many are to be noticed."""


@dataclass
class Result:
    """One line of the file."""

    sources: str
    seed: int
    part: str
    number: int
    file: str
    line: int
    old: str
    new: str
    result: str
    by: str
    seconds: float


def read_results(path: Path, sources_name: str, seed: int) -> list[Result]:
    """What stands in the file of these sources and this seed."""
    if not path.exists():
        return []
    found = [Result(**json.loads(line)) for line in path.read_text().splitlines()]
    last = {(r.part, r.number): r for r in found if (r.sources, r.seed) == (sources_name, seed)}
    return list(last.values())


def reasons(text: str) -> dict[tuple[str, str, str], str]:
    """Why a change is not noticed, by file and by what stands there before and after, from docs/mutation.md."""
    rows = re.findall(r"^- `(\S+)`: `(.+?)` to `(.+?)`: (.+?)(?=\n- |\n\n|\Z)", text, re.M | re.S)
    return {(file, old, new): " ".join(reason.split()) for file, old, new, reason in rows}


def report(results: list[Result]) -> bool:
    """Print the rate, and the list of what was not noticed, with reasons; whether the goal is met."""
    known = reasons((ROOT / "docs" / "mutation.md").read_text())
    unnoticed = sorted((r for r in results if r.result == "unnoticed"), key=lambda r: (r.file, r.line))
    for r in unnoticed:
        old, new = " ".join(r.old.split()), " ".join(r.new.split())
        print(f"{r.file}:{r.line}: {old} to {new}: {known.get((r.file, old, new), 'no reason is known')}")
    for part in PARTS:
        of_part = [r for r in results if r.part == part]
        noticed = sum(r.result != "unnoticed" for r in of_part)
        print(f"{part}: {noticed} of {len(of_part)} noticed")
    noticed = len(results) - len(unnoticed)
    print(f"together: {noticed} of {len(results)} noticed, {100 * noticed / max(1, len(results)):.1f} %")
    return noticed >= GOAL * len(results)
