"""Where a walk is, what it has found, and what lies below: for walks that share a datapath."""

from amaranth.hdl import Cat, Module, Signal, Value, unsigned
from amaranth.lib import data

from ptewalk.model import x86
from ptewalk.rtl.layouts import UpperRightsLayout

__all__ = ["PAGE_BITS", "FoundLayout", "StepLayout", "index_below", "number_of", "page_of", "rights_below"]

PAGE_BITS = x86.LINEAR_BITS[x86.LEVELS_5] - x86.PAGE_SHIFT
"""Bits of a page's number that are walked."""


class StepLayout(data.StructLayout):
    """Where a walk is.

    Members
    -------
    at : unsigned(levels)
        Level of the entry that is read, one-hot.
    rights : UpperRightsLayout
        Of the entries above.
    cached : 1
        The walk began below the root, and may begin again.
    """

    def __init__(self, levels: int) -> None:
        super().__init__({"at": unsigned(levels), "rights": UpperRightsLayout(), "cached": 1})


class FoundLayout(data.StructLayout):
    """An entry as it was read, and what was worked out of it as it arrived."""

    def __init__(self) -> None:
        super().__init__(
            {"entry": unsigned(64), "leaf": 1, "reserved": 1, "broken": 1, "user_key": 2, "supervisor_key": 2}
        )


def page_of(linear: Value) -> Value:
    """The number of the page at an address."""
    return linear[x86.PAGE_SHIFT :][:PAGE_BITS]


def index_below(m: Module, page: Value, at: Value) -> Value:
    """The index of a page into the table below the entry of the one-hot level `at`."""
    below = Signal(x86.INDEX_BITS)
    with m.Switch(at):
        for level in range(2, len(at) + 1):
            with m.Case(1 << (level - 1)):
                m.d.comb += below.eq(page[(level - 2) * x86.INDEX_BITS :][: x86.INDEX_BITS])
    return below


def rights_below(upper: data.View, entry: data.View) -> dict[str, Value]:
    """`UpperRightsLayout`'s fields below `entry`."""
    return {"rw": upper.rw & entry.rw, "us": upper.us & entry.us, "xd": upper.xd | entry.xd}


def number_of(one_hot: Value) -> Value:
    """The place of the one bit that is set; 0 when none is."""
    bits = max(1, (len(one_hot) - 1).bit_length())
    return Cat(Cat(one_hot[place] for place in range(len(one_hot)) if place >> bit & 1).any() for bit in range(bits))
