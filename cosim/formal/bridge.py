"""What is proved of the bridge's writes: what goes out is granted, and what is granted waits for memory only."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component

from ptewalk.cosim.formal.harness import Harness
from ptewalk.model.x86 import Access, Outcome
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.faults import FaultState
from ptewalk.rtl.bridge.writes import WriteSide

__all__ = ["BridgeWrites", "Stranger", "tie_head"]

_CONFIG = BridgeConfig(linear_bits=32, physical_bits=32, id_bits=1, reads=4, writes=4)
_SLOTS = _CONFIG.writes
_MOST = 15
"""Beats in the buffer."""


def tie_head(ring: Any) -> list[Assert]:
    """What registers say of a ring's tail and head is what its slots say."""
    done, good, bad = (bits.bit_select(ring.head_slot, 1) for bits in (ring.done, ring.good, ring.bad))
    return [
        Assert(ring.some == (ring.waiting != 0)),
        Assert(ring.quiet == (ring.asked == 0)),
        Assert(~ring.room | ~ring.busy.bit_select(ring.tail, 1)),
        *(
            Assert(after == (slot + 1)[: len(slot)])
            for slot, after in ((ring.tail, ring.after_tail), (ring.head_slot, ring.after_head))
        ),
        Assert(ring.judged == done),
        Assert(ring.allowed == (done & good & ~bad)),
        Assert(~done | (ring.illegal == bad)),
    ]


