"""What an operation makes of an entry, and what it tells of it: one net for clear_refs, scan and pagemap."""

from enum import IntEnum
from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import linux, x86

__all__ = ["ChangeLayout", "EntryChange", "EntryKind", "FlagsLayout", "KindLayout", "MadeLayout", "WordsLayout"]

_LOW = x86.FRAME_LOW
_HIGH = 63 - x86.FRAME_HIGH
_OFFSET_LOW, _OFFSET_BITS = 9, linux.PAGEMAP_FRAME_BITS - linux.PAGEMAP_SWAP_TYPE_BITS
"""Of a swap-like entry: where its offset begins, and the bits of it that a word has room for."""
_TYPE_LOW, _TYPE_HIGH = 1, 59
"""Where its type stands: in Linux before 4.18, and later, when the offset is a complement (asm/pgtable_64.h)."""


def _flag(bit: int) -> int:
    """Where a bit of an entry's high part stands behind its low part."""
    return bit - 64 + _HIGH + _LOW


class EntryKind(IntEnum):
    """What a level-1 entry, or a leaf above, is for Linux."""

    NONE = 0
    """Zero."""
    PRESENT = 1
    """P=1."""
    HIDDEN = 2
    """PROT_NONE: P=0, bit 8 set."""
    SWAP = 3
    """Swap-like: not zero, and neither."""


class FlagsLayout(data.StructLayout):
    """The bits of an entry that an operation may change: all but the frame.

    Members
    -------
    low : unsigned(12)
        Bits 11:0.
    high : unsigned(12)
        Bits 63:52.
    """

    def __init__(self) -> None:
        super().__init__({"low": unsigned(_LOW), "high": unsigned(_HIGH)})


class KindLayout(data.StructLayout):
    """What is done to entries of one kind.

    Members
    -------
    clear, set : FlagsLayout
        Bits that become 0, and then 1.
    match : FlagsLayout
        The entry matches if it has one of these bits.
    """

    def __init__(self) -> None:
        super().__init__({"clear": FlagsLayout(), "set": FlagsLayout(), "match": FlagsLayout()})


class ChangeLayout(data.StructLayout):
    """An operation's masks. An entry that is zero never matches.

    Members
    -------
    present, hidden, swap : KindLayout
    arm : 1
        RW of a present or hidden entry sets ARM.
    save_dirty : 1
        D of one sets SAVED_DIRTY.
    only_matching : 1
        Entries that do not match stay as they are.
    written : 1
        Entries whose pagemap word tells that they are write-protected by userfaultfd stay as they are.
    spares : FlagsLayout
        A present or hidden entry of level 1 that has one of these bits stays as it is, as those without a struct page.
    empty : unsigned(64)
        What an entry of level 1 that is zero becomes, as a marker where a page is protected; 0: it stays.
    """

    def __init__(self) -> None:
        kinds = {name: KindLayout() for name in ("present", "hidden", "swap")}
        flags = {"arm": 1, "save_dirty": 1, "only_matching": 1, "written": 1}
        super().__init__({**kinds, **flags, "spares": FlagsLayout(), "empty": unsigned(64)})


