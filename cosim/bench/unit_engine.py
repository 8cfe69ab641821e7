"""The table engine of a unit, as the operating system's engine: each operation is a command by the unit's registers."""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.records import Records
from ptewalk.cosim.bench.unit_lane import ROOM_BASE
from ptewalk.cosim.driver.steps import DriverError, Steps
from ptewalk.cosim.driver.table_engine import TableEngine
from ptewalk.cosim.driver.unit import POLLS, Unit
from ptewalk.model.engine import Pages
from ptewalk.model.pte import Entries

__all__ = ["COMMANDED", "CommandedEngine", "Carrier"]

COMMANDED: Final = ("clears", "agings", "pagemaps", "protections", "scans", "moves", "relinks")
"""What /proc and mremap have done: a command of the engine each."""
_POLLS: Final = 10 * POLLS
"""Of a command: the pagemap of some GiB takes millions of cycles."""
T = TypeVar("T")


class Carrier(Protocol):
    """Who has the driver's steps carried out on a unit, beside its MMU."""

    unit: Unit

    def carry(self, steps: Steps[T], *, room: int = 0) -> tuple[T, Records, NDArray[np.uint64]]:
        """Carry steps out: their result, what memory was asked for, and the `room` words at `ROOM_BASE`."""

    def pcid_of(self, root: int) -> int:
        """The PCID of the address space whose root is this frame."""

    def count(self, name: str, more: int) -> None:
        """Add to what is counted."""

    def wrong(self, problem: str) -> None:
        """Something is not as it should be."""


class CommandedEngine:
    """An `Engine`; how many entries each command says that it changed, or moved, is compared with what memory saw.

    Parameters
    ----------
    carrier : Carrier
        Its unit has a table engine.
    """

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier
        self._engine = TableEngine(carrier.unit, polls=_POLLS)

    def clear(self, pages: Pages, rules: Entries, *, permit: bool, splits: bool) -> int:
        """As `Engine.clear`."""
        steps = self._engine.clear(pages, rules, pcid=self._pcid(pages), permit=permit, splits=splits)
        return self._change("clears", pages, steps)

    def make_old(self, pages: Pages, rules: Entries, *, splits: bool) -> int:
        """As `Engine.make_old`."""
        steps = self._engine.make_old(pages, rules, pcid=self._pcid(pages), splits=splits)
        return self._change("agings", pages, steps)

    def protect(self, pages: Pages, rules: Entries) -> None:
        """As `Engine.protect`."""
        self._change("protections", pages, self._engine.protect(pages, rules, pcid=self._pcid(pages)))

    def take_written(self, pages: Pages, rules: Entries) -> NDArray[np.uint64]:
        """As `Engine.take_written`."""
        count, before = pages.last - pages.first, self._engine.report_words(pages)
        steps = self._engine.take_written(pages, rules, ROOM_BASE, pcid=self._pcid(pages))
        told, found, room = self._carry("scans", pages, steps, before + count)
        if told is not None:
            self._compare("scans", pages, told[1], len(found))
            self._carrier.count("changed", told[1])
            self._carrier.count("words", count)
        return room[before:]

    def move(self, pages: Pages, target: int, level: int, rules: Entries, *, marks: bool, unprotects: bool) -> None:
        """As `Engine.move`."""
        name = "moves" if marks else "relinks"
        given = {"marks": marks, "unprotects": unprotects}
        steps = self._engine.move(pages, target, level, rules, pcid=self._pcid(pages), **given)
        told, found, _ = self._carry(name, pages, steps)
        if told is not None:
            taken = int(np.count_nonzero(found["new"] == 0))
            self._compare(name, pages, told, taken)
            self._carrier.count("moved", told)

    def words(self, pages: Pages, rules: Entries, *, marks: bool) -> NDArray[np.uint64]:
        """As `Engine.words`."""
        count, before = pages.last - pages.first, self._engine.report_words(pages)
        steps = self._engine.words(pages, rules, ROOM_BASE, pcid=self._pcid(pages), marks=marks)
        _, found, room = self._carry("pagemaps", pages, steps, before + count)
        self._compare("pagemaps", pages, 0, len(found))
        self._carrier.count("words", count)
        return room[before:]

    def _change(self, name: str, pages: Pages, steps: Steps[tuple[int, int]]) -> int:
        told, found, _ = self._carry(name, pages, steps)
        if told is None:
            return pages.last
        stopped, changed = told
        self._compare(name, pages, changed, len(found))
        self._carrier.count("changed", changed)
        return stopped

    def _carry(
        self, name: str, pages: Pages, steps: Steps[T], room: int = 0
    ) -> tuple[T | None, Records, NDArray[np.uint64]]:
        """A command: what came of it, the words of tables that are others now, and the report."""
        try:
            told, events, report = self._carrier.carry(steps, room=room)
        except DriverError as error:
            self._carrier.wrong(f"{name}, {pages}: {error}")
            return None, np.zeros(0, [("new", np.uint64)]), np.zeros(room, np.uint64)
        self._carrier.count(name, 1)
        self._carrier.count("commands", 1)
        swapped = (events["writes"] != 0) & (events["done"] != 0) & (events["address"] < ROOM_BASE)
        return told, events[swapped & (events["old"] != events["new"])], report

    def _compare(self, name: str, pages: Pages, told: int, seen: int) -> None:
        if told != seen:
            self._carrier.wrong(f"{name}, {pages}: {told} entries changed, of {seen} seen in memory")

    def _pcid(self, pages: Pages) -> int:
        return self._carrier.pcid_of(pages.root)
