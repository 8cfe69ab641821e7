"""What a table engine beside an MMU can meet: its bins of functional coverage.

Sources: docs/engine.md (what a command does to which entry); asm/pgtable.h and asm/pgtable_64.h (kinds of entries).
"""

from typing import Final

from ptewalk.rtl.bins import Cross, Excluded

__all__ = ["CHANGED", "COMMANDS", "ENTRIES", "SWAPPED", "TABLE_ENGINE"]

COMMANDS: Final = ("clear", "look", "move")
"""clear_refs 4, which reports what it took; the same without a change; entries of one range to another."""
ENTRIES: Final = (
    *("none", "writable", "writable SD", "read-only", "read-only SD"),
    *("PROT_NONE", "PROT_NONE SD", "swap", "swap SD"),
)
"""Kinds of entries of level 1, and whether they are soft-dirty."""
SWAPPED: Final = ("done", "failed")
CHANGED: Final = ("nothing", "A", "D", "SD", "SPECIAL", "other")
"""What somebody else changed of a line that the engine had read and could not swap."""
_TAKEN: Final = "what is not soft-dirty stays as it is"

TABLE_ENGINE: Final = (
    Cross("engine-entry", (("command", COMMANDS), ("entry", ENTRIES))),
    Cross(
        "engine-swap",
        (("command", COMMANDS), ("entry", ENTRIES), ("ends", SWAPPED)),
        (
            Excluded(("look", "*", "*"), "a look swaps nothing"),
            Excluded(("clear", "none", "*"), _TAKEN),
            *(Excluded(("clear", kind.removesuffix(" SD"), "*"), _TAKEN) for kind in ENTRIES if kind.endswith(" SD")),
        ),
    ),
    Cross(
        "engine-overtaken",
        (("command", COMMANDS), ("changed", CHANGED)),
        (
            Excluded(("look", "*"), "a look swaps nothing"),
            Excluded(("*", "other"), "of an entry that is in use nobody else changes its rights or its frame"),
        ),
    ),
)
