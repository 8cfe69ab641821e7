"""A cache of translations: 4 KiB pages in one bank, 2 MiB pages and fragments of 1 GiB pages in another."""

from enum import IntEnum
from types import SimpleNamespace
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.layouts import TranslationLayout

__all__ = ["CachedLayout", "Tlb", "TlbBank", "TlbMatchLayout", "TlbOp", "TlbOpLayout", "TlbShape"]

_LINEAR_BITS = x86.LINEAR_BITS[x86.LEVELS_5]
"""Bits of a canonical address that tags hold; those above are not looked at here."""
_PARTS = 7
"""In which a tag is compared."""


class TlbShape(data.StructLayout):
    """What is asked of a bank for one page of its size: the page's number, split into index and tag."""

    def __init__(self, shift: int, sets: int) -> None:
        index = max(0, (sets - 1).bit_length())
        super().__init__({"index": unsigned(index), "tag": unsigned(_LINEAR_BITS - shift - index)})


class CachedLayout(data.StructLayout):
    """A translation as it is cached: rights and marks, no verdict.

    Members
    -------
    frame : unsigned(physical_bits - 12)
        Frame number of the 4 KiB page. Of a large page the bits below 2 MiB do not count.
    level : unsigned(3)
        Of the leaf, 1 to 3.
    rw, us, xd : 1
        R/W and U/S of all entries (AND), XD of all (OR).
    pkey : unsigned(4)
    d, soft_dirty : 1
        The leaf's marks; `soft_dirty` only with `soft_dirty`.
    pwt, pcd, pat : 1
    """

    def __init__(self, physical_bits: int, *, soft_dirty: bool) -> None:
        found = TranslationLayout(physical_bits, soft_dirty=soft_dirty)
        super().__init__({name: field.shape for name, field in found if name not in ("g", "address")})


class TlbMatchLayout(data.StructLayout):
    """How far one way serves what is asked; `whole` tells whether it does. In parts, so that none is a long net.

    Members
    -------
    tag : unsigned(tag_parts)
        Every so manyth bit of the tag, from each of the first so many, is equal; by default every seventh.
    valid : 1
    serves : 1
        It is of the slot, or global.
    slot : unsigned(slot_parts), of_all : 1
        In its place, with `slot_parts`: parts of the slot are equal; it is global.
    """

    def __init__(self, tag_parts: int = _PARTS, slot_parts: int = 0) -> None:
        last = {"slot": slot_parts, "of_all": 1} if slot_parts else {"serves": 1}
        super().__init__({"tag": tag_parts, "valid": 1, **last})

    @staticmethod
    def whole(parts: Any) -> Value:
        """The way of which these are the parts serves what is asked."""
        if "of_all" not in parts.shape().members:
            return Value.cast(parts).all()
        return Cat(parts.tag, parts.valid).all() & (parts.slot.all() | parts.of_all)


class TlbOp(IntEnum):
    """What is done to a TLB beside lookups. Bit 0: to one address; bit 1: global ones stay; bit 2: to all."""

    FILL = 0
    """A translation is kept; all that serves the same address in its bank goes."""
    DROP = 1
    """What serves the address goes: of the slot, and global ones."""
    DROP_LOCAL = 3
    """What serves the address goes, of the slot, but for global ones."""
    FLUSH = 4
    """All goes."""
    FLUSH_LOCAL = 6
    """All goes but for global ones."""


class _Kind:
    """What a `TlbOp` does: it fills, drops what serves an address or flushes; and global ones stay."""

    def __init__(self, kind: Value) -> None:
        bits = Value.cast(kind)
        self.drops, self.local, self.flushes = bits[0], bits[1], bits[2]
        self.fills = ~(bits[0] | bits[2])


class TlbOpLayout(data.StructLayout):
    """One operation: `linear` and `slot` count for the first three kinds, `entry` and `g` (global) for a fill."""

    def __init__(self, physical_bits: int, slot_bits: int, *, soft_dirty: bool) -> None:
        super().__init__(
            {
                "kind": TlbOp,
                "linear": unsigned(64),
                "slot": unsigned(slot_bits),
                "entry": CachedLayout(physical_bits, soft_dirty=soft_dirty),
                "g": 1,
            }
        )


