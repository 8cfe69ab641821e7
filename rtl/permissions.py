"""Access rights: what an access is, and whether a leaf allows it. Combinational, shared by everything that judges."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data
from amaranth.lib.wiring import Component, In, Out

from ptewalk.model import x86

__all__ = ["AccessClassLayout", "AccessRights", "classify", "key_rights"]


class AccessClassLayout(data.StructLayout):
    """What the rights net needs to know of an access under the control state: worked out once, as it is accepted.

    Members
    -------
    fetch, probe : 1
        The access is an instruction fetch; a probe.
    store : 1
        It will write (a probe only asks).
    needs_rw : 1
        RW=0 would deny it.
    user : 1
        A user-mode access.
    off_user : 1
        SMEP or SMAP keeps it off user-mode addresses.
    key_user, key_supervisor : 1
        Protection keys judge it at a user-mode address (PKRU); at a supervisor-mode address (PKRS).
    """

    def __init__(self) -> None:
        names = ("fetch", "probe", "store", "needs_rw", "user", "off_user", "key_user", "key_supervisor")
        super().__init__(dict.fromkeys(names, 1))


def classify(request: data.View, control: data.View) -> dict[str, Value]:
    """`AccessClassLayout`'s fields for a `RequestLayout` view under a `ControlLayout` view, as expressions."""
    fetch = request.access == x86.Access.FETCH
    probe = request.access == x86.Access.PROBE
    store = (request.access == x86.Access.WRITE) | (request.access == x86.Access.RMW)
    supervisor = ~request.user | request.implicit
    return {
        "fetch": fetch,
        "probe": probe,
        "store": store,
        # [SDM 3A 4.6.1] A supervisor write needs RW only with CR0.WP.
        "needs_rw": (store | probe) & (~supervisor | control.wp),
        "user": ~supervisor,
        # [SDM 3A 4.6.1] SMEP judges fetches; SMAP judges data accesses, and AC lifts it only for explicit ones.
        "off_user": supervisor & Mux(fetch, control.smep, control.smap & (request.implicit | ~request.ac)),
        # [SDM 3A 4.6.2] Keys judge data accesses only; PKRS only the supervisor's.
        "key_user": ~fetch & control.pke,
        "key_supervisor": ~fetch & control.pks & supervisor,
    }


class AccessRights(Component):
    """May this access use this leaf? Combinational.

    The rights of the upper entries arrive combined, so that a cached translation is judged by the same net. The verdict
    depends on control state that can change between two accesses; callers keep rights, never verdicts.

    Parameters
    ----------
    soft_dirty : bool
        False: there is no `mendable` and no `mend`.

    Members
    -------
    access : In(AccessClassLayout)
        The access, see `classify`.
    upper_rw, leaf_rw : In(1)
        RW of the upper entries (AND), and of the leaf.
    us, xd : In(1)
        U/S of all entries (AND: 1 is a user-mode address), XD of all (OR).
    user_key, supervisor_key : In(2)
        What PKRU and PKRS say of the leaf's key: access disabled, write disabled (see `key_rights`).
    mendable : In(1)
        The leaf is armed, and a write may mend it.
    denied : Out(1)
        The access is a page fault with P=1.
    key_denied : Out(1)
        A protection key denies (PK of the error code), whatever else does.
    mend : Out(1)
        The access is allowed once the leaf is mended. Never together with `denied`.
    """

    def __init__(self, *, soft_dirty: bool = True) -> None:
        self._soft_dirty = soft_dirty
        members = {
            "access": In(AccessClassLayout()),
            "upper_rw": In(1),
            "leaf_rw": In(1),
            "us": In(1),
            "xd": In(1),
            "user_key": In(2),
            "supervisor_key": In(2),
            "denied": Out(1),
            "key_denied": Out(1),
        }
        if soft_dirty:
            members |= {"mendable": In(1), "mend": Out(1)}
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        access = self.access
        mendable = self.mendable if self._soft_dirty else Const(0)

        rw_denied = access.needs_rw & ~(self.upper_rw & (self.leaf_rw | mendable))
        us_denied = Mux(self.us, access.off_user, access.user)
        xd_denied = access.fetch & self.xd

        disabled = Signal(2)
        by_user = self.user_key & access.key_user.replicate(2)
        by_supervisor = self.supervisor_key & access.key_supervisor.replicate(2)
        m.d.comb += [
            disabled.eq(Mux(self.us, by_user, by_supervisor)),
            self.key_denied.eq(disabled[0] | (disabled[1] & access.needs_rw)),
            self.denied.eq(Cat(rw_denied, us_denied, xd_denied, self.key_denied).any()),
        ]
        if self._soft_dirty:
            m.d.comb += self.mend.eq(access.needs_rw & ~self.leaf_rw & ~self.denied)
        return m


def key_rights(register: Value, leaf: data.View) -> Value:
    """The two bits of PKRU or PKRS for `leaf`'s protection key: bit 0 access disabled, bit 1 write disabled."""
    return register.word_select(leaf.pkey, 2)
