"""Functional coverage: what a component can meet, as data that stand beside it.

A cross has axes, each with values by name; a bin is one value of each. What cannot be met is excluded by name, with
the reason. Bins are counted elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product

__all__ = ["Cross", "Excluded"]


@dataclass(frozen=True)
class Excluded:
    """Bins that cannot be met.

    Attributes
    ----------
    values : tuple of str
        For each axis a pattern (fnmatch): of the values that are meant.
    reason : str
    """

    values: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Cross:
    """Bins: every value of one axis with every value of the others.

    Attributes
    ----------
    name : str
    axes : tuple of (str, tuple of str)
        Name and values of each.
    excluded : tuple of Excluded
    """

    name: str
    axes: tuple[tuple[str, tuple[str, ...]], ...]
    excluded: tuple[Excluded, ...] = ()

    def bins(self) -> Iterator[tuple[str, ...]]:
        """All of them, the excluded ones too, the last axis fastest."""
        return product(*(values for _, values in self.axes))

    def why_excluded(self, values: tuple[str, ...]) -> str | None:
        """The reason why a bin cannot be met; None: it can."""
        for one in self.excluded:
            if all(map(fnmatchcase, values, one.values)):
                return one.reason
        return None

    def wanted(self) -> list[tuple[str, ...]]:
        """The bins that can be met."""
        return [values for values in self.bins() if self.why_excluded(values) is None]
