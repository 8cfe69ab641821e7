"""What a replay that differs leaves behind: the scenario, reduced, and the one command that repeats the difference."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ptewalk.cosim.checks.live import kernel_of
from ptewalk.cosim.formats.scenarios import Line, as_request, scenario_lines
from ptewalk.cosim.oracles.linux.machine import LinuxMachines
from ptewalk.cosim.oracles.linux.operations import ScenarioError
from ptewalk.cosim.stimulus.shrink import prefix, shrink
from ptewalk.model.scenario import report as scenarios
from ptewalk.model.scenario.format import Scenario, Step

__all__ = [
    "Place",
    "first_place",
    "reduce_live",
    "reduce_recorded",
    "repeat_command",
]

_LIVE_ATTEMPTS = 300


@dataclass(frozen=True)
class Place:
    """Where a replay differs: the scenario, and the step of its first difference."""

    scenario: Scenario
    step: int


def first_place(asked: Sequence[Scenario], result: dict[str, Any]) -> Place | None:
    """Where the result of a replay differs first; None: nowhere."""
    steps: dict[str, int] = result["differing_steps"]
    return next((Place(found, steps[found.name]) for found in asked if found.name in steps), None)


def reduce_recorded(place: Place) -> list[Line]:
    """The scenario up to the step that differs, with its answers: a recording cannot be asked about anything else."""
    return scenario_lines(prefix(place.scenario, place.step + 1))


def reduce_live(place: Place, profile: str, kernel: str | None, *, attempts: int = _LIVE_ATTEMPTS) -> list[Line]:
    """Shrink where golden model and live kernel differ: the kernel is asked about each candidate.

    The result carries the kernel's answers. When the difference does not come again, as `reduce_recorded`.
    """
    with LinuxMachines(kernel_of(profile, kernel)) as machines:

        def answered(candidate: Scenario) -> Scenario | None:
            """The candidate with the kernel's answers; None when it cannot be run."""
            try:
                header, *lines = machines.run(as_request(candidate))
            except ScenarioError:
                return None
            steps = [Step(number, line["op"], line) for number, line in enumerate(lines, 2)]
            return Scenario(candidate.name, candidate.doc, candidate.base, steps, candidate.source, header)

        def differs(candidate: Scenario) -> bool:
            asked = answered(candidate)
            return asked is not None and scenarios.replay([asked], profile).differ > 0

        try:
            small = answered(shrink(prefix(place.scenario, place.step + 1), differs, attempts=attempts))
        except ValueError:
            small = None
    return reduce_recorded(place) if small is None else scenario_lines(small)


def repeat_command(file: str, options: dict[str, Any]) -> str:
    """`ptewalk replay` of a file with those of the options that are set."""
    words = ["ptewalk", "replay", file]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value:
            words += [f"--{name}", str(value)]
    return shlex.join(words)
