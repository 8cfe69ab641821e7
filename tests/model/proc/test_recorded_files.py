"""The files of /proc against what live kernels said: smaps line by line, others' lines, each page's kpageflags."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.report import replay

from ..proc_files import answered, recorded

DATA = Path(__file__).parents[2] / "data"
CASES = [
    (profile, scenario)
    for profile in ("linux-6.1", "linux-6.12")
    for scenario in read(DATA / f"files-{profile}.jsonl.gz")
]


@pytest.mark.thorough
@pytest.mark.parametrize(("profile", "scenario"), CASES, ids=[f"{p}-{scenario.name}" for p, scenario in CASES])
def test_the_files_say_what_the_kernels_said(profile: str, scenario: Scenario) -> None:
    said = recorded(scenario)
    assert said
    assert answered(scenario, PROFILES[profile]) == said
    assert replay([scenario], profile).agree == len(scenario.steps)


def test_what_is_recorded() -> None:
    said = [files for _, scenario in CASES for files in recorded(scenario).values()]
    assert len(CASES) == 14
    assert {name.partition("/")[2] for files in said for name in files} == {
        *("smaps", "smaps_rollup", "status", "kpageflags", "pagemap"),
    }
    assert sum(len(files.get("1/kpageflags", ())) for files in said) == 6678


@pytest.mark.thorough
def test_another_kernels_recording_differs() -> None:
    """Each of them, for their lines do."""
    for profile, scenario in CASES:
        other = "linux-6.12" if profile == "linux-6.1" else "linux-6.1"
        assert answered(scenario, PROFILES[other]) != recorded(scenario)
