"""The golden model against 3,000 recorded walks of four engines."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from ptewalk.cosim.checks.walks import WalkTally, check
from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.formats.walks import WalkCase, read_walks, run_on_model
from ptewalk.model import x86

SAMPLE = WALKS


@pytest.fixture(scope="module")
def cases() -> list[WalkCase]:
    return read_walks(SAMPLE)


@pytest.mark.parametrize("eager", [False, True])
def test_model_agrees_with_every_recorded_walk(cases: list[WalkCase], eager: bool) -> None:
    tally = WalkTally()
    for case in cases:
        tally.add(case, check(case, *run_on_model(case, eager=eager)))
    assert tally.first_difference is None
    assert (tally.cases, tally.agree, tally.differ, tally.skipped, tally.others) == (3000, 3000, 0, {}, {})


def test_model_sets_a_as_the_engines_do(cases: list[WalkCase]) -> None:
    """Lazy as Bochs (ad), eager as QEMU (aq) but for its A on a 1 GiB leaf: exactly, entry by entry."""
    large = 0
    for case in cases:
        _, lazy = run_on_model(case, eager=False)
        _, eager = run_on_model(case, eager=True)
        assert tuple(lazy[address] ^ value for address, value in case.entries) == case.added
        sooner = tuple(eager[address] ^ value for address, value in case.entries)
        if sooner != (case.eager or case.added):
            large += 1
            tolerated = check(case, *run_on_model(case)) is None
            assert tolerated and any(address >> 12 == 0x203 and value & 0x80 for address, value in case.entries)
    assert large == 100


def test_sample_covers_every_family_and_outcome(cases: list[WalkCase]) -> None:
    families = Counter(case.family for case in cases)
    assert set(families) == set("ABCDEGH") and min(families.values()) >= 50
    outcomes = Counter(case.outcome for case in cases)
    assert set(outcomes) == {x86.Outcome.OK, x86.Outcome.PAGE_FAULT, x86.Outcome.GENERAL_PROTECTION}
    assert {case.levels for case in cases} == {4, 5}


@pytest.mark.thorough
@pytest.mark.parametrize("bit", [x86.Control.WP, x86.Control.NXE, x86.Control.SMEP, x86.Control.SMAP, x86.Control.PKE])
def test_a_control_bit_that_is_lost_is_noticed(cases: list[WalkCase], bit: x86.Control) -> None:
    differ = 0
    for case in cases:
        result, after = run_on_model(replace(case, control=case.control & ~(1 << bit)))
        differ += check(case, result, after) is not None
    assert differ >= 10
