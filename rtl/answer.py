"""What a walk answers: outcome, error code, physical address, and the translation that a cache may keep."""

from amaranth.hdl import Module, Mux, Value
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86
from ptewalk.rtl.entry import EntryLayout, one_hot_level, physical_address
from ptewalk.rtl.layouts import RequestLayout, ResponseLayout, TranslationLayout, UpperRightsLayout
from ptewalk.rtl.permissions import AccessClassLayout

__all__ = ["WalkAnswer"]


class WalkAnswer(Component):
    """The answer of a walk that ends at `entry`. Combinational.

    Parameters
    ----------
    levels, physical_bits, tag_bits, soft_dirty
        As in `WalkerConfig`.

    Members
    -------
    request : In(RequestLayout), access : In(AccessClassLayout)
    entry, new : In(EntryLayout)
        The entry that was read last, and what it is with all that the access must set (see `EntryUpdate`).
    address : In(physical_bits)
        Where it lies.
    at : In(levels)
        Its level, one-hot.
    upper : In(UpperRightsLayout)
    leaf, reserved : In(1)
        See `EntryCheck`.
    denied, key_denied : In(1)
        See `AccessRights`.
    fetch_bit : In(1)
        EFER.NXE or CR4.SMEP: the error code tells fetches apart.
    noncanonical, broken : In(1)
        The address is not canonical; memory refused an access.
    level : Out(3)
        `at` as a number.
    outcome : Out(2)
        `x86.Outcome`.
    code : Out(16)
        The error code of a page fault.
    response : Out(ResponseLayout)
    translation : Out(TranslationLayout)
        Counts when OK.
    """

    def __init__(self, *, levels: int, physical_bits: int, tag_bits: int, soft_dirty: bool) -> None:
        self._physical_bits = physical_bits
        self._soft_dirty = soft_dirty
        entry = EntryLayout(soft_dirty=soft_dirty)
        super().__init__(
            {
                "request": In(RequestLayout(tag_bits)),
                "access": In(AccessClassLayout()),
                "entry": In(entry),
                "new": In(entry),
                "address": In(physical_bits),
                "at": In(levels),
                "upper": In(UpperRightsLayout()),
                "leaf": In(1),
                "reserved": In(1),
                "denied": In(1),
                "key_denied": In(1),
                "fetch_bit": In(1),
                "noncanonical": In(1),
                "broken": In(1),
                "level": Out(3),
                "outcome": Out(x86.Outcome),
                "code": Out(16),
                "response": Out(ResponseLayout(physical_bits, tag_bits)),
                "translation": Out(TranslationLayout(physical_bits, soft_dirty=soft_dirty)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        entry, access = self.entry, self.access
        m.d.comb += self.level.eq(one_hot_level(m, self.at))

        with m.If(self.noncanonical):
            m.d.comb += self.outcome.eq(x86.Outcome.GENERAL_PROTECTION)
        with m.Elif(self.broken):
            m.d.comb += self.outcome.eq(x86.Outcome.BUS_ERROR)
        with m.Elif(~entry.p | self.reserved | (self.leaf & self.denied)):
            m.d.comb += self.outcome.eq(x86.Outcome.PAGE_FAULT)

        # [SDM 3A 4.7] RSVD and PK say nothing of an entry that is not present, nor PK of one that is malformed.
        code = self.code
        m.d.comb += [
            code[x86.ErrorBit.P].eq(entry.p),
            code[x86.ErrorBit.WR].eq(access.store | access.probe),
            code[x86.ErrorBit.US].eq(access.user),
            code[x86.ErrorBit.RSVD].eq(entry.p & self.reserved),
            code[x86.ErrorBit.ID].eq(access.fetch & self.fetch_bit),
            code[x86.ErrorBit.PK].eq(entry.p & ~self.reserved & self.leaf & self.key_denied),
        ]

        physical = physical_address(self.request.linear, Value.cast(entry), self.at, self._physical_bits)
        pat = Mux(self.at[0], entry.pat, entry.pat_large)
        response, translation, new = self.response, self.translation, self.new
        m.d.comb += [
            response.outcome.eq(self.outcome),
            response.code.eq(Mux(self.outcome == x86.Outcome.PAGE_FAULT, code, 0)),
            response.physical.eq(physical),
            response.level.eq(self.level),
            response.pwt.eq(entry.pwt),
            response.pcd.eq(entry.pcd),
            response.pat.eq(pat),
            response.tag.eq(self.request.tag),
            translation.frame.eq(physical[x86.PAGE_SHIFT :]),
            translation.level.eq(self.level),
            # What had to be set was set before an OK: `new` is what stands in memory.
            translation.rw.eq(self.upper.rw & new.rw),
            translation.us.eq(self.upper.us & entry.us),
            translation.xd.eq(self.upper.xd | entry.xd),
            translation.pkey.eq(entry.pkey),
            translation.g.eq(entry.g),
            translation.d.eq(new.d),
            translation.pwt.eq(entry.pwt),
            translation.pcd.eq(entry.pcd),
            translation.pat.eq(pat),
            translation.address.eq(self.address),
        ]
        if self._soft_dirty:
            m.d.comb += translation.soft_dirty.eq(new.soft_dirty)
        return m
