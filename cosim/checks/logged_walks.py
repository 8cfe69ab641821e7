"""Memories that answer as a log says: what the model's walk is made again over, to judge an MMU that caches."""

from __future__ import annotations

from dataclasses import dataclass, field

from ptewalk.cosim.bench.events import Read, Swap
from ptewalk.model.memory import BusError
from ptewalk.model.paging import Result
from ptewalk.model.x86 import ENTRY_BYTES, LEVEL_SHIFT, PAGE_SHIFT, TABLE_ENTRIES

__all__ = ["CachedEntries", "CachedTranslation", "LoggedWalk", "NotSo", "Start", "entry_offset", "table_of"]


@dataclass(slots=True)
class CachedTranslation:
    """What a walk found, as a cache may keep it."""

    chain: dict[int, int]  # address to value of each entry, what the walk set included
    root: int
    la57: int  # CR4.LA57, in its place among the control bits: how many levels the root's tables have
    page: int  # linear address >> the leaf's shift
    level: int
    pcid: int
    is_global: bool
    oldest: int  # place in the log of the oldest of the last accesses to its entries
    torn: int  # of an INVLPG of any address between what stands above the leaf and the leaf; 0: there was none
    served: dict[tuple[object, ...], Result | None] = field(default_factory=dict)


class NotSo(Exception):
    """An access that the model does not make, or a translation that does not serve."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a walk may have begun: below these entries of a root's tables; (address, value, place in the log)."""

    root: int
    above: tuple[tuple[int, int, int], ...] = ()


class LoggedWalk:
    """A memory that answers as the log says a walk was answered, below the entries that stand above its start."""

    def __init__(self, accesses: list[tuple[int, Read | Swap]], physical_bits: int, start: Start) -> None:
        self.physical_bits = physical_bits
        self._accesses = accesses
        self._at = 0
        self._above = iter(start.above)
        self.last: dict[int, tuple[int, int]] = {}  # address to (value, place in the log)

    def restart(self) -> None:
        """What was found so far does not count."""
        self._above = iter(())
        self.last = {}

    def load(self, address: int) -> int:
        """As `model.paging.Memory`."""
        cached = next(self._above, None)
        if cached is not None:
            if cached[0] != address:
                raise NotSo(f"an entry at {cached[0]:#x} is cached, expected one of {address:#x}")
            self.last[address] = cached[1:]
            return cached[1]
        place, event = self._next(Read, address)
        assert isinstance(event, Read)
        if event.error:
            raise BusError(address)
        self.last[address] = event.value, place
        return event.value

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """As `model.paging.Memory`."""
        place, event = self._next(Swap, address)
        assert isinstance(event, Swap)
        if (event.old, event.new) != (old, new):
            raise NotSo(f"swap at {address:#x} is {event.old:#x} to {event.new:#x}, expected {old:#x} to {new:#x}")
        if event.error:
            raise BusError(address)
        if event.done:
            self.last[address] = new, place
        return event.done

    def end(self) -> None:
        """Nothing is left over."""
        if self._at < len(self._accesses):
            event = self._accesses[self._at][1]
            raise NotSo(f"{type(event).__name__} at {event.address:#x} that the model does not make")

    def _next(self, kind: type[Read] | type[Swap], address: int) -> tuple[int, Read | Swap]:
        if self._at == len(self._accesses):
            raise NotSo(f"no access seen, expected {kind.__name__} at {address:#x}")
        place, event = self._accesses[self._at]
        if not isinstance(event, kind) or event.address != address:
            seen = f"{type(event).__name__} at {event.address:#x}"
            raise NotSo(f"{seen} seen, expected {kind.__name__} at {address:#x}")
        self._at += 1
        return place, event


class CachedEntries:
    """A memory of one translation's entries, in which nothing may have to be written."""

    def __init__(self, chain: dict[int, int], physical_bits: int) -> None:
        self.physical_bits = physical_bits
        self._chain = chain

    def load(self, address: int) -> int:
        """As `model.paging.Memory`."""
        if address not in self._chain:
            raise NotSo(f"no entry of {address:#x}")
        return self._chain[address]

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """As `model.paging.Memory`."""
        raise NotSo(f"the entry at {address:#x} lacks a mark")


def table_of(word: int) -> int:
    """The address of the table that CR3 or an entry names."""
    return word & (1 << 52) - (1 << PAGE_SHIFT)


def entry_offset(linear: int, level: int) -> int:
    """Of its entry in a table of `level`, in bytes."""
    return (linear >> LEVEL_SHIFT[level] & TABLE_ENTRIES - 1) * ENTRY_BYTES
