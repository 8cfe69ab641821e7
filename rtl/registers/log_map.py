"""The dirty log's part of the map of registers."""

from typing import Final

from ptewalk.rtl.registers.table import Access, Field, Register, wide, word

__all__ = ["LOG"]

RO, RW, W1C = Access.RO, Access.RW, Access.W1C
_COUNT_BITS: Final = 19
"""Of a number of records: `rtl.log.layouts.COUNT_BITS`."""

LOG: Final = (
    Register("LOG_BASE_LO", 0x1C0, word(RW, "Bits 31:12 of its address.", 12, 20), "Set up: where ring or buffer is."),
    Register("LOG_BASE_HI", 0x1C4, word(RW, "Bits 51:32 of it.", 0, 20), "Set up: where ring or buffer is."),
    Register(
        "LOG",
        0x1C8,
        (
            Field("size", 0, 5, RW, "Binary logarithm of a ring's records, 9 to 18."),
            Field("mode", 8, 2, RW, "0 off, 1 ring, 2 PML buffer."),
            Field("stalls", 16, 1, RW, "A mark waits while the ring is full; 0: it goes on without a record."),
        ),
        "Set up: what DO.log_setup brings into force, with the base and the three below; it stays until then.",
    ),
    Register("LOG_TIMEOUT", 0x1CC, word(RW, "Cycles; 0: for ever."), "Set up: how long a mark waits for a full ring."),
    Register(
        "LOG_WATERMARK",
        0x1D0,
        word(RW, "Records; 0: never.", 0, _COUNT_BITS),
        "Set up: how many records must wait for LOG_STATUS.watermark.",
    ),
    Register(
        "LOG_INDEX",
        0x1D4,
        (
            Field("first", 0, 16, RW, "Set up: of the first entry that is written; beyond 511 there is no room."),
            Field("next", 16, 16, RO, "Of the next entry."),
        ),
        "Of a PML buffer, which is filled downwards.",
    ),
    Register(
        "LOG_HEAD",
        0x1D8,
        word(RW, "Counts modulo 2^19.", 0, _COUNT_BITS),
        "Records that software is done with; 0 as the log is set up.",
        zeroed=True,
    ),
    Register(
        "LOG_TAIL",
        0x1DC,
        word(RO, "Counts modulo 2^19.", 0, _COUNT_BITS),
        "Records written; those from LOG_HEAD to it are there.",
    ),
    *wide("LOG_LINEAR", 0x1E0, RW, "Linear address of what DO.log_append appends; it stays until then."),
    Register(
        "LOG_APPEND",
        0x1E8,
        (
            Field("leaf_level", 0, 3, RW, "Of what DO.log_append appends; it stays until then."),
            Field("epoch", 31, 1, RW, "Bit 63 of records from now on: software's parity of its epochs."),
        ),
        "What software gives to records.",
    ),
    Register(
        "LOG_STATUS",
        0x1EC,
        (
            Field("watermark", 0, 1, RO, "As many records wait as LOG_WATERMARK says."),
            Field("stalled", 1, 1, RO, "A mark waits for room."),
            Field("setting_up", 2, 1, RO, "DO.log_setup waits for what is on its way; marks wait for it."),
            Field("appending", 3, 1, RO, "DO.log_append waits for room, for a mark, or for a log that is on."),
            Field("timed_out", 16, 1, W1C, "A mark waited for as long as LOG_TIMEOUT says, and went on."),
            Field("overflow", 17, 1, W1C, "A page was marked and has no record, see LOG_LOST; no mark waits."),
            Field("incomplete", 18, 1, W1C, "Whether a page was marked, or its record written, is not known."),
            Field("refused", 19, 1, W1C, "A size or mode was none: the log is off."),
        ),
        "What goes on with the log, and what went wrong since it was cleared.",
    ),
    *wide("LOG_LOST", 0x1F0, RO, "Address of the first mark without a record since overflow was cleared."),
)
