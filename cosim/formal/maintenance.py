"""What is proved of maintenance: what an invalidation or a context makes stale is never looked up again."""

from __future__ import annotations

from types import SimpleNamespace

from amaranth.hdl import Assert, Assume, Cover, Module, Signal, Value

from ptewalk.cosim.formal.harness import Harness
from ptewalk.model import x86
from ptewalk.rtl.maintenance import Maintenance
from ptewalk.rtl.tlb import TlbOp

__all__ = ["MaintenanceHarness"]


class MaintenanceHarness(Harness):
    """For one arbitrary address and slot: what was kept of it under another PCID, or before what covers it, is gone.

    What a TLB may hold of the address, of the slot and globally, is followed by fills and operations alone: what those
    take is `tlb-hit`'s. Whenever something may be looked up, nothing of that which serves is stale.
    """

    title = "maintenance"
    assumptions: tuple[str, ...] = (
        "tlb-hit: a flush takes all, but for global ones if it is local; a drop what serves its address",
        "glue-keeps: an operation is taken at once; a fill comes while nothing is in work here, and none begins",
    )
    constants = ("linear", "slot")
    depth = 3
    search_depth = 12
    quick_depth = 12
    SLOT_BITS = 1

    def __init__(self, *, searching: bool = False) -> None:
        self.unit = Maintenance(physical_bits=20, slot_bits=self.SLOT_BITS, soft_dirty=True)
        super().__init__(self.unit, searching=searching)
        self.fills, self.fills_global = Signal(), Signal()  # free: the address is filled, of the slot or globally
        before = Value.cast(self.unit.before)
        self.ports = [port for port in self.ports if port is not before]
        self.ports += [self.fills, self.fills_global]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.maintenance = unit = self.unit
        linear, slot = self.arbitrary(m, 64, "linear"), self.arbitrary(m, self.SLOT_BITS, "slot")
        context = Signal(unit.before.shape())
        changes = Signal()
        m.d.comb += [
            unit.before.eq(context),
            changes.eq(unit.contexts.valid & unit.contexts.ready),
            Assume(~unit.ops.valid | unit.ops.ready),
            Assume(~(self.fills | self.fills_global) | (unit.idle & ~unit.may_begin)),
            Assume(~self.fills | (unit.slot == slot)),
        ]
        with m.If(changes):
            m.d.sync += context.eq(unit.contexts.payload)

        # What may be kept: of the slot, whose it was; and global ones.
        own = SimpleNamespace(held=Signal(name="held"), stale=Signal(name="stale"))
        of_all = SimpleNamespace(held=Signal(name="held_global"), stale=Signal(name="stale_global"))
        owner = Signal(x86.PCID_BITS)
        gone, gone_global = self._taken(m, linear, slot)
        covers, covers_global = self._covered(m, linear, owner, context.pcid, changes)
        for one, fills, goes, ages in (
            (own, self.fills, gone, covers),
            (of_all, self.fills_global, gone_global, covers_global),
        ):
            with m.If(goes):
                m.d.sync += one.held.eq(0)
            with m.If(ages):
                m.d.sync += one.stale.eq(1)
            with m.If(fills):
                m.d.sync += [one.held.eq(1), one.stale.eq(0)]
        with m.If(self.fills):
            m.d.sync += owner.eq(context.pcid)

        looks, wrapped = Signal(), Signal()  # something may be looked up; the count came round
        m.d.comb += looks.eq(unit.idle)
        m.d.sync += wrapped.eq(wrapped | unit.wraps)
        with m.If(looks & own.held & (unit.slot == slot)):
            m.d.comb += [Assert(owner == context.pcid), Assert(~own.stale)]
        with m.If(looks):
            m.d.comb += Assert(~of_all.held | ~of_all.stale)
        self._ask_slots(m)
        if not self.searching:
            self._tie(m, own, owner, slot, context.pcid)
        m.d.comb += [
            Cover(looks & own.held & (unit.slot == slot) & wrapped & (slot == 1)),
            Cover(looks & own.held & own.stale & (slot == 0)),
            Cover(looks & of_all.held & wrapped & (linear == 0x1234)),
            Cover(own.held & own.stale & gone),
        ]
        return m

    def _ask_slots(self, m: Module) -> None:
        """What the proof of the slots assumes of who asks them."""
        slots = self.unit.slots
        looked = Signal()  # for a PCID, in the last cycle
        m.d.sync += looked.eq(slots.look)
        m.d.comb += [
            Assert(~(slots.use | slots.renew | slots.end) | (looked & ~slots.look)),
            Assert((slots.use + slots.renew + slots.end) <= 1),
            Assert(~slots.use | slots.found),
            Assert(~slots.end | ~slots.found | (slots.slot != slots.current)),
            Cover(slots.end & slots.found),
        ]

    def _taken(self, m: Module, linear: Value, slot: Value) -> tuple[Value, Value]:
        """The operation on offer takes what is kept of the slot; what is global."""
        ops = self.unit.ops
        op = ops.payload
        gone, gone_global = Signal(name="gone"), Signal(name="gone_global")
        with m.If(ops.valid):
            with m.Switch(op.kind):
                with m.Case(TlbOp.DROP):
                    m.d.comb += [
                        gone.eq((op.linear == linear) & (op.slot == slot)),
                        gone_global.eq(op.linear == linear),
                    ]
                with m.Case(TlbOp.DROP_LOCAL):
                    m.d.comb += gone.eq((op.linear == linear) & (op.slot == slot))
                with m.Case(TlbOp.FLUSH):
                    m.d.comb += [gone.eq(1), gone_global.eq(1)]
                with m.Case(TlbOp.FLUSH_LOCAL):
                    m.d.comb += gone.eq(1)
        return gone, gone_global

    def _covered(self, m: Module, linear: Value, owner: Value, pcid: Value, changes: Value) -> tuple[Value, Value]:
        """What is taken from outside in this cycle makes stale what is kept of the owner; what is global."""
        unit = self.unit
        asked, new, old = unit.invalidations.payload, unit.contexts.payload, unit.before
        kinds = x86.Invalidation
        covers, covers_global = Signal(name="covers"), Signal(name="covers_global")
        same, named = asked.linear == linear, asked.pcid == owner
        with m.If(unit.invalidations.valid & unit.invalidations.ready):
            with m.Switch(asked.kind):
                with m.Case(kinds.INVLPG):
                    m.d.comb += [covers.eq(same & (owner == pcid)), covers_global.eq(same)]
                with m.Case(kinds.ADDRESS):
                    m.d.comb += covers.eq(same & named)
                with m.Case(kinds.PCID):
                    m.d.comb += covers.eq(named)
                with m.Case(kinds.NOT_GLOBAL):
                    m.d.comb += covers.eq(1)
                with m.Case(kinds.ALL):
                    m.d.comb += [covers.eq(1), covers_global.eq(1)]
        with m.If(changes):
            before, after = old.control, new.control
            all_goes = (before.pge ^ after.pge) | (before.la57 ^ after.la57) | (before.nxe ^ after.nxe)
            all_goes |= (~before.smep & after.smep) | (old.track != new.track)
            with m.If((new.pcid == owner) & ~new.keep):
                m.d.comb += covers.eq(1)
            with m.If(all_goes):
                m.d.comb += [covers.eq(1), covers_global.eq(1)]
        return covers, covers_global

    def _tie(self, m: Module, own: SimpleNamespace, owner: Value, slot: Value, pcid: Value) -> None:
        """What induction needs, whenever nothing is in work: what stands for the slot is its PCID's, and not stale."""
        unit = self.unit
        slots = unit.slots
        count = 1 << self.SLOT_BITS
        given = [(slots.following == 0) | (number < slots.following) for number in range(count)]
        with m.If(unit.idle):
            twice = [
                slots.live[one] & slots.live[other] & (slots.table[one] == slots.table[other])
                for one in range(count)
                for other in range(one)
            ]
            m.d.comb += [
                *(Assert(~pair) for pair in twice),
                *(Assert(~slots.live[number] | given[number]) for number in range(count)),
                Assert(slots.live.bit_select(slots.current, 1)),
            ]
            for number in range(count):
                with m.If(slots.current == number):
                    m.d.comb += Assert(slots.table[number] == pcid)
                with m.If(own.held & (slot == number)):
                    m.d.comb += Assert(given[number])
                    with m.If(slots.live[number]):
                        m.d.comb += [Assert(slots.table[number] == owner), Assert(~own.stale)]
