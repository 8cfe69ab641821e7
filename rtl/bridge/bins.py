"""What the translating bridge can meet: its bins of functional coverage.

Sources: docs/bridge.md (which bursts pass, and what a clear waits for); AXI4 A3.4.1 (kinds of bursts, the 4 KiB rule).
"""

from typing import Final

from ptewalk.rtl.bins import Cross, Excluded

__all__ = ["ASKS", "BRIDGE", "BURSTS", "CONDITIONS", "DONE", "ENDS", "HAPPENED", "PAGES", "UNDER_WAY"]

ASKS: Final = ("read", "write", "write of nothing")
"""The last has no strobe in any beat."""
BURSTS: Final = ("FIXED", "INCR", "WRAP")
PAGES: Final = ("mapped", "unmapped", "read-only", "broken", "forbidden")
"""Where a burst goes: memory answers with an error where it is broken; AXI forbids a burst that leaves its page."""
ENDS: Final = ("OKAY", "SLVERR")
DONE: Final = ("clear, stores", "clear, all", "unmap")
"""What software does to a page, and which bursts its invalidation waits for; that of an unmapping waits for all."""
UNDER_WAY: Final = ("none", "reads", "writes", "both")
"""Bursts to that page at that time."""
CONDITIONS: Final = (
    *("at full speed", "one channel stalls", "slow memory", "in any order", "erring memory"),
    *("few reservations", "no monitor", "stalled faults", "reset in the middle"),
)
HAPPENED: Final = (
    "answered",
    "refused",
    "illegal",
    "marked_stores",
    "cleared",
    "failed_swaps",
    "refused_reads",
    "records",
)
"""By the names of `BridgeRun.counts`."""

BRIDGE: Final = (
    Cross(
        "bus-burst",
        (("asks", ASKS), ("burst", BURSTS), ("page", PAGES), ("ends", ENDS)),
        (
            Excluded(("*", "FIXED", "forbidden", "*"), "beats to one address leave no page"),
            Excluded(
                ("*", "WRAP", "forbidden", "*"), "an aligned burst that wraps leaves no page, and no other is sent"
            ),
            Excluded(("*", "*", "forbidden", "OKAY"), "what AXI forbids is refused"),
            Excluded(("*", "*", "unmapped", "OKAY"), "nothing is mapped there"),
            Excluded(("write*", "*", "read-only", "OKAY"), "the right to write is asked for, whatever the strobes are"),
            Excluded(
                ("write of nothing", "*", "broken", "*"), "memory is not asked, so that it is a page that is mapped"
            ),
            Excluded(("read", "*", "broken", "OKAY"), "memory answers with an error"),
            Excluded(("write", "*", "broken", "OKAY"), "memory answers with an error"),
        ),
    ),
    Cross("bus-clear", (("does", DONE), ("under way", UNDER_WAY))),
    Cross(
        "bus-condition",
        (("condition", CONDITIONS), ("happened", HAPPENED)),
        (
            Excluded(("no monitor", "marked_stores"), "without a monitor no swap is done, and so no page is marked"),
            Excluded(("no monitor", "cleared"), "without a monitor no swap is done, and so no page is marked"),
            Excluded(("no monitor", "failed_swaps"), "without a monitor no swap is tried"),
            *(
                Excluded((condition, "refused_reads"), "memory refuses no reservation")
                for condition in CONDITIONS
                if condition not in ("few reservations", "no monitor")
            ),
        ),
    ),
)
