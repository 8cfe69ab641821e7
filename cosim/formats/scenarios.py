"""Scenarios as the co-simulation handles them: read from files, asked of a kernel, written as lines of the format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.model.scenario.format import FormatError, Scenario, Step, read

__all__ = [
    "DEFAULT_BASE",
    "Line",
    "Op",
    "ScenarioRequest",
    "as_scenario",
    "load",
    "plain_text",
    "request_lines",
    "scenario_lines",
    "scenario_text",
    "without_answers",
]

DEFAULT_BASE: Final = 0x1000_0000_0000
"""Address of a scenario's first page where it does not name one."""

Line = dict[str, Any]
"""A line of the format, read."""

Op = dict[str, Any]
"""An operation: the `op` of a step's line."""


@dataclass(frozen=True, slots=True)
class ScenarioRequest:
    """A scenario to execute: what the format's scenario line and the operations of its step lines say."""

    name: str
    ops: list[Op]
    doc: str = ""
    base: int = DEFAULT_BASE

    @property
    def needs(self) -> tuple[bool, bool]:
        """(two_nodes, gigantic): requests with equal needs run on the same machine."""
        return self.two_nodes, self.gigantic

    @property
    def two_nodes(self) -> bool:
        """True when it needs a machine with two memory nodes."""
        return any(op.get("op") == "move_pages" for op in self.ops)

    @property
    def gigantic(self) -> bool:
        """True when it needs a page of 1 GiB."""
        return any(op.get("kind") == "hugetlb1g" for op in self.ops)


def load(files: Iterable[Path], names: Iterable[str] | None = None) -> list[Scenario]:
    """The scenarios of `files`, those called `names` only when given.

    Raises `ToolError` for a file that is malformed, and for a name that is in none of them.
    """
    try:
        found = [scenario for file in files for scenario in read(file)]
    except FormatError as error:
        raise ToolError(str(error)) from None
    if names is None:
        return found
    wanted = set(names)
    missing = wanted - {scenario.name for scenario in found}
    if missing:
        raise ToolError(f"no scenario {min(missing)!r} in the files given")
    return [scenario for scenario in found if scenario.name in wanted]


def as_scenario(request: ScenarioRequest) -> Scenario:
    """A scenario without recorded answers."""
    header = {"t": "scenario", "name": request.name, "doc": request.doc, "base": hex(request.base)}
    steps = [Step(number, operation, None) for number, operation in enumerate(request.ops, 1)]
    return Scenario(request.name, request.doc, request.base, steps, request.name, header | {"steps": len(steps)})


def without_answers(lines: Sequence[Line]) -> Scenario:
    """The scenario of lines of the format, to be run without its recorded answers."""
    header, *rest = lines
    steps = [Step(number, line["op"], None) for number, line in enumerate(rest, 2)]
    return Scenario(header["name"], header.get("doc", ""), int(header["base"], 16), steps, header["name"], header)


def scenario_lines(scenario: Scenario) -> list[Line]:
    """The scenario as lines of the format, with its recorded answers where it has them."""
    name = scenario.name
    plain = ({"t": "step", "name": name, "i": i, "op": step.op} for i, step in enumerate(scenario.steps))
    return [
        scenario.header,
        *(line if step.recorded is None else step.recorded for line, step in zip(plain, scenario.steps, strict=True)),
    ]


def request_lines(request: ScenarioRequest) -> list[Line]:
    """A scenario without answers, as lines of the format."""
    name = request.name
    head = {"t": "scenario", "name": name, "doc": request.doc, "base": hex(request.base), "steps": len(request.ops)}
    return [head, *({"t": "step", "name": name, "i": i, "op": op} for i, op in enumerate(request.ops))]


def scenario_text(lines: Sequence[Line]) -> str:
    """Lines of the scenario format as the text of a file."""
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def plain_text(lines: Sequence[Line]) -> str:
    """The same without answers."""
    return scenario_text(scenario_lines(without_answers(lines)))
