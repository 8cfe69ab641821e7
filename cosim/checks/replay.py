"""`ptewalk replay`: scenarios on the golden model or on the gateware, against what real kernels answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.relation import RelationJudge
from ptewalk.cosim.formats.scenarios import load
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.mmu import Mmu, ModelMmu
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import NAMED
from ptewalk.model.scenario import report as scenarios
from ptewalk.model.scenario.format import Scenario
from ptewalk.model.scenario.report import Report
from ptewalk.model.x86 import Control

__all__ = [
    "ReplayJob",
    "collect",
    "find_machine",
    "find_profile",
    "load",
    "other_kernel",
    "profiles_of",
    "profiles_of_version",
    "replay_model",
    "summary",
]


def collect(report: Report) -> dict[str, Any]:
    """A report as an object for ``--json``."""
    return {
        "scenarios": report.scenarios,
        "steps": report.steps,
        "agree": report.agree,
        "differ": report.differ,
        "skipped": report.skipped,
        "first_difference": None if report.first_difference is None else str(report.first_difference),
        "differing": {name: str(difference) for name, difference in report.differing.items()},
        "differing_steps": {name: difference.step for name, difference in report.differing.items()},
        "skipped_scenarios": report.skipped_scenarios,
    }


def find_machine(name: str) -> tuple[Profile, bool]:
    """The profile of a name, and whether the machine is exact; `ToolError` when there is none."""
    if name not in NAMED:
        raise ToolError(f"no profile {name!r}: choose one of {', '.join(NAMED)}")
    return NAMED[name]


def find_profile(name: str) -> Profile:
    """The profile; `ToolError` when there is none of that name."""
    return find_machine(name)[0]


_SERIES: Final = {
    "3.11": ("linux-3.11", "linux-seed"),
    "6.1": ("linux-6.1", "exact"),
    **{series: (f"linux-{series}",) for series in ("6.12", "6.18", "7.2", "7.3")},
}
"""Series of a kernel to the profiles that describe it."""


def profiles_of(scenario: Scenario) -> tuple[str, ...] | None:
    """The profiles that describe the kernel a scenario was recorded on; None: its line names no kernel."""
    kernel = scenario.header.get("kernel")
    return profiles_of_version(kernel) if isinstance(kernel, str) else None


def profiles_of_version(kernel: str) -> tuple[str, ...]:
    """The profiles that describe a kernel, such as 6.12.117; none where there are none."""
    return _SERIES.get(".".join(kernel.split(".")[:2]), ())


def summary(scenario: Scenario) -> dict[str, Any]:
    """What a scenario is: name, kernel, profiles, steps, answers, levels, verbs (to how often), doc."""
    verbs = Counter(str(step.op.get("op")) for step in scenario.steps)
    profiles = profiles_of(scenario)
    return {
        "name": scenario.name,
        "kernel": scenario.header.get("kernel"),
        "profiles": None if profiles is None else list(profiles),
        "steps": len(scenario.steps),
        "answers": sum(step.recorded is not None for step in scenario.steps),
        "levels": 5 if scenario.control >> Control.LA57 & 1 else 4,
        "verbs": dict(verbs.most_common()),
        "doc": scenario.doc,
    }


def other_kernel(asked: Iterable[Scenario], differing: Iterable[str], profile: str) -> str | None:
    """A hint when the first scenario that differs was recorded on a kernel that is not the profile's."""
    names = set(differing)
    for scenario in asked:
        described = profiles_of(scenario)
        if scenario.name not in names or described is None:
            continue
        kernel = scenario.header["kernel"]
        if not described:
            return f"{scenario.name} was recorded on {kernel}, which no profile describes"
        if profile in described:
            return None
        return f"{scenario.name} was recorded on {kernel}: give --profile {' or '.join(described)}"
    return None


@dataclass(frozen=True)
class ReplayJob:
    """What to replay, and how.

    Attributes
    ----------
    files : tuple of str
        Scenario files.
    profile : str
        What the operating system does.
    track : str
        "off", "fault" or "native": what the MMU does to entries.
    soft_dirty : bool
        CONFIG_MEM_SOFT_DIRTY.
    names : tuple of str or None
        Only the scenarios of these names.
    picture : str or None
        A scenario whose pages are kept after each step.
    seed : int or None
        On the gateware: latencies, stalls, drains and the rest are drawn anew for each call; None: memory answers at
        once.
    design : str
        Which gateware: "mmu-uncached" caches nothing, the others are `rtl.presets.CACHING`.
    registers : bool
        That gateware in a unit that is used by its registers alone, through the driver.
    """

    files: tuple[str, ...]
    profile: str
    track: str = "off"
    soft_dirty: bool = True
    names: tuple[str, ...] | None = None
    picture: str | None = None
    seed: int | None = None
    design: str = "mmu-uncached"
    registers: bool = False

    @staticmethod
    def from_json(fields: dict[str, Any]) -> ReplayJob:
        """The job that `asdict` made `fields` of, with lists for its tuples."""
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return ReplayJob(**values)

    def scenarios(self) -> list[Scenario]:
        """What is to be run. Raises `ToolError` for bad files, names or profiles."""
        find_profile(self.profile)
        return load(map(Path, self.files), self.names)

    def run(
        self,
        judge: RelationJudge,
        mmu: Callable[[SparseMemory], Mmu] = ModelMmu,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> dict[str, Any]:
        """Replay: `collect`'s object, with `closed` and `picture` of cosim/checks/relation.py.

        `progress` is told before each scenario, with (scenarios done, scenarios).
        """
        asked = self.scenarios()
        number = count()
        report = scenarios.replay(
            asked,
            self.profile,
            track=Track[self.track.upper()],
            soft_dirty=self.soft_dirty,
            mmu=mmu,
            progress=lambda scenario: progress(next(number), len(asked)),
            judge=judge,
        )
        return collect(report) | {"closed": judge.closed, "picture": judge.picture}


def replay_model(job: ReplayJob, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Any]:
    """Replay on the golden model; see `ReplayJob.run`."""
    return job.run(RelationJudge(job.picture), progress=progress)
