"""What is proved of the bridge's drains: what is granted retires within a bound of cycles, whatever the master does.

The bound is a budget of cycles, which is set at the grant and of which each cycle takes one. The proof is a measure of
the work that is left: it is never above the budget, and falls in each cycle, since memory, the MMU or the bridge is at
it.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Const, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.bridge import BridgeWrites
from ptewalk.cosim.formal.bridge_reads import BridgeReads
from ptewalk.cosim.formal.harness import Harness
from ptewalk.model.x86 import Outcome
from ptewalk.rtl.bridge.faults import FaultState

__all__ = ["BridgeReadsBound", "BridgeWritesBound"]

_SLOTS = 4
_MEMORY_BITS, _MMU_BITS = 2, 3
"""Of A and M."""
_LONGEST = 4
"""Beats of a read."""
_NEIGHBOURS = (
    "the MMU answers after M cycles at most",
    "a record is queued in the first cycle or the second (bridge-turns)",
)
"""What is assumed of them: see `_neighbours`."""


def _waits(m: Module, name: str, waiting: Value, *, most: Value) -> Signal:
    """Cycles before this one since which `waiting` holds; it is assumed not to hold for more than `most`."""
    waited = Signal(len(most) + 1, name=f"{name}_waited")
    m.d.sync += waited.eq(Mux(waiting, waited + 1, 0))
    m.d.comb += Assume(~waiting | (waited < most))
    return waited


def _neighbours(harness: Harness, s: SimpleNamespace, granted: Value) -> None:
    """How long MMU and the queue of records take; the one slot, and what is before it."""
    m, side, ring = s.m, s.side, s.ring
    s.most = harness.arbitrary(m, _MEMORY_BITS, "memory_most")
    s.mmu_most = harness.arbitrary(m, _MMU_BITS, "mmu_most")
    s.mmu_waited = [
        _waits(
            m,
            f"mmu_{slot}",
            s.asked[slot] & ~(side.answered & (side.answered_slot == slot)),
            most=s.mmu_most,
        )
        for slot in range(_SLOTS)
    ]
    s.record_waited = Signal(name="record_waited")
    m.d.sync += s.record_waited.eq(side.reports & ~side.reported)
    m.d.comb += Assume(~s.record_waited | ~side.reports | side.reported)
    known = side.outstanding
    s.place = Signal(range(_SLOTS), name="place")  # of the one slot in the ring
    s.of_one = 1 << s.slot
    s.granted_one, s.sent_one, s.inside_one = (Signal(name=f"{name}_one") for name in ("granted", "sent", "inside"))
    below = ((s.sent | s.known) & s.of_one).any() | (known.begins & (known.begun == s.slot))
    m.d.comb += [
        s.place.eq(s.slot - ring.head_slot),
        s.granted_one.eq((s.granted & s.of_one).any()),
        s.sent_one.eq((s.sent & s.of_one).any()),
        s.inside_one.eq(s.granted_one & ~below),
    ]
    s.grants = Signal(name="grants")
    s.until_asked = Mux(s.place != 0, s.mmu_most, 0)
    m.d.comb += s.grants.eq(
        side.answered & (side.verdict.outcome == Outcome.OK) & (side.answered_slot == s.slot) & granted
    )


def _tie_neighbours(s: SimpleNamespace) -> None:
    """Those before the one slot are answered while there is patience."""
    m, ring = s.m, s.ring
    s.patience = Signal(_MMU_BITS, name="patience")
    m.d.sync += s.patience.eq(Mux(s.grants, s.until_asked, s.patience - (s.patience != 0)))
    m.d.comb += [Assert(s.patience <= s.mmu_most), Assert(~s.record_waited | s.side.reports)]
    for slot, waited in enumerate(s.mmu_waited):
        before = s.inside_one & s.asked[slot] & ((slot - ring.head_slot)[: len(s.place)] < s.place)
        m.d.comb += [
            *(Assert(waited <= s.mmu_most), Assert((waited == 0) | s.asked[slot])),
            Assert(~before | (waited + s.patience > s.mmu_most)),
        ]


class BridgeWritesBound(BridgeWrites):
    """A write that is granted retires within M + (A + 1) beats + (A + 4) before + A + 2 cycles.

    Memory takes what is on offer, and answers a write that it has whole, after A cycles of waiting at most; the MMU
    answers after M. Beats are those of whole writes in the bridge at the grant. Before it are the writes that were
    asked about earlier and have not left; M counts only where there is one.
    """

    title = "bridge-writes/bound"
    assumptions = (
        "memory takes an address or a beat that is offered, and answers what it has whole, after A cycles at most",
        *_NEIGHBOURS,
        f"A is below {1 << _MEMORY_BITS}, M below {1 << _MMU_BITS}, no more than 15 beats are in the bridge",
        "the rest as of bridge-writes, which is proved beside it",
    )
    constants = ("slot", "memory_most", "mmu_most")
    depth = 2
    search_depth = 11

    def _specify(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        s.side = side
        _neighbours(self, s, (s.stores & (1 << s.slot)).any())
        self._memory(s)
        leaves = side.buffer.offered.valid & side.buffer.offered.ready
        beats, s.budget = Signal(s.whole.shape(), name="beats"), Signal(9, name="budget")
        with m.If(s.grants):
            m.d.sync += [
                beats.eq(s.whole - leaves),
                s.budget.eq(s.until_asked + (s.most + 1) * s.whole + (s.most + 4) * s.place + s.most + 2),
            ]
        with m.Else():
            m.d.sync += [beats.eq(beats - (leaves & (beats != 0))), s.budget.eq(s.budget - (s.budget != 0))]
        s.beats, s.due = beats, Signal(range(-1, 2 * _SLOTS + 2), name="due")  # of W, up to the last of the one slot
        retires = side.ends & (side.ended == s.slot)
        m.d.comb += [
            s.due.eq(Mux(s.inside_one, s.place + side.ahead + 1, self._of_one(s, s.lasts_due))),
            # Beats leave as they came: those of the one slot are among those that were here at its grant.
            Assume(~(s.granted_one & leaves & (s.due > 0) & ~s.left_last) | (beats > s.due)),
            Assert(~s.granted_one | (s.budget != 0)),
            Cover(retires & (s.budget == 1) & (s.most == 2)),
            Cover(s.granted_one & ring.drops & side.faults.failed & (s.place == 1)),
            Cover(s.granted_one & ~side.faults.judged & (s.place == 2) & side.b.valid),
        ]

    def _memory(self, s: SimpleNamespace) -> None:
        """How long memory takes; a write is whole when as many W went as AW up to its own."""
        m, side = s.m, self.side
        address, beat = side.to_aw, side.to_w
        s.aw_waited = _waits(m, "aw", address.valid & ~address.ready, most=s.most)
        s.w_waited = _waits(m, "w", beat.valid & ~beat.ready, most=s.most)
        went = beat.valid & beat.ready & beat.payload.last
        s.lead = Signal(range(-1, _SLOTS + 1), name="lead")  # AW that went, less W that went whole
        m.d.sync += s.lead.eq(s.lead + s.sends - went)
        s.lasts_due = [Signal(range(_SLOTS + 1), name=f"due_{slot}") for slot in range(_SLOTS)]
        s.b_waited = []
        for slot, due in enumerate(s.lasts_due):
            with m.If(s.sends & (s.ring.head_slot == slot)):
                m.d.sync += due.eq(s.lead + 1 - went)
            with m.Elif(due != 0):
                m.d.sync += due.eq(due - went)
            answers = side.from_b.valid & (self.answers == slot)
            m.d.comb += Assume(~answers | (due == 0))
            s.b_waited.append(_waits(m, f"b_{slot}", s.sent[slot] & (due == 0) & ~answers, most=s.most))

    def _of_one(self, s: SimpleNamespace, values: list[Signal]) -> Value:
        """Of a value for each slot that of the one."""
        found: Value = values[0]
        for slot in range(1, _SLOTS):
            found = Mux(s.slot == slot, values[slot], found)
        return found

    def _tie(self, s: SimpleNamespace) -> None:
        super()._tie(s)
        _tie_neighbours(s)
        m, side, ring, most = s.m, self.side, s.ring, s.most
        here = side.faults.failed | (side.faults.good & side.still.bit_select(ring.head_slot, 1))
        over = here & (side.ahead == -1)  # the head's W is gone: it is answered when nothing is at work below
        none_waited = Signal(_MEMORY_BITS + 1)
        m.d.sync += none_waited.eq(Mux(over & ~ring.drops, none_waited + 1, 0))
        m.d.comb += [
            Assert(s.lead == side.ahead + over),
            *(Assert(s.aw_waited <= most), Assert((s.aw_waited == 0) | side.to_aw.valid)),
            *(Assert(s.w_waited <= most), Assert((s.w_waited == 0) | side.to_w.valid)),
            *(Assert(none_waited <= most + (s.known == 0)), Assert((none_waited == 0) | over)),
        ]
        for slot in range(_SLOTS):
            younger = (ring.head_slot - 1 - slot)[: len(s.place)]  # writes that left after it
            due, waited = s.lasts_due[slot], s.b_waited[slot]
            owes = s.sent[slot] & (due == 0)
            m.d.comb += [
                Assert(due == Mux(s.sent[slot] & (s.lead > younger), s.lead - younger, 0)),
                *(Assert(waited <= most), Assert((waited == 0) | owes)),
                Assert(~(owes & over) | (waited > none_waited)),
            ]
        work = Mux(s.due > 0, (most + 1) * s.beats - s.w_waited, 0)
        refused = Mux(side.reports, s.record_waited, Mux(here, none_waited + 2, 0))
        at_head = Mux(s.place == 0, 0, Mux(side.to_aw.valid, s.aw_waited, refused))
        measure = Signal(9)
        with m.If(s.inside_one):
            left = Mux(s.due > 0, work - at_head, most + 1 - s.aw_waited)
            m.d.comb += [
                measure.eq(s.patience + left + (most + 4) * s.place + most + 2),
                Assert((s.place != 0) | (s.due != 1) | (s.aw_waited >= s.w_waited)),
            ]
        with m.Elif(s.sent_one):
            m.d.comb += measure.eq(work + most + 2 - self._of_one(s, s.b_waited))
        with m.Else():
            m.d.comb += measure.eq(1)
        m.d.comb += [
            Assert(~s.granted_one | (s.due >= 0)),
            Assert(~s.granted_one | (s.due <= 0) | (s.beats >= s.due)),
            Assert(~s.granted_one | (measure <= s.budget)),
        ]


class BridgeReadsBound(BridgeReads):
    """A read that is granted ends within M + (A + 1) (beats + later) + (A + 3) before + A + 2 cycles.

    Memory takes an address that is offered, and gives a beat while it owes one, after A cycles of waiting at most; the
    MMU answers after M. Beats are those that are owed at the grant to the read, to those before it and to those below;
    later are those that memory gives to reads which left after it. Before it are the reads that were asked about
    earlier and have not left; M counts only where there is one.
    """

    title = "bridge-reads/bound"
    assumptions = (
        "memory takes an address that is offered, and gives some beat while it owes any, after A cycles at most",
        *_NEIGHBOURS,
        f"A is below {1 << _MEMORY_BITS}, M below {1 << _MMU_BITS}, a read has no more than {_LONGEST} beats",
        "the rest as of bridge-reads and bridge-room, which are proved beside it",
    )
    constants = ("slot", "memory_most", "mmu_most")
    depth = 2
    search_depth = 11

    def _specify(self, s: SimpleNamespace) -> None:
        m, side, ring = s.m, self.side, s.ring
        s.side = side
        self._lengths(s)
        _neighbours(self, s, Const(1))
        address, comes = side.to_ar, side.from_r.valid
        m.d.comb += Assume(side.ar.payload.len < _LONGEST)
        s.ar_waited = _waits(m, "ar", address.valid & ~address.ready, most=s.most)
        s.r_waited = _waits(m, "r", s.sent.any() & ~comes, most=s.most)
        earlier, counted = Signal(_SLOTS), Signal(_SLOTS)  # left before the one slot, with it; is owed before it ends
        with m.If(s.sends & (ring.head_slot == s.slot)):
            m.d.sync += earlier.eq(s.sent | s.of_one)
        with m.Elif(s.sends):
            m.d.sync += earlier.eq(earlier & ~(1 << ring.head_slot))
        owed: list[Any] = []
        for slot, left in enumerate(s.left):
            place = (slot - ring.head_slot)[: len(s.place)]
            inside = (place <= s.place) & (place < ring.asked)
            m.d.comb += counted[slot].eq(Mux(s.sent_one, s.sent[slot] & earlier[slot], s.sent[slot] | inside))
            owed.append(Mux(counted[slot], left[: _LONGEST.bit_length()], 0))
        s.beats, s.budget = Signal(range(_SLOTS * _LONGEST + 1), name="beats"), Signal(8, name="budget")
        later = s.sent_one & comes & ~(counted & (1 << self.answers)).any()
        # It is not added to what is far more than is needed.
        more = Mux(later & ~s.budget[-1], s.most + 1, 0)
        with m.If(s.grants):
            m.d.sync += s.budget.eq(s.until_asked + (s.most + 1) * s.beats + (s.most + 3) * s.place + s.most + 2)
        with m.Elif(s.budget != 0):
            m.d.sync += s.budget.eq(s.budget - 1 + more)
        s.earlier = earlier
        m.d.comb += [
            s.beats.eq((owed[0] + owed[1]) + (owed[2] + owed[3])),
            Assert(~s.granted_one | (s.budget != 0)),
            Cover(side.ends & (side.ended == s.slot) & (s.budget == 1) & (s.most == 2)),
            Cover(s.granted_one & ring.drops & (s.place == 1)),
            Cover(s.granted_one & later & side.r.valid & ~side.r.ready),
        ]

    def _tie(self, s: SimpleNamespace) -> None:
        super()._tie(s)
        self._tie_lengths(s)
        _tie_neighbours(s)
        m, side, most = s.m, self.side, s.most
        failed = side.faults.state == FaultState.FAILED
        m.d.comb += [
            *(Assert(s.ar_waited <= most), Assert((s.ar_waited == 0) | side.to_ar.valid)),
            *(Assert(s.r_waited <= most), Assert((s.r_waited == 0) | s.sent.any())),
            Assert(~s.sent_one | (s.earlier & s.of_one).any()),
            *(Assert(left <= _LONGEST) for left in s.left),
        ]
        none = ~s.sent.any() & ~s.known.any()
        at_head = Mux(side.to_ar.valid, s.ar_waited, Mux(failed, 2 + none, s.record_waited))
        measure, work = Signal(8), (most + 1) * s.beats - s.r_waited
        with m.If(s.inside_one):
            m.d.comb += measure.eq(s.patience + work + (most + 3) * s.place + most + 2 - at_head)
        with m.Else():
            m.d.comb += measure.eq(Mux(s.sent_one, work, 0) + 1)
        m.d.comb += Assert(~s.granted_one | (measure <= s.budget))
