"""What is proved of the TLB, for one arbitrary page and slot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Assert, Assume, Cat, Const, Cover, Module, Mux, Signal, Value

from ptewalk.cosim.formal.harness import Harness
from ptewalk.model.x86 import LEVEL_SHIFT, LEVELS_5, LINEAR_BITS
from ptewalk.rtl.presets import CACHING
from ptewalk.rtl.tlb import Tlb, TlbBank, TlbMatchLayout, TlbOp

__all__ = ["FullTlbHarness", "SplitTlbHarness", "TlbHarness", "is_kind", "is_leaf"]

_LINEAR = LINEAR_BITS[LEVELS_5]


def is_kind(kind: Value) -> Value:
    """It is one of the kinds of operations."""
    return Cat(Value.cast(kind) == one for one in TlbOp).any()


def is_leaf(level: Value) -> Value:
    """A level at which a leaf may stand, 1 to 3."""
    return (level >= 1) & (level <= 3)


class TlbHarness(Harness):
    """A hit of one arbitrary page and slot is what the last fill that covers them left, and nothing took since."""

    title = "tlb-hit"
    assumptions: tuple[str, ...] = (
        "glue-keeps: nothing is looked up while an operation is in work; one is held back for one cycle at most",
        "glue-keeps: what is looked up after an operation was offered is its address",
        "glue-keeps: an operation is of the five kinds, and what is filled of level 1 to 3",
    )
    constants = ("linear", "slot")
    depth = 3
    search_depth = 8
    SLOT_BITS = 2
    SPLIT = False
    """The lookup is split: its answer is on offer a step later."""

    def __init__(self, *, searching: bool = False) -> None:
        self.tlb = self._tlb()
        super().__init__(self.tlb, searching=searching)
        self._rows = [[memory.read_port(domain="comb") for memory in bank.memories] for bank in self.tlb.banks]

    def _tlb(self) -> Tlb:
        """Small: z3 closes it."""
        return Tlb(physical_bits=24, slot_bits=self.SLOT_BITS, small=(2, 2), large=(2, 2), split=self.SPLIT)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        tlb = self.tlb
        made = tlb.elaborate(None)
        tlb.elaborate = lambda platform: made  # type: ignore[method-assign]
        m.submodules.tlb = tlb
        linear, slot = self.arbitrary(m, 64, "linear"), self.arbitrary(m, self.SLOT_BITS, "slot")
        op = tlb.ops.payload
        offered = Signal()  # what was on offer in the last cycle is in the register
        counts = Signal(op.shape(), name="op_that_counts")
        m.d.sync += offered.eq(~tlb.busy & ~tlb.hold)
        m.d.comb += [
            Assume(~tlb.look | ~tlb.busy),
            Assume(~tlb.hold | offered),
            Assume(~tlb.ops.valid | tlb.own),
            counts.eq(Mux(tlb.hold, tlb.registers.op, op)),
            Assume(~tlb.ops.valid | is_kind(counts.kind)),
            Assume(~tlb.ops.valid | (counts.kind != TlbOp.FILL) | is_leaf(counts.entry.level)),
        ]
        asked, looked = Signal(), Signal()
        ghosts, seen = [], []
        for number, bank in enumerate(tlb.banks):
            ghost = self._ghost(m, bank, linear, slot, is_large=bool(number))
            ghosts.append(ghost)
            seen.append(self._seen(m, ghost, asked))
            if not self.searching:
                self._tie(m, bank, self._rows[number], ghost, linear, slot, is_large=bool(number))

        m.d.comb += asked.eq(tlb.look & (tlb.asked[12:_LINEAR] == linear[12:_LINEAR]) & (tlb.slot == slot))
        if self.SPLIT:
            # The last lookup was of the page and slot; at the next step its answer is on offer.
            held = Signal()
            with m.If(tlb.look):
                m.d.sync += held.eq(asked)
            m.d.sync += looked.eq(held & tlb.step)
            if not self.searching:
                for name, one in zip(("small", "large"), seen, strict=True):
                    parts, entries = tlb.registers.seen[name]
                    self._tie_seen(m, held, parts, entries, one)
            seen = [self._held(m, one) for one in seen]
        else:
            m.d.sync += looked.eq(asked)
        small, large = seen
        with m.If(asked):
            m.d.comb += [Assert(_most_one(_matches(bank.parts, bank.ways))) for bank in tlb.banks]
        entry = tlb.entry
        with m.If(looked & tlb.hit):
            with m.If(entry.level == 1):
                m.d.comb += [Assert(small.valid), Assert(_equal(entry, small.payload, 12))]
            with m.Else():
                m.d.comb += [
                    Assert(large.valid),
                    Assert(_equal(entry, large.payload, 21)),
                    Assert(entry.level == large.payload.level + 2),
                ]
        m.d.comb += [
            Cover(looked & tlb.hit & (entry.level == 1) & linear[20] & (slot == 2)),
            Cover(looked & tlb.hit & (entry.level == 2) & ~linear[20]),
            Cover(looked & tlb.hit & (entry.level == 3)),
            Cover(looked & tlb.hit & small.of_all & (small.filled != slot)),
            Cover(looked & ~tlb.hit & small.taken),
        ]
        return m

    def _ghost(self, m: Module, bank: TlbBank, linear: Value, slot: Value, *, is_large: bool) -> SimpleNamespace:
        """What stands for the page and slot in a bank, by the operations alone."""
        r, shift = self.tlb.registers, LEVEL_SHIFT[2 if is_large else 1]
        op = r.op
        name = "large" if is_large else "small"
        ghost = SimpleNamespace(
            valid=Signal(name=f"{name}_valid"),
            of_all=Signal(name=f"{name}_global"),
            filled=Signal(self.SLOT_BITS, name=f"{name}_slot"),
            payload=Signal(bank.payload, name=f"{name}_payload"),
            taken=Signal(name=f"{name}_taken"),
        )
        page = op.linear[shift:_LINEAR] == linear[shift:_LINEAR]
        covers = page
        if is_large:
            covers = page | (ghost.payload.level & (op.linear[30:_LINEAR] == linear[30:_LINEAR]))
        mine = (op.entry.level != 1) if is_large else (op.entry.level == 1)
        serves = (op.slot == slot) | op.g
        goes = Signal(name=f"{name}_goes")
        with m.Switch(op.kind):
            with m.Case(TlbOp.FILL):
                m.d.comb += goes.eq(mine & page & (serves | ghost.of_all))
            with m.Case(TlbOp.DROP):
                m.d.comb += goes.eq(covers & ((op.slot == slot) | ghost.of_all))
            with m.Case(TlbOp.DROP_LOCAL):
                m.d.comb += goes.eq(covers & (op.slot == slot) & ~ghost.of_all)
            with m.Case(TlbOp.FLUSH):
                m.d.comb += goes.eq(1)
            with m.Default():
                m.d.comb += goes.eq(~ghost.of_all)
        with m.If(r.second):
            with m.If((op.kind == TlbOp.FILL) & mine & page & serves):
                m.d.sync += [ghost.valid.eq(1), ghost.of_all.eq(op.g), ghost.filled.eq(op.slot)]
                for field, shaped in bank.payload:
                    value = op.entry[str(field)]
                    value = value[-shaped.width :] if field == "frame" else value == 3 if field == "level" else value
                    m.d.sync += ghost.payload[field].eq(value)
            with m.Elif(goes):
                m.d.sync += [ghost.valid.eq(0), ghost.taken.eq(ghost.valid)]
        return ghost

    def _seen(self, m: Module, ghost: SimpleNamespace, asked: Signal) -> SimpleNamespace:
        """A ghost as it was in the cycle of the last lookup."""
        return self._held(m, ghost, asked if self.SPLIT else Const(1))

    @staticmethod
    def _held(m: Module, ghost: SimpleNamespace, when: Value = Const(1)) -> SimpleNamespace:  # noqa: B008 - frozen
        """A ghost as it was in the last cycle of these."""
        seen = SimpleNamespace()
        for name, value in vars(ghost).items():
            held = Signal.like(value, name=f"{value.name if isinstance(value, Signal) else name}_seen")
            with m.If(when):
                m.d.sync += held.eq(value)
            setattr(seen, name, held)
        return seen

    def _tie_seen(self, m: Module, held: Signal, parts: Any, entries: Any, seen: SimpleNamespace) -> None:
        """What induction needs of a lookup that has not stepped on: its ways are the ghost's, and one at most."""
        matches = _matches(parts, len(parts))
        with m.If(held):
            m.d.comb += Assert(_most_one(matches))
            for match, entry in zip(matches, entries, strict=True):
                m.d.comb += Assert(~match | (seen.valid & (entry.as_value() == seen.payload.as_value())))

    def _tie(
        self,
        m: Module,
        bank: TlbBank,
        rows: list[Any],
        ghost: SimpleNamespace,
        linear: Value,
        slot: Value,
        *,
        is_large: bool,
    ) -> None:
        """What induction needs: each way that would serve is the ghost, and there is one at most."""
        r = self.tlb.registers
        place = bank.split(linear)
        matches = Signal(bank.ways, name=f"{'large' if is_large else 'small'}_ways")
        for way, port in enumerate(rows):
            m.d.comb += port.addr.eq(place.index)
            of_all = bank.is_global[way].bit_select(place.index, 1)
            m.d.comb += matches[way].eq(
                bank.valid[way].bit_select(place.index, 1)
                & (port.data.tag == place.tag)
                & ((port.data.slot == slot) | of_all)
            )
            with m.If(matches[way]):
                m.d.comb += [
                    Assert(ghost.valid),
                    Assert(of_all == ghost.of_all),
                    Assert(port.data.slot == ghost.filled),
                    Assert(port.data.payload.as_value() == ghost.payload.as_value()),
                ]
                if is_large:
                    m.d.comb += Assert(~ghost.payload.level | r.fragments)
        m.d.comb += [
            Assert(_most_one(matches)),
            Assert(~r.valid | is_kind(r.op.kind)),
            Assert((r.own & ~r.idle) | (~r.valid & r.idle)),
            Assert(r.valid | ~(r.second | r.found)),
        ]
        m.d.comb += [
            Assert(~ghost.valid | ghost.of_all | (ghost.filled == slot)),
            Assert(~r.valid | (r.op.kind != TlbOp.FILL) | is_leaf(r.op.entry.level)),
        ]
        with m.If(r.valid & (r.second | r.found)):
            m.d.comb += Assert(bank.global_ways == bank.globals)
            m.d.comb += [Assert(Value.cast(bank.found[way]) == Value.cast(bank.parts[way])) for way in range(bank.ways)]
        if self.SPLIT:
            m.d.comb += Assert(~r.second | r.found)


