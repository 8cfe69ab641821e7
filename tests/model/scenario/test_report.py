"""Running whole files and counting."""

from __future__ import annotations

from typing import Any

import pytest

from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.model.linux import Track
from ptewalk.model.scenario.format import Scenario, Step, read
from ptewalk.model.scenario.report import replay

SAMPLE = KERNELS["linux-6.1"]


def test_the_wrong_profile_is_noticed() -> None:
    report = replay(read(SAMPLE)[:30], "linux-seed")
    assert report.differ > 20 and report.first_difference is not None


def scenario(*ops: dict[str, Any]) -> Scenario:
    """A scenario without answers."""
    return Scenario("s", "", 0x100000000000, [Step(line, op, None) for line, op in enumerate(ops, 2)], "s", {})


MMAP = {"who": 0, "op": "mmap", "page": 0, "n": 4, "prot": "rw", "kind": "anon"}


def test_steps_without_answers_are_counted_as_skipped() -> None:
    report = replay([scenario(MMAP, {"who": 0, "op": "exit"})], "linux-6.1")
    assert (report.agree, report.differ, report.skipped) == (0, 0, 2)
    assert report.skipped_scenarios == {"s": "step 0: no recorded answer"}


def test_what_the_model_cannot_follow_is_skipped_by_name() -> None:
    report = replay([scenario({"who": 3, "op": "exit"}, MMAP)], "linux-6.1")
    assert report.skipped == 2 and report.steps == 2
    assert report.skipped_scenarios == {"s": "step 0: exit: process 3 (who) does not live"}


@pytest.mark.parametrize(("profile", "switch"), [("linux-9", "always"), ("linux-seed", "sometimes")])
def test_unknown_profile_or_switch(profile: str, switch: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        replay([], profile, pagemap_v2=switch)


@pytest.mark.thorough
@pytest.mark.parametrize("track", [Track.FAULT, Track.NATIVE])
def test_other_ways_of_tracking_agree_but_for_lost_stores(track: Track) -> None:
    report = replay(read(SAMPLE), "linux-6.1", track=track)
    assert set(report.differing) == {
        "t01_clean_into_sd_mprotect",
        "t02_same_written_before",
        "t04_madvise_merge",
        "t05_mremap_table_move_shared",
    }
    assert all("'PFXD'" in str(d) and "'PFX'" in str(d) for d in report.differing.values())
