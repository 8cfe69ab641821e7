"""What a run must have met: asked in proportion, and said in words."""

from __future__ import annotations

import pytest

from ptewalk.cosim.checks.minima import DISCRIMINATING, WHOLE, seen_of

ENOUGH = {
    "hits": 4_000_000,
    "many": 499_999,
    "overtaken": 1000,
    "gateware wraps": 100,
    **dict.fromkeys(DISCRIMINATING, 1000),
    "ALL": 100_000,
}
"""Of `WHOLE` accesses: just so many."""


def missed(counts: dict[str, int], accesses: int) -> list[str]:
    return [str(one) for one in seen_of(counts, accesses) if one.missed]


def test_enough_is_enough() -> None:
    assert missed(ENOUGH, WHOLE) == []
    assert missed({name: 2 * count for name, count in ENOUGH.items()}, 2 * WHOLE) == []


@pytest.mark.parametrize(
    ("name", "seen", "said"),
    [
        ("hits", 3_999_999, "3999999 hits (at least 4000000)"),
        ("many", 500_000, "500000 of several answers (at most 499999)"),
        ("overtaken", 999, "999 overtaken (at least 1000)"),
        ("gateware wraps", 99, "99 slot wraps (at least 100)"),
        *((kind, 999, f"999 discriminating {kind} (at least 1000)") for kind in DISCRIMINATING if kind != "ALL"),
        ("INVLPG", 0, "0 discriminating INVLPG (at least 1000)"),
    ],
)
def test_one_too_few(name: str, seen: int, said: str) -> None:
    assert missed(ENOUGH | {name: seen}, WHOLE) == [said]
    assert name == "many" or missed({key: count for key, count in ENOUGH.items() if key != name}, WHOLE)


def test_a_shorter_run_must_have_met_less_in_proportion() -> None:
    """Beyond the whole no more is asked; shares are of any run the same, but where chance has them."""
    limits = {
        accesses: {one.name: one.least for one in seen_of({}, accesses)} for accesses in (800, 20_000, 10**6, 10**8)
    }
    assert limits[800] == dict.fromkeys(limits[800], 0) | {"hits": 160, "discriminating in all": 8}
    assert (limits[20_000]["hits"], limits[20_000]["overtaken"], limits[20_000]["discriminating PCID"]) == (6_000, 2, 2)
    assert (limits[20_000]["discriminating LA57"], limits[10**6]["discriminating LA57"]) == (0, 100)
    assert (limits[10**6]["hits"], limits[10**6]["slot wraps"]) == (400_000, 10)
    assert limits[10**8]["discriminating INVLPG"] == 1000


def test_nothing_that_was_kept_is_too_few() -> None:
    """An MMU that forgets all at once is permitted everywhere, and its run is none."""
    assert missed({"answers": 800}, 800) == ["0 hits (at least 160)", "0 discriminating in all (at least 8)"]
