"""The comparison sees every field."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.compare import differences
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.numbering import TableIds
from ptewalk.model.scenario.replay import Replay

SAMPLE = KERNELS["linux-6.1"]


def sample(name: str) -> Scenario:
    return next(scenario for scenario in read(SAMPLE) if scenario.name == name)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("ret",), 5, "ret"),
        (("errno",), "EIO", "errno"),
        (("vals", 0), "maperr", "vals"),
        (("state", "0", "pages", 0, 2), "P", "pages"),
        (("state", "0", "pages", 0, 3), "z", "pages"),
        (("state", "0", "pages", 0, 4), 99, "pages"),
        (("state", "0", "pages", 0, 1), 7, "pages"),
        (("state", "0", "vmas", 0, "n"), 9, "vmas"),
        (("state", "0", "vmas", 0, "perm"), "r--p", "vmas"),
        (("state", "0", "vmas", 0, "flags"), [], "vmas"),
        (("state", "0", "vmas", 0, "anon_huge_kb"), 2048, "vmas"),
        (("state", "0", "root"), 9, "root"),
        (("state", "0", "tables", 0, 3), 9, "tables"),
        (("state", "0", "tables", 0, 2), "65", "tables"),
        (("state", "0", "ptes", 0, 3), "8000000000000867", "ptes"),
        (("state", "0", "ptes", 0, 4), "67.67.27", "ptes"),
        (("state", "0", "ptes", 0, 5), 9, "ptes"),
        (("state", "0", "contents", 0, 0), 1, "contents[0][0]"),
        (("state", "0", "contents", 0, 1), 1, "contents[0][1]"),
        (("state", "0", "contents", 0, 2), "169d459c", "contents[0][0]"),
        (("state", "0", "contents"), [], "contents[0][0]"),
    ],
)
def test_every_field_is_compared(path: tuple[str | int, ...], value: object, field: str) -> None:
    scenario = sample("h01_anon_basic")
    index = 1
    recorded = copy.deepcopy(scenario.steps[index].recorded)
    if value == "8000000000000867":
        value = "8000000000000865"
    target: Any = recorded
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    run, tables = Replay(scenario, PROFILES["linux-6.1"]), TableIds()
    for at in range(index + 1):
        outcome = run.step()
        assert differences(scenario, at, outcome, tables=tables) == []
    scenario.steps[index].recorded = recorded
    found = differences(scenario, index, outcome, tables=tables)
    assert found and found[0].field.startswith(field)
    assert f"h01_anon_basic step 1: {field}" in str(found[0])


def test_a_missing_process_is_a_difference() -> None:
    scenario = sample("h01_anon_basic")
    recorded = scenario.steps[0].recorded
    assert recorded is not None
    recorded["state"]["1"] = {"pages": [], "vmas": []}
    run = Replay(scenario, PROFILES["linux-6.1"])
    assert [d.field for d in differences(scenario, 0, run.step())] == ["state"]


def test_accessed_bits_are_ignored_only_behind_a_reset() -> None:
    scenario = sample("x10_clear1_accessed")
    unsure = scenario.header["a_unsure_from"]
    run = Replay(scenario, PROFILES["linux-6.1"])
    for index in range(len(scenario.steps)):
        outcome = run.step()
        changed = copy.deepcopy(outcome)
        for snapshot in changed.state.values():
            for entry in snapshot.ptes:
                entry[3] = format(int(entry[3], 16) ^ 0x20, "x")
        has_leaves = any(snapshot.ptes for snapshot in outcome.state.values())
        assert differences(scenario, index, outcome) == []
        assert bool(differences(scenario, index, changed)) == (has_leaves and index < unsure)


def test_huge_pages_are_written_as_they_were_recorded() -> None:
    """Row by row: their comparison looks at what a row begins with."""
    rows = 0
    for scenario in read(SAMPLE):
        run = Replay(scenario, PROFILES["linux-6.1"])
        for step in scenario.steps:
            outcome = run.step()
            if step.recorded is None:
                continue
            for who, seen in step.recorded["state"].items():
                wanted = [[*row[:5], row[6]] for row in seen.get("ptes", []) if row[2] > 1]
                assert [[*row[:5], row[6]] for row in outcome.state[int(who)].ptes if row[2] > 1] == wanted
                rows += len(wanted)
    assert rows == 18
