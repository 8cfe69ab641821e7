"""Who stands round AXI4 interfaces at protocol level: memories as targets of cocotbext-axi, and channels that stall."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from cocotbext.axi import MemoryInterface

from ptewalk.model.memory import SparseMemory

__all__ = ["AxiBytes", "AxiTables", "pauses", "stalled"]

_CHANNELS = ("aw", "w", "b", "ar", "r")


class AxiTables(MemoryInterface):
    """A `SparseMemory` as the target of an AXI subordinate: where there is none, SLVERR.

    Attributes
    ----------
    accesses : list of ("read" or "write", address, bytes)
    before_write : callable
        Called with the address and the value of each write.
    """

    def __init__(self, memory: SparseMemory) -> None:
        super().__init__(size=1 << memory.physical_bits)
        self.memory = memory
        self.accesses: list[tuple[str, int, int]] = []
        self.before_write: Callable[[int, int], None] = lambda address, value: None

    async def _read(self, address: int, length: int, **keywords: Any) -> bytes:
        first, last = address >> 3, address + length + 7 >> 3
        self.accesses.append(("read", address, length))
        words = b"".join(self.memory.load(word << 3).to_bytes(8, "little") for word in range(first, last))
        return words[address & 7 : (address & 7) + length]

    async def _write(self, address: int, data: bytes, **keywords: Any) -> None:
        assert address % 8 == 0 and len(data) == 8, "an entry is written whole"
        self.accesses.append(("write", address, len(data)))
        value = int.from_bytes(data, "little")
        self.before_write(address, value)
        self.memory.store(address, value)


class AxiBytes(MemoryInterface):
    """Bytes of data; each write is told before it lands.

    Attributes
    ----------
    bytes : dict of int to int
    problems : list of str
        Stores that `before_write` did not allow.
    before_write : callable
        Called with the address of each store.
    """

    def __init__(self) -> None:
        super().__init__(size=1 << 40)
        self.bytes: dict[int, int] = {}
        self.problems: list[str] = []
        self.before_write: Callable[[int], bool] = lambda address: True

    async def _read(self, address: int, length: int, **keywords: Any) -> bytes:
        return bytes(self.bytes.get(at, 0) for at in range(address, address + length))

    async def _write(self, address: int, data: bytes, **keywords: Any) -> None:
        if not self.before_write(address):
            self.problems.append(f"a store to {address:#x} without its mark")
        self.bytes |= {address + place: value for place, value in enumerate(data)}


def pauses(rng: random.Random) -> Iterator[bool]:
    """A channel that stalls one cycle in four."""
    while True:
        yield rng.random() < 0.25


def stalled(side: Any, rng: random.Random) -> None:
    """Every channel of a manager or subordinate of cocotbext-axi stalls at random, each by a generator of its own."""
    for interface in (side.write_if, side.read_if):
        for name in _CHANNELS:
            channel = getattr(interface, f"{name}_channel", None)
            if channel is not None:
                channel.set_pause_generator(pauses(random.Random(rng.random())))
