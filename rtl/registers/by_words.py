"""Swaps of a table engine by the port of single words that the walker has, where memory reserves no lines."""

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.registers.share import WordSignature

__all__ = ["ByWords"]


class ByWords(Component):
    """Wires between an engine and its line port; with `words` reads reserve nothing, and a swap goes to `asked`.

    There it is one of what memory holds: reserved, compared with what was read, and written, by the walker's own ID,
    one after the other. It is answered in the cycle after.

    Parameters
    ----------
    physical_bits, data_bits, line_bytes, tag_bits
        As in `LinePortSignature`.

    Members
    -------
    above : In(LinePortSignature), below : Out(LinePortSignature)
    asked : Out(WordSignature)
    words : In(1)
        No swap above is of a line. Changes only while nothing is on its way.
    """

    def __init__(self, *, physical_bits: int, data_bits: int, line_bytes: int, tag_bits: int) -> None:
        self._lanes = data_bits // 64
        port = LinePortSignature(
            physical_bits=physical_bits, data_bits=data_bits, line_bytes=line_bytes, tag_bits=tag_bits
        )
        super().__init__(
            {"above": In(port), "below": Out(port), "asked": Out(WordSignature(physical_bits)), "words": In(1)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        above, below = self.above, self.below
        connect(m, flipped(above), flipped(below))
        swap, wanted, found = above.swaps, self.asked.asked.payload, self.asked.answered
        lane = swap.payload.address[3 : 3 + (self._lanes - 1).bit_length()]

        def word(value: Value) -> Value:
            return value.word_select(lane, 64) if self._lanes > 1 else value

        answers, told = Signal(), Signal.like(above.swapped.payload)
        m.d.comb += [
            *(wanted.address.eq(swap.payload.address), wanted.swap.eq(1), wanted.test.eq(0)),
            *(wanted.old.eq(word(swap.payload.old)), wanted.new.eq(word(swap.payload.new))),
            self.asked.asked.valid.eq(swap.valid & self.words),
        ]
        m.d.sync += [
            answers.eq(self.asked.asked.valid & found.valid),
            *(told.tag.eq(swap.payload.tag), told.done.eq(found.payload.done), told.error.eq(found.payload.error)),
        ]
        with m.If(self.words):
            m.d.comb += [
                *(below.swaps.valid.eq(0), swap.ready.eq(found.valid), below.reads.payload.link.eq(0)),
                *(above.swapped.valid.eq(answers), above.swapped.payload.eq(told)),
            ]
        return m
