"""Random work for an MMU with a table engine: stores, clears, scans, moves, tables that are freed and used again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from ptewalk.cosim.bench.mmu_engine_lane import Op, Step, Store, Story, log_setup
from ptewalk.cosim.checks.dirty_log import Ring
from ptewalk.cosim.driver.engine_masks import clearing, looking, moving, telling
from ptewalk.model.dirty_log import COUNTS
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import PROTNONE, A, Entries, P
from ptewalk.model.x86 import Access, Control, EntryBit, Invalidation, Wait
from ptewalk.rtl.engine.report import Report
from ptewalk.rtl.log.layouts import LogMode

__all__ = ["REPORT", "RING", "Area", "Asked", "draw_story", "mark_of"]

_UPPER: Final = 0x67
_ROOT, _UPPERS, _TABLES = 0x1000, (0x2000, 0x3000), 0x10000
REPORT: Final = 0x40000
"""Where bitmaps go."""
RING: Final = 0x50000
"""Where records of a dirty log go."""
_BYTES: Final = 0x60000
_BASE: Final = 7 << 18
"""The first page of all that is mapped."""
_LEAVES, _SPARE = 5, 2
_MOVERS: Final = 2
"""The last of them, between which, and within which, entries are moved."""
_PCID: Final = 5
_BESIDE: Final = 3
"""Pages before those that are moved, in the same lines, which stay."""
_ROOM: Final = 100
"""Grants at most that are waited for between two commands, fewer than the ring has records."""
_MOVED: Final = 48
"""Entries of a move, between two places in one table and one in another."""
_RULES: Final = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
_WP_NXE_PGE: Final = 1 << Control.WP | 1 << Control.NXE | 1 << Control.PGE


def mark_of(entry: int) -> int:
    """The bit by which an entry of this kind is soft-dirty."""
    return _RULES.SOFT_DIRTY if entry & (P | PROTNONE) else _RULES.SWP_SOFT_DIRTY


class Asked(NamedTuple):
    """A command: what is done to which pages."""

    kind: str
    """"clear", with a bitmap; "look", which changes nothing; "move"; "list": a clear of what records name."""
    first: int
    pages: int
    target: int = 0
    unit: int = 0
    """Binary logarithm of the pages that a bit of the bitmap tells of."""
    ors: bool = False
    """Bits that are set in it stay."""


class Area:
    """An address space of five tables of level 1, any of which a spare one may replace; nothing is mapped at first.

    Attributes
    ----------
    story : Story
    asked : list of Asked
        A command each.
    tables, spare : list of int
        Addresses of the tables in use, by place, and of the others: after all steps so far.
    base : int
        The first page.
    ring : Ring, optional
        Of a dirty log, whose records are judged.
    reading : Step
        By which software reads it.
    lists : bool
        The records are read by the engine.
    around, bitmaps : Random
        Beside `rng`: for what is done round the entries that are moved, and for what a clear's bitmap is like.
    """

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(f"tracking {seed}")
        words = np.zeros(_BYTES // 8, np.uint64)
        self.story = Story(words, seed=seed, swap_soft_dirty=_RULES.SWP_SOFT_DIRTY, leaf_tables=_TABLES)
        self.asked: list[Asked] = []
        self.tables = [_TABLES + 0x1000 * number for number in range(_LEAVES)]
        self.spare = [_TABLES + 0x1000 * (_LEAVES + number) for number in range(_SPARE)]
        self.base = _BASE
        self.moved_to = 0
        self.ring: Ring | None = None
        self.lists = False
        self.reading = Step(Op.READ_LOG)
        self.around, self.bitmaps = random.Random(f"around {seed}"), random.Random(f"bitmaps {seed}")
        self.put(_ROOT + (_BASE >> 27 & 511) * 8, _UPPERS[0] | _UPPER)
        self.put(_UPPERS[0] + (_BASE >> 18 & 511) * 8, _UPPERS[1] | _UPPER)
        for number, table in enumerate(self.tables):
            self.put(self.upper(number), table | _UPPER)
        self.steps(Step(Op.CONTEXT, _ROOT >> 12, _WP_NXE_PGE, Track.NATIVE, _PCID))

    def put(self, address: int, value: int) -> None:
        """A word, before anything happens."""
        self.story.words[address // 8] = value

    def upper(self, number: int) -> int:
        """Where the entry of level 2 of a table is."""
        return _UPPERS[1] + 8 * ((_BASE >> 9) + number & 511)

    @property
    def first_tables(self) -> dict[int, int]:
        """Address of each table that is in use at first to its first page."""
        return {_TABLES + 0x1000 * number: _BASE + 512 * number for number in range(_LEAVES)}

    def place(self, page: int) -> int:
        """Where a page's entry is at first."""
        return _TABLES + 0x1000 * (page - _BASE >> 9) + page % 512 * 8

    def steps(self, *steps: Step) -> int:
        """Software's next steps; the number of the last."""
        self.story.steps += steps
        return len(self.story.steps) - 1

    def store(self, page: int, access: Access = Access.WRITE, **other: int) -> None:
        """A user's access."""
        self.story.stores.append(Store(page << 12, int(access), **other))

    def command(self, kind: str, first: int, pages: int, target: int = 0, *, unit: int = 0, ors: bool = False) -> int:
        """A command, given as the next step; its number."""
        where = {"root": _ROOT >> 12, "page": first, "pages": pages, "changes": int(kind != "look")}
        fields: dict[str, Any] = {"range": where, "words": telling(_RULES), "pcid": _PCID, "address": REPORT}
        if kind == "move":
            move = {"target": target, "level": 1, "entries": pages}
            fields = {**fields, "moves": 1, "move": move, "change": moving(_RULES, marks=True, unprotects=False)}
        elif kind in ("clear", "list"):
            fields = {**fields, "change": clearing(_RULES), "report": Report.BITMAP, "unit": unit, "ors": int(ors)}
            if kind == "list":
                assert self.ring is not None
                fields["lists"] = 1
                fields["list"] = {"base": self.ring.base >> 12, "size": self.ring.size.bit_length() - 1}
        else:
            fields = {**fields, "change": looking()}
        self.asked.append(Asked(kind, first, pages, target, unit, ors))
        self.story.commands.append(fields)
        self.steps(Step(Op.COMMAND, len(self.asked) - 1))
        return len(self.asked) - 1

    def invalidate(self, kind: Invalidation, page: int = 0, wait: Wait = Wait.STORES) -> int:
        """As the next step."""
        return self.steps(Step(Op.INVALIDATE, kind, page << 12, _PCID, wait))

    def log(self, *, left: int = 512, size: int = 9, reads: float = 1.0, **other: int) -> None:
        """As the next steps: a log begins. Software reads in so many cycles, and leaves room for `left` records."""
        overflows = not other.get("stalls", 1) or bool(other.get("time_out"))
        self.ring = Ring(RING, 1 << size, _PCID, overflows)
        setup = log_setup(LogMode.RING, RING, size=size, **other)  # type: ignore[arg-type]
        lag = (1 << size) - left
        self.reading = Step(Op.READ_LOG, min(int(reads * 2**32), 2**32 - 1), lag)
        self.steps(setup, Step(Op.HEAD, -lag % COUNTS), self.reading)

    def relink(self, number: int) -> None:
        """Another table takes a table's place: unlinked, invalidated, copied, linked; the old one is written over.

        It is told to be free when the invalidation is taken, which covers the engine, and the other to be in use when
        it is complete, which covers the walker.
        """
        old, new = self.tables[number], self.spare.pop(0)
        self.steps(Step(Op.WRITE, self.upper(number), 0))
        self.invalidate(Invalidation.PCID, wait=Wait.STORES)
        self.steps(Step(Op.FREE, old), Step(Op.AWAIT_COMPLETE), Step(Op.REUSE, new), Step(Op.COPY, old, new))
        garbage = [Step(Op.WRITE, old + 8 * place, 0xABCD_0867 | place << 12) for place in range(0, 512, 7)]
        self.steps(Step(Op.WRITE, self.upper(number), new | _UPPER), *garbage)
        self.tables[number] = new
        self.spare.append(old)

    def fill(self, first: int, pages: int, flags: int = 0x867) -> None:
        """Pages that are mapped at first."""
        for page in range(first, first + pages):
            self.put(self.place(page), flags | (0x1000 + page % 4096) << 12)


