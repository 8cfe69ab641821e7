"""Scenarios with the gateware as the MMU: recorded ones, random ones, and the fewest steps that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.checks.reproduce import Place
from ptewalk.cosim.checks.scenarios import Setup, run_all
from ptewalk.cosim.formats.scenarios import Line, scenario_lines
from ptewalk.cosim.runs.plans import Chunk, Progress, execute
from ptewalk.cosim.stimulus.shrink import prefix
from ptewalk.model.linux import Track
from ptewalk.model.profiles import NAMED
from ptewalk.model.scenario.format import Scenario

__all__ = ["check_on_gateware", "check_scenarios", "reduce_gateware", "replay_gateware"]

_CHUNK: Final = 25
"""Scenarios in a part of a run by several processes, at most."""
_MANY: Final = 100
"""Scenarios among which some stores to tracked pages must be; steps after which somebody has pages to be told."""


def _built(simulator: str | None, soft_dirty: bool, design: str, registers: bool) -> Any:
    """The gateware, built. Imported here: what runs on the model alone needs no Amaranth."""
    from ptewalk.cosim.runs.caching_library import gateware_named
    from ptewalk.cosim.runs.unit_library import unit_named
    from ptewalk.rtl.walker import WalkerConfig

    walker = WalkerConfig(soft_dirty=soft_dirty)
    return unit_named(design, walker, simulator) if registers else gateware_named(design, walker, simulator)


def _engine(by: Any) -> str | None:
    """The library of the table engine, by CXXRTL if `by` is, else by Verilator; None where there is none."""
    from ptewalk.cosim.runs.engine import built_engine, can_build

    name = by.model.simulator.name if by.in_process else "verilator"
    if not by.needs_engine:
        return None
    return str(built_engine(simulator=name).library) if can_build(name) else None


def _few_commands(by: Any, told: dict[str, Any]) -> str:
    """A unit's engine did so little that others must have done it: said in words, or ""."""
    if not by.has_engine or not told:
        return ""
    steps, done = told["agree"] + told["differ"], told["driver"]["commands"]
    return f"the table engine did {done} commands in {steps} steps" if steps >= _MANY and done < steps else ""


