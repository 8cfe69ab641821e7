"""The bursts of one direction, in the order in which they came: taken, asked about, answered, passed on."""

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.bridge.layouts import BurstLayout, VerdictLayout

__all__ = ["BurstRing"]


class BurstRing(Component):
    """A slot for each burst: it is the tag of its translation, and of its grant. Verdicts come in any order.

    Parameters
    ----------
    slots : int
        A power of two.
    burst : BurstLayout
    physical_bits : int
    passing : bool
        True: a burst that comes while none waits to be asked about may be asked about in the same cycle.

    Members
    -------
    room : Out(1), takes : In(1), taken : In(BurstLayout)
        A burst comes; only with `room`.
    some, waits : Out(1), next : Out(BurstLayout), next_slot : Out(slot)
        Bursts wait to be asked about; they do, or one comes that may be. The oldest that was not asked about.
    asks, lawful : In(1)
        It is asked about now; or where it is not lawful, its verdict is that it is illegal.
    answered : In(1), answered_slot : In(slot), verdict : In(VerdictLayout)
    judged, allowed, illegal : Out(1)
        The verdict of the oldest that has not passed is known; it is OK; it is that it is illegal.
    head : Out(BurstLayout), head_slot : Out(slot), head_verdict : Out(VerdictLayout)
        That burst.
    alone, quiet : Out(1)
        It is the only one that was asked about; none is that has not passed.
    again : In(1)
        The head is asked about anew; only when it is `alone`.
    passes : In(1)
        The head goes on; its slot is free when that is said.
    frees, freed : In(1), In(slot)
        This slot is free, of a burst that passed earlier.
    drops : In(1)
        The head's slot is free.
    empty : Out(1)
        All slots are free.

    Attributes
    ----------
    tail, busy, done, bad, good, waiting, asked : Signal
        The slot that is taken next; slots that are not free, whose verdict is known, whose burst is illegal, and, once
        it is known, is the MMU's OK if it is the MMU's; how many wait to be asked about; how many were, and have not
        passed.
    after_tail, after_head, rejected, rejected_slot : Signal
        The slots after those of tail and head; one was rejected a cycle ago; which. Proofs look at them all, and
        into `verdicts`.
    """

    def __init__(self, *, slots: int, burst: BurstLayout, physical_bits: int, passing: bool) -> None:
        self._slots, self._passing = slots, passing
        slot, verdict = unsigned((slots - 1).bit_length()), VerdictLayout(physical_bits)
        self.bursts = Memory(shape=burst, depth=slots, init=[])
        self.verdicts = Memory(shape=verdict, depth=slots, init=[])
        self.tail, self.busy, self.done = Signal(slot), Signal(slots), Signal(slots)
        self.bad, self.good = Signal(slots, reset_less=True), Signal(slots, reset_less=True)
        self.after_tail, self.after_head = Signal(slot, init=1), Signal(slot, init=1)
        self.rejected, self.rejected_slot = Signal(), Signal(slot)
        self.waiting, self.asked = Signal(range(slots + 1)), Signal(range(slots + 1))
        super().__init__(
            {
                "room": Out(1, init=1),
                "takes": In(1),
                "taken": In(burst),
                "some": Out(1),
                "waits": Out(1),
                "next": Out(burst),
                "next_slot": Out(slot),
                "asks": In(1),
                "lawful": In(1),
                "answered": In(1),
                "answered_slot": In(slot),
                "verdict": In(verdict),
                "judged": Out(1),
                "allowed": Out(1),
                "head": Out(burst),
                "head_slot": Out(slot),
                "head_verdict": Out(verdict),
                "illegal": Out(1),
                "alone": Out(1),
                "quiet": Out(1, init=1),
                "again": In(1),
                "passes": In(1),
                "drops": In(1),
                "frees": In(1),
                "freed": In(slot),
                "empty": Out(1),
            }
        )

    def at_head(self, of_slots: Value) -> Value:
        """The bit of the slot that is the head in the next cycle."""
        here, after = (of_slots.bit_select(slot, 1) for slot in (self.head_slot, self.after_head))
        return Mux(self.passes, after, here)

    def _is_head(self, slot: Value) -> Value:
        """It is the slot that is the head in the next cycle."""
        return Mux(self.passes, slot == self.after_head, slot == self.head_slot)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        slots = self._slots
        m.submodules.bursts, m.submodules.verdicts = self.bursts, self.verdicts
        burst_in, verdict_in = self.bursts.write_port(), self.verdicts.write_port()
        at_next, at_head = (self.bursts.read_port(domain="comb") for _ in range(2))
        verdict_at_head = self.verdicts.read_port(domain="comb")

        tail, busy, done, bad, good, waiting, asked = (
            *(self.tail, self.busy, self.done, self.bad),
            *(self.good, self.waiting, self.asked),
        )
        after_tail, after_head = self.after_tail, self.after_head
        m.d.comb += [
            burst_in.addr.eq(tail),
            burst_in.data.eq(self.taken),
            burst_in.en.eq(self.takes),
            at_next.addr.eq(self.next_slot),
            self.waits.eq(self.some),
            self.next.eq(at_next.data),
            verdict_in.addr.eq(self.answered_slot),
            verdict_in.data.eq(self.verdict),
            verdict_in.en.eq(self.answered),
            at_head.addr.eq(self.head_slot),
            verdict_at_head.addr.eq(self.head_slot),
            self.head.eq(at_head.data),
            self.head_verdict.eq(verdict_at_head.data),
            self.alone.eq(asked == 1),
            self.empty.eq(busy == 0),
        ]
        if self._passing:
            with m.If(~self.some):
                m.d.comb += [self.waits.eq(self.takes), self.next.eq(self.taken)]
        leaves = self.asks
        m.d.sync += [
            waiting.eq(waiting + self.takes - leaves + self.again),
            asked.eq(asked + leaves - self.passes - self.again),
            # What the two counts are against 0 is in registers too.
            self.some.eq(Mux(leaves, (waiting > 1) | (self.takes & self.some), self.some | self.takes | self.again)),
            self.quiet.eq(Mux(self.quiet, ~leaves, self.alone & (self.passes | self.again) & ~leaves)),
        ]
        # What is known of the tail and of the head is in registers: both slots that may be it are looked up.
        m.d.sync += self.room.eq(~Mux(self.takes, busy.bit_select(after_tail, 1), busy.bit_select(tail, 1)))
        rejected, answers, settles = self.rejected, Signal(slots), Signal(slots)
        well = self.verdict.outcome == x86.Outcome.OK
        m.d.comb += [
            answers.eq(self.answered << self.answered_slot),
            settles.eq(answers | (rejected << self.rejected_slot)),
        ]
        m.d.sync += [rejected.eq(leaves & ~self.lawful), self.rejected_slot.eq(self.next_slot)]
        # The MMU's answer comes late: that it is the head's is known from its tag beside it, and not by looking it up.
        answers_head = self.answered & self._is_head(self.answered_slot)
        rejects_head = rejected & self._is_head(self.rejected_slot)
        m.d.sync += [
            self.judged.eq((self.at_head(done) | rejects_head | answers_head) & ~self.again),
            self.allowed.eq((Cat(map(self.at_head, (done, good, ~bad))).all() | (answers_head & well)) & ~self.again),
            self.illegal.eq(self.at_head(bad)),
        ]
        with m.If(self.takes):
            m.d.sync += [tail.eq(after_tail), after_tail.eq(after_tail + 1)]
        with m.If(self.again):
            m.d.sync += self.next_slot.eq(self.head_slot)
        with m.Elif(leaves):
            m.d.sync += self.next_slot.eq(self.next_slot + 1)
        with m.If(self.passes):
            m.d.sync += [self.head_slot.eq(after_head), after_head.eq(after_head + 1)]
        mark = Signal(slots)  # of the slot that an answer is about, if there is one
        m.d.comb += mark.eq(1 << self.answered_slot)
        for slot in range(slots):
            at = {"tail": tail == slot, "next": self.next_slot == slot, "head": self.head_slot == slot}
            m.d.sync += [
                busy[slot].eq(
                    (self.takes & at["tail"])
                    | (busy[slot] & ~(self.frees & (self.freed == slot)) & ~(self.drops & at["head"]))
                ),
                done[slot].eq(settles[slot] | (done[slot] & ~((self.passes | self.again) & at["head"]))),
            ]
            # Until it is asked about: so nothing that is decided in that cycle is waited for. And no clock enables:
            # those of single bits leave the router too few wires.
            marks = self.waits & at["next"]
            # Whether there is an answer is known later; before its slot is done the bit does not count.
            tells = mark[slot] & ~done[slot]
            m.d.sync += [
                bad[slot].eq((marks & ~self.lawful) | (~marks & bad[slot])),
                good[slot].eq((tells & well) | (~tells & good[slot])),
            ]
        return m
