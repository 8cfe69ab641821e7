"""Generated scenarios: random ones that a kernel can run, checked step by step without a recording.

With the gateware as MMU, every word of memory and every answer is compared with the golden model after each step. With
either MMU, in a mode that tracks, no page may read clean after a step that stored to it. The operating system may drop
the mark later (by the profile's own rules); that is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ptewalk.cosim.checks.lockstep import LockstepJudge, Watch
from ptewalk.cosim.formats.scenarios import scenario_lines
from ptewalk.cosim.stimulus.shrink import prefix, shrink
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.proc import pagemap
from ptewalk.model.profile import Profile
from ptewalk.model.scenario.compare import Difference
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.snapshot import Outcome
from ptewalk.model.scenario.verbs import Unsupported

__all__ = [
    "Check",
    "Setup",
    "ScenarioTally",
    "fails",
    "run_all",
    "run_one",
    "scenario_lines",
]

# Which scenarios --------------------------------------------------------------------------------------------------


# Checking ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """What a scenario is run on.

    Attributes
    ----------
    profile : Profile
    track : Track
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    mmu : callable or None
        Makes the MMU, which is compared with the golden model; None: the golden model alone.
    exact : bool
        The machine is exact.
    watch : Watch or None
        What watches that MMU.
    """

    profile: Profile
    track: Track
    soft_dirty: bool = True
    mmu: Callable[[SparseMemory], Mmu] | None = None
    exact: bool = False
    watch: Watch | None = None

    @property
    def tracks(self) -> bool:
        """True when no store may be missed."""
        return self.soft_dirty and self.track != Track.OFF


class Check:
    """What each step is compared with.

    Attributes
    ----------
    stored : int
        Pages looked up in pagemap because they had been stored to: one for each page and step.
    dropped : Counter of str
        Verb to pages that read clean after it though they had been stored to and marked before.
    """

    def __init__(self, setup: Setup) -> None:
        self._tracks = setup.tracks
        self._lockstep = LockstepJudge(watch=setup.watch) if setup.mmu else None
        self._known: set[tuple[int, int]] = set()
        self.stored = 0
        self.dropped: Counter[str] = Counter()

    @property
    def words(self) -> int:
        """Words of memory compared with the golden model's."""
        return self._lockstep.words if self._lockstep else 0

    def begin(self, run: Replay) -> None:
        """A scenario begins."""
        self._known.clear()
        if self._lockstep:
            self._lockstep.begin(run)

    def step(self, run: Replay, index: int, outcome: Outcome) -> list[Difference]:
        """What differs after a step."""
        found = self._lockstep.step(run, index, outcome) if self._lockstep else []
        return found + (self._lost(run, index, outcome) if self._tracks else [])

    def _lost(self, run: Replay, index: int, outcome: Outcome) -> list[Difference]:
        """Pages that this step stored to and that read clean."""
        operation = run.scenario.steps[index].op
        clean = self._clean(run)
        lost = clean & _stores(operation, outcome)
        found = []
        for who, at in sorted(lost):
            place = f"pages[{who}][{at}]"
            found.append(Difference(run.scenario.name, index, place, "stored to, reads clean", "soft-dirty"))
        self.dropped[operation["op"]] += len(clean - lost - self._known)
        self._known = clean
        return found

    def _clean(self, run: Replay) -> set[tuple[int, int]]:
        """(process, page) that were stored to and read clean. No kernel tracks the pages of hugetlb mappings."""
        clean: set[tuple[int, int]] = set()
        for who, process in run.kernel.processes.items():
            mm = process.mm
            for area in mm.areas:
                if area.huge_level:
                    continue
                for first, last in mm.stored.within(area.start, area.end):
                    words = pagemap.read(mm, first, last - first)
                    self.stored += last - first
                    start = first - run.kernel.base
                    clean |= {(who, start + int(j)) for j in np.flatnonzero((words & pagemap.SOFT_DIRTY) == 0)}
        return clean