class WordsLayout(data.StructLayout):
    """How a kernel's entries are told in pagemap words.

    Members
    -------
    soft_dirty : 1
        Bit 55 tells SOFT_DIRTY of present and hidden entries.
    uffd_wp : 1
        Bit 57 tells their UFFD_WP.
    inverts : 1
        Hidden entries hold their frame's complement, swap-like ones their offset's, and the type at 59; else at 1.
    swap_soft_dirty, swap_uffd_wp : unsigned(12)
        Bits of a swap-like entry that bits 55 and 57 tell.
    has_marker : 1, marker : unsigned(5)
        The swap type of a PTE marker, whose offset's bits 0 and 2 bits 57 and 58 tell.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "soft_dirty": 1,
                "uffd_wp": 1,
                "inverts": 1,
                "swap_soft_dirty": unsigned(_LOW),
                "swap_uffd_wp": unsigned(_LOW),
                "has_marker": 1,
                "marker": unsigned(linux.PAGEMAP_SWAP_TYPE_BITS),
            }
        )


class MadeLayout(data.StructLayout):
    """What became of an entry: members of `EntryChange`, kept in registers.

    Members
    -------
    new, word, matches, changes, bare
    """

    def __init__(self) -> None:
        super().__init__({"new": unsigned(64), "word": unsigned(64), "matches": 1, "changes": 1, "bare": 1})


class EntryChange(Component):
    """One entry through an operation. Combinational (fs/proc/task_mmu.c: clear_soft_dirty, pte_to_pagemap_entry).

    Members
    -------
    entry : In(64)
    change : In(ChangeLayout), words : In(WordsLayout)
    kind : Out(EntryKind)
    matches : Out(1)
    new : Out(64)
        What the entry becomes; its frame is that of `entry`, unless that is zero and becomes `change.empty`.
    changes : Out(1)
        It is not what it was.
    word : Out(64)
        Of `entry`: its pagemap word without FILE and EXCLUSIVE, which are its frame's.
    bare : Out(1)
        It is a marker that says no more than write-protection.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "entry": In(64),
                "change": In(ChangeLayout()),
                "words": In(WordsLayout()),
                "kind": Out(EntryKind),
                "matches": Out(1),
                "new": Out(64),
                "changes": Out(1),
                "word": Out(64),
                "bare": Out(1),
            }
        )

    def into(self, made: data.View) -> list[Any]:
        """What `made`, of `MadeLayout`, is to take."""
        return [made[str(name)].eq(getattr(self, str(name))) for name, _ in made.shape()]

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry, change = self.entry, self.change
        present, hidden = entry[x86.EntryBit.P], entry[linux.NotPresentBit.PROTNONE]
        with m.If(present):
            m.d.comb += self.kind.eq(EntryKind.PRESENT)
        with m.Elif(hidden):
            m.d.comb += self.kind.eq(EntryKind.HIDDEN)
        with m.Elif(entry.any()):
            m.d.comb += self.kind.eq(EntryKind.SWAP)

        # Each kind's masks are applied, and which kind it is comes last: that takes fewer levels of logic.
        bits, maps = Signal(_LOW + _HIGH), present | hidden
        m.d.comb += bits.eq(Cat(entry[:_LOW], entry[-_HIGH:]))
        new, differs, spared = Signal(_LOW + _HIGH), Signal(), Signal()
        for number, name in enumerate(("present", "hidden", "swap")):
            masks = [Value.cast(change[name][field]) for field in ("clear", "set", "match")]
            made, raised = Signal(_LOW + _HIGH, name=f"made_{name}"), Signal(_LOW + _HIGH, name=f"raised_{name}")
            if name != "swap":
                m.d.comb += [
                    raised[_flag(linux.SoftBit.ARM)].eq(change.arm & entry[x86.EntryBit.RW]),
                    raised[_flag(linux.SoftBit.SAVED_DIRTY)].eq(change.save_dirty & entry[x86.EntryBit.D]),
                ]
            m.d.comb += made.eq(bits & ~masks[0] | masks[1] | raised)
            with m.If((present, hidden & ~present, ~maps)[number]):
                m.d.comb += [new.eq(made), differs.eq((made ^ bits).any()), self.matches.eq((bits & masks[2]).any())]
        stays, zero, uffd_wp = Signal(), Signal(), Signal()
        m.d.comb += [
            zero.eq(~entry.any()),
            spared.eq(maps & (bits & Value.cast(change.spares)).any()),
            stays.eq((change.only_matching & ~self.matches) | spared | (change.written & uffd_wp)),
            self.changes.eq(Mux(zero, change.empty.any(), ~stays & differs)),
            self.new.eq(entry),
        ]
        with m.If(zero):
            m.d.comb += self.new.eq(change.empty)
        with m.Elif(~stays):
            m.d.comb += [self.new[:_LOW].eq(new[:_LOW]), self.new[-_HIGH:].eq(new[_LOW:])]
        self._tell(m, uffd_wp)
        return m

    def _tell(self, m: Module, uffd_wp: Signal) -> None:
        """The pagemap word, and whether it tells UFFD_WP."""
        entry, words, word = self.entry, self.words, self.word
        soft_dirty, guard = Signal(), Signal()
        bit = linux.PagemapBit
        m.d.comb += [word[bit.SOFT_DIRTY].eq(soft_dirty), word[bit.UFFD_WP].eq(uffd_wp), word[bit.GUARD].eq(guard)]
        frame = entry[x86.FRAME_LOW : x86.FRAME_HIGH + 1]
        kind = Mux(words.inverts, entry[_TYPE_HIGH:], entry[_TYPE_LOW:])[: linux.PAGEMAP_SWAP_TYPE_BITS]
        stored = entry[_OFFSET_LOW : _OFFSET_LOW + _OFFSET_BITS]
        offset = Signal(_OFFSET_BITS)
        m.d.comb += offset.eq(stored ^ words.inverts.replicate(_OFFSET_BITS))
        marker = words.has_marker & (kind == words.marker)
        with m.If((self.kind == EntryKind.PRESENT) | (self.kind == EntryKind.HIDDEN)):
            complement = words.inverts & (self.kind == EntryKind.HIDDEN)
            m.d.comb += [
                word[: linux.PAGEMAP_FRAME_BITS].eq(frame ^ complement.replicate(len(frame))),
                word[bit.PRESENT].eq(1),
                soft_dirty.eq(words.soft_dirty & entry[linux.SoftBit.SOFT_DIRTY]),
                uffd_wp.eq(words.uffd_wp & entry[linux.SoftBit.UFFD_WP]),
            ]
        with m.Elif(self.kind == EntryKind.SWAP):
            m.d.comb += [
                word[: linux.PAGEMAP_FRAME_BITS].eq(Cat(kind, offset)),
                word[bit.SWAP].eq(1),
                soft_dirty.eq((entry[:_LOW] & words.swap_soft_dirty).any()),
                uffd_wp.eq((entry[:_LOW] & words.swap_uffd_wp).any() | self._marked(marker, offset, "UFFD_WP")),
                guard.eq(self._marked(marker, offset, "GUARD")),
                self.bare.eq(marker & ~guard),
            ]

    @staticmethod
    def _marked(marker: Any, offset: Value, name: str) -> Value:
        """The entry is a marker that says this (include/linux/leafops.h)."""
        value: Value = marker & (offset & Const(linux.PteMarker[name], _OFFSET_BITS)).any()
        return value