def _merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Results of parts of one whole, in order: numbers add, lists and texts follow, the first of firsts stays."""
    whole: dict[str, Any] = {}
    for part in parts:
        for name, value in part.items():
            old = whole.get(name)
            if old is None:
                whole[name] = value
            elif isinstance(value, dict):
                whole[name] = _merged([old, value])
            elif isinstance(value, (int, list)) and not name.startswith(("first_", "differing_", "shrunk")):
                whole[name] = old + value
    return whole


def _groups(scenarios: Sequence[Scenario], workers: int) -> list[list[Scenario]]:
    """Scenarios in as many parts as keep all workers busy to the end."""
    size = max(1, min(_CHUNK, -(-len(scenarios) // workers))) if workers > 1 else max(1, len(scenarios))
    return [list(scenarios[first : first + size]) for first in range(0, len(scenarios), size)]


def replay_gateware(
    jobs: Sequence[ReplayJob],
    simulator: str | None,
    *,
    by: Any = None,
    protocol: bool = False,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> list[dict[str, Any]]:
    """Replay each job on the gateware in step with the golden model.

    The jobs must agree on `soft_dirty`, `design` and `registers`. Each result is that of `performances.replayed` with
    `simulator`, and `missing`: what was promised and not done, in words; "" for nothing.

    Parameters
    ----------
    jobs : sequence of ReplayJob
    simulator : str or None
    by : gateware.Gateware, optional
        What runs it; by default what is fastest.
    protocol : bool
        At the protocol level.
    workers : int
        Processes, where the model is a library.
    progress : callable
        Called with (parts done, parts).
    """
    found = [job.scenarios() for job in jobs]
    (how,) = {(job.soft_dirty, job.design, job.registers) for job in jobs}
    built = by or _built(simulator, *how)
    engine = _engine(built)
    if not built.in_process:
        values = {"jobs": [asdict(job) for job in jobs], "engine": engine}
        told: list[dict[str, Any]] = built.perform("replayed", values, protocol=protocol)["results"]
        return [one | {"simulator": built.simulator, "missing": ""} for one in told]
    parts: list[ReplayJob] = []
    whose: list[int] = []
    for place, (job, scenarios) in enumerate(zip(jobs, found, strict=True)):
        for group in _groups(scenarios, workers) or [[]]:
            names = tuple(dict.fromkeys(scenario.name for scenario in group))
            parts.append(job if workers <= 1 else replace(job, names=names))
            whose.append(place)

    def work(chunk: Chunk) -> dict[str, Any]:
        told: dict[str, Any] = built.perform("replayed", {"jobs": [asdict(parts[chunk.number])], "engine": engine})[
            "results"
        ][0]
        return told

    chunks = [Chunk(0, number, 1) for number in range(len(parts))]
    results = execute(chunks, work, jobs=workers, progress=progress)
    own = [[one for one, place in zip(results, whose, strict=True) if place == index] for index in range(len(jobs))]
    merged = [_merged(mine) | {"simulator": built.simulator} for mine in own]
    return [one | {"missing": _few_commands(built, one)} for one in merged]


def check_on_gateware(
    scenarios: Sequence[Scenario],
    profile: str,
    track: str,
    soft_dirty: bool,
    simulator: str | None,
    *,
    by: Any = None,
    design: str = "mmu-uncached",
    registers: bool = False,
    seed: int | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """What `performances.checked` gives, `simulator`, and `missing` as in `replay_gateware`; `seed` is that of the
    conditions.
    """
    built = by or _built(simulator, soft_dirty, design, registers)
    engine = _engine(built)
    groups = _groups(scenarios, workers if built.in_process else 1)

    def work(chunk: Chunk) -> dict[str, Any]:
        lines = [scenario_lines(scenario) for scenario in groups[chunk.number]]
        own = None if seed is None else seed + chunk.number
        values = {"profile": profile, "track": track, "soft_dirty": soft_dirty, "scenarios": lines, "seed": own}
        values["engine"] = engine
        return built.perform("checked", values)

    chunks = [Chunk(seed or 0, number, len(group)) for number, group in enumerate(groups)]
    told = _merged(execute(chunks, work, jobs=workers, progress=progress)) | {"simulator": built.simulator}
    return told | {"missing": _few_commands(built, told)}


def check_scenarios(
    scenarios: Sequence[Scenario],
    backend: str,
    profile: str,
    track: str,
    soft_dirty: bool,
    simulator: str | None,
    *,
    design: str = "mmu-uncached",
    registers: bool = False,
    seed: int | None = None,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
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
        how: dict[str, Any] = {"design": design, "registers": registers, "seed": seed, "workers": workers}
        how["progress"] = progress
        result = check_on_gateware(scenarios, profile, track, soft_dirty, simulator, **how)
    elif setup.tracks:
        result = run_all(scenarios, setup)
    else:
        raise ToolError(
            "there is no recording to compare with: give --backend gateware or linux, or, to check on the model that "
            "no store is missed, --track fault or native"
        )
    promised = sum(len(scenario.steps) for scenario in scenarios)
    done = result["agree"] + result["differ"] + result["skipped"]
    missing = [result["missing"]] if result.get("missing") else []
    if not result["differ"] and done != promised:
        missing.append(f"{done} steps of {promised} were run")
    if backend == "gateware" and not result["words"]:
        missing.append("no word of memory was compared")
    if backend == "gateware" and promised and not result["events"]:
        missing.append("no access of the event log was compared")
    if setup.tracks and not result["stored"] and len(scenarios) >= _MANY:
        missing.append("no stored page was looked up")
    return result | {"missing": "; ".join(missing)}


def reduce_gateware(place: Place, job: ReplayJob, simulator: str | None) -> list[Line]:
    """Shrink where gateware and golden model differ; where only the recording differs, as `reduce_recorded`."""
    cut = prefix(place.scenario, place.step + 1)
    how: dict[str, Any] = {"design": job.design, "registers": job.registers, "seed": job.seed}
    found = check_on_gateware([cut], job.profile, job.track, job.soft_dirty, simulator, **how)
    shrunk: list[Line] | None = found["shrunk"]
    return scenario_lines(cut) if shrunk is None else shrunk
