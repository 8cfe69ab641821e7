"""The fault unit: delivers what the walker answers, queues faults with CR2, and holds grants until they retire."""

from types import SimpleNamespace

from amaranth.hdl import Module, Signal, unsigned
from amaranth.lib import data, fifo
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.grants import MOST_TAG_BITS, GrantTable
from ptewalk.rtl.interfaces import RequesterSignature, SupervisorSignature
from ptewalk.rtl.layouts import FaultLayout

__all__ = ["FaultUnit", "FaultUnitRegisters", "check_parameters"]


def check_parameters(*, tag_bits: int, fault_depth: int) -> None:
    """Raises ValueError when a fault unit cannot have these parameters."""
    if not isinstance(tag_bits, int) or not 1 <= tag_bits <= MOST_TAG_BITS:
        raise ValueError(f"tag_bits of a fault unit must be an integer from 1 to {MOST_TAG_BITS}, not {tag_bits!r}")
    if not isinstance(fault_depth, int) or not 1 <= fault_depth <= 1024:
        raise ValueError(f"fault_depth must be an integer from 1 to 1024, not {fault_depth!r}")


class FaultUnitRegisters(data.StructLayout):
    """A fault unit's registers: what `observe` shows.

    Members
    -------
    offered : 1
        The walker has seen the request on offer: it may not be withdrawn.
    in_flight : 1
        A request was accepted and is not answered.
    linear : unsigned(64)
        Its linear address.
    store, probe : 1
        It is a write or rmw; a probe.
    queued : unsigned(11)
        Records in the fault queue.
    """

    def __init__(self) -> None:
        super().__init__(
            {"offered": 1, "in_flight": 1, "linear": unsigned(64), "store": 1, "probe": 1, "queued": unsigned(11)}
        )


class FaultUnit(Component):
    """Sits between the requester and the walker; adds no cycle.

    An OK to a write or rmw is a *grant*: the requester will store, and says so on `retired` when the store is
    globally visible. A drain waits for the grants, and holds back new requests meanwhile: when it is over, no store
    that was allowed under the old entries can still land. A tag names at most one grant: the answer that would give it
    a second one waits until the first has retired, and is told in `status`.

    A page fault is answered to the requester and put into the fault queue in the same cycle. One that finds the queue
    full is answered all the same; its record is lost, which `status` and `o_lost` tell. A probe's is not put there.

    Parameters
    ----------
    physical_bits : int
        As the walker's.
    tag_bits : int
        As the walker's, 1 to 10.
    fault_depth : int
        Entries of the fault queue, 1 to 1024.
    observe : bool
        True: the registers are an output.

    Members
    -------
    requester : In(RequesterSignature, with retires)
        After a reset the first request is taken when 2**tag_bits cycles have passed.
    walker : Out(RequesterSignature)
    supervisor : In(SupervisorSignature)
    o_delivered, o_lost : Out(1)
        A page fault is answered in this cycle, to another access than a probe; its record is lost.
    o_registers : Out(FaultUnitRegisters)
        Only with `observe`.
    """

    def __init__(self, *, physical_bits: int, tag_bits: int, fault_depth: int = 4, observe: bool = False) -> None:
        check_parameters(tag_bits=tag_bits, fault_depth=fault_depth)
        members = {
            "requester": In(RequesterSignature(physical_bits=physical_bits, tag_bits=tag_bits, retires=True)),
            "walker": Out(RequesterSignature(physical_bits=physical_bits, tag_bits=tag_bits)),
            "supervisor": In(SupervisorSignature(tag_bits=tag_bits)),
            "o_delivered": Out(1),
            "o_lost": Out(1),
        }
        if observe:
            members["o_registers"] = Out(FaultUnitRegisters())
        super().__init__(members)
        self._observe = observe
        self._depth = fault_depth
        self.grants = GrantTable(tag_bits)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        r = SimpleNamespace(offered=Signal(), in_flight=Signal(), linear=Signal(64), store=Signal(), probe=Signal())
        m.submodules.grants = grants = self.grants
        asked, answers, retired = self.requester.requests, self.requester.responses, self.requester.retired
        supervisor = self.supervisor
        to_walker, answer = self.walker.requests, self.walker.responses

        let_through = grants.ready & (~supervisor.drain | r.offered)
        m.d.comb += [
            to_walker.payload.eq(asked.payload),
            to_walker.valid.eq(asked.valid & let_through),
            asked.ready.eq(to_walker.ready & let_through),
        ]
        m.d.sync += r.offered.eq(to_walker.valid & ~to_walker.ready)
        accepted = to_walker.valid & to_walker.ready
        with m.If(accepted):
            access = asked.payload.access
            m.d.sync += [
                r.in_flight.eq(1),
                r.linear.eq(asked.payload.linear),
                r.store.eq((access == x86.Access.WRITE) | (access == x86.Access.RMW)),
                r.probe.eq(access == x86.Access.PROBE),
            ]

        grants_store = r.store & (answer.payload.outcome == x86.Outcome.OK)
        reused = answer.valid & grants_store & grants.taken
        answered = answers.valid & answers.ready
        m.d.comb += [
            answers.payload.eq(answer.payload),
            answers.valid.eq(answer.valid & ~reused),
            answer.ready.eq(answers.ready & ~reused),
            grants.grant.eq(answered & grants_store),
            grants.look_tag.eq(answer.payload.tag),
            grants.grant_bit.eq(grants.bit),
            grants.grant_tag.eq(answer.payload.tag),
            grants.retire.eq(retired.valid),
            grants.retire_tag.eq(retired.payload.tag),
        ]
        with m.If(answered & ~accepted):
            m.d.sync += r.in_flight.eq(0)

        fault = Signal(FaultLayout(len(answer.payload.tag)))
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=fault.shape().size, depth=self._depth)
        m.d.comb += [
            self.o_delivered.eq(answered & ~r.probe & (answer.payload.outcome == x86.Outcome.PAGE_FAULT)),
            self.o_lost.eq(self.o_delivered & ~queue.w_rdy),
            fault.linear.eq(r.linear),
            fault.code.eq(answer.payload.code),
            fault.tag.eq(answer.payload.tag),
            queue.w_data.eq(fault),
            queue.w_en.eq(self.o_delivered),
            supervisor.faults.payload.eq(queue.r_data),
            supervisor.faults.valid.eq(queue.r_rdy),
            queue.r_en.eq(supervisor.faults.ready),
        ]

        m.d.comb += [
            supervisor.granted.eq(grants.count),
            supervisor.drained.eq(supervisor.drain & ~r.in_flight & ~r.offered & (grants.count == 0)),
        ]
        raised = {"fault_overflow": self.o_lost, "tag_reused": reused, "stray_retirement": grants.stray}
        for name, event in raised.items():
            with m.If(event):
                m.d.sync += supervisor.status[name].eq(1)
            with m.Elif(supervisor.clear[name]):
                m.d.sync += supervisor.status[name].eq(0)
        if self._observe:
            m.d.comb += [self.o_registers[name].eq(value) for name, value in vars(r).items()]
            m.d.comb += self.o_registers.queued.eq(queue.level)
        return m
