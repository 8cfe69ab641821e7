"""The table engine's part of the map of registers."""

from typing import Final

from ptewalk.rtl.registers.table import Access, Field, Register, said, wide, word

__all__ = ["TABLE_COMMAND", "TABLE_LIST", "TABLE_MASKS"]

RO, RW = Access.RO, Access.RW
_PAGE_BITS: Final = 46
"""Of a number of pages: all that five levels map."""


_KINDS: Final = {"present": "is present", "hidden": "is hidden (PROT_NONE)", "swap": "is swap-like"}
_MASKS: Final = {
    "clear": "Staged: of an entry that {}, the bits that become 0.",
    "set": "Staged: those that become 1 then.",
    "match": "Staged: it matches if it has one of these.",
}


def _flags(name: str, offset: int, text: str) -> Register:
    """Bits of an entry but for its frame."""
    fields = (Field("low", 0, 12, RW, "Bits 11:0."), Field("high", 16, 12, RW, "Bits 63:52."))
    return Register(name, offset, fields, text)


TABLE_COMMAND: Final = (
    Register("TABLE_ROOT_LO", 0x140, word(RW, "Bits 31:12 of the root's address.", 12, 20), "Staged: the tables."),
    Register("TABLE_ROOT_HI", 0x144, word(RW, "Bits 51:32 of it.", 0, 20), "Staged: the tables."),
    *wide("TABLE_PAGE", 0x148, RW, "Staged: the number of the first page, without sign bits.", _PAGE_BITS),
    *wide("TABLE_PAGES", 0x150, RW, "Staged: how many pages.", _PAGE_BITS),
    *wide("TABLE_ADDRESS", 0x158, RW, "Staged: physical address of the report.", 52),
    *wide("TABLE_TARGET", 0x160, RW, "Staged: the page to which the first entry is moved.", _PAGE_BITS),
    *wide("TABLE_ENTRIES", 0x168, RW, "Staged: how many entries are moved.", _PAGE_BITS),
    Register(
        "TABLE",
        0x170,
        (
            Field("la57", 0, 1, RW, "The root is of level 5."),
            Field("changes", 1, 1, RW, "Entries may be changed; 0: they are looked at only."),
            Field("splits", 2, 1, RW, "A leaf above level 1 that would be changed stops it."),
            Field("whole_leaves", 3, 1, RW, "Such a leaf is changed though it is in the range only in part."),
            Field("only_matching", 4, 1, RW, "Entries that do not match stay as they are."),
            Field("arm", 5, 1, RW, "RW of an entry sets ARM."),
            Field("save_dirty", 6, 1, RW, "D of one sets SAVED_DIRTY."),
            Field("moves", 7, 1, RW, "Entries are moved; the number of pages and the report do not count."),
            Field("move_level", 8, 2, RW, "Of the tables whose entries are moved, 1 to 3."),
            Field("drops_markers", 10, 1, RW, "A marker that is no guard is taken, and not put anywhere."),
            Field("ors", 11, 1, RW, "Bits that are set in a bitmap stay; until the end nobody else writes to it."),
            Field("report", 12, 2, RW, "0 none, 1 a bit a page that matched, 2 a pagemap word a page."),
            Field("written", 14, 1, RW, "Entries whose pagemap word tells UFFD_WP stay as they are."),
            Field("pcid", 16, 12, RW, "Whose translations are forgotten at the end."),
            Field("unit", 28, 4, RW, "Binary logarithm of the pages that a bit of a bitmap tells of, 0 to 9."),
        ),
        "Staged: a command of the table engine. What is staged for it stays as it is until the command has ended.",
    ),
    Register(
        "TABLE_WORDS",
        0x174,
        (
            Field("soft_dirty", 0, 1, RW, "Bit 55 of a word tells SOFT_DIRTY of entries that are not swap-like."),
            Field("uffd_wp", 1, 1, RW, "Bit 57 tells their UFFD_WP."),
            Field("inverts", 2, 1, RW, "Hidden and swap-like entries are those of Linux 4.18 and later."),
            Field("has_marker", 3, 1, RW, "There are PTE markers."),
            Field("marker", 4, 5, RW, "Their swap type."),
        ),
        "Staged: how entries are told in pagemap words.",
    ),
    Register(
        "TABLE_SWAP_WORDS",
        0x178,
        (
            Field("soft_dirty", 0, 12, RW, "Bits of a swap-like entry that bit 55 tells."),
            Field("uffd_wp", 16, 12, RW, "Bits of one that bit 57 tells."),
        ),
        "Staged: how swap-like entries are.",
    ),
    Register("TABLE_ID", 0x17C, word(RW, "Any.", 0, 16), "Staged: what the completion in a ring tells of whose it is."),
    *wide("TABLE_EMPTY", 0x180, RW, "Staged: what an entry of level 1 that is 0 becomes; 0: it stays."),
    Register(
        "TABLE_TOLD",
        0x188,
        (
            Field("valid", 0, 1, RO, "There is one; the rest counts only then."),
            Field("more", 1, 1, RO, "The command is not over: only TABLE_STOP and TABLE_HOMELESS count."),
            Field("failed", 2, 1, RO, "The bus refused a line of entries: see TABLE_FAILED."),
            Field("given_up", 3, 1, RO, "The swap of an entry failed too often: see TABLE_GIVEN_UP."),
            Field("lost", 4, 1, RO, "The bus refused a line of the report."),
            Field("stopped", 8, 4, RO, "0 done; else why not all was."),
        ),
        "The completion of a TABLE command.",
    ),
    *wide("TABLE_STOP", 0x190, RO, "The number of the first page that was not dealt with.", _PAGE_BITS),
    *wide("TABLE_CHANGED", 0x198, RO, "Entries that were changed, or moved.", _PAGE_BITS),
)
TABLE_MASKS: Final = (
    *(
        _flags(f"TABLE_{kind}_{mask}".upper(), 0x200 + 4 * (3 * row + column), text.format(what))
        for row, (kind, what) in enumerate(_KINDS.items())
        for column, (mask, text) in enumerate(_MASKS.items())
    ),
    _flags("TABLE_SPARES", 0x224, "Staged: an entry of level 1, not swap-like, that has one of these stays as it is."),
    *wide("TABLE_HOMELESS", 0x228, RO, "An entry, that of TABLE_STOP, that was taken and is not at the target; or 0."),
    *wide("TABLE_FAILED", 0x230, RO, "The first page of the first line of entries that the bus refused.", _PAGE_BITS),
    *wide("TABLE_GIVEN_UP", 0x238, RO, "The first page of the first line, or leaf, that was given up.", _PAGE_BITS),
    Register(
        "TABLE_BUILT",
        0x240,
        (
            said("engine_lines", 0, 7, "Lines of entries in flight."),
            said("engine_line_bytes", 8, 8, "Bytes of a line, to which a report of words is aligned as entries are."),
        ),
        "The table engine that was built.",
    ),
)
TABLE_LIST: Final = (
    Register(
        "TABLE_LIST_TOLD",
        0x244,
        (
            Field(
                "absent", 0, 19, RO, "Records that were dealt with, and name a page that nothing maps, or another PCID."
            ),
            Field("bad", 31, 1, RO, "The record of number TABLE_STOP is none, by its phase."),
        ),
        "Of the completion that TABLE_TOLD shows, where it is of a list.",
    ),
    Register("TABLE_LIST_BASE_LO", 0x248, word(RW, "Bits 31:12 of its address.", 12, 20), "Staged: a ring of records."),
    Register("TABLE_LIST_BASE_HI", 0x24C, word(RW, "Bits 51:32 of it.", 0, 20), "Staged: a ring of records."),
    Register(
        "TABLE_LIST",
        0x250,
        (
            Field("size", 0, 5, RW, "Binary logarithm of its records, 9 to 18."),
            Field(
                "lists",
                8,
                1,
                RW,
                "Pages that records name are dealt with, and TABLE_PAGE and TABLE_PAGES do not count.",
            ),
        ),
        "Staged: a list. TABLE_STOP, TABLE_FAILED and TABLE_GIVEN_UP count its records; a bitmap has a bit for each.",
    ),
    Register(
        "TABLE_LIST_FIRST", 0x254, word(RW, "As the log counts them.", 0, 19), "Staged: number of its first record."
    ),
    Register("TABLE_LIST_COUNT", 0x258, word(RW, "How many.", 0, 19), "Staged: its records."),
)
