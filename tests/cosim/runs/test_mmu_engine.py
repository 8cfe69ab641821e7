"""An MMU and a table engine on one bus: the order of a command's end, and what an invalidation covers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.bench.mmu_engine_lane import Kind, MmuEngineLane, Op, Step
from ptewalk.cosim.checks.mmu_engine_stories import Area
from ptewalk.cosim.runs.mmu_engine import built_mmu_engine, mmu_engine_work
from ptewalk.model.x86 import Invalidation, Wait
from ptewalk.rtl.engine.fetcher import Stop

from .stories import run, when

pytestmark = pytest.mark.slow
DIRTY, GLOBAL, SD, D = 0x867, 1 << 8, 1 << 11, 1 << 6


@pytest.fixture(scope="module")
def lane() -> Iterator[MmuEngineLane]:
    lane = MmuEngineLane(built_mmu_engine().library)
    yield lane
    lane.close()


@pytest.mark.parametrize(("pages", "flag"), [(8, 0), (40, 0), (8, GLOBAL)], ids=["by address", "by PCID", "global"])
def test_a_clear_ends_with_invalidation_and_drain(lane: MmuEngineLane, pages: int, flag: int) -> None:
    """Stores that were granted before hold up its end; one that comes after marks anew, though it was cached."""
    area = Area()
    first = area.base + 64
    area.fill(first, pages, DIRTY | flag)
    area.steps(Step(Op.AWAIT_GRANTS, 2))
    area.command("clear", first, pages)
    late = area.steps(Step(Op.PAUSE, 2000))
    area.steps(Step(Op.PAUSE, 1))
    end = area.steps(Step(Op.AWAIT_DONE))
    for _ in range(2):
        area.store(first + 3, after=1, retires_after=late + 1)
    area.store(first + 3, after=end + 1)
    told = run(lane, area)
    (begun,), (done,) = when(told, Kind.COMMAND), when(told, Kind.DONE)
    cleared = [int(one["cycle"]) for one in told.events if one["kind"] == Kind.SWAP and one["b"] & ~one["c"] & SD]
    assert len(cleared) == pages and max(cleared) < begun + 1000
    assert max(when(told, Kind.RETIRED)[:2]) < done
    assert min(when(told, Kind.RETIRED)) > begun + 2000
    assert when(told, Kind.COMPLETE) == []  # those are software's
    assert area.story.words[area.place(first + 3) // 8] & (SD | D) == SD | D
    assert sum(area.story.words[area.place(first + number) // 8] & SD != 0 for number in range(pages)) == 1
    assert told.completions[0]["changed"] == pages


def test_what_changes_nothing_ends_at_once(lane: MmuEngineLane) -> None:
    """A look waits for no store."""
    area = Area()
    area.fill(area.base, 8)
    area.steps(Step(Op.AWAIT_GRANTS, 1))
    area.command("look", area.base, 8)
    end = area.steps(Step(Op.AWAIT_DONE))
    area.store(area.base, after=1, retires_after=end + 1)
    told = run(lane, area)
    assert max(when(told, Kind.DONE)) < min(when(told, Kind.RETIRED))


def relinked(area: Area, number: int, wait: Wait) -> int:
    """A table that is copied and exchanged while it is streamed; the step behind its invalidation."""
    old, new = area.tables[number], area.spare[0]
    area.steps(Step(Op.REUSE, new), Step(Op.COPY, old, new), Step(Op.WRITE, area.upper(number), new | 0x67))
    area.invalidate(Invalidation.ADDRESS, area.base + 512 * number, wait)
    area.steps(Step(Op.AWAIT_COMPLETE))
    return area.steps(Step(Op.FREE, old))


@pytest.mark.parametrize("wait", [Wait.NONE, Wait.STORES])
@pytest.mark.parametrize("swaps", [1, 5, 17])
def test_no_swap_in_a_table_that_was_freed(lane: MmuEngineLane, wait: Wait, swaps: int) -> None:
    """The table goes while it is streamed: behind the invalidation the engine goes on in the new one."""
    area = Area()
    area.story.latency, area.story.latency_spread = 9, 6
    area.fill(area.base + 512, 512)
    area.command("clear", area.base + 512, 512)
    area.steps(Step(Op.AWAIT_SWAPS, swaps))
    old, new = area.tables[1], area.spare[0]
    relinked(area, 1, wait)
    told = lane.run(area.story)
    (freed,) = when(told, Kind.FREED)
    swapped = {int(one["a"]): int(one["cycle"]) for one in told.events if one["kind"] == Kind.SWAP}
    assert not [at for at, cycle in swapped.items() if old <= at < old + 4096 and cycle > freed]
    words = area.story.words
    left = np.count_nonzero(words[old // 8 : old // 8 + 512] & np.uint64(SD))
    assert 100 < left < 512
    assert not np.any(words[new // 8 + 512 - 16 : new // 8 + 512] & np.uint64(SD))
    assert (told.completions[0]["stopped"], told.completions[0]["page"]) == (Stop.DONE, area.base + 1024)


def test_a_move_looks_for_its_tables_anew(lane: MmuEngineLane) -> None:
    """Of source and target: none of them is written after it was freed."""
    area = Area()
    area.fill(area.base + 512, 64)
    area.command("move", area.base + 512, 64, area.base + 768)
    area.steps(Step(Op.AWAIT_SWAPS, 21))
    old = area.tables[1]
    area.steps(Step(Op.WRITE, area.upper(1), 0))
    relinked(area, 1, Wait.STORES)
    told = lane.run(area.story)
    (freed,) = when(told, Kind.FREED)
    seen = [int(one["a"]) - old for one in told.events if one["kind"] == Kind.SWAP and one["cycle"] > freed]
    assert seen and not [at for at in seen if 0 <= at < 4096]
    assert told.completions[0]["stopped"] in (Stop.DONE, Stop.NEED_TABLE)


def test_what_was_moved_behind_a_stop_is_invalidated(lane: MmuEngineLane) -> None:
    """A line behind an occupied place is moved: what was cached of it is not used any more."""
    area = Area()
    source, target = area.base + 512, area.base + 1024
    area.fill(source, 64)
    area.fill(target + 4, 1)
    area.steps(Step(Op.AWAIT_GRANTS, 1))
    area.command("move", source, 64, target)
    end = area.steps(Step(Op.AWAIT_DONE))
    area.store(source + 20, after=1)
    area.store(source + 20, after=end + 1)
    told = run(lane, area)
    assert (told.completions[0]["stopped"], told.completions[0]["page"]) == (Stop.OCCUPIED, source + 4)
    assert area.story.words[area.place(target + 20) // 8] & SD and not area.story.words[area.place(source + 20) // 8]
    assert (len(when(told, Kind.GRANTED)), len(when(told, Kind.ANSWERED))) == (1, 1)


def test_a_storm_of_invalidations_starves_no_command(lane: MmuEngineLane) -> None:
    """And none of them waits for more than what is under way."""
    area = Area()
    area.fill(area.base, 512)
    area.command("clear", area.base, 512)
    for _ in range(40):
        area.invalidate(Invalidation.ADDRESS, area.base, Wait.NONE)
    told = run(lane, area)
    taken = when(told, Kind.TAKEN)
    assert len(taken) == 40
    assert max(np.diff(taken)) < 400
    assert told.completions[0]["changed"] == 512


def test_random_work() -> None:
    """Everything at once, over many stories."""
    told: dict[str, Any] = mmu_engine_work(6000, 7)
    assert told["failures"] == []
    counts = told["counts"]
    assert counts["grants"] >= 6000 and counts["marks"] > 1000 and counts["reported"] > 2000
    assert counts["freed"] > 50 and counts["move"] > 15 and counts["clear"] > 40 and counts["invalidations"] > 100
