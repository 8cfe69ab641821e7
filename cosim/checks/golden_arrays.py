"""The event log of a whole batch at once, eaten by `model.paging_bulk`: what `golden` does access by access.

It says so where all agrees. Where anything differs nothing is said: `golden` then goes through the log again, and tells
in words what it was.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.records import RESPONSE, TRANSLATION, EventKind, Records
from ptewalk.cosim.checks.covered import SWAP
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.model.linux import SoftBit
from ptewalk.model.paging_bulk import Accesses, Walks
from ptewalk.model.x86 import LEVELS_5, PAGE_SHIFT, PKEY_BITS, PKEY_LOW, Control, EntryBit, Outcome

__all__ = ["Eaten", "accesses_of", "eat"]

Numbers = NDArray[np.int64]
_PAGE_SHIFT: Final = np.uint64(PAGE_SHIFT)
_PKEY: Final = np.uint64((1 << PKEY_BITS) - 1)


class Eaten(NamedTuple):
    """What the model made of a log.

    Attributes
    ----------
    expected : Records (n,)
        `RESPONSE` records, without tags.
    allowed : int64 array
        Places of the requests that are OK, where translations are told.
    translations : Records
        `TRANSLATION` records of those.
    depths : int64 array (n,)
        Entries that each walk read.
    swaps : Records
        All that were made, `covered.SWAP` records.
    """

    expected: Records
    allowed: Numbers
    translations: Records
    depths: Numbers
    swaps: Records


def accesses_of(requests: Records, *, five: bool) -> Accesses:
    """What the model is asked by `REQUEST` records; without `five` LA57 counts for nothing."""
    control = requests["control"] if five else requests["control"] & np.uint32(~(1 << Control.LA57) & 0xFFFF_FFFF)
    return Accesses(
        linear=requests["linear"],
        access=requests["access"],
        user=requests["user"] != 0,
        implicit=requests["implicit"] != 0,
        ac=requests["ac"] != 0,
        root=requests["root"] << _PAGE_SHIFT,
        control=control,
        pkru=requests["pkru"],
        pkrs=requests["pkrs"],
        track=requests["track"],
        saved_dirty=requests["saved_dirty"] != 0,
    )


def eat(
    events: Records,
    requests: Records,
    physical_bits: int,
    shadow: Shadow | None,
    *,
    refusals: bool,
    five: bool,
    soft_dirty: bool,
    gigabyte_pages: bool,
) -> Eaten | None:
    """What the model makes of a log in which every access is the model's; None: one is not.

    `shadow`, where there is one, then holds what the log wrote.
    """
    if shadow is not None and not _is_consistent(events, shadow, refusals=refusals):
        return None
    walks = Walks(accesses_of(requests, five=five), physical_bits, soft_dirty=soft_dirty, gigabyte_pages=gigabyte_pages)
    log = _Log(events, len(requests))
    if not log.in_order or not log.follow(walks):
        return None
    if shadow is not None:
        _settle(events, shadow)
    answers = walks.answers
    expected = np.zeros(len(requests), RESPONSE)
    for name, column in answers._asdict().items():
        expected[name] = column
    allowed = np.flatnonzero(answers.outcome == Outcome.OK)
    return Eaten(expected, allowed, log.translations(walks, allowed, soft_dirty=soft_dirty), log.depth, log.swaps())


class _Log:
    """The accesses of each walk, in order, and how far the walks have come in them."""

    def __init__(self, events: Records, count: int) -> None:
        self._places = np.flatnonzero(events["kind"] != EventKind.FOREIGN)
        self._events = events[self._places]
        request = self._events["request"]
        ascends = bool((request[1:] >= request[:-1]).all()) and not (request >= count).any()
        self.in_order = ascends and _are_in_place(events)
        """The accesses of a walk come before those of the next, and a second writer's where they may."""
        numbers = np.arange(count)
        self._next, self._ends = (np.searchsorted(request, numbers, side) for side in ("left", "right"))
        self.depth = np.zeros(count, np.int64)
        self._address, self._left = np.zeros((2, count, LEVELS_5), np.uint64)
        self._swaps: list[tuple[Numbers, Numbers, Numbers]] = []  # walks, entries read before, and places
        self._instead: list[tuple[Numbers, Numbers]] = []  # places of swaps that failed, and of the reads after them
        self._failed = np.full(count, -1)
        """Place of the swap that failed right before; -1: there is none."""

    def follow(self, walks: Walks) -> bool:
        """Take all walks to their ends by the log; False when the model does anything else than the log says."""
        while len(at := np.flatnonzero(walks.level)):
            place, event = self._take(at)
            if event is None or not self._reads(walks, at, place, event):
                return False
            at, event = at[event["error"] == 0], event[event["error"] == 0]
            entries = event["old"]
            looked = walks.look(at, entries)
            self._left[at, self.depth[at] - 1] = looked.new
            faults = looked.cause != 0
            walks.fault(at[faults], looked.cause[faults])
            goes_on = ~faults
            swaps = np.flatnonzero(looked.new != entries)
            if len(swaps):
                done = self._swap(walks, at[swaps], entries[swaps], looked.new[swaps])
                if done is None:
                    return False
                goes_on[swaps] = done
            leaf = goes_on & looked.leaf
            walks.arrive(at[leaf], entries[leaf])
            walks.descend(at[goes_on & ~leaf], entries[goes_on & ~leaf])
        return bool((self._next == self._ends).all())

    def _take(self, at: Numbers) -> tuple[Numbers, Records | None]:
        """Places and records of the next event of each of these walks; None where one has none left."""
        place = self._next[at]
        if (place >= self._ends[at]).any():
            return place, None
        self._next[at] += 1
        return place, self._events[place]

    def _reads(self, walks: Walks, at: Numbers, place: Numbers, event: Records) -> bool:
        """Each of these events is the read that its walk makes."""
        if (event["kind"] != EventKind.READ).any() or (event["address"] != walks.addresses(at)).any():
            return False
        failed = self._failed[at]
        again = (failed >= 0) & (event["error"] == 0)
        self._instead.append((failed[again], place[again]))
        self.depth[at] += failed < 0
        self._failed[at] = -1
        self._address[at, self.depth[at] - 1] = event["address"]
        walks.refuse(at[event["error"] != 0])
        return True

    def _swap(self, walks: Walks, at: Numbers, old: NDArray[np.uint64], new: NDArray[np.uint64]) -> Numbers | None:
        """Whether each of these walks' swaps was done; None when the next event is another."""
        place, event = self._take(at)
        if event is None or (event["kind"] != EventKind.SWAP).any():
            return None
        if (
            (event["address"] != walks.addresses(at)).any()
            or (event["old"] != old).any()
            or (event["new"] != new).any()
        ):
            return None
        self._swaps.append((at, self.depth[at], place))
        error, done = event["error"] != 0, event["done"] != 0
        walks.refuse(at[error])
        failed = ~error & ~done
        self._failed[at[failed]] = place[failed]
        self._left[at[failed], self.depth[at[failed]] - 1] = old[failed]
        result: Numbers = ~error & done
        return result

    def swaps(self) -> Records:
        """All swaps, in the log's order, `covered.SWAP` records."""
        if not self._swaps:
            return np.zeros(0, SWAP)
        walk, depth, place = (np.concatenate(column) for column in zip(*self._swaps, strict=True))
        order = np.argsort(place)
        place = place[order]
        found, event = np.zeros(len(place), SWAP), self._events[place]
        found["request"], found["depth"] = walk[order], depth[order]
        for name in ("address", "old", "new"):
            found[name] = event[name]
        found["done"], found["refused"] = event["done"] != 0, event["error"] != 0
        failed, read = (np.concatenate(column) for column in zip(*self._instead, strict=True))
        rows = np.searchsorted(place, failed)
        found["instead"][rows], found["overtaken"][rows] = self._events["old"][read], True
        return found

    def translations(self, walks: Walks, allowed: Numbers, *, soft_dirty: bool) -> Records:
        """What may be kept of the walks that are OK, `TRANSLATION` records; see `model.translation`."""
        depth = self.depth[allowed]
        leaf = self._left[allowed, depth - 1]
        every, some = leaf.copy(), leaf.copy()
        for column in range(LEVELS_5):
            entry = np.where(column < depth, self._left[allowed, column], leaf)
            every &= entry
            some |= entry
        found = np.zeros(len(allowed), TRANSLATION)
        answers = walks.answers
        found["frame"] = answers.physical[allowed] >> _PAGE_SHIFT
        found["address"] = self._address[allowed, depth - 1]
        for name in ("level", "pwt", "pcd", "pat"):
            found[name] = getattr(answers, name)[allowed]
        told = (("rw", every, EntryBit.RW), ("us", every, EntryBit.US), ("xd", some, EntryBit.XD))
        for name, word, bit in (*told, ("g", leaf, EntryBit.G), ("d", leaf, EntryBit.D)):
            found[name] = word >> np.uint64(bit) & np.uint64(1)
        found["pkey"] = leaf >> np.uint64(PKEY_LOW) & _PKEY
        found["soft_dirty"] = (leaf >> np.uint64(SoftBit.SOFT_DIRTY) & np.uint64(1)) * np.uint64(soft_dirty)
        return found


