"""What a replay takes from a recording: six things, by one object, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.format import Scenario, read
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.report import replay
from ptewalk.model.scenario.snapshot import Outcome
from ptewalk.model.state.choices import Choices, keeps_first_layout

OWN = Path(__file__).resolve().parents[2] / "data"
STATE = {
    "0": {
        "pages": [[4, 3, "PX", "a", 7, 1], [9, 2, "S", "", None, 0, 1, 20, -1], [11, 2, "PX", "a", 30, 0]],
        "tables": [[4, 0, "67", 2], [3, 0, "67", 5]],
        "ptes": [[4, 3, 1, "867", "67.67.67", 7, 1], [512, 512, 2, "8e7", "67.67", 40, 1]],
    },
    "2": {"pages": None},
}


def test_choices_of_a_step() -> None:
    choices = Choices()
    choices.take(STATE)
    assert choices.known
    assert choices.slots([(0, 3), (0, 10), (0, 9), (1, 9)]) == [(1, 19), (1, 20)]
    assert [choices.frame(0, page) for page in (3, 4, 6, 7, 9, 12)] == [None, 7, 9, None, None, 30]
    assert choices.frame(2, 4) is choices.frame(5, 4) is None
    assert choices.tables(0) == {(4, 0): 2, (3, 0): 5} and choices.tables(1) == {}
    assert [choices.huge_page_to_be_had(who, page) for who, page in ((0, 511), (0, 512), (1, 0))] == [False, True, True]


def test_a_table_counts_as_shared_as_the_recording_showed_first() -> None:
    choices = Choices()
    assert not choices.counted(77, None), "no recording: no choice, and none is kept"
    assert choices.counted(77, True) and choices.counted(77, None) and choices.counted(77, False)
    assert not choices.counted(78, False) and not choices.counted(78, True)
    choices.take(STATE)
    assert [choices.letters(0, page) for page in (3, 4, 6, 9)] == ["", "PX", "PX", "S"]
    assert choices.letters(2, 4) is choices.letters(5, 4) is None
    assert choices.counted(77, None), "for as long as the table lives"


def test_a_frame_is_kept_from_one_step_to_the_next() -> None:
    choices = Choices()
    choices.take(STATE)
    assert not choices.keeps_frame(0, 4), "there was no step before"
    choices.take({"0": {"pages": [[4, 1, "PX", "a", 7, 1], [5, 1, "PX", "a", 31, 1], [9, 1, "PX", "a", 12, 1]]}})
    assert [choices.keeps_frame(0, page) for page in (3, 4, 5, 6, 9)] == [False, True, False, False, False]
    choices.take(None)
    assert not choices.keeps_frame(0, 4)


def test_a_step_without_a_recording_leaves_nothing_behind() -> None:
    choices = Choices()
    choices.take(STATE)
    choices.take(None)
    assert not choices.known and choices.frame(0, 4) is None and choices.slots([(0, 9)]) == []
    assert choices.huge_page_to_be_had(0, 4)


def test_the_first_layout_behind_a_clear() -> None:
    clear = {"op": "clear_refs", "value": "4"}
    old = {"ret": 1, "state": {"0": {"pages": [[0, 1, "P1", "a", 1, 0]]}}}
    new = {"ret": 1, "state": {"0": {"pages": [[0, 1, "P", "a", 1, 0]]}}}
    assert keeps_first_layout([(clear, new), (clear, old)])
    assert not keeps_first_layout([({"op": "read"}, old), (clear, new)])
    assert not keeps_first_layout([(clear, None)])


def outcomes(scenario: Scenario, profile: str) -> list[Outcome]:
    """What every step answers, without checksums, which are taken only where a recording has them."""
    run = Replay(scenario, PROFILES[profile])
    found = [run.step() for _ in scenario.steps]
    for outcome in found:
        for snapshot in outcome.state.values():
            snapshot.contents = None
    return found


@pytest.mark.thorough
@pytest.mark.parametrize("profile", ["linux-seed", "linux-3.11", "linux-6.1", "linux-6.12"])
def test_nothing_else_is_taken(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    """With a recording whose choices nobody tells, everything is as without one."""
    scenarios = read(KERNELS[profile])
    monkeypatch.setattr(Choices, "take", lambda self, state: None)
    for scenario in scenarios:
        bare = replace(scenario, steps=[replace(step, recorded=None) for step in scenario.steps])
        assert outcomes(scenario, profile) == outcomes(bare, profile), scenario.name


@pytest.mark.thorough
def test_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them steps of these scenarios differ: a swap slot, a frame, a table, its count, batches, KSM."""
    for file, name in (
        ("own-linux-3.11", "reuse_311045"),
        ("own-linux-6.1", "none_000004"),
        ("own-linux-6.1", "table_000009"),
        ("flips-linux-6.18", "gigantic_56_000008"),
        ("flips-linux-6.18", "gigantic_56_000014"),
        ("flips-linux-6.18", "lru_forced"),
        ("flips-linux-7.3", "lru_two"),
        ("flips-linux-7.3", "ksm_skipped"),
    ):
        profile = file.partition("-")[2]
        scenarios = [scenario for scenario in read(OWN / f"{file}.jsonl.gz") if scenario.name == name]
        assert (report := replay(scenarios, profile)).differ == 0 and report.agree
        with monkeypatch.context() as patch:
            patch.setattr(Choices, "take", lambda self, state: None)
            assert replay(scenarios, profile).differ > 0
