"""The access-rights net against [SDM 3A 4.6.1 and 4.6.2]: typed cases, and the rules as a naive function."""

import random
from itertools import product
from typing import Any

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib.wiring import Component, In
from amaranth.sim import Simulator

from ptewalk.rtl.entry import EntryLayout, mendable
from ptewalk.rtl.layouts import ControlLayout, RequestLayout
from ptewalk.rtl.permissions import AccessClassLayout, AccessRights, classify, key_rights

from .walker_bench import FAULT, FETCH, NATIVE, OFF, PKE, PKS, PROBE, READ, RMW, SMAP, SMEP, WP, WRITE

INPUTS = ("upper_rw", "leaf_rw", "us", "xd", "user_key", "supervisor_key", "mendable")


class Net(Component):
    """`classify` and the net behind it."""

    request: In(RequestLayout(1))
    control: In(ControlLayout())

    def __init__(self) -> None:
        super().__init__()
        self.rights = AccessRights()
        self.access = Signal(AccessClassLayout())

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rights = self.rights
        for name, value in classify(self.request, self.control).items():
            m.d.comb += self.access[name].eq(value)
        m.d.comb += self.rights.access.eq(self.access)
        return m


def judge(cases: list[dict[str, int]]) -> list[tuple[int, int, int]]:
    """(denied, key_denied, mend) of each case."""
    net = Net()
    seen = []

    async def bench(ctx: Any) -> None:
        for case in cases:
            ctx.set(net.request, {name: case[name] for name in ("access", "user", "implicit", "ac")})
            ctx.set(net.control.as_value(), case["control"])
            for name in INPUTS:
                ctx.set(getattr(net.rights, name), case[name])
            await ctx.delay(1e-9)
            seen.append(tuple(ctx.get(getattr(net.rights, name)) for name in ("denied", "key_denied", "mend")))

    simulator = Simulator(net)
    simulator.add_testbench(bench)
    simulator.run()
    assert len(seen) == len(cases)
    return seen


def case(access: int = READ, control: int = 0, **values: int) -> dict[str, int]:
    """A user access to a user-mode address with all rights, but for what is said."""
    plain = {"user": 1, "implicit": 0, "ac": 0, "upper_rw": 1, "leaf_rw": 1, "us": 1, "xd": 0}
    plain |= {"user_key": 0, "supervisor_key": 0, "mendable": 0}
    assert values.keys() <= plain.keys()
    return plain | {"access": access, "control": control} | values


def manual(values: dict[str, int]) -> tuple[bool, bool, bool]:
    """(denied, key_denied, mend) as the manual has it, with ARM as the TRACK table has it."""
    access, control = values["access"], values["control"]
    writes = access in (WRITE, RMW, PROBE)
    fetches = access == FETCH
    # An implicit access to a system data structure is a supervisor-mode access at any CPL [4.6].
    user = bool(values["user"]) and not values["implicit"]
    user_address = bool(values["us"])

    key_denied = False
    if not fetches:
        # PKRU judges user-mode addresses with CR4.PKE, IA32_PKRS supervisor-mode ones with CR4.PKS [4.6.2].
        rights = None
        if user_address and control & PKE:
            rights = values["user_key"]
        if not user_address and control & PKS and not user:
            rights = values["supervisor_key"]
        if rights is not None:
            key_denied = bool(rights & 1)
            if writes and rights & 2 and (user or control & WP):
                key_denied = True

    allowed = not key_denied
    if user:
        allowed &= user_address
    elif fetches:
        allowed &= not (user_address and control & SMEP)
    elif user_address and control & SMAP:
        # With SMAP a user-mode address needs EFLAGS.AC and an explicit access.
        allowed &= bool(values["ac"]) and not values["implicit"]
    if fetches:
        allowed &= not values["xd"]
    needs_rw = writes and (user or bool(control & WP))
    if needs_rw and not values["upper_rw"]:
        allowed = False
    mend = False
    if needs_rw and not values["leaf_rw"]:
        mend = allowed and bool(values["mendable"])
        allowed &= bool(values["mendable"])
    return not allowed, key_denied, mend


