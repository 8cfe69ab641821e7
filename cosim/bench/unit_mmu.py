"""A unit as the operating system's MMU and table engine, all of it by the driver through the unit's registers."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.cached_mmu import LatelyAsked, ways_to_forget
from ptewalk.cosim.bench.records import Records
from ptewalk.cosim.bench.unit_engine import COMMANDED, CommandedEngine
from ptewalk.cosim.bench.unit_lane import UnitLane
from ptewalk.cosim.driver.steps import DriverError, Steps, run
from ptewalk.cosim.driver.sweep import Sweep
from ptewalk.cosim.driver.unit import Answer, Unit, WaitFor
from ptewalk.model.engine import Engine, Pages
from ptewalk.model.linux import SoftBit
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Request, Result, State, Translated
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import PAGE_SHIFT, Access, EntryBit, Outcome

__all__ = ["DRIVEN", "DrivenEngine", "DrivenMmu"]

DRIVEN: Final = (
    *("contexts", "requests", "invalidations", "fault_records", "self_tests"),
    *COMMANDED,
    *("changed", "moved", "words", "commands"),
    *("word_reads", "word_swaps", "accesses", "cycles"),
)
"""What the driver did: commands, what /proc and mremap had done, entries that were changed and moved, words of pagemap,
commands of the table engine; words that it read itself and swaps that it made itself on the tables' bus; accesses to
registers, and cycles."""
COMPARED: Final = ("requests", "marks", "mends", "delivered_faults", "lost_faults")
"""The unit's counters that are compared."""
_WRONG: Final = (
    *("fault_overflow", "tag_reused", "stray_retirement"),
    *("no_monitor", "retry_limit", "outcome_unknown"),
)
"""Fields of STATUS that must stay 0."""
_SCRATCH: Final = 0x1000
_SD, _RW = 1 << SoftBit.SOFT_DIRTY, 1 << EntryBit.RW
T = TypeVar("T")


