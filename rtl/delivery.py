"""The fault unit's part where many requests are in flight: the answer on offer, the fault queue, and grants."""

from types import SimpleNamespace
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, unsigned
from amaranth.lib import data, fifo, stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.fault_unit import check_parameters
from ptewalk.rtl.grants import GrantTable
from ptewalk.rtl.interfaces import SupervisorSignature
from ptewalk.rtl.layouts import CompletionLayout, FaultLayout, ResponseLayout
from ptewalk.rtl.waits import Waits

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
    epoch : unsigned(epoch_bits)
        In which it was accepted.
    """

    def __init__(self, physical_bits: int, tag_bits: int, epoch_bits: int = 1) -> None:
        response = ResponseLayout(physical_bits, tag_bits)
        flags = {"store": 1, "probe": 1, "epoch": unsigned(epoch_bits)}
        super().__init__({"response": response, "linear": unsigned(64), **flags})


class Delivery(Component):
    """Holds the answer that is on offer, and one behind it; queues page faults and holds grants as `FaultUnit` does.

    It also tells when an invalidation that waits is complete; see `Waits`.

    Parameters
    ----------
    physical_bits, tag_bits, fault_depth
        As the fault unit's.
    read_grants : bool
        True: an OK to a read or fetch is a grant too; default False.
    flights : int
        Requests in flight at most; default 8.
    records : bool
        True: records of a log are waited for; default False. See `Waits`.
    split : bool
        True: a retirement counts a cycle later; default False.
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
    accepted : In(1), epoch : Out(epoch_bits)
        A request is accepted in this cycle; the epoch that it belongs to.
    idle : In(1)
        No request is in flight.
    ready : Out(1)
        The table of grants is cleared: requests may be taken.
    responses : Out(stream of ResponseLayout)
    retired : In(stream of {tag}, always ready)
        Counts two cycles later; with `split`, and for what waits, three.
    may_wait : Out(1), waits : In(1), wait : In(2)
        An invalidation that waits may be accepted; one is, and its kind.
    completions : Out(stream of CompletionLayout, always ready)
    moves, moves_epoch : In(1), closes : Out(1), closed : In(1)
        As those of `Waits`; only with `records`.
    supervisor : In(SupervisorSignature)
    delivered, lost : Out(1)
        As the fault unit's `o_delivered`, `o_lost`.

    Attributes
    ----------
    registers : namespace
        Of the two answers, of what is known of their grants, and of a retirement; once elaborated. Proofs look at them.
    """

    def __init__(
        self,
        *,
        physical_bits: int,
        tag_bits: int,
        fault_depth: int = 4,
        split: bool = False,
        ahead: bool = True,
        read_grants: bool = False,
        flights: int = 8,
        records: bool = False,
    ) -> None:
        check_parameters(tag_bits=tag_bits, fault_depth=fault_depth)
        self._split = split
        self._depth, self._ahead, self._read_grants, self._records = fault_depth, ahead, read_grants, records
        # One more than there are: a grant that retired is counted until the cycle after.
        self.waiting = Waits(most=(1 << tag_bits) + flights + 1, reads=read_grants, records=records)
        epoch_bits = len(self.waiting.epoch)
        self.grants = GrantTable(tag_bits, late=True, ahead=split, note_bits=epoch_bits)
        tag = data.StructLayout({"tag": unsigned(tag_bits)})
        super().__init__(
            {
                "outgoing": In(OutgoingLayout(physical_bits, tag_bits, epoch_bits)),
                "load": In(1),
                "look": In(1),
                "look_tag": In(tag_bits),
                "take": Out(1),
                "cancel": In(1),
                "valid": Out(1),
                "accepted": In(1),
                "epoch": Out(epoch_bits),
                "idle": In(1),
                "ready": Out(1),
                "may_wait": Out(1),
                "waits": In(1),
                "wait": In(Shape.cast(x86.Wait)),
                "completions": Out(stream.Signature(CompletionLayout(), always_ready=True)),
                "responses": Out(stream.Signature(ResponseLayout(physical_bits, tag_bits))),
                "retired": In(stream.Signature(tag, always_ready=True)),
                "supervisor": In(SupervisorSignature(tag_bits=tag_bits)),
                "delivered": Out(1),
                "lost": Out(1),
                **({"moves": In(1), "moves_epoch": In(1), "closes": Out(1), "closed": In(1)} if records else {}),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.grants = grants = self.grants
        supervisor, responses = self.supervisor, self.responses
        shape = self.outgoing.shape()
        held, behind = Signal(shape), Signal(shape)
        if self._read_grants:
            # In a bridge what is wide takes no reset: see `CachingMmu`.
            held, behind = (Signal(shape, name=name, reset_less=True) for name in ("held", "behind"))
        # Of the tags of those two, of the next answer's, and of the one asked for: a grant is outstanding, and what the
        # table holds of it.
        out, behind_out, next_out, looked = (Signal(data.StructLayout({"taken": 1, "bit": 1}), name=n) for n in _PLACES)
        full, room = Signal(), Signal(init=1)  # one waits behind that on offer; none does
        next_tag = Signal.like(self.look_tag)
        retires, retiring = Signal(), Signal.like(self.look_tag)  # a tag was retired in the last cycle
        new, new_behind = Signal(), Signal()  # it was loaded in the last cycle; that behind it was
        self.registers = SimpleNamespace(
            held=held,
            behind=behind,
            full=full,
            room=room,
            new=new,
            new_behind=new_behind,
            out=out,
            behind_out=behind_out,
            next_out=next_out,
            next_tag=next_tag,
            retires=retires,
            retiring=retiring,
        )
        offered, stays = Signal(), Signal()
        answer = held.response
        allowed = answer.outcome == x86.Outcome.OK
        grants_store = held.store & allowed
        grants_read = ~held.store & ~held.probe & allowed if self._read_grants else Const(0, 1)
        reused = offered & (grants_store | grants_read) & out.taken
        answered = responses.valid & responses.ready
        m.d.comb += [
            self.ready.eq(grants.ready),
            self.take.eq(room),
            responses.payload.eq(answer),
            responses.payload.code.eq(Mux(answer.outcome == x86.Outcome.PAGE_FAULT, answer.code, 0)),
            offered.eq(self.valid & ~(new & self.cancel)),
            stays.eq(full & ~(new_behind & self.cancel)),
            responses.valid.eq(offered & ~reused),
            grants.grant.eq(answered & (grants_store | grants_read)),
            grants.grant_tag.eq(answer.tag),
            grants.grant_bit.eq(out.bit),
            *(looked.taken.eq(grants.taken), looked.bit.eq(grants.bit)),
            *(grants.retire.eq(retires), grants.retire_tag.eq(retiring)),
        ]
        retired: tuple[Value, Value] = (self.retired.valid, self.retired.payload.tag)
        if self._split:
            finds, finding = Signal(), Signal.like(retiring)  # a cycle before
            m.d.sync += [finds.eq(retired[0]), finding.eq(retired[1])]
            m.d.comb += grants.find_tag.eq(finding)
            self.registers.finds, self.registers.finding = finds, finding
            retired = finds, finding
        m.d.sync += [retires.eq(retired[0]), retiring.eq(retired[1])]
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

        self._wait(m, held, answered & grants_store, answered & grants_read, answered & ~grants_store)
        # A fault is queued in the cycle after its answer: a long net says that it is delivered.
        fault, faulted = Signal(FaultLayout(len(answer.tag)), reset_less=self._read_grants), Signal()
        m.submodules.queue = queue = fifo.SyncFIFOBuffered(width=fault.shape().size, depth=self._depth)
        m.d.comb += [
            self.delivered.eq(answered & ~held.probe & (answer.outcome == x86.Outcome.PAGE_FAULT)),
            self.lost.eq(faulted & ~queue.w_rdy),
            queue.w_data.eq(fault),
            queue.w_en.eq(faulted),
            supervisor.faults.payload.eq(queue.r_data),
            supervisor.faults.valid.eq(queue.r_rdy),
            queue.r_en.eq(supervisor.faults.ready),
            supervisor.granted.eq(grants.count),
            supervisor.drained.eq(supervisor.drain & self.idle & (grants.count == 0)),
        ]
        m.d.sync += faulted.eq(self.delivered)
        m.d.sync += [fault.linear.eq(held.linear), fault.code.eq(answer.code), fault.tag.eq(answer.tag)]
        raised = {"fault_overflow": self.lost, "tag_reused": reused, "stray_retirement": grants.stray}
        for name, event in raised.items():
            with m.If(event):
                m.d.sync += supervisor.status[name].eq(1)
            with m.Elif(supervisor.clear[name]):
                m.d.sync += supervisor.status[name].eq(0)
        return m

    def _wait(self, m: Module, held: data.View, stores: Value, reads: Value, leaves: Value) -> None:
        """What an invalidation may wait for: a request is answered by a granted store or read; by no store."""
        m.submodules.waits = waiting = self.waiting
        grants = self.grants
        # Of a grant are kept its epoch and, where there are others, whether it is a store.
        retires, store = grants.gone, grants.gone_note[1] if self._read_grants else Const(1, 1)
        epoch = grants.gone_note[0]
        if not self._split:
            # The net that finds it is long; it is counted a cycle later, which completes nothing too early.
            gone = Signal(data.StructLayout({"retires": 1, "store": 1, "epoch": 1}))
            m.d.sync += gone.eq(Cat(retires, store, epoch))
            retires, store, epoch = gone.retires, gone.store, gone.epoch
        m.d.comb += [
            *(self.epoch.eq(waiting.epoch), waiting.accepted.eq(self.accepted)),
            *(self.may_wait.eq(waiting.room), waiting.begins.eq(self.waits), waiting.wait.eq(self.wait)),
            grants.grant_note.eq(held.epoch),
            *(waiting.left.eq(leaves), waiting.left_epoch.eq(held.epoch[0])),
            *(waiting.stored.eq(retires & store), waiting.stored_epoch.eq(epoch)),
            self.completions.payload.eq(waiting.completions.payload),
            self.completions.valid.eq(waiting.completions.valid),
        ]
        if self._records:
            m.d.comb += [
                *(waiting.moves.eq(self.moves), waiting.moves_epoch.eq(self.moves_epoch)),
                *(self.closes.eq(waiting.closes), waiting.closed.eq(self.closed)),
            ]
        if self._read_grants:
            m.d.comb += [
                grants.grant_note.eq(Cat(Mux(held.store, held.epoch[0], held.epoch[1]), held.store)),
                *(waiting.read_granted.eq(reads), waiting.read_epoch.eq(held.epoch[1])),
                *(waiting.read.eq(retires & ~store), waiting.retired_epoch.eq(epoch)),
            ]

    def _passes(self, out: data.View, tag: Value) -> Value:
        """What is known of `tag` after this cycle's grant and retirement."""
        grants = self.grants
        # Looked for ahead, a grant of the last cycle was not found, and stays.
        retires = (grants.gone if self._split else grants.retire) & (grants.retire_tag == tag)
        granted = grants.grant & (grants.grant_tag == tag)
        return Cat(granted | (~retires & out.taken), out.bit ^ (retires & out.taken))
