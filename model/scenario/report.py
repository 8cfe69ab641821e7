"""Running whole files and counting what agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import NAMED
from ptewalk.model.scenario.compare import Difference, differences
from ptewalk.model.scenario.format import Scenario, boots_with_v1
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.snapshot import Outcome
from ptewalk.model.scenario.verbs import Unsupported
from ptewalk.model.state.choices import keeps_first_layout


@dataclass
class Report:
    """What a replay found.

    Attributes
    ----------
    scenarios, steps, agree, differ, skipped : int
        agree + differ + skipped = steps.
    first_difference : Difference or None
    differing : dict
        Scenario to its first difference.
    skipped_scenarios : dict
        Scenario to the reason why the rest of it was skipped.
    """

    scenarios: int = 0
    steps: int = 0
    agree: int = 0
    differ: int = 0
    skipped: int = 0
    first_difference: Difference | None = None
    differing: dict[str, Difference] = field(default_factory=dict)
    skipped_scenarios: dict[str, str] = field(default_factory=dict)


class Judge:
    """What the steps of a replay are compared with: here, their recording."""

    def begin(self, run: Replay) -> None:
        """A scenario begins."""

    def step(self, run: Replay, index: int, outcome: Outcome) -> list[Difference] | None:
        """What differs after a step; None when there is nothing to compare with."""
        scenario = run.scenario
        if scenario.steps[index].recorded is None:
            return None
        return differences(
            scenario, index, outcome, raw_tables=run.raw_tables, allowed=self.allowed(run), tables=run.table_ids
        )

    def allowed(self, run: Replay) -> Callable[[int, int, Any, Any], bool]:
        """See `differences`."""
        return lambda who, at, captured, expected: False


def replay(
    scenarios: Iterable[Scenario],
    profile: str | Profile,
    *,
    exact: bool = False,
    track: Track = Track.OFF,
    soft_dirty: bool = True,
    mmu: Callable[[SparseMemory], Mmu] = ModelMmu,
    pagemap_v2: str = "after_first_clear4",
    progress: Callable[[Scenario], None] | None = None,
    judge: Judge | None = None,
) -> Report:
    """Run scenarios under a profile and compare every step with its recording.

    Parameters
    ----------
    profile : str or Profile
        A name of `profiles.NAMED`, or a profile.
    exact : bool
        See `MachineState`; a name tells it too.
    track : Track
        Raw tables are compared in `off` only: the other ways write other bits.
    soft_dirty : bool
        False: CONFIG_MEM_SOFT_DIRTY=n.
    mmu : callable
        Makes the MMU for a physical memory: the golden one by default.
    pagemap_v2 : str
        For the 3.11 profiles: "never", "after_first_clear4" or "always". The second is "never" for a scenario that
        `keeps_first_layout`.
    progress : callable or None
        Called before each scenario.
    judge : Judge or None
        What each step is compared with: the recording by default.

    Raises
    ------
    ValueError
        No such profile, or no such layout switch.
    """
    if isinstance(profile, str):
        if profile not in NAMED:
            raise ValueError(f"profile must be one of {', '.join(NAMED)}, not {profile!r}")
        profile, exact = NAMED[profile]
    if pagemap_v2 not in ("never", "after_first_clear4", "always"):
        raise ValueError(f"pagemap_v2 must be never, after_first_clear4 or always, not {pagemap_v2!r}")
    report = Report()
    booted = False
    v2 = True
    for scenario in scenarios:
        if progress:
            progress(scenario)
        if boots_with_v1(scenario.name):
            v2 = v2 and booted
            booted = True
        else:
            v2, booted = True, False
        fixed = pagemap_v2 == "never" or (
            boots_with_v1(scenario.name) and keeps_first_layout((step.op, step.recorded) for step in scenario.steps)
        )
        if fixed:
            v2 = False
        elif pagemap_v2 == "always":
            v2 = True
        run = Replay(
            scenario,
            profile,
            track=track,
            soft_dirty=soft_dirty,
            mmu=mmu,
            pagemap_v2=v2,
            pagemap_fixed=fixed,
            raw_tables=track == Track.OFF and not exact,
            exact=exact,
        )
        _run_one(run, report, judge or Judge())
        v2 = run.kernel.pagemap_v2
    return report


def _run_one(run: Replay, report: Report, judge: Judge) -> None:
    """One scenario into the report."""
    scenario = run.scenario
    report.scenarios += 1
    report.steps += len(scenario.steps)
    judge.begin(run)
    for index in range(len(scenario.steps)):
        try:
            found = judge.step(run, index, run.step())
        except Unsupported as reason:
            report.skipped += len(scenario.steps) - index
            report.skipped_scenarios[scenario.name] = f"step {index}: {reason}"
            return
        if found is None:
            report.skipped += 1
            report.skipped_scenarios.setdefault(scenario.name, f"step {index}: no recorded answer")
        elif not found:
            report.agree += 1
        else:
            report.differ += 1
            report.differing.setdefault(scenario.name, found[0])
            if report.first_difference is None:
                report.first_difference = found[0]
