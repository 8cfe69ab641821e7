"""An MMU with a dirty log, beside a table engine, on one bus: what docs/log.md says of marks, drains and epochs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.bench.mmu_engine_lane import Kind, MmuEngineLane, Op, Step, Told, log_setup
from ptewalk.cosim.checks.dirty_log import INCOMPLETE, OVERFLOW, STALLED
from ptewalk.cosim.checks.mmu_engine_stories import RING, Area
from ptewalk.cosim.runs.mmu_engine import LOGGED, built_mmu_engine, mmu_engine_work
from ptewalk.model.dirty_log import COUNTS, record_of
from ptewalk.model.x86 import Access, EntryBit, Invalidation, Wait
from ptewalk.rtl.log.layouts import LogMode

from .stories import run, when

pytestmark = pytest.mark.slow
CLEAN, SD = 0x67, 1 << 11


@pytest.fixture(scope="module")
def lane() -> Iterator[MmuEngineLane]:
    lane = MmuEngineLane(built_mmu_engine(LOGGED).library)
    yield lane
    lane.close()


def records(told: Told) -> list[tuple[int, int]]:
    """Address and word of what was written to the log, in order."""
    seen = [(int(one["a"]), int(one["c"])) for one in told.events if one["kind"] == Kind.WRITE]
    return [(at, word) for at, word in seen if at >= RING]


def raised(told: Told) -> int:
    """Flags of the log that were seen."""
    return int(np.bitwise_or.reduce([int(one["a"]) for one in told.events if one["kind"] == Kind.FLAGS] or [0]))


def test_one_record_for_each_page_and_epoch(lane: MmuEngineLane) -> None:
    """Three rounds of stores, two to each page, and a clear after each: a list of what was dirtied, each time."""
    area = Area()
    area.fill(area.base, 64, CLEAN)
    area.log()
    for turn in range(3):
        begin = area.steps(Step(Op.EPOCH, turn & 1))
        for page in range(8 * (turn + 1)):
            area.store(area.base + 5 * page % 64, after=begin)
            area.store(area.base + 5 * page % 64, after=begin)
        area.steps(Step(Op.AWAIT_GRANTS, sum(16 * (number + 1) for number in range(turn + 1))))
        area.command("clear", area.base, 64)
        area.steps(Step(Op.AWAIT_DONE))
    area.ring = None  # the judge knows one epoch only
    told = lane.run(area.story)
    found = [record_of(word) for _, word in records(told)]
    assert [(one.page - area.base, one.epoch) for one in found] == [
        (5 * page % 64, turn & 1) for turn in range(3) for page in range(8 * (turn + 1))
    ]
    assert {(one.level, one.pcid, one.software, one.phase) for one in found} == {(1, 5, False, 1)}
    told_at = [int(one["a"]) for one in told.events if one["kind"] == Kind.TAIL]
    assert told_at[-1] == 48


@pytest.mark.parametrize("wait", [Wait.STORES, Wait.ALL])
def test_a_drain_waits_for_no_store_that_waits_for_room(lane: MmuEngineLane, wait: Wait) -> None:
    """Its table is freed meanwhile: its walk begins again, and marks the page in the table that took its place."""
    area = Area()
    area.fill(area.base + 512, 4, CLEAN)
    area.log(left=0, reads=0)
    area.store(area.base + 513, after=1)
    area.steps(Step(Op.PAUSE, 300))
    old, new = area.tables[1], area.spare[0]
    area.relink(1)
    area.invalidate(Invalidation.ALL, wait=wait)
    area.steps(Step(Op.AWAIT_COMPLETE), Step(Op.PAUSE, 200))
    area.steps(Step(Op.HEAD, COUNTS - 511))
    told = run(lane, area)
    complete, granted = when(told, Kind.COMPLETE), when(told, Kind.GRANTED)
    assert len(complete) == 2 and max(complete) < min(granted)
    (swap,) = [int(one["a"]) for one in told.events if one["kind"] == Kind.SWAP]
    assert swap == new + 8 and raised(told) & STALLED
    assert old != new and len(records(told)) == 1


def test_what_waits_behind_a_store_without_room_is_walked(lane: MmuEngineLane) -> None:
    """Reads before the invalidation are answered before it is complete; stores that wait for room, all later."""
    area = Area()
    area.fill(area.base, 16, CLEAN)
    area.log(left=0, reads=0)
    accesses = [Access.WRITE, Access.READ, Access.WRITE, Access.WRITE, Access.READ, Access.READ]
    for page, access in enumerate(accesses):
        area.store(area.base + page, access, after=1)
    area.steps(Step(Op.PAUSE, 400))
    for _ in range(2):
        area.invalidate(Invalidation.ALL, wait=Wait.STORES)
        area.steps(Step(Op.AWAIT_COMPLETE))
    area.steps(Step(Op.HEAD, COUNTS - 500))
    told = run(lane, area)
    first, second = when(told, Kind.COMPLETE)
    assert len(when(told, Kind.ANSWERED)) == 3 and max(when(told, Kind.ANSWERED)) < first
    assert len(when(told, Kind.GRANTED)) == 3 and min(when(told, Kind.GRANTED)) > second
    assert [int(one["a"]) for one in told.events if one["kind"] == Kind.GRANTED] == [0, 2, 3]


def test_a_clear_ends_while_a_store_waits_for_room(lane: MmuEngineLane) -> None:
    area = Area()
    area.fill(area.base, 8, CLEAN)
    area.fill(area.base + 64, 64, CLEAN | SD)
    area.log(left=1, reads=0)
    area.store(area.base, after=1)
    area.store(area.base + 1, after=1)
    area.steps(Step(Op.AWAIT_GRANTS, 1), Step(Op.PAUSE, 200))
    area.command("clear", area.base + 64, 64)
    area.steps(Step(Op.AWAIT_DONE), Step(Op.HEAD, COUNTS - 510))
    told = run(lane, area)
    (done,) = when(told, Kind.DONE)
    assert when(told, Kind.GRANTED)[0] < done < when(told, Kind.GRANTED)[1]
    assert told.completions[0]["changed"] == 64


def test_an_end_waits_for_records(lane: MmuEngineLane) -> None:
    """Memory is slow: what was marked before is in the log when the clear is over."""
    area = Area()
    area.story.latency = 60
    area.fill(area.base, 64, CLEAN)
    area.log()
    for page in range(3):
        area.store(area.base + page, after=1)
    area.steps(Step(Op.AWAIT_GRANTS, 3))
    area.invalidate(Invalidation.ALL, wait=Wait.STORES)
    area.steps(Step(Op.AWAIT_COMPLETE))
    told = run(lane, area)
    (complete,) = when(told, Kind.COMPLETE)
    assert complete >= [int(one["cycle"]) for one in told.events if one["kind"] == Kind.TAIL and one["a"] == 3][0]


@pytest.mark.parametrize("how", [{"stalls": 0}, {"time_out": 100}])
def test_overflow_and_a_scan_give_every_page(lane: MmuEngineLane, how: dict[str, int]) -> None:
    """Marks go on without records, and the clear's bitmap has them all."""
    area = Area()
    area.fill(area.base, 64, CLEAN)
    area.log(left=5, reads=0, **how)
    for page in range(20):
        area.store(area.base + 3 * page, after=1)
    area.steps(Step(Op.AWAIT_GRANTS, 20))
    area.command("clear", area.base, 64)
    area.steps(Step(Op.AWAIT_DONE))
    told = run(lane, area)
    assert raised(told) & OVERFLOW
    logged = {record_of(word).page for _, word in records(told)}
    assert logged == {area.base + 3 * page for page in range(5)}
    assert told.completions[0]["changed"] == 20
    lost = [int(one["b"]) for one in told.events if one["kind"] == Kind.FLAGS and one["a"] & OVERFLOW]
    assert lost[0] == (area.base + 15) << 12


