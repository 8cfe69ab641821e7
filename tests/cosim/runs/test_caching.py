"""The MMU that caches in a simulator, at protocol level, judged by the golden TLB."""

from __future__ import annotations

import pytest

from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.checks.golden_tlb import KINDS
from ptewalk.cosim.runs.caching import caching_volume, caching_work
from ptewalk.cosim.runs.caching_cycles import caching_cycles
from ptewalk.cosim.simulate.find import detect
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.presets import CACHING
from ptewalk.rtl.walker import WalkerConfig

pytestmark = pytest.mark.slow

SIMULATORS = [simulator.name for simulator in detect()]


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_random_work(simulator: str) -> None:
    """Every answer is permitted, and it could have been otherwise."""
    if simulator not in SIMULATORS:
        pytest.skip(f"{simulator} was not found")
    told = caching_work(800, 1, simulator=simulator)
    assert (told["compared"], told["wrong"], told["failures"]) == (800, 0, [])
    counts = told["counts"]
    assert counts["hits"] >= 160 and counts["overtaken"] >= 1 and counts["gateware wraps"] >= 3
    assert sum(counts.get(kind, 0) for kind in KINDS) >= 20
    assert counts["drains"] >= 1 and counts["marks"] >= 20


@pytest.mark.parametrize(
    "config",
    [
        CachingMmuConfig(WalkerConfig(levels=4, soft_dirty=False, tag_bits=6), fault_depth=1, waiting=3, slots=2),
        CachingMmuConfig(WalkerConfig(trace=True, tag_bits=5), small_sets=16, small_ways=4, large_sets=16, slots=8),
    ],
)
def test_other_shapes_under_errors_and_latency(config: CachingMmuConfig) -> None:
    conditions = CachingConditions(errors=0.01, latency=4, latency_spread=9, stalls=0.4, idle=0.05, changes=0.05)
    told = caching_work(400, 3, config=config, conditions=conditions)
    assert (told["compared"], told["wrong"], told["failures"]) == (400, 0, [])
    assert told["counts"]["hits"] >= 40


def test_volume() -> None:
    """Compiled code asks; each kind of event had an access that would have shown that it was ignored."""
    told = caching_volume(40_000, 1)
    assert (told["compared"], told["wrong"], told["failures"]) == (40_000, 0, [])
    counts = told["counts"]
    assert counts["hits"] >= 0.35 * 40_000 and counts["many"] < 0.1 * 40_000
    assert counts["overtaken"] >= 20 and counts["gateware wraps"] >= 50
    assert min(counts[kind] for kind in (*KINDS, "OTHER_PCID")) >= 5


def test_volume_with_caches_of_upper_entries() -> None:
    told = caching_volume(20_000, 1, config=CACHING["mmu"])
    assert (told["compared"], told["wrong"], told["failures"]) == (20_000, 0, [])
    assert told["counts"]["partial"] >= 1000 and told["counts"]["restarts"] >= 400


def test_volume_is_the_same_in_any_number_of_processes() -> None:
    """Each chunk has chance of its own."""
    one, two = caching_volume(21_000, 9), caching_volume(21_000, 9, jobs=2)
    assert one == two


def test_cycles() -> None:
    """At the pins: nL + 5 for a walk of n levels, L + 5 below a PDE, L more with a swap; hits three cycles late."""
    rows = caching_cycles((1, 4, 16, 40))
    assert [row["differs"] for row in rows] == [None] * (16 + 32)
    cycles = {(*row["name"].split(": "), row["latency"]): row["cycles"] for row in rows}
    for latency in (1, 4, 16, 40):
        for preset in ("mmu-small", "mmu"):
            assert cycles[preset, "walk4", latency] == 4 * latency + 5
            assert cycles[preset, "walk5", latency] == 5 * latency + 5
            assert cycles[preset, "hit", latency] == 3
            assert cycles[preset, "first write after clear", latency] == 5 * latency + 5
        assert cycles["mmu", "pde_hit", latency] == latency + 5
        assert cycles["mmu", "mark", latency] == 2 * latency + 5
        assert cycles["mmu", "fault below a PDE", latency] == 5 * latency + 7
        assert cycles["mmu", "fault from the root", latency] == 4 * latency + 5
    assert all(row["cycles"] <= row["target"] for row in rows)
