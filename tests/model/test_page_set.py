"""Sets of pages, against Python's own sets."""

from __future__ import annotations

import random

from ptewalk.model.page_set import PageSet


def members(pages: PageSet) -> set[int]:
    return {page for start, end in pages.ranges() for page in range(start, end)}


def test_against_plain_sets() -> None:
    rng = random.Random(1)
    for _ in range(200):
        pages, plain = PageSet(), set[int]()
        for _ in range(40):
            start = rng.randrange(60)
            end = start + rng.randrange(12)
            verb = rng.choice(("add", "add", "discard", "move"))
            if verb == "add":
                pages.add(start, end)
                plain |= set(range(start, end))
            elif verb == "discard":
                pages.discard(start, end)
                plain -= set(range(start, end))
            else:
                target = 100 + rng.randrange(60)
                moved = {p - start + target for p in plain if start <= p < end}
                pages.move(start, end, target)
                plain -= set(range(start, end)) | set(range(target, target + end - start))
                plain |= moved
            assert members(pages) == plain
            assert len(pages) == len(plain)
            assert bool(pages) == bool(plain)
            assert (start in pages) == (start in plain)
            low, high = sorted((rng.randrange(70), rng.randrange(70)))
            inside = {p for a, b in pages.within(low, high) for p in range(a, b)}
            assert inside == {p for p in plain if low <= p < high}
        ranges = list(pages.ranges())
        assert all(a[1] < b[0] for a, b in zip(ranges, ranges[1:], strict=False)), "ranges neither touch nor overlap"


def test_copy_is_independent() -> None:
    pages = PageSet()
    pages.add(1, 5)
    twin = pages.copy()
    twin.clear()
    assert list(pages.ranges()) == [(1, 5)] and not twin
