"""Caches of upper entries: where a walk may begin, below the root."""

from types import SimpleNamespace
from typing import Final

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.layouts import StartLayout, UpperEntryLayout, UpperRightsLayout

__all__ = ["UpperCache", "UpperCaches"]

_LINEAR_BITS = x86.LINEAR_BITS[x86.LEVELS_5]
"""Bits of a canonical address that tags hold; those above are not looked at here."""
_PART: Final = 4
"""Bits of a tag that are compared at a time where a lookup is split."""


class UpperCache(Component):
    """Entries of one level, direct-mapped: tags and payloads in LUT RAM, valid in flip-flops. Lookups take no cycle.

    The index is folded, so that neighbours at a distance of all entries do not meet.

    Parameters
    ----------
    level : int
        2 to 5.
    entries : int
        A power of two, at least 2.
    physical_bits, slot_bits : int
    split : bool
        True: what is found is told in parts; default False.

    Members
    -------
    index : In, linear : In(64), slot : In(slot_bits)
        What is looked up: the row, as `split` says of the address, and the address.
    found : Out(1), or Out(parts); frame : Out(physical_bits - 12), rights : Out(UpperRightsLayout)
        It is known if all bits of `found` are 1: the table below, and the rights down to it.
    write : In(1), new_linear, new_slot, new_frame, new_rights
    clear : In(1)
        All goes; beats `write`.

    Attributes
    ----------
    memory, valid : Memory, Signal
        Proofs look at them.
    """

    def __init__(self, *, level: int, entries: int, physical_bits: int, slot_bits: int, split: bool = False) -> None:
        self._shift = x86.LEVEL_SHIFT[level]
        self._index_bits = (entries - 1).bit_length()
        frame = unsigned(physical_bits - x86.PAGE_SHIFT)
        self.row = data.StructLayout(
            {
                "tag": unsigned(_LINEAR_BITS - self._shift - self._index_bits),
                "slot": unsigned(slot_bits),
                "frame": frame,
                "rights": UpperRightsLayout(),
            }
        )
        self._part = _PART if split else self.row["tag"].shape.width
        parts = -(-self.row["tag"].shape.width // self._part)
        self.memory = Memory(shape=self.row, depth=entries, init=[])
        self.valid = Signal(entries)
        super().__init__(
            {
                "index": In(self._index_bits),
                "linear": In(64),
                "slot": In(slot_bits),
                "found": Out(2 + parts if split else 1),
                "frame": Out(frame),
                "rights": Out(UpperRightsLayout()),
                "write": In(1),
                "new_linear": In(64),
                "new_slot": In(slot_bits),
                "new_frame": In(frame),
                "new_rights": In(UpperRightsLayout()),
                "clear": In(1),
            }
        )

    def split(self, linear: Value) -> tuple[Value, Value]:
        """Index and tag of an address: the tag and the index tell all bits above the level's shift."""
        low, tag = (
            linear[self._shift :][: self._index_bits],
            linear[self._shift + self._index_bits : _LINEAR_BITS],
        )
        return low ^ tag[x86.INDEX_BITS - self._index_bits :][: self._index_bits], tag

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.memory = memory = self.memory
        reader, writer = memory.read_port(domain="comb"), memory.write_port()
        index, tag = self.index, self.split(self.linear)[1]
        new_index, new_tag = self.split(self.new_linear)
        row = reader.data
        m.d.comb += [
            reader.addr.eq(index),
            self.frame.eq(row.frame),
            self.rights.eq(row.rights),
            writer.addr.eq(new_index),
            writer.data.eq(Cat(new_tag, self.new_slot, self.new_frame, self.new_rights)),
            writer.en.eq(self.write),
        ]
        same = [row.tag[at:][: self._part] == tag[at:][: self._part] for at in range(0, len(tag), self._part)]
        found = Cat(self.valid.bit_select(index, 1), row.slot == self.slot, *same)
        m.d.comb += self.found.eq(found if len(self.found) > 1 else found.all())
        with m.If(self.clear):
            m.d.sync += self.valid.eq(0)
        with m.Elif(self.write):
            m.d.sync += self.valid.bit_select(new_index, 1).eq(1)
        return m


class UpperCaches(Component):
    """A cache for each level above the page tables, and the deepest that knows an address.

    An entry is kept as walks pass it, a cycle late. Only who walks looks here, and no page fault may rest on what was
    found.

    Parameters
    ----------
    levels, physical_bits : int
        As in `WalkerConfig`.
    slot_bits : int
    entries : int
        Of each level; 0: there are none, and each walk begins at the root.
    split : bool
        True: `start` is that of the lookup before the last; default False.
    few_resets : bool
        True: what counts beneath a bit that a reset clears takes none; default False.

    Members
    -------
    look : In(1), index : In for each level, linear : In(64), slot : In(slot_bits)
        Look up: the rows, as `rows` says of the address, and the address.
    root : In(physical_bits - 12), la57 : In(1)
        The context's.
    start : Out(StartLayout)
        Where the walk of the last lookup begins, from the next cycle on.
    fill : In(UpperEntryLayout), fill_slot : In(slot_bits), passes : In(1)
        An entry is to be kept.
    clear : In(1)
        All goes, and what is on its way.

    Attributes
    ----------
    caches : dict of int to UpperCache
        By level.
    held : namespace
        The entry on its way: `valid`, `entry`, `slot`; proofs look at it.
    next_start : data.View
        What `start` is after the next lookup, with `split`; else `start` itself.
    """

    def __init__(
        self,
        *,
        levels: int,
        physical_bits: int,
        slot_bits: int,
        entries: int,
        split: bool = False,
        few_resets: bool = False,
    ) -> None:
        self._split, self._wide = split, {"reset_less": few_resets}
        self._levels, self._entries = levels, entries
        kept = range(2, levels + 1) if entries else range(0)
        self.caches = {
            level: UpperCache(
                level=level, entries=entries, physical_bits=physical_bits, slot_bits=slot_bits, split=split
            )
            for level in kept
        }
        entry = UpperEntryLayout(physical_bits, levels)
        self.held = SimpleNamespace(
            valid=Signal(name="held_valid"),
            entry=Signal(entry, name="held", **self._wide),
            slot=Signal(slot_bits, name="held_slot", **self._wide),
        )
        bits = max(1, (entries - 1).bit_length())
        super().__init__(
            {
                "look": In(1),
                "index": In(bits).array(len(kept)),
                "linear": In(64),
                "slot": In(slot_bits),
                "root": In(unsigned(physical_bits - x86.PAGE_SHIFT)),
                "la57": In(1),
                "start": Out(StartLayout(physical_bits, levels)),
                "fill": In(entry),
                "fill_slot": In(slot_bits),
                "passes": In(1),
                "clear": In(1),
            }
        )
        self.next_start = Signal(self.start.shape(), name="next_start") if split else self.start

    def rows(self, linear: Value) -> list[Value]:
        """Where each cache would keep an address."""
        return [cache.split(linear)[0] for cache in self.caches.values()]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        held, start = self.held, self.next_start
        if self._split:
            with m.If(self.look):
                m.d.sync += self.start.eq(start)
        m.d.comb += [
            start.frame.eq(self.root),
            start.at.eq(Mux(self.la57, 1 << (x86.LEVELS_5 - 1), 1 << (x86.LEVELS_4 - 1))),
            Cat(start.rights.rw, start.rights.us, start.rights.xd).eq(0b011),
        ]
        if not self._entries:
            return m
        m.d.sync += [
            held.valid.eq(self.passes & ~self.clear),
            held.entry.eq(self.fill),
            held.slot.eq(self.fill_slot),
        ]
        found = {}
        for index, (level, cache) in zip(self.index, self.caches.items(), strict=True):
            m.submodules[f"level_{level}"] = cache
            m.d.comb += [
                cache.index.eq(index),
                cache.linear.eq(self.linear),
                cache.slot.eq(self.slot),
                cache.write.eq(held.valid & held.entry.at[level - 1]),
                cache.new_linear.eq(held.entry.linear),
                cache.new_slot.eq(held.slot),
                cache.new_frame.eq(held.entry.frame),
                cache.new_rights.eq(held.entry.rights),
                cache.clear.eq(self.clear),
            ]
            seen = SimpleNamespace(
                found=Signal.like(cache.found, name=f"found_{level}"),
                frame=Signal.like(cache.frame, name=f"frame_{level}", **self._wide),
                rights=Signal(UpperRightsLayout(), name=f"rights_{level}", **self._wide),
            )
            with m.If(self.look):
                m.d.sync += [seen.found.eq(cache.found), seen.frame.eq(cache.frame), seen.rights.eq(cache.rights)]
            found[level] = seen
        for level in sorted(found, reverse=True):
            seen = found[level]
            with m.If(seen.found.all()):
                m.d.comb += [
                    start.frame.eq(seen.frame),
                    start.at.eq(Const(1 << (level - 2), self._levels)),
                    start.rights.eq(seen.rights),
                    start.cached.eq(1),
                ]
        return m
