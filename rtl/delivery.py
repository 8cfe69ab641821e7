"""The fault unit's part where many requests are in flight: the answer on offer, the fault queue, and grants."""

from typing import Final

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.fault_unit import check_parameters
from ptewalk.rtl.grants import GrantTable
from ptewalk.rtl.interfaces import SupervisorSignature
from ptewalk.rtl.layouts import FaultLayout, ResponseLayout

__all__ = ["Delivery", "OutgoingLayout"]

_PLACES: Final = ("out", "behind_out", "next_out", "looked")


class OutgoingLayout(data.StructLayout):
    """An answer, with what delivery must know of its request.

    Members
    -------
    response : ResponseLayout
        Its code counts for a page fault.
    linear : unsigned(64)
        The request's address.
    store, probe : 1
        It is a write or rmw; a probe.
    """

    def __init__(self, physical_bits: int, tag_bits: int) -> None:
        super().__init__(
            {"response": ResponseLayout(physical_bits, tag_bits), "linear": unsigned(64), "store": 1, "probe": 1}
        )


class Delivery(Component):
    """Holds the answer that is on offer, and one behind it; queues page faults and holds grants as `FaultUnit` does.

    Parameters
    ----------
    physical_bits, tag_bits, fault_depth
        As the fault unit's.
    ahead : bool
        True (default): the next answer's tag is known a cycle before it, as `look_tag`. False: `look` does not count,
        and a longer net looks for it.

    Members
    -------
    outgoing : In(OutgoingLayout), load : In(1)
        The next answer; only with `take`.
    look : In(1), look_tag : In(tag_bits)
        The tag of the next answer, in a cycle before that of `load`; whether it has a grant is found out by then.
    take : Out(1)
        There is room for one; from a register.
    cancel : In(1)
        The answer that was loaded in the cycle before does not count: it is never on offer.
    valid : Out(1)
        One is on offer.
    idle : In(1)
        No request is in flight.
    ready : Out(1)
        The table of grants is cleared: requests may be taken.
    responses : Out(stream of ResponseLayout)
    retired : In(stream of {tag}, always ready)
        Counts two cycles later.
    supervisor : In(SupervisorSignature)
    delivered, lost : Out(1)
        As the fault unit's `o_delivered`, `o_lost`.
    """

    def __init__(self, *, physical_bits: int, tag_bits: int, fault_depth: int = 4, ahead: bool = True) -> None:
        check_parameters(tag_bits=tag_bits, fault_depth=fault_depth)
        self._depth, self._ahead = fault_depth, ahead
        self.grants = GrantTable(tag_bits, late=True)
        tag = data.StructLayout({"tag": unsigned(tag_bits)})
        super().__init__(
            {
                "outgoing": In(OutgoingLayout(physical_bits, tag_bits)),
                "load": In(1),
                "look": In(1),
                "look_tag": In(tag_bits),
                "take": Out(1),
                "cancel": In(1),
                "valid": Out(1),
                "idle": In(1),
                "ready": Out(1),
                "responses": Out(stream.Signature(ResponseLayout(physical_bits, tag_bits))),
                "retired": In(stream.Signature(tag, always_ready=True)),
                "supervisor": In(SupervisorSignature(tag_bits=tag_bits)),
                "delivered": Out(1),
                "lost": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.grants = grants = self.grants
        supervisor, responses = self.supervisor, self.responses
        held, behind = Signal(self.outgoing.shape()), Signal(self.outgoing.shape())
        # Of the tags of those two, of the next answer's, and of the one asked for: a grant is outstanding, and what the
        # table holds of it.
        out, behind_out, next_out, looked = (Signal(data.StructLayout({"taken": 1, "bit": 1}), name=n) for n in _PLACES)
        full, room = Signal(), Signal(init=1)  # one waits behind that on offer; none does
        next_tag = Signal.like(self.look_tag)
        retires, retiring = Signal(), Signal.like(self.look_tag)  # a tag was retired in the last cycle
        new, new_behind = Signal(), Signal()  # it was loaded in the last cycle; that behind it was
        offered, stays = Signal(), Signal()
        answer = held.response
        grants_store = held.store & (answer.outcome == x86.Outcome.OK)
        reused = offered & grants_store & out.taken
        answered = responses.valid & responses.ready
        m.d.comb += [
            self.ready.eq(grants.ready),
            self.take.eq(room),
            responses.payload.eq(answer),
            responses.payload.code.eq(Mux(answer.outcome == x86.Outcome.PAGE_FAULT, answer.code, 0)),
            offered.eq(self.valid & ~(new & self.cancel)),
            stays.eq(full & ~(new_behind & self.cancel)),
            responses.valid.eq(offered & ~reused),
            grants.grant.eq(answered & grants_store),
            grants.grant_tag.eq(answer.tag),
            grants.grant_bit.eq(out.bit),
            *(looked.taken.eq(grants.taken), looked.bit.eq(grants.bit)),
            *(grants.retire.eq(retires), grants.retire_tag.eq(retiring)),
        ]
        m.d.sync += [retires.eq(self.retired.valid), retiring.eq(self.retired.payload.tag)]
        if self._ahead:
            m.d.comb += grants.look_tag.eq(self.look_tag)
            with m.If(self.look):
                m.d.sync += [next_tag.eq(self.look_tag), next_out.eq(self._passes(looked, self.look_tag))]
            with m.Else():
                m.d.sync += next_out.eq(self._passes(next_out, next_tag))
        else:
            m.d.comb += [next_tag.eq(self.outgoing.response.tag), grants.look_tag.eq(next_tag), next_out.eq(looked)]

        leaves = answered | ~offered
        with m.If(leaves):
            m.d.sync += [
                held.eq(Mux(full, behind, self.outgoing)),
                out.eq(Mux(full, self._passes(behind_out, behind.response.tag), self._passes(next_out, next_tag))),
                self.valid.eq(Mux(full, stays, self.load)),
                *(full.eq(0), room.eq(1)),
            ]
        with m.Else():
            waits = Mux(full, stays, self.load)
            m.d.sync += [full.eq(waits), room.eq(~waits), out.eq(self._passes(out, answer.tag))]
        m.d.sync += [new.eq(leaves & self.load), new_behind.eq(~leaves & self.load)]
        with m.If(~full):
            m.d.sync += [behind.eq(self.outgoing), behind_out.eq(self._passes(next_out, next_tag))]
        with m.Else():
            m.d.sync += behind_out.eq(self._passes(behind_out, behind.response.tag))

        fault = Signal(FaultLayout(len(answer.tag)))
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=fault.shape().size, depth=self._depth)
        m.d.comb += [
            self.delivered.eq(answered & ~held.probe & (answer.outcome == x86.Outcome.PAGE_FAULT)),
            self.lost.eq(self.delivered & ~queue.w_rdy),
            fault.linear.eq(held.linear),
            fault.code.eq(answer.code),
            fault.tag.eq(answer.tag),
            queue.w_data.eq(fault),
            queue.w_en.eq(self.delivered),
            supervisor.faults.payload.eq(queue.r_data),
            supervisor.faults.valid.eq(queue.r_rdy),
            queue.r_en.eq(supervisor.faults.ready),
            supervisor.granted.eq(grants.count),
            supervisor.drained.eq(supervisor.drain & self.idle & (grants.count == 0)),
        ]
        raised = {"fault_overflow": self.lost, "tag_reused": reused, "stray_retirement": grants.stray}
        for name, event in raised.items():
            with m.If(event):
                m.d.sync += supervisor.status[name].eq(1)
            with m.Elif(supervisor.clear[name]):
                m.d.sync += supervisor.status[name].eq(0)
        return m

    def _passes(self, out: data.View, tag: Value) -> Value:
        """What is known of `tag` after this cycle's grant and retirement."""
        grants = self.grants
        retires = grants.retire & (grants.retire_tag == tag)
        granted = grants.grant & (grants.grant_tag == tag)
        return Cat(~retires & (out.taken | granted), out.bit ^ (retires & out.taken))
