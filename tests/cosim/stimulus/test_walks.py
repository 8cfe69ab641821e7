"""Random walks: the same seed gives the same walks, and all that is promised occurs."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ptewalk.cosim.checks.walks import check
from ptewalk.cosim.formats.walks import run_on_model
from ptewalk.cosim.stimulus.walks import FAMILIES, Walk, answered, random_cases, random_walks
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import GeneralProtection, PageFault, Result, Translated, translate
from ptewalk.model.x86 import Access, Outcome


def run(walk: Walk, physical_bits: int = 40) -> tuple[Result, SparseMemory]:
    memory = SparseMemory(physical_bits)
    for address, value in walk.entries:
        memory.store(address, value)
    return translate(memory, walk.state, walk.request), memory


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_seed_gives_the_same_walks() -> None:
    for make in (lambda rng: random_cases(rng, 50), lambda rng: list(random_walks(rng, 50))):
        walks = make(rng_of(5))
        assert walks == make(rng_of(5))
        assert walks != make(rng_of(6))


def test_the_first_of_many() -> None:
    walks = random_walks(rng_of(3), 60)
    assert list(walks.first(7)) == list(walks)[:7] and len(walks.first(7)) == 7


def test_walks_cover_what_they_promise() -> None:
    rng = rng_of(7)
    seen: Counter[object] = Counter()
    for walk in (walk for family in FAMILIES for walk in random_walks(rng, 860, family=family)):
        result, memory = run(walk)
        seen[walk.family, type(result)] += 1
        seen[walk.request.access, type(result)] += 1
        seen["implicit", walk.request.implicit, walk.request.access] += 1
        seen[walk.state.track] += 1
        for bit in range(8):
            seen["control", bit, walk.state.control >> bit & 1] += 1
        if isinstance(result, PageFault):
            seen["code", result.code] += 1
            continue
        if isinstance(result, Translated):
            seen["level", result.level] += 1
            for address, value in walk.entries:
                if value >> 52 & 1 and not memory.load(address) >> 52 & 1:
                    seen["mend", walk.state.saved_dirty] += 1
    for family in FAMILIES:
        expected = {"G": {GeneralProtection}}.get(family, {Translated, PageFault})
        assert {kind for kind in (Translated, PageFault, GeneralProtection) if seen[family, kind]} == expected
    assert all(seen[access, kind] >= 20 for access in Access for kind in (Translated, PageFault, GeneralProtection))
    assert all(seen["implicit", True, access] >= 20 for access in Access if access != Access.FETCH)
    assert all(seen[track] >= 500 for track in Track)
    assert all(seen["control", bit, value] >= 500 for bit in range(8) for value in (0, 1))
    assert all(seen["level", level] >= 50 for level in (1, 2, 3))
    assert all(seen["mend", flag] >= 20 for flag in (False, True))
    # Every code there is: not present, rights, reserved, key; read, write, fetch; user, supervisor.
    codes = {key[1] for key in seen if isinstance(key, tuple) and key[0] == "code"}
    kinds = {0, 2, 4, 6, 0x10, 0x14}
    assert codes == (
        kinds | {kind | 9 for kind in kinds} | {kind | 1 for kind in kinds} | {kind | 0x21 for kind in (0, 2, 4, 6)}
    )


def test_cases_cover_every_access_and_outcome() -> None:
    cases = random_cases(rng_of(8), 1500)
    assert [case.number for case in cases] == list(range(1500))
    seen = Counter((case.kind, case.outcome) for case in cases)
    outcomes = (Outcome.OK, Outcome.PAGE_FAULT, Outcome.GENERAL_PROTECTION)
    assert all(seen[kind, outcome] >= 10 for kind in "RWXI" for outcome in outcomes)
    assert {case.family for case in cases} == set(FAMILIES)
    assert all(case.linear % (32 if case.kind == "I" else 8) == 0 for case in cases)
    assert any(case.eager is not None for case in cases)


@pytest.mark.parametrize("eager", [False, True])
def test_cases_hold_the_models_answer(eager: bool) -> None:
    for case in random_cases(rng_of(9), 300):
        assert check(case, *run_on_model(case, eager=eager)) is None
        assert answered(case) == case


def test_walks_of_one_set_do_not_meet() -> None:
    frames = [
        {address >> 12 for address, _ in walk.entries} | {walk.state.root >> 12}
        for walk in random_walks(rng_of(10), 3000, physical_bits=32)
    ]
    assert sum(map(len, frames)) == len(set.union(*frames)) > 8000


@pytest.mark.parametrize("physical_bits", [32, 46, 52])
def test_tables_lie_anywhere_below_the_width(physical_bits: int) -> None:
    highest = 0
    for walk in random_walks(rng_of(11), 200, physical_bits=physical_bits):
        run(walk, physical_bits)
        highest = max(highest, *(address for address, _ in walk.entries), walk.state.root)
    assert highest >> physical_bits - 1 == 1


@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_family_can_be_chosen(family: str) -> None:
    assert {walk.family for walk in random_walks(rng_of(12), 5, family=family)} == {family}
    assert {case.family for case in random_cases(rng_of(12), 5, family=family)} == {family}


def test_errors() -> None:
    rng = rng_of(0)
    for family in ("F", "AB", ""):
        with pytest.raises(ValueError, match=f"family must be a letter of ABCDEGH, not '{family}'"):
            random_walks(rng, 1, family=family)
        with pytest.raises(ValueError, match=f"family must be a letter of ABCDEGH, not '{family}'"):
            random_cases(rng, 1, family=family)
    for bits in (31, 53):
        with pytest.raises(ValueError, match=f"physical_bits must be 32 to 52, not {bits}"):
            random_walks(rng, 1, physical_bits=bits)
    with pytest.raises(ValueError, match="tracks must name at least one way to track"):
        random_walks(rng, 1, tracks=())
