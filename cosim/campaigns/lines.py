"""Which statements and branches of the gateware's Python a campaign had in force, and what toggled, file by file."""

from __future__ import annotations

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.points import add_toggles
from ptewalk.cosim.campaigns.coverage import chunks_of
from ptewalk.rtl import points
from ptewalk.rtl.points import LINE, NONE, RTL, TAKEN

__all__ = ["FileLines", "lines_as_json", "lines_of", "statements_of", "unreachable"]


UNREACHABLE: Final = RTL / "unreachable.toml"
"""What no design can have in force, each with its reason."""
_BLOCKS: Final = ("If", "Elif", "Else", "Case", "Default", "State")
_KEYS: Final = {"file", "within", "line", "kind", "reason"}


@dataclass
class FileLines:
    """A file of the gateware.

    Attributes
    ----------
    file : str
        Such as "rtl/walker.py".
    lines, lines_met, branches, branches_met : int
        Statements and branches that can be in force, and those that were.
    excluded : Counter
        Reason to number of points.
    bits, toggled : int
        Of signals that its statements declare and drive, and those that rose and fell.
    still : list of (str, str)
        Name of a signal with bits that did not, and which: "63:32, 5".
    gaps : list of (str, str)
        Name of a point that never was in force, and what stands at its line.
    surprises : list of str
        Points that are excluded and were in force.
    designed : bool
        True: some design of the campaign has a part of it.
    """

    file: str
    lines: int = 0
    lines_met: int = 0
    branches: int = 0
    branches_met: int = 0
    excluded: Counter[str] = field(default_factory=Counter)
    gaps: list[tuple[str, str]] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)
    designed: bool = False
    bits: int = 0
    toggled: int = 0
    still: list[tuple[str, str]] = field(default_factory=list)


def statements_of(text: str) -> dict[tuple[int, str], str]:
    """Line and kind of each point that a file of the gateware can have, to the function that it stands in.

    A function in another, or a method, has the outer name before it: "Walker.elaborate"; outside of any it is "". Every
    `If` and `Elif` has a `NONE`: whether an `Else` follows may hang on the design.
    """
    return dict(_points(ast.parse(text), ""))


def _points(node: ast.AST, within: str) -> Iterator[tuple[tuple[int, str], str]]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        within = f"{within}.{node.name}" if within else node.name
    if isinstance(node, ast.Call):
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr == "eq":
            yield (called.end_lineno or node.lineno, LINE), within
        elif isinstance(called, ast.Name) and called.id == "connect":
            yield (node.lineno, LINE), within
    if isinstance(node, ast.With) and (kind := _block_of(node)) is not None:
        yield (node.lineno, TAKEN), within
        if kind in ("If", "Elif"):
            yield (node.lineno, NONE), within
    for child in ast.iter_child_nodes(node):
        yield from _points(child, within)


def _block_of(node: ast.With) -> str | None:
    """The name of Amaranth's block that a `with` is; None: it is none."""
    call = node.items[0].context_expr
    called = call.func if isinstance(call, ast.Call) else None
    return called.attr if isinstance(called, ast.Attribute) and called.attr in _BLOCKS else None


def _gateware() -> dict[str, str]:
    """Name of each file of the gateware to its text; without the one that adds the points."""
    paths = [path for path in sorted(RTL.rglob("*.py")) if path != Path(points.__file__)]
    return {f"rtl/{path.relative_to(RTL)}": path.read_text() for path in paths}


