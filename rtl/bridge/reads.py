"""The bridge's reads: AR and R."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.bridge.buffer import BeatBuffer
from ptewalk.rtl.bridge.bursts import AskLayout, illegal, mapped_cache, send
from ptewalk.rtl.bridge.config import MOST_BEATS, BridgeConfig
from ptewalk.rtl.bridge.faults import BurstFaults
from ptewalk.rtl.bridge.layouts import BridgeControlLayout, BurstLayout, FaultMode, FaultRecordLayout, VerdictLayout
from ptewalk.rtl.bridge.outstanding import Outstanding
from ptewalk.rtl.bridge.ring import BurstRing
from ptewalk.rtl.bus.axi import AddressLayout, DataLayout, Response

__all__ = ["ReadSide"]


class ReadSide(Component):
    """Takes AR, has it translated, sends it, and gives R back.

    AR is taken when there is room for the longest burst: whatever comes for it from memory is taken at once. A burst
    that must not be sent is answered when all before it were.

    Parameters
    ----------
    config : BridgeConfig

    Members
    -------
    ar, r : In and Out(stream), to_ar, from_r : Out and In(stream)
        Above and below.
    control : In(BridgeControlLayout)
    wants : Out(1), ask : Out(AskLayout), lawful : Out(1), asks : In(1)
        A burst is to be asked about; if it is `lawful`. It is now.
    wanted : Out(1)
        It is, and came earlier.
    answered : In(1), answered_slot : In(slot), verdict : In(VerdictLayout)
    reports : Out(1), record : Out(FaultRecordLayout), reported, room : In(1)
        As of `BurstFaults`.
    ends : Out(1), ended : Out(slot)
        All of a burst's answer is here: nobody will read its page any more.
    frees : In(1), freed : In(slot)
        That was told: the slot is free.
    stalled, times_out, busy : Out(1)

    Attributes
    ----------
    free, made, last : Signal
        Beats of the buffer that nobody has set aside; beats of the head that were made here; while it is answered here:
        the next of them is its last. Proofs look at them.
    """

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config
        user = config.user_bits
        slot = unsigned((config.reads - 1).bit_length())
        self.burst = BurstLayout(config.linear_bits, config.id_bits, user_bits=user)
        self.ring = BurstRing(slots=config.reads, burst=self.burst, physical_bits=config.physical_bits, passing=True)
        self.outstanding = Outstanding(slots=config.reads, id_bits=config.id_bits)
        self.beat = DataLayout(config.data_bits, config.id_bits, user_bits=user)
        self.buffer = BeatBuffer(width=self.beat.size, depth=config.beats, passing=True)
        self.faults = BurstFaults()
        self.free, self.made = Signal(range(config.beats + 1), init=config.beats), Signal(8)
        self.last = Signal()
        super().__init__(
            {
                "ar": In(stream.Signature(AddressLayout(config.linear_bits, config.id_bits, user_bits=user))),
                "r": Out(stream.Signature(self.beat)),
                "to_ar": Out(stream.Signature(AddressLayout(config.physical_bits, config.id_bits, user_bits=user))),
                "from_r": In(stream.Signature(self.beat)),
                "control": In(BridgeControlLayout()),
                "wants": Out(1),
                "wanted": Out(1),
                "ask": Out(AskLayout(config.slot_bits)),
                "lawful": Out(1),
                "asks": In(1),
                "answered": In(1),
                "answered_slot": In(slot),
                "verdict": In(VerdictLayout(config.physical_bits)),
                "reports": Out(1),
                "record": Out(FaultRecordLayout(config.id_bits)),
                "reported": In(1),
                "room": In(1),
                "ends": Out(1),
                "ended": Out(slot),
                "frees": In(1),
                "freed": In(slot),
                "stalled": Out(1),
                "times_out": Out(1),
                "busy": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ring = ring = self.ring
        m.submodules.outstanding = outstanding = self.outstanding
        m.submodules.buffer = buffer = self.buffer
        m.submodules.faults = faults = self.faults
        control, head, verdict = self.control, ring.head.address, ring.head_verdict

        # AR is taken; room for its R is set aside.
        free = self.free
        gives = self.r.valid & self.r.ready
        m.d.comb += [
            self.ar.ready.eq(ring.room & (free >= MOST_BEATS)),
            ring.takes.eq(self.ar.valid & self.ar.ready),
            ring.taken.address.eq(self.ar.payload),
            ring.taken.illegal.eq(illegal(m, self.ar.payload, data_bits=self.config.data_bits)),
        ]
        # One adder: gives - (len + 1) is gives + ~len.
        less = Cat(~self.ar.payload.len, Const(-1, len(free) - 8)) & ring.takes.replicate(len(free))
        m.d.sync += free.eq((Cat(1, free) + Cat(gives, less))[1:])

        # It is asked about. Where it may be stalled it is alone.
        address = ring.next.address
        may_ask = control.enable & ~faults.stalled & ((control.fault_mode == FaultMode.TERMINATE) | ring.quiet)
        fetch = Mux(control.fixed_prot, control.fetch, address.prot[2])
        m.d.comb += [
            *(self.wants.eq(ring.waits & may_ask), self.wanted.eq(ring.some & may_ask)),
            self.lawful.eq(~ring.next.illegal),
            self.ask.linear.eq(address.addr),
            self.ask.access.eq(Mux(fetch, x86.Access.FETCH, x86.Access.READ)),
            self.ask.user.eq(Mux(control.fixed_prot, control.user, ~address.prot[0])),
            self.ask.slot.eq(ring.next_slot),
            *(ring.asks.eq(self.asks), ring.lawful.eq(self.lawful)),
            ring.answered.eq(self.answered),
            ring.answered_slot.eq(self.answered_slot),
            ring.verdict.eq(self.verdict),
        ]

        # The head is sent, or answered here.
        beat, fails = self.made, Signal()  # a beat of an answer that is made here
        sends, last = self.to_ar.valid & self.to_ar.ready, self.last
        m.d.comb += [
            faults.judged.eq(ring.judged),
            *(faults.allowed.eq(ring.allowed), faults.illegal.eq(ring.illegal)),
            faults.outcome.eq(verdict.outcome),
            faults.alone.eq(ring.alone),
            faults.mode.eq(control.fault_mode),
            faults.timeout.eq(control.timeout),
            faults.retry.eq(control.retry_read),
            faults.abort.eq(control.abort_read),
            *(faults.reported.eq(self.reported), faults.room.eq(self.room)),
            *(self.stalled.eq(faults.stalled), self.times_out.eq(faults.times_out), ring.again.eq(faults.again)),
            self.reports.eq(faults.reports),
            self.record.linear.eq(head.addr),
            self.record.code.eq(Mux(faults.kind == x86.Outcome.PAGE_FAULT, verdict.code, 0)),
            *(self.record.id.eq(head.id), self.record.len.eq(head.len), self.record.write.eq(0)),
            *(self.record.kind.eq(faults.kind), self.record.stalled.eq(faults.stalls)),
            self.to_ar.valid.eq(faults.good),
            fails.eq(faults.failed & outstanding.none),
            ring.drops.eq(fails & last),
            ring.passes.eq(sends | ring.drops),
            faults.passes.eq(ring.passes),
        ]
        send(m, self.to_ar, head, verdict.frame, mapped_cache(control, verdict, head.cache))
        next_beat = Signal.like(beat)
        m.d.comb += next_beat.eq(beat + 1)
        with m.If(fails):
            m.d.sync += beat.eq(Mux(last, 0, next_beat))
        # Of the head in the cycle before, which is the same while it is answered here.
        m.d.sync += last.eq(Mux(fails, next_beat, beat) == head.len)

        # R.
        error = self.beat.const({"resp": Response.SLVERR})
        made = Signal(self.beat)
        m.d.comb += [
            made.eq(error),
            *(made.id.eq(head.id), made.last.eq(last)),
            buffer.taken.valid.eq(self.from_r.valid | fails),
            # While memory owes a beat none is made.
            buffer.taken.payload.eq(Mux(self.from_r.valid, self.from_r.payload.as_value(), made.as_value())),
            self.from_r.ready.eq(1),
            self.r.valid.eq(buffer.offered.valid),
            self.r.payload.eq(buffer.offered.payload),
            buffer.offered.ready.eq(self.r.ready),
        ]
        # A cycle later it is known whose it was.
        m.d.sync += [
            outstanding.begins.eq(sends),
            outstanding.begun.eq(ring.head_slot),
            outstanding.begun_id.eq(head.id),
            outstanding.ends.eq(self.from_r.valid & self.from_r.payload.last),
            outstanding.ended_id.eq(self.from_r.payload.id),
        ]
        m.d.comb += [
            *(self.ends.eq(outstanding.ends), self.ended.eq(outstanding.ended)),
            *(ring.frees.eq(self.frees), ring.freed.eq(self.freed)),
            self.busy.eq(~ring.empty | (free != self.config.beats)),
        ]
        return m
