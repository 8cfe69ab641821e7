"""Canonical numbers of frames, tables and swap slots, and how those of two runs are compared.

Scanned in order, what was seen at the previous step keeps its number, anything else gets the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Numbering:
    """Canonical numbers of one kind of thing (frames, tables or slots)."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._next = 1

    def number(self, things: Iterable[int], taken: dict[int, int] | None = None) -> dict[int, int]:
        """The numbers of what is seen at this step, in scan order.

        Parameters
        ----------
        taken : dict or None
            New thing to the old one, gone by now, whose place in memory the recorded machine gave it.
        """
        known, now = self._known, {}
        for thing in things:
            if thing not in now:
                found = known.get(thing)
                if found is None and taken and thing in taken:
                    found = known.get(taken[thing])
                if found is None:
                    found = self._next
                    self._next += 1
                now[thing] = found
        self._known = now
        return now

    def owners(self) -> dict[int, int]:
        """Number to the thing that had it at the last step."""
        return {number: thing for thing, number in self._known.items()}


class FrameNumbers:
    """Canonical numbers of frames, by arrays: as `Numbering`, for millions."""

    def __init__(self) -> None:
        self._ids: NDArray[np.int64] = np.zeros(0, np.int64)
        self._few: dict[int, int] | None = None
        """Instead of `_ids`, after a step that saw few."""
        self._next = 1

    def number(self, order: NDArray[np.int64], total: int, taken: dict[int, int]) -> NDArray[np.int64]:
        """Frame number to canonical number, 0 where a frame is not seen.

        Parameters
        ----------
        order : int64 array
            The frames that are seen, in scan order.
        total : int
            All frame numbers are below it.
        taken : dict
            As `Numbering.number`.
        """
        old = np.zeros(total, np.int64)
        if self._few is None:
            old[: len(self._ids)] = self._ids
        elif self._few:
            old[list(self._few)] = list(self._few.values())
        self._few = None
        for new, gone in taken.items():
            old[new] = old[gone]
        now = np.zeros(total, np.int64)
        known = old[order]
        now[order] = known
        missing = order[known == 0]
        if len(missing):
            first = np.unique(missing, return_index=True)[1]
            fresh = missing[np.sort(first)]
            now[fresh] = np.arange(self._next, self._next + len(fresh))
            self._next += len(fresh)
        self._ids = now
        return now

    def number_few(self, order: Sequence[int], taken: Mapping[int, int]) -> dict[int, int]:
        """As `number`, of few frames, without those that are not seen."""
        known, now = self._known(), {}
        for frame in order:
            if frame not in now:
                found = known.get(taken.get(frame, frame))
                if found is None:
                    found = self._next
                    self._next += 1
                now[frame] = found
        self._few = now
        return now

    def _known(self) -> dict[int, int]:
        """Frame to number."""
        if self._few is not None:
            return self._few
        frames = np.flatnonzero(self._ids)
        return dict(zip(frames.tolist(), self._ids[frames].tolist(), strict=True))

    def owners(self) -> dict[int, int]:
        """Number to the frame that had it at the last step."""
        if self._few is not None:
            return {number: frame for frame, number in self._few.items()}
        frames = np.flatnonzero(self._ids)
        return dict(zip(self._ids[frames].tolist(), frames.tolist(), strict=True))


_PLACE = itemgetter(0, 1)
"""Level and page of an entry that points to a table."""


class TableIds:
    """Which table of a replay is which table of the recording.

    Canonical numbers depend on the order in which the tables of a step are listed; what counts is that one table is the
    same one throughout: the pairs found must be one to one over the whole scenario.
    """

    def __init__(self) -> None:
        self._expected: dict[int, int] = {}
        self._captured: dict[int, int] = {}
        self._equal: set[int] = set()
        """Those that are found to be themselves."""

    def match(self, captured: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> bool:
        """Do two lists of [level, page, flags, id] name the same entries with the same flags, and tables one to one?"""
        if captured == expected and self._equal.issuperset([row[3] for row in captured]):
            return True  # as mostly: the same numbers, which are known as such
        if len(captured) != len(expected):
            return False
        for row, other in zip(sorted(captured, key=_PLACE), sorted(expected, key=_PLACE), strict=True):
            if row[:3] != other[:3]:
                return False
            if not self.pair(row[3], other[3]):
                return False
        return True

    def pair(self, number: int, wanted: int) -> bool:
        """May this table be that one of the recording?"""
        if number in self._equal and number == wanted:
            return True
        if self._expected.setdefault(number, wanted) != wanted or self._captured.setdefault(wanted, number) != number:
            return False
        if number == wanted:
            self._equal.add(number)
        return True
