"""What the fetcher hands on: a line of entries, a leaf above them, or pages that nothing maps."""

from enum import IntEnum

from amaranth.hdl import unsigned
from amaranth.lib import data

from ptewalk.model import x86

__all__ = ["PAGES_BITS", "JobKind", "JobLayout"]

PAGES_BITS = x86.LINEAR_BITS[x86.LEVELS_5] - x86.PAGE_SHIFT + 1
"""Width of a count of pages: all that five levels map."""


class JobKind(IntEnum):
    """What a job is made of."""

    HOLE = 0
    """Pages that no entry maps."""
    LINE = 1
    """Level-1 entries of one line."""
    LEAF = 2
    """Pages of one leaf above level 1; its entry was dealt with."""


class JobLayout(data.StructLayout):
    """Some pages in a row, all of one kind.

    Parameters
    ----------
    physical_bits, words : int
        `words`: entries of a line.

    Members
    -------
    kind : JobKind
    pages : unsigned(PAGES_BITS)
        How many, at least one; of a line no more than `words`.
    address : unsigned(physical_bits)
        Of the line that holds their entries.
    first : unsigned
        The place of the first page's entry in its line; of other kinds that of its number.
    last : unsigned
        The place of the last page's entry, likewise.
    word : unsigned(64), matches : 1
        Of a leaf: the pagemap word of the first page that it maps, and whether it matched.
    giant : 1
        Of a leaf: it is of level 3, not 2.
    given_up : 1
        Of a leaf: its swap failed too often.
    """

    def __init__(self, physical_bits: int, words: int) -> None:
        super().__init__(
            {
                "kind": JobKind,
                "pages": unsigned(PAGES_BITS),
                "address": unsigned(physical_bits),
                "first": unsigned((words - 1).bit_length()),
                "last": unsigned((words - 1).bit_length()),
                "word": unsigned(64),
                "matches": 1,
                "giant": 1,
                "given_up": 1,
            }
        )
