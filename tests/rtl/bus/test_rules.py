"""AXI's rules: what is lawful breaks none, and each way to break one is seen, and only that."""

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bus.axi import AxiSignature
from ptewalk.rtl.bus.rules import MANAGER, SUBORDINATE, AxiRules, Rule, broken_rules

Cycle = dict[str, dict[str, int]]
"""Channel to its payload and, by "ready", whether it is taken (1 unless said otherwise)."""


def address(at: int = 0x40, beats: int = 1, **other: int) -> dict[str, int]:
    """A transfer of AW or AR."""
    fields = {"id": 1, "addr": at, "len": beats - 1, "size": 3, "burst": 1, "lock": 0, "cache": 0, "prot": 0, "qos": 0}
    return fields | other


def beat(last: int = 1, strb: int = 0xFF, **other: int) -> dict[str, int]:
    """A transfer of W."""
    return {"data": 5, "strb": strb, "last": last} | other


def data(last: int = 1, **other: int) -> dict[str, int]:
    """A transfer of R."""
    return {"id": 1, "data": 7, "resp": 0, "last": last} | other


def answer(**other: int) -> dict[str, int]:
    """A transfer of B."""
    return {"id": 1, "resp": 0} | other


def broken(cycles: list[Cycle], data_bits: int = 64, *, atomic: bool = False, **depth: int) -> list[list[str]]:
    """The rules that are broken in each cycle."""
    axi = AxiSignature(address_bits=16, data_bits=data_bits, id_bits=2, atomic=atomic).create()
    rules = AxiRules(axi, **depth)
    seen = []

    async def bench(ctx: Any) -> None:
        for cycle in cycles:
            for name in ("aw", "w", "b", "ar", "r"):
                channel, payload = getattr(axi, name), dict(cycle.get(name, {}))
                ctx.set(channel.ready, payload.pop("ready", 1))
                ctx.set(channel.valid, bool(payload))
                if payload:
                    ctx.set(channel.payload, payload)
            _, _, found = await ctx.tick().sample(rules.broken)
            seen.append(broken_rules(found))

    simulator = Simulator(rules)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


