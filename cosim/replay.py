"""`ptewalk replay`: scenarios on the golden model or on the gateware, against what real kernels answered."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ptewalk.cosim.errors import ToolError
from ptewalk.cosim.relation import RelationJudge
from ptewalk.model import scenario as scenarios
from ptewalk.model.linux import PROFILES, Track
from ptewalk.model.scenario import FormatError, Report, Scenario

__all__ = ["collect", "load", "replay_gateware", "replay_model"]


def load(files: Iterable[Path], names: Iterable[str] | None = None) -> list[Scenario]:
    """The scenarios of `files`, those called `names` only when given.

    Raises `ToolError` for a file that is malformed, and for a name that is in none of them.
    """
    try:
        found = [scenario for file in files for scenario in scenarios.read(file)]
    except FormatError as error:
        raise ToolError(str(error)) from None
    if names is None:
        return found
    wanted = set(names)
    missing = wanted - {scenario.name for scenario in found}
    if missing:
        raise ToolError(f"no scenario {min(missing)!r} in the files given")
    return [scenario for scenario in found if scenario.name in wanted]


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
        "skipped_scenarios": report.skipped_scenarios,
    }


def check_profile(profile: str) -> None:
    """`ToolError` when there is no such profile."""
    if profile not in PROFILES:
        raise ToolError(f"no profile {profile!r}: choose one of {', '.join(PROFILES)}")


def replay_model(
    files: list[Path], names: list[str] | None, profile: str, track: str, soft_dirty: bool
) -> dict[str, Any]:
    """Replay on the golden model; see `collect`, and `closed` of cosim/relation.py."""
    check_profile(profile)
    judge = RelationJudge()
    chosen = load(files, names)
    report = scenarios.replay(chosen, profile, track=Track[track.upper()], soft_dirty=soft_dirty, judge=judge)
    return collect(report) | {"closed": judge.closed}


def replay_gateware(
    files: list[Path],
    names: list[str] | None,
    profile: str,
    track: str,
    soft_dirty: bool,
    simulator: str | None,
    *,
    timeout: float = 3600.0,
) -> dict[str, Any]:
    """Replay on the gateware in step with the golden model; adds `words`, `counters` and `simulator`."""
    from ptewalk.cosim.gateware import BuiltWalker
    from ptewalk.rtl.mmu import MmuConfig
    from ptewalk.rtl.walker import WalkerConfig

    check_profile(profile)
    load(files, names)
    built = BuiltWalker.make(simulator, MmuConfig(WalkerConfig(soft_dirty=soft_dirty)))
    values = {
        "files": [str(file.absolute()) for file in files],
        "names": names,
        "profile": profile,
        "track": track,
        "soft_dirty": soft_dirty,
    }
    return built.run("ptewalk.cosim.tb_replay", "replayed", values, timeout) | {"simulator": built.simulator}