class Stranger(Component):
    """Stands for a neighbour, which is there and not connected: the harness says what it does."""

    def __init__(self, neighbour: Component) -> None:
        self._neighbour = neighbour
        super().__init__(neighbour.signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.neighbour = self._neighbour
        return m


class BridgeWrites(Harness):
    """Of the bridge's writes, whatever the master, software, MMU and memory do.

    A write is asked about when all of its W is here. What goes out has an OK of the MMU to a store, is at the frame
    that that said, and is not bufferable unless software allows it. A grant retires once, when memory has answered.
    What is answered here finds nothing at work below. And while there is a grant, something is on offer below, or is
    done here, or memory or MMU owes an answer: nothing waits for the master or for software.
    """

    title = "bridge-writes"
    assumptions: tuple[str, ...] = (
        "the MMU answers what it was asked, once; memory answers writes that went out, when a W has gone out whole",
        "of answers of an ID that of the oldest is found, and whether none is at work (outstanding)",
        "beats leave the buffer as they came, and are on offer while there are any (tests/rtl/bridge)",
    )
    constants: tuple[str, ...] = ("slot",)
    depth = 2
    search_depth = 10
    solver = "yices"

    def __init__(self, *, searching: bool = False) -> None:
        side: Any = WriteSide(_CONFIG)
        side.buffer, side.outstanding = Stranger(side.buffer), Stranger(side.outstanding)
        self.side: Any = side
        super().__init__(side, searching=searching)
        self.room, self.ending = Signal(), Signal()  # free: the buffer's; whether the beat on offer is a burst's last
        self.answers = Signal(range(_SLOTS))  # free: whose memory's answer is
        self.ports += [self.room, self.ending, self.answers]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        side = self.side
        ring = side.ring
        rows = [ring.verdicts.read_port(domain="comb") for _ in range(_SLOTS)]
        m.submodules.side = side
        s = SimpleNamespace(m=m, ring=ring, slot=self.arbitrary(m, (_SLOTS - 1).bit_length(), "slot"))
        m.d.comb += [row.addr.eq(number) for number, row in enumerate(rows)]
        s.rows = [row.data for row in rows]
        self._buffer(s)
        self._below(s)
        self._mmu(s)
        self._specify(s)
        if not self.searching:
            self._tie(s)
        return m

    def _buffer(self, s: SimpleNamespace) -> None:
        """Beats in the buffer: of bursts that are whole, how many those are, and of one that is not."""
        m, side = s.m, self.side
        taken, offered = side.buffer.taken, side.buffer.offered
        s.lasts, s.whole, s.part = Signal(4), Signal(range(_MOST + 1)), Signal(range(_MOST + 1))
        comes, goes = taken.valid & taken.ready, offered.valid & offered.ready
        last = side.w.payload.last
        ends = Signal()
        free = Mux(s.lasts == 1, s.whole == 1, (s.whole == s.lasts) | self.ending)
        m.d.comb += [
            taken.ready.eq(self.room & (s.whole + s.part < _MOST)),
            ends.eq((s.lasts != 0) & free),
            offered.valid.eq(s.whole + s.part != 0),
            offered.payload.eq(side.beat.const({"last": 1}).as_value() & ends.replicate(side.beat.size)),
        ]
        leaves = goes & ends
        m.d.sync += s.lasts.eq(s.lasts + (comes & last) - leaves)
        from_part = goes & (s.whole == 0)
        m.d.sync += [
            s.whole.eq(s.whole + Mux(comes & last, s.part + 1, 0) - (goes & ~from_part)),
            s.part.eq(Mux(comes & last, 0, s.part + comes - from_part)),
        ]
        s.from_part, s.came_last, s.left_last = from_part, comes & last, leaves

    def _below(self, s: SimpleNamespace) -> None:
        """Which slots are at memory, and what it owes."""
        m, side = s.m, self.side
        known = side.outstanding
        s.sends = Signal()
        m.d.comb += s.sends.eq(side.to_aw.valid & side.to_aw.ready)
        s.sent = Signal(_SLOTS)  # at memory
        s.known = Signal(_SLOTS)  # of those, and of those just answered: what `outstanding` knows
        s.wholes = Signal(range(_SLOTS + 2))  # W that went out whole, and whose answer did not come
        answered = side.from_b.valid
        ended = Signal.like(self.answers)
        went = side.to_w.valid & side.to_w.ready & side.to_w.payload.last
        m.d.sync += [ended.eq(self.answers), s.wholes.eq(s.wholes + went - answered)]
        m.d.comb += [
            known.ended.eq(ended),
            known.none.eq((s.known == 0) & ~known.begins),
            Assume(~answered | (s.sent.bit_select(self.answers, 1) & (s.wholes != 0))),
        ]
        for slot in range(_SLOTS):
            m.d.sync += [
                s.sent[slot].eq(
                    (s.sends & (s.ring.head_slot == slot)) | (s.sent[slot] & ~(answered & (self.answers == slot)))
                ),
                s.known[slot].eq(
                    (known.begins & (known.begun == slot)) | (s.known[slot] & ~(known.ends & (ended == slot)))
                ),
            ]

    def _mmu(self, s: SimpleNamespace) -> None:
        """What was asked of the MMU, and granted."""
        m, side = s.m, self.side
        s.asked, s.stores, s.granted = Signal(_SLOTS), Signal(_SLOTS), Signal(_SLOTS)
        s.frame = Signal.like(side.verdict.frame)  # of the one slot
        s.here = Signal(range(2 * _SLOTS + 2))  # bursts whose W is here and who were not asked about
        asks = side.asks & side.lawful
        s.good = Signal()
        m.d.sync += s.here.eq(s.here + s.came_last - (side.asks & ~side.repeats))
        m.d.comb += [
            Assume(~side.asks | side.wants),
            Assume(~side.answered | s.asked.bit_select(side.answered_slot, 1)),
            s.good.eq(side.answered & (side.verdict.outcome == Outcome.OK)),
        ]
        with m.If(side.answered & (side.answered_slot == s.slot)):
            m.d.sync += s.frame.eq(side.verdict.frame)
        for slot in range(_SLOTS):
            mine, answers = side.ask.slot == slot, side.answered_slot == slot
            m.d.sync += s.asked[slot].eq((asks & mine) | (s.asked[slot] & ~(side.answered & answers)))
            with m.If(asks & mine):
                m.d.sync += s.stores[slot].eq(side.ask.access == Access.WRITE)
            m.d.sync += s.granted[slot].eq(
                (s.good & answers & s.stores[slot]) | (s.granted[slot] & ~(side.ends & (side.ended == slot)))
            )

    def _specify(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        first = side.asks & ~side.repeats
        head, sent = ring.head_slot, s.sent
        out, page = side.to_aw, side.to_aw.payload.addr[12:]
        done_here = Cat(
            *(side.outstanding.begins, side.outstanding.ends, side.reports, ring.drops),
            side.buffer.offered.valid & side.buffer.offered.ready & ~side.to_w.valid,
        ).any()
        owed = s.asked.any() | (sent.any() & (s.wholes != 0))
        m.d.comb += [
            Assert(~first | (s.here != 0)),
            Assert(~out.valid | (s.granted & ~sent).bit_select(head, 1)),
            Assert(~(out.valid & (head == s.slot)) | (page == s.frame)),
            Assert(~(out.valid & side.control.final_response) | ~out.payload.cache[0]),
            Assert(~side.ends | s.granted.bit_select(side.ended, 1)),
            Assert(~ring.drops | ~sent.any()),
            Assert((s.granted == 0) | out.valid | side.to_w.valid | done_here | owed),
            Cover(ring.drops & (side.faults.state == FaultState.FAILED) & (head == 3)),
            Cover(side.ends & (side.ended == 3) & (s.granted == 0xF)),
            Cover(side.faults.again & (sent == 0b11)),
            Cover((s.sends & side.w.valid & ~side.w.ready) & (s.granted == 7)),
        ]

    def _tie(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        state, ahead = side.faults.state, side.ahead
        known = side.outstanding
        bits = ring.head_slot.shape().width
        inside: list[Value] = []  # of each slot: it was taken, and has not passed
        for slot in range(_SLOTS):
            place = (slot - ring.head_slot)[:bits]
            asked, waits = place < ring.asked, (place >= ring.asked) & (place < ring.asked + ring.waiting)
            inside.append(asked | waits)
            begins = known.begins & (known.begun == slot)
            ends = known.ends & (known.ended == slot)
            below = s.sent[slot] | s.known[slot] | begins
            done, bad, row = ring.done[slot], ring.bad[slot], s.rows[slot]
            rejected = ring.rejected & (ring.rejected_slot == slot)
            allowed = done & ~bad & (Value.cast(row.outcome) == Outcome.OK)
            m.d.comb += [
                Assert(done == (asked & ~s.asked[slot] & ~rejected)),
                Assert(~s.asked[slot] | (asked & ~bad)),
                Assert(~rejected | (asked & bad & ~s.asked[slot])),
                Assert(~done | ((ring.good[slot] & ~bad) == allowed)),
                Assert(ring.busy[slot] == (inside[slot] | below)),
                Assert(~(inside[slot] & below)),
                Assert(~s.sent[slot] | (s.known[slot] ^ begins)),
                Assert(~begins | s.sent[slot]),
                Assert((s.known[slot] & ~s.sent[slot]) == ends),
                Assert(s.granted[slot] == (below | (allowed & s.stores[slot]))),
                Assert(~asked | rejected | (done & bad) | (side.still[slot] == ~s.stores[slot])),
                Assert(~(done & ~bad & (s.slot == slot)) | (row.frame == s.frame)),
            ]
        sent: Value = sum((s.sent[slot] for slot in range(1, _SLOTS)), Value.cast(s.sent[0]))
        judged = side.faults.judged
        answered_here = side.faults.failed | (side.faults.good & side.still_head)
        first = ahead == -1
        m.d.comb += [
            Assert(~judged | (side.still_head == side.still.bit_select(ring.head_slot, 1))),
            Assert(ring.asked + ring.waiting <= _SLOTS),
            *tie_head(ring),
            Assert(ring.next_slot == (ring.head_slot + ring.asked)[:bits]),
            Assert(ring.tail == (ring.next_slot + ring.waiting)[:bits]),
            *(Assert(s.here == side.whole.level), Assert(s.here <= _SLOTS)),
            Assert(side.some_whole == (s.here != 0)),
            Assert(~side.repeats | ((ring.asked == 0) & (ring.waiting != 0))),
            # W of all that was asked about, and of what passed, is in the buffer.
            Assert(s.lasts == s.here + side.repeats + ring.asked + ahead),
            Assert((ahead >= -1) & (ahead <= _SLOTS)),
            Assert(sent == s.wholes + ahead + (first & answered_here)),
            Assert(~first | answered_here | side.to_aw.valid),
            Assert((s.whole >= s.lasts) & ((s.lasts != 0) | (s.whole == 0))),
            # The head, and what is known against it.
            Assert((state != FaultState.STALLED) | (ring.asked == 1)),
            Assert((state == FaultState.WATCH) | (judged & ~side.faults.good)),
            Assert(state <= FaultState.FAILED),
        ]
