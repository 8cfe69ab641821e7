"""The end of a command that changed entries: invalidations and a drain come before its completion."""

from enum import IntEnum
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.engine.jobs import PAGES_BITS
from ptewalk.rtl.layouts import CompletionLayout, InvalidationLayout

__all__ = ["MOST_ADDRESSES", "Ending", "Invalidations", "SpanLayout"]

MOST_ADDRESSES: Final = 32
"""Pages that are invalidated one by one; of more all goes that their PCID has."""


class SpanLayout(data.StructLayout):
    """What a command dealt with.

    Members
    -------
    page, pages : unsigned(PAGES_BITS)
    la57 : 1
    pcid : unsigned(12)
    whole : 1
        Not by address, however few they are: what is cached of a leaf may lie outside.
    shared : 1
        Of every PCID: something global was changed.
    reads : 1
        Reads are waited for too, where they are granted.
    """

    def __init__(self) -> None:
        pages = unsigned(PAGES_BITS)
        flags = {"whole": 1, "shared": 1, "reads": 1}
        super().__init__({"page": pages, "pages": pages, "la57": 1, "pcid": unsigned(x86.PCID_BITS), **flags})


class State(IntEnum):
    """What it does."""

    IDLE = 0
    SEND = 1
    DRAIN = 2
    OVER = 3
    BEGIN = 4


class Ending(Component):
    """Invalidates what a command dealt with; the last one waits for stores, or for all that was granted.

    Members
    -------
    valid : In(1), span : In(SpanLayout)
        A command has come to its end; held until it is told.
    over : Out(1)
        The last invalidation is complete: it may be told.
    invalidations : Out(stream of InvalidationLayout)
    drained : In(1)
        The one that waits is complete.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": In(1),
                "span": In(SpanLayout()),
                "over": Out(1),
                "invalidations": Out(stream.Signature(InvalidationLayout())),
                "drained": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        state, sent = Signal(State, name="state"), Signal(range(MOST_ADDRESSES), name="sent")
        # Kept in a register: what it is made of comes a long way, and an invalidation goes as far.
        span, asked = Signal(SpanLayout(), name="kept"), self.invalidations.payload
        by_address, last, page = Signal(name="by_address"), Signal(), Signal(PAGES_BITS, name="page")
        sign = Mux(span.la57, page[x86.LINEAR_BITS[x86.LEVELS_5] - x86.PAGE_SHIFT - 1], page[_SIGN_4])
        low = Mux(span.la57, page[: _SIGN_4 + 10], Cat(page[: _SIGN_4 + 1], sign.replicate(9)))
        kind = Mux(span.shared, x86.Invalidation.ALL, x86.Invalidation.PCID)
        m.d.comb += [
            last.eq(~by_address | (sent + 1 == span.pages[: len(sent) + 1])),
            self.invalidations.valid.eq(state == State.SEND),
            asked.kind.eq(Mux(by_address, x86.Invalidation.ADDRESS, kind)),
            asked.linear.eq(Cat(Const(0, x86.PAGE_SHIFT), low, sign.replicate(7))),
            asked.pcid.eq(span.pcid),
            self.over.eq(state == State.OVER),
        ]
        with m.If(last):
            m.d.comb += asked.wait.eq(Mux(span.reads, x86.Wait.ALL, x86.Wait.STORES))
        with m.Switch(state):
            with m.Case(State.IDLE):
                m.d.sync += [sent.eq(0), span.eq(self.span)]
                with m.If(self.valid):
                    m.d.sync += state.eq(State.BEGIN)
            with m.Case(State.BEGIN):
                m.d.sync += state.eq(Mux(span.pages == 0, State.OVER, State.SEND))
                m.d.sync += page.eq(span.page)
                m.d.sync += by_address.eq((span.pages <= MOST_ADDRESSES) & ~span.whole & ~span.shared)
            with m.Case(State.SEND):
                with m.If(self.invalidations.ready):
                    m.d.sync += [sent.eq(sent + 1), page.eq(page + 1)]
                    with m.If(last):
                        m.d.sync += state.eq(State.DRAIN)
            with m.Case(State.DRAIN):
                with m.If(self.drained):
                    m.d.sync += state.eq(State.OVER)
            with m.Case(State.OVER):
                with m.If(~self.valid):
                    m.d.sync += state.eq(State.IDLE)
        return m


_SIGN_4: Final = x86.LINEAR_BITS[x86.LEVELS_4] - x86.PAGE_SHIFT - 1
"""The sign bit of a page's number with four levels."""


