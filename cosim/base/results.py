"""Results that add: what a run counted, and what failed, with the one command that repeats it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Counts", "Failure"]


@dataclass(frozen=True)
class Failure:
    """One thing that was wrong.

    Attributes
    ----------
    what : str
        What was seen, and what was expected.
    where : str
        The simulator, part, chunk, scenario or step.
    repeat : str
        The one command that repeats it; "" when there is none.
    """

    what: str
    where: str = ""
    repeat: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\nrepeat: {self.repeat}" if self.repeat and "repeat:" not in self.what else text


@dataclass(frozen=True)
class Counts:
    """What was compared; two of them add.

    Attributes
    ----------
    comparisons, mismatches, skipped : int
    numbers : tuple of (str, int)
        Other counts, by name: swaps, words of memory, events, cycles and the like.
    failures : tuple of Failure
        In the order in which they were seen; as many as there are, mismatches are not limited to these.
    """

    comparisons: int = 0
    mismatches: int = 0
    skipped: int = 0
    numbers: tuple[tuple[str, int], ...] = ()
    failures: tuple[Failure, ...] = ()

    @staticmethod
    def of(
        comparisons: int = 0, mismatches: int = 0, skipped: int = 0, failures: Iterable[Failure] = (), **numbers: int
    ) -> Counts:
        """Counts with other counts by keyword."""
        return Counts(comparisons, mismatches, skipped, tuple(sorted(numbers.items())), tuple(failures))

    def __add__(self, other: Counts) -> Counts:
        numbers = dict(self.numbers)
        for name, count in other.numbers:
            numbers[name] = numbers.get(name, 0) + count
        return Counts(
            self.comparisons + other.comparisons,
            self.mismatches + other.mismatches,
            self.skipped + other.skipped,
            tuple(sorted(numbers.items())),
            self.failures + other.failures,
        )

    def __getitem__(self, name: str) -> int:
        """One of the other counts; 0 when it was never counted."""
        return dict(self.numbers).get(name, 0)

    @property
    def ok(self) -> bool:
        """True: something was compared, nothing differs and nothing failed."""
        return self.comparisons > 0 and not self.mismatches and not self.failures

    def as_json(self) -> dict[str, Any]:
        """An object that `from_json` takes."""
        return asdict(self) | {"numbers": dict(self.numbers), "failures": [asdict(one) for one in self.failures]}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Counts:
        """The counts that `as_json` made `value` of."""
        failures = tuple(Failure(**one) for one in value["failures"])
        numbers = tuple(sorted(value["numbers"].items()))
        return Counts(value["comparisons"], value["mismatches"], value["skipped"], numbers, failures)
