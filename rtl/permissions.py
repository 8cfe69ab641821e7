"""Access rights of a leaf: one combinational net, shared by everything that judges a translation."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import linux, x86
from ptewalk.rtl.layouts import ControlLayout

__all__ = ["AccessRights"]


class AccessRights(Component):
    """May this access use this leaf? Combinational.

    The rights of the upper entries arrive combined, so that a cached translation is judged by the same net. The verdict
    depends on control state that can change between two accesses; callers keep rights, never verdicts.

    Parameters
    ----------
    soft_dirty : bool
        False: there is no `track` and no `armed`, and nothing is ever mended.

    Members
    -------
    access : In(3), user, implicit, ac : In(1)
        The request, see `RequestLayout`.
    control : In(ControlLayout), pkru, pkrs : In(32)
        Control state.
    upper_rw, leaf_rw : In(1)
        RW of the upper entries (AND), and of the leaf.
    us, xd : In(1)
        U/S of all entries (AND: 1 is a user-mode address), XD of all (OR).
    pkey : In(4)
        Protection key of the leaf.
    track : In(2), armed : In(1)
        `linux.Track`; the leaf's ARM bit.
    denied : Out(1)
        The access is a page fault with P=1.
    key_denied : Out(1)
        A protection key denies (PK of the error code), whatever else does.
    mend : Out(1)
        The access is allowed once the leaf is mended: RW set, ARM cleared. Never together with `denied`.
    """

    def __init__(self, *, soft_dirty: bool = True) -> None:
        self._soft_dirty = soft_dirty
        members = {
            "access": In(x86.Access),
            "user": In(1),
            "implicit": In(1),
            "ac": In(1),
            "control": In(ControlLayout()),
            "pkru": In(32),
            "pkrs": In(32),
            "upper_rw": In(1),
            "leaf_rw": In(1),
            "us": In(1),
            "xd": In(1),
            "pkey": In(unsigned(x86.PKEY_BITS)),
            "denied": Out(1),
            "key_denied": Out(1),
            "mend": Out(1),
        }
        if soft_dirty:
            members |= {"track": In(linux.Track), "armed": In(1)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()

        fetch = self.access == x86.Access.FETCH
        write = (
            (self.access == x86.Access.WRITE) | (self.access == x86.Access.RMW) | (self.access == x86.Access.PROBE)
        )
        supervisor = ~self.user | self.implicit

        # [SDM 3A 4.6.1] A supervisor write needs RW only with CR0.WP.
        needs_rw = write & (~supervisor | self.control.wp)
        mendable = 0
        if self._soft_dirty:
            mendable = (self.track == linux.Track.FAULT) & self.armed
        rw_denied = needs_rw & ~(self.upper_rw & (self.leaf_rw | mendable))

        # [SDM 3A 4.6.1] User-mode accesses need a user-mode address; SMEP and SMAP keep the supervisor off one.
        us_denied = Mux(
            supervisor,
            self.us & Mux(fetch, self.control.smep, self.control.smap & (self.implicit | ~self.ac)),
            ~self.us,
        )
        xd_denied = fetch & self.xd

        # [SDM 3A 4.6.2] Keys judge data accesses: PKRU those to user-mode addresses, PKRS the supervisor's to its own.
        by_pkru = Signal()
        by_pkrs = Signal()
        pairs = Signal(32)
        rights = Signal(2)
        m.d.comb += [
            by_pkru.eq(self.us & self.control.pke),
            by_pkrs.eq(~self.us & supervisor & self.control.pks),
            pairs.eq(Mux(self.us, self.pkru, self.pkrs)),
            rights.eq(pairs.word_select(self.pkey, 2)),
            self.key_denied.eq(~fetch & (by_pkru | by_pkrs) & (rights[0] | (rights[1] & needs_rw))),
        ]

        m.d.comb += self.denied.eq(Cat(rw_denied, us_denied, xd_denied, self.key_denied).any())
        if self._soft_dirty:
            m.d.comb += self.mend.eq(needs_rw & ~self.leaf_rw & ~self.denied)
        return m
