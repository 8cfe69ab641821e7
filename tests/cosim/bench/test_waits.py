"""What the testbench says of invalidations that wait: sequences made by hand, right and wrong."""

import pytest

from ptewalk.cosim.bench.waits import WaitRules
from ptewalk.model.x86 import Wait

NONE, STORES, ALL = Wait


def play(*events: tuple[object, ...]) -> tuple[list[str | None], WaitRules]:
    """What each completion is told."""
    rules = WaitRules()
    told = []
    for what, *rest in events:
        match what:
            case "ask":
                rules.accepted(*rest)
            case "store" | "read":
                rules.answered(*rest, granted=True, store=what == "store")
            case "no":
                rules.answered(*rest, granted=False, store=False)
            case "retire":
                rules.retired(*rest)
            case "wait":
                rules.invalidated(*rest)
            case "complete":
                told.append(rules.completed(*rest))
    return told, rules


@pytest.mark.parametrize(
    "events",
    [
        [("wait", STORES), ("complete", STORES)],
        [("ask", 1), ("wait", ALL), ("no", 1), ("complete", ALL)],
        [("ask", 1), ("store", 1), ("wait", STORES), ("retire", 1), ("complete", STORES)],
        [("ask", 1), ("wait", STORES), ("store", 1), ("retire", 1), ("complete", STORES)],
        [("ask", 1), ("wait", STORES), ("read", 1), ("complete", STORES)],
        [("ask", 1), ("read", 1), ("wait", STORES), ("complete", STORES)],
        [("ask", 1), ("read", 1), ("wait", ALL), ("retire", 1), ("complete", ALL)],
        [("wait", STORES), ("ask", 1), ("store", 1), ("complete", STORES)],
        [("wait", STORES), ("wait", ALL), ("complete", STORES), ("complete", ALL)],
        [("ask", 1), ("wait", ALL), ("no", 1), ("ask", 1), ("complete", ALL)],
    ],
)
def test_what_is_complete(events: list[tuple[object, ...]]) -> None:
    told, rules = play(*events)
    assert set(told) == {None} and rules.waiting == 0


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([("ask", 1), ("wait", ALL), ("complete", ALL)], "before what it waits for: tags [1]"),
        ([("ask", 1), ("store", 1), ("wait", STORES), ("complete", STORES)], "before what it waits for: tags [1]"),
        ([("ask", 1), ("wait", STORES), ("store", 1), ("complete", STORES)], "before what it waits for: tags [1]"),
        ([("ask", 1), ("read", 1), ("wait", ALL), ("complete", ALL)], "before what it waits for: tags [1]"),
        ([("ask", 1), ("wait", ALL), ("read", 1), ("complete", ALL)], "before what it waits for: tags [1]"),
        ([("wait", STORES), ("complete", ALL)], "that waits for STORES was complete as one that waits for ALL"),
        ([("wait", NONE), ("complete", STORES)], "an invalidation was complete that did not wait"),
        ([("wait", STORES), ("complete", STORES), ("complete", STORES)], "complete that did not wait"),
    ],
)
def test_what_is_complete_too_early(events: list[tuple[object, ...]], text: str) -> None:
    told, _ = play(*events)
    assert text in str(told[-1])


def test_what_is_counted() -> None:
    told, rules = play(("wait", ALL), ("ask", 1), ("no", 1), ("complete", ALL), ("ask", 2))
    assert told == [None]
    assert rules.counts == {"completed all": 1, "accepted beside a wait": 1}
