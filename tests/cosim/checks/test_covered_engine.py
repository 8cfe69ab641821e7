"""Bins of a table engine: counts made by hand, a story whose commands are known, and the counts of a real run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from ptewalk.cosim.bench.mmu_engine_lane import MmuEngineLane, Op, Step
from ptewalk.cosim.checks.covered import BIN
from ptewalk.cosim.checks.covered_engine import engine_bins
from ptewalk.cosim.checks.mmu_engine_stories import Area, Asked, mark_of
from ptewalk.cosim.runs.mmu_engine import CHUNK, STORES, built_mmu_engine, mmu_engine_chunk
from ptewalk.cosim.runs.workers import Chunk
from ptewalk.rtl.engine.table_engine_bins import CHANGED, ENTRIES, TABLE_ENGINE

SD, SWAP_SD = 1 << 11, 1 << 1


@pytest.fixture(scope="module")
def lane() -> Iterator[MmuEngineLane]:
    lane = MmuEngineLane(built_mmu_engine().library)
    yield lane
    lane.close()


def test_counts_by_their_names() -> None:
    rows = np.zeros(
        2, [(name, np.uint64, (9,)) for name in ("entries", "done", "failed")] + [("changed", np.uint64, (6,))]
    )
    rows[0]["entries"][0], rows[0]["done"][2], rows[0]["changed"][3] = 5, 2, 1
    rows[1]["entries"][8], rows[1]["failed"][7] = 3, 4
    assert dict(engine_bins([Asked("clear", 1, 1), Asked("move", 1, 1)], rows)) == {
        "engine-entry/clear/none": 5,
        "engine-swap/clear/writable SD/done": 2,
        "engine-overtaken/clear/SD": 1,
        "engine-entry/move/swap SD": 3,
        "engine-swap/move/swap/failed": 4,
    }


def test_the_bit_by_which_an_entry_is_soft_dirty() -> None:
    assert [mark_of(entry) for entry in (0x867, 0x25, 1 << 8, 0x8000, 0)] == [SD, SD, SD, SWAP_SD, SWAP_SD]


@pytest.mark.slow
def test_each_kind_of_entry_is_counted_where_it_is(lane: MmuEngineLane) -> None:
    """One of the first kind, two of the next, and so on; those that are soft-dirty are swapped, and no others."""
    area = Area()
    of_kind = (0, 0x67, 0x867, 0x25, 0x825, 0x120, 0x920, 0x10_0000, 0x10_0002)
    entries = [entry for times, entry in enumerate(of_kind, 1) for _ in range(times)]
    for place, entry in enumerate(entries):
        area.put(area.place(area.base + place), entry)
    for kind in ("look", "clear"):
        area.command(kind, area.base, 48)
        area.steps(Step(Op.AWAIT_DONE))
    told = lane.run(area.story)
    times = {entry: number for number, entry in enumerate(ENTRIES, 1)} | {"none": 1 + 48 - len(entries)}
    assert engine_bins(area.asked, told.bins) == {
        **{f"engine-entry/{kind}/{entry}": times[entry] for kind in ("look", "clear") for entry in ENTRIES},
        **{f"engine-swap/clear/{entry}/done": times[entry] for entry in ENTRIES if entry.endswith(" SD")},
    }
    assert told.completions[1]["changed"] == 3 + 5 + 7 + 9


@pytest.mark.slow
def test_the_counts_of_a_run_add_up(lane: MmuEngineLane) -> None:
    """Swaps that are counted are those in the log; no bin that is excluded is met; a chunk is what its place says."""
    told = mmu_engine_chunk(lane, Chunk(3, 1, CHUNK))
    again = mmu_engine_chunk(lane, Chunk(3, 0, 2 * CHUNK))
    first = mmu_engine_chunk(lane, Chunk(3, 0, CHUNK))
    assert not told["problems"] and told["counts"]["stories"] == CHUNK // STORES == 5
    assert again["counts"]["grants"] == first["counts"]["grants"] + told["counts"]["grants"]
    bins = again["bins"]
    known = {BIN.join((cross.name, *of)): cross.why_excluded(of) for cross in TABLE_ENGINE for of in cross.bins()}
    assert [name for name in bins if known.get(name, "unknown") is not None] == []
    assert {name for name in known if name.startswith("engine-entry/")} <= bins.keys()
    done = sum(
        count for name, count in bins.items() if name.startswith("engine-swap/clear/") and name.endswith("/done")
    )
    assert done == again["counts"]["reported"]
    failed = sum(count for name, count in bins.items() if name.endswith("/failed"))
    changed = sum(
        bins.get(f"engine-overtaken/{command}/{what}", 0) for command in ("clear", "move") for what in CHANGED
    )
    assert failed > 10 and changed > 3