def test_every_access_class() -> None:
    """Every access, control state and right, without keys."""
    controls = [wp | smep | smap for wp, smep, smap in product((0, WP), (0, SMEP), (0, SMAP))]
    cases = [
        case(access, control, user=user, implicit=implicit, ac=ac, us=us, xd=xd, leaf_rw=rw, mendable=arm)
        for access, control, user, implicit, ac, us, xd, rw, arm in product(range(5), controls, *[(0, 1)] * 7)
    ]
    assert judge(cases) == [manual(values) for values in cases]


def test_every_key() -> None:
    """Every access and key state."""
    controls = [wp | pke | pks for wp, pke, pks in product((0, WP), (0, PKE), (0, PKS))]
    cases = [
        case(access, control, user=user, implicit=implicit, us=us, user_key=key, supervisor_key=other)
        for access, control, user, implicit, us, key, other in product(
            range(5), controls, (0, 1), (0, 1), (0, 1), range(4), range(4)
        )
    ]
    assert judge(cases) == [manual(values) for values in cases]


def test_all_at_once() -> None:
    rng = random.Random(1)
    cases = []
    for _ in range(3000):
        values = case(rng.randrange(5), rng.getrandbits(8))
        for name in values.keys() - {"access", "control"}:
            values[name] = rng.getrandbits(2 if name.endswith("key") else 1)
        cases.append(values)
    seen = judge(cases)
    assert seen == [manual(values) for values in cases]
    assert not [one for one in seen if one[0] and one[2]], "denied and mended"


TYPED = [
    # what, case, (denied, key_denied, mend)
    ("user reads", case(READ), (0, 0, 0)),
    ("user reads a supervisor-mode address", case(READ, us=0), (1, 0, 0)),
    ("user writes read-only", case(WRITE, leaf_rw=0), (1, 0, 0)),
    ("user probes read-only", case(PROBE, leaf_rw=0), (1, 0, 0)),
    ("rmw is a write", case(RMW, leaf_rw=0), (1, 0, 0)),
    ("user reads read-only", case(READ, leaf_rw=0, upper_rw=0), (0, 0, 0)),
    ("supervisor writes read-only, WP=0", case(WRITE, user=0, us=0, leaf_rw=0, upper_rw=0), (0, 0, 0)),
    ("supervisor writes read-only, WP=1", case(WRITE, WP, user=0, us=0, leaf_rw=0), (1, 0, 0)),
    ("armed", case(WRITE, leaf_rw=0, mendable=1), (0, 0, 1)),
    ("armed, a read", case(READ, leaf_rw=0, mendable=1), (0, 0, 0)),
    ("armed, upper read-only", case(WRITE, upper_rw=0, leaf_rw=0, mendable=1), (1, 0, 0)),
    ("armed, WP=0", case(WRITE, user=0, leaf_rw=0, mendable=1), (0, 0, 0)),
    ("fetch from XD", case(FETCH, xd=1), (1, 0, 0)),
    ("read from XD", case(READ, xd=1), (0, 0, 0)),
    ("SMEP", case(FETCH, SMEP, user=0), (1, 0, 0)),
    ("SMEP and a user", case(FETCH, SMEP), (0, 0, 0)),
    ("SMEP and a supervisor-mode address", case(FETCH, SMEP, user=0, us=0), (0, 0, 0)),
    ("SMAP", case(READ, SMAP, user=0), (1, 0, 0)),
    ("SMAP with AC", case(READ, SMAP, user=0, ac=1), (0, 0, 0)),
    ("SMAP with AC, implicit", case(READ, SMAP, user=0, ac=1, implicit=1), (1, 0, 0)),
    ("SMAP with AC, implicit at CPL 3", case(READ, SMAP, user=1, ac=1, implicit=1), (1, 0, 0)),
    ("SMAP and a fetch", case(FETCH, SMAP, user=0), (0, 0, 0)),
    ("implicit at CPL 3", case(READ, us=0, implicit=1), (0, 0, 0)),
    ("AD denies a read", case(READ, PKE, user_key=1), (1, 1, 0)),
    ("WD denies a write", case(WRITE, PKE, user_key=2), (1, 1, 0)),
    ("WD and a read", case(READ, PKE, user_key=2), (0, 0, 0)),
    ("keys and a fetch", case(FETCH, PKE | PKS, user_key=3, supervisor_key=3), (0, 0, 0)),
    ("PKRU binds the supervisor at a user-mode address", case(READ, PKE, user=0, user_key=1), (1, 1, 0)),
    ("WD and the supervisor, WP=0", case(WRITE, PKE, user=0, user_key=2), (0, 0, 0)),
    ("WD and the supervisor, WP=1", case(WRITE, PKE | WP, user=0, user_key=2), (1, 1, 0)),
    ("PKRS at a supervisor-mode address", case(READ, PKS, user=0, us=0, supervisor_key=1), (1, 1, 0)),
    ("PKRS at a user-mode address", case(READ, PKS, user=0, supervisor_key=3), (0, 0, 0)),
    ("PKRU at a supervisor-mode address", case(READ, PKE, user=0, us=0, user_key=3), (0, 0, 0)),
    ("PKRS and a user: no PK", case(READ, PKS, us=0, supervisor_key=3), (1, 0, 0)),
    ("PK beside another violation", case(WRITE, PKE, user_key=2, leaf_rw=0), (1, 1, 0)),
    ("key and ARM", case(WRITE, PKE, user_key=2, leaf_rw=0, mendable=1), (1, 1, 0)),
    ("keys without CR4", case(WRITE, user_key=3, supervisor_key=3), (0, 0, 0)),
]


