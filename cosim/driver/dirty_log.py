"""The dirty log by registers: set up, read, appended to. Meaning: docs/log.md.

Records lie in memory. Who can reach that reads them there: `unread` says which there are, `places` where, `records`
what their words say, and `release` makes room. `take` does all of it by the unit's own memory window.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ptewalk.cosim.driver.steps import DriverError, Read, Steps, Wait, Write
from ptewalk.cosim.driver.unit import POLLS, Unit
from ptewalk.model.dirty_log import COUNTS, LOG_SIZES, Record, record_of
from ptewalk.model.x86 import ENTRY_BYTES, PAGE_BYTES
from ptewalk.rtl.log.layouts import PML_ENTRIES, LogMode
from ptewalk.rtl.registers.map import BY_NAME

__all__ = ["EMPTY", "UnitLog"]

EMPTY: Final = 1
"""What a place of a PML buffer holds before an entry is written there: no entry has one of its low 12 bits set."""


class UnitLog:
    """The log of a unit, as this driver set it up.

    Parameters
    ----------
    unit : Unit

    Attributes
    ----------
    mode : LogMode
    base : int
        Physical address of ring or buffer.
    size : int
        Records of the ring.
    head : int
        Records that software is done with, modulo `COUNTS`.

    Raises
    ------
    ValueError
        It was built without one.
    """

    def __init__(self, unit: Unit) -> None:
        if not unit.built["log"]:
            raise ValueError("this unit was built without a dirty log: CAPS.log is 0")
        self._unit = unit
        self.mode, self.base, self.size, self.head = LogMode.OFF, 0, LOG_SIZES[0], 0
        self._first = PML_ENTRIES - 1  # of the buffer's entries
        self._epoch = 0

    # Setups ------------------------------------------------------------------------------------------------------

    def set_up(
        self, base: int, size: int, *, stalls: bool = True, time_out: int = 0, watermark: int = 0
    ) -> Steps[None]:
        """Begin a ring.

        Parameters
        ----------
        base : int
            Its physical address, a multiple of 4096. For `take` by phase it is zeroed.
        size : int
            Its records, of `LOG_SIZES`.
        stalls : bool
            A mark that finds it full waits; False: it goes on without a record.
        time_out : int
            Cycles after which it does so all the same; 0: never.
        watermark : int
            Records from which on the interrupt `watermark` is raised; 0: never.

        Raises
        ------
        ValueError
            A value is none, or does not fit.
        """
        if size not in LOG_SIZES:
            raise ValueError(f"size must be a power of two from 512 to 262144 records, not {size}")
        power = size.bit_length() - 1
        how = {"time_out": time_out, "watermark": watermark}
        yield from self._set_up(LogMode.RING, base, size=power, stalls=stalls, **how)
        self.size = size

    def set_up_pml(self, base: int, *, first: int = PML_ENTRIES - 1) -> Steps[None]:
        """Begin a PML buffer of 4 KiB, from entry `first` downwards. For `take_pml` its places are `EMPTY`."""
        if not 0 <= first < PML_ENTRIES:
            raise ValueError(f"first must be an entry of the buffer, 0 to {PML_ENTRIES - 1}, not {first}")
        yield from self._set_up(LogMode.PML, base, first=first)
        self._first = first

    def turn_off(self) -> Steps[None]:
        """Marks have no records from now on; those that are on their way are written."""
        yield from self._set_up(LogMode.OFF, 0)

    def _set_up(
        self,
        mode: LogMode,
        base: int,
        *,
        size: int = 0,
        stalls: bool = False,
        time_out: int = 0,
        watermark: int = 0,
        first: int = 0,
    ) -> Steps[None]:
        bits = self._unit.built["physical_bits"]
        if base % PAGE_BYTES or base < 0 or base >> bits:
            raise ValueError(f"base must be a multiple of {PAGE_BYTES} below 2**{bits}, not {base:#x}")
        words = {
            "LOG_BASE_LO": base & 0xFFFF_FFFF,
            "LOG_BASE_HI": base >> 32,
            "LOG": BY_NAME["LOG"].pack(size=size, mode=mode, stalls=stalls),
            "LOG_TIMEOUT": BY_NAME["LOG_TIMEOUT"].pack(value=time_out),
            "LOG_WATERMARK": BY_NAME["LOG_WATERMARK"].pack(value=watermark),
            "LOG_INDEX": BY_NAME["LOG_INDEX"].pack(first=first),
            "DO": BY_NAME["DO"].pack(log_setup=1),
        }
        for name, word in words.items():
            yield Write(BY_NAME[name].offset, word)
        yield from self._until_not("setting_up", "the log is not set up: does memory answer its records?")
        self.mode, self.base, self.head = mode, base, 0

    # What software gives -----------------------------------------------------------------------------------------

    def epoch(self, parity: int) -> Steps[None]:
        """Bit 63 of records from now on. Nothing is being appended."""
        yield Write(BY_NAME["LOG_APPEND"].offset, BY_NAME["LOG_APPEND"].pack(epoch=parity))
        self._epoch = parity

    def append(self, linear: int, *, level: int = 1) -> Steps[None]:
        """A record of a page that software marked itself, in the PCID in force.

        Raises
        ------
        ValueError
            The log is off, or a value does not fit.
        DriverError
            There is no room within so many polls: it is appended when there is.
        """
        if self.mode == LogMode.OFF:
            raise ValueError("the log is off: nothing can be appended")
        if linear >> 64 or linear < 0:
            raise ValueError(f"linear has 64 bits: {linear:#x} does not fit")
        word = BY_NAME["LOG_APPEND"].pack(leaf_level=level, epoch=self._epoch)
        yield from self._until_not("appending", "the record before waits for room")
        yield Write(BY_NAME["LOG_LINEAR_LO"].offset, linear & 0xFFFF_FFFF)
        yield Write(BY_NAME["LOG_LINEAR_HI"].offset, linear >> 32)
        yield Write(BY_NAME["LOG_APPEND"].offset, word)
        yield Write(BY_NAME["DO"].offset, BY_NAME["DO"].pack(log_append=1))
        yield from self._until_not("appending", "no room for a record that is appended: release some")

    # What there is -----------------------------------------------------------------------------------------------

    def status(self) -> Steps[dict[str, int]]:
        """The fields of LOG_STATUS."""
        register = BY_NAME["LOG_STATUS"]
        return register.unpack((yield Read(register.offset)))

    def clear_status(self, **names: int) -> Steps[None]:
        """Clear fields of LOG_STATUS that tell what went wrong."""
        yield Write(BY_NAME["LOG_STATUS"].offset, BY_NAME["LOG_STATUS"].pack(**names))

    def lost(self) -> Steps[int]:
        """Address of the first mark without a record since `overflow` was cleared."""
        low = yield Read(BY_NAME["LOG_LOST_LO"].offset)
        return low | (yield Read(BY_NAME["LOG_LOST_HI"].offset)) << 32

    def unread(self) -> Steps[range]:
        """The numbers of the records that are there and wait: the first is `head` modulo the size."""
        tail = yield Read(BY_NAME["LOG_TAIL"].offset)
        return range(self.head, self.head + (tail - self.head) % COUNTS)

    def places(self, numbers: Iterable[int]) -> list[int]:
        """Where records of the ring lie."""
        return [self.base + ENTRY_BYTES * (number % self.size) for number in numbers]

    def holds(self, word: int, number: int) -> bool:
        """Whether a word, read at its place, is that record: its phase says so, in a ring that was zeroed."""
        return word & 1 == 1 - number // self.size % 2

    def records(self, words: Iterable[int], first: int) -> list[Record]:
        """What words of the ring say, from the record `first` on; DriverError where one is none, by its phase."""
        found = []
        for number, word in enumerate(words, first):
            if not self.holds(word, number):
                (place,) = self.places([number])
                raise DriverError(f"{word:#x} at {place:#x} is no record: is LOG_STATUS.incomplete 1?")
            found.append(record_of(word))
        return found

    def release(self, count: int) -> Steps[None]:
        """Software is done with so many more records."""
        self.head = (self.head + count) % COUNTS
        yield Write(BY_NAME["LOG_HEAD"].offset, self.head)

    def take(self, *, by_phase: bool = False) -> Steps[list[Record]]:
        """All records that wait, read by the unit's memory window, and released.

        The window stands behind a request that waits for room, so it serves where others than the window store.

        Parameters
        ----------
        by_phase : bool
            LOG_TAIL is not read: what is there is told by the phase.
        """
        words: list[int] = []
        numbers = range(self.head, self.head + self.size) if by_phase else (yield from self.unread())
        for number, place in zip(numbers, self.places(numbers), strict=True):
            word = yield from self._unit.read_word(place)
            if by_phase and not self.holds(word, number):
                break
            words.append(word)
        found = self.records(words, self.head)
        yield from self.release(len(found))
        return found

    def index(self) -> Steps[int]:
        """Of the next entry of a PML buffer; above 511 it is full."""
        register = BY_NAME["LOG_INDEX"]
        return register.unpack((yield Read(register.offset)))["next"]

    def make_empty(self, base: int) -> Steps[None]:
        """Prepare a PML buffer, by the memory window."""
        for place in range(base, base + PAGE_BYTES, ENTRY_BYTES):
            yield from self._unit.write_word(place, EMPTY)

    def take_pml(self, other: int) -> Steps[list[int]]:
        """Go on in another buffer, whose places are `EMPTY`; the addresses in this one, which is `EMPTY` then.

        No mark falls between: the new setup holds while the last entries are written.
        """
        base, first = self.base, self._first
        yield from self.set_up_pml(other)
        found = []
        for place in range(base + ENTRY_BYTES * first, base - ENTRY_BYTES, -ENTRY_BYTES):
            word = yield from self._unit.read_word(place)
            if word % PAGE_BYTES:
                break
            found.append((yield from self._unit.write_word(place, EMPTY)))
        return found

    def _until_not(self, name: str, why: str) -> Steps[None]:
        for _ in range(POLLS):
            if not (yield from self.status())[name]:
                return
            yield Wait()
        raise DriverError(f"LOG_STATUS.{name} is 1 after {POLLS} polls: {why}")
