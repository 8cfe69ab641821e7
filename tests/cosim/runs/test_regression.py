"""The regression: what a run of an MMU that caches must have met, or it is a failure."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ptewalk.cosim.checks.minima import DISCRIMINATING
from ptewalk.cosim.runs import regression

COUNTS = {
    "hits": 450_000,
    "many": 20_000,
    "overtaken": 500,
    "gateware wraps": 50,
    **dict.fromkeys(DISCRIMINATING, 2_000),
}


def row(asked: int = 1_000_000, **counts: int) -> tuple[dict[str, Any], list[str]]:
    """The row of a million accesses, and its failures."""
    failures: list[str] = []
    told = {"simulator": "verilator 5", "compared": 1_000_000, "wrong": 0, "failures": [], "counts": COUNTS | counts}
    return regression._cached(told, "mmu", "library", asked, failures), failures


def test_what_was_met_is_printed_beside_what_had_to_be() -> None:
    made, failures = row()
    assert failures == []
    assert "450000 hits (at least 400000), 20000 of several answers (at most 49999)" in made["notes"]
    assert "500 overtaken (at least 100), 50 slot wraps (at least 10)" in made["notes"]
    assert all(f"2000 discriminating {kind} (at least 100)" in made["notes"] for kind in DISCRIMINATING)


def test_a_run_that_missed_something_is_a_failure_of_one_line() -> None:
    _, failures = row(hits=399_999, CONTEXT=7)
    assert failures == [
        "verilator 5: 1000000 accesses to mmu could hardly have failed: 399999 hits (at least 400000), "
        "7 discriminating CONTEXT (at least 100); --walks asks for more"
    ]


@pytest.mark.parametrize(("batch", "walks", "count"), [(False, 5_000, 5_000), (False, None, 800), (True, 5_000, 800)])
def test_walks_are_asked_at_protocol_level_where_there_is_no_compiled_code(
    monkeypatch: pytest.MonkeyPatch, batch: bool, walks: int | None, count: int
) -> None:
    """Then what is changed is invalidated, as compiled code does it; else as ever, so that a seed says the same."""
    seen: list[tuple[int, bool]] = []

    def work(count: int, seed: int, *, conditions: Any, **_: Any) -> dict[str, Any]:
        seen.append((count, conditions is not None and conditions.follows > 0.9))
        return {"simulator": "a simulator", "compared": count, "wrong": 0, "failures": [], "counts": {}}

    model = SimpleNamespace(batch=batch, simulator=SimpleNamespace(name="a simulator"))
    monkeypatch.setattr(
        regression.BuiltWalker,
        "make",
        lambda name: SimpleNamespace(simulator="a simulator", model=model, in_process=False),
    )
    monkeypatch.setattr(regression, "caching_work", work)
    regression.run_regression("icarus", walks, ("caches",), 1, designs=("mmu-small",), say=lambda text: None)
    assert seen == [(count, walks is not None and not batch)]


def test_too_few_accesses_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer than were asked for, and fewer of a simulator than are promised."""
    assert row(1_000_001)[1] == ["verilator 5: 1000000 of 1000001 accesses to mmu were compared"]

    def told(compared: int, asked: int) -> list[str]:
        def work(count: int, seed: int, **_: Any) -> dict[str, Any]:
            counts = dict.fromkeys(("hits", *DISCRIMINATING), compared)
            return {"simulator": "a simulator", "compared": compared, "wrong": 0, "failures": [], "counts": counts}

        model = SimpleNamespace(batch=False, simulator=SimpleNamespace(name="a simulator"))
        walker = SimpleNamespace(simulator="a simulator", model=model, in_process=False)
        monkeypatch.setattr(regression.BuiltWalker, "make", lambda name: walker)
        monkeypatch.setattr(regression, "caching_work", work)
        monkeypatch.setattr(regression, "_CACHED_ACCESSES", {"mmu": asked})
        made = regression.run_regression("icarus", None, ("caches",), 1, designs=("mmu",), say=lambda text: None)
        failures: list[str] = made["failures"]
        return failures

    assert told(300, 300) == []
    assert told(0, 300) == ["a simulator: 0 of 300 accesses to mmu were compared"]
    assert told(299, 299) == ["a simulator: 299 accesses to MMUs that cache, fewer than the 300 promised"]