def _stores(operation: dict[str, Any], outcome: Outcome) -> set[tuple[int, int]]:
    """(process, page) that user accesses, or the kernel's copy to user memory, stored to in a step."""
    who, page = operation["who"], operation.get("page", 0)
    if operation["op"] == "syscall_read_into":
        return {(who, page)} if outcome.ret == 1 else set()
    if operation["op"] != "write":
        return set()
    step = operation.get("step") or 1
    return {(who, page + k * step) for k, value in enumerate(outcome.vals) if value == "ok"}


@dataclass
class ScenarioTally:
    """What a run of generated scenarios found.

    Attributes
    ----------
    scenarios, steps, agree, differ, skipped : int
        A scenario's steps after its first difference are not run, so agree + differ + skipped may be less than steps.
    differing : dict
        Scenario to its first difference.
    skipped_scenarios : dict
        Scenario to the reason why the rest of it was skipped.
    shrunk : Scenario or None
        The first scenario that differs, reduced.
    """

    scenarios: int = 0
    steps: int = 0
    agree: int = 0
    differ: int = 0
    skipped: int = 0
    differing: dict[str, Difference] = field(default_factory=dict)
    skipped_scenarios: dict[str, str] = field(default_factory=dict)
    shrunk: Scenario | None = None

    def as_json(self) -> dict[str, Any]:
        """As an object for ``--json``."""
        first = next(iter(self.differing.values()), None)
        return {
            "scenarios": self.scenarios,
            "steps": self.steps,
            "agree": self.agree,
            "differ": self.differ,
            "skipped": self.skipped,
            "first_difference": None if first is None else str(first),
            "differing": {name: str(difference) for name, difference in self.differing.items()},
            "differing_steps": {name: difference.step for name, difference in self.differing.items()},
            "skipped_scenarios": self.skipped_scenarios,
            "shrunk": None if self.shrunk is None else scenario_lines(self.shrunk),
        }


def run_one(scenario: Scenario, setup: Setup, check: Check, tally: ScenarioTally | None = None) -> Difference | None:
    """Run a scenario up to its first difference, which is given."""
    tally = ScenarioTally() if tally is None else tally
    name, steps = scenario.name, scenario.steps
    tally.scenarios += 1
    tally.steps += len(steps)
    run = Replay(
        scenario,
        setup.profile,
        track=setup.track,
        soft_dirty=setup.soft_dirty,
        mmu=setup.mmu or ModelMmu,
        raw_tables=False,
        exact=setup.exact,
    )
    check.begin(run)
    for index in range(len(steps)):
        try:
            found = check.step(run, index, run.step())
        except Unsupported as reason:
            tally.skipped += len(steps) - index
            tally.skipped_scenarios[name] = f"step {index}: {reason}"
            return None
        except Exception as error:  # a wrong answer of the MMU may lead the operating system anywhere
            found = [Difference(name, index, "step", f"{type(error).__name__}: {error}", "a step that ends")]
        if found:
            tally.differ += 1
            tally.differing[name] = found[0]
            return found[0]
        tally.agree += 1
    return None


def fails(setup: Setup) -> Callable[[Scenario], bool]:
    """The predicate for `shrink`: does a scenario differ?"""
    return lambda candidate: run_one(candidate, setup, Check(setup)) is not None


def run_all(scenarios: Iterable[Scenario], setup: Setup, *, reduce: bool = True) -> dict[str, Any]:
    """Run scenarios and count: `ScenarioTally.as_json`, and `words`, `stored` and `dropped` of `Check`.

    Parameters
    ----------
    reduce : bool
        Shrink the first one that differs.
    """
    check, tally = Check(setup), ScenarioTally()
    worst: Scenario | None = None
    for scenario in scenarios:
        if run_one(scenario, setup, check, tally) is not None and worst is None:
            worst = prefix(scenario, tally.differing[scenario.name].step + 1)
    if worst is not None and reduce:
        try:
            tally.shrunk = shrink(worst, fails(setup))
        except ValueError:  # it does not come again under other conditions
            tally.shrunk = worst
    dropped = {verb: count for verb, count in check.dropped.most_common() if count}
    return tally.as_json() | {"words": check.words, "stored": check.stored, "dropped": dropped}


# On either backend ------------------------------------------------------------------------------------------------
