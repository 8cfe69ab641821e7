"""A table engine of gateware beside the MMU of a program."""

from __future__ import annotations

from collections import Counter

from ptewalk.cosim.bench.engine import ENGINE_COUNTS, GatewareEngine
from ptewalk.cosim.bench.engine_lane import EngineLane, RuleOfEngineBroken
from ptewalk.model.memory import FixedMemory

__all__ = ["ProgramEngine"]


class ProgramEngine(GatewareEngine):
    """Does to the tables of a run what clear_refs, pagemap, PAGEMAP_SCAN and mremap do.

    Parameters
    ----------
    lane : EngineLane
    memory : FixedMemory

    Raises
    ------
    RuleOfEngineBroken
        By each method: a command did not end as it should.
    """

    def __init__(self, lane: EngineLane, memory: FixedMemory) -> None:
        self._done: Counter[str] = Counter()
        super().__init__(lane, memory, self._done, [])

    @property
    def figures(self) -> dict[str, int]:
        """What it did: see `ENGINE_COUNTS`."""
        return {name: self._done[name] for name in ENGINE_COUNTS}

    def _found(self, problem: str) -> None:
        raise RuleOfEngineBroken(problem)
