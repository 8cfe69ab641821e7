"""Beats of lines on their way to swaps: what an operation makes of each entry, in two steps."""

from typing import Any

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out, Signature

from ptewalk.rtl.engine.change import ChangeLayout, EntryChange, MadeLayout, WordsLayout

__all__ = ["StreamNet", "StreamSignature"]


class StreamSignature(Signature):
    """What a user of the net sees: beats go in, and two steps later come out, changed and as they were.

    Parameters
    ----------
    lanes : int
        Entries of a beat.

    Members
    -------
    passes : Out(1)
        A step is made: all that is on its way stands while it is 0.
    beat : Out(64 * lanes)
    old : In(64 * lanes), made : In(array of MadeLayout)
    """

    def __init__(self, lanes: int) -> None:
        made = data.ArrayLayout(MadeLayout(), lanes)
        super().__init__({"passes": Out(1), "beat": Out(64 * lanes), "old": In(64 * lanes), "made": In(made)})


class StreamNet(Component):
    """One net for lines that are changed and for lines that are moved, of which only one are on their way at a time.

    Parameters
    ----------
    lanes : int

    Members
    -------
    change : In(ChangeLayout), words : In(WordsLayout)
    moving : In(1)
        Whose beats are taken.
    lines, pairs : In(StreamSignature)
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        stream: Any = StreamSignature(lanes)
        super().__init__(
            {
                "change": In(ChangeLayout()),
                "words": In(WordsLayout()),
                "moving": In(1),
                "lines": In(stream),
                "pairs": In(stream),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        value, old = Signal(64 * self._lanes), Signal(64 * self._lanes)
        made = Signal(data.ArrayLayout(MadeLayout(), self._lanes))
        passes = Mux(self.moving, self.pairs.passes, self.lines.passes)
        with m.If(passes):
            m.d.sync += [value.eq(Mux(self.moving, self.pairs.beat, self.lines.beat)), old.eq(value)]
        for lane in range(self._lanes):
            m.submodules[f"net_{lane}"] = net = EntryChange()
            m.d.comb += [net.entry.eq(value.word_select(lane, 64)), net.change.eq(self.change)]
            m.d.comb += net.words.eq(self.words)
            with m.If(passes):
                m.d.sync += net.into(made[lane])
        for user in (self.lines, self.pairs):
            m.d.comb += [user.old.eq(old), user.made.eq(made)]
        return m
