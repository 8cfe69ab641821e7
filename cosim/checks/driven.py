"""Scenarios with some gateware as the MMU, in step with the golden model, whatever drives that gateware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ptewalk.cosim.bench.engine import ENGINE_COUNTS, GatewareEngine
from ptewalk.cosim.bench.engine_lane import EngineLane
from ptewalk.cosim.checks.lockstep import LockstepJudge, Watch
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.checks.scenarios import Setup, run_all
from ptewalk.cosim.formats.scenarios import without_answers
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu
from ptewalk.model.profiles import NAMED

__all__ = ["Driven", "Engines", "check_all", "replay_all"]


class Driven(Protocol):
    """Gateware that machines have as their MMU, and what watches it."""

    @property
    def watch(self) -> Watch:
        """What it finds in a step differs in that step."""

    def mmu(self, memory: SparseMemory) -> Mmu:
        """The MMU of a new machine."""

    def told(self) -> dict[str, Any]:
        """What was counted: events, traced, counters."""


class Engines:
    """A table engine for each machine, all of them on one lane.

    Parameters
    ----------
    library : str or None
        What `runs.engine.built_engine` built; None: there is none.
    seed : int or None
        As in `GatewareEngine`.

    Attributes
    ----------
    counts : Counter of str
        What they did.
    """

    def __init__(self, library: str | None, seed: int | None) -> None:
        self._lane = None if library is None else _lane(library)
        self._seed = seed
        self._problems: list[str] = []
        self.counts: Counter[str] = Counter()

    def of(self, memory: SparseMemory) -> GatewareEngine | None:
        """The engine of a new machine."""
        if self._lane is None:
            return None
        return GatewareEngine(self._lane, memory, self.counts, self._problems, seed=self._seed)

    def take(self) -> list[str]:
        """What went wrong since the last call."""
        found = self._problems[:]
        self._problems.clear()
        return found

    def told(self) -> dict[str, int] | None:
        """The counts; None where there is no engine."""
        return None if self._lane is None else {name: self.counts[name] for name in ENGINE_COUNTS}


@lru_cache(maxsize=2)
def _lane(library: str) -> EngineLane:
    return EngineLane(Path(library))


def replay_all(values: dict[str, Any], begin: Callable[[int | None, Engines], Driven]) -> dict[str, Any]:
    """Recorded scenarios; each store and load goes through the gateware, in step with the golden model.

    Each of `jobs` is a `ReplayJob`, `begin` is given its seed. `engine` is the library of the table engine that does
    what /proc does to tables; without it arrays are changed. `results` has for each that of `ReplayJob.run`, with
    `words`, what `Driven.told`, and `engine`, what that counted.
    """
    results = []
    for fields in values["jobs"]:
        job = ReplayJob.from_json(fields)
        engines = Engines(values.get("engine"), job.seed)
        driven = begin(job.seed, engines)
        judge = LockstepJudge(job.picture, driven.watch)
        result = job.run(judge, driven.mmu)
        results.append(result | {"words": judge.words, "engine": engines.told()} | driven.told())
    return {"results": results}


def check_all(values: dict[str, Any], begin: Callable[[int | None, Engines], Driven]) -> dict[str, Any]:
    """Scenarios without recordings, most of them random; each store and load goes through the gateware."""
    engines = Engines(values.get("engine"), values.get("seed"))
    driven = begin(values.get("seed"), engines)
    profile, exact = NAMED[values["profile"]]
    setup = Setup(profile, Track[values["track"].upper()], values["soft_dirty"], driven.mmu, exact, driven.watch)
    told = run_all([without_answers(lines) for lines in values["scenarios"]], setup)
    return told | {"engine": engines.told()} | driven.told()
