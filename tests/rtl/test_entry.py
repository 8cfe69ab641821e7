"""What an entry is and what must be set in it, against rules typed from the manual and docs/walker.md."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from ptewalk.rtl.entry import EntryCheck, EntryUpdate

from .walker_bench import ARM, FAULT, NATIVE, OFF, PAT_LARGE, PS, RW, SAVED, SD, US, XD, A, D, P


def evaluate(part: Any, cases: Sequence[dict[str, int]], outputs: Sequence[str]) -> list[tuple[int, ...]]:
    """The outputs of a combinational part for each case of its inputs."""
    found: list[tuple[int, ...]] = []

    async def bench(ctx: Any) -> None:
        for case in cases:
            for name, value in case.items():
                ctx.set(Value.cast(getattr(part, name)), value)
            await ctx.delay(1e-9)
            found.append(tuple(ctx.get(Value.cast(getattr(part, name))) for name in outputs))

    simulator = Simulator(part)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def check(entry: int, level: int, *, nxe: int = 0, **parameters: Any) -> tuple[int, ...]:
    config = {"levels": 5, "physical_bits": 40, "gigabyte_pages": True} | parameters
    return evaluate(EntryCheck(**config), [{"entry": entry, "at": 1 << level - 1, "nxe": nxe}], ("leaf", "reserved"))[0]


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("gigabyte_pages", [True, False])
def test_leaves(level: int, gigabyte_pages: bool) -> None:
    """[SDM 3A 4.5] A PTE is one always, a PDE with PS, a PDPTE with PS where there are 1 GiB pages."""
    assert check(P, level, gigabyte_pages=gigabyte_pages) == (level == 1, 0)
    large = level == 2 or (level == 3 and gigabyte_pages)
    assert check(P | PS, level, gigabyte_pages=gigabyte_pages) == (level == 1 or large, level > 1 and not large)


@pytest.mark.parametrize("levels", [4, 5])
@pytest.mark.parametrize("physical_bits", [32, 40, 51, 52])
def test_reserved_bits_by_a_table(levels: int, physical_bits: int) -> None:
    """[SDM 3A tables 4-14 to 4-20] Each bit alone, at each level, in plain entries and in large leaves."""
    cases, expected = [], []
    for level in range(1, levels + 1):
        for large in (False, True) if level in (2, 3) else (False,):
            low = range(13, {2: 21, 3: 30}[level]) if large else range(0)
            for bit in range(64):
                if bit == 7 and level > 1:
                    continue
                cases.append({"entry": 1 << bit | large * PS, "at": 1 << level - 1, "nxe": 0})
                expected.append((level == 1 or large, physical_bits <= bit <= 51 or bit == 63 or bit in low))
    part = EntryCheck(levels=levels, physical_bits=physical_bits, gigabyte_pages=True)
    assert evaluate(part, cases, ("leaf", "reserved")) == expected


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_xd_is_reserved_without_nxe_only(level: int) -> None:
    assert check(P | XD, level, nxe=1)[1] == 0
    assert check(P | XD, level, nxe=0)[1] == 1


def test_pat_of_a_large_leaf_is_not_reserved() -> None:
    assert check(P | PS | PAT_LARGE, 2) == check(P | PS | PAT_LARGE, 3) == (1, 0)


def rules(entry: int, leaf: int, store: int, track: int, mend: int, saved_dirty: int) -> int:
    """The table of docs/walker.md."""
    entry |= A
    if leaf and store:
        entry |= D
        if track in (FAULT, NATIVE):
            entry |= SD
        if mend:
            entry = (entry | RW) & ~ARM
            if saved_dirty:
                entry &= ~SAVED
    return entry


def update_cases(track_values: Sequence[int]) -> list[dict[str, int]]:
    rng = random.Random(1)
    cases = []
    for _ in range(4000):
        entry = rng.getrandbits(64)
        for bits in (A | D, SD, ARM):
            entry = entry | bits if rng.random() < 0.5 else entry
        track = rng.choice(track_values)
        # A mend is a store to an armed leaf that RW forbids, in fault mode.
        leaf, store = int(rng.random() < 0.8), int(rng.random() < 0.8)
        mend = int(bool(leaf and store and track == FAULT and entry & ARM and not entry & RW))
        cases.append({"entry": entry, "leaf": leaf, "store": store, "track": track, "mend": mend})
        cases[-1]["saved_dirty"] = rng.getrandbits(1)
    return cases


def test_update_by_the_rules() -> None:
    """`new` is what the table says, and is to be written if and only if it is another value."""
    cases = update_cases((OFF, FAULT, NATIVE))
    expected = [rules(**case) for case in cases]
    found = evaluate(EntryUpdate(), cases, ("new", "missing"))
    assert found == [(new, new != case["entry"]) for new, case in zip(expected, cases, strict=True)]
    assert sum(case["mend"] for case in cases) > 100
    assert 100 < sum(missing for _, missing in found) < len(cases) - 100


def test_update_without_soft_dirty() -> None:
    cases = [{name: case[name] for name in ("entry", "leaf", "store")} for case in update_cases((OFF,))]
    found = evaluate(EntryUpdate(soft_dirty=False), cases, ("new", "missing"))
    for case, (new, missing) in zip(cases, found, strict=True):
        assert new == rules(**case, track=OFF, mend=0, saved_dirty=0)
        assert missing == (new != case["entry"])


def test_a_user_page_of_every_right_needs_nothing() -> None:
    entry = P | RW | US | A | D | SD
    case = {"entry": entry, "leaf": 1, "store": 1, "track": NATIVE, "mend": 0, "saved_dirty": 1}
    assert evaluate(EntryUpdate(), [case], ("new", "missing")) == [(entry, 0)]
