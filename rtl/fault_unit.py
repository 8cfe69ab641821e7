"""The fault unit: delivers what the walker answers, queues faults with CR2, and counts grants until they retire."""

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.layouts import FaultLayout, RequestLayout, ResponseLayout

__all__ = ["FaultUnit"]


class FaultUnitRegisters:
    """A fault unit's registers, where proofs can see them; nothing else may.

    Attributes
    ----------
    queue : SyncFIFOBuffered
        The fault queue.
    offered : 1
        The walker has seen the request on offer: it may not be withdrawn.
    in_flight : 1
        A request was accepted and is not answered.
    linear : 64
        Its linear address.
    store : 1
        It is a write or rmw.
    """

    def __init__(self, fault: FaultLayout, depth: int) -> None:
        self.queue = fifo.SyncFIFOBuffered(width=fault.size, depth=depth)
        self.offered = Signal()
        self.in_flight = Signal()
        self.linear = Signal(64)
        self.store = Signal()


class FaultUnit(Component):
    """Sits between the requester and the walker; adds no cycle.

    An OK to a write or rmw is a *grant*: the requester will store, and says so on `i_retired` when the store is
    globally visible. A drain waits for the grants, and holds back new requests meanwhile: when it is over, no store
    that was allowed under the old entries can still land.

    A page fault is answered to the requester and put into the fault queue in the same cycle. When the queue is full the
    answer waits: no fault is lost.

    Parameters
    ----------
    physical_bits, tag_bits : int
        As the walker's.
    fault_depth : int
        Entries of the fault queue, 1 to 1024.

    Members
    -------
    i_requests, o_requests : In, Out(stream of RequestLayout)
        From the requester; to the walker.
    i_responses, o_responses : In, Out(stream of ResponseLayout)
        From the walker; to the requester.
    o_faults : Out(stream of FaultLayout)
        One per page fault, in order.
    i_retired : In(stream of {tag}, always ready)
        One per grant, in any order.
    i_drain : In(1)
        Held until `o_drained`; requests that the walker has not accepted wait.
    o_drained : Out(1)
        Nothing is in flight and no grant is outstanding; only with `i_drain`.
    o_granted : Out(tag_bits + 1)
        Grants outstanding.
    """

    def __init__(self, *, physical_bits: int, tag_bits: int, fault_depth: int = 4) -> None:
        if not isinstance(fault_depth, int) or not 1 <= fault_depth <= 1024:
            raise ValueError(f"fault_depth must be an integer from 1 to 1024, not {fault_depth!r}")
        request = stream.Signature(RequestLayout(tag_bits))
        response = stream.Signature(ResponseLayout(physical_bits, tag_bits))
        super().__init__(
            {
                "i_requests": In(request),
                "o_requests": Out(request),
                "i_responses": In(response),
                "o_responses": Out(response),
                "o_faults": Out(stream.Signature(FaultLayout(tag_bits))),
                "i_retired": In(stream.Signature(data.StructLayout({"tag": unsigned(tag_bits)}), always_ready=True)),
                "i_drain": In(1),
                "o_drained": Out(1),
                "o_granted": Out(unsigned(tag_bits + 1)),
            }
        )
        self.registers = FaultUnitRegisters(FaultLayout(tag_bits), fault_depth)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        registers = self.registers
        offered, in_flight, linear, store = (
            registers.offered,
            registers.in_flight,
            registers.linear,
            registers.store,
        )

        let_through = ~self.i_drain | offered
        m.d.comb += [
            self.o_requests.payload.eq(self.i_requests.payload),
            self.o_requests.valid.eq(self.i_requests.valid & let_through),
            self.i_requests.ready.eq(self.o_requests.ready & let_through),
        ]
        m.d.sync += offered.eq(self.o_requests.valid & ~self.o_requests.ready)
        accepted = self.o_requests.valid & self.o_requests.ready
        with m.If(accepted):
            access = self.i_requests.payload.access
            m.d.sync += [
                in_flight.eq(1),
                linear.eq(self.i_requests.payload.linear),
                store.eq((access == x86.Access.WRITE) | (access == x86.Access.RMW)),
            ]

        m.submodules.queue = queue = registers.queue
        faults = self.i_responses.payload.outcome == x86.Outcome.PAGE_FAULT
        deliverable = ~faults | queue.w_rdy
        answered = self.o_responses.valid & self.o_responses.ready
        fault = Signal(self.o_faults.payload.shape())
        m.d.comb += [
            self.o_responses.payload.eq(self.i_responses.payload),
            self.o_responses.valid.eq(self.i_responses.valid & deliverable),
            self.i_responses.ready.eq(self.o_responses.ready & deliverable),
            fault.linear.eq(linear),
            fault.code.eq(self.i_responses.payload.code),
            fault.tag.eq(self.i_responses.payload.tag),
            queue.w_data.eq(fault),
            queue.w_en.eq(answered & faults),
            self.o_faults.payload.eq(queue.r_data),
            self.o_faults.valid.eq(queue.r_rdy),
            queue.r_en.eq(self.o_faults.ready),
        ]
        with m.If(answered & ~accepted):
            m.d.sync += in_flight.eq(0)

        granted = Signal()
        m.d.comb += granted.eq(answered & store & (self.i_responses.payload.outcome == x86.Outcome.OK))
        m.d.sync += self.o_granted.eq(self.o_granted + granted - self.i_retired.valid)
        m.d.comb += self.o_drained.eq(self.i_drain & ~in_flight & ~offered & (self.o_granted == 0))
        return m
