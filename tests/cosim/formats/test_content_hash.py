"""The hash of a recording: of scenarios and answers, and of nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.formats.scenarios import content_hash, load
from ptewalk.model.scenario.format import Scenario

A, D = 1 << 5, 1 << 6


def changed(scenario: Scenario, step: int, bit: int) -> Scenario:
    """With a bit of the first leaf after a step turned."""
    steps = list(scenario.steps)
    recorded: dict[str, Any] = steps[step].recorded or {}
    start, count, level, flags, *rest = recorded["state"]["0"]["ptes"][0]
    run = [start, count, level, f"{int(flags, 16) ^ bit:x}", *rest]
    seen = recorded["state"]["0"] | {"ptes": [run, *recorded["state"]["0"]["ptes"][1:]]}
    steps[step] = replace(steps[step], recorded=recorded | {"state": recorded["state"] | {"0": seen}})
    return replace(scenario, steps=steps)


def leafy(scenario: Scenario, step: int) -> bool:
    """Is there a leaf of process 0 after a step?"""
    return bool(((scenario.steps[step].recorded or {})["state"].get("0") or {}).get("ptes"))


def test_every_answer_and_the_order_count() -> None:
    one, other, *_ = (found for found in load([KERNELS["linux-7.3"]]) if leafy(found, -1))
    whole = content_hash([one, other])
    assert whole == content_hash(iter([one, other])) and len(whole) == 64
    assert (
        len({whole, content_hash([other, one]), content_hash([one]), content_hash([changed(one, -1, D), other])}) == 4
    )


def test_accessed_counts_where_it_is_sure() -> None:
    unsure = [found for found in load([KERNELS["linux-7.3"]]) if "a_unsure_from" in found.header and leafy(found, -1)]
    assert unsure
    for found in unsure:
        assert content_hash([changed(found, -1, A)]) == content_hash([found]) != content_hash([changed(found, -1, D)])
        sure = replace(found, header={key: value for key, value in found.header.items() if key != "a_unsure_from"})
        assert content_hash([changed(sure, -1, A)]) != content_hash([sure])
