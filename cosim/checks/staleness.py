"""What makes cached translations stale, and which: invalidations, contexts, changes of control, page faults.

Places are numbers of events in a log, from 1; 0 is before all of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import Final, NamedTuple

from ptewalk.model.x86 import LEVEL_SHIFT, LEVELS_5, Invalidation

__all__ = ["KINDS", "SIZES", "Cover", "Staleness"]

KINDS: Final = (*(kind.name for kind in Invalidation), "CONTEXT", "CONTROL", "LA57", "FAULT")
"""What makes translations stale: invalidations; a context without `keep`; a change of control that flushes, and of
CR4.LA57, which makes other tables of the root's; a #PF."""
SIZES: Final = (1, 2, 3)
"""Levels of a leaf."""
_GLOBAL: Final = -1
"""In the place of a PCID."""
_PLACE: Final = {kind: place for place, kind in enumerate(KINDS)}
_NEVER: Final = (0,) * len(KINDS)


class Cover(NamedTuple):
    """Events that cover a translation: the place of the last, of the last of another kind, and of each of `KINDS`."""

    last: int
    before: int
    by_kind: tuple[int, ...]


class Staleness:
    """The events of a log that make something stale, each said with its place in the log."""

    def __init__(self) -> None:
        # (PCID, level, page) to the place of the last event of each kind.
        self._pages: dict[tuple[int, int, int], list[int]] = {}
        self._pcids: dict[int, list[int]] = {}
        self._others = ([0] * len(KINDS), [0] * len(KINDS))  # of what is not global, and of what is
        self._known: dict[tuple[int, int, int], Cover] = {}
        self._now: dict[tuple[int, int], tuple[list[Cover], dict[int, int]]] = {}  # `at`, since the last event
        # Of upper entries: the last place of each, whatever the event's kind.
        self._upper_pages: dict[tuple[int, int, int], int] = {}  # (PCID, level, page)
        self._upper_pcids: dict[int, int] = {}
        self._upper_all = 0
        self._invlpgs: dict[int, list[int]] = defaultdict(list)  # PCID to places

    def page(self, kind: str, linear: int, pcid: int, place: int) -> None:
        """What translates `linear` under `pcid`, and the upper entries on the way."""
        self._now.clear()
        for level in SIZES:
            key = pcid, level, linear >> LEVEL_SHIFT[level]
            self._pages.setdefault(key, [0] * len(KINDS))[_PLACE[kind]] = place
            self._known.pop(key, None)
        for level in range(2, LEVELS_5 + 1):
            self._upper_pages[pcid, level, linear >> LEVEL_SHIFT[level]] = place

    def page_and_global(self, kind: str, linear: int, pcid: int, place: int) -> None:
        """As `page`, and what is global too."""
        self.page(kind, linear, pcid, place)
        self.page(kind, linear, _GLOBAL, place)

    def all(self, kind: str, place: int, *, spare_global: bool = False) -> None:
        """Everything that is cached."""
        self._now.clear()
        self._known.clear()
        self._others[False][_PLACE[kind]] = self._upper_all = place
        if not spare_global:
            self._others[True][_PLACE[kind]] = place

    def of_pcid(self, kind: str, pcid: int, place: int) -> None:
        """What is cached of a PCID and not global."""
        self._now.clear()
        self._known.clear()
        self._pcids.setdefault(pcid, [0] * len(KINDS))[_PLACE[kind]] = self._upper_pcids[pcid] = place

    def invalidate(self, kind: Invalidation, linear: int, pcid: int, current: int, place: int) -> None:
        """INVPCID's types, or INVLPG under PCID `current` [SDM 3A 4.10.4.1]."""
        if kind == Invalidation.INVLPG:
            self.page_and_global("INVLPG", linear, current, place)
            self._upper_pcids[current] = place
            self._invlpgs[current].append(place)
        elif kind == Invalidation.ADDRESS:
            self.page("ADDRESS", linear, pcid, place)
        elif kind == Invalidation.PCID:
            self.of_pcid("PCID", pcid, place)
        else:
            self.all(kind.name, place, spare_global=kind == Invalidation.NOT_GLOBAL)

    def cover(self, linear: int, pcid: int, is_global: bool, level: int) -> Cover:
        """The events that cover a translation of `linear`."""
        own, page = _GLOBAL if is_global else pcid, linear >> LEVEL_SHIFT[level]
        known = self._known.get((own, level, page))
        if known is None:
            of_page = self._pages.get((own, level, page), _NEVER)
            of_pcid = _NEVER if is_global else self._pcids.get(pcid, _NEVER)
            by_kind = tuple(map(max, of_page, of_pcid, self._others[is_global]))
            *_, before, last = sorted(by_kind)
            known = self._known[own, level, page] = Cover(last, before, by_kind)
        return known

    def at(self, linear: int, pcid: int) -> tuple[list[Cover], dict[int, int]]:
        """What covers `linear` by now.

        Returns
        -------
        covers : list of Cover
            By level of the leaf what covers a translation that is not global, then one that is.
        above : dict of int to int
            As `above`. Neither is changed by later events.
        """
        page = linear >> LEVEL_SHIFT[1]
        found = self._now.get((pcid, page))
        if found is None:
            covers = [self.cover(linear, pcid, is_global, level) for is_global in (False, True) for level in SIZES]
            found = self._now[pcid, page] = covers, self.above(linear, pcid)
        return found

    def above(self, linear: int, pcid: int) -> dict[int, int]:
        """Level of an upper entry of `linear` to the place of the last event that covers it."""
        all_of = max(self._upper_all, self._upper_pcids.get(pcid, 0))
        pages = self._upper_pages
        return {
            level: max(all_of, pages.get((pcid, level, linear >> LEVEL_SHIFT[level]), 0))
            for level in range(2, LEVELS_5 + 1)
        }

    def torn(self, pcid: int, oldest: int, newest: int) -> int:
        """The place of the last INVLPG between two reads of one walk; 0: there was none."""
        places = self._invlpgs.get(pcid, [])
        before = bisect_left(places, newest)
        last = places[before - 1] if before else 0
        return last if last > oldest else 0
