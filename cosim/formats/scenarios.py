"""Scenarios as the co-simulation handles them: read from files, asked of a kernel, written as lines of the format."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from ptewalk.cosim.base.errors import ToolError
from ptewalk.model.scenario.format import FormatError, Scenario, Step, read
from ptewalk.model.scenario.runs import entry_table
from ptewalk.model.x86 import Control, EntryBit

__all__ = [
    "DEFAULT_BASE",
    "Line",
    "Needs",
    "Op",
    "ScenarioRequest",
    "as_request",
    "as_scenario",
    "content_hash",
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

_FIVE_LEVELS: Final = {"cr0": "80050033", "cr4": "751ef0", "efer": "d01"}
"""Keys of the line of a scenario that is to run with CR4.LA57; without them it runs with four levels."""


class Needs(NamedTuple):
    """What a machine must have to run a scenario.

    Two memory nodes, a page of 1 GiB, page tables of five levels; what it is booted with for `thp_anon`.
    """

    two_nodes: bool = False
    gigantic: bool = False
    five_levels: bool = False
    thp_anon: str = ""


@dataclass(frozen=True, slots=True)
class ScenarioRequest:
    """A scenario to execute: what the format's scenario line and the operations of its step lines say."""

    name: str
    ops: list[Op]
    doc: str = ""
    base: int = DEFAULT_BASE
    five_levels: bool = False
    """Page tables of five levels: CR4.LA57."""
    thp_anon: str = ""
    """Sizes of transparent huge pages that the machine is booted with, as the scenario line says it."""
    files: bool = False
    """What the files of /proc say is recorded too."""

    @property
    def needs(self) -> Needs:
        """Requests with equal needs run on the same machine."""
        return Needs(self.two_nodes, self.gigantic, self.five_levels, self.thp_anon)

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


def as_request(scenario: Scenario) -> ScenarioRequest:
    """A scenario as it is asked of a kernel, with as many levels of page tables as its line says."""
    five_levels = bool(scenario.control >> Control.LA57 & 1)
    operations = [step.op for step in scenario.steps]
    return ScenarioRequest(scenario.name, operations, scenario.doc, scenario.base, five_levels, scenario.thp_anon)


def as_scenario(request: ScenarioRequest) -> Scenario:
    """A scenario without recorded answers."""
    header = _header(request)
    steps = [Step(number, operation, None) for number, operation in enumerate(request.ops, 1)]
    return Scenario(request.name, request.doc, request.base, steps, request.name, header)


def _header(request: ScenarioRequest) -> Line:
    """The scenario line."""
    head: Line = {"t": "scenario", "name": request.name, "doc": request.doc, "base": hex(request.base)}
    head |= {"steps": len(request.ops)} | (_FIVE_LEVELS if request.five_levels else {})
    return head | ({"thp_anon": request.thp_anon} if request.thp_anon else {})


def content_hash(scenarios: Iterable[Scenario]) -> str:
    """SHA-256 over scenarios and answers, in their order: the same for two recordings of one kernel.

    A (bit 5) of leaves does not count where the recording says that it is unsure.
    """
    digest = hashlib.sha256()
    for scenario in scenarios:
        unsure = scenario.header.get("a_unsure_from", len(scenario.steps))
        for index, line in enumerate(scenario_lines(scenario), -1):
            kept = _without_accessed(line) if index >= unsure else line
            digest.update(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode() + b"\n")
    return digest.hexdigest()


def _without_accessed(line: Line) -> Line:
    """A step's line whose leaves are told one by one, without A."""
    state = {
        who: seen | {"ptes": sorted(map(list, entry_table(seen["ptes"] or [], 1 << EntryBit.A).items()))}
        if "ptes" in seen
        else seen
        for who, seen in line.get("state", {}).items()
    }
    return line | {"state": state}


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
    return [_header(request), *({"t": "step", "name": name, "i": i, "op": op} for i, op in enumerate(request.ops))]


def scenario_text(lines: Sequence[Line]) -> str:
    """Lines of the scenario format as the text of a file."""
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)


def plain_text(lines: Sequence[Line]) -> str:
    """The same without answers."""
    return scenario_text(scenario_lines(without_answers(lines)))
