"""Judges the log of an MMU with a table engine: marks, reports, ends of commands, tables that were freed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.mmu_engine_lane import Kind, Op, Told
from ptewalk.cosim.checks.dirty_log import LogJudge
from ptewalk.cosim.checks.mmu_engine_stories import REPORT, Area, Asked, mark_of
from ptewalk.model.dirty_bitmap import dirty_bitmap
from ptewalk.model.linux import SoftBit
from ptewalk.model.x86 import EntryBit
from ptewalk.rtl.engine.fetcher import Stop

__all__ = ["judge"]

_SD: Final = 1 << SoftBit.SOFT_DIRTY
_MARKS: Final = _SD | 1 << EntryBit.A | 1 << EntryBit.D
_MOVED: Final = _SD | 1 << 1
"""Bits by which an entry that was moved may differ: SOFT_DIRTY, and that of swap-like ones."""
_FAILED: Final = ("failed", "given_up", "lost", "homeless")
_MOVES_END: Final = {Stop.DONE, Stop.NEED_TABLE, Stop.OCCUPIED}
"""A move may meet a table that is away, and what such a move left."""


@dataclass
class _Waiting:
    """An invalidation that waits: marks whose records are due at its end, accesses before it, waits for room so far."""

    marks: int
    before: set[int]
    stalls: int


class _Judge:
    """One log, event by event.

    Attributes
    ----------
    tables : dict of int to int
        Tables of level 1 in use, or just unlinked, to the first page that they map.
    """

    def __init__(self, area: Area, told: Told, words: NDArray[np.uint64]) -> None:
        self.area, self.told = area, told
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.tables = area.first_tables
        self.left: dict[int, int] = {}
        """The same of those whose invalidation was taken: the engine must not write there, but the walker may."""
        self.freed: set[int] = set()
        self.dirty_at: dict[int, int] = {}  # page to when it was soft-dirty last; absent: it is now, or never was
        self.dirty: set[int] = set()
        self.cleared: dict[int, int] = {}  # page to when a command that is over took its mark, or saw none
        self.begun: dict[int, tuple[int, int]] = {}
        """Of a store that was granted: when, and its page."""
        self.flying: Counter[int] = Counter()
        self.active: tuple[int, Asked] | None = None
        self.since = self.marks_then = 0
        self.took: dict[int, int] = {}
        """Page to when the command that is under way took its mark."""
        self.taken = 0
        """How many marks it took."""
        self.marked_at: dict[int, int] = {}
        self.listed = range(0)
        """Numbers of the records of the list that is under way."""
        self.carried: dict[int, int] = {}
        """Page to its entry, which the move that is under way has taken and not put."""
        self.report: dict[int, int] = {}
        self.written: set[int] = set()
        """Where the command that is under way wrote of its report."""
        self.before: dict[int, int] = {}
        """What was there."""
        self.pages: dict[str, set[int]] = {name: set() for name in ("granted", "reported", "first", "asked")}
        for table, first in self.tables.items():
            entries = words[table // 8 : table // 8 + 512].tolist()
            self.dirty |= {first + place for place, entry in enumerate(entries) if entry & mark_of(entry)}
        self.pages["first"] = set(self.dirty)
        self.log = LogJudge(area.ring) if area.ring else None
        self.open: set[int] = set()
        """Accesses that were asked for and are not over."""
        self.waiting: list[_Waiting] = []

    def page_of(self, address: int) -> int | None:
        """The page whose entry of level 1 is there."""
        first = self.tables.get(address & ~0xFFF, self.left.get(address & ~0xFFF))
        return None if first is None else first + (address & 0xFFF) // 8

    def problem(self, when: int, text: str) -> None:
        event = self.told.events[when]
        self.problems.append(f"cycle {int(event['cycle'])}: {text}")

    def run(self) -> None:
        for when, (_, kind, a, b, c) in enumerate(self.told.events.tolist()):
            getattr(self, f"_{Kind(kind).name.lower()}")(when, a, b, c)
        for number, told in enumerate(self.told.completions):
            failed = [name for name in _FAILED if told[name]]
            ends = _MOVES_END if self.area.asked[number].kind == "move" else {Stop.DONE}
            if told["stopped"] not in ends or failed:
                self.problems.append(f"command {number}: {Stop(told['stopped']).name} {' '.join(failed)}")
        if self.log:
            self.log.close()
            self.problems += self.log.problems
            self.counts += self.log.counts
        known = self.pages["reported"] | self.dirty
        lost = self.pages["granted"] - known
        invented = known - self.pages["asked"] - self.pages["first"]
        if lost:
            self.problems.append(f"pages granted and in no report: {sorted(map(hex, lost))}")
        if invented:
            self.problems.append(f"pages in a report and not asked for: {sorted(map(hex, invented))}")

    def _over(self, number: int) -> None:
        """An access was answered or retired: what was marked by then must be in the log when it is not waited for."""
        for one in self.waiting if self.log else ():
            if number in one.before and self.log and self.log.counts["stalls"] == one.stalls:
                one.marks = self.log.marks

    def _asked(self, when: int, number: int, b: int, c: int) -> None:
        self.open.add(number)
        page = self.area.story.stores[number].linear >> 12
        self.flying[page] += 1
        self.pages["asked"].add(page)

    def _answered(self, when: int, number: int, b: int, c: int) -> None:
        self.open.discard(number)
        self._over(number)
        self.flying[self.area.story.stores[number].linear >> 12] -= 1

    def _granted(self, when: int, number: int, b: int, c: int) -> None:
        self._over(number)
        page = self.area.story.stores[number].linear >> 12
        self.flying[page] -= 1
        self.begun[number] = (when, page)
        self.pages["granted"].add(page)
        self.counts["grants"] += 1

    def _retired(self, when: int, number: int, b: int, c: int) -> None:
        """Property 4: since the last command that took the page's mark and is over, it was soft-dirty."""
        begun, page = self.begun.pop(number)
        self.open.discard(number)
        self._over(number)
        took = self.cleared.get(page)
        if took is not None and page not in self.dirty and self.dirty_at.get(page, -1) <= took:
            self.problem(when, f"a store to page {page:#x}, granted at event {begun}, retires unmarked after a clear")

    def _swap(self, when: int, address: int, old: int, new: int) -> None:
        if address & ~0xFFF in self.freed:
            self.problem(when, f"a swap in a table that was freed, at {address:#x}")
        page = self.page_of(address)
        if page is None:
            if old ^ new not in (0, 1 << EntryBit.A) or not new >> EntryBit.A & 1:
                self.problem(when, f"an upper entry goes from {old:#x} to {new:#x}")
            return
        self.counts["swaps"] += 1
        moves = self.active is not None and self.active[1].kind == "move" and 0 in (old, new)
        if moves:
            self._carry(when, page, old, new)
        if address & ~0xFFF in self.left and (moves or old & ~new):
            self.problem(when, f"the engine swaps in a table that was left, at {address:#x}")
        was, now = bool(old & mark_of(old)), bool(new & mark_of(new))
        if was and not now:
            self.dirty.discard(page)
            self.dirty_at[page] = when
            self.took[page] = when
            self.taken += 1
            if self.active is None:
                self.problem(when, f"page {page:#x} is cleared by nobody")
            if moves:
                self.pages["reported"].add(page)  # its mark goes with it
            elif old ^ new != mark_of(old):
                self.problem(when, f"a clear goes from {old:#x} to {new:#x}")
        elif not moves and (old & ~new or (old ^ new) & ~_MARKS):
            self.problem(when, f"a mark goes from {old:#x} to {new:#x}")
        if now and not was:
            self.dirty.add(page)
            self.marked_at[page] = when
            self.counts["marks"] += 1
            if self.log and not moves:
                self.log.mark(page)
            if not moves and not self.flying[page]:
                self.problem(when, f"page {page:#x} is marked for nobody")
            if moves:
                self.pages["asked"].add(page)

    def _carry(self, when: int, page: int, old: int, new: int) -> None:
        """An entry is taken, or put: where it goes, or back."""
        assert self.active is not None
        asked = self.active[1]
        if not new:
            self.carried[page] = old
            return
        goes = asked.target <= page < asked.target + asked.pages
        was = self.carried.pop(page - asked.target + asked.first if goes else page, None)
        if was is None or (was ^ new) & ~(_MOVED if goes else 0):
            self.problem(when, f"a move puts {new:#x} at page {page:#x}, and took {was and hex(was)}")

    def _write(self, when: int, address: int, old: int, new: int) -> None:
        if self.log and self.log.holds(address):
            self.log.write(address, new)
            return
        if not REPORT <= address < REPORT + 0x1000:
            self.problem(when, f"a report is written at {address:#x}")
        self.report[address] = new
        self.written.add(address)

    def _command(self, when: int, number: int, first: int, count: int) -> None:
        self.taken, self.listed = 0, range(first, first + count)
        self.marks_then = self.log.marks if self.log else 0
        self.active, self.since, self.took = (number, self.area.asked[number]), when, {}
        self.before, self.written = dict(self.report), set()

    def _done(self, when: int, number: int, b: int, c: int) -> None:
        assert self.active is not None
        asked = self.active[1]
        self.active = None
        self.counts[asked.kind] += 1
        pages = range(asked.first, asked.first + asked.pages)
        if asked.kind == "look":
            return
        if self.log:
            self.log.end(f"command {number}", self.marks_then)
        if asked.kind == "list":
            self._list_done(when, number)
            return
        for page in pages:
            self.cleared[page] = self.took.get(page, self.since)
        if asked.kind == "move":
            if self.carried:
                self.problem(when, f"entries that a move took are nowhere: {sorted(map(hex, self.carried))}")
            self.carried = {}
            late = [page for begun, page in self.begun.values() if page in pages and begun < self.since]
            if late:
                self.problem(when, f"a move ends while stores to its source are granted: {sorted(map(hex, late))}")
            return
        dirty = np.array([page in self.took for page in pages])
        places = [REPORT + 8 * place for place in range(len(dirty_bitmap(dirty, asked.first, unit=asked.unit)))]
        there = np.array([self.before.get(place, 0) for place in places], np.uint64)
        due = dirty_bitmap(dirty, asked.first, unit=asked.unit, there=there if asked.ors else None).tolist()
        found = [self.report.get(place, 0) for place in places]
        if found != due or self.written != set(places):
            wrong = [f"{a:#x}, not {b:#x}" for a, b in zip(found, due, strict=True) if a != b]
            self.problem(when, f"report {number} of what was cleared is {wrong}, {len(self.written)} words")
        self.pages["reported"] |= set(self.took)
        self.counts["reported"] += len(self.took)
        self.counts["folded"] += bool(asked.unit)
        self.counts["added"] += asked.ors and bool(there.any())

    def _list_done(self, when: int, number: int) -> None:
        """Each record's page was cleared, or seen clean, but for those that no table maps; the bitmap tells which."""
        assert self.log is not None
        completion = self.told.completions[number]
        pages = self.log.pages(self.listed.start, completion["page"])
        if completion["page"] != len(self.listed) or len(pages) != len(self.listed):
            self.problem(when, f"list {number} ends behind {completion['page']} of {len(self.listed)} records")
        told_at = {place: self.report[place] for place in self.written}
        bits = [told_at.get(REPORT + place // 64 * 8, 0) >> place % 64 & 1 for place in range(len(pages))]
        told = {page for page, bit in zip(pages, bits, strict=True) if bit}
        if told != set(self.took) or sum(bits) != self.taken:
            wrong = sorted(map(hex, told ^ set(self.took)))
            self.problem(when, f"list {number} tells {sum(bits)} marks and took {self.taken}; they differ at {wrong}")
        stay = [page for page in pages if page in self.dirty and self.marked_at.get(page, -1) < self.since]
        stay = [page for page in stay if page not in self.took]
        if len(stay) > completion["absent"]:
            self.problem(when, f"list {number} leaves pages of its records as they were: {sorted(map(hex, stay))}")
        for page in set(pages) - set(stay):
            self.cleared[page] = self.took.get(page, self.since)
        self.pages["reported"] |= told
        self.counts["reported"] += len(told)
        self.counts["listed"] += len(pages)
        self.counts["absent"] += completion["absent"]

    def _taken(self, when: int, step: int, b: int, c: int) -> None:
        self.counts["invalidations"] += 1
        if self.log and self.area.story.steps[step].d:
            self.waiting.append(_Waiting(self.log.marks, set(self.open), self.log.counts["stalls"]))

    def _complete(self, when: int, a: int, b: int, c: int) -> None:
        self.counts["completed"] += 1
        if self.log:
            self.log.end("an invalidation", self.waiting.pop(0).marks)

    def _set_up(self, when: int, step: int, b: int, c: int) -> None:
        assert self.area.story.steps[step].kind == Op.LOG

    def _tail(self, when: int, tail: int, b: int, c: int) -> None:
        if self.log:
            self.log.told(tail)

    def _head(self, when: int, head: int, b: int, c: int) -> None:
        if self.log:
            self.log.read(head)

    def _flags(self, when: int, flags: int, lost: int, c: int) -> None:
        if self.log:
            self.log.flags(flags, lost)

    def _freed(self, when: int, address: int, b: int, c: int) -> None:
        self.left[address] = self.tables.pop(address)
        self.counts["freed"] += 1

    def _reused(self, when: int, address: int, b: int, c: int) -> None:
        """The spare table takes the place of the one that was left."""
        old, first = self.left.popitem()
        self.freed = self.freed - {address} | {old}
        self.tables[address] = first


def judge(area: Area, told: Told, words: NDArray[np.uint64]) -> tuple[list[str], Counter[str]]:
    """What is wrong in a log, and what was seen in it.

    Parameters
    ----------
    area : Area
        The story, and its commands.
    told : Told
    words : uint64 array
        Physical memory at the beginning.
    """
    judge = _Judge(area, told, words)
    judge.run()
    return judge.problems, judge.counts
