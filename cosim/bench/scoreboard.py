"""The scoreboard: what the gateware gave beside what the model says, and silence counted as failure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from ptewalk.cosim.bench.records import Records, describe_record

__all__ = ["Scoreboard", "ScoreboardError"]


class ScoreboardError(AssertionError):
    """The comparison failed; the text shows how, and how to repeat it."""


class Scoreboard:
    """Compares records in order, whichever side comes first.

    Feed `capture` from monitors of the outputs, and `expect` with what the model says to the inputs that monitors saw.

    Parameters
    ----------
    name : str
        What is compared.
    promised : int
        Fewer comparisons than this are a failure.
    repeat : str
        The one command that repeats this run; printed with a failure.
    shown : int
        How many mismatches are kept to be shown.
    """

    def __init__(self, name: str, *, promised: int, repeat: str, shown: int = 5) -> None:
        if promised < 1:
            raise ValueError(
                f"promised must be at least 1, not {promised!r}: a scoreboard that compares nothing passes"
            )
        self.name = name
        self.promised = promised
        self.repeat = repeat
        self.comparisons = 0
        """Pairs compared."""
        self.mismatches = 0
        """Pairs that differ."""
        self._shown = shown
        self._captured: deque[np.void] = deque()
        self._expected: deque[tuple[np.void, Mapping[str, Any] | None]] = deque()
        self._reports: list[str] = []
        self._troubles: list[str] = []

    def capture(self, record: np.void) -> None:
        """An output, as a monitor saw it."""
        self._captured.append(record)
        self._match()

    def expect(self, record: np.void, context: Mapping[str, Any] | None = None) -> None:
        """What the model says comes next; `context` is shown with a mismatch."""
        self._expected.append((record, context))
        self._match()

    def compare(self, captured: Records, expected: Records, context: Records | None = None) -> None:
        """Compare two arrays of one record type, element by element; what one has more than the other is left over.

        `context` has a record for each of `expected`, for example the request.
        """
        if self._captured or self._expected:
            raise RuntimeError("compare() must not be called while records wait for their counterparts")
        if captured.dtype != expected.dtype:
            raise TypeError(
                f"captured and expected must be of one record type, not {captured.dtype} and {expected.dtype}"
            )
        both = min(len(captured), len(expected))
        differs = np.zeros(both, bool)
        for name in captured.dtype.names or ():
            if name != "reserved":
                differs |= captured[name][:both] != expected[name][:both]
        self.comparisons += both
        self.mismatches += int(differs.sum())
        for index in np.flatnonzero(differs)[: max(0, self._shown - len(self._reports))]:
            shown = None if context is None else describe_record(context[index])
            self._report(captured[index], expected[index], shown, self.comparisons - both + int(index))
        self._captured.extend(captured[both:])
        self._expected.extend((row, None) for row in expected[both:])

    def timed_out(self, what: str) -> None:
        """Something that had to happen did not; a failure."""
        self._troubles.append(f"timeout: {what}")

    def finish(self) -> int:
        """The end of the run: the number of comparisons.

        Raises
        ------
        ScoreboardError
            A pair differs, a record has no counterpart, something timed out, or there were too few comparisons.
        """
        troubles = list(self._troubles)
        if self.mismatches:
            troubles.append(f"{self.mismatches} of {self.comparisons} differ")
        for rows, side in (
            (list(self._captured), "captured, never expected"),
            ([row for row, _ in self._expected], "expected, never captured"),
        ):
            if rows:
                troubles.append(f"{len(rows)} {side}, the first: {describe_record(rows[0])}")
        if self.comparisons < self.promised:
            troubles.append(f"{self.comparisons} comparisons, fewer than the {self.promised} promised")
        if troubles:
            lines = [f"scoreboard {self.name}: {'; '.join(troubles)}", *self._reports, f"repeat: {self.repeat}"]
            raise ScoreboardError("\n".join(lines))
        return self.comparisons

    def _match(self) -> None:
        while self._captured and self._expected:
            captured = self._captured.popleft()
            expected, context = self._expected.popleft()
            self.comparisons += 1
            if describe_record(captured) != describe_record(expected):
                self.mismatches += 1
                if len(self._reports) < self._shown:
                    self._report(captured, expected, context, self.comparisons - 1)

    def _report(self, captured: np.void, expected: np.void, context: Mapping[str, Any] | None, index: int) -> None:
        left, right = describe_record(captured), describe_record(expected)
        rows = [("", "Captured", "Expected", "Match?")]
        for name in left | right:
            a, b = str(left.get(name, "-")), str(right.get(name, "-"))
            rows.append((name, a, b, "yes" if a == b else "NO"))
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        if context:
            lines.insert(0, "  ".join(f"{key}={value}" for key, value in context.items()))
        self._reports.append("\n".join([f"comparison {index}:", *(f"  {line}" for line in lines)]))
