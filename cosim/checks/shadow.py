"""The shadow of a physical memory: what its words should be, by what the event log says was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.x86 import ENTRY_BYTES, PAGE_SHIFT

__all__ = ["Shadow"]

Words = NDArray[np.uint64]


class Shadow:
    """Words by address; all others of the frames that exist are 0.

    They stand in arrays, for many at once, until somebody asks for one: from then on in a dict.

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
        self._words: dict[int, int] | None = dict(words)
        self._more = np.array(list(frames), np.uint64)
        self._frames = {address >> PAGE_SHIFT for address in words} | set(self._more.tolist())
        self._addresses = self._values = np.zeros(0, np.uint64)
        self._sorted_frames: Words | None = None
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

    @staticmethod
    def of_words(addresses: Words, values: Words, frames: Words, physical_bits: int, *, strict: bool) -> Shadow:
        """That of words (n,) at byte addresses (n,), each once; `frames` (m,) exist beside those of the words."""
        shadow = Shadow({}, (), physical_bits, strict=strict)
        shadow._words, shadow._more = None, frames
        order = np.argsort(addresses)
        shadow._addresses, shadow._values = addresses[order], values[order]
        return shadow

    @property
    def words(self) -> dict[int, int]:
        """Byte address to word."""
        if self._words is None:
            self._words = dict(zip(self._addresses.tolist(), self._values.tolist(), strict=True))
            self._frames = {address >> PAGE_SHIFT for address in self._words} | set(self._more.tolist())
        return self._words

    def arrays(self) -> tuple[Words, Words, Words]:
        """Byte addresses (n,), ascending, the words (n,) there, and the frames (m,) that exist, ascending."""
        if self._words is not None:
            addresses, values = (
                np.fromiter(side, np.uint64, len(self._words)) for side in (self._words, self._words.values())
            )
            order = np.argsort(addresses)
            self._addresses, self._values = addresses[order], values[order]
            self._sorted_frames = None
        if self._sorted_frames is None:
            self._sorted_frames = np.unique(np.concatenate([self._addresses >> np.uint64(PAGE_SHIFT), self._more]))
        return self._addresses, self._values, self._sorted_frames

    def memory(self) -> SparseMemory:
        """A memory with these words."""
        return SparseMemory.of_words(*self.arrays(), self.physical_bits, strict=self.strict)

    def load(self, address: int) -> int:
        """The word at `address`; `BusError` where nothing answers."""
        word = self.words.get(address)
        if word is None:
            if address >> PAGE_SHIFT not in self._frames and (self.strict or address >> self.physical_bits):
                raise BusError(address)
            return 0
        return word

    def load_many(self, addresses: Words) -> tuple[Words, NDArray[np.bool_]]:
        """The words (n,) at byte addresses (n,), and whether memory answers; 0 where not."""
        held, values, frames = self.arrays()

        def places(sought: Words, among: Words) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
            at = np.minimum(np.searchsorted(among, sought), max(0, len(among) - 1))
            return at, among[at] == sought if len(among) else np.zeros(len(sought), bool)

        at, found = places(addresses, held)
        words = np.where(found, values[at], np.uint64(0)) if len(held) else np.zeros(len(addresses), np.uint64)
        _, there = places(addresses >> np.uint64(PAGE_SHIFT), frames)
        return words, there if self.strict else there | (addresses >> np.uint64(self.physical_bits) == 0)

    def store(self, address: int, value: int) -> None:
        """Write a word."""
        self.words[address] = value
        self._frames.add(address >> PAGE_SHIFT)

    def store_many(self, addresses: Words, values: Words) -> None:
        """Write words (n,) at byte addresses (n,), each once."""
        held, words, _ = self.arrays()
        at = np.minimum(np.searchsorted(held, addresses), max(0, len(held) - 1))
        found = held[at] == addresses if len(held) else np.zeros(len(addresses), bool)
        words = words.copy()
        words[at[found]] = values[found]
        self._words, self._values = None, words
        if not found.all():
            merged = np.concatenate([held, addresses[~found]])
            order = np.argsort(merged)
            self._addresses, self._values = merged[order], np.concatenate([words, values[~found]])[order]
            self._sorted_frames = None

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """Write `new` where `old` stands, and say whether it was written; `BusError` where nothing answers."""
        if self.load(address) != old:
            return False
        self.store(address, new)
        return True

    def compare(self, memory: SparseMemory) -> Iterator[tuple[int, int, int]]:
        """(address, word there, word here) of each word of these frames that differs, those that are 0 here last."""
        addresses, values, frames = self.arrays()
        seen, _ = memory.load_many(addresses)
        for at in np.flatnonzero(seen != values).tolist():
            yield int(addresses[at]), int(seen[at]), int(values[at])
        there = memory.rows_of(frames)
        there = there[there >= 0]
        whole = len(there) > 0 and bool((there == np.arange(len(there))).all())
        words = memory.words[: len(there)] if whole else memory.words[there]
        if np.count_nonzero(words) == np.count_nonzero(seen):
            return  # so that every other word is 0
        for frame in frames.tolist():
            if (row := memory.row_of_frame.get(frame)) is not None:
                for place in np.flatnonzero(memory.words[row]).tolist():
                    address = (frame << PAGE_SHIFT) + place * ENTRY_BYTES
                    if address not in self.words:
                        yield address, int(memory.words[row, place]), 0
