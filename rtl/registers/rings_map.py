"""The part of the map of registers that is of rings of the table engine."""

from typing import Final

from ptewalk.rtl.registers.table import Access, Field, Register, word

__all__ = ["RINGS"]

RO, RW = Access.RO, Access.RW
_COUNT: Final = "Counts modulo 2^16."

RINGS: Final = (
    Register("RING_BASE_LO", 0x1A0, word(RW, "Bits 31:12 of its address.", 12, 20), "Staged: the ring of descriptors."),
    Register("RING_BASE_HI", 0x1A4, word(RW, "Bits 51:32 of it.", 0, 20), "Staged: the ring of descriptors."),
    Register(
        "RING",
        0x1A8,
        (
            Field("size", 0, 4, RW, "Binary logarithm of its descriptors, of 64 bytes each."),
            Field("done_size", 16, 4, RW, "Of the completions that the other ring holds, of 32 bytes each."),
        ),
        "Staged: the sizes of both.",
    ),
    Register("RING_HEAD", 0x1AC, word(RW, _COUNT, 0, 16), "Descriptors that software gave; it may grow at any time."),
    Register(
        "RING_TAIL",
        0x1B0,
        (
            Field("value", 0, 16, RO, "Descriptors that are done."),
            Field(
                "told",
                16,
                16,
                RO,
                "Completions written, those from DONE_HEAD to it; after bus_error the last one may not be there.",
            ),
        ),
        "How far both are since the reset.",
    ),
    Register("DONE_BASE_LO", 0x1B4, word(RW, "Bits 31:12 of its address.", 12, 20), "Staged: the ring of completions."),
    Register("DONE_BASE_HI", 0x1B8, word(RW, "Bits 51:32 of it.", 0, 20), "Staged: the ring of completions."),
    Register("DONE_HEAD", 0x1BC, word(RW, _COUNT, 0, 16), "Completions that software is done with; a full ring waits."),
)
