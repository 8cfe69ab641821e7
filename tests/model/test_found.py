"""Scenarios in which the model once differed from a live kernel, with that kernel's answers; most are shrunk."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.report import replay

DATA = Path(__file__).parents[1] / "data"
FOUND = {profile: DATA / f"found-{profile}.jsonl" for profile in ("linux-6.1", "linux-6.12")}
CASES = [(profile, scenario) for profile, path in FOUND.items() for scenario in read(path)]


@pytest.mark.parametrize(
    ("profile", "scenario"), CASES, ids=[f"{profile}-{scenario.name}" for profile, scenario in CASES]
)
def test_differs_no_more(profile: str, scenario: Scenario) -> None:
    report = replay([scenario], profile)
    assert not report.differing
    assert report.agree == report.steps > 0
