"""What the tests of stories on an MMU with a table engine share: running one, and finding events."""

from __future__ import annotations

from ptewalk.cosim.bench.mmu_engine_lane import Kind, MmuEngineLane, Told
from ptewalk.cosim.checks.mmu_engine import judge
from ptewalk.cosim.checks.mmu_engine_stories import Area


def run(lane: MmuEngineLane, area: Area) -> Told:
    """A story, in which nothing is wrong."""
    before = area.story.words.copy()
    told = lane.run(area.story)
    problems, _ = judge(area, told, before)
    assert problems == []
    return told


def when(told: Told, kind: Kind, of: int | None = None) -> list[int]:
    """Cycles of events of a kind."""
    return [int(one["cycle"]) for one in told.events if one["kind"] == kind and of in (None, int(one["a"]))]
