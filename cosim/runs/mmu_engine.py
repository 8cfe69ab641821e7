"""An MMU with a table engine, built and ready to be run in this process."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from functools import cache
from typing import Any, Final

from ptewalk.cosim.bench.mmu_engine_lane import MmuEngineLane, RuleOfUnitBroken, mmu_engine_lane_files
from ptewalk.cosim.checks.covered_engine import engine_bins
from ptewalk.cosim.checks.mmu_engine import judge
from ptewalk.cosim.checks.mmu_engine_stories import draw_story
from ptewalk.cosim.runs.gateware import library_of
from ptewalk.cosim.runs.workers import Chunk
from ptewalk.cosim.simulate.build import BuildDir
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.engine.with_mmu import MmuEngineConfig
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["CHUNK", "LOGGED", "STORES", "TRACKED", "built_mmu_engine", "mmu_engine_chunk", "mmu_engine_work"]

STORES: Final = 600
"""Accesses of a story."""
CHUNK: Final = 5 * STORES
"""Accesses of a chunk of a campaign."""

TRACKED: Final = MmuEngineConfig(
    CachingMmuConfig(WalkerConfig(tag_bits=4, trace=False), upper_entries=4, waiting=8), EngineConfig(lines=4)
)
"""What is built unless another is asked for: small enough that translations are driven out, and lines wait."""
LOGGED: Final = replace(TRACKED, mmu=replace(TRACKED.mmu, log=LogConfig()), engine=replace(TRACKED.engine, lists=True))
"""The same with a dirty log, and with lists of its records."""


@cache
def built_mmu_engine(
    config: MmuEngineConfig = TRACKED, simulator: str = "verilator", *, covered: bool = False
) -> BuildDir:
    """A model with its compiled lane; as `library_of`."""
    return library_of(config, mmu_engine_lane_files, simulator, covered=covered)


def mmu_engine_work(
    grants: int,
    seed: int,
    simulator: str = "verilator",
    *,
    logs: bool = False,
    lists: bool = False,
    config: MmuEngineConfig | None = None,
) -> dict[str, Any]:
    """Random stories until so many stores were granted; with `logs` on a design that has a dirty log, with `lists`
    its records are read by the engine, which clears what they name. `config` is another design of those parts.

    Returns
    -------
    dict
        simulator, failures (texts of the first story that went wrong), counts: see `judge`; stories and cycles too.
    """
    model = built_mmu_engine(config or (LOGGED if logs or lists else TRACKED), simulator)
    part = "list" if lists else "log" if logs else "engine"
    lane = MmuEngineLane(model.library)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    try:
        while counts["grants"] < grants and not failures:
            problems, seen, _ = _one(lane, seed, counts["stories"], logs=logs, lists=lists)
            failures += [f"{part}, story {counts['stories']}: {text}" for text in problems[:5]]
            counts += seen
            counts["stories"] += 1
    finally:
        lane.close()
    name = f"{model.simulator.name} {model.simulator.version_text}"
    return {"simulator": name, "failures": failures, "counts": dict(counts)}


def mmu_engine_chunk(lane: MmuEngineLane, chunk: Chunk, *, logs: bool = False) -> dict[str, Any]:
    """One chunk of random accesses, `STORES` in a story, on the model of `built_mmu_engine`.

    Returns
    -------
    dict
        problems (texts), counts, as of `mmu_engine_work`, and bins: of `TABLE_ENGINE`, what was met how often.
    """
    counts: Counter[str] = Counter()
    bins: Counter[str] = Counter()
    problems: list[str] = []
    first = chunk.number * CHUNK // STORES
    for number in range(first, first + -(-chunk.size // STORES)):
        wrong, seen, met = _one(lane, chunk.seed, number, logs=logs)
        problems += [f"story {number}: {text}" for text in wrong]
        counts += seen
        counts["stories"] += 1
        bins += met
    return {"problems": problems, "counts": dict(counts), "bins": dict(bins)}


def _one(
    lane: MmuEngineLane, seed: int, number: int, *, logs: bool, lists: bool = False
) -> tuple[list[str], Counter[str], Counter[str]]:
    """A story, what the judge says of it, and the bins it met."""
    stores = 3 * STORES if lists else STORES
    area = draw_story(random.Random(f"{seed} {number}").getrandbits(63), stores, logs=logs, lists=lists)
    before = area.story.words.copy()
    try:
        told = lane.run(area.story)
    except RuleOfUnitBroken as error:
        return [str(error)], Counter(), Counter()
    problems, seen = judge(area, told, before)
    return problems, seen + Counter(cycles=told.cycles), engine_bins(area.asked, told.bins)
