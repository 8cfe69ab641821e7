"""The line port of an engine on block RAM: a word at a time, and alone while a swap compares and writes."""

from enum import IntEnum
from typing import Any

from amaranth.hdl import Module, Mux, Signal, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.rtl.bus.line_port import LinePortSignature
from ptewalk.rtl.bus.lock import WordsSignature
from ptewalk.rtl.engine.table_engine import EngineConfig

__all__ = ["LockLines"]

WORD_BITS = 64
MOST_PENDING = 4
"""Words that a `LockRam` has in work, at most: one for each cycle of its latency, and one that is taken."""


class State(IntEnum):
    """What is in work."""

    IDLE = 0
    OTHER = 1
    """An access of `others`."""
    READ = 2
    TAKE = 3
    """The beats of a swap are taken."""
    CHECK = 4
    """They are compared with what is there."""
    SWAP = 5
    """They are written."""
    REPORT = 6
    """A line is written as its beats come."""
    END = 7
    """The RAM answers what was asked last, and then it is told."""


class LockLines(Component):
    """One access at a time, of 64-bit words, through the plain port of a `LockRam`.

    A line of n words takes n cycles and a few to read or to write; a swap of it 2 n, and one for each word, in which
    nobody else has the RAM: what it replaced is what it compared. `others` has a turn after each.

    Parameters
    ----------
    config : EngineConfig
        Of the engine at `lines`, whose data are 64 bits wide.

    Members
    -------
    lines : In(LinePortSignature)
        `link` does not count: each swap compares every word that was read.
    others : In(WordsSignature)
        One access at a time. It waits for one of `lines`, at most.
    words : Out(WordsSignature)
        The RAM's.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._bits, self._beats = config.physical_bits, config.line_bytes * 8 // WORD_BITS
        widths: dict[str, Any] = {name: getattr(config, name) for name in ("physical_bits", "line_bytes", "tag_bits")}
        super().__init__(
            {
                "lines": In(LinePortSignature(data_bits=WORD_BITS, **widths)),
                "others": In(WordsSignature(config.physical_bits)),
                "words": Out(WordsSignature(config.physical_bits)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        lines, others, words = self.lines, self.others, self.words
        reads, swaps, writes = lines.reads, lines.swaps, lines.writes
        asked, found = words.requests, words.answers
        kept = data.StructLayout({"old": unsigned(WORD_BITS), "new": unsigned(WORD_BITS), "changed": 1})
        m.submodules.beats = beats = Memory(shape=kept, depth=self._beats, init=[])
        take, give = beats.write_port(), beats.read_port(domain="comb")

        state, turn = Signal(State), Signal()  # `turn`: it is that of `others`
        address, tag = Signal(self._bits), Signal(len(reads.payload.tag))
        length, issued, answered = (Signal(range(self._beats + 1), name=n) for n in ("length", "issued", "answered"))
        pending = Signal(range(2 * MOST_PENDING))  # words that are asked for and not answered
        sent, wrong, error, swapping = Signal(), Signal(), Signal(), Signal()
        goes = asked.valid & asked.ready
        whole = issued == length
        m.d.comb += [
            words.alone.eq((state == State.CHECK) | (state == State.SWAP)),
            asked.payload.address.eq(address + (issued << 3)),
            asked.payload.write.eq((state == State.SWAP) | (state == State.REPORT)),
            asked.payload.strobes.eq(-1),
            asked.payload.value.eq(Mux(state == State.REPORT, writes.payload.value, give.data.new)),
            give.addr.eq(Mux(state == State.CHECK, answered, issued)),
            *(take.addr.eq(issued), take.data.old.eq(swaps.payload.old), take.data.new.eq(swaps.payload.new)),
            *(take.data.changed.eq(swaps.payload.changed), take.en.eq(swaps.valid & swaps.ready)),
            others.answers.payload.eq(found.payload),
            *(lines.data.payload.value.eq(found.payload.value), lines.data.payload.error.eq(found.payload.error)),
            *(lines.data.payload.last.eq(answered + 1 == length), lines.data.payload.tag.eq(tag)),
            *(lines.swapped.payload.error.eq(error), lines.swapped.payload.done.eq(~wrong & ~error)),
            *(lines.swapped.payload.tag.eq(tag), lines.written.payload.error.eq(error)),
        ]
        m.d.sync += pending.eq(pending + goes - found.valid)
        with m.If(found.valid):
            m.d.sync += [answered.eq(answered + 1), error.eq(error | found.payload.error)]

        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += [issued.eq(0), answered.eq(0), *(flag.eq(0) for flag in (sent, wrong, error))]
                m.d.sync += swapping.eq(swaps.valid)
                with m.If(others.requests.valid & (turn | ~(swaps.valid | writes.valid | reads.valid))):
                    m.d.sync += state.eq(State.OTHER)
                with m.Elif(swaps.valid):
                    m.d.sync += [address.eq(swaps.payload.address), tag.eq(swaps.payload.tag), state.eq(State.TAKE)]
                    m.d.sync += length.eq(Mux(swaps.payload.line, self._beats, 1))
                with m.Elif(writes.valid):
                    m.d.sync += [address.eq(writes.payload.address), state.eq(State.REPORT)]
                with m.Elif(reads.valid):
                    m.d.comb += reads.ready.eq(1)
                    m.d.sync += [address.eq(reads.payload.address), tag.eq(reads.payload.tag), state.eq(State.READ)]
                    m.d.sync += length.eq(Mux(reads.payload.line, self._beats, 1))
            with m.Case(State.OTHER):
                m.d.comb += [
                    *(asked.valid.eq(others.requests.valid & ~sent), asked.payload.eq(others.requests.payload)),
                    *(others.requests.ready.eq(asked.ready & ~sent), others.answers.valid.eq(found.valid)),
                ]
                with m.If(goes):
                    m.d.sync += sent.eq(1)
                with m.If(found.valid):
                    m.d.sync += [state.eq(State.IDLE), turn.eq(0)]
            with m.Case(State.READ):
                m.d.comb += [asked.valid.eq(~whole), lines.data.valid.eq(found.valid)]
                m.d.sync += issued.eq(issued + goes)
                with m.If(found.valid & lines.data.payload.last):
                    m.d.sync += [state.eq(State.IDLE), turn.eq(1)]
            with m.Case(State.TAKE):
                m.d.comb += swaps.ready.eq(1)
                m.d.sync += issued.eq(issued + swaps.valid)
                with m.If(swaps.valid & swaps.payload.last):
                    m.d.sync += [issued.eq(0), state.eq(State.CHECK)]
            with m.Case(State.CHECK):
                m.d.comb += asked.valid.eq(~whole)
                m.d.sync += issued.eq(issued + goes)
                with m.If(found.valid):
                    m.d.sync += wrong.eq(wrong | (found.payload.value != give.data.old))
                with m.If(whole & (pending == 0)):
                    m.d.sync += [issued.eq(0), state.eq(Mux(wrong | error, State.END, State.SWAP))]
            with m.Case(State.SWAP):
                m.d.comb += asked.valid.eq(~whole & give.data.changed)
                m.d.sync += issued.eq(issued + (~whole & (~give.data.changed | asked.ready)))
                with m.If(whole):
                    m.d.sync += state.eq(State.END)
            with m.Case(State.REPORT):
                m.d.comb += [
                    asked.valid.eq(writes.valid & writes.payload.strobes),
                    writes.ready.eq(goes | ~writes.payload.strobes),
                ]
                with m.If(writes.valid & writes.ready):
                    m.d.sync += issued.eq(issued + 1)
                    with m.If(writes.payload.last):
                        m.d.sync += state.eq(State.END)
            with m.Case(State.END):
                with m.If(pending == 0):
                    m.d.comb += [lines.swapped.valid.eq(swapping), lines.written.valid.eq(~swapping)]
                    m.d.sync += [state.eq(State.IDLE), turn.eq(1)]
        return m
