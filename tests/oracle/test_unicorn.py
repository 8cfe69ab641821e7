"""The Unicorn engine against recorded walks, and against the golden model on random ones."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptewalk.cosim.checks.walks import WalkTally, check, tally_unicorn
from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.formats.walks import WalkCase, read_walks
from ptewalk.cosim.oracles import unicorn as unicorn_mmu
from ptewalk.cosim.oracles.unicorn import UnicornError, UnicornMmu
from ptewalk.cosim.stimulus.walks import random_cases
from ptewalk.model.x86 import Control, EntryBit, Outcome

SAMPLE = WALKS
SEED = 20240607


@pytest.fixture(scope="module")
def engine() -> UnicornMmu:
    return UnicornMmu()


def compare(engine: UnicornMmu, cases: list[WalkCase]) -> WalkTally:
    tally = WalkTally()
    for case in cases:
        reason = engine.skip_reason(case)
        if reason is not None:
            tally.skip(case, reason)
        else:
            tally.add(case, check(case, *engine.run(case), marks_large_before_check=True))
    return tally


@pytest.mark.thorough
def test_recorded_walks(engine: UnicornMmu) -> None:
    tally = compare(engine, read_walks(SAMPLE))
    assert tally.first_difference is None
    assert (tally.cases, tally.agree, tally.differ) == (3000, 2963, 0)
    assert {reason.split()[1]: len(numbers) for reason, numbers in tally.skipped.items()} == {"has": 34, "lets": 3}


@pytest.mark.thorough
def test_random_walks(engine: UnicornMmu) -> None:
    """The golden model's answers (seed in SEED) are Unicorn's."""
    cases = random_cases(np.random.default_rng(SEED), 3500)
    tally = compare(engine, cases)
    assert tally.first_difference is None, f"seed {SEED}"
    assert tally.differ == 0
    assert tally.agree >= 2000
    seen = Counter(case.outcome for case in cases)
    assert min(seen[outcome] for outcome in (Outcome.OK, Outcome.PAGE_FAULT, Outcome.GENERAL_PROTECTION)) >= 300


def test_a_wrong_recording_is_noticed(engine: UnicornMmu) -> None:
    wrong = 0
    for case in random_cases(np.random.default_rng(SEED), 200, family="A"):
        if engine.skip_reason(case) is None and case.outcome != Outcome.GENERAL_PROTECTION:
            assert check(replace(case, value=case.value ^ 8), *engine.run(case)) is not None
            wrong += 1
    assert wrong >= 100


def test_runs_do_not_depend_on_those_before(engine: UnicornMmu) -> None:
    rng = random.Random(SEED)
    cases = [case for case in random_cases(np.random.default_rng(SEED), 60) if engine.skip_reason(case) is None]
    alone = [engine.run(case) for case in cases]
    rng.shuffle(order := list(range(len(cases))))
    assert all(engine.run(cases[place]) == alone[place] for place in order)


def test_a_page_outside_the_arenas_is_added(engine: UnicornMmu) -> None:
    entries = ((0x204000, 0x203027), (0x203000, 0x202027), (0x202000, 0x201027), (0x201000, 0xFF_0000_0027))
    added = (0, 0, 0, 0)
    for kind in "RXI":
        case = WalkCase(1, "A", kind, kind != "I", 0, 0x40, entries, Outcome.OK, 0xFF_0000_0040, added)
        assert check(case, *engine.run(case)) is None


def test_a_on_a_1_gib_leaf_is_unicorns_own(engine: UnicornMmu) -> None:
    entries = ((0x204000, 0x203027), (0x203000, 0x83))
    case = WalkCase(1, "A", "R", True, 0, 0x1000000, entries, Outcome.PAGE_FAULT, 5, (0, 0))
    result, after = engine.run(case)
    assert check(case, result, after) == "entry at 0x203000: expected 0x83, seen 0xa3"
    assert check(case, result, after, marks_large_before_check=True) is None


def test_skip_reasons(engine: UnicornMmu) -> None:
    case = WalkCase(1, "A", "R", False, 0, 0, ((0x204000, 0),), Outcome.PAGE_FAULT, 0, (0,))
    pks, smap, ac = 1 << Control.PKS, 1 << Control.SMAP, 1 << Control.AC
    assert engine.skip_reason(case) is None
    assert engine.skip_reason(replace(case, control=pks)) is None
    assert engine.skip_reason(replace(case, control=pks, pkrs=1, kind="X")) is None
    assert "no protection keys for supervisor" in (engine.skip_reason(replace(case, control=pks, pkrs=1)) or "")
    assert engine.skip_reason(replace(case, control=pks, pkrs=1, user=True)) is None
    assert engine.skip_reason(replace(case, control=pks, pkrs=1 << 2)) is None  # another key
    user_mode = replace(case, entries=((0x204000, 1 << EntryBit.US),))
    assert engine.skip_reason(replace(user_mode, control=pks, pkrs=1)) is None
    assert "AC=1" in (engine.skip_reason(replace(user_mode, control=smap | ac, kind="I")) or "")
    assert engine.skip_reason(replace(user_mode, control=smap | ac, kind="I", user=True)) is None
    assert engine.skip_reason(replace(case, control=smap | ac, kind="I")) is None
    assert engine.skip_reason(replace(case, control=smap | ac)) is None
    outside = "its tables lie outside 0x201000 to 0x205fff"
    assert engine.skip_reason(replace(case, entries=((0x206000, 0),))) == outside
    assert engine.skip_reason(replace(case, root=0x7000)) == outside


def test_error_code_that_is_not_found_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    known = unicorn_mmu._KNOWN_FAULTS
    monkeypatch.setattr(unicorn_mmu, "_KNOWN_FAULTS", (*known, replace(known[0], value=0x1F)))
    with pytest.raises(UnicornError, match="must stand at one offset of Unicorn's saved context, not at 0"):
        UnicornMmu()
    monkeypatch.setattr(unicorn_mmu, "_KNOWN_FAULTS", known[:1])
    with pytest.raises(UnicornError, match="must stand at one offset of Unicorn's saved context, not at [0-9]{2}"):
        UnicornMmu()


def test_a_full_top_level_table_is_an_error(engine: UnicornMmu) -> None:
    entries = tuple((0x204000 + 8 * slot, 0) for slot in range(256))
    case = WalkCase(7, "A", "R", True, 0, 0, entries, Outcome.PAGE_FAULT, 4, (0,) * 256)
    with pytest.raises(
        UnicornError, match="case 7: its top-level table must have an unused slot below 256, it has none"
    ):
        engine.run(case)


AT_0 = {"u": 0, "c": 3, "va": "0", "e": ["204000:203027", "203000:202027", "202000:201027", "201000:1012027"]}
AT_THE_END = {
    "u": 0,
    "c": 442,
    "va": "ffffffffffffffd8",
    "kr": 117458946,
    "ks": 2487009280,
    "e": ["205ff8:1960000000204577", "204ff8:caf0000000203877", "203ff8:4600000040000b87"],
}
WALKS_AND_MORE = [
    {"i": 25, "f": "G", "k": "X", **AT_0, "o": ["OK", "1012000"], "t": 3},
    {"i": 7, "f": "G", "k": "R", **AT_0, "o": ["OK", "1012000"], "t": 3},
    {"i": 17137, "f": "E", "k": "R", **AT_THE_END, "o": ["OK", "7fffffd8"], "t": 3},
    {"i": 8, "f": "G", "k": "R", **AT_0, "o": ["OK", "1012000"], "t": 3},
]
"""A fetch at 0, and a page at the end of the address space, which Unicorn does not run, and two that it runs."""


def test_a_walk_that_unicorn_cannot_run_is_skipped(tmp_path: Path) -> None:
    """With its reason; those behind it are asked."""
    path = tmp_path / "walks.jsonl"
    path.write_text("".join(json.dumps(walk) + "\n" for walk in WALKS_AND_MORE))
    tally = tally_unicorn(read_walks(path))
    assert (tally.cases, tally.agree, tally.differ) == (4, 2, 0)
    assert sorted(tally.skipped.values()) == [[25], [17137]]
    assert all("Unicorn" in reason and "case" not in reason for reason in tally.skipped)
