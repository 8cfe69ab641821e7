"""The bridge's writes: AW, W and B."""

from typing import Any

from amaranth.hdl import Cat, Module, Mux, Signal, Value, signed, unsigned
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.bridge.buffer import BeatBuffer
from ptewalk.rtl.bridge.bursts import AskLayout, illegal, mapped_cache, send
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.faults import BurstFaults
from ptewalk.rtl.bridge.layouts import BridgeControlLayout, BurstLayout, FaultMode, FaultRecordLayout, VerdictLayout
from ptewalk.rtl.bridge.outstanding import Outstanding
from ptewalk.rtl.bridge.ring import BurstRing
from ptewalk.rtl.bus.axi import AddressLayout, Response, ResponseLayout, WriteLayout

__all__ = ["WriteSide"]


class WriteSide(Component):
    """Takes AW and W, has the burst translated when all of W is here, sends both, and gives B back.

    What is granted is sent: it waits for nobody above. AW is taken when there is room for its B. A burst that must not
    be sent, and one that changes no byte, is answered here when all before it were.

    Parameters
    ----------
    config : BridgeConfig
    beats : int, optional
        Beats of the buffer, where it is not `config`'s: fewer, for a proof.

    Members
    -------
    aw, w, b : In, In and Out(stream), to_aw, to_w, from_b : Out, Out and In(stream)
        Above and below.
    ends : Out(1), ended : Out(slot)
        Memory has answered: the store is visible, and its grant retires.

    The others are the read side's.

    Attributes
    ----------
    owed, repeats, still, some_whole, ahead : Signal
        Bursts that were taken and whose B was not; the head is asked about once more; of each slot: no byte changes;
        there is a W in `whole`; heads that have passed and whose W has not, -1: W first. Proofs look at them.
    """

    def __init__(self, config: BridgeConfig, *, beats: int | None = None) -> None:
        self.config = config
        user = config.user_bits
        slot = unsigned((config.writes - 1).bit_length())
        self.ring = BurstRing(
            slots=config.writes,
            burst=BurstLayout(config.linear_bits, config.id_bits, user_bits=user),
            physical_bits=config.physical_bits,
            passing=False,
        )
        self.outstanding = Outstanding(slots=config.writes, id_bits=config.id_bits)
        self.faults = BurstFaults()
        self.whole = SyncFIFO(width=10, depth=config.writes)
        self.answers = SyncFIFO(width=ResponseLayout(config.id_bits, user_bits=user).size, depth=config.writes)
        self.owed, self.repeats = Signal(range(config.writes + 1)), Signal()
        self.still = Signal(config.writes, reset_less=True)
        self.still_head, self.some_whole = Signal(), Signal()
        self.ahead = Signal(signed((config.writes - 1).bit_length() + 2))
        self.beat, self.answer = (
            WriteLayout(config.data_bits, user_bits=user),
            ResponseLayout(config.id_bits, user_bits=user),
        )
        self.buffer = BeatBuffer(width=self.beat.size, depth=beats or config.beats, passing=False)
        super().__init__(
            {
                "aw": In(stream.Signature(AddressLayout(config.linear_bits, config.id_bits, user_bits=user))),
                "w": In(stream.Signature(self.beat)),
                "b": Out(stream.Signature(self.answer)),
                "to_aw": Out(stream.Signature(AddressLayout(config.physical_bits, config.id_bits, user_bits=user))),
                "to_w": Out(stream.Signature(self.beat)),
                "from_b": In(stream.Signature(self.answer)),
                "control": In(BridgeControlLayout()),
                "wants": Out(1),
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
        control = self.control
        head, verdict = ring.head.address, ring.head_verdict

        # AW is taken; room for its B is set aside. The top bit of `owed` is 1 for as many as there are slots.
        owed = self.owed
        m.d.comb += [
            self.aw.ready.eq(ring.room & ~owed[-1]),
            ring.takes.eq(self.aw.valid & self.aw.ready),
            ring.taken.address.eq(self.aw.payload),
            ring.taken.illegal.eq(illegal(m, self.aw.payload, data_bits=self.config.data_bits)),
        ]
        m.d.sync += owed.eq(owed + ring.takes - (self.b.valid & self.b.ready))

        # W is taken; of each burst that is whole it is known how long it is and whether it changes anything.
        m.submodules.whole = whole = self.whole
        count, changes = Signal(9), Signal()  # of the burst that comes: beats before, 256 of more; one had a strobe
        changing = changes | self.w.payload.strb.any()
        comes = Signal()
        m.d.comb += [
            self.w.ready.eq(buffer.taken.ready & whole.w_rdy),
            comes.eq(self.w.valid & self.w.ready),
            buffer.taken.valid.eq(self.w.valid & whole.w_rdy),
            buffer.taken.payload.eq(self.w.payload),
            whole.w_en.eq(comes & self.w.payload.last),
            whole.w_data.eq(Cat(count, changing)),
        ]
        more = whole.level > 1
        m.d.sync += self.some_whole.eq(Mux(whole.r_en, more, self.some_whole) | whole.w_en)
        with m.If(comes):
            m.d.sync += [
                count.eq(Mux(self.w.payload.last, 0, count + ~count[-1])),
                changes.eq(changing & ~self.w.payload.last),
            ]

        # It is asked about when all of W is here. Where it may be stalled it is alone.
        address = ring.next.address
        repeats, still = self.repeats, self.still
        changed = Signal()  # a byte of the one asked about last changes
        changing_now = Mux(repeats, changed, whole.r_data[-1])
        may_ask = control.enable & ~faults.stalled & ((control.fault_mode == FaultMode.TERMINATE) | ring.quiet)
        m.d.comb += [
            self.wants.eq(ring.waits & may_ask & (repeats | self.some_whole)),
            self.lawful.eq(~ring.next.illegal & (repeats | (whole.r_data[:-1] == address.len))),
            self.ask.linear.eq(address.addr),
            self.ask.access.eq(Mux(changing_now, x86.Access.WRITE, x86.Access.PROBE)),
            self.ask.user.eq(Mux(control.fixed_prot, control.user, ~address.prot[0])),
            self.ask.slot.eq(ring.next_slot),
            *(ring.asks.eq(self.asks), ring.lawful.eq(self.lawful)),
            whole.r_en.eq(self.asks & ~repeats),
            ring.answered.eq(self.answered),
            ring.answered_slot.eq(self.answered_slot),
            ring.verdict.eq(self.verdict),
        ]
        with m.If(self.asks):
            m.d.sync += [repeats.eq(0), changed.eq(changing_now)]
        for slot in range(self.config.writes):  # until it is asked about
            marks = ring.waits & (ring.next_slot == slot)
            m.d.sync += still[slot].eq((marks & ~changing_now) | (~marks & still[slot]))
        with m.If(faults.again):
            m.d.sync += repeats.eq(1)

        # The head is sent, or answered here: then its W goes first.
        here, still_head = Signal(), self.still_head
        ahead = self.ahead
        sends = self.to_aw.valid & self.to_aw.ready
        m.d.comb += [
            faults.judged.eq(ring.judged),
            *(faults.allowed.eq(ring.allowed), faults.illegal.eq(ring.illegal)),
            faults.outcome.eq(verdict.outcome),
            faults.alone.eq(ring.alone),
            faults.mode.eq(control.fault_mode),
            faults.timeout.eq(control.timeout),
            faults.retry.eq(control.retry_write),
            faults.abort.eq(control.abort_write),
            *(faults.reported.eq(self.reported), faults.room.eq(self.room)),
            *(self.stalled.eq(faults.stalled), self.times_out.eq(faults.times_out), ring.again.eq(faults.again)),
            self.reports.eq(faults.reports),
            self.record.linear.eq(head.addr),
            self.record.code.eq(Mux(faults.kind == x86.Outcome.PAGE_FAULT, verdict.code, 0)),
            *(self.record.id.eq(head.id), self.record.len.eq(head.len), self.record.write.eq(1)),
            *(self.record.kind.eq(faults.kind), self.record.stalled.eq(faults.stalls)),
            self.to_aw.valid.eq(faults.good & ~still_head),
            here.eq(faults.failed | (faults.good & still_head)),
            ring.drops.eq(here & (ahead == -1) & outstanding.none),
            ring.passes.eq(sends | ring.drops),
            faults.passes.eq(ring.passes),
        ]
        send(m, self.to_aw, head, verdict.frame, self._cache(verdict, head.cache))
        flows, leaves = Signal(), Signal()
        m.d.comb += [
            flows.eq((ahead > 0) | ((ahead == 0) & self.to_aw.valid)),
            self.to_w.valid.eq(buffer.offered.valid & flows),
            self.to_w.payload.eq(buffer.offered.payload),
            buffer.offered.ready.eq(Mux(flows, self.to_w.ready, here & (ahead == 0))),
            leaves.eq(buffer.offered.valid & buffer.offered.ready),
        ]
        # The RAM tells late whether its beat is the last: both counts are there by then.
        stays, less = Signal.like(ahead), Signal.like(ahead)
        m.d.comb += [stays.eq(ahead + ring.passes), less.eq(ahead - ~ring.passes)]
        m.d.sync += [
            ahead.eq(Mux(leaves & self.to_w.payload.last, less, stays)),
            still_head.eq(ring.at_head(still)),
        ]

        # B.
        m.submodules.answers = answers = self.answers
        made = Signal(self.answer)
        m.d.comb += [
            made.id.eq(head.id),
            made.resp.eq(Mux(faults.failed, Response.SLVERR, Response.OKAY)),
            self.from_b.ready.eq(1),
            answers.w_en.eq(self.from_b.valid | ring.drops),
            # While memory owes an answer none is made.
            answers.w_data.eq(Mux(self.from_b.valid, self.from_b.payload.as_value(), made.as_value())),
            self.b.valid.eq(answers.r_rdy),
            self.b.payload.eq(answers.r_data),
            answers.r_en.eq(self.b.ready),
        ]
        # A cycle later it is known whose it was.
        m.d.sync += [
            outstanding.begins.eq(sends),
            outstanding.begun.eq(ring.head_slot),
            outstanding.begun_id.eq(head.id),
            outstanding.ends.eq(self.from_b.valid),
            outstanding.ended_id.eq(self.from_b.payload.id),
        ]
        m.d.comb += [
            *(self.ends.eq(outstanding.ends), self.ended.eq(outstanding.ended)),
            *(ring.frees.eq(outstanding.ends), ring.freed.eq(outstanding.ended)),
            self.busy.eq(~ring.empty | (owed != 0)),
        ]
        return m

    def _cache(self, verdict: Any, passed: Value) -> Value:
        """AWCACHE of what is sent: not bufferable, unless software allows it."""
        return mapped_cache(self.control, verdict, passed) & Cat(~self.control.final_response, *([1] * 3))