def test_a_record_that_memory_refuses_is_told(lane: MmuEngineLane) -> None:
    """The mark stands, the tail passes it, and nobody waits for ever."""
    area = Area()
    area.fill(area.base, 8, CLEAN)
    area.log()
    area.ring = None
    area.steps(Step(Op.ERRORS, RING))
    area.store(area.base, after=1)
    area.steps(Step(Op.AWAIT_GRANTS, 1))
    area.invalidate(Invalidation.ALL, wait=Wait.STORES)
    area.steps(Step(Op.AWAIT_COMPLETE))
    told = lane.run(area.story)
    assert raised(told) & INCOMPLETE and records(told) == []
    assert [int(one["a"]) for one in told.events if one["kind"] == Kind.TAIL] == [1]
    assert area.story.words[area.place(area.base) // 8] & SD


def test_pml_is_filled_downwards_and_holds_the_page_of_a_huge_leaf(lane: MmuEngineLane) -> None:
    """Bare addresses; behind entry 0 an access waits, neither marked nor made, until the index is set."""
    area = Area()
    huge = area.base + 1024
    area.fill(area.base, 8, CLEAN)
    area.put(area.upper(2), 0x4000_0000 | CLEAN | 1 << EntryBit.PS)
    area.steps(log_setup(LogMode.PML, RING, index=1))
    pages = [huge + 77, area.base + 3, area.base + 4]
    for page in pages:
        area.store(page, after=1)
    area.steps(Step(Op.AWAIT_GRANTS, 2), Step(Op.PAUSE, 500))
    area.steps(log_setup(LogMode.PML, RING))
    told = lane.run(area.story)
    assert records(told) == [(RING + 8, pages[0] << 12), (RING, pages[1] << 12), (RING + 8 * 511, pages[2] << 12)]
    swaps = {int(one["a"]): int(one["cycle"]) for one in told.events if one["kind"] == Kind.SWAP}
    (first, second) = when(told, Kind.SET_UP)
    assert swaps[area.place(pages[2])] > second > swaps[area.place(pages[1])] > first
    assert when(told, Kind.GRANTED)[2] > second and raised(told) == STALLED


def test_reads_and_second_stores_have_no_record(lane: MmuEngineLane) -> None:
    area = Area()
    area.fill(area.base, 4, CLEAN | SD)
    area.log(left=0)
    area.store(area.base, after=1)
    area.store(area.base + 1, Access.READ, after=1)
    assert records(run(lane, area)) == []


def test_a_list_clears_what_its_records_name(lane: MmuEngineLane) -> None:
    """And nothing else; it ends as a clear does, and stores to those pages have records again."""
    area = Area()
    area.lists = True
    area.fill(area.base, 64, CLEAN)
    area.fill(area.base + 64, 64, CLEAN | SD)
    area.log(reads=0)
    end = 1
    for turn in range(3):
        for page in range(0, 64, 5):
            area.store(area.base + page, after=end)
        area.steps(Step(Op.AWAIT_GRANTS, 13 * (turn + 1)), Step(Op.PAUSE, 300))
        area.command("list", area.base, 64)
        end = area.steps(Step(Op.AWAIT_DONE)) + 1
    told = run(lane, area)
    assert [(one["page"], one["changed"], one["absent"]) for one in told.completions] == [(13, 13, 0)] * 3
    words = area.story.words
    assert not any(int(words[area.place(area.base + page) // 8]) & SD for page in range(64))
    assert all(int(words[area.place(area.base + page) // 8]) & SD for page in range(64, 128))
    assert [record_of(word).page for _, word in records(told)] == [*range(area.base, area.base + 64, 5)] * 3


def test_random_lists() -> None:
    """Everything at once, and the engine reads the log."""
    told: dict[str, Any] = mmu_engine_work(4000, 7, lists=True)
    assert told["failures"] == []
    counts = told["counts"]
    assert counts["grants"] >= 4000 and counts["listed"] == counts["records"] > 1500 and counts["reported"] > 1500
    assert counts["list"] > 50 and counts["absent"] > 50 and counts["freed"] > 60 and counts["clear"] > 5


@pytest.mark.parametrize("split", [False, True])
def test_random_work(split: bool) -> None:
    """Everything at once: the records are the marks, in their order, and where there are none that is told.

    Also where the lookup is split.
    """
    config = replace(LOGGED, mmu=replace(LOGGED.mmu, split_lookup=split))
    told: dict[str, Any] = mmu_engine_work(8000, 5, logs=True, config=config)
    assert told["failures"] == []
    counts = told["counts"]
    assert counts["grants"] >= 8000 and counts["records"] > 1200 and counts["lost"] > 30
    assert counts["stalls"] > 100 and counts["waits"] > 200 and counts["freed"] > 80
