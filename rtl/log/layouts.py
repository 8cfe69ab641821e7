"""What the dirty log and its neighbours exchange."""

from enum import IntEnum
from typing import Final

from amaranth.hdl import unsigned
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out, Signature

from ptewalk.model import x86

__all__ = [
    "COUNT_BITS",
    "PML_ENTRIES",
    "SIZES",
    "AppendLayout",
    "LogMode",
    "LogSetupLayout",
    "LogSignature",
    "LogStatusLayout",
    "RecordLayout",
    "RecordPortSignature",
]

SIZES: Final = range(9, 19)
"""Binary logarithms of the sizes of a ring, in records: 512 to 262,144."""
COUNT_BITS: Final = SIZES[-1] + 1
"""Of head and tail: they count records, and wrap round."""
PML_ENTRIES: Final = 512
"""Of a PML buffer, 4 KiB [SDM 3C 29.3.6]."""
_INDEX_BITS: Final = 16
_TIME_BITS: Final = 32


class LogMode(IntEnum):
    """What is written, and where."""

    OFF = 0
    RING = 1
    """Records of `RecordLayout`, upwards, over and over."""
    PML = 2
    """Addresses, downwards from an index, until it passes 0."""


class RecordLayout(data.StructLayout):
    """A record of a ring, 64 bits.

    Members
    -------
    phase : 1
        1 in the first round of a ring, 0 in the next, and so on.
    level : unsigned(3)
        Of the leaf, 1 to 3.
    software, move : 1
        Software appended it; `move` is 0.
    tag_low, tag_high : unsigned(6), unsigned(7)
        Together, the low ones first: PCID, then the parity of the epoch.
    page : unsigned(45)
        Bits 56:12 of the linear address.
    """

    def __init__(self) -> None:
        low = {"phase": 1, "level": 3, "software": 1, "move": 1, "tag_low": 6}
        super().__init__({**low, "page": x86.LINEAR_BITS[x86.LEVELS_5] - x86.PAGE_SHIFT, "tag_high": 7})


class AppendLayout(data.StructLayout):
    """What software appends: an address, in bytes, and the level of its leaf."""

    def __init__(self) -> None:
        super().__init__({"linear": unsigned(64), "level": unsigned(3)})


class LogSetupLayout(data.StructLayout):
    """How the log goes on: it begins anew, at the first record.

    Members
    -------
    mode : LogMode
    base : unsigned(physical_bits - 12)
        Frame number of the first byte.
    size : unsigned(5)
        Binary logarithm of a ring's records, of `SIZES`; another one is refused.
    stalls : 1
        A mark waits while the ring is full. 0: it goes on without a record at once.
    time_out : unsigned(32)
        Cycles after which it goes on all the same; 0: never.
    watermark : unsigned(COUNT_BITS)
        Records from which on `watermark` is told; 0: never.
    index : unsigned(16)
        Of the first entry of a PML buffer; beyond 511 there is no room.
    """

    def __init__(self, physical_bits: int) -> None:
        super().__init__(
            {
                "mode": LogMode,
                "base": unsigned(physical_bits - x86.PAGE_SHIFT),
                "size": unsigned(5),
                "stalls": 1,
                "time_out": unsigned(_TIME_BITS),
                "watermark": unsigned(COUNT_BITS),
                "index": unsigned(_INDEX_BITS),
            }
        )


class LogStatusLayout(data.StructLayout):
    """What software must see. `watermark` and `stalled` go with their cause, the others are held until cleared.

    Members
    -------
    watermark : 1
        As many records as that wait for software.
    stalled : 1
        A mark waits for room.
    timed_out : 1
        One waited for too long, and went on.
    overflow : 1
        A page was marked and has no record. While it is held, no mark waits for room.
    incomplete : 1
        Whether a page was marked, or its record written, is not known.
    refused : 1
        A setup's size or mode was none: the log is off.
    """

    def __init__(self) -> None:
        names = ("watermark", "stalled", "timed_out", "overflow", "incomplete", "refused")
        super().__init__(dict.fromkeys(names, 1))


class LogSignature(Signature):
    """What software sees of the log, seen from the log.

    Parameters
    ----------
    physical_bits : int
        Width of an address.

    Members
    -------
    setups : In(stream of LogSetupLayout)
        One is taken when no mark is on its way and every record is written; marks wait while one is on offer.
    appends : In(stream of AppendLayout)
        Taken when there is room, never while the log is off.
    head : In(COUNT_BITS)
        Records that software is done with; it may be changed at any time.
    epoch : In(1)
        Parity of the epoch, of records from now on.
    tail : Out(COUNT_BITS)
        Records written. Those from `head` to it are there.
    index : Out(16)
        Of the next entry of a PML buffer.
    status : Out(LogStatusLayout), clear : In(LogStatusLayout)
        Clears the bits of `status` that are 1 here; one that is raised in the same cycle stays.
    lost : Out(64)
        Address of the first mark without a record since `overflow` was cleared.
    """

    def __init__(self, physical_bits: int) -> None:
        super().__init__(
            {
                "setups": In(stream.Signature(LogSetupLayout(physical_bits))),
                "appends": In(stream.Signature(AppendLayout())),
                "head": In(COUNT_BITS),
                "epoch": In(1),
                "tail": Out(COUNT_BITS),
                "index": Out(_INDEX_BITS),
                "status": Out(LogStatusLayout()),
                "clear": In(LogStatusLayout()),
                "lost": Out(64),
            }
        )


class RecordPortSignature(Signature):
    """The port by which records are written, seen from the log.

    Answers may come in any order, a cycle after the write was taken at the earliest, and are always taken.

    Parameters
    ----------
    physical_bits : int
        Width of an address.
    id_bits : int
        Of what tells writes in flight apart.

    Members
    -------
    writes : Out(stream of {address, value, id})
        64 bits, at an address that is a multiple of 8.
    written : In(stream of {error, id}, always ready)
        One per write. `error`: the bus refused.
    """

    def __init__(self, physical_bits: int, id_bits: int) -> None:
        identity = {"id": unsigned(id_bits)}
        write = data.StructLayout({"address": unsigned(physical_bits), "value": unsigned(64), **identity})
        super().__init__(
            {
                "writes": Out(stream.Signature(write)),
                "written": In(stream.Signature(data.StructLayout({"error": 1, **identity}), always_ready=True)),
            }
        )
