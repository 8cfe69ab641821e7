"""Scenarios with some gateware as the MMU, in step with the golden model, whatever drives that gateware."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ptewalk.cosim.checks.lockstep import LockstepJudge, Watch
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.checks.scenarios import Setup, run_all
from ptewalk.cosim.formats.scenarios import without_answers
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu
from ptewalk.model.profiles import NAMED

__all__ = ["Driven", "check_all", "replay_all"]


class Driven(Protocol):
    """Gateware that machines have as their MMU, and what watches it."""

    @property
    def watch(self) -> Watch:
        """What it finds in a step differs in that step."""

    def mmu(self, memory: SparseMemory) -> Mmu:
        """The MMU of a new machine."""

    def told(self) -> dict[str, Any]:
        """What was counted: events, traced, counters."""


def replay_all(values: dict[str, Any], begin: Callable[[int | None], Driven]) -> dict[str, Any]:
    """Recorded scenarios; each store and load goes through the gateware, in step with the golden model.

    Each of `jobs` is a `ReplayJob`, `begin` is given its seed. `results` has for each that of `ReplayJob.run`, with
    `words`, and what `Driven.told`.
    """
    results = []
    for fields in values["jobs"]:
        job = ReplayJob.from_json(fields)
        driven = begin(job.seed)
        judge = LockstepJudge(job.picture, driven.watch)
        result = job.run(judge, driven.mmu)
        results.append(result | {"words": judge.words} | driven.told())
    return {"results": results}


def check_all(values: dict[str, Any], begin: Callable[[int | None], Driven]) -> dict[str, Any]:
    """Scenarios without recordings, most of them random; each store and load goes through the gateware."""
    driven = begin(values.get("seed"))
    profile, exact = NAMED[values["profile"]]
    setup = Setup(profile, Track[values["track"].upper()], values["soft_dirty"], driven.mmu, exact, driven.watch)
    return run_all([without_answers(lines) for lines in values["scenarios"]], setup) | driven.told()
