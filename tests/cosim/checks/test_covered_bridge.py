"""Bins of the translating bridge: counts made by hand, and the counts of a real run."""

from __future__ import annotations

import numpy as np
import pytest

from ptewalk.cosim.bench.bridge_lane import BridgeRun
from ptewalk.cosim.checks.covered import BIN
from ptewalk.cosim.checks.covered_bridge import bridge_bins
from ptewalk.cosim.runs.bus import CHUNK, bus_chunk, bus_library, drawn_conditions
from ptewalk.cosim.runs.workers import Chunk
from ptewalk.rtl.bridge.bins import BRIDGE, CONDITIONS, HAPPENED


def test_counts_by_their_names() -> None:
    bursts, around = np.zeros(90, np.uint64), np.zeros(12, np.uint64)
    bursts[((1 * 3 + 2) * 5 + 3) * 2 + 1], around[4 * 2 + 3] = 7, 2
    run = BridgeRun("", dict.fromkeys(HAPPENED, 0) | {"cleared": 4}, bursts, around)
    assert dict(bridge_bins("slow memory", run)) == {
        "bus-burst/write/WRAP/broken/SLVERR": 7,
        "bus-clear/unmap/both": 2,
        "bus-condition/slow memory/cleared": 4,
    }


def test_conditions_are_those_of_the_chunks() -> None:
    assert tuple(drawn_conditions(Chunk(1, number, CHUNK))[0] for number in range(9)) == CONDITIONS


@pytest.mark.slow
def test_the_counts_of_a_run_add_up() -> None:
    """Each burst is in one bin, and each clear; no bin that is excluded is met."""
    model = bus_library()
    known = {BIN.join((cross.name, *of)): cross.why_excluded(of) for cross in BRIDGE for of in cross.bins()}
    for number in range(9):
        told = bus_chunk(model, Chunk(20261127, number, 1000))
        bins, counts = told["bins"], told["counts"]
        assert not told["problem"]
        of = {cross.name: sum(n for name, n in bins.items() if name.startswith(f"{cross.name}/")) for cross in BRIDGE}
        assert of["bus-burst"] == counts["answered"] and of["bus-clear"] == counts["clears_done"]
        refused = sum(
            count for name, count in bins.items() if name.startswith("bus-burst/") and name.endswith("SLVERR")
        )
        forbidden = sum(count for name, count in bins.items() if "/forbidden/" in name)
        assert refused == counts["refused"] and forbidden <= counts["illegal"]
        assert [name for name in bins if known.get(name, "unknown") is not None] == []
