"""Judges a dirty log: its records against the marks that memory saw, and against what the golden model writes."""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from ptewalk.model.dirty_log import COUNTS, DirtyLog, record_of

__all__ = ["INCOMPLETE", "OVERFLOW", "STALLED", "LogJudge", "Ring"]

STALLED, OVERFLOW, INCOMPLETE = 1 << 1, 1 << 3, 1 << 4
"""Flags, by their places in `LogStatusLayout`."""
_MOST_TOLD: Final = 5


class Ring(NamedTuple):
    """Where records go: `size` is in records; `overflows` says that marks may have none."""

    base: int
    size: int
    pcid: int
    overflows: bool = False


class LogJudge:
    """What is told of one ring, event by event.

    Attributes
    ----------
    problems : list of str
    counts : Counter
        records, lost, stalls: times that a mark began to wait; waits: ends that waited for records.
    """

    def __init__(self, ring: Ring, head: int = 0) -> None:
        self.ring, self.head, self.tail = ring, head, 0
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self._marks: list[tuple[int, int, int]] = []  # page, level, the head then
        self._marks_then: list[int] = []  # of each record, how many marks there were
        self._written: list[tuple[int, int]] = []
        self._due: list[tuple[str, int, int]] = []  # an end: its name, marks with records due, the tail then
        self._flags = self._first_lost = 0

    def mark(self, page: int, level: int = 1) -> None:
        self._marks.append((page, level, self.head))

    @property
    def marks(self) -> int:
        """How many there were."""
        return len(self._marks)

    def pages(self, first: int, count: int) -> list[int]:
        """Pages that so many records name, from that number on."""
        return [record_of(word).page for _, word in self._written[first : first + count]]

    def holds(self, address: int) -> bool:
        return self.ring.base <= address < self.ring.base + 8 * self.ring.size

    def write(self, address: int, word: int) -> None:
        self._written.append((address, word))
        self._marks_then.append(len(self._marks))
        used = (len(self._written) - self.head) % COUNTS
        if used > self.ring.size:
            self.problems.append(f"record {len(self._written) - 1}: software has not read what it overwrites")

    def read(self, head: int) -> None:
        self.head = head

    def told(self, tail: int) -> None:
        if not self.tail < tail <= len(self._written):
            self.problems.append(f"the tail goes from {self.tail} to {tail}; records written: {len(self._written)}")
        self.tail = tail

    def flags(self, flags: int, lost: int) -> None:
        self.counts["stalls"] += bool(flags & ~self._flags & STALLED)
        if flags & ~self._flags & OVERFLOW:
            self._first_lost = lost
        self._flags |= flags & ~STALLED
        if not flags & STALLED:
            self._flags &= ~STALLED
        else:
            self._flags |= STALLED

    def end(self, name: str, marks: int) -> None:
        """An end that waits for records: so many marks were made before it began."""
        self._due.append((name, marks, self.tail))
        self.counts["waits"] += 1

    def close(self) -> None:
        """Nothing more comes."""
        golden = DirtyLog(self.ring.base, self.ring.size)
        lost: list[int] = []
        records = [0]  # of the first marks, how many have one
        for page, level, head in self._marks:
            number = golden.tail
            # Where the ring is full it has none: a record of that page is of a later mark.
            fits = (number - head) % COUNTS < self.ring.size and number < len(self._written)
            has = fits and record_of(self._written[number][1]).page == page & (1 << 45) - 1
            if has or not self.ring.overflows:
                golden.head = golden.tail
                golden.mark(page << 12, level, pcid=self.ring.pcid)
                self._compare(number, golden)
            else:
                lost.append(page)
            records.append(golden.tail)
        if len(self._written) != golden.tail:
            self.problems.append(f"{len(self._written)} records of {golden.tail} marks")
        if self.tail != len(self._written):
            self.problems.append(f"the tail ends at {self.tail}, of {len(self._written)} records")
        for name, marks, tail in self._due:
            if records[marks] > tail:
                self.problems.append(f"{name} ends at tail {tail}, and {records[marks]} records were due")
        told = self._first_lost >> 12 if self._flags & OVERFLOW else None
        if told != (lost[0] if lost else None):
            self.problems.append(f"the first lost page is {told}, not {lost[:1]}")
        self.counts["records"] += len(self._written)
        self.counts["lost"] += len(lost)
        del self.problems[_MOST_TOLD:]

    def _compare(self, number: int, golden: DirtyLog) -> None:
        """A record, and the golden model's of the same number."""
        address = golden.order[number]
        if number >= len(self._written):
            self.problems.append(f"a mark without a record: {golden.written[address]:#x}")
        elif self._written[number] != (address, golden.written[address]):
            at, word = self._written[number]
            expected = golden.written[address]
            self.problems.append(f"record {number}: {word:#x} at {at:#x}, expected {expected:#x} at {address:#x}")
        elif self._marks_then[number] <= number:
            self.problems.append(f"record {number} is written before its mark")