class TlbBank(Component):
    """One bank: set-associative, tags and payloads in LUT RAM, valid and global in flip-flops. Lookups take no cycle.

    Parameters
    ----------
    shift : int
        log2 of the page's bytes: 12 or 21.
    sets, ways : int
        Powers of two, at least 2 sets; at least 1 way.
    slot_bits : int
    payload : data.StructLayout
    split : bool
        True: parts of two bits; False (default): sevenths of a tag, and the whole slot.
    few_resets : bool
        As the TLB's.

    Members
    -------
    linear : In(64), slot : In(slot_bits)
        What is looked up.
    parts : Out(TlbMatchLayout) for each way
        Whether it serves it.
    globals : Out(ways)
        The ways that would serve any slot.
    entries : Out(payload) for each way
    at : In(index)
        The set that is changed.
    kill : In(ways)
        These ways of that set go.
    write : In(ways), new_linear : In(64), new_slot, new, new_global
        This way of that set gets a translation; it beats `kill`.
    flush, flush_local : In(1)
        All goes; all but for global ones. Beats `write`.

    Attributes
    ----------
    memories, valid, is_global : list
        Of each way: tags and payloads, and flip-flops by set; proofs look at them.
    found, global_ways : list of TlbMatchLayout, Signal
        What the operation in work found; whoever operates the bank sets them.
    """

    def __init__(
        self,
        *,
        shift: int,
        sets: int,
        ways: int,
        slot_bits: int,
        payload: data.StructLayout,
        split: bool = False,
        few_resets: bool = False,
    ) -> None:
        self._shift, self.ways, self.sets, self._slot_bits = shift, ways, sets, slot_bits
        self._shape = TlbShape(shift, sets)
        self._split = split
        tag_bits = self._shape["tag"].shape.width
        self.match = TlbMatchLayout(-(-tag_bits // 2), -(-slot_bits // 2)) if split else TlbMatchLayout()
        self.payload = payload
        self._row = data.StructLayout(
            {"tag": self._shape["tag"].shape, "slot": unsigned(slot_bits), "payload": payload}
        )
        self.memories = [Memory(shape=self._row, depth=sets, init=[]) for _ in range(ways)]
        self.valid = [Signal(sets, name=f"valid_{way}") for way in range(ways)]
        self.is_global = [Signal(sets, name=f"global_{way}", reset_less=few_resets) for way in range(ways)]
        self.found = [Signal(self.match, name=f"found_{way}", reset_less=split or few_resets) for way in range(ways)]
        self.global_ways = Signal(ways)
        super().__init__(
            {
                "linear": In(64),
                "slot": In(slot_bits),
                "parts": Out(self.match).array(ways),
                "globals": Out(ways),
                "entries": Out(payload).array(ways),
                "at": In(64),
                "kill": In(ways),
                "write": In(ways),
                "new_slot": In(slot_bits),
                "new": In(payload),
                "new_global": In(1),
                "flush": In(1),
                "flush_local": In(1),
            }
        )

    def split(self, linear: Value) -> Any:
        """Index and tag of an address."""
        return data.View(self._shape, linear[self._shift : _LINEAR_BITS])

    def elaborate(self, platform: object) -> Module:
        m = Module()
        asked, changed = self.split(self.linear), self.split(self.at)
        for way, memory in enumerate(self.memories):
            m.submodules[f"way_{way}"] = memory
            reader, writer = memory.read_port(domain="comb"), memory.write_port()
            valid, is_global = self.valid[way], self.is_global[way]
            row = reader.data
            of_all = is_global.bit_select(asked.index, 1)
            parts = self.parts[way]
            m.d.comb += [
                reader.addr.eq(asked.index),
                parts.tag.eq(_same(row.tag, asked.tag, len(parts.tag))),
                parts.valid.eq(valid.bit_select(asked.index, 1)),
                self.globals[way].eq(of_all),
                self.entries[way].eq(row.payload),
                writer.addr.eq(changed.index),
                writer.data.eq(Cat(changed.tag, self.new_slot, self.new)),
                writer.en.eq(self.write[way]),
            ]
            if self._split:
                m.d.comb += [parts.slot.eq(_same(row.slot, self.slot, len(parts.slot))), parts.of_all.eq(of_all)]
            else:
                m.d.comb += parts.serves.eq((row.slot == self.slot) | of_all)
            with m.If(self.kill[way]):
                m.d.sync += valid.bit_select(changed.index, 1).eq(0)
            with m.If(self.write[way]):
                m.d.sync += [
                    valid.bit_select(changed.index, 1).eq(1),
                    is_global.bit_select(changed.index, 1).eq(self.new_global),
                ]
            with m.If(self.flush_local):
                m.d.sync += valid.eq(valid & is_global)
            with m.If(self.flush):
                m.d.sync += valid.eq(0)
        return m


def _same(one: Value, other: Value, parts: int) -> Value:
    """Whether the bits are equal, in so many parts."""
    return Cat(one[at::parts] == other[at::parts] for at in range(parts))


class Tlb(Component):
    """Translations by address and PCID slot: a lookup a cycle, its answer in the next one.

    One register takes fills and invalidations, so that they are in the order in which they came. An operation on one
    address first reads which ways hold it, then changes them. Each takes two cycles; `busy` meanwhile, and nothing may
    be looked up.

    A page of 1 GiB is kept as fragments of 2 MiB; while there may be any, an invalidation of one address takes the
    whole bank of large pages, since it must take all fragments of the page.

    Parameters
    ----------
    physical_bits, soft_dirty
        As in `WalkerConfig`.
    slot_bits : int
    small, large : (int, int)
        Sets and ways of the bank of 4 KiB pages, and of that of large ones.
    split : bool
        True: a lookup's answer and the end of an operation are a cycle later, for a faster clock; default False.
    few_resets : bool
        True: what counts beneath a bit that a reset clears takes none; default False.

    Members
    -------
    look : In(1), linear : In(64), slot : In(slot_bits)
        Look up; not while `busy`.
    own : In(1), asked : Out(64)
        The lookup of the next cycle is of the address in the register of operations, as it is on offer in this one;
        always beside `ops.valid`. What is looked up.
    owned : Out(1)
        The lookup of this cycle is; always when `busy`.
    hold : In(1)
        What was on offer in the cycle before is the operation, if `ops.valid`.
    hit : Out(1), entry : Out(CachedLayout)
        The answer to the last lookup, from the next cycle on. A 4 KiB page goes before a large one.
    step : In(1)
        The answer to the last lookup is on offer from the next cycle on; only with `split`.
    ops : In(stream of TlbOpLayout)
    busy : Out(1)
        An operation is in work.
    forgets : Out(1)
        It is no fill.

    Attributes
    ----------
    banks : list of TlbBank
    registers : namespace
        The operation in work (`valid`, `op`, `second`: its last cycle, `found`: with `split` the one before), `idle`,
        which is 0 beside it, `own`, which is 1, and `fragments`; what the last lookup found in each bank's ways, by
        the bank's name, once elaborated (`seen`). Proofs look at them.
    """

    def __init__(
        self,
        *,
        physical_bits: int,
        slot_bits: int,
        small: tuple[int, int],
        large: tuple[int, int],
        soft_dirty: bool = True,
        split: bool = False,
        few_resets: bool = False,
    ) -> None:
        self._split = split
        # What nobody looks at after a reset takes none where there is much of it: it would be a net of many more ends.
        self._much = {"reset_less": split or few_resets}
        self._layout = CachedLayout(physical_bits, soft_dirty=soft_dirty)
        banks = ((x86.LEVEL_SHIFT[1], small), (x86.LEVEL_SHIFT[2], large))
        self.banks = [
            TlbBank(
                shift=shift,
                sets=sets,
                ways=ways,
                slot_bits=slot_bits,
                payload=self._stored(shift),
                split=split,
                few_resets=few_resets,
            )
            for shift, (sets, ways) in banks
        ]
        ops = TlbOpLayout(physical_bits, slot_bits, soft_dirty=soft_dirty)
        self.registers = SimpleNamespace(
            valid=Signal(),
            idle=Signal(init=1),
            own=Signal(),
            found=Signal(),
            second=Signal(),
            op=Signal(ops, name="op", reset_less=few_resets),
            fragments=Signal(),
            seen={},
        )
        super().__init__(
            {
                "look": In(1),
                "linear": In(64),
                "slot": In(slot_bits),
                "own": In(1),
                "asked": Out(64),
                "owned": Out(1),
                "hold": In(1),
                "hit": Out(1),
                "entry": Out(self._layout),
                "ops": In(stream.Signature(ops)),
                "busy": Out(1),
                "forgets": Out(1),
                **({"step": In(1)} if split else {}),
            }
        )

    def _stored(self, shift: int) -> data.StructLayout:
        """What a bank keeps of an entry: a frame of its pages' size, and of large pages whether it is a fragment."""
        fields = {str(name): shaped.shape for name, shaped in self._layout}
        fields["frame"] = unsigned(self._layout["frame"].shape.width - (shift - x86.PAGE_SHIFT))
        if shift == x86.PAGE_SHIFT:
            del fields["level"]
        else:
            fields["level"] = unsigned(1)
        return data.StructLayout(fields)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        r = self.registers
        op = r.op
        kind = _Kind(op.kind)
        last = r.second
        m.d.comb += [
            self.asked.eq(Mux(r.own, op.linear, self.linear)),
            self.owned.eq(r.own),
            # A register of its own: what is nothing to the operation is no load of its clock enables.
            self.busy.eq(~r.idle),
            self.forgets.eq(r.valid & ~kind.fills),
            self.ops.ready.eq(r.idle),
        ]
        m.d.sync += r.own.eq(self.own | (r.valid & ~last))
        with m.If(~r.valid):
            m.d.sync += [r.valid.eq(self.ops.valid), r.idle.eq(~self.ops.valid)]
            with m.If(~self.hold):
                # What is on offer without being valid does no harm: nothing looks at it.
                m.d.sync += op.eq(self.ops.payload)
        with m.Elif(last):
            m.d.sync += [r.valid.eq(0), r.idle.eq(1), r.second.eq(0), r.found.eq(0)]
        with m.Else():
            m.d.sync += [r.found.eq(1), r.second.eq(r.found)] if self._split else r.second.eq(1)

        found = []
        for number, bank in enumerate(self.banks):
            m.submodules[("small", "large")[number]] = bank
            found.append(self._serve(m, bank, r, last, bool(number)))

        with m.If(last & kind.fills & (op.entry.level == 3)):
            m.d.sync += r.fragments.eq(1)
        with m.If(last & ~kind.local & (kind.flushes | (kind.drops & r.fragments))):
            m.d.sync += r.fragments.eq(0)

        (small_hit, small), (large_hit, large) = found
        m.d.comb += [self.hit.eq(small_hit | large_hit), self.entry.eq(Mux(small_hit, small, large))]
        return m

    def _serve(self, m: Module, bank: TlbBank, r: SimpleNamespace, last: Signal, is_large: bool) -> Any:
        """One bank's part in lookups and operations: (hit, entry) of the last lookup."""
        op = r.op
        kind, name = _Kind(op.kind), ("small", "large")[is_large]
        parts = [Signal(bank.match, name=f"{name}_parts_{way}", **self._much) for way in range(bank.ways)]
        match = Signal(bank.ways, name=f"{name}_match", **self._much)
        entries = [Signal(bank.payload, name=f"{name}_entry_{way}", **self._much) for way in range(bank.ways)]
        r.seen[name] = (parts, entries)
        offered = entries
        if self._split:
            offered = [Signal(bank.payload, name=f"{name}_offered_{way}", **self._much) for way in range(bank.ways)]
        touched, found, same, global_ways = (
            Signal(bank.ways, name=f"{name}_{what}") for what in ("touched", "found", "same", "globals")
        )
        victim = Signal(range(bank.ways), name=f"{name}_victim") if bank.ways > 1 else Const(0)

        m.d.comb += [
            bank.linear.eq(self.asked),
            bank.slot.eq(Mux(r.valid, op.slot, self.slot)),
        ]
        with m.If(self.look):
            m.d.sync += [entry.eq(bank.entries[way]) for way, entry in enumerate(entries)]
            m.d.sync += [part.eq(bank.parts[way]) for way, part in enumerate(parts)]
        m.d.sync += [part.eq(bank.parts[way]) for way, part in enumerate(bank.found)]
        m.d.sync += bank.global_ways.eq(bank.globals)
        matching = match.eq(Cat(bank.match.whole(part) for part in parts))
        finding = [
            found.eq(Cat(bank.match.whole(part) for part in bank.found)),
            same.eq(Cat(part.tag.all() & part.valid for part in bank.found)),
            global_ways.eq(bank.global_ways),
        ]
        if self._split:
            with m.If(self.step):
                m.d.sync += [matching, *(later.eq(entry) for later, entry in zip(offered, entries, strict=True))]
            m.d.sync += finding
        else:
            m.d.comb += [matching, *finding]
        mine = (op.entry.level != 1) if is_large else (op.entry.level == 1)
        fills, drops, local = (Signal(name=f"{name}_{what}") for what in ("fills", "drops", "local"))
        all_go = kind.flushes | (kind.drops & r.fragments) if is_large else kind.flushes
        # What is done in the last cycle is decoded in the one before it.
        starts = r.found & ~last if self._split else r.valid & ~last
        m.d.sync += [
            fills.eq(starts & kind.fills & mine),
            drops.eq(starts & kind.drops),
            local.eq(kind.local),
            bank.write.eq((starts & kind.fills & mine) << victim),
            bank.flush.eq(starts & all_go & ~kind.local),
            bank.flush_local.eq(starts & all_go & kind.local),
        ]
        with m.If(fills):
            # One that is global would serve beside that of any slot, and it is one of them.
            m.d.comb += touched.eq(found | (same & op.g.replicate(bank.ways)))
        with m.Elif(~local):
            m.d.comb += touched.eq(found)
        with m.Else():
            m.d.comb += touched.eq(found & ~global_ways)

        m.d.comb += [
            bank.at.eq(op.linear),
            bank.kill.eq(touched & (fills | drops).replicate(bank.ways)),
            bank.new_slot.eq(op.slot),
            bank.new_global.eq(op.g),
        ]
        for field, shaped in bank.payload:
            value = op.entry[str(field)]
            if field == "frame":
                value = value[-shaped.width :]
            elif field == "level":
                value = value == 3
            m.d.comb += bank.new[field].eq(value)
        if bank.ways > 1:
            with m.If(fills):
                m.d.sync += victim.eq(victim + 1)

        raw = Signal(bank.payload, name=f"{name}_entry")
        entry = Signal(self._layout, name=f"{name}_found")
        chosen = Const(0, bank.payload.size)
        for way, candidate in enumerate(offered):
            chosen |= Value.cast(candidate) & match[way].replicate(bank.payload.size)
        m.d.comb += Value.cast(raw).eq(chosen)
        for field, shaped in self._layout:
            if field == "frame":
                m.d.comb += entry.frame.eq(raw.frame << (shaped.width - len(raw.frame)))
            elif field == "level":
                m.d.comb += entry.level.eq(Mux(raw.level, 3, 2) if is_large else 1)
            else:
                m.d.comb += entry[field].eq(raw[field])
        return match.any(), entry
