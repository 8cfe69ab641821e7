"""The last cycles of recorded waves, drawn: of the signals that changed in them, each with its line of Python."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import ptewalk.rtl
from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.simulate.waves import SOURCE

__all__ = ["CYCLES", "MOST", "Excerpt", "Row", "Waves", "excerpts", "read_waves"]

CYCLES: Final = 24
"""The last cycles that are drawn, at most."""
MOST: Final = 40
"""Signals that are drawn, at most."""
AROUND: Final = 3
"""Lines before and after that of a signal, in an excerpt of the text."""
_CLOCKS: Final = ("clk", "smt_step")
_SCOPE: Final = re.compile(r"\$scope \w+ (\S+) \$end")
_VAR: Final = re.compile(r"\$var \w+ (\d+) (\S+) (\S+)(?: \[\d+:\d+\])? \$end")
_NAMES: Final = "name:"
"""What the identifiers of signals of names begin with (`simulate.waves`)."""
_FLAT: Final = "rtl/export.py:"
"""A port of the flattened top: a signal of the same wires further down tells more."""
_COPY: Final = re.compile(r"\$\d+$")
"""What Amaranth adds to a name that is there already."""
_PACKAGES: Final = Path(ptewalk.rtl.__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """A signal.

    Attributes
    ----------
    name : str
        With the parts that it is in: "core.walker.state".
    source : str
        "rtl/walker.py:210"; "" where the waves do not tell.
    values : tuple of str
        Of each cycle, as the clock rises at its end: a name, or hexadecimal digits.
    bit : bool
        It is one bit wide.
    """

    name: str
    source: str
    values: tuple[str, ...]
    bit: bool

    def runs(self) -> list[tuple[int, int, str]]:
        """(first cycle, cycles, value) of neighbours with the same value."""
        found: list[tuple[int, int, str]] = []
        for at, value in enumerate(self.values):
            if found and found[-1][2] == value:
                found[-1] = (found[-1][0], found[-1][1] + 1, value)
            else:
                found.append((at, 1, value))
        return found


@dataclass(frozen=True)
class Excerpt:
    """Lines of a file of Python.

    Attributes
    ----------
    place : str
        "rtl/walker.py:210".
    lines : tuple of (int, str, bool)
        Number and text of each, and whether it is the one that is meant.
    """

    place: str
    lines: tuple[tuple[int, str, bool], ...]


@dataclass(frozen=True)
class Waves:
    """What is drawn of a file of waves.

    Attributes
    ----------
    file : str
    first, cycles : int
        Number of the first cycle that is drawn, and how many.
    rows : tuple of Row
    left_out : int
        Signals that changed in these cycles, too, beyond `MOST`.
    """

    file: str
    first: int
    cycles: int
    rows: tuple[Row, ...]
    left_out: int


@dataclass
class _Signal:
    name: str
    width: int
    source: str = ""


@dataclass
class _Header:
    """The declarations of a VCD file: identifier to the signal that is nearest to the top."""

    signals: dict[str, _Signal] = field(default_factory=dict)
    clock: str = ""

    def read(self, lines: Iterable[str]) -> None:
        """Up to $enddefinitions."""
        scopes: list[str] = []
        last: _Signal | None = None
        for line in map(str.strip, lines):
            if line.startswith("$enddefinitions"):
                return
            if scope := _SCOPE.fullmatch(line):
                scopes.append(scope[1].removeprefix("\\"))
            elif line.startswith("$upscope"):
                scopes.pop()
            elif line.startswith(SOURCE) and last is not None:
                source = line.removeprefix(SOURCE).removesuffix(" $end")
                if not last.source or last.source.startswith(_FLAT):
                    last.source = source
            elif var := _VAR.fullmatch(line):
                name = var[3].removeprefix("\\")
                own = _Signal(".".join([*scopes[1:], name]), int(var[1]))
                before, last = last, self.signals.setdefault(var[2], own)
                if var[2].startswith(_NAMES) and before is not None:
                    last.source = before.source
                if not self.clock and name in _CLOCKS:
                    self.clock = var[2]
        raise ValueError("no $enddefinitions")


def read_waves(path: Path, name: str) -> Waves:
    """The last cycles of a VCD file.

    Parameters
    ----------
    path : Path
    name : str
        What it is called.

    Raises
    ------
    ToolError
        It cannot be read, is no VCD, or has no clock: a signal named clk, or the steps of a counterexample.
    """
    try:
        with path.open() as lines:
            header = _Header()
            header.read(lines)
            if not header.clock:
                raise ValueError("no signal is named clk")
            count, frames = _last(lines, header)
    except (OSError, ValueError, IndexError) as error:
        raise ToolError(f"{path}: it is no VCD with a clock: {error}; take it out of the folder") from error
    # What has a neighbour of names is shown by that.
    asked = [key for key in header.signals if key != header.clock and f"{_NAMES}{key}" not in header.signals]
    changing = [key for key in asked if _shown(header.signals[key], frames, key)]
    changing.sort(key=lambda key: (not key.startswith(_NAMES), header.signals[key].name.count(".")))
    rows = _once(_row(header.signals[key], [frame.get(key, "x") for frame in frames]) for key in changing)
    return Waves(name, count - len(frames), len(frames), tuple(rows[:MOST]), max(0, len(rows) - MOST))


def _once(rows: Iterable[Row]) -> list[Row]:
    """Rows without those of the same wires further down, which tell the line of Python where the first does not."""
    kept: dict[tuple[str, tuple[str, ...]], Row] = {}
    for row in rows:
        key = _COPY.sub("", row.name.rpartition(".")[2]), row.values
        known = kept.get(key)
        if known is None:
            kept[key] = row
        elif row.source and (not known.source or known.source.startswith(_FLAT)):
            kept[key] = replace(known, source=row.source)
    return list(kept.values())


def _last(lines: Iterable[str], header: _Header) -> tuple[int, list[dict[str, str]]]:
    """How many cycles there are, and the values of all signals in each of the last."""
    steps = header.signals[header.clock].width > 1  # of a counterexample: what changes with the step is of it
    values: dict[str, str] = {}
    batch: dict[str, str] = {}
    frames: deque[dict[str, str]] = deque(maxlen=CYCLES)
    count = 0

    def end() -> None:
        nonlocal count
        old, new = values.get(header.clock), batch.get(header.clock)
        edge = new is not None and new != old and (steps or (new == "1" and old is not None))
        if edge and not steps:
            frames.append(dict(values))
        values.update(batch)
        batch.clear()
        if edge and steps:
            frames.append(dict(values))
        count += edge

    for line in map(str.strip, lines):
        if not line or line[0] == "$":
            continue
        if line[0] == "#":
            end()
        elif line[0] in "bBsSrR":
            value, _, key = line[1:].partition(" ")
            batch[key] = value
        else:
            batch[line[1:]] = line[0]
    end()
    return count, list(frames)


def _shown(signal: _Signal, frames: list[dict[str, str]], key: str) -> bool:
    """It changes, and somebody gave it its name."""
    last = signal.name.rpartition(".")[2]
    if last.startswith(("_", "$", "smt_")) or last in ("clk", "rst"):
        return False
    return len({frame.get(key, "x") for frame in frames}) > 1


def _row(signal: _Signal, values: list[str]) -> Row:
    bit = signal.width == 1 and set(values) <= set("01xz")
    return Row(signal.name, signal.source, tuple(map(_text, values)), bit)


def _text(value: str) -> str:
    """Bits as hexadecimal digits; what is no number stays."""
    return f"{int(value, 2):x}" if value and set(value) <= {"0", "1"} else value


def excerpts(waves: Iterable[Waves]) -> list[Excerpt]:
    """The text round each line of Python that rows name, where the file is there, in order."""
    places = sorted({row.source for one in waves for row in one.rows if row.source})
    found = []
    for place in places:
        file, _, number = place.rpartition(":")
        path = _PACKAGES / file
        if not number.isdecimal() or not file.startswith("rtl/") or not path.is_file():
            continue
        text, line = path.read_text().splitlines(), int(number)
        near = range(max(1, line - AROUND), min(len(text), line + AROUND) + 1)
        found.append(Excerpt(place, tuple((at, text[at - 1], at == line) for at in near)))
    return found
