"""Random work on an MMU that caches, judged by the golden TLB: in a simulator's process, or here, by the million."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.bench.caching import CachingConditions, RuleOfCachingBroken
from ptewalk.cosim.bench.caching_lane import CachingLane, caching_lane_files
from ptewalk.cosim.checks.caching import judge_run, random_work
from ptewalk.cosim.checks.covered_mmu import mmu_bins
from ptewalk.cosim.runs.gateware import library_of, verilog_of
from ptewalk.cosim.runs.plans import Chunk, Progress, execute, walks_plan
from ptewalk.cosim.simulate.build import BuildDir, build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.simulate.run import run_test
from ptewalk.cosim.stimulus.caches import CacheStory
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe

__all__ = ["CHUNK", "VOLUME_CHUNK", "caching_chunk", "caching_library", "caching_volume", "caching_work"]

CHUNK = 400
"""Requests between two resets."""
VOLUME_CHUNK = 20_000
"""The same where compiled code asks."""
_CHANGES = {False: 0.25, True: 0.1}
"""The chance of a change after a few accesses, by whether there are several walkers."""
_MODULE = "ptewalk.cosim.runs.inside.tb_caching"


def caching_work(
    count: int,
    seed: int,
    *,
    simulator: str | None = None,
    config: CachingMmuConfig | None = None,
    preset: str | None = None,
    conditions: CachingConditions | None = None,
) -> dict[str, Any]:
    """`count` random accesses at protocol level; `preset` is the configuration's name, for the line that repeats it.

    Returns
    -------
    dict
        simulator, compared (answers judged), wrong (how many are not as they must be), failures (the first of them, in
        words), counts: see `checks.caching.CachingVerdict`.

    Raises
    ------
    ToolError
        There is no simulator, or it failed.
    """
    config = config or CachingMmuConfig()
    chosen = select(simulator)
    design = describe(config)
    model = build(chosen, verilog_of(config, flat=chosen.name == "icarus"), design.top, design=design)
    chunks = list(range(-(-count // CHUNK)))
    job: Mapping[str, Any] = {
        "chunks": chunks,
        "size": min(count, CHUNK),
        "seed": seed,
        "conditions": asdict(conditions or CachingConditions()),
    }
    result = run_test(model, _MODULE, testcase="caching", values=job, timeout=None)
    name = f"{chosen.name} {chosen.version_text}"
    if not result.passed:
        raise ToolError(f"{name}: {result.message} (log: {result.log})")
    counts: Counter[str] = Counter()
    failures: list[str] = []
    wrong = 0
    for chunk, told in zip(chunks, result.values["results"], strict=True):
        counts.update(told["counts"])
        by = f"{_named(preset)} --simulator {chosen.name}" + (f" --walks {count}" if conditions else "")
        repeat = f"ptewalk cosim --only caches{by} --seed {seed}{option()}"
        wrong += len(told["problems"])
        failures += [f"caches, chunk {chunk}: {problem}\nrepeat: {repeat}" for problem in told["problems"][:5]]
    return {
        "simulator": name,
        "compared": counts["answers"],
        "wrong": wrong,
        "failures": failures,
        "counts": dict(counts),
    }


def caching_volume(
    count: int,
    seed: int,
    *,
    config: CachingMmuConfig | None = None,
    preset: str | None = None,
    simulator: str = "verilator",
    jobs: int = 1,
    journal: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """`count` random accesses by compiled code, each chunk under conditions of its own; as `caching_work` gives.

    Parameters
    ----------
    preset : str, optional
        The configuration's name, for the line that repeats a failure.
    jobs : int
        Processes.
    journal : Path, optional
        What each chunk gave is appended there; an interrupted run goes on from there.
    progress : callable
        Called with (chunks done, chunks).

    Raises
    ------
    ToolError
        The simulator was not found, or it failed.
    """
    config = config or CachingMmuConfig()
    model = caching_library(config, simulator)
    chosen, design = model.simulator, describe(config)
    chunks = walks_plan(seed, count, VOLUME_CHUNK)
    by = f"{_named(preset)} --simulator {simulator} --walks {count} --seed {seed}{option()}"
    repeat = f"ptewalk cosim --only caches{by}"

    def work(chunk: Chunk) -> dict[str, Any]:
        lane = CachingLane(model.library)
        try:
            return caching_chunk(lane, config, chunk)
        finally:
            lane.close()

    identity = {"design": design.as_json(), "chunks": [count, seed], "model": model.path.name}
    told = execute(chunks, work, jobs=jobs, journal=Journal(journal, identity), progress=progress)
    counts: Counter[str] = Counter()
    failures: list[str] = []
    for number, one in enumerate(told):
        counts.update(one["counts"])
        failures += [f"caches, chunk {number}: {problem}\nrepeat: {repeat}" for problem in one["problems"][:5]]
    name = f"{chosen.name} {chosen.version_text}"
    wrong = sum(len(one["problems"]) for one in told)
    return {"simulator": name, "compared": counts["answers"], "wrong": wrong, "failures": failures, "counts": counts}


def _named(preset: str | None) -> str:
    """The option that chooses it."""
    return "" if preset is None else f" --design {preset}"


def caching_library(config: CachingMmuConfig, simulator: str = "verilator", *, covered: bool = False) -> BuildDir:
    """The model that compiled code drives, built; as `library_of`."""
    return library_of(config, caching_lane_files, simulator, covered=covered)


def caching_chunk(
    lane: CachingLane, config: CachingMmuConfig, chunk: Chunk, *, counts_bins: bool = False
) -> dict[str, Any]:
    """One chunk by compiled code: `problems`, what went wrong in words, and `counts`; see `caching_volume`.

    With `counts_bins` also `bins`, as `covered_mmu.mmu_bins`; else they are empty.
    """
    gc.disable()  # a log is a million small objects, none of them in a cycle
    try:
        return _chunk(lane, config, chunk, counts_bins)
    finally:
        gc.enable()


def _chunk(lane: CachingLane, config: CachingMmuConfig, chunk: Chunk, counts_bins: bool) -> dict[str, Any]:
    name = f"{chunk.seed} {chunk.number}"
    rng = random.Random(f"conditions {name}")
    conditions = CachingConditions(
        idle=rng.choice((0.0, 0.0, 0.2, 0.7)),
        stalls=rng.choice((0.0, 0.1, 0.4)),
        errors=rng.choice((0.0, 0.0, 0.003)),
        drains=rng.choice((0.0, 0.001)),
        latency=rng.choice((1, 1, 2, 4, 16)),
        latency_spread=rng.choice((0, 2, 12)),
        tags=1 << min(config.walker.tag_bits, rng.choice((4, 5, 8))),
    )
    walker = config.walker
    story = CacheStory(name, physical_bits=walker.physical_bits, soft_dirty=walker.soft_dirty, levels=walker.levels)
    asked = random_work(story, chunk.size, name, changes=_CHANGES[config.walkers > 1])
    before = asked.memory.copy()
    try:
        run = lane.run(asked, rng.getrandbits(64), conditions)
    except RuleOfCachingBroken as broken:
        return {"problems": [str(broken)], "counts": {}, "bins": {}}
    log = list(run.read())
    verdict = judge_run(log, run.faults(), before, asked.memory, run.counters.get)
    told = {"drains": run.drains, "cycles": run.cycles}
    bins = dict(sorted(mmu_bins(log).items())) if counts_bins else {}
    return {"problems": verdict.problems, "counts": {**verdict.counts, **run.waits, **told}, "bins": bins}