def unreachable(path: Path = UNREACHABLE, texts: Mapping[str, str] | None = None) -> dict[str, str]:
    """Name of each point that no design can have in force to the reason.

    Parameters
    ----------
    path : Path
        TOML: [[point]] with `file`, the function that it is `within`, the text of its `line`, `kind` and `reason`.
    texts : mapping of str to str, optional
        The gateware's files.

    Raises
    ------
    ToolError
        It cannot be read, or an entry names no point, or several.
    """
    texts = _gateware() if texts is None else texts
    try:
        entries = tomllib.loads(path.read_text()).get("point", [])
    except (OSError, ValueError) as error:
        raise ToolError(f"{path}: {error}") from error
    found = {}
    for number, entry in enumerate(entries, 1):
        if set(entry) != _KEYS or not all(isinstance(value, str) and value for value in entry.values()):
            raise ToolError(f"{path}: point {number}: give {', '.join(sorted(_KEYS))}, each a text")
        text = texts.get(entry["file"], "")
        lines = text.splitlines()
        places = [
            line
            for (line, kind), within in statements_of(text).items()
            if (kind, within, lines[line - 1].strip()) == (entry["kind"], entry["within"], entry["line"])
        ]
        if len(places) != 1:
            what = f"{entry['kind']} of {entry['line']!r} in {entry['within']} of {entry['file']}"
            raise ToolError(f"{path}: point {number}: {len(places)} points are {what}: name one")
        found[f"{entry['file']}:{places[0]} {entry['kind']}"] = entry["reason"]
    return found


def lines_of(folder: Path) -> list[FileLines]:
    """What the chunks of a campaign, ended or not, had in force of each file of the gateware that has statements.

    Empty where no part of it counts lines.

    Raises
    ------
    ToolError
        It holds no campaign, or one of other gateware.
    """
    seen: Counter[str] = Counter()
    toggles: dict[str, tuple[int, int]] = {}
    for one in chunks_of(folder)[1].values():
        seen.update(one.points)
        add_toggles(toggles, one.toggles)
    if not seen:
        return []
    texts = _gateware()
    places = {file: statements_of(text) for file, text in texts.items()}
    known = {f"{file}:{line} {kind}" for file, found in places.items() for line, kind in found}
    if strange := sorted(seen.keys() - known):
        raise ToolError(f"{folder}: {strange[0]} is no point of this gateware; it is of another version: run it anew")
    reasons = unreachable(texts=texts)
    files = [_of_file(file, texts[file], sorted(found), seen, reasons) for file, found in places.items() if found]
    by_name = {one.file: one for one in files}
    for name, (width, bits) in toggles.items():
        file = by_name.get(name.partition(":")[0])
        if file is not None:
            file.bits += width
            file.toggled += bits.bit_count()
            if left := ((1 << width) - 1) & ~bits:
                file.still.append((name, _ranges(left)))
    return files


def _ranges(bits: int) -> str:
    """The numbers of the bits that are set, highest first: "63:32, 5"."""
    text = []
    while bits:
        high = bits.bit_length() - 1
        low = (~bits & (1 << high) - 1).bit_length()
        text.append(f"{high}:{low}" if high > low else f"{high}")
        bits &= (1 << low) - 1
    return ", ".join(text)


def _of_file(
    file: str, text: str, places: list[tuple[int, str]], seen: Mapping[str, int], reasons: Mapping[str, str]
) -> FileLines:
    told = FileLines(file)
    lines = text.splitlines()
    for line, kind in places:
        name = f"{file}:{line} {kind}"
        if kind == NONE and name not in seen:
            continue  # it has an `Else`
        met = bool(seen.get(name))
        told.designed = told.designed or name in seen
        if name in reasons:
            told.excluded[reasons[name]] += 1
            told.surprises += [name] * met
            continue
        if not met:
            told.gaps.append((name, lines[line - 1].strip()))
        if kind == LINE:
            told.lines += 1
            told.lines_met += met
        else:
            told.branches += 1
            told.branches_met += met
    return told


def lines_as_json(found: list[FileLines]) -> list[dict[str, Any]]:
    """Rows for JSON, one for each file that a design of the campaign has."""
    return [
        {
            "file": one.file,
            "lines": one.lines,
            "lines_met": one.lines_met,
            "branches": one.branches,
            "branches_met": one.branches_met,
            "excluded": dict(one.excluded),
            "gaps": [{"point": name, "text": text} for name, text in one.gaps],
            "surprises": one.surprises,
            "bits": one.bits,
            "toggled": one.toggled,
            "still": [{"signal": name, "bits": bits} for name, bits in one.still],
        }
        for one in found
        if one.designed
    ]
