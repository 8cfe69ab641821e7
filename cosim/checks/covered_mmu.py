"""Which bins of functional coverage of an MMU that caches a log met."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Final

from ptewalk.cosim.bench.events import Accept, Answer, Invalidate, LogEvent, Read, Reset, SetContext, Swap, WalkEnd
from ptewalk.cosim.checks.covered import BIN
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Request, Result, Translated
from ptewalk.model.x86 import LEVELS_5, PAGE_SHIFT, Outcome
from ptewalk.rtl.caching_mmu_bins import ANOTHER, NO_PAGE, OF_PAGE, STATES, THE_WALKS

__all__ = ["mmu_bins"]

_OUTCOMES: Final[dict[type[Result], str]] = {
    Translated: Outcome.OK.name,
    PageFault: Outcome.PAGE_FAULT.name,
    GeneralProtection: Outcome.GENERAL_PROTECTION.name,
    BusFault: Outcome.BUS_ERROR.name,
}
_MARKED: Final = STATES[-1]


def mmu_bins(log: Sequence[LogEvent]) -> Counter[str]:
    """Count the bins of `rtl.caching_mmu_bins.CACHING_MMU`.

    Parameters
    ----------
    log : sequence of LogEvent
        Whole, or from a reset on.

    Returns
    -------
    Counter of str
        As `covered.walk_bins`.
    """
    counting = _Counting()
    for place, event in enumerate(log):
        counting.add(place, event)
    return counting.bins


class _Walk:
    """What a walker did since its last walk ended: places of reads of entries, and of the first swap that was done."""

    def __init__(self) -> None:
        self.reads: list[int] = []
        self.marked: int | None = None
        self.again = False
        """A swap failed: the next read is of the same entry."""

    def state(self, place: int) -> str:
        """How far it was at a place of the log."""
        if self.marked is not None and self.marked < place:
            return _MARKED
        return STATES[min(bisect_left(self.reads, place), LEVELS_5)]


class _Counting:
    """Eats a log, and counts."""

    def __init__(self) -> None:
        self.bins: Counter[str] = Counter()
        self._flying: dict[int, tuple[int, Request]] = {}  # tag to the place of its request
        self._walks: dict[int, _Walk] = defaultdict(_Walk)  # by walker
        self._ended: dict[int, int] = {}  # tag to the entries that its walk read
        self._invalidations: list[tuple[int, Invalidate]] = []
        self._root = 0  # its page

    def add(self, place: int, event: LogEvent) -> None:
        """The next event."""
        match event:
            case Read():
                walk = self._walks[event.walker]
                if not walk.again:
                    if event.address >> PAGE_SHIFT == self._root:
                        walk.reads.clear()  # a fault below a cached entry is found again from the root
                    walk.reads.append(place)
                walk.again = False
            case SetContext():
                self._root = event.state.root >> PAGE_SHIFT
            case Swap():
                walk = self._walks[event.walker]
                walk.again = not event.done and not event.error
                if event.done and walk.marked is None:
                    walk.marked = place
            case Accept():
                self._flying[event.tag] = place, event.request
            case Invalidate():
                self._invalidations.append((place, event))
            case WalkEnd():
                self._end(event)
            case Answer():
                self._answer(event)
            case Reset():
                self._flying.clear()
                self._walks.clear()
                self._ended.clear()
                self._invalidations.clear()
            case _:
                pass

    def _end(self, event: WalkEnd) -> None:
        """A walk is over: invalidations since its request met it in the states that it went through."""
        walk = self._walks.pop(event.walker, None) or _Walk()
        self._ended[event.tag] = len(walk.reads)
        begun, request = self._flying.get(event.tag, (None, None))
        if begun is None or request is None:
            return  # the judge of the log tells of it
        for place, asked in reversed(self._invalidations):
            if place < begun:
                break
            page = NO_PAGE
            if asked.kind in OF_PAGE:
                page = THE_WALKS if asked.linear >> PAGE_SHIFT == request.linear >> PAGE_SHIFT else ANOTHER
            self.bins[BIN.join(("mmu-invalidation", asked.kind.name, walk.state(place), page))] += 1

    def _answer(self, event: Answer) -> None:
        _, request = self._flying.pop(event.tag, (0, None))
        if request is None:
            return
        read = self._ended.pop(event.tag, None)
        by = "hit" if read is None else "walk"
        self.bins[BIN.join(("mmu-answer", by, _OUTCOMES[type(event.result)], request.access.name))] += 1
        if read and isinstance(event.result, Translated):
            leaf = event.result.level
            self.bins[BIN.join(("mmu-start", str(leaf + read - 1), str(leaf)))] += 1
