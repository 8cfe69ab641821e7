"""Scenarios in which the model once differed from a live kernel, with that kernel's answers; most are shrunk.

`kinds-*` are about one fault's whole kind each (hugetlb, userfaultfd, forced access, move_pages, huge pages of shared
memory, five levels, numbers of PAGEMAP_SCAN), and 70 of theme cross of seed 1. `flips-*` show those fields of a profile
that nothing else does, and what was found on the way.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.report import replay

DATA = Path(__file__).parents[1] / "data"
FILES = ("found-{}.jsonl", "kinds-{}.jsonl.gz", "flips-{}.jsonl.gz")
CASES = [
    (profile, scenario)
    for profile in ("linux-6.1", "linux-6.12", "linux-6.18", "linux-7.2", "linux-7.3")
    for name in FILES
    if (DATA / name.format(profile)).is_file()
    for scenario in read(DATA / name.format(profile))
]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("profile", "scenario"), CASES, ids=[f"{profile}-{scenario.name}" for profile, scenario in CASES]
)
def test_differs_no_more(profile: str, scenario: Scenario) -> None:
    report = replay([scenario], profile)
    assert not report.differing
    assert report.agree == report.steps > 0