AW, AR, W, B, R = address(), address(), beat(), answer(), data()
CASES: dict[str, tuple[list[Cycle], list[str]]] = {
    "aw goes": ([{"aw": AW | {"ready": 0}}, {}], ["AW_STABLE"]),
    "aw changes": ([{"aw": AW | {"ready": 0}}, {"aw": address(0x48)}], ["AW_STABLE"]),
    "ar changes": ([{"ar": AR | {"ready": 0}}, {"ar": address(qos=1)}], ["AR_STABLE"]),
    "w changes": ([{"aw": AW}, {"w": W | {"ready": 0}}, {"w": beat(data=6)}], ["W_STABLE"]),
    "r changes": ([{"ar": AR}, {"r": R | {"ready": 0}}, {"r": data(data=8)}], ["R_STABLE"]),
    "b goes": ([{"aw": AW, "w": W}, {"b": B | {"ready": 0}}, {}], ["B_STABLE"]),
    "kind 3": ([{"aw": address(burst=3)}], ["AW_BURST"]),
    "beyond the page": ([{"ar": address(0xFF8, 2)}], ["AR_BURST"]),
    "a wide beat": ([{"ar": address(size=4)}], ["AR_BURST"]),
    "wrap of 3": ([{"aw": address(beats=3, burst=2)}], ["AW_BURST"]),
    "wrap not aligned": ([{"aw": address(0x44, 4, burst=2)}], ["AW_BURST"]),
    "fixed of 17": ([{"aw": address(beats=17, burst=0)}], ["AW_BURST"]),
    "exclusive of 3": ([{"ar": address(beats=3, lock=1)}], ["AR_EXCLUSIVE"]),
    "exclusive of 32": ([{"ar": address(0x100, 32, lock=1, size=2)}], ["AR_EXCLUSIVE"]),
    "exclusive not aligned": ([{"aw": address(0x48, 2, lock=1)}], ["AW_EXCLUSIVE"]),
    "write before its read is over": (
        [{"ar": address(0x40, 2, lock=1)}, {"r": data(0, resp=1)}, {"aw": address(0x40, 2, lock=1)}],
        ["EXCLUSIVE_ORDER"],
    ),
    "last too early": ([{"aw": address(beats=2)}, {"w": W}], ["W_LAST"]),
    "last is missing": ([{"aw": AW, "w": beat(0)}], ["W_LAST"]),
    "last too early, before aw": ([{"w": beat(0)}, {"w": W}, {"aw": address(beats=3)}], ["W_LAST"]),
    "a strobe beyond": ([{"aw": address(0x42, size=1)}, {"w": beat(strb=0x1C)}], ["W_STROBES"]),
    "a strobe before its first byte": ([{"aw": address(0x42)}, {"w": beat(strb=0xFE)}], ["W_STROBES"]),
    "b before w": ([{"aw": address(beats=2), "w": beat(0)}, {"b": B}], ["B_EARLY"]),
    "b before aw": ([{"w": W}, {"b": B}], ["B_EARLY"]),
    "b of another id": ([{"aw": AW, "w": W}, {"b": answer(id=2)}], ["B_EARLY"]),
    "b twice": ([{"aw": AW, "w": W}, {"b": B}, {"b": B}], ["B_EARLY"]),
    "r of nobody": ([{"ar": AR}, {"r": data(id=0)}], ["R_EARLY"]),
    "r too many": ([{"ar": AR}, {"r": R}, {"r": R}], ["R_EARLY"]),
    "r too few": ([{"ar": address(beats=2)}, {"r": R}], ["R_LAST"]),
    "r goes on": ([{"ar": AR}, {"r": data(0)}], ["R_LAST"]),
    "r exokay": ([{"ar": AR}, {"r": data(resp=1)}], ["R_EXOKAY"]),
    "b exokay": ([{"aw": AW, "w": W}, {"b": answer(resp=1)}], ["B_EXOKAY"]),
    "too many": ([{"ar": AR}, {"ar": AR}, {"ar": AR}], ["UNWATCHED"]),
}


CAS = address(0x40, 2, atop=0b110001)
FIRST, SECOND = beat(0), beat()
ATOMICS: dict[str, tuple[list[Cycle], list[str]]] = {
    "atop unknown": ([{"aw": address(atop=0b110010)}], ["AW_ATOMIC"]),
    "atomic and exclusive": ([{"aw": address(0x40, 2, atop=0b110001, lock=1)}], ["AW_ATOMIC"]),
    "compare beyond 32 bytes": ([{"aw": address(0x40, 8, atop=0b110001)}], ["AW_ATOMIC"]),
    "compare of three": ([{"aw": address(0x40, 3, atop=0b110001)}], ["AW_ATOMIC"]),
    "compare of half beats": ([{"aw": address(0x40, 4, size=2, atop=0b110001)}], ["AW_ATOMIC"]),
    "compare that wraps below": ([{"aw": address(0x40, 2, burst=2, atop=0b110001)}], ["AW_ATOMIC"]),
    "compare that does not above": ([{"aw": address(0x48, 2, atop=0b110001)}], ["AW_ATOMIC"]),
    "compare not aligned": ([{"aw": address(0x44, 2, atop=0b110001)}], ["AW_ATOMIC"]),
    "swap not aligned": ([{"aw": address(0x44, size=3, atop=0b110000)}], ["AW_ATOMIC"]),
    "a strobe too few": ([{"aw": CAS, "w": beat(0, 0x7F)}], ["W_ATOMIC"]),
    "id of a read": ([{"ar": AR}, {"aw": CAS}], ["ATOMIC_ID"]),
    "id of a write": ([{"aw": AW}, {"aw": CAS}], ["ATOMIC_ID"]),
    "id of an atomic": ([{"aw": CAS, "w": FIRST}, {"aw": CAS, "w": SECOND}], ["ATOMIC_ID"]),
    "a read with it": ([{"ar": AR | {"ready": 0}, "aw": CAS | {"ready": 0}}], ["ATOMIC_ID"]),
    "a write beside it": ([{"aw": CAS, "w": FIRST}, {"w": SECOND}, {"r": R}, {"aw": AW}], ["ATOMIC_ID"]),
    "a read beside it": ([{"aw": CAS, "w": FIRST}, {"w": SECOND}, {"b": B}, {"ar": AR}], ["ATOMIC_ID"]),
    "r twice": ([{"aw": CAS, "w": FIRST}, {"r": R}, {"r": R}], ["R_EARLY"]),
    "r of a store": ([{"aw": address(atop=0b010000), "w": W}, {"r": R}], ["R_EARLY"]),
    "r goes on of an atomic": ([{"aw": CAS, "w": FIRST}, {"r": data(0)}], ["R_LAST"]),
    "r exokay of an atomic": ([{"aw": CAS, "w": FIRST}, {"r": data(resp=1)}], ["R_EXOKAY"]),
    "b of an atomic before w": ([{"aw": CAS, "w": FIRST}, {"b": B}], ["B_EARLY"]),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ATOMICS)
