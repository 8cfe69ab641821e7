"""What a chunk of a campaign gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ptewalk.cosim.base.results import Counts
from ptewalk.cosim.runs.workers import Chunk

__all__ = ["Told", "Work"]


@dataclass(frozen=True)
class Told:
    """What a chunk gave.

    Attributes
    ----------
    counts : Counts
        Without a line that repeats them in its failures: only the campaign knows it.
    kept : str
        What is left of a failure for a file of its own: a scenario, reduced, as text; "" for nothing.
    bins : mapping
        Name of a bin of functional coverage (`checks.covered`) to how often it was met.
    points : mapping
        Name of a statement or branch of the gateware (`rtl.points`) to 1 where it was in force, else 0.
    toggles : mapping
        Name of a signal of the gateware to (its width, its bits that rose and fell).
    """

    counts: Counts
    kept: str = ""
    bins: Mapping[str, int] = field(default_factory=dict)
    points: Mapping[str, int] = field(default_factory=dict)
    toggles: Mapping[str, tuple[int, int]] = field(default_factory=dict)


Work = Callable[[Chunk], Told]
"""What is done with a chunk."""
