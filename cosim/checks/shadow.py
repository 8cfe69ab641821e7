"""The shadow of a physical memory: what its words should be, by what the event log says was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.x86 import ENTRY_BYTES, PAGE_SHIFT, TABLE_ENTRIES

__all__ = ["Shadow"]


class Shadow:
    """Words by address; all others of the frames that exist are 0.

    Parameters
    ----------
    words : mapping of int to int
        Byte address, a multiple of 8, to 64-bit value; copied.
    frames : iterable of int
        Frame numbers that exist beside those of `words`.
    physical_bits : int
        Width of a physical address.
    strict : bool
        True: where no frame exists, nothing answers. False: such a frame is one of zeros.
    """

    def __init__(
        self, words: Mapping[int, int], frames: Iterable[int] = (), physical_bits: int = 40, *, strict: bool = False
    ) -> None:
        self.words = dict(words)
        self.frames = dict.fromkeys(frames)
        self.frames.update(dict.fromkeys([address >> PAGE_SHIFT for address in words]))
        self.physical_bits = physical_bits
        self.strict = strict

    @staticmethod
    def of(memory: SparseMemory) -> Shadow:
        """That of a memory as it stands."""
        words: dict[int, int] = {}
        for frame, row in memory.row_of_frame.items():
            places = np.flatnonzero(memory.words[row])
            addresses = (frame << PAGE_SHIFT) + places * ENTRY_BYTES
            words.update(zip(addresses.tolist(), memory.words[row, places].tolist(), strict=True))
        return Shadow(words, memory.row_of_frame, memory.physical_bits, strict=memory.strict)

    def memory(self) -> SparseMemory:
        """A memory with these words."""
        return SparseMemory.of(self.words, self.frames, self.physical_bits, strict=self.strict)

    def load(self, address: int) -> int:
        """The word at `address`; `BusError` where nothing answers."""
        word = self.words.get(address)
        if word is None:
            frame = address >> PAGE_SHIFT
            if frame not in self.frames and (self.strict or address >> self.physical_bits):
                raise BusError(address)
            return 0
        return word

    def store(self, address: int, value: int) -> None:
        """Write a word."""
        self.words[address] = value
        self.frames[address >> PAGE_SHIFT] = None

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """Write `new` where `old` stands, and say whether it was written; `BusError` where nothing answers."""
        if self.load(address) != old:
            return False
        self.store(address, new)
        return True

    def compare(self, memory: SparseMemory) -> Iterator[tuple[int, int, int]]:
        """(address, word there, word here) of each word of these frames that differs, those that are 0 here last."""
        addresses = np.fromiter(self.words, np.uint64, len(self.words))
        values = np.fromiter(self.words.values(), np.uint64, len(self.words))
        rows = [memory.row_of_frame.get(address >> PAGE_SHIFT, -1) for address in self.words]
        places = (addresses >> np.uint64(3)) % np.uint64(TABLE_ENTRIES)
        seen = memory.words[rows, places]
        seen[np.array(rows, np.intp) < 0] = 0
        for at in np.flatnonzero(seen != values).tolist():
            yield int(addresses[at]), int(seen[at]), int(values[at])
        there = [row for frame in self.frames if (row := memory.row_of_frame.get(frame)) is not None]
        whole = there == list(range(len(there)))
        words = memory.words[: len(there)] if whole else memory.words[there]
        if np.count_nonzero(words) == np.count_nonzero(seen):
            return  # so that every other word is 0
        for frame in self.frames:
            if (row := memory.row_of_frame.get(frame)) is not None:
                for place in np.flatnonzero(memory.words[row]).tolist():
                    address = (frame << PAGE_SHIFT) + place * ENTRY_BYTES
                    if address not in self.words:
                        yield address, int(memory.words[row, place]), 0
