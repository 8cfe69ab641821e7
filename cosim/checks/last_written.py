"""Which values a read may give while writes are under way: of the last write before it, or of one that overlaps it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

__all__ = ["LastWritten"]


@dataclass(eq=False)
class _Write:
    """A write as one byte sees it; `end` None: it is under way."""

    value: int
    begin: int
    end: int | None = None


class LastWritten:
    """Keeps book of writes by byte, and judges reads.

    Two transactions overlap when neither was answered before the other began. A read may give what a write left that
    overlaps it, or that was answered before it began, unless another write began after that answer and was itself
    answered before the read began.

    Attributes
    ----------
    bytes_judged, choices : int
        Bytes that were read; those of which several values were permitted.
    """

    def __init__(self) -> None:
        self.bytes_judged = 0
        self.choices = 0
        self._writes: dict[int, list[_Write]] = defaultdict(list)
        self._open: dict[Hashable, list[tuple[int, _Write]]] = {}
        self._reads: dict[Hashable, int] = {}

    def write_begins(self, key: Hashable, now: int, data: Iterable[tuple[int, int]]) -> None:
        """A write is on its way.

        Parameters
        ----------
        key : hashable
            Of all that is under way only this write's.
        now : int
            When, in any unit.
        data : iterable of (address, byte)
        """
        self._open[key] = [(address, _Write(value, now)) for address, value in data]
        for address, write in self._open[key]:
            self._forget(address)
            self._writes[address].append(write)

    def write_ends(self, key: Hashable, now: int, *, written: bool | None = True) -> None:
        """It was answered. `written` False: nothing was; None: nobody knows, so that every byte may be or not."""
        for address, write in self._open.pop(key):
            if written is False:
                self._writes[address].remove(write)
            elif written:
                write.end = now

    def read_begins(self, key: Hashable, now: int) -> None:
        """A read is on its way."""
        self._reads[key] = now

    def read_ends(self, key: Hashable, now: int, data: Iterable[tuple[int, int]]) -> list[str]:
        """It was answered with these (address, byte); what is wrong with them, if anything. Never written: 0."""
        begin = self._reads.pop(key)
        problems = []
        for address, value in data:
            permitted = self._permitted(address, begin, now)
            self.bytes_judged += 1
            self.choices += len(permitted) > 1
            if value not in permitted:
                named = ", ".join(f"{one:#04x}" for one in sorted(permitted))
                problems.append(f"{address:#x}: read {value:#04x} from {begin} to {now}, permitted {named}")
        return problems

    def _permitted(self, address: int, begin: int, end: int) -> set[int]:
        known = [_Write(0, -1, -1), *self._writes[address]]
        before = [one for one in known if one.end is not None and one.end < begin]
        latest = max(one.begin for one in before)
        since = min(begin, latest)
        return {one.value for one in known if one.begin <= end and (one.end is None or one.end >= since)}

    def _forget(self, address: int) -> None:
        """Drop what no read can give any more."""
        writes = self._writes[address]
        if len(writes) < 16:
            return
        since = min(self._reads.values(), default=max((w.end or 0 for w in writes), default=0) + 1)
        latest = max((one.begin for one in writes if one.end is not None and one.end < since), default=-1)
        self._writes[address] = [one for one in writes if one.end is None or one.end >= latest or one.end >= since]
