"""Names in waves: beside each signal whose values have names, a signal of text that every viewer shows as it is.

Amaranth writes an enumeration's names as attributes of the Verilog; in the designs of rtl/ the last part of a signal's
name tells its enumeration, too. In a VCD file `state` so gets a neighbour `state_name`, of the type `string` that
GTKWave and Surfer read; and after each signal a comment, which they pass over, tells the line of Python that declares
it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import IO, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.model import linux, x86

__all__ = ["FIELDS", "SOURCE", "enumerations", "name_values", "sources"]

FIELDS: Final[Mapping[str, type[IntEnum]]] = {
    "access": x86.Access,
    "outcome": x86.Outcome,
    "track": linux.Track,
}
"""Last part of a signal's name to what its values mean, in the designs of rtl/."""

Names = dict[int, str]

SOURCE: Final = "$comment src "
"""What the comment with a signal's line of Python begins with."""
_LINE: Final = re.compile(r'\(\* src = "([^"|]+)[^"]*" \*\)')
_ATTRIBUTE: Final = re.compile(r'\(\* enum_value_([01]+) = "(\w+)" \*\)')
_MODULE: Final = re.compile(r"module (\S+?) ?\(")
_DECLARED: Final = re.compile(r"(?:wire|reg|output|input)(?: reg| wire)? (?:\[[^]]*\] )?(\S+?)(?: =.*)?;")
_SCOPE: Final = re.compile(r"\$scope \w+ (\S+) \$end")
_VAR: Final = re.compile(r"\$var \w+ (\d+) (\S+) (\S+)(?: \[\d+:\d+\])? \$end")


def enumerations(verilog: str) -> dict[tuple[str, str], Names]:
    """(module, signal) to the names of its values, of the attributes that Yosys writes before a declaration."""
    found: dict[tuple[str, str], Names] = {}
    module, names = "", Names()
    for text in map(str.strip, verilog.splitlines()):
        if attribute := _ATTRIBUTE.fullmatch(text):
            names[int(attribute[1], 2)] = attribute[2]
        elif declared := _DECLARED.fullmatch(text):
            if names:
                found[module, declared[1].removeprefix("\\")] = names
            names = Names()
        elif begun := _MODULE.match(text):
            module = begun[1].removeprefix("\\")
    return found


def sources(verilog: str) -> dict[tuple[str, str], str]:
    """(module, signal) to the line of Python that declares it, "rtl/walker.py:210", of the attributes before it."""
    found: dict[tuple[str, str], str] = {}
    module, source = "", ""
    for text in map(str.strip, verilog.splitlines()):
        if line := _LINE.fullmatch(text):
            source = line[1]
        elif declared := _DECLARED.fullmatch(text):
            if source:
                found[module, declared[1].removeprefix("\\")] = source
            source = ""
        elif begun := _MODULE.match(text):
            module, source = begun[1].removeprefix("\\"), ""
    return found


class _Header:
    """Reads the declarations of a VCD file, and adds a signal of names beside each that has them.

    Parameters
    ----------
    verilog : str
    fields : mapping
        Last part of a name to its enumeration.

    Attributes
    ----------
    named : dict of str to tuple of (str, names)
        Identifier of a signal to that of its names, and the names.
    """

    def __init__(self, verilog: str, fields: Mapping[str, type[IntEnum]]) -> None:
        self._known = enumerations(verilog)
        self._sources: dict[tuple[str, ...], dict[str, str]] = {}
        for (module, signal), source in sources(verilog).items():
            self._sources.setdefault(tuple(module.split(".")[1:]), {})[signal] = source
        self._fields = fields
        self._scopes: list[str] = []
        self.named: dict[str, tuple[str, Names]] = {}

    def lines(self, line: str) -> Iterator[str]:
        """What is written instead of a line."""
        yield line
        text = line.strip()
        if scope := _SCOPE.fullmatch(text):
            self._scopes.append(scope[1].removeprefix("\\"))
        elif text.startswith("$upscope"):
            self._scopes.pop()
        elif var := _VAR.fullmatch(text):
            width, identifier, name = int(var[1]), var[2], var[3].removeprefix("\\")
            if source := self._source(name):
                yield f"{SOURCE}{source} $end\n"
            names = self._names(name, width)
            if names:
                own = f"name:{identifier}"  # no simulator makes identifiers this long
                self.named[identifier] = own, names
                yield f"$var string 1 {own} {var[3]}_name $end\n"

    def _source(self, name: str) -> str | None:
        """Where the signal of the present scope is declared: below the top, by the path that its module has."""
        for depth in range(len(self._scopes), 0, -1):
            declared = self._sources.get(tuple(self._scopes[-depth:]), {})
            if name in declared:
                return declared[name]
        return None

    def _names(self, name: str, width: int) -> Names | None:
        for (module, signal), names in self._known.items():
            below = module.split(".")[1:]  # Amaranth's module names are paths; the top may lie in somebody else's
            if signal == name and below and self._scopes[-len(below) :] == below:
                return names
        kind = self._fields.get(re.split(r"\.|__", name)[-1])
        if kind is None or width != max(kind).bit_length():
            return None
        return {int(member): member.name for member in kind}


def _changes(lines: IO[str], named: Mapping[str, tuple[str, Names]]) -> Iterator[str]:
    """The lines after the declarations, with each change of a value followed by its name."""
    for line in lines:
        yield line
        if line[0] not in "bB01xXzZ":
            continue
        bits, _, identifier = line[1:].strip().partition(" ") if line[0] in "bB" else (line[0], "", line[1:].strip())
        found = named.get(identifier)
        if found is not None:
            own, names = found
            known = set(bits) <= {"0", "1"}
            yield f"s{names.get(int(bits, 2), bits) if known else bits} {own}\n"


def name_values(path: Path, verilog: str, *, fields: Mapping[str, type[IntEnum]] | None = None) -> None:
    """Add names of values, and lines of Python, to a VCD file that was recorded of a model of `verilog`.

    Parameters
    ----------
    path : Path
    verilog : str
    fields : mapping, optional
        Last part of a name to its enumeration, where no attribute tells: `FIELDS` for the designs of rtl/.

    Raises
    ------
    ToolError
        The file cannot be written again.
    """
    header = _Header(verilog, fields or {})
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with path.open() as old, fresh.open("w") as new:
            for line in old:
                new.writelines(header.lines(line))
                if line.startswith("$enddefinitions"):
                    break
            new.writelines(_changes(old, header.named))
        os.replace(fresh, path)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; name a folder that can be written and has room") from error
    finally:
        fresh.unlink(missing_ok=True)
