"""What is proved of the bridge's reads: what goes out is granted, R has room, nothing granted waits for the master."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.bridge import Stranger, tie_head
from ptewalk.cosim.formal.harness import Harness
from ptewalk.model.x86 import Outcome
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.faults import FaultState
from ptewalk.rtl.bridge.reads import ReadSide

__all__ = ["BridgeReads", "BridgeRoom"]

_CONFIG = BridgeConfig(linear_bits=32, physical_bits=32, id_bits=1, reads=4, writes=4)
_SLOTS, _BEATS = _CONFIG.reads, _CONFIG.beats


class BridgeReads(Harness):
    """Of the bridge's reads, whatever the master, software, MMU and memory do.

    What goes out has an OK of the MMU, and is at the frame that that said. It ends once, when all of its R is here.
    What is answered here finds nothing at work below. And while there is a grant, something is on offer below, or is
    done here, or memory or MMU owes an answer. That R finds room is `BridgeRoom`.
    """

    title = "bridge-reads"
    assumptions: tuple[str, ...] = (
        "the MMU answers what it was asked, once; memory answers reads that went out, and R ends with RLAST",
        "of answers of an ID that of the oldest is found, and whether none is at work (outstanding)",
        "the buffer takes what comes (bridge-room)",
        "a slot is freed once, when its burst has ended (tests/rtl/bridge)",
    )
    constants: tuple[str, ...] = ("slot",)
    depth = 2
    search_depth = 10
    solver = "yices"

    def __init__(self, *, searching: bool = False) -> None:
        side: Any = ReadSide(_CONFIG)
        side.buffer, side.outstanding = Stranger(side.buffer), Stranger(side.outstanding)
        self.side: Any = side
        super().__init__(side, searching=searching)
        self.answers = Signal(range(_SLOTS))  # free: whose beat of memory's is
        self.ports.append(self.answers)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        side, ring = self.side, self.side.ring
        verdicts, bursts = (
            [memory.read_port(domain="comb") for _ in range(_SLOTS)] for memory in (ring.verdicts, ring.bursts)
        )
        m.submodules.side = side
        s = SimpleNamespace(m=m, ring=ring, slot=self.arbitrary(m, (_SLOTS - 1).bit_length(), "slot"))
        for ports in (verdicts, bursts):
            m.d.comb += [port.addr.eq(number) for number, port in enumerate(ports)]
        s.verdicts, s.bursts = ([port.data for port in ports] for ports in (verdicts, bursts))
        self._below(s)
        self._buffer(s)
        self._mmu(s)
        self._specify(s)
        if not self.searching:
            self._tie(s)
        return m

    def _below(self, s: SimpleNamespace) -> None:
        """Which slots are at memory, how many beats it owes, or this side, and which ended and are not free."""
        m, side, ring = s.m, self.side, s.ring
        known = side.outstanding
        s.sends = side.to_ar.valid & side.to_ar.ready
        s.fails = Signal()
        s.sent, s.known, s.over = Signal(_SLOTS), Signal(_SLOTS), Signal(_SLOTS)
        comes, last = side.from_r.valid, side.from_r.payload.last
        ended = Signal.like(self.answers)
        m.d.sync += ended.eq(self.answers)
        m.d.comb += [
            s.fails.eq(side.buffer.taken.valid & ~comes),
            known.ended.eq(ended),
            known.none.eq((s.known == 0) & ~known.begins),
            Assume(~comes | s.sent.bit_select(self.answers, 1)),
            Assume(~side.frees | (s.over | (1 << side.ended) & side.ends.replicate(_SLOTS)).bit_select(side.freed, 1)),
        ]
        for slot in range(_SLOTS):
            mine = comes & (self.answers == slot)
            m.d.sync += [
                s.sent[slot].eq((s.sends & (ring.head_slot == slot)) | (s.sent[slot] & ~(mine & last))),
                s.known[slot].eq(
                    (known.begins & (known.begun == slot)) | (s.known[slot] & ~(known.ends & (ended == slot)))
                ),
                s.over[slot].eq(
                    (s.over[slot] | (side.ends & (side.ended == slot))) & ~(side.frees & (side.freed == slot))
                ),
            ]

    def _buffer(self, s: SimpleNamespace) -> None:
        """How many beats are in the buffer; one that comes is on offer in the same cycle."""
        m, side = s.m, self.side
        taken, offered = side.buffer.taken, side.buffer.offered
        s.level = Signal(range(_BEATS + 2))
        m.d.comb += [taken.ready.eq(1), offered.valid.eq((s.level != 0) | taken.valid)]
        m.d.sync += s.level.eq(s.level + taken.valid - (offered.valid & offered.ready))

    def _mmu(self, s: SimpleNamespace) -> None:
        """What was asked of the MMU, and granted."""
        m, side = s.m, self.side
        s.asked, s.granted = Signal(_SLOTS), Signal(_SLOTS)
        s.frame = Signal.like(side.verdict.frame)  # of the one slot
        good = side.answered & (side.verdict.outcome == Outcome.OK)
        m.d.comb += [
            Assume(~side.asks | side.wants),
            Assume(~side.answered | s.asked.bit_select(side.answered_slot, 1)),
        ]
        with m.If(side.answered & (side.answered_slot == s.slot)):
            m.d.sync += s.frame.eq(side.verdict.frame)
        for slot in range(_SLOTS):
            answers = side.answered_slot == slot
            asks = side.asks & side.lawful & (side.ask.slot == slot)
            m.d.sync += [
                s.asked[slot].eq(asks | (s.asked[slot] & ~(side.answered & answers))),
                s.granted[slot].eq((good & answers) | (s.granted[slot] & ~(side.ends & (side.ended == slot)))),
            ]

    def _specify(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        head, sent, out = ring.head_slot, s.sent, side.to_ar
        done_here = Cat(side.outstanding.begins, side.outstanding.ends, side.reports, s.fails).any()
        m.d.comb += [
            Assert(~out.valid | (s.granted & ~sent).bit_select(head, 1)),
            Assert(~(out.valid & (head == s.slot)) | (out.payload.addr[12:] == s.frame)),
            Assert(~side.ends | (s.granted & ~sent).bit_select(side.ended, 1)),
            Assert(~(s.fails & side.from_r.valid)),
            Assert(~s.fails | ~sent.any()),
            Assert((s.granted == 0) | out.valid | done_here | s.asked.any() | sent.any()),
            Cover(ring.drops & (side.faults.state == FaultState.FAILED) & (head == 3)),
            Cover(side.ends & (side.ended == 3) & (s.granted == 0xF)),
            Cover(side.faults.again & (sent == 0b11)),
        ]

    def _tie(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        state, known = side.faults.state, side.outstanding
        bits = ring.head_slot.shape().width
        for slot in range(_SLOTS):
            place = (slot - ring.head_slot)[:bits]
            asked, waits = place < ring.asked, (place >= ring.asked) & (place < ring.asked + ring.waiting)
            inside = asked | waits
            begins = known.begins & (known.begun == slot)
            ends = known.ends & (known.ended == slot)
            below = s.sent[slot] | s.known[slot] | begins
            done, bad = ring.done[slot], ring.bad[slot]
            rejected = ring.rejected & (ring.rejected_slot == slot)
            allowed = done & ~bad & (Value.cast(s.verdicts[slot].outcome) == Outcome.OK)
            m.d.comb += [
                Assert(done == (asked & ~s.asked[slot] & ~rejected)),
                Assert(~s.asked[slot] | (asked & ~bad)),
                Assert(~rejected | (asked & bad & ~s.asked[slot])),
                Assert(~done | ((ring.good[slot] & ~bad) == allowed)),
                Assert(ring.busy[slot] == (inside | below | s.over[slot])),
                Assert((inside + below + s.over[slot]) <= 1),
                Assert(~s.sent[slot] | (s.known[slot] ^ begins)),
                Assert(~begins | s.sent[slot]),
                Assert((s.known[slot] & ~s.sent[slot]) == ends),
                Assert(s.granted[slot] == (below | allowed)),
                Assert(~(done & ~bad & (s.slot == slot)) | (s.verdicts[slot].frame == s.frame)),
            ]
        m.d.comb += [
            Assert(ring.asked + ring.waiting <= _SLOTS),
            *tie_head(ring),
            Assert(ring.next_slot == (ring.head_slot + ring.asked)[:bits]),
            Assert(ring.tail == (ring.next_slot + ring.waiting)[:bits]),
            Assert((state != FaultState.STALLED) | (ring.asked == 1)),
            Assert((state == FaultState.WATCH) | (side.faults.judged & ~side.faults.good)),
            Assert(state <= FaultState.FAILED),
            Assert((state != FaultState.FAILED) | (side.last == (side.made == ring.head.address.len))),
            Assert((side.made == 0) | ((state == FaultState.FAILED) & (s.known == 0) & ~known.begins)),
        ]

    def _lengths(self, s: SimpleNamespace) -> None:
        """Of each slot the beats of R that memory or this side owes; memory answers with as many as were asked for."""
        m, side, ring = s.m, self.side, s.ring
        s.left = [Signal(range(258), name=f"left{slot}") for slot in range(_SLOTS)]
        comes = side.from_r.valid
        for slot, left in enumerate(s.left):
            mine, head = comes & (self.answers == slot), ring.head_slot == slot
            m.d.comb += Assume(~mine | (side.from_r.payload.last == (left == 1)))
            m.d.sync += left.eq(left - (mine | (s.fails & head)))
            with m.If(ring.takes & (ring.tail == slot)):
                m.d.sync += left.eq(side.ar.payload.len + 1)

    def _tie_lengths(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        bits = ring.head_slot.shape().width
        for slot, left in enumerate(s.left):
            inside = (slot - ring.head_slot)[:bits] < ring.asked + ring.waiting
            length, made = s.bursts[slot].address.len, Mux(ring.head_slot == slot, side.made, 0)
            m.d.comb += [
                Assert(((left != 0) == (inside | s.sent[slot])) & (left <= 256)),
                Assert(~inside | (left == length + 1 - made)),
                Assert(~(inside & (ring.head_slot == slot)) | (side.made <= length)),
            ]


class BridgeRoom(BridgeReads):
    """Of the bridge's reads: each beat of R, memory's or made here, finds room, whether the master takes R or not.

    What the master has not taken, what memory and this side owe, and what nobody has set aside, is the buffer.
    """

    title = "bridge-room"
    assumptions = (
        "memory answers reads that went out, with as many beats as were asked for",
        "the rest as of bridge-reads, which is proved beside it",
    )
    depth = 2
    search_depth = 6

    def _specify(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        self._lengths(s)
        pairs = [Signal(11, name=f"pair{number}") for number in range(_SLOTS // 2)]  # of which the sum is kept
        owed = Signal(12)  # and of all
        comes, length = side.from_r.valid, side.ar.payload.len + 1
        for number, pair in enumerate(pairs):
            taken, made, answered = (slot[1:] == number for slot in (ring.tail, ring.head_slot, self.answers))
            less = (comes & answered) | (s.fails & made)
            m.d.sync += pair.eq(pair + Mux(ring.takes & taken, length, 0) - less)
        m.d.sync += owed.eq(owed + Mux(ring.takes, length, 0) - (comes | s.fails))
        s.pairs, s.owed = pairs, owed
        m.d.comb += [
            Assert(s.level + owed + side.free == _BEATS),
            Assert(~side.buffer.taken.valid | (s.level < _BEATS)),
            Assert(~(s.fails & comes)),
            Cover(side.ar.valid & ~side.ar.ready & (s.level > 1) & (ring.busy != 0xF)),
        ]

    def _tie(self, s: SimpleNamespace) -> None:
        super()._tie(s)
        self._tie_lengths(s)
        s.m.d.comb += [
            *(Assert(pair == s.left[2 * number] + s.left[2 * number + 1]) for number, pair in enumerate(s.pairs)),
            Assert(s.owed == s.pairs[0] + s.pairs[1]),
        ]
