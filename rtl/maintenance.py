"""What makes translations stale: invalidations and contexts, one at a time, turned into operations on the TLB."""

from types import SimpleNamespace

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.interfaces import ContextSignature
from ptewalk.rtl.layouts import ContextLayout, InvalidationLayout
from ptewalk.rtl.slots import PcidSlots
from ptewalk.rtl.tlb import TlbOp, TlbOpLayout

__all__ = ["Maintenance"]


class Maintenance(Component):
    """Takes an invalidation or a context, finds the PCID's slot in the next cycle, and tells the TLB what goes.

    After an invalidation one cycle is left to others: a storm of invalidations starves nobody.

    Parameters
    ----------
    physical_bits, soft_dirty
        As in `WalkerConfig`.
    slot_bits : int
    few_resets : bool
        True: what counts beneath a bit that a reset clears takes none; default False.

    Members
    -------
    invalidations : In(stream of InvalidationLayout)
    contexts : In(ContextSignature, with pcids)
    before : In(ContextLayout), pcid : Out(12)
        The context in force; its PCID.
    may_begin : In(1)
        The TLB has no operation in work.
    may_change : In(1)
        No request is in flight.
    may_wait : In(1)
        There is room for an invalidation that waits; one that waits for nothing is taken whatever this is.
    idle : Out(1)
        Nothing is in work here.
    begins : Out(1)
        An invalidation is taken in this cycle.
    covers : Out(1)
        It may take something of the current PCID or global: always when it does. INVLPG of any address takes all upper
        entries of the current PCID, and so does what covers one page of it here.
    ops : Out(stream of TlbOpLayout)
        Must be ready when `may_begin` was 1 and nobody else had an operation.
    slot : Out(slot_bits)
        Of the current PCID.
    wraps : Out(1)
        The count of slots comes round in this cycle.
    """

    def __init__(self, *, physical_bits: int, slot_bits: int, soft_dirty: bool, few_resets: bool = False) -> None:
        self._soft_dirty, self._few_resets = soft_dirty, few_resets
        self.slots = PcidSlots(slot_bits, few_resets=few_resets)
        super().__init__(
            {
                "invalidations": In(stream.Signature(InvalidationLayout())),
                "contexts": In(ContextSignature(physical_bits=physical_bits, soft_dirty=soft_dirty, pcids=True)),
                "before": In(ContextLayout(physical_bits, soft_dirty=soft_dirty, pcids=True)),
                "may_begin": In(1),
                "may_change": In(1),
                "may_wait": In(1),
                "idle": Out(1),
                "begins": Out(1),
                "covers": Out(1),
                "ops": Out(stream.Signature(TlbOpLayout(physical_bits, slot_bits, soft_dirty=soft_dirty))),
                "slot": Out(slot_bits),
                "wraps": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.slots = slots = self.slots
        r = SimpleNamespace(
            valid=Signal(),
            others=Signal(),  # the turn of those who are no invalidation
            linear=Signal(64, reset_less=self._few_resets),
            # What it does, by its kind: its operation; whether that is done at once, or if the PCID has a live slot.
            kind=Signal(TlbOp),
            operates=Signal(),
            operates_if_found=Signal(),
            # The PCID gets a new slot, or uses the one it has and gets one if it has none; or its slot ends.
            renews=Signal(),
            uses=Signal(),
            ends=Signal(),
        )
        invalidations, contexts = self.invalidations, self.contexts
        free = ~r.valid & self.may_begin
        room = Signal()
        m.d.comb += [
            self.idle.eq(~r.valid),
            room.eq(self.may_wait | (invalidations.payload.wait == x86.Wait.NONE)),
            invalidations.ready.eq(free & ~r.others & room),
            self.begins.eq(invalidations.valid & invalidations.ready),
            contexts.ready.eq(free & r.others & self.may_change),
            # What is on offer is looked for, taken or not.
            slots.pcid.eq(Mux(r.others, contexts.payload.pcid, invalidations.payload.pcid)),
            slots.look.eq(~r.valid),
            self.slot.eq(slots.current),
            self.wraps.eq(slots.wraps),
        ]
        m.d.sync += r.valid.eq(self.begins | (contexts.valid & contexts.ready))
        with m.If(free):
            # Whose turn it is is a register: so nothing that is on offer decides what is looked for.
            m.d.sync += r.others.eq(~r.others & (self.begins | (contexts.valid & self.may_change)))
        with m.If(~r.valid):
            m.d.sync += r.linear.eq(invalidations.payload.linear)
            self._decode(m, r)
        self._cover(m, invalidations.payload)
        op, missing = self.ops.payload, Signal()
        m.d.comb += [
            missing.eq(r.uses & ~slots.found),
            slots.use.eq(r.valid & r.uses & slots.found),
            slots.renew.eq(r.valid & (r.renews | missing)),
            slots.end.eq(r.valid & r.ends & slots.found),
            self.ops.valid.eq(r.valid & (r.operates | (r.operates_if_found & slots.found) | slots.wraps)),
            *(op.kind.eq(r.kind), op.linear.eq(r.linear)),
            op.slot.eq(Mux(r.operates_if_found, slots.slot, slots.current)),
        ]
        return m

    def _flushes(self) -> data.View:
        """Whether the change of control bits takes all that is cached [SDM 3A 4.10.4.1]."""
        old, new = self.before.control, self.contexts.payload.control
        changes = (old.pge ^ new.pge) | (old.la57 ^ new.la57) | (old.nxe ^ new.nxe) | (new.smep & ~old.smep)
        if self._soft_dirty:
            changes |= self.before.track != self.contexts.payload.track
        return changes

    def _is_own(self, asked: data.View) -> Value:
        """An invalidation's PCID is the current one."""
        same: Value = asked.pcid == self.before.pcid
        return same

    def _cover(self, m: Module, asked: data.View) -> None:
        """What a walk read above the leaf may be stale after an invalidation of any address."""
        spares = (asked.kind == x86.Invalidation.ADDRESS) | (asked.kind == x86.Invalidation.PCID)
        m.d.comb += self.covers.eq(~spares | self._is_own(asked))

    def _decode(self, m: Module, r: SimpleNamespace) -> None:
        """What is on offer: what it does to slots and TLB, a cycle later."""
        asked, keep = self.invalidations.payload, self.contexts.payload.keep
        acts = Cat(r.operates, r.operates_if_found, r.renews, r.uses, r.ends)
        operates, if_found, renews, uses, ends = (1 << place for place in range(len(acts)))
        with m.If(r.others):
            m.d.sync += acts.eq(Mux(keep, uses, renews) | Mux(self._flushes(), operates, 0))
            # Where the count of slots comes round all goes that is not global.
            m.d.sync += r.kind.eq(Mux(self._flushes(), TlbOp.FLUSH, TlbOp.FLUSH_LOCAL))
        with m.Else():
            with m.Switch(asked.kind):
                with m.Case(x86.Invalidation.INVLPG):
                    m.d.sync += [r.kind.eq(TlbOp.DROP), acts.eq(operates)]
                with m.Case(x86.Invalidation.ADDRESS):
                    m.d.sync += [r.kind.eq(TlbOp.DROP_LOCAL), acts.eq(if_found)]
                with m.Case(x86.Invalidation.PCID):
                    # The current PCID has a live slot, always.
                    m.d.sync += [r.kind.eq(TlbOp.FLUSH_LOCAL), acts.eq(Mux(self._is_own(asked), renews, ends))]
                with m.Case(x86.Invalidation.NOT_GLOBAL):
                    m.d.sync += [r.kind.eq(TlbOp.FLUSH_LOCAL), acts.eq(operates)]
                with m.Default():
                    m.d.sync += [r.kind.eq(TlbOp.FLUSH), acts.eq(operates)]