def test_each_of_atomic_transactions_is_seen(name: str) -> None:
    """In the last cycle, and nothing before."""
    cycles, expected = ATOMICS[name]
    assert broken(cycles, atomic=True, reads=2, writes=2) == [[]] * (len(cycles) - 1) + [expected]


@pytest.mark.parametrize(("at", "kind"), [(0x40, 1), (0x48, 2)])
def test_lawful_atomic_transactions(at: int, kind: int) -> None:
    """Of 16 bytes on 64 and 128 bits, R before W and after B; another's ID is free."""
    cas = address(at, 2, burst=kind, atop=0b110001)
    cycles: list[Cycle] = [
        {"aw": cas},
        {"r": R, "ar": address(id=2)},
        {"w": FIRST, "r": data(id=2)},
        {"w": SECOND},
        {"b": B},
        {"aw": cas, "w": FIRST},
        {"w": SECOND},
        {"b": B},
        {"r": R},
        {"ar": AR, "aw": AW, "w": W},
    ]
    assert not any(broken(cycles, atomic=True, reads=2, writes=2))
    wide: list[Cycle] = [
        {"aw": address(at, size=4, burst=kind, atop=0b110001), "w": beat(strb=0xFFFF)},
        {"r": R, "b": B},
    ]
    assert not any(broken(wide, 128, atomic=True, reads=2, writes=2))
    narrow: list[Cycle] = [{"aw": address(at, size=4, burst=kind, atop=0b110001), "w": beat(strb=0xFF00)}]
    assert broken(narrow, 128, atomic=True, reads=2, writes=2) == [["W_ATOMIC"]]


@pytest.mark.thorough
@pytest.mark.parametrize("name", CASES)
def test_each_is_seen(name: str) -> None:
    """In the last cycle, and nothing before."""
    cycles, expected = CASES[name]
    seen = broken(cycles, reads=2, writes=2)
    assert seen == [[]] * (len(cycles) - 1) + [expected]


def test_every_rule_has_a_case() -> None:
    cases = (*CASES.values(), *ATOMICS.values())
    assert {rule for _, expected in cases for rule in expected} == {rule.name for rule in Rule}
    watched = ((1 << len(Rule)) - 1) ^ 1 << Rule.UNWATCHED
    assert MANAGER & SUBORDINATE == 0 and watched == MANAGER | SUBORDINATE


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("aw", "strobes"),
    [
        (address(0x43, 3, size=1), [0x08, 0x30, 0xC0]),  # what comes first is not aligned
        (address(0x46, 4, size=1, burst=2), [0xC0, 0x03, 0x0C, 0x30]),  # round the container
        (address(0x44, 3, size=2, burst=0), [0xF0, 0xF0, 0xF0]),
        (address(0x41, 2), [0xFE, 0xFF]),
        (address(0x7, 2, size=0), [0x80, 0x01]),
    ],
)
def test_lanes(aw: dict[str, int], strobes: list[int]) -> None:
    """Every strobe of a beat is lawful, and each other one is not [IHI 0022, A3.4.3]."""
    cycles: list[Cycle] = []
    expected: list[list[str]] = []
    for lane in range(8):
        cycles.append({"aw": aw})
        expected.append([])
        for place, lanes in enumerate(strobes):
            cycles.append({"w": beat(int(place == len(strobes) - 1), 1 << lane)})
            expected.append([] if lanes >> lane & 1 else ["W_STROBES"])
        cycles.append({"b": answer()})
        expected.append([])
    assert broken(cycles, reads=2, writes=2) == expected


