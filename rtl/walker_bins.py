"""What the page walker can meet: its bins of functional coverage.

Sources: SDM 3A 4.5 (levels), 4.6 (rights and keys), 4.7 (faults), 4.8 (A and D); what marks, docs/walker.md.
"""

from typing import Final

from ptewalk.model.x86 import Access, Control
from ptewalk.rtl.bins import Cross, Excluded

__all__ = ["CAUSES", "CHANGES", "MADE", "NO_LEVEL", "OVERTAKEN", "WALKER", "WHO"]

NO_LEVEL: Final = "-"
CAUSES: Final = ("OK", "NOT_CANONICAL", "NOT_PRESENT", "RESERVED", "RIGHTS", "KEY", "BUS_ERROR")
"""How a walk ends: what the error code of a page fault says is the cause [SDM 3A 4.7]."""
WHO: Final = ("user", "supervisor", "supervisor AC", "implicit")
"""Whose access: with EFLAGS.AC supervisor's data accesses pass SMAP; implicit ones never do [SDM 3A 4.6.1]."""
_LEVELS: Final = ("5", "4", "3", "2", "1")
_ACCESSES: Final = tuple(access.name for access in Access)
_CONTROLS: Final = tuple(f"{bit.name}={value}" for bit in Control if bit != Control.AC for value in (0, 1))
CHANGES: Final = (
    *("A", "D", "SD", "D SD", "A D", "A SD", "A D SD"),
    *("RW", "RW D", "RW SD", "RW D SD", "A RW", "A RW D", "A RW SD", "A RW D SD"),
)
"""Bits that a swap of the walker's sets."""
MADE: Final = ("done", "failed", "refused")
"""How a swap ends: refused by the bus."""
OVERTAKEN: Final = ("P", "RW", "US", "A", "D", "PS", "XD", "SD", "ARM", "SAVED_DIRTY", "SPECIAL", "frame", "key")
"""What somebody else changed of an entry that the walker wanted to swap."""

WALKER: Final = (
    Cross(
        "answer",
        (("cause", CAUSES), ("level", (*_LEVELS, NO_LEVEL)), ("access", _ACCESSES)),
        (
            Excluded(("NOT_CANONICAL", "[1-5]", "*"), "no entry is read for such an address"),
            Excluded(("[!N]*", NO_LEVEL, "*"), "what is decided by no entry is that an address is not canonical"),
            Excluded(("NOT_PRESENT", NO_LEVEL, "*"), "what is decided by no entry is that an address is not canonical"),
            Excluded(("OK", "[45]", "*"), "no page is that large"),
            Excluded(("RIGHTS", "[45]", "*"), "rights are decided at the leaf, and no page is that large"),
            Excluded(("KEY", "[45]", "*"), "only a leaf has a key"),
            Excluded(("KEY", "*", "FETCH"), "keys restrict data accesses alone [SDM 3A 4.6.2]"),
        ),
    ),
    Cross(
        "who",
        (("cause", CAUSES), ("access", _ACCESSES), ("who", WHO)),
        (
            Excluded(("KEY", "FETCH", "*"), "keys restrict data accesses alone [SDM 3A 4.6.2]"),
            Excluded(("RIGHTS", "READ", "supervisor AC"), "SMAP alone denies a supervisor a load, and AC lets it pass"),
            Excluded(("*", "FETCH", "implicit"), "implicit accesses are to data [SDM 3A 4.6]"),
        ),
    ),
    Cross("control", (("cause", CAUSES), ("bit", _CONTROLS))),
    Cross(
        "swap",
        (("level", _LEVELS), ("sets", CHANGES), ("ends", MADE)),
        (
            Excluded(("[45]", "[!A]*", "*"), "an upper entry has no mark but A"),
            Excluded(("[45]", "A ?*", "*"), "an upper entry has no mark but A"),
        ),
    ),
    Cross("overtaken", (("level", _LEVELS), ("changed", OVERTAKEN))),
)
