"""Random scenarios: seeded, encodable, and of every verb."""

from __future__ import annotations

import pytest

from ptewalk.cosim.oracles.linux.operations import encode_all
from ptewalk.cosim.stimulus.scenarios import scenario
from ptewalk.cosim.stimulus.themes import THEMES
from ptewalk.model.scenario.verbs import VERBS


def test_a_seed_gives_the_same_scenario() -> None:
    assert scenario(7, 3, "move") == scenario(7, 3, "move")
    assert scenario(7, 3, "move").ops != scenario(8, 3, "move").ops
    assert scenario(7, 3, "move").ops != scenario(7, 4, "move").ops
    assert scenario(7, 4, "move").ops != scenario(8, 3, "move").ops, "seed and number are not added up"


@pytest.mark.parametrize("theme", THEMES)
def test_scenarios_can_be_executed(theme: str) -> None:
    for number in range(50):
        request = scenario(1, number, theme)
        assert 3 <= len(request.ops) <= 20
        assert len(encode_all(request.name, request.ops, request.base)) == len(request.ops)


def test_every_verb_comes_up() -> None:
    seen = {op["op"] for theme in THEMES for number in range(100) for op in scenario(1, number, theme).ops}
    assert seen == set(VERBS)


def test_the_product_draws_mappings_that_reserve_nothing() -> None:
    mapped = [op for number in range(100) for op in scenario(1, number, "cross").ops if op["op"] == "mmap"]
    kinds = {op["kind"] for op in mapped if "noreserve" in op["flags"]}
    assert {"hugetlb", "shugetlb", "anon"} <= kinds
    assert any("noreserve" not in op["flags"] for op in mapped)
