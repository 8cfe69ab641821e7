"""Scenarios with the gateware as the MMU: recorded ones, random ones, and the fewest steps that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.checks.reproduce import Place
from ptewalk.cosim.checks.scenarios import Setup, run_all
from ptewalk.cosim.formats.scenarios import Line, scenario_lines
from ptewalk.cosim.stimulus.shrink import prefix
from ptewalk.model.linux import Track
from ptewalk.model.profiles import NAMED
from ptewalk.model.scenario.format import Scenario

__all__ = ["check_on_gateware", "check_scenarios", "reduce_gateware", "replay_gateware"]

_MANY: Final = 100
"""Scenarios among which some stores to tracked pages must be."""


def _built(simulator: str | None, soft_dirty: bool) -> Any:
    """The gateware, built. Imported here: what runs on the model alone needs no Amaranth."""
    from ptewalk.cosim.runs.gateware import BuiltWalker
    from ptewalk.rtl.mmu import MmuConfig
    from ptewalk.rtl.walker import WalkerConfig

    return BuiltWalker.make(simulator, MmuConfig(WalkerConfig(soft_dirty=soft_dirty)))


def replay_gateware(
    jobs: Sequence[ReplayJob], simulator: str | None, *, timeout: float = 3600.0
) -> list[dict[str, Any]]:
    """Replay each job on the gateware in step with the golden model, in one run of the simulator.

    The jobs must agree on `soft_dirty`. Each result is that of `ReplayJob.run` with `words` (of memory compared),
    `counters` (the gateware's own) and `simulator`.
    """
    for job in jobs:
        job.scenarios()
    (soft_dirty,) = {job.soft_dirty for job in jobs}
    built = _built(simulator, soft_dirty)
    values = {"jobs": [asdict(job) for job in jobs]}
    results = built.run("ptewalk.cosim.runs.inside.tb_replay", "replayed", values, timeout)["results"]
    return [result | {"simulator": built.simulator} for result in results]


def check_on_gateware(
    scenarios: Sequence[Scenario],
    profile: str,
    track: str,
    soft_dirty: bool,
    simulator: str | None,
    *,
    timeout: float = 7200.0,
) -> dict[str, Any]:
    """What `run_all` gives with the gateware as MMU, its `counters`, and `simulator`."""
    built = _built(simulator, soft_dirty)
    values = {
        "profile": profile,
        "track": track,
        "soft_dirty": soft_dirty,
        "scenarios": [scenario_lines(scenario) for scenario in scenarios],
    }
    result = built.run("ptewalk.cosim.runs.inside.tb_generated", "checked", values, timeout)
    return result | {"simulator": built.simulator}


def check_scenarios(
    scenarios: Sequence[Scenario], backend: str, profile: str, track: str, soft_dirty: bool, simulator: str | None
) -> dict[str, Any]:
    """Run scenarios that have no recording: as `run_all` or `check_on_gateware`, with `missing`.

    `missing` says in words what was promised and not done; "" for nothing.

    Raises
    ------
    ToolError
        Bad arguments, or nothing can be compared: the model alone checks something only where the MMU tracks.
    """
    kernel, exact = NAMED[profile]
    setup = Setup(kernel, Track[track.upper()], soft_dirty, exact=exact)
    if backend == "gateware":
        result = check_on_gateware(scenarios, profile, track, soft_dirty, simulator)
    elif setup.tracks:
        result = run_all(scenarios, setup)
    else:
        raise ToolError(
            "there is no recording to compare with: give --backend gateware or linux, or, to check on the model that "
            "no store is missed, --track fault or native"
        )
    promised = sum(len(scenario.steps) for scenario in scenarios)
    done = result["agree"] + result["differ"] + result["skipped"]
    missing = []
    if not result["differ"] and done != promised:
        missing.append(f"{done} steps of {promised} were run")
    if backend == "gateware" and not result["words"]:
        missing.append("no word of memory was compared")
    if setup.tracks and not result["stored"] and len(scenarios) >= _MANY:
        missing.append("no stored page was looked up")
    return result | {"missing": "; ".join(missing)}


def reduce_gateware(place: Place, job: ReplayJob, simulator: str | None) -> list[Line]:
    """Shrink where gateware and golden model differ; where only the recording differs, as `reduce_recorded`."""
    cut = prefix(place.scenario, place.step + 1)
    found = check_on_gateware([cut], job.profile, job.track, job.soft_dirty, simulator)
    shrunk: list[Line] | None = found["shrunk"]
    return scenario_lines(cut) if shrunk is None else shrunk