@pytest.mark.thorough
@pytest.mark.parametrize("seed", range(2))
def test_lawful_traffic_breaks_none(seed: int) -> None:
    """Random bursts of four IDs; W before and after its AW, answers in any order of the IDs, all channels stalling."""
    rng = random.Random(seed)
    cycles: list[Cycle] = []
    reads: list[dict[str, int]] = []
    written: list[dict[str, int]] = []
    beats: list[dict[str, int]] = []
    offers: dict[str, dict[str, int]] = {}
    bursts: list[dict[str, int]] = []  # whose AW is not taken
    unwritten: list[tuple[dict[str, int], int]] = []  # whose W is not over, and beats left
    taken = {name: 0 for name in ("aw", "w", "b", "ar", "r")}
    for _ in range(300):
        if len(bursts) + len(unwritten) < 3 and len(written) < 6 and rng.random() < 0.3:
            made = address(8 * rng.randrange(400), rng.choice((1, 2, 5)), id=rng.randrange(4), lock=0)
            made["addr"] &= -8
            bursts.append(made)
            unwritten.append((made, made["len"] + 1))
            beats += [beat(int(number == made["len"])) for number in range(made["len"] + 1)]
        if "aw" not in offers and bursts and rng.random() < 0.4:
            offers["aw"] = bursts[0]
        if "w" not in offers and beats and rng.random() < 0.6:
            offers["w"] = beats[0]
        if "ar" not in offers and len(reads) < 6 and rng.random() < 0.4:
            made = address(8 * rng.randrange(256), rng.choice((1, 2, 4)), id=rng.randrange(4), lock=rng.randrange(2))
            made["addr"] &= -32
            offers["ar"] = made
        if "r" not in offers and reads and rng.random() < 0.7:
            whose = rng.choice(reads)["id"]
            oldest = next(one for one in reads if one["id"] == whose)
            offers["r"] = data(int(oldest["left"] == 0), id=whose, resp=rng.choice((0, oldest["lock"], 2)))
        done = [one for one in written if one["ended"] and one["there"]]
        if "b" not in offers and done and rng.random() < 0.7:
            offers["b"] = answer(id=rng.choice(done)["id"], resp=rng.choice((0, 2)))
        if "b" in offers and not any(one["id"] == offers["b"]["id"] for one in done):
            del offers["b"]
        cycle = {name: payload | {"ready": int(rng.random() < 0.6)} for name, payload in offers.items()}
        cycles.append(cycle)
        for name, payload in list(offers.items()):
            if not cycle[name]["ready"]:
                continue
            taken[name] += 1
            del offers[name]
            if name == "aw":
                made = bursts.pop(0)
                mine = next((one for one in written if one["serial"] == id(made)), None)
                if mine is None:
                    written.append({"id": made["id"], "serial": id(made), "ended": 0, "there": 1})
                else:
                    mine["there"] = 1
            elif name == "w":
                beats.pop(0)
                made, left = unwritten[0]
                unwritten[0] = (made, left - 1)
                if left == 1:
                    unwritten.pop(0)
                    mine = next((one for one in written if one["serial"] == id(made)), None)
                    if mine is None:
                        written.append({"id": made["id"], "serial": id(made), "ended": 1, "there": 0})
                    else:
                        mine["ended"] = 1
            elif name == "ar":
                reads.append({"id": payload["id"], "left": payload["len"], "lock": payload["lock"]})
            elif name == "r":
                one = next(one for one in reads if one["id"] == payload["id"])
                one["left"] -= 1
                if payload["last"]:
                    reads.remove(one)
            else:
                written.remove(next(one for one in written if one["id"] == payload["id"]))
    assert not any(broken(cycles, reads=6, writes=7))
    assert min(taken.values()) > 20, taken