class DrivenMmu:
    """An `Mmu` and its engine behind registers: switched, asked and told to forget by commands.

    The unit is reset and its memory tried at the start. A page fault is what the record says that FAULT shows.

    Parameters
    ----------
    lane : UnitLane
    memory : SparseMemory
        The tables, which software and unit share.
    counts : Counter of str
        What was done is added: see `DRIVEN`.
    seed : int, optional
        Latencies, stalls, when a store retires and how an invalidation waits are drawn anew for each call; without it
        memory answers at once.

    Attributes
    ----------
    lately : LatelyAsked
    engine : Engine
        The unit's own by commands where it has one, else `DrivenEngine`.
    accesses : int
        Of walks, to memory.
    """

    def __init__(self, lane: UnitLane, memory: SparseMemory, counts: Counter[str], *, seed: int | None = None) -> None:
        self.lately = LatelyAsked(memory, self._again)
        self.counts = counts
        self.accesses = 0
        self._lane, self._memory = lane, memory
        self._rng = None if seed is None else random.Random(f"registers {seed}")
        self._state: State | None = None
        self._told = Counter[str]()  # by what memory saw, and by the faults that were taken
        self._problems: list[str] = []
        self._pcids: dict[int, int] = {}  # by the root's frame
        scratch = SparseMemory()
        scratch.store(_SCRATCH, 0)
        lane.reset(scratch)
        self._accesses = lane.accesses
        self.unit = run(lane, Unit.open(scratch=_SCRATCH))
        self.engine: Engine = CommandedEngine(self) if self.unit.built["engine"] else DrivenEngine(self)
        self.counts["self_tests"] += self.unit.built["selftest"]
        run(lane, self.unit.counters(clear=True))
        lane.events()
        if memory.physical_bits > self.unit.built["physical_bits"]:
            raise ValueError("the memory has more physical address bits than the unit")

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`."""
        self.lately.note(requests)
        return self._ask(state, requests, stop_on_fault=True)

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """As `Mmu.invalidate`; with a seed in any way that takes this much or more."""
        if self._state is None:
            return  # nothing was asked yet
        ways = ways_to_forget(linear, pcid, self._state.pcid)
        how, wait = ways[0], WaitFor.ALL
        if self._rng is not None:
            how, wait = self._rng.choice(ways), self._rng.choice(tuple(WaitFor))
        self._begin()
        run(self._lane, self.unit.invalidate(how.kind, linear=how.linear, pcid=how.pcid, wait=wait))
        self.counts["invalidations"] += 1

    def carry(self, steps: Steps[T], *, room: int = 0) -> tuple[T, Records, NDArray[np.uint64]]:
        """As `unit_engine.Carrier`."""
        report = self._lane.room(room)
        self._begin()
        result = run(self._lane, steps)
        return result, self._lane.events(), report

    def pcid_of(self, root: int) -> int:
        """As `unit_engine.Carrier`; of what was not asked yet nothing is cached, and 0 serves."""
        return self._pcids.get(root, 0)

    def count(self, name: str, more: int) -> None:
        """As `unit_engine.Carrier`."""
        self.counts[name] += more

    def wrong(self, problem: str) -> None:
        """As `unit_engine.Carrier`: `take` tells it."""
        self._problems.append(problem)

    def take(self) -> list[str]:
        """What went wrong since the last call; the unit's counters, read by the driver, are compared."""
        counted = run(self._lane, self.unit.counters())
        status = run(self._lane, self.unit.status())
        ended = run(self._lane, self.unit.ended())
        if ended != self._lane.commands:
            self._problems.append(f"DONE: {ended} commands have ended, of {self._lane.commands} that were given")
        for name in COMPARED:
            if counted[name] != self._told[name]:
                self._problems.append(f"counter {name}: {counted[name]}, expected {self._told[name]}")
        for name in _WRONG:
            if status[name]:
                self._problems.append(f"STATUS.{name} is 1")
        self.counts["accesses"] += self._lane.accesses - self._accesses
        self.counts["cycles"] += counted["cycles"] - self._told["cycles"]
        self._accesses, self._told["cycles"] = self._lane.accesses, counted["cycles"]
        found, self._problems = self._problems, []
        return found

    @property
    def counted(self) -> dict[str, int]:
        """The unit's counters that are compared, since the reset."""
        return {name: self._told[name] for name in COMPARED}

    def _again(self, state: State, requests: Sequence[Request]) -> list[Result]:
        return self._ask(state, requests, stop_on_fault=False)

    def _begin(self) -> None:
        """Software may have written anywhere."""
        if self._rng is None:
            self._lane.remember(self._memory)
            return
        rng = self._rng
        latency, spread, stalls = rng.choice((1, 2, 4, 16)), rng.choice((0, 2, 12)), rng.choice((0.0, 0.1, 0.4))
        given = {"latency": latency, "latency_spread": spread, "seed": rng.getrandbits(64)}
        self._lane.remember(self._memory, stalls=stalls, **given)

    def _ask(self, state: State, requests: Sequence[Request], *, stop_on_fault: bool) -> list[Result]:
        if not requests:
            return []
        self._begin()
        if state != self._state:
            names = ("control", "pcid", "pkru", "pkrs", "track", "saved_dirty")
            named = {name: getattr(state, name) for name in names}
            run(self._lane, self.unit.context(state.root, keep=True, **named))
            self._state = state
            self._pcids[state.root >> PAGE_SHIFT] = state.pcid
            self.counts["contexts"] += 1
        results: list[Result] = []
        for request in requests:
            results.append(run(self._lane, self._translate(request)))
            if stop_on_fault and not isinstance(results[-1], Translated):
                break
        self._note(self._lane.events(), len(results))
        return results

    def _translate(self, request: Request) -> Steps[Result]:
        retire = self._rng is None or self._rng.random() < 0.5
        how = {"user": request.user, "implicit": request.implicit, "ac": request.ac, "retire": retire}
        answer = yield from self.unit.translate(request.linear, request.access, **how)
        if not retire and answer.outcome == Outcome.OK and request.access in (Access.WRITE, Access.RMW):
            yield from self.unit.retire()
        if answer.outcome == Outcome.PAGE_FAULT and request.access != Access.PROBE:
            return (yield from self._fault(request, answer))
        return _result(answer)

    def _fault(self, request: Request, answer: Answer) -> Steps[Result]:
        """What the operating system is told of a page fault: the record, which must be the only one."""
        fault = yield from self.unit.pop_fault()
        more = yield from self.unit.pop_fault()
        if fault is None:
            raise DriverError(f"{request}: a page fault was answered, and FAULT shows none")
        if more is not None or (fault.linear, fault.code) != (request.linear, answer.code):
            self._problems.append(f"{request}: answered {answer}, records {fault}, {more}")
        self.counts["fault_records"] += 1
        self._told["delivered_faults"] += 1
        return PageFault(fault.code)

    def _note(self, events: Records, requests: int) -> None:
        """What memory saw of these requests."""
        self.accesses += len(events)
        self.counts["requests"] += requests
        self._told["requests"] += requests
        done = events[(events["writes"] != 0) & (events["done"] != 0)]
        raised = (~done["old"] & done["new"]).tolist()
        self._told["marks"] += sum(bool(bits & _SD) for bits in raised)
        self._told["mends"] += sum(bool(bits & _RW) for bits in raised)


class DrivenEngine:
    """An `Engine` whose every read and swap of a word is a command of the unit.

    Parameters
    ----------
    mmu : DrivenMmu
    """

    def __init__(self, mmu: DrivenMmu) -> None:
        self._mmu = mmu

    def clear(self, pages: Pages, rules: Entries, *, permit: bool, splits: bool) -> int:
        """As `Engine.clear`."""
        return self._changed("clears", self._sweep(pages).clear(rules, permit=permit, splits=splits))

    def make_old(self, pages: Pages, rules: Entries, *, splits: bool) -> int:
        """As `Engine.make_old`."""
        return self._changed("agings", self._sweep(pages).make_old(splits=splits))

    def protect(self, pages: Pages, rules: Entries) -> None:
        """As `Engine.protect`."""
        self._changed("protections", self._sweep(pages).protect(rules))

    def take_written(self, pages: Pages, rules: Entries) -> NDArray[np.uint64]:
        """As `Engine.take_written`."""
        counts = self._mmu.counts
        counts["scans"] += 1
        words, changed = self._by_words(self._sweep(pages).take_written(rules))
        counts["changed"] += len(changed)
        counts["words"] += len(words)
        return words

    def move(self, pages: Pages, target: int, level: int, rules: Entries, *, marks: bool, unprotects: bool) -> None:
        """As `Engine.move`."""
        counts = self._mmu.counts
        counts["moves" if marks else "relinks"] += 1
        steps = self._sweep(pages).move(target, level, rules, marks=marks, unprotects=unprotects)
        counts["moved"] += self._by_words(steps)

    def words(self, pages: Pages, rules: Entries, *, marks: bool) -> NDArray[np.uint64]:
        """As `Engine.words`."""
        self._mmu.counts["pagemaps"] += 1
        words = self._by_words(self._sweep(pages).words(rules, marks=marks))
        self._mmu.counts["words"] += len(words)
        return words

    def _by_words(self, steps: Steps[T]) -> T:
        result, events, _ = self._mmu.carry(steps)
        writes = int(np.count_nonzero(events["writes"]))
        self._mmu.counts["word_swaps"] += writes
        self._mmu.counts["word_reads"] += len(events) - writes
        return result

    def _sweep(self, pages: Pages) -> Sweep:
        return Sweep(self._mmu.unit, pages)

    def _changed(self, name: str, steps: Steps[tuple[int, list[int]]]) -> int:
        self._mmu.counts[name] += 1
        stopped, changed = self._by_words(steps)
        self._mmu.counts["changed"] += len(changed)
        return stopped


def _result(answer: Answer) -> Result:
    if answer.outcome == Outcome.OK:
        return Translated(answer.physical, answer.level, answer.pwt, answer.pcd, answer.pat)
    if answer.outcome == Outcome.PAGE_FAULT:
        return PageFault(answer.code)
    return GeneralProtection() if answer.outcome == Outcome.GENERAL_PROTECTION else BusFault()
