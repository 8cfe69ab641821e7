"""What the kernel's own selftest of soft-dirty demands (tools/testing/selftests/mm/soft-dirty.c), as scenarios.

The 15 checks, their answers by hand: one of a page that is cleared and written over and over, two of a mapping that
reuses an address, two of a huge page, and five each of mprotect on anonymous memory and on a file.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ptewalk.model.linux import Track
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.report import replay

SCENARIOS = Path(__file__).parents[1] / "data" / "selftest-soft-dirty.jsonl"


def checks(scenario: Scenario) -> range:
    """Numbers of the selftest's checks that a scenario stands for."""
    numbers = re.match(r"checks? (\d+)(?: (?:to|and) (\d+))?:", scenario.doc)
    assert numbers is not None
    return range(int(numbers[1]), int(numbers[2] or numbers[1]) + 1)


def test_all_fifteen_are_there() -> None:
    assert [number for scenario in read(SCENARIOS) for number in checks(scenario)] == list(range(1, 16))


@pytest.mark.parametrize("scenario", read(SCENARIOS), ids=lambda scenario: scenario.name)
def test_every_check_stands_in_a_step(scenario: Scenario) -> None:
    demanded = [step.recorded["check"] for step in scenario.steps if step.recorded and "check" in step.recorded]
    assert len(demanded) >= len(checks(scenario))
    for step in scenario.steps:
        assert step.recorded is not None
        if "check" in step.recorded:
            ((_page, _n, flags, *_rest),) = step.recorded["state"]["0"]["pages"] or [[0, 1, ""]]
            wanted = step.recorded["check"].split()[0]
            assert wanted == "one" or ("D" in flags) == (wanted == "soft-dirty")


@pytest.mark.parametrize("track", Track)
@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_passes(profile: str, track: Track) -> None:
    report = replay(read(SCENARIOS), profile, track=track)
    assert not report.differing
    assert (report.scenarios, report.agree) == (5, report.steps)


def test_the_seed_does_not_pass() -> None:
    """3.11 has no VM_SOFTDIRTY, and its mprotect forgets soft-dirty."""
    assert replay(read(SCENARIOS), "linux-seed").differ > 0
