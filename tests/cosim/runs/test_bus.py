"""Bursts through the bridge by compiled code: nothing is wrong, and what is wrong is seen."""

from collections.abc import Iterator

import pytest

from ptewalk.cosim.bench.bridge_lane import BridgeConditions, BridgeLane
from ptewalk.cosim.runs.bus import CHUNK, bus_library, bus_volume, drawn_conditions
from ptewalk.cosim.runs.bus_cycles import bridge_cycles
from ptewalk.cosim.runs.plans import walks_plan
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.x86 import EntryBit, Wait


@pytest.fixture(scope="module")
def lane() -> Iterator[BridgeLane]:
    lane = BridgeLane(bus_library().library)
    yield lane
    lane.close()


def test_each_channel_stalls_alone_in_its_turn() -> None:
    drawn = [drawn_conditions(chunk) for chunk in walks_plan(4, 15 * 9 * CHUNK, CHUNK)]
    stalls = [conditions.stalls for name, conditions in drawn if name == "one channel stalls"]
    busiest = [[at for at, share in enumerate(one) if share == max(one)] for one in stalls]
    assert sorted(busiest) == [[at] for at in range(15)]
    assert {share for one in stalls for share in one} == {0.02, 0.9}


@pytest.mark.slow
@pytest.mark.share(10)
@pytest.mark.parametrize(("bits", "part"), [*((64, part) for part in range(8)), (128, 0), (512, 1)])
def test_random_bursts_under_all_conditions(bits: int, part: int) -> None:
    """Nine chunks, each under conditions of its own kind."""
    told = bus_volume(9 * CHUNK, part, bits=bits)
    counts = told["counts"]
    assert told["failures"] == [] and told["wrong"] == 0
    assert len([name for name in counts if name.startswith("chunks: ")]) == 9
    # A reset drops what is under way.
    assert told["compared"] >= 9 * CHUNK - 40 * counts["resets_done"] and counts["resets_done"] >= 1
    assert counts["judged"] >= 100_000 and counts["choices"] >= 10_000
    assert counts["marked_stores"] >= 4000 and counts["cleared"] >= 300 and counts["clears_done"] >= 600
    assert counts["refused"] >= 1000 and counts["records"] >= 800 and counts["illegal"] >= 50
    assert counts["refused_reads"] >= 100 and counts["failed_swaps"] >= 1


@pytest.mark.slow
@pytest.mark.share(4)
@pytest.mark.parametrize(("bits", "part"), [(64, 2), (128, 3), (512, 4), (64, 5)])
def test_random_bursts_whose_marks_are_atomic_transactions(bits: int, part: int) -> None:
    """The same on tables that are marked by AtomicCompare: no reservation is there to be refused or lost."""
    told = bus_volume(9 * CHUNK, part, bits=bits, atomic=True)
    counts = told["counts"]
    assert told["failures"] == [] and told["wrong"] == 0
    assert told["compared"] >= 9 * CHUNK - 40 * counts["resets_done"]
    assert counts["marked_stores"] >= 4000 and counts["cleared"] >= 300 and counts["clears_done"] >= 600
    assert counts["refused_reads"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"track": Track.OFF}, "a store lands without its mark"),
        ({"dirty": 1 << EntryBit.PS}, "a store lands without its mark"),
        ({"wait_all": Wait.STORES, "wait_stores": Wait.STORES}, "whose unmapping is complete"),
        (
            {"clean_leaf": BridgeLane.filled(1, 0, BridgeConditions())[0]["clean_leaf"] | 1 << SoftBit.SOFT_DIRTY},
            "nobody",
        ),
        ({"read_only_leaf": BridgeLane.filled(1, 0, BridgeConditions())[0]["clean_leaf"]}, "that must fault"),
        ({"upper_entry": 0}, "a burst is refused"),
    ],
)
def test_what_is_wrong_is_seen(lane: BridgeLane, changed: dict[str, int], says: str) -> None:
    """The lane is told of another machine than the one that it drives."""
    conditions = BridgeConditions(clears=0.01, unmaps=0.004, latency=12, mixed=True, latency_spread=20)
    batch = BridgeLane.filled(4000, 3, conditions)
    assert lane.perform(batch).problem == ""
    for name, value in changed.items():
        batch[name] = value
    assert says in lane.perform(batch).problem


@pytest.mark.slow
def test_cycles_at_the_pins() -> None:
    """Each row within its target; a bridge that were slower by one cycle would miss it."""
    rows = bridge_cycles([1, 16])
    assert len(rows) == 20 and [row for row in rows if row["differs"]] == []
    assert [row for row in rows if row["target"] is not None and row["cycles"] > row["target"]] == []
    exact = {row["name"]: row["cycles"] for row in rows if " of 1" in row["name"] and row["latency"] == 16}
    assert exact["bridge: read of 1 beat"] == 16 + 5 and exact["bridge: write of 16 beats"] == 16 + 15 + 16 + 6
    assert len([row for row in rows if row["target"] is None]) == 3