@pytest.mark.parametrize(("values", "verdict"), [pytest.param(*row[1:], id=row[0]) for row in TYPED])
def test_typed(values: dict[str, int], verdict: tuple[int, int, int]) -> None:
    """The cases that other engines got wrong, and the plain ones, with the verdict typed by hand."""
    assert judge([values]) == [verdict]


@pytest.mark.parametrize("key", [0, 1, 7, 15])
def test_key_rights(key: int) -> None:
    """[SDM 3A 4.6.2] Of key i, bit 2i is access disable and bit 2i + 1 write disable; the key is bits 62:59."""
    for rights in range(4):
        assert evaluate(lambda leaf, register: key_rights(register, leaf), key << 59, rights << 2 * key) == rights
        assert evaluate(lambda leaf, register: key_rights(register, leaf), key << 59, ~(3 << 2 * key) & 2**32 - 1) == 0


@pytest.mark.parametrize(("track", "armed", "expected"), [(OFF, 1, 0), (NATIVE, 1, 0), (FAULT, 1, 1), (FAULT, 0, 0)])
def test_mendable(track: int, armed: int, expected: int) -> None:
    """ARM (bit 52) counts in fault mode alone."""
    assert evaluate(lambda leaf, register: mendable(register[:2], leaf), armed << 52, track) == expected


def evaluate(expression: Any, leaf: int, register: int) -> int:
    """The value of `expression(leaf, register)`."""
    m = Module()
    entry, number, result = Signal(EntryLayout()), Signal(32), Signal(32)
    m.d.comb += result.eq(expression(entry, number))
    seen = []

    async def bench(ctx: Any) -> None:
        ctx.set(entry.as_value(), leaf)
        ctx.set(number, register)
        await ctx.delay(1e-9)
        seen.append(ctx.get(result))

    simulator = Simulator(m)
    simulator.add_testbench(bench)
    simulator.run()
    return seen[0]


def test_without_soft_dirty_there_is_nothing_to_mend() -> None:
    rights = AccessRights(soft_dirty=False)
    assert not {"mendable", "mend"} & set(rights.signature.members)
    seen = []

    async def bench(ctx: Any) -> None:
        ctx.set(rights.access, {"store": 1, "needs_rw": 1, "user": 1})
        ctx.set(rights.upper_rw, 1)
        ctx.set(rights.us, 1)
        await ctx.delay(1e-9)
        seen.append(ctx.get(rights.denied))

    simulator = Simulator(rights)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [1]
