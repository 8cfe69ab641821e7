"""What a run of random accesses to an MMU that caches must have met: one that did not could not have failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ptewalk.cosim.checks.staleness import KINDS

__all__ = ["DISCRIMINATING", "WHOLE", "Seen", "seen_of"]

WHOLE: Final = 10_000_000
"""Accesses of a run of which all is asked; of a shorter one less, in proportion."""
DISCRIMINATING: Final = (*KINDS, "OTHER_PCID")
"""Kinds of events by which answers differ: as `GoldenTlb.counts` has them."""
_EACH, _OVERTAKEN, _WRAPS = 1_000, 1_000, 100
_IN_CLUMPS: Final = ("LA57",)
"""Kinds that come in clumps: of a run that is not long none is asked."""
_LONG, _SHORT = 200_000, 10_000
"""From so many accesses on shares are those of the whole run, as chance has it no more; and below, of any run."""


@dataclass(frozen=True)
class Seen:
    """What was seen of one thing, and what had to be.

    Parameters
    ----------
    name : str
    seen, of : int
        So many, of so many accesses.
    least : int
    most : int, optional
        None: any number.
    """

    name: str
    seen: int
    of: int
    least: int
    most: int | None = None

    @property
    def missed(self) -> bool:
        """It was too few, or too many."""
        return self.seen < self.least or (self.most is not None and self.seen > self.most)

    def __str__(self) -> str:
        if self.most is None and not self.least:
            return f"{self.seen} {self.name}"
        bound = f"at least {self.least}" if self.most is None else f"at most {self.most}"
        return f"{self.seen} {self.name} ({bound})"


def seen_of(counts: Mapping[str, int], accesses: int) -> list[Seen]:
    """Each thing that a run of so many accesses must have met.

    Parameters
    ----------
    counts : mapping
        As `checks.caching.CachingVerdict.counts`.
    accesses : int

    Returns
    -------
    list of Seen
        Hits, answers of several permitted, overtaken walks, rounds of the PCID slots, and of each of
        `DISCRIMINATING` the answers that would have been others without it.
    """
    if accesses >= _LONG:
        hits, several = 0.4, 0.05
    elif accesses >= _SHORT:
        hits, several = 0.3, 0.1
    else:
        hits, several = 0.2, 0.3

    def one(name: str, key: str, least: int) -> Seen:
        rare = key in _IN_CLUMPS and accesses < _LONG
        return Seen(name, counts.get(key, 0), accesses, 0 if rare else min(least, least * accesses // WHOLE))

    return [
        Seen("hits", counts.get("hits", 0), accesses, int(hits * accesses)),
        Seen("of several answers", counts.get("many", 0), accesses, 0, int(several * accesses) - 1),
        one("overtaken", "overtaken", _OVERTAKEN),
        one("slot wraps", "gateware wraps", _WRAPS),
        *(one(f"discriminating {kind}", kind, _EACH) for kind in DISCRIMINATING),
        Seen("discriminating in all", sum(counts.get(kind, 0) for kind in DISCRIMINATING), accesses, accesses // 100),
    ]
