"""What can be run on an MMU that caches, by name, as `checks.performances` has it for the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from ptewalk.cosim.bench.cached_mmu import CachedMmu
from ptewalk.cosim.bench.caching_lane import CachingLane, CachingRun
from ptewalk.cosim.bench.caching_session import CachingSession
from ptewalk.cosim.bench.events import Read, Swap, WalkEnd
from ptewalk.cosim.checks.caching import COUNTERS, compare_counted
from ptewalk.cosim.checks.caching_walks import CachedWalks
from ptewalk.cosim.checks.driven import Engines, check_all, replay_all
from ptewalk.cosim.checks.golden_tlb import GoldenTlb
from ptewalk.cosim.checks.minima import DISCRIMINATING
from ptewalk.cosim.formats.walks import read_walks
from ptewalk.model.access import state_of
from ptewalk.model.kernel import Kernel
from ptewalk.model.memory import SparseMemory
from ptewalk.rtl.description import DesignDescription

__all__ = ["CACHING_PERFORMANCES", "Caches", "CachingPerformance"]

TLB_COUNTS: Final = ("answers", "hits", "walks", "many", *DISCRIMINATING)
"""Counts of `GoldenTlb` that a replay tells."""
CachingPerformance = Callable[[dict[str, Any], CachingLane, DesignDescription], dict[str, Any]]


def recorded(values: dict[str, Any], lane: CachingLane, design: DesignDescription) -> dict[str, Any]:
    """Recorded walks of `file` (those of `indices`), three accesses each: see `CachedWalks`.

    With `seed` each walk has conditions of its own. Gives `tally`, as `WalkTally.as_json`, and `CachedWalks.counts`.
    """
    machine = {name: design.parameters[name] for name in ("physical_bits", "gigabyte_pages")}
    cases = read_walks(values["file"], **machine)
    walks = CachedWalks(CachingSession(lane), design, values["seed"])
    for index in range(len(cases)) if values["indices"] is None else values["indices"]:
        walks.add(cases[index], index)
    return {"tally": walks.tally.as_json(), **walks.counts}


class _Watch:
    """Has the golden TLB eat the log of each machine's accesses, and compares counters and fault queue with it.

    Attributes
    ----------
    counts : Counter of str
        As in `CachingVerdict`, added up.
    events : int
        Accesses to memory that were compared; `walks` is how many walks ended.
    mmu : CachedMmu or None
        Of the machine that runs.
    """

    def __init__(self, further: Callable[[], list[str]]) -> None:
        self._further = further
        self.counts: Counter[str] = Counter()
        self.events = self.walks = 0
        self._found: list[str] = []
        self.mmu: CachedMmu | None = None

    def of(self, memory: SparseMemory) -> Callable[[CachingRun], None]:
        """Told what each call of the MMU of a new machine gave."""
        golden = GoldenTlb(physical_bits=memory.physical_bits)

        def see(run: CachingRun) -> None:
            log = list(run.read())
            before = golden.counts.copy()
            golden.problems.clear()
            golden.feed(log)
            seen = compare_counted(log, run.faults(), run.counters.get)
            self._found += golden.problems + seen.problems
            self.counts += golden.counts - before
            self.counts += seen.counts
            self.events += sum(isinstance(event, Read | Swap) for event in log)
            self.walks += sum(isinstance(event, WalkEnd) for event in log)

        return see

    def take(self, kernel: Kernel) -> list[str]:
        """As `Watch.take`; what was accessed last is asked about again."""
        assert self.mmu is not None
        again = self.mmu.lately.ask_again([state_of(kernel, process) for process in kernel.processes.values()])
        found, self._found = self._found + again + self._further(), []
        return found


class Caches:
    """An MMU that caches, as `driven.Driven`: each machine has it from a reset on."""

    def __init__(self, lane: CachingLane, design: DesignDescription, seed: int | None, engines: Engines) -> None:
        self._lane, self._seed, self._engines = lane, seed, engines
        self._tags = 1 << int(design.parameters["tag_bits"])
        self.watch = _Watch(engines.take)

    def mmu(self, memory: SparseMemory) -> CachedMmu:
        """As `Driven.mmu`."""
        given: dict[str, Any] = {"seed": self._seed, "watch": self.watch.of(memory), "tags": self._tags}
        engine = self._engines.of(memory)
        self.watch.mmu = CachedMmu(CachingSession(self._lane), memory, engine=engine, **given)
        return self.watch.mmu

    def told(self) -> dict[str, Any]:
        """As `Driven.told`; `tlb` is what the golden TLB counted."""
        counts = self.watch.counts
        counters = {name: counts[f"gateware {name}"] for name in COUNTERS}
        tlb = {name: counts[name] for name in TLB_COUNTS}
        return {"events": self.watch.events, "traced": self.watch.walks, "counters": counters, "tlb": tlb}


def replayed(values: dict[str, Any], lane: CachingLane, design: DesignDescription) -> dict[str, Any]:
    """Recorded scenarios: see `driven.replay_all`."""
    return replay_all(values, partial(Caches, lane, design))


def checked(values: dict[str, Any], lane: CachingLane, design: DesignDescription) -> dict[str, Any]:
    """Scenarios without recordings: see `driven.check_all`."""
    return check_all(values, partial(Caches, lane, design))


CACHING_PERFORMANCES: Final[dict[str, CachingPerformance]] = {
    "recorded": recorded,
    "replayed": replayed,
    "checked": checked,
}
"""Name to performance."""
