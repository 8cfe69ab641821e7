"""The self-test of what lies below a port: what serves passes, and each way not to serve is told by its own bit."""

from __future__ import annotations

from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bus.self_test import CHECKS, LINE_CHECKS, SelfTest

from .defective_memory import DefectiveMemory

SCRATCH = 0x1_2000
IDS = (5, 0, 1, 2)
"""The walker's, and those of an engine of two lines."""
DEFECTS: dict[str, set[str]] = {
    "none": set(),
    "no monitor": {"pair", "spent", "write", "one_byte", "two"},
    "lock believed": {"spent", "write", "one_byte", "other"},
    "never spent": {"spent"},
    "own writes only": {"write", "one_byte"},
    "start compared": {"one_byte"},
    "exclusive writes end nothing": {"other"},
    "one place": {"two"},
    "two places": set(),
    "no lines": set(),
    "first word of a line": set(),
}
"""What is wrong with a memory, to the checks that must fail: no others may."""
LINE_DEFECTS: dict[str, set[str]] = {
    "no monitor": {"line", "line_write"},
    "lock believed": {"line_write", "line_other"},
    "own writes only": {"line_write"},
    "exclusive writes end nothing": {"line_other"},
    "no lines": {"line", "line_write"},
    "first word of a line": {"line_write", "line_other"},
    "start compared": {"line_write", "line_other"},
}
HELD = {"no monitor": 0, "one place": 1, "two places": 2, "no lines": 1}
"""IDs that hold at once, where not all do; of lines none does where there are none."""


def tried(
    defect: str, data_bits: int = 64, *, bad: bool = False, ids: tuple[int, ...] = (0,), line_bytes: int = 8
) -> tuple[dict[str, int], DefectiveMemory]:
    """The result on a memory, twice the same."""
    test = SelfTest(physical_bits=40, data_bits=data_bits, id_bits=3, prot=1, ids=ids, line_bytes=line_bytes)
    memory = DefectiveMemory(test.m_axi, data_bits, defect, bad=bad)
    found: list[dict[str, int]] = []

    async def bench(ctx: Any) -> None:
        for _ in range(2):
            ctx.set(test.address, SCRATCH)
            ctx.set(test.start, 1)
            await ctx.tick().until(test.done)
            ctx.set(test.start, 0)
            await ctx.tick()
            found.append({str(name): int(ctx.get(test.result[str(name)])) for name, _ in test.result.shape()})
            memory.reserved.clear()

    simulator = Simulator(test)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.run, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert found[0] == found[1]
    return found[0], memory


@pytest.mark.parametrize("defect", DEFECTS)
def test_each_defect_has_its_checks(defect: str) -> None:
    result, memory = tried(defect)
    assert (result.pop("ran"), result.pop("error")) == (1, 0)
    assert {name for name in CHECKS if not result[name]} == DEFECTS[defect]
    assert result["ids"] == (defect != "no monitor") and not any(result[name] for name in LINE_CHECKS)
    assert memory.accesses == 52 and set(memory.words) == {SCRATCH, SCRATCH + 8}


@pytest.mark.parametrize("data_bits", [64, 128, 512])
@pytest.mark.parametrize("defect", DEFECTS)
def test_lines_and_how_many_hold_at_once(defect: str, data_bits: int) -> None:
    """Of words and lines, by the IDs of an engine: what fails, and so many hold."""
    result, memory = tried(defect, data_bits, ids=IDS, line_bytes=64)
    assert {name for name in CHECKS if not result[name]} == DEFECTS[defect]
    assert {name for name in LINE_CHECKS if not result[name]} == LINE_DEFECTS.get(defect, set())
    assert result["ids"] == HELD.get(defect, len(IDS))
    assert min(memory.words) >= SCRATCH and max(memory.words) < SCRATCH + 256


@pytest.mark.parametrize("places", ["none", "two places"])
def test_walkers(places: str) -> None:
    """Of words alone, in neighbouring words."""
    result, _ = tried(places, ids=tuple(range(8)))
    assert result["ids"] == (2 if places == "two places" else 8)


@pytest.mark.parametrize("data_bits", [128, 512])
def test_on_a_wider_bus(data_bits: int) -> None:
    result, _ = tried("none", data_bits)
    assert result == {"ran": 1, **dict.fromkeys(CHECKS, 1), "error": 0, **dict.fromkeys(LINE_CHECKS, 0), "ids": 1}


@pytest.mark.parametrize("line_bytes", [8, 64])
def test_a_bus_error_ends_it(line_bytes: int) -> None:
    result, memory = tried("none", bad=True, line_bytes=line_bytes, ids=IDS)
    assert result == {"ran": 1, **dict.fromkeys(CHECKS, 0), "error": 1, **dict.fromkeys(LINE_CHECKS, 0), "ids": 0}
    assert memory.accesses == 2
