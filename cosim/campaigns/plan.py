"""What a campaign does: a plan file in TOML, its parts, and their chunks, of which each can be run alone.

A plan file::

    seed = 5

    [[part]]
    name = "walks"
    kind = "walks"
    count = 1_000_000

Further keys of a part are options of its kind; see `kinds.KINDS`, and docs/campaigns.md.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.campaigns.kinds import KINDS, options_of
from ptewalk.cosim.runs.plans import walks_plan
from ptewalk.cosim.runs.workers import Chunk

__all__ = ["PLANS", "Part", "Plan", "read_plan"]

PLANS: Final = Path(__file__).parent / "plans"
"""Where the plans are that come with ptewalk; they go by their names."""
_SEEDS: Final = 1 << 63


@dataclass(frozen=True)
class Part:
    """A part of a plan.

    Attributes
    ----------
    name : str
        Of its own in the plan.
    kind : str
        A key of `KINDS`.
    count : int
        How many cases, in the kind's unit.
    seed : int
    options : dict
        Every option of the kind, with its value.
    """

    name: str
    kind: str
    count: int
    seed: int
    options: dict[str, Any]

    def chunks(self) -> list[Chunk]:
        """Its chunks; their numbers count from 0."""
        return walks_plan(self.seed, self.count, KINDS[self.kind].chunk)


@dataclass(frozen=True)
class Plan:
    """A campaign.

    Attributes
    ----------
    name : str
        That of the file, without its ending.
    argument : str
        What names the plan on the command line.
    parts : tuple of Part
    """

    name: str
    argument: str
    parts: tuple[Part, ...]

    def part(self, name: str) -> Part:
        """The part of this name; `ToolError` when there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise ToolError(f"{self.argument} has no part {name!r}: choose of {', '.join(one.name for one in self.parts)}")

    def as_json(self) -> list[dict[str, Any]]:
        """What makes it this plan and no other."""
        return [asdict(part) for part in self.parts]


def read_plan(argument: str, *, seed: int | None = None, share: int = 1, only: tuple[str, ...] = ()) -> Plan:
    """The plan in a file, or one that comes with ptewalk, by its name.

    Parameters
    ----------
    argument : str
    seed : int, optional
        Instead of that of the plan.
    share : int
        Of each part one in so many cases, one at least.
    only : tuple of str
        Names of parts; empty: all.

    Raises
    ------
    ToolError
        It cannot be read, or is no plan; the line names part, key and what is known.
    """
    known = sorted(path.stem for path in PLANS.glob("*.toml"))
    path = PLANS / f"{argument}.toml" if argument in known else Path(argument)
    try:
        text = path.read_bytes().decode()
        told = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is no text"
        raise ToolError(f"{argument}: {why}; name a plan file, or one of {', '.join(known)}") from error
    except tomllib.TOMLDecodeError as error:
        raise ToolError(f"{argument}: no TOML: {error}") from error
    plan = _Reader(argument)
    plan.refuse(told, {"seed", "part"}, "the plan")
    own = plan.number(told, "seed", "the plan", 0, _SEEDS - 1) if seed is None else seed
    parts = told.get("part")
    if not isinstance(parts, list) or not parts or not all(isinstance(one, dict) for one in parts):
        raise ToolError(f"{argument}: no part: write [[part]] with name, kind and count")
    found = [plan.part(one, number, own, share) for number, one in enumerate(parts, 1)]
    names = [part.name for part in found]
    for name in names:
        if names.count(name) > 1:
            raise ToolError(f"{argument}: two parts are named {name!r}: give each a name of its own")
    whole = Plan(path.stem, argument, tuple(found))
    return Plan(path.stem, argument, tuple(whole.part(name) for name in only)) if only else whole


class _Reader:
    """Takes a plan apart, and says in one line what is wrong with it."""

    def __init__(self, argument: str) -> None:
        self._argument = argument

    def refuse(self, given: dict[str, Any], known: set[str], where: str) -> None:
        """`ToolError` for a key that is not known."""
        for key in given:
            if key not in known:
                raise ToolError(f"{self._argument}: {where} has no {key!r}: known are {', '.join(sorted(known))}")

    def number(self, given: dict[str, Any], key: str, where: str, least: int, most: int) -> int:
        """A whole number of these bounds."""
        value = given.get(key)
        if type(value) is not int or not least <= value <= most:
            said = "is missing" if value is None else f"is {value!r}"
            raise ToolError(f"{self._argument}: {key} of {where} {said}: give a whole number from {least} to {most}")
        return value

    def part(self, given: dict[str, Any], number: int, seed: int, share: int) -> Part:
        """One part."""
        name = given.get("name")
        if not isinstance(name, str) or not name:
            raise ToolError(f"{self._argument}: part {number} has no name: give it one")
        where = f"part {name!r}"
        kind = given.get("kind")
        if kind not in KINDS:
            raise ToolError(f"{self._argument}: kind of {where} is {kind!r}: choose of {', '.join(sorted(KINDS))}")
        self.refuse(given, {"name", "kind", "count", "seed", *KINDS[kind].options}, where)
        count = self.number(given, "count", where, 1, 10**12) if "count" in given or kind != "command" else 1
        own = self.number(given, "seed", where, 0, _SEEDS - 1) if "seed" in given else seed
        try:
            options = options_of(kind, {key: given[key] for key in KINDS[kind].options if key in given})
        except ToolError as error:
            raise ToolError(f"{self._argument}: {where}: {error}") from None
        return Part(name, kind, max(1, count // share), own, options)
