"""Points of a design's Python: statements and branches, each a bit of an output that says whether it is in force.

What Amaranth exports tells of a statement no more than the line that declares its signal, so a simulator's own line
coverage cannot be mapped back to Python. Here the bits are made of the design itself, before the export: one for the
line of each assignment, one for each block of `If`, `Elif`, `Else`, `Case` or `State`, and one for an `If` without
`Else`, of which no block is in force. Of what stands on one line, in several instances or in a loop, one is enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from amaranth.hdl import Cat, Elaboratable, Fragment, Signal
from amaranth.hdl._ast import Assign, Switch
from amaranth.lib import data, enum

__all__ = ["LINE", "NONE", "PORT", "RTL", "TAKEN", "add_points", "elaborated"]

LINE: Final = "line"
"""Kind of a point: a statement at this line is in force."""
TAKEN: Final = "taken"
"""The block that begins at this line is."""
NONE: Final = "none"
"""No block is, of an `If` without `Else` whose last block begins at this line."""
PORT: Final = "covered_points"
"""Name of the output."""
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

    def _set(self, at: tuple[str, int], kind: str) -> list[Any]:
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
