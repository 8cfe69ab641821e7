"""A paging-structure entry: what it is, and what an access must set in it.

The walker, a cache of translations and an engine that changes entries decide by the same two nets.
"""

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import linux, x86

__all__ = ["EntryCheck", "EntryLayout", "EntryUpdate", "marks_and_mends", "mendable"]


class EntryLayout(data.FlexibleLayout):
    """A paging-structure entry, 64 bits, with the manual's field names in lower case.

    `ps` and `pat` of a 4 KiB leaf are one bit under two names; `pat_large` is the PAT of a large leaf.

    Parameters
    ----------
    soft_dirty : bool
        False: software's bits have no names.
    """

    def __init__(self, *, soft_dirty: bool = True) -> None:
        bits = {bit.name.lower(): int(bit) for bit in x86.EntryBit}
        if soft_dirty:
            bits |= {bit.name.lower(): int(bit) for bit in linux.SoftBit}
        bits["pat"] = x86.PAT_4K
        fields = {name: data.Field(1, position) for name, position in bits.items()}
        fields["pkey"] = data.Field(unsigned(x86.PKEY_BITS), x86.PKEY_LOW)
        super().__init__(64, fields)


class EntryCheck(Component):
    """Is this entry a leaf of its level, and is it well formed? Combinational.

    Neither answer says anything of an entry that is not present.

    Parameters
    ----------
    levels, physical_bits, gigabyte_pages
        As in `WalkerConfig`.

    Members
    -------
    entry : In(EntryLayout)
        The entry as it was read.
    at : In(levels)
        Its level, one-hot: bit 0 is a PTE.
    nxe : In(1)
        EFER.NXE.
    leaf : Out(1)
        It maps a page: a PTE, or a PDE or PDPTE with PS.
    reserved : Out(1)
        A reserved bit is set [SDM 3A 4.7, tables 4-14 to 4-20].
    """

    def __init__(self, *, levels: int, physical_bits: int, gigabyte_pages: bool) -> None:
        self._levels = levels
        self._physical_bits = physical_bits
        self._gigabyte_pages = gigabyte_pages
        super().__init__(
            {
                "entry": In(EntryLayout(soft_dirty=False)),
                "at": In(levels),
                "nxe": In(1),
                "leaf": Out(1),
                "reserved": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry, at = self.entry, self.at
        raw = Value.cast(entry)
        large: dict[int, Value] = {2: at[1] & entry.ps}
        if self._gigabyte_pages:
            large[3] = at[2] & entry.ps
        ps_reserved = at[x86.LEVELS_4 - 1 :] if self._gigabyte_pages else at[2:]
        reasons = [entry.xd & ~self.nxe, entry.ps & ps_reserved.any()]
        if self._physical_bits <= x86.FRAME_HIGH:
            reasons.append(raw[self._physical_bits : x86.FRAME_HIGH + 1].any())
        for level, (low, high) in x86.LARGE_RESERVED.items():
            if level in large:
                reasons.append(large[level] & raw[low : high + 1].any())
        m.d.comb += [
            self.leaf.eq(Cat(at[0], *large.values()).any()),
            self.reserved.eq(Cat(reasons).any()),
        ]
        return m


class EntryUpdate(Component):
    """What an access that is allowed must set in an entry. Combinational.

    A in every entry; D in the leaf of a store; under tracking SOFT_DIRTY beside D, and for a mend RW instead of ARM.

    Parameters
    ----------
    soft_dirty : bool
        False: A and D only; there is no `track`, no `mend` and no `saved_dirty`.

    Members
    -------
    entry : In(EntryLayout)
        The entry as it was read.
    leaf, store : In(1)
        It is a leaf; the access will write.
    track : In(2)
        `linux.Track`.
    mend : In(1)
        The store is allowed once the leaf is mended, see `AccessRights`.
    saved_dirty : In(1)
        The profile keeps the dirtiness of read-only entries in SAVED_DIRTY: a mend clears it.
    new : Out(EntryLayout)
        The entry with all that set.
    missing : Out(1)
        `new` is another value than `entry`, and has to be written.
    """

    def __init__(self, *, soft_dirty: bool = True) -> None:
        self._soft_dirty = soft_dirty
        layout = EntryLayout(soft_dirty=soft_dirty)
        members = {"entry": In(layout), "leaf": In(1), "store": In(1), "new": Out(layout), "missing": Out(1)}
        if soft_dirty:
            members |= {"track": In(linux.Track), "mend": In(1), "saved_dirty": In(1)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry, new = self.entry, self.new
        unmarked = ~entry.d
        if self._soft_dirty:
            tracking = self.track != linux.Track.OFF
            unmarked |= (tracking & ~entry.soft_dirty) | self.mend
        m.d.comb += [
            self.missing.eq(~entry.a | (self.leaf & self.store & unmarked)),
            new.eq(entry),
            new.a.eq(1),
        ]
        with m.If(self.leaf & self.store):
            m.d.comb += new.d.eq(1)
            if self._soft_dirty:
                with m.If(tracking):
                    m.d.comb += new.soft_dirty.eq(1)
                with m.If(self.mend):
                    m.d.comb += [new.rw.eq(1), new.arm.eq(0)]
                    with m.If(self.saved_dirty):
                        m.d.comb += new.saved_dirty.eq(0)
        return m


def mendable(track: Value, leaf: data.View) -> Value:
    """Whether a write may mend `leaf` (an `EntryLayout` view) under `track`: ARM counts in fault mode only."""
    return (track == linux.Track.FAULT) & leaf.arm


def index_of(linear: Value, level: int) -> Value:
    """The index into a table of `level` [SDM 3A 4.5]."""
    return linear[x86.LEVEL_SHIFT[level] :][: x86.INDEX_BITS]


def slot(frame: Value, index: Value) -> Value:
    """The physical address of an entry, from its table's frame number and its index."""
    return Cat(Const(0, x86.ENTRY_BYTES.bit_length() - 1), index, frame)


def physical_address(linear: Value, leaf: Value, at: Value, physical_bits: int) -> Value:
    """Where `linear` lies in the page of `leaf` (an entry's 64 bits) of the one-hot level `at`, in bytes.

    Address bits below the page's size come from the linear address [SDM 3A 4.5.4].
    """
    small, medium, huge = (x86.LEVEL_SHIFT[level] for level in (1, 2, 3))
    return Cat(
        linear[:small],
        Mux(at[0], leaf[small:medium], linear[small:medium]),
        Mux(at[2], linear[medium:huge], leaf[medium:huge]),
        leaf[huge:physical_bits],
    )


def canonical(linear: Value, la57: Value) -> Value:
    """Whether `linear` is canonical for four levels, or with `la57` for five [SDM 3A 4.5.2]."""
    sign = {n: linear[x86.LINEAR_BITS[n] - 1 :] for n in (x86.LEVELS_4, x86.LEVELS_5)}
    same = {n: ~value.any() | value.all() for n, value in sign.items()}
    result: Value = Mux(la57, same[x86.LEVELS_5], same[x86.LEVELS_4])
    return result


def one_hot_level(m: Module, at: Value) -> Signal:
    """The number of the one-hot level `at`; 0 when none."""
    level = Signal(3)
    for k in range(len(at)):
        with m.If(at[k]):
            m.d.comb += level.eq(k + 1)
    return level


def marks_and_mends(written: Any) -> dict[str, Value]:
    """Whether `o_written` tells of a swap that made an entry soft-dirty (`marks`), or writable (`mends`)."""
    old, new = (data.View(EntryLayout(), written.payload[name]) for name in ("old", "new"))
    done = written.valid & written.payload.done
    return {"marks": done & ~old.soft_dirty & new.soft_dirty, "mends": done & ~old.rw & new.rw}