_PATIENCE: Final = 8
"""Cycles that whose turn it is may take; more than the MMU works on one that it has taken."""


class Invalidations(Component):
    """Software's invalidations and those of a command's end, each taken while nothing of the engine is under way.

    One that is offered pauses the engine, between two jobs: what it began ends first. So one that was taken covers the
    engine too: no swap is outstanding, or will be sent, in a table that was reached by an upper entry read before.
    After software's the engine goes on by one job, or one entry or table that it passes over, before the next is taken,
    and after software's comes that of a command's end: a storm of them starves no command, whatever they wait for.

    Members
    -------
    software, own : In(stream of InvalidationLayout)
    invalidations : Out(stream of InvalidationLayout), completions : In(stream of CompletionLayout, always ready)
        Of the MMU.
    told : Out(stream of CompletionLayout, always ready), drained : Out(1)
        Whose each completion is, software's or a command's.
    pause : Out(1), paused : In(1), stepped : In(1)
        As the engine's.
    """

    def __init__(self) -> None:
        invalidations = stream.Signature(InvalidationLayout())
        completions = stream.Signature(CompletionLayout(), always_ready=True)
        super().__init__(
            {
                "software": In(invalidations),
                "own": In(invalidations),
                "invalidations": Out(invalidations),
                "completions": In(completions),
                "told": Out(completions),
                "drained": Out(1),
                "pause": Out(1),
                "paused": In(1),
                "stepped": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        software, own, out = self.software, self.own, self.invalidations
        turn, chosen, owes, taken = Signal(), Signal(), Signal(), Signal()  # turn: of `own`
        tried, passes = Signal(range(_PATIENCE + 1)), Signal()
        # What is offered stands in registers: it goes a long way in the MMU.
        offers, owns, kept = Signal(name="offers"), Signal(name="owns"), Signal(InvalidationLayout(), name="kept")
        may = self.pause & self.paused
        m.d.comb += [
            # One that has to wait for room holds up none that has not; where both have to, they take turns.
            passes.eq((tried == _PATIENCE) & (Mux(turn, software.payload.wait, own.payload.wait) == x86.Wait.NONE)),
            chosen.eq(own.valid & ((turn ^ passes) | ~software.valid)),
            out.payload.eq(kept),
            out.valid.eq(offers & may),
            taken.eq(out.valid & out.ready),
            own.ready.eq(owns & taken),
            software.ready.eq(~owns & taken),
        ]
        m.d.sync += [
            offers.eq((own.valid | software.valid) & may & ~taken),
            owns.eq(chosen),
            kept.eq(Mux(chosen, Value.cast(own.payload), Value.cast(software.payload))),
        ]
        m.d.sync += self.pause.eq((own.valid | software.valid) & ~owes & ~taken)
        with m.If(taken):
            m.d.sync += [turn.eq(~owns), tried.eq(0)]
        with m.Elif(may & own.valid & software.valid & (tried != _PATIENCE)):
            m.d.sync += tried.eq(tried + 1)
        with m.If(taken & ~owns):
            m.d.sync += owes.eq(1)
        with m.Elif(self.stepped):
            m.d.sync += owes.eq(0)
        m.submodules.whose = whose = fifo.SyncFIFO(width=1, depth=4)
        found = self.completions
        m.d.comb += [
            *(whose.w_data.eq(owns), whose.w_en.eq(taken & (out.payload.wait != x86.Wait.NONE))),
            whose.r_en.eq(found.valid),
            *(self.told.payload.eq(found.payload), self.told.valid.eq(found.valid & ~whose.r_data)),
            self.drained.eq(found.valid & whose.r_data),
        ]
        return m