class SplitTlbHarness(TlbHarness):
    """The same where the lookup is split: its answer stands for the last lookup before the last step."""

    title = "tlb-hit/split"
    solver = "yices"
    assumptions = tuple(one.replace("glue-keeps:", "glue-keeps/split:") for one in TlbHarness.assumptions)
    SPLIT = True
    depth = 4
    search_depth = 11


class FullTlbHarness(TlbHarness):
    """The same of preset mmu's TLB, at its full size."""

    title = "tlb-hit/full"
    solver = "yices"
    search_depth = 5
    SLOT_BITS = 3

    def _tlb(self) -> Tlb:
        config = CACHING["mmu"]
        assert config.slots == 1 << self.SLOT_BITS
        return Tlb(
            physical_bits=config.walker.physical_bits,
            slot_bits=self.SLOT_BITS,
            small=(config.small_sets, config.small_ways),
            large=(config.large_sets, config.large_ways),
        )


def _matches(parts: Any, ways: int) -> Value:
    """The ways that serve."""
    return Cat(TlbMatchLayout.whole(parts[way]) for way in range(ways))


def _most_one(bits: Value) -> Value:
    """At most one bit is set."""
    return (bits & (bits - 1)[: len(bits)]) == 0


def _equal(entry: Any, payload: Any, shift: int) -> Value:
    """The answer's fields are the payload's."""
    width = len(payload.frame)
    same = entry.frame[-width:] == payload.frame
    for field, _ in payload.shape():
        if field not in ("frame", "level"):
            same &= entry[field] == payload[field]
    return same
