"""The dirty log's golden model: which records marks give, where they lie, and what a full ring or buffer does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ptewalk.model.linux import SoftBit
from ptewalk.model.paging import Memory, Request, Result, State, Translated, translate

__all__ = ["COUNTS", "LOG_SIZES", "DirtyLog", "LogFull", "LoggingMmu", "Record", "record_of"]

LOG_SIZES: Final = tuple(1 << power for power in range(9, 19))
"""Records of a ring."""
COUNTS: Final = 1 << 19
"""Head and tail count records, modulo this."""
_PML_LAST: Final = 511
_SD: Final = 1 << SoftBit.SOFT_DIRTY


class LogFull(Exception):
    """There is no room for a record: the mark has to wait, and neither mark nor access is made."""


class Record(NamedTuple):
    """What a record of a ring says."""

    page: int
    """Bits 56:12 of the linear address."""
    level: int
    pcid: int = 0
    epoch: int = 0
    """Its parity."""
    software: bool = False
    phase: int = 1

    def word(self) -> int:
        """Its 64 bits."""
        tag = self.epoch * 4096 + self.pcid
        low = self.phase + 2 * self.level + 16 * self.software + (tag % 64 << 6)
        return low + (self.page << 12) + (tag // 64 << 57)


def record_of(word: int) -> Record:
    """What 64 bits of a ring say. Bit 5, which is software's to give a meaning, is not looked at."""
    tag = word >> 57 << 6 | word >> 6 & 0x3F
    page = word >> 12 & (1 << 45) - 1
    return Record(page, word >> 1 & 7, tag & 0xFFF, tag >> 12, bool(word >> 4 & 1), word & 1)


@dataclass
class DirtyLog:
    """A ring, or with `pml` a buffer that is filled downwards.

    Attributes
    ----------
    base : int
        Physical address of the first byte.
    size : int
        Records of the ring, of `LOG_SIZES`.
    pml : bool
    index : int
        Of the next entry of a buffer, 16 bits.
    waits : bool
        A mark that finds no room must wait. False: it has no record, but in a buffer.
    head : int
        Records that software is done with, modulo `COUNTS`.
    written : dict of int to int
        Address to word of what was written.
    order : list of int
        Addresses, as written.
    lost : list of int
        Addresses of marks without a record; the first is what the gateware tells.
    """

    base: int
    size: int = 512
    pml: bool = False
    index: int = _PML_LAST
    waits: bool = True
    head: int = 0
    written: dict[int, int] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size not in LOG_SIZES:
            raise ValueError(f"size must be a power of two from 512 to 262144 records, not {self.size}")

    @property
    def tail(self) -> int:
        """Records, modulo `COUNTS`."""
        return len(self.order) % COUNTS

    def has_room(self) -> bool:
        """Whether one more record has a place."""
        if self.pml:
            return self.index <= _PML_LAST
        return (self.tail - self.head) % COUNTS < self.size

    def mark(self, linear: int, level: int, *, pcid: int = 0, epoch: int = 0, software: bool = False) -> bool:
        """A page was marked; whether it has a record. Raises `LogFull` where the mark must wait."""
        if not self.has_room():
            if self.pml or self.waits:
                raise LogFull(f"no room for a record of {linear:#x}")
            self.lost.append(linear)
            return False
        if self.pml:
            address, word = self.base + 8 * self.index, linear // 4096 * 4096
            self.index = (self.index - 1) % 0x1_0000
        else:
            turn, place = divmod(len(self.order), self.size)
            address = self.base + 8 * place
            word = Record(linear >> 12 & (1 << 45) - 1, level, pcid, epoch, software, 1 - turn % 2).word()
        self.written[address] = word
        self.order.append(address)
        return True


class _Watched:
    """A memory that asks before an entry becomes soft-dirty: `LogFull` comes before anything is written."""

    def __init__(self, memory: Memory, log: DirtyLog) -> None:
        self.memory, self.log = memory, log
        self.physical_bits = memory.physical_bits
        self.marked = False

    def load(self, address: int) -> int:
        return self.memory.load(address)

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        marks = bool(new & ~old & _SD)
        if marks and not self.log.has_room() and (self.log.pml or self.log.waits):
            raise LogFull(f"no room for a record of the entry at {address:#x}")
        done = self.memory.compare_exchange(address, old, new)
        self.marked |= marks and done
        return done


class LoggingMmu:
    """The golden MMU with a dirty log: as `ModelMmu`, and a record for each page that an access marked.

    Parameters
    ----------
    memory : Memory
        The tables.
    log : DirtyLog

    Attributes
    ----------
    epoch : int
        Parity of the epoch, for records from now on.
    """

    def __init__(self, memory: Memory, log: DirtyLog) -> None:
        self.memory, self.log = memory, log
        self.epoch = 0

    def run(self, state: State, requests: Sequence[Request]) -> list[Result]:
        """As `Mmu.run`. Raises `LogFull` at the first access that must wait for room, which is not made."""
        results: list[Result] = []
        for request in requests:
            watched = _Watched(self.memory, self.log)
            result = translate(watched, state, request)
            results.append(result)
            if not isinstance(result, Translated):
                break
            if watched.marked:
                self.log.mark(request.linear, result.level, pcid=state.pcid, epoch=self.epoch)
        return results

    def invalidate(self, linear: int | None = None, pcid: int = 0) -> None:
        """As `Mmu.invalidate`: nothing is cached here, so nothing is forgotten."""
