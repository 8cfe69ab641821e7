"""Bins of functional coverage: what a cross is, and that those of walker and MMU say no more than is so."""

from __future__ import annotations

import pytest

from ptewalk.rtl.bins import Cross, Excluded
from ptewalk.rtl.bridge.bins import BRIDGE
from ptewalk.rtl.caching_mmu_bins import CACHING_MMU
from ptewalk.rtl.engine.table_engine_bins import TABLE_ENGINE
from ptewalk.rtl.walker_bins import WALKER

CROSSES = WALKER + CACHING_MMU + TABLE_ENGINE + BRIDGE


def test_a_cross_is_every_combination_but_those_that_are_excluded() -> None:
    cross = Cross(
        "c", (("a", ("x", "y")), ("b", ("1", "2", "3"))), (Excluded(("x", "[12]"), "one"), Excluded(("x", "*"), "two"))
    )
    assert [a + b for a, b in cross.bins()] == ["x1", "x2", "x3", "y1", "y2", "y3"]
    assert cross.wanted() == [("y", "1"), ("y", "2"), ("y", "3")]
    assert [cross.why_excluded(values) for values in (("x", "1"), ("x", "3"), ("y", "1"))] == ["one", "two", None]


@pytest.mark.parametrize("cross", CROSSES, ids=lambda cross: cross.name)
def test_each_exclusion_excludes_something_and_has_a_reason(cross: Cross) -> None:
    for one in cross.excluded:
        alone = Cross(cross.name, cross.axes, (one,))
        assert one.reason and len(one.values) == len(cross.axes)
        assert 0 < len(alone.wanted()) < len(list(alone.bins())), one


@pytest.mark.parametrize(
    ("name", "bins", "wanted"),
    [
        ("answer", 7 * 6 * 5, 15 + 5 + 5 * (5 + 5 + 5) + 15 + 12),
        ("who", 7 * 5 * 4, 140 - 7 - 3 - 1),
        ("control", 7 * 16, 112),
        ("swap", 5 * 15 * 3, 3 * 15 * 3 + 2 * 3),
        ("overtaken", 5 * 13, 65),
        ("mmu-answer", 2 * 4 * 5, 5 + 20),
        ("mmu-start", 5 * 3, 3 + 4 + 5),
        ("mmu-invalidation", 5 * 7 * 3, 7 * (2 + 2 + 1 + 1 + 1)),
        ("engine-entry", 3 * 9, 27),
        ("engine-swap", 3 * 9 * 2, (4 + 9) * 2),
        ("engine-overtaken", 3 * 6, 2 * 5),
        ("bus-burst", 3 * 3 * 5 * 2, 3 * (3 * 2 + 3 * 1 + 2 + 1 + 1 + 1 + 1) + 3 * 1),
        ("bus-clear", 3 * 4, 12),
        ("bus-condition", 9 * 8, 9 * 7 + 2 - 3),
    ],
)
def test_the_bins_by_hand(name: str, bins: int, wanted: int) -> None:
    """Counted by hand: leaves at levels 1 to 3, what is absent, reserved or refused at each; keys but on fetches."""
    (cross,) = (one for one in CROSSES if one.name == name)
    assert (len(list(cross.bins())), len(cross.wanted())) == (bins, wanted)
