"""Sets of page numbers as disjoint ranges."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class PageSet:
    """A set of page numbers, kept as sorted, disjoint, not touching ranges.

    Example
    -------
    ::

        pages = PageSet()
        pages.add(4, 8)
        pages.discard(5, 6)
        assert list(pages.ranges()) == [(4, 5), (6, 8)]
    """

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, start: int, end: int) -> None:
        """Put pages [start, end) in."""
        if start >= end:
            return
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def discard(self, start: int, end: int) -> None:
        """Take pages [start, end) out."""
        if start >= end:
            return
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        if low >= high:
            return
        kept = []
        if self._starts[low] < start:
            kept.append((self._starts[low], start))
        if self._ends[high - 1] > end:
            kept.append((end, self._ends[high - 1]))
        self._starts[low:high] = [s for s, _ in kept]
        self._ends[low:high] = [e for _, e in kept]

    def clear(self) -> None:
        """Take everything out."""
        self._starts.clear()
        self._ends.clear()

    def within(self, start: int, end: int) -> list[tuple[int, int]]:
        """The ranges of the set inside pages [start, end)."""
        low = bisect_right(self._ends, start)
        high = bisect_left(self._starts, end)
        return [(max(start, self._starts[k]), min(end, self._ends[k])) for k in range(low, high)]

    def move(self, start: int, end: int, target: int) -> None:
        """What is in [start, end) leaves and comes in from `target` on; what was there goes."""
        ranges = self.within(start, end)
        self.discard(start, end)
        self.discard(target, target + end - start)
        for first, last in ranges:
            self.add(first - start + target, last - start + target)

    def copy(self) -> PageSet:
        """An independent copy."""
        twin = PageSet()
        twin._starts, twin._ends = list(self._starts), list(self._ends)
        return twin

    def ranges(self) -> Iterator[tuple[int, int]]:
        """The ranges, (first, last + 1), ascending."""
        return iter(zip(self._starts, self._ends, strict=True))

    def __contains__(self, page: int) -> bool:
        position = bisect_right(self._starts, page) - 1
        return position >= 0 and page < self._ends[position]

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._starts)

    def __bool__(self) -> bool:
        return bool(self._starts)