def _are_in_place(events: Records) -> bool:
    """No write of a second writer follows a swap of a walk that goes on, or that it belongs to."""
    foreign = events["kind"] == EventKind.FOREIGN
    number, request = np.arange(len(events)), events["request"].astype(np.int64)
    before = np.maximum.accumulate(np.where(foreign, -1, number))
    after = np.minimum.accumulate(np.where(foreign, len(events), number)[::-1])[::-1]
    places = np.flatnonzero(foreign & (before >= 0))
    before, after = before[places], after[places]
    owner = np.where(events["kind"][before] == EventKind.SWAP, request[before], -1)
    goes_on = np.append(request, -2)[after] == owner
    return not (goes_on | (request[places] == owner)).any()


def _history(events: Records) -> tuple[Numbers, Numbers, Numbers]:
    """The events by address, in the log's order at each.

    Returns
    -------
    order : int64 array (n,)
        Places of the events.
    first : int64 array (n,)
        Where in `order` the events of this one's address begin.
    last : int64 array (n,)
        Where in `order` the last write to the address stands, this one or one before it; below `first`: there is none.
    """
    order = np.argsort(events["address"], kind="stable")
    address, count = events["address"][order], np.arange(len(order))
    begins = np.ones(len(order), bool)
    begins[1:] = address[1:] != address[:-1]
    kind = events["kind"][order]
    written = (kind == EventKind.SWAP) & (events["done"][order] != 0) & (events["error"][order] == 0)
    written |= kind == EventKind.FOREIGN
    first = np.maximum.accumulate(np.where(begins, count, 0))
    return order, first, np.maximum.accumulate(np.where(written, count, -1))


def _is_consistent(events: Records, shadow: Shadow, *, refusals: bool) -> bool:
    """Each access finds what was written last, and each swap is done where that is what it looks for."""
    if not len(events):
        return True
    order, first, last = _history(events)
    ordered = events[order]
    before = np.concatenate([[-1], last[:-1]])
    words, there = shadow.load_many(ordered["address"])
    words = np.where(before >= first, ordered["new"][before], words)
    kind, good = ordered["kind"], ordered["error"] == 0
    found = ordered["old"] == words
    reads = (kind != EventKind.READ) | np.where(good, there & found, ~there | refusals)
    swaps = (kind != EventKind.SWAP) | ~good | there & ((ordered["done"] != 0) == found)
    return bool((reads & swaps & (there | (kind != EventKind.FOREIGN))).all())


def _settle(events: Records, shadow: Shadow) -> None:
    """Do the log's writes."""
    order, first, last = _history(events)
    ends = np.append(first[1:] != first[:-1], True) & (last >= first)
    ordered = events[order]
    shadow.store_many(ordered["address"][ends], ordered["new"][last[ends]])