def draw_story(seed: int, stores: int = 1000, *, logs: bool = False, lists: bool = False) -> Area:
    """Everything at once.

    Parameters
    ----------
    seed : int
    stores : int
        How many accesses.
    logs : bool
        True: with a dirty log, and so without moves, whose marks are in none.
    lists : bool
        True: with a dirty log that is read by the engine only, which clears what its records name.
    """
    area = Area(seed)
    area.lists = lists
    if lists:
        area.log(reads=0)
    elif logs:
        _log(area, random.Random(f"log {seed}"))
    rng, story = area.rng, area.story
    story.latency, story.latency_spread = rng.choice((1, 2, 6, 20)), rng.choice((0, 3, 15))
    story.stalls, story.idle = rng.choice((0.0, 0.1, 0.3)), rng.choice((0.0, 0.5, 0.9))
    shared = rng.choice((0, 0, 1 << EntryBit.G))
    still = _LEAVES - _MOVERS
    for number in range(still):
        for page in range(_BASE + 512 * number, _BASE + 512 * (number + 1)):
            if rng.random() < 0.9:
                area.fill(page, 1, rng.choice((0x67, 0x867, 0x827, 0x27, 0x7)) | shared)
    places = _places(area)
    area.fill(places[0], _MOVED)
    for place in places:
        area.fill(place - _BESIDE, _BESIDE, 0x67 if seed % 2 else 0x27)
    _unusual(area, random.Random(f"unusual {seed}"), range(_BASE, _BASE + 512 * still), 0.06)
    _unusual(area, random.Random(f"moved {seed}"), range(places[0], places[0] + _MOVED), 0.2)
    hot = [_BASE + rng.randrange(512 * still) for _ in range(24)]
    hot += [place + rng.randrange(-_BESIDE, _MOVED) for place in places for _ in range(2)]
    for _ in range(stores):
        page = rng.choice(hot) if rng.random() < (0.3 if lists else 0.7) else _BASE + rng.randrange(512 * (still + 1))
        if area.around.random() < 0.15:
            page = area.around.choice(places) - 1 - area.around.randrange(_BESIDE)
        access = Access.WRITE if rng.random() < 0.85 else Access.READ
        area.store(page, access, delay=rng.choice((0, 0, 3, 40, 300, 800)))
    grants = 0
    while grants < 0.5 * stores:
        _command(area)
        for _ in range(rng.randrange(5)):
            _meanwhile(area)
        area.steps(Step(Op.AWAIT_DONE))
        grants += rng.randrange(min(stores // 8, _ROOM))
        area.steps(Step(Op.AWAIT_GRANTS, grants))
    while lists and grants < stores + 1:
        # Records are read until there are no more stores, which might wait for room.
        area.command("list", area.base, 64)
        grants += 4 * _ROOM
        area.steps(Step(Op.AWAIT_DONE), Step(Op.AWAIT_GRANTS, grants))
    return area


def _unusual(area: Area, rng: random.Random, pages: Sequence[int], share: float) -> None:
    """Some of the pages are read-only, PROT_NONE or swapped out at first, soft-dirty or not."""
    for page in pages:
        if rng.random() < share:
            swap = _RULES.swp_entry_to_pte(1, 1 + page % 512)
            kind = rng.choice((0x25 | page % 4096 << 12, PROTNONE | A | page % 4096 << 12, swap))
            area.put(area.place(page), kind | rng.choice((0, mark_of(kind))))


def _log(area: Area, rng: random.Random) -> None:
    """A ring that software reads always, now and then, or seldom, and that is nearly full, or not."""
    overflow = rng.choice(({}, {}, {"stalls": 0}, {"time_out": rng.choice((20, 400))}))
    reads = rng.choice((1.0, 0.05, 0.002, 0.0005))
    area.log(left=rng.choice((1, 3, 40, 512)), reads=reads, watermark=rng.randrange(600), **overflow)


def _places(area: Area) -> list[int]:
    """First pages of what is moved: two in one table; one in another, at the same place of its line as they."""
    first = area.base + 512 * (_LEAVES - _MOVERS) + 5
    return [first, first + 256, first + 512 + 64]


def _command(area: Area) -> None:
    rng = area.rng
    kind = rng.choice(("clear", "clear", "clear", "look", "move") if area.ring is None else ("clear", "clear", "look"))
    if area.lists and (len(area.asked) % 2 == 0 or area.around.random() < 0.5):
        kind = "list"
    if kind == "move":
        places = _places(area)
        source = area.moved_to or places[0]
        area.moved_to = rng.choice([one for one in places if one != source])
        area.command("move", source, _MOVED, area.moved_to)
        return
    first = area.base + 64 * rng.randrange(8 * (_LEAVES - _MOVERS))
    pages = rng.choice((1, 8, 32, 33, 64, 200, 700))
    if kind == "clear" and area.around.random() < 0.3:  # what lies beside the entries that are moved
        first = area.around.choice(_places(area)) & -8
        pages = 8
    how: dict[str, Any] = {}
    if kind == "clear" and area.bitmaps.random() < 0.5:
        how = {"unit": area.bitmaps.choice((0, 0, 1, 3, 4, 6, 7, 9)), "ors": area.bitmaps.random() < 0.8}
        if how["ors"]:  # from any page on
            first += area.bitmaps.choice((0, 1, area.bitmaps.randrange(64)))
    area.command(kind, first, min(pages, area.base + 512 * _LEAVES - first), **how)


def _meanwhile(area: Area) -> None:
    rng = area.rng
    area.steps(Step(Op.PAUSE, rng.choice((0, rng.randrange(60)))))
    if area.ring is not None and rng.random() < 0.3:
        # Software stops reading, so that a store waits for room, and frees a table then: it may be that store's.
        area.steps(Step(Op.READ_LOG), Step(Op.PAUSE, rng.choice((100, 1000))))
        area.relink(rng.randrange(_LEAVES - _MOVERS))
        area.steps(area.reading)
    what = rng.random()
    page = area.base + rng.randrange(512 * (_LEAVES - _MOVERS))
    if what < 0.35:
        kind = rng.choice((Invalidation.ADDRESS, Invalidation.INVLPG, Invalidation.PCID, Invalidation.ALL))
        area.invalidate(kind, page, rng.choice((Wait.NONE, Wait.STORES, Wait.ALL)))
    elif what < 0.7:
        # Not its SD, and no entry's P: other bits, as any other master might, in front of the engine.
        asked = area.asked[-1]
        pages: Sequence[int] = range(asked.first, asked.first + min(asked.pages, 96), rng.choice((1, 5, 16)))
        bits = 1 << EntryBit.A, 1 << SoftBit.SPECIAL
        if asked.kind == "move" and rng.random() < 0.5:
            pages = [asked.target - 1 - number % _BESIDE for number in range(48)]
            bits = 1 << EntryBit.D, 1 << SoftBit.SPECIAL
        for at in pages:
            number, index = divmod(at - area.base, 512)
            area.steps(Step(Op.XOR, area.tables[number] + 8 * index, bits[at % 2]))
            area.steps(Step(Op.PAUSE, rng.randrange(4)))
    else:
        # Where the command is, or has been, or will be.
        asked = area.asked[-1]
        area.relink((asked.first + rng.randrange(asked.pages) - area.base) // 512)
