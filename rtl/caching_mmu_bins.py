"""What an MMU that caches can meet: its bins of functional coverage.

Sources: SDM 3A 4.10 (caches and their invalidation); what is permitted beyond, docs/mmu.md.
"""

from typing import Final

from ptewalk.model.x86 import Access, Invalidation, Outcome
from ptewalk.rtl.bins import Cross, Excluded

__all__ = ["ANOTHER", "CACHING_MMU", "NO_PAGE", "OF_PAGE", "STATES", "THE_WALKS"]

STATES: Final = ("accepted", "1 read", "2 read", "3 read", "4 read", "5 read", "marked")
"""How far a walk has come: entries that it read, or that its leaf is marked."""
THE_WALKS, ANOTHER, NO_PAGE = "the walk's", "another", "-"
OF_PAGE: Final = (Invalidation.ADDRESS, Invalidation.INVLPG)
"""Invalidations of one page."""
_KINDS: Final = tuple(kind.name for kind in Invalidation)
_LEVELS: Final = ("5", "4", "3", "2", "1")

CACHING_MMU: Final = (
    Cross(
        "mmu-answer",
        (
            ("by", ("hit", "walk")),
            ("outcome", tuple(outcome.name for outcome in Outcome)),
            ("access", tuple(access.name for access in Access)),
        ),
        (Excluded(("hit", "[!O]*", "*"), "no fault rests on anything that is cached"),),
    ),
    Cross(
        "mmu-start",
        (("first read", _LEVELS), ("leaf", ("3", "2", "1"))),
        (
            Excluded(("2", "3"), "a walk goes down"),
            Excluded(("1", "[23]"), "a walk goes down"),
        ),
    ),
    Cross(
        "mmu-invalidation",
        (("kind", _KINDS), ("walk", STATES), ("page", (THE_WALKS, ANOTHER, NO_PAGE))),
        (
            *(Excluded((kind.name, "*", NO_PAGE), "it names a page") for kind in OF_PAGE),
            *(Excluded((kind.name, "*", "[!-]*"), "it names no page") for kind in Invalidation if kind not in OF_PAGE),
        ),
    ),
)
