"""Points of a design's Python: statements and branches, each a bit of an output that says whether it is in force.

And levels: outputs that show the signals that statements drive.

What Amaranth exports tells of a statement no more than the line that declares its signal, so a simulator's own line
coverage cannot be mapped back to Python. Here the bits are made of the design itself, before the export: one for the
line of each assignment, one for each block of `If`, `Elif`, `Else`, `Case` or `State`, and one for an `If` without
`Else`, of which no block is in force. Of what stands on one line, in several instances or in a loop, one is enough.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from amaranth.hdl import Cat, Elaboratable, Fragment, Signal
from amaranth.hdl._ast import Assign, Switch
from amaranth.lib import data, enum

__all__ = ["LEVEL", "LINE", "NONE", "PORT", "RTL", "TAKEN", "add_levels", "add_points", "elaborated"]

LINE: Final = "line"
"""Kind of a point: a statement at this line is in force."""
TAKEN: Final = "taken"
"""The block that begins at this line is."""
NONE: Final = "none"
"""No block is, of an `If` without `Else` whose last block begins at this line."""
PORT: Final = "covered_points"
"""Name of the output of points."""
LEVEL: Final = "covered_level"
"""What the names of the outputs of levels begin with."""
RTL: Final = Path(__file__).resolve().parent
"""Where the gateware is."""


@contextmanager
def _views_tell_their_caller() -> Iterator[None]:
    """While this is in force an assignment to a view has the line of who makes it, not one of Amaranth's."""
    kinds: tuple[Any, ...] = (data.View, enum.EnumView)
    before = [kind.eq for kind in kinds]

    def eq(self: Any, other: Any) -> Any:
        return self.as_value().eq(other, src_loc_at=1)

    for kind in kinds:
        kind.eq = eq
    try:
        yield
    finally:
        for kind, method in zip(kinds, before, strict=True):
            kind.eq = method


def elaborated(top: Elaboratable) -> Fragment:
    """As `Fragment.get`, for `add_points`."""
    with _views_tell_their_caller():
        return Fragment.get(top, None)


def add_points(top: Fragment, folder: Path = RTL) -> tuple[Signal, tuple[str, ...]]:
    """Give a design an output that has a bit for each of its points.

    Parameters
    ----------
    top : Fragment
        Of `elaborated`; it is changed.
    folder : Path
        Only what stands in files of this one or below it has points.

    Returns
    -------
    Signal
        The output, named `PORT`; a bit counts where the clock rises without a reset.
    tuple of str
        Name of each bit, such as "rtl/walker.py:210 taken".
    """
    found: list[tuple[str, Signal]] = []
    _add(top, folder, found)
    points = Signal(len(found), name=PORT)
    top.add_statements("comb", points.eq(Cat(bit for _, bit in found)))
    return points, tuple(name for name, _ in found)


def add_levels(top: Fragment, folder: Path = RTL) -> list[tuple[Signal, str]]:
    """Give a design an output for each signal that its statements drive: what toggles can be seen there.

    Parameters
    ----------
    top : Fragment
        Of `elaborated`; it is changed.
    folder : Path
        Only signals that are declared in files of this one or below it have one.

    Returns
    -------
    list of (Signal, str)
        Each output, and the line that declares the signal, with its name: "rtl/walker.py:210 state". Of several of one
        name at one line of a component the second has " 2" after it, and so on.
    """
    found: list[tuple[Signal, str]] = []
    _add_levels(top, folder, found, set())
    return found


def _add_levels(fragment: Fragment, folder: Path, found: list[tuple[Signal, str]], known: set[int]) -> None:
    for part, _, _ in fragment.subfragments:
        _add_levels(part, folder, found, known)
    names: Counter[str] = Counter()
    driven = [signal for statements in fragment.statements.values() for one in statements for signal in _driven(one)]
    for signal in driven:
        file, line = Path(signal.src_loc[0]), signal.src_loc[1]
        if id(signal) in known or not len(signal) or not file.is_relative_to(folder):
            continue
        known.add(id(signal))
        name = f"{file.relative_to(folder.parent)}:{line} {signal.name}"
        names[name] += 1
        output = Signal(len(signal), name=f"{LEVEL}_{len(found)}")
        fragment.add_statements("comb", output.eq(signal))
        found.append((output, name if names[name] == 1 else f"{name} {names[name]}"))


def _driven(statement: Any) -> list[Signal]:
    """The signals that a statement drives, in the order of the text."""
    if isinstance(statement, Switch):
        return [signal for _, block, _ in statement.cases for one in block for signal in _driven(one)]
    return list(statement._lhs_signals()) if isinstance(statement, Assign) else []


def _add(fragment: Fragment, folder: Path, found: list[tuple[str, Signal]]) -> None:
    for part, _, _ in fragment.subfragments:
        _add(part, folder, found)
    own = _Points(folder)
    blocks = [own.of(statements) for statements in fragment.statements.values()]
    for block in blocks:
        fragment.add_statements("comb", *block)
    found += own.bits.items()


class _Points:
    """The points of a fragment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bits: dict[str, Signal] = {}

    def of(self, statements: Any) -> list[Any]:
        """What sets the points of a block, and of the blocks in it, where these are in force."""
        told: list[Any] = []
        for statement in statements:
            if isinstance(statement, Assign):
                told += self._set(statement.src_loc, LINE)
            elif isinstance(statement, Switch):
                cases = [
                    (patterns, [*self._set(at, TAKEN), *self.of(block)], at) for patterns, block, at in statement.cases
                ]
                patterns, _, at = statement.cases[-1]
                if patterns is not None and _is_if(statement):
                    cases.append((None, self._set(at, NONE), at))
                told.append(Switch(statement.test, cases, src_loc=statement.src_loc))
        return told

    def _set(self, at: tuple[str, int] | None, kind: str) -> list[Any]:
        if at is None:
            return []  # a reset that Amaranth inserted
        file, line = Path(at[0]), at[1]
        if not file.is_relative_to(self._folder):
            return []  # Amaranth's own, such as a queue's
        name = f"{file.relative_to(self._folder.parent)}:{line} {kind}"
        if name not in self.bits:
            self.bits[name] = Signal(name=f"point_{len(self.bits)}")
        return [self.bits[name].eq(1)]


def _is_if(switch: Switch) -> bool:
    """It is an `If`: each of its cases asks for one bit."""
    return all(
        patterns is None or (len(patterns) == 1 and sorted(patterns[0].strip("-")) == ["1"])
        for patterns, _, _ in switch.cases
    )
