"""Page tables in the unit's memory: mapped, cleared and read by the driver, entry by entry with atomic swaps.

Where the unit has a table engine that clears.

What clear_refs and pagemap make of an entry is the golden model's rule for one kernel (`model/bulk.py`).
"""

from __future__ import annotations

from collections.abc import Iterator

from ptewalk.cosim.driver.steps import DriverError, Steps
from ptewalk.cosim.driver.sweep import Sweep
from ptewalk.cosim.driver.table_engine import TableEngine
from ptewalk.cosim.driver.unit import Unit, WaitFor
from ptewalk.model.engine import Pages
from ptewalk.model.linux import TABLE_FLAGS, Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import ENTRY_BYTES, INDEX_BITS, LEVEL_SHIFT, PAGE_BYTES, EntryBit, Invalidation

__all__ = ["AddressSpace"]

_FRAME = (1 << 52) - PAGE_BYTES
_PRESENT = 1 << EntryBit.P
_MOST_BY_ADDRESS = 33
"""Pages that are invalidated one by one; more of them by PCID (arch/x86/mm/tlb.c)."""


class AddressSpace:
    """The tables of one PCID, of 4 KiB pages.

    Parameters
    ----------
    unit : Unit
    frames : iterator of int
        Physical addresses of 4 KiB frames that are free, for tables.
    zeroed : bool
        Those frames are all 0 already. False (default): each is cleared before it is used, word by word.
    levels : int
        4 (default) or 5.
    pcid : int
    track : Track
        Who tracks.
    profile : str
        The kernel by whose rules entries are cleared and reported; default linux-6.1.
    room : range, optional
        Physical addresses, from a multiple of a line on, where the unit's table engine may write pagemap words. Without
        it, and without an engine, `pagemap` reads the entries.

    Attributes
    ----------
    root : int
        Physical address of the top-level table, once `create` was run.
    """

    def __init__(
        self,
        unit: Unit,
        frames: Iterator[int],
        *,
        zeroed: bool = False,
        levels: int = 4,
        pcid: int = 0,
        track: Track = Track.NATIVE,
        profile: str = "linux-6.1",
        room: range | None = None,
    ) -> None:
        self.root = 0
        self._room = room
        self._unit, self._frames, self._zeroed = unit, frames, zeroed
        self._levels, self._pcid, self._track = levels, pcid, track
        self._rules = Entries(PROFILES[profile], track=track)

    def create(self) -> Steps[None]:
        """An empty top-level table."""
        self.root = yield from self._new_table()

    def enter(self, *, control: int = 0) -> Steps[None]:
        """Make it the unit's context."""
        yield from self._unit.context(self.root, control=control, pcid=self._pcid, track=self._track)

    def map(self, linear: int, physical: int, *, write: bool = True, user: bool = True) -> Steps[None]:
        """Map a page to a frame; tables that are missing are made.

        Raises
        ------
        DriverError
            The page is mapped already.
        """
        at = yield from self._entry(linear, make=True)
        assert at is not None
        entry = physical | _PRESENT | write << EntryBit.RW | user << EntryBit.US
        if not (yield from self._unit.swap_word(at, 0, entry)):
            raise DriverError(f"{linear:#x} is mapped already")

    def unmap(self, linear: int) -> Steps[int]:
        """Unmap a page, and wait until nothing reaches its frame any more; the entry as it was, 0 for none.

        A mark that is set meanwhile is in what is returned: the swap takes the final value.
        """
        at = yield from self._entry(linear)
        old = 0 if at is None else (yield from self._unit.write_word(at, 0))
        if old & _PRESENT:
            yield from self._invalidate([linear])
        return old

    def clear(self, linear: int, pages: int) -> Steps[int]:
        """As clear_refs 4 on these pages; how many entries changed.

        When it has ended, every store that was allowed before has landed, and each later one marks anew.
        """
        if self._unit.built["engine"]:
            engine, span = TableEngine(self._unit), self._pages(linear, pages)
            return (yield from engine.clear(span, self._rules, pcid=self._pcid))[1]
        _, changed = yield from self._sweep(linear, pages).clear(self._rules)
        if changed:
            first = self._first(linear)
            yield from self._invalidate([linear + (page - first) * PAGE_BYTES for page in changed])
        return len(changed)

    def pagemap(self, linear: int, pages: int) -> Steps[list[int]]:
        """The pagemap words of these pages, as far as entries tell them: without FILE and EXCLUSIVE.

        Raises
        ------
        ValueError
            `room` has none for a page.
        """
        if self._unit.built["engine"] and self._room is not None:
            return (yield from self._told(self._pages(linear, pages), self._room))
        words = yield from self._sweep(linear, pages).words(self._rules)
        return [int(word) for word in words]

    def _told(self, span: Pages, room: range) -> Steps[list[int]]:
        """What the engine writes, as much at a time as there is room for."""
        engine, found = TableEngine(self._unit), list[int]()
        while span.first < span.last:
            most = len(room) // ENTRY_BYTES - engine.report_words(span)
            if most < 1:
                raise ValueError(f"room for pagemap words must have 8 bytes and a line, not {len(room)} bytes")
            part = span._replace(last=min(span.last, span.first + most))
            at = yield from engine.words(part, self._rules, room.start, pcid=self._pcid)
            for page in range(part.last - part.first):
                found.append((yield from self._unit.read_word(at + ENTRY_BYTES * page)))
            span = span._replace(first=part.last)
        return found

    def _sweep(self, linear: int, pages: int) -> Sweep:
        return Sweep(self._unit, self._pages(linear, pages))

    def _pages(self, linear: int, pages: int) -> Pages:
        _check_page(linear)
        first = self._first(linear)
        return Pages(self.root // PAGE_BYTES, self._levels, first, first + pages)

    def _first(self, linear: int) -> int:
        """The page of an address in the tables, which do not know the bits above."""
        return (linear // PAGE_BYTES) % (1 << INDEX_BITS * self._levels)

    def _entry(self, linear: int, *, make: bool = False) -> Steps[int | None]:
        """Physical address of the level-1 entry of a page; None where a table is missing."""
        _check_page(linear)
        table = self.root
        for level in range(self._levels, 0, -1):
            at = table + 8 * (linear >> LEVEL_SHIFT[level] & (1 << INDEX_BITS) - 1)
            if level == 1:
                return at
            entry = yield from self._unit.read_word(at)
            if not entry & _PRESENT:
                if not make:
                    return None
                entry = (yield from self._new_table()) | TABLE_FLAGS
                yield from self._unit.write_word(at, entry)
            table = entry & _FRAME
        raise AssertionError("unreachable")

    def _new_table(self) -> Steps[int]:
        frame = next(self._frames, None)
        if frame is None:
            raise DriverError("no frame is free for a table")
        for address in () if self._zeroed else range(frame, frame + PAGE_BYTES, 8):
            if (yield from self._unit.read_word(address)):
                yield from self._unit.write_word(address, 0)
        return frame

    def _invalidate(self, pages: list[int]) -> Steps[None]:
        """Have these pages forgotten, the last one with a wait for stores."""
        if len(pages) > _MOST_BY_ADDRESS:
            yield from self._unit.invalidate(Invalidation.PCID, pcid=self._pcid, wait=WaitFor.STORES)
            return
        for page in pages[:-1]:
            yield from self._unit.invalidate(Invalidation.ADDRESS, linear=page, pcid=self._pcid, wait=WaitFor.NONE)
        yield from self._unit.invalidate(Invalidation.ADDRESS, linear=pages[-1], pcid=self._pcid, wait=WaitFor.ALL)


def _check_page(linear: int) -> None:
    if linear % PAGE_BYTES:
        raise ValueError(f"a page's address must be a multiple of {PAGE_BYTES}, not {linear:#x}")
