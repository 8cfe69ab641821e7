"""Random scenarios: seeded, encodable, and of every verb."""

from __future__ import annotations

import pytest

from ptewalk.cosim.oracles.linux.operations import VERBS, encode_operation
from ptewalk.cosim.stimulus.scenarios import scenario
from ptewalk.cosim.stimulus.themes import THEMES


def test_a_seed_gives_the_same_scenario() -> None:
    assert scenario(7, "move") == scenario(7, "move")
    assert scenario(7, "move").ops != scenario(8, "move").ops


@pytest.mark.parametrize("theme", THEMES)
def test_scenarios_can_be_executed(theme: str) -> None:
    for seed in range(50):
        request = scenario(seed, theme)
        assert 3 <= len(request.ops) <= 20
        live = {0}
        for i, op in enumerate(request.ops):
            encode_operation(op, i, request.base)
            assert op["who"] in live
            assert op.get("page") is None or op["page"] >= 0
            assert op.get("target", op["who"]) in live
            live |= {op["child"]} if op["op"] == "fork" else set()
            live -= {op["who"]} if op["op"] == "exit" else set()


def test_every_verb_comes_up() -> None:
    seen = {op["op"] for theme in THEMES for seed in range(100) for op in scenario(seed, theme).ops}
    assert seen == set(VERBS)
