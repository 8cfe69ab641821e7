"""Commands of the table engine from a ring of descriptors in memory, their completions into another one."""

from enum import IntEnum
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model.x86 import PAGE_SHIFT
from ptewalk.rtl.bus.plain_words import PlainWordsSignature

__all__ = ["COMPLETION_WORDS", "DESCRIPTOR_WORDS", "TableRings"]

DESCRIPTOR_WORDS: Final = 8
"""Words of 64 bits: the registers of a command, from TABLE_ROOT_LO on."""
COMPLETION_WORDS: Final = 4
_COUNT_BITS: Final = 16
_SIZE_BITS: Final = 4


class State(IntEnum):
    """What is done with the next descriptor."""

    IDLE = 0
    READ = 1
    """A word of it is read."""
    LOW = 2
    """Its low half goes to a register,"""
    HIGH = 3
    """and its high half to the next."""
    RUN = 4
    """The engine has the command; its completion is waited for, and room for that."""
    WRITE = 5
    """A word of the completion is written."""


class TableRings(Component):
    """Goes through descriptors as long as there are some: registers are loaded, the command runs, its end is written.

    Counts are modulo 2**16; a ring's place is a count modulo its size. Where the bus refuses a word, what is begun is
    ended, and no further descriptor begun.

    Parameters
    ----------
    physical_bits : int

    Members
    -------
    start : In(1), over : Out(1), failed : Out(1)
        Held until `over`, when as many are done as software gave; the bus refused something of them, or of the rings.
    base, done_base : In(physical_bits - 12), size, done_size : In(4)
        Of descriptors, and of completions: frame of the first byte, and binary logarithm of the places.
    head, done_head : In(16)
        Descriptors that software gave; completions that it is done with.
    tail, told : Out(16)
        Descriptors that are done; completions written.
    load : Out(1), number : Out(4), value : Out(32)
        The register of that number, from TABLE_ROOT_LO on, becomes `value`.
    runs : Out(1)
        The engine has the command that was loaded.
    ends : In(1), more : In(1), bad : In(1), completion : In(array of four words), takes : Out(1)
        The engine's completion, of a command that is not over with `more`, and of which the bus refused something with
        `bad`; it is taken. The highest bit of the first word is set here: 1 in the first round of the ring.
    words : Out(PlainWordsSignature)
    """

    def __init__(self, physical_bits: int) -> None:
        frame = unsigned(physical_bits - PAGE_SHIFT)
        count, size = unsigned(_COUNT_BITS), unsigned(_SIZE_BITS)
        super().__init__(
            {
                "start": In(1),
                "over": Out(1),
                "failed": Out(1),
                "base": In(frame),
                "done_base": In(frame),
                "size": In(size),
                "done_size": In(size),
                "head": In(count),
                "done_head": In(count),
                "tail": Out(count),
                "told": Out(count),
                "load": Out(1),
                "number": Out(4),
                "value": Out(32),
                "runs": Out(1),
                "ends": In(1),
                "more": In(1),
                "bad": In(1),
                "takes": Out(1),
                "completion": In(data.ArrayLayout(64, COMPLETION_WORDS)),
                "words": Out(PlainWordsSignature(physical_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state, word = Signal(State), Signal(range(DESCRIPTOR_WORDS))
        kept = Signal(64)
        wrong, bad = Signal(), Signal()  # of the rings, of a command
        asked, answered = self.words.asked, self.words.answered
        at = Signal.like(word)  # of a completion the first word is the last: who goes by its phase finds the others

        def place(base: Value, count: Value, size: Value, words: int) -> Value:
            here = count & ((Const(1, _COUNT_BITS) << size) - 1)[:_COUNT_BITS]
            return Cat(Const(0, PAGE_SHIFT), base) + (here * (8 * words)) + (at << 3)

        room = (self.told - self.done_head)[:_COUNT_BITS] < (Const(1, _COUNT_BITS + 1) << self.done_size)[:17]
        phase = ~self.told.bit_select(self.done_size, 1)
        first = (self.completion[0] & ~(1 << 63)) | (phase << 63)
        writes = state == State.WRITE
        m.d.comb += [
            at.eq(Mux(writes, COMPLETION_WORDS - 1 - word, word)),
            asked.valid.eq((state == State.READ) | writes),
            asked.payload.write.eq(writes),
            asked.payload.address.eq(
                Mux(
                    writes,
                    place(self.done_base, self.told, self.done_size, COMPLETION_WORDS),
                    place(self.base, self.tail, self.size, DESCRIPTOR_WORDS),
                )
            ),
            asked.payload.value.eq(Mux(at == 0, first, self.completion[at[:2]])),
            *(
                self.load.eq((state == State.LOW) | (state == State.HIGH)),
                self.number.eq(Cat(state == State.HIGH, word)),
            ),
            self.value.eq(Mux(state == State.HIGH, kept[32:], kept[:32])),
            self.runs.eq((state == State.RUN) | writes),
            self.failed.eq(wrong | bad),
        ]
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(self.start):
                    with m.If(wrong | (self.head == self.tail)):
                        m.d.comb += self.over.eq(1)
                        m.d.sync += [wrong.eq(0), bad.eq(0)]
                    with m.Else():
                        m.d.sync += state.eq(State.READ)
            with m.Case(State.READ):
                m.d.sync += kept.eq(answered.payload.value)
                with m.If(answered.valid):
                    m.d.sync += state.eq(State.LOW)
                    with m.If(answered.payload.error):
                        m.d.sync += [wrong.eq(1), word.eq(0), state.eq(State.IDLE)]
            with m.Case(State.LOW):
                m.d.sync += state.eq(State.HIGH)
            with m.Case(State.HIGH):
                m.d.sync += [word.eq(word + 1), state.eq(Mux(word == DESCRIPTOR_WORDS - 1, State.RUN, State.READ))]
            with m.Case(State.RUN):
                with m.If(self.ends & room):
                    m.d.sync += state.eq(State.WRITE)
            with m.Case(State.WRITE):
                with m.If(answered.valid):
                    m.d.sync += [word.eq(word + 1), wrong.eq(wrong | answered.payload.error)]
                    with m.If((at == 0) | answered.payload.error):  # after an error its first word is not written
                        m.d.comb += self.takes.eq(1)
                        m.d.sync += [word.eq(0), self.told.eq(self.told + 1), bad.eq(bad | self.bad)]
                        m.d.sync += state.eq(Mux(self.more, State.RUN, State.IDLE))
                        with m.If(~self.more):
                            m.d.sync += self.tail.eq(self.tail + 1)
        return m
