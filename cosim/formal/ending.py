"""What is proved of the end of the engine's commands, and of when an invalidation is taken beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ptewalk.cosim.formal.harness import Harness, signals_of
from ptewalk.cosim.formal.queues import opened_queue, place_of
from ptewalk.model import x86
from ptewalk.rtl.engine.ending import Ending, Invalidations, SpanLayout, State
from ptewalk.rtl.engine.jobs import PAGES_BITS
from ptewalk.rtl.layouts import CompletionLayout, InvalidationLayout

__all__ = ["EngineEnding"]

_MOST = 3
"""Invalidations that wait, and are not complete, at most."""
_DEPTH = 4
"""Of the queue that says whose they are."""


class _End(Component):
    """The end of a command, and what takes turns with it, as they stand in an MMU with an engine."""

    def __init__(self) -> None:
        invalidations: Any = stream.Signature(InvalidationLayout())
        completions: Any = stream.Signature(CompletionLayout(), always_ready=True)
        self.ending, self.invalidating = Ending(), Invalidations()
        super().__init__(
            {
                "valid": In(1),
                "span": In(SpanLayout()),
                "over": Out(1),
                "software": In(invalidations),
                "invalidations": Out(invalidations),
                "completions": In(completions),
                "told": Out(completions),
                "pause": Out(1),
                "paused": In(1),
                "stepped": In(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        ending, both = self.ending, self.invalidating
        made = ending.elaborate(None)
        self.inner = signals_of(made)
        ending.elaborate = lambda platform: made  # type: ignore[method-assign]
        m.submodules.ending = ending
        made_both = both.elaborate(None)
        self.offer = signals_of(made_both)
        both.elaborate = lambda platform: made_both  # type: ignore[method-assign]
        self.queue = opened_queue(m, "invalidating", both, "whose", _DEPTH)
        connect(m, flipped(self.software), both.software)
        connect(m, ending.invalidations, both.own)
        connect(m, both.invalidations, flipped(self.invalidations))
        m.d.comb += [
            *(both.completions.valid.eq(self.completions.valid), both.completions.payload.eq(self.completions.payload)),
            *(self.told.valid.eq(both.told.valid), self.told.payload.eq(both.told.payload)),
            *(ending.drained.eq(both.drained), ending.valid.eq(self.valid), ending.span.eq(self.span)),
            *(self.over.eq(ending.over), self.pause.eq(both.pause)),
            *(both.paused.eq(self.paused), both.stepped.eq(self.stepped)),
        ]
        return m


class EngineEnding(Harness):
    """One arbitrary page that a command dealt with: the command is over after it is invalidated, and what drains then.

    And an invalidation is taken only while the engine is paused, whoever's it is; each completion goes to whose it is.
    """

    title = "engine-ending"
    assumptions: tuple[str, ...] = (
        "a command that has come to its end stays there until it is over; one is gone before the next comes to its end",
        "waits: each invalidation that waits is complete once, in order, and no more than 3 are not",
        "software offers an invalidation until it is taken",
        "fetcher-tables: what is paused has forgotten the tables that it read, and asks for nothing",
    )
    constants = ("offset",)
    depth = 2
    search_depth = 10
    solver = "yices"

    def __init__(self, *, searching: bool = False) -> None:
        self.end = _End()
        super().__init__(self.end, searching=searching)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        end = self.end
        made = end.elaborate(None)
        end.elaborate = lambda platform: made  # type: ignore[method-assign]
        m.submodules.end = end
        self._held(m)
        waiting = self._completions(m)
        self._command(m, waiting)
        return m

    def _held(self, m: Module) -> None:
        """What is offered stays."""
        end = self.end
        for name, valid, payload, may_go in (
            ("software", end.software.valid, end.software.payload, end.software.ready),
            ("command", end.valid, end.span, end.over),
        ):
            offered, before = Signal(name=f"{name}_offered"), Signal.like(Value.cast(payload), name=f"{name}_before")
            stays = Signal(name=f"{name}_stays")
            m.d.sync += [offered.eq(valid), stays.eq(valid & ~may_go), before.eq(payload)]
            m.d.comb += Assume(~stays | valid)
            held = stays if name == "software" else offered & valid
            m.d.comb += Assume(~held | (Value.cast(payload) == before))

    def _completions(self, m: Module) -> SimpleNamespace:
        """Invalidations that are taken, those of them that wait, and whose is complete."""
        end = self.end
        out, found = end.invalidations, end.completions
        taken, own, waits = Signal(name="taken"), Signal(name="own"), Signal(name="takes_waiting")
        theirs = end.software.valid & end.software.ready
        m.d.comb += [
            taken.eq(out.valid & out.ready),
            own.eq(taken & ~theirs),
            waits.eq(taken & (out.payload.wait != x86.Wait.NONE)),
            # In this very cycle nothing of the engine is under way, and it has forgotten what it read.
            Assert(~taken | (end.pause & end.paused)),
            Assert(~theirs | (taken & (Value.cast(out.payload) == Value.cast(end.software.payload)))),
        ]
        # One of the command's own that waits, at most: how many are before it.
        count, mine, ahead = (
            Signal(range(_MOST + 1), name="count"),
            Signal(name="mine"),
            Signal(range(_MOST), name="ahead"),
        )
        m.d.comb += [
            Assume(~waits | (count < _MOST)),
            Assume(~found.valid | (count != 0)),
            Assert(~(own & waits & mine)),
        ]
        drained = Signal(name="drained")
        m.d.comb += [
            drained.eq(found.valid & mine & (ahead == 0)),
            Assert(end.told.valid == (found.valid & ~drained)),
            Assert(~end.told.valid | (Value.cast(end.told.payload) == Value.cast(found.payload))),
        ]
        m.d.sync += count.eq(count + waits - found.valid)
        with m.If(own & waits):
            m.d.sync += [mine.eq(1), ahead.eq(count - found.valid)]
        with m.Elif(mine & found.valid):
            m.d.sync += [ahead.eq(ahead - 1), mine.eq(~drained)]
        if not self.searching:
            offer, ending = end.offer, end.ending.invalidations
            for owns, one in ((0, end.software), (1, ending)):
                same = one.valid & (Value.cast(offer["kept"]) == Value.cast(one.payload))
                m.d.comb += Assert(~offer["offers"] | (offer["owns"] != owns) | same)
            queue = end.queue
            m.d.comb += [
                Assert(queue.level == count),
                Assert(place_of(queue, queue.level) == queue.next),
                Assert(~mine | (ahead < count)),
            ]
            for place in range(_MOST):
                its = mine & (ahead == place)
                m.d.comb += Assert((place >= count) | (queue.rows[place_of(queue, Const(place, 2))] == its))
        return SimpleNamespace(taken=taken, own=own, waits=waits, drained=drained, mine=mine, ahead=ahead)

    def _command(self, m: Module, waiting: SimpleNamespace) -> None:
        """The page that is watched: what covers it is taken, and then, or with it, what drains; that is complete."""
        end, span, out = self.end, self.end.span, self.end.invalidations.payload
        offset = self.arbitrary(m, PAGES_BITS, "offset")
        page, inside = Signal(PAGES_BITS, name="page"), Signal(name="inside")
        by_levels = []
        for levels in (x86.LEVELS_4, x86.LEVELS_5):  # canonical: all bits from the sign bit on are equal
            bits = x86.LINEAR_BITS[levels]
            number = page[: bits - x86.PAGE_SHIFT]
            by_levels.append(Cat(Const(0, x86.PAGE_SHIFT), number, number[-1].replicate(64 - bits)))
        linear = Mux(span.la57, by_levels[1], by_levels[0])
        m.d.comb += [page.eq(span.page + offset), inside.eq(offset < span.pages)]
        by_address = (out.kind == x86.Invalidation.ADDRESS) & (out.linear == linear) & (out.pcid == span.pcid)
        by_pcid = (out.kind == x86.Invalidation.PCID) & (out.pcid == span.pcid)
        every = out.kind == x86.Invalidation.ALL
        covers = every | (~span.shared & (by_pcid | (by_address & ~span.whole)))
        covered, drains, done = Signal(name="covered"), Signal(name="drains"), Signal(name="done")
        now = waiting.own & covers
        drains_now = waiting.own & waiting.waits & (covered | now)
        enough = ~span.reads | (out.wait == x86.Wait.ALL)
        with m.If(~end.valid):
            m.d.sync += [covered.eq(0), drains.eq(0), done.eq(0)]
        with m.Else():
            m.d.sync += [covered.eq(covered | now), drains.eq(drains | (drains_now & enough))]
            m.d.sync += done.eq(done | (drains & waiting.drained))
        told = Signal(name="is_told")
        m.d.comb += [
            told.eq(end.valid & end.over),
            Assert(~told | ~inside | done),
            Assert(~(told & waiting.mine)),
            Cover(told & done & ~span.shared & (span.pages == 2) & (offset == 1)),
            Cover(told & done & span.shared & span.reads),
            Cover(told & (span.pages == 0)),
        ]
        if not self.searching:
            inner = end.inner
            state, kept, sent = inner["state"], inner["kept"], inner["sent"]
            running = (state != State.IDLE) & (state != State.OVER)
            alone = inner["by_address"]
            m.d.comb += [
                Assert(Value.cast(state) <= max(State)),
                Assert((state == State.IDLE) | end.valid | (state == State.OVER)),
                Assert(~running | (kept == Value.cast(span))),
                Assert(waiting.mine == (state == State.DRAIN)),
                Assert((state != State.SEND) | (alone == ((span.pages <= 32) & ~span.whole & ~span.shared))),
                Assert((state != State.SEND) | (span.pages != 0)),
                Assert((state != State.SEND) | alone | (sent == 0)),
                Assert((state != State.SEND) | (inner["page"] == (span.page + sent)[:PAGES_BITS])),
                Assert((state != State.SEND) | ~alone | (sent < span.pages)),
                Assert((state != State.SEND) | ~alone | ~inside | (covered == (offset < sent))),
                Assert(((state != State.SEND) & (state != State.BEGIN) & (state != State.IDLE)) | ~(drains | done)),
                Assert(((state != State.BEGIN) & (state != State.IDLE)) | ~covered),
                Assert((state != State.DRAIN) | ~inside | (covered & drains)),
                Assert((state != State.BEGIN) | (sent == 0)),
                Assert((state != State.OVER) | ~end.valid | ~inside | done),
            ]
