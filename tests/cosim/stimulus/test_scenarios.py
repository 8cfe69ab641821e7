"""Random scenarios: seeded, encodable, and of every verb."""

from __future__ import annotations

from collections import Counter

import pytest

from ptewalk.cosim.oracles.linux.operations import encode_all
from ptewalk.cosim.stimulus.scenarios import generated, scenario
from ptewalk.cosim.stimulus.themes import THEMES
from ptewalk.model.linux import PagemapBit
from ptewalk.model.proc import pagemap
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.replay import Replay
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


@pytest.mark.thorough
def test_guard_regions_are_installed_touched_and_removed() -> None:
    """In the model's answers: each kind of thing that comes of a guard region."""
    seen: Counter[str] = Counter()
    for drawn in generated(150, 1, PROFILES["linux-7.3"], ("guard",)):
        run = Replay(drawn, PROFILES["linux-7.3"])
        for step in drawn.steps:
            outcome = run.step()
            advice = str(step.op.get("advice"))
            if advice.startswith("GUARD"):
                seen[f"{advice} {outcome.errno or 'ok'}"] += 1
            areas = [(p.mm, vma) for p in run.kernel.processes.values() for vma in p.mm.areas]
            guards = any(
                word >> PagemapBit.GUARD & 1
                for mm, vma in areas
                for word in pagemap.read(mm, vma.start, vma.end - vma.start).tolist()
            )
            seen["stands"] += guards
            seen[f"{step.op['op']} while one stands"] += guards
    assert seen["GUARD_INSTALL EINVAL"], "of a locked area"
    for what in ("GUARD_INSTALL ok", "GUARD_REMOVE ok", "stands"):
        assert seen[what] >= 5, what
    for verb in ("fork", "mremap", "munmap", "mprotect", "write", "read", "clear_refs", "pagemap_scan", "mem_write"):
        assert seen[f"{verb} while one stands"], verb
