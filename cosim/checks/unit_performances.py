"""What can be run on a unit by its registers alone, by name, as `checks.performances` has it for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ptewalk.cosim.bench.unit_lane import UnitLane
from ptewalk.cosim.bench.unit_mmu import DRIVEN, DrivenMmu
from ptewalk.cosim.checks.driven import Engines, check_all, replay_all
from ptewalk.model.access import state_of
from ptewalk.model.kernel import Kernel
from ptewalk.model.memory import SparseMemory

__all__ = ["UNIT_PERFORMANCES", "ByRegisters", "UnitPerformance"]

UnitPerformance = Callable[[dict[str, Any], UnitLane], dict[str, Any]]


class ByRegisters:
    """A unit by its registers, as `driven.Driven`; it is its own watch. Each machine has it from a reset on.

    Parameters
    ----------
    lane : UnitLane
    seed : int or None
        As in `DrivenMmu`.
    engines : Engines
        Of which it has none: the driver does what they would.
    """

    def __init__(self, lane: UnitLane, seed: int | None, engines: Engines) -> None:
        self._lane, self._seed = lane, seed
        self._counts: Counter[str] = Counter()
        self._mmus: list[DrivenMmu] = []

    @property
    def watch(self) -> ByRegisters:
        """As `Driven.watch`."""
        return self

    def mmu(self, memory: SparseMemory) -> DrivenMmu:
        """As `Driven.mmu`."""
        self._mmus.append(DrivenMmu(self._lane, memory, self._counts, seed=self._seed))
        return self._mmus[-1]

    def take(self, kernel: Kernel) -> list[str]:
        """As `Watch.take`; what was accessed last is asked about again."""
        mmu = self._mmus[-1]
        again = mmu.lately.ask_again([state_of(kernel, process) for process in kernel.processes.values()])
        return again + mmu.take()

    def told(self) -> dict[str, Any]:
        """As `Driven.told`; `driver` is what that did."""
        counters: Counter[str] = Counter()
        for mmu in self._mmus:
            counters.update(mmu.counted)
        driver = {name: self._counts[name] for name in DRIVEN}
        return {"events": sum(mmu.accesses for mmu in self._mmus), "counters": dict(counters), "driver": driver}


def replayed(values: dict[str, Any], lane: UnitLane) -> dict[str, Any]:
    """Recorded scenarios: see `driven.replay_all`."""
    return replay_all(values, partial(ByRegisters, lane))


def checked(values: dict[str, Any], lane: UnitLane) -> dict[str, Any]:
    """Scenarios without recordings: see `driven.check_all`."""
    return check_all(values, partial(ByRegisters, lane))


UNIT_PERFORMANCES: Final[dict[str, UnitPerformance]] = {"replayed": replayed, "checked": checked}
"""Name to performance."""
