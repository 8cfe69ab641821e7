"""A table engine of gateware beside the MMU of a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ptewalk.cosim.bench.engine import ENGINE_COUNTS, GatewareEngine
from ptewalk.cosim.bench.engine_lane import EngineLane, RuleOfEngineBroken
from ptewalk.model.engine import Pages
from ptewalk.model.memory import FixedMemory
from ptewalk.model.pte import Entries

__all__ = ["ProgramEngine"]


class ProgramEngine(GatewareEngine):
    """Does to the tables of a run what clear_refs, pagemap, PAGEMAP_SCAN and mremap do.

    Parameters
    ----------
    lane : EngineLane
    memory : FixedMemory

    Attributes
    ----------
    moved : callable (int, int, int)
        Told of each move: the frame of the top-level table, and the pages that it went to, first and last + 1.

    Raises
    ------
    RuleOfEngineBroken
        By each method: a command did not end as it should.
    """

    def __init__(self, lane: EngineLane, memory: FixedMemory) -> None:
        self._done: Counter[str] = Counter()
        self.moved: Callable[[int, int, int], None] = lambda root, first, last: None
        super().__init__(lane, memory, self._done, [])

    def move(self, pages: Pages, target: int, level: int, rules: Entries, *, marks: bool, unprotects: bool) -> None:
        """As `Engine.move`."""
        super().move(pages, target, level, rules, marks=marks, unprotects=unprotects)
        self.moved(pages.root, target, target + pages.last - pages.first)

    @property
    def figures(self) -> dict[str, int]:
        """What it did: see `ENGINE_COUNTS`."""
        return {name: self._done[name] for name in ENGINE_COUNTS}

    def _found(self, problem: str) -> None:
        raise RuleOfEngineBroken(problem)
