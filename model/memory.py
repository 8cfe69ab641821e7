"""Sparse physical memory: 4 KiB frames in one growing numpy array.

The same arrays can be handed to a simulator (see `SparseMemory.export`), so that gateware and software read and write
the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from ptewalk.model import x86

MASK64 = (1 << 64) - 1
SCATTER = 0x9E3779B97F4A7C15
"""Factor of the hash in `SparseMemory.export`."""
_IN_WORD = x86.ENTRY_BYTES - 1
_WORD_OF_FRAME = x86.TABLE_ENTRIES - 1
_ZEROS = np.zeros(x86.TABLE_ENTRIES, np.uint64)


class BusError(Exception):
    """No memory answers at `address` (bytes)."""

    def __init__(self, address: int) -> None:
        super().__init__(f"no memory at physical address {address:#x}")
        self.address = address


class SparseMemory:
    """Physical memory of 64-bit words, allocated by 4 KiB frame.

    Parameters
    ----------
    physical_bits : int
        Width of a physical address, 13 to 52. An access beyond it raises `BusError`.
    strict : bool
        True: an access to a frame that was never added raises `BusError`. False (default): such a frame is added,
        all zero.

    Attributes
    ----------
    words : uint64 array (capacity, 512)
        The frames' words, in the rows that `row_of_frame` gives.
    """

    def __init__(self, physical_bits: int = 40, *, strict: bool = False) -> None:
        if not 13 <= physical_bits <= x86.MAX_PHYSICAL_BITS:
            raise ValueError(f"physical_bits must be 13 to {x86.MAX_PHYSICAL_BITS}, not {physical_bits!r}")
        self.physical_bits = physical_bits
        self.strict = strict
        self.words: NDArray[np.uint64] = np.zeros((16, x86.TABLE_ENTRIES), np.uint64)
        self.row_of_frame: dict[int, int] = {}
        """Frame number (address >> 12) to row of `words`."""
        self._free_rows: list[int] = []
        self._index: _Index | None = None  # made by the first export
        self._told = ""  # what the last comparison found different

    @classmethod
    def of(
        cls, words: Mapping[int, int], frames: Iterable[int] = (), physical_bits: int = 40, *, strict: bool = False
    ) -> SparseMemory:
        """A memory that holds `words` (byte address to 64-bit value), and 0 in all the rest of their frames.

        Parameters
        ----------
        words : mapping of int to int
        frames : iterable of int
            Frame numbers that exist beside those of `words`.
        physical_bits : int
        strict : bool
            As in the class.

        Raises
        ------
        BusError
            A frame lies beyond `physical_bits`.
        ValueError
            An address is no multiple of 8.
        """
        addresses = np.fromiter(words, np.uint64, len(words))
        holders = [address >> x86.PAGE_SHIFT for address in words]
        numbers = {frame: row for row, frame in enumerate(dict.fromkeys((*frames, *holders)))}
        rows = np.array([numbers[frame] for frame in holders], np.intp)
        return cls._of(
            numbers, addresses, rows, np.fromiter(words.values(), np.uint64, len(words)), physical_bits, strict
        )

    @classmethod
    def of_words(
        cls,
        addresses: NDArray[np.uint64],
        values: NDArray[np.uint64],
        frames: NDArray[np.uint64],
        physical_bits: int = 40,
        *,
        strict: bool = False,
    ) -> SparseMemory:
        """As `of`, of words (n,) at byte addresses (n,) in the frames (m,), which ascend and hold all of them."""
        numbers = dict(zip(frames.tolist(), range(len(frames)), strict=True))
        rows = np.searchsorted(frames, addresses >> np.uint64(x86.PAGE_SHIFT))
        return cls._of(numbers, addresses, rows, values, physical_bits, strict)

    @classmethod
    def _of(
        cls,
        numbers: dict[int, int],
        addresses: NDArray[np.uint64],
        rows: NDArray[np.intp],
        values: NDArray[np.uint64],
        physical_bits: int,
        strict: bool,
    ) -> SparseMemory:
        """A memory with these rows by frame number, and words in them."""
        memory = cls(physical_bits, strict=strict)
        for frame in (min(numbers, default=0), max(numbers, default=0)):
            if frame < 0 or frame >> (physical_bits - x86.PAGE_SHIFT):
                raise BusError(frame << x86.PAGE_SHIFT)
        for address in addresses[addresses % np.uint64(x86.ENTRY_BYTES) != 0][:1].tolist():
            cls._word(address)  # which refuses it
        memory.row_of_frame = numbers
        memory.words = np.zeros((max(16, len(numbers)), x86.TABLE_ENTRIES), np.uint64)
        memory.words[rows, (addresses >> np.uint64(3)) % np.uint64(x86.TABLE_ENTRIES)] = values
        return memory

    def add_frame(self, frame: int) -> NDArray[np.uint64]:
        """Make frame number `frame` exist (all zero when new); return its row, a view of 512 uint64.

        A view is good until the next frame is added.
        """
        if frame < 0 or frame >> (self.physical_bits - x86.PAGE_SHIFT):
            raise BusError(frame << x86.PAGE_SHIFT)
        row = self.row_of_frame.get(frame)
        if row is None:
            row = self._free_rows.pop() if self._free_rows else len(self.row_of_frame)
            if row == len(self.words):
                self.words = np.concatenate([self.words, np.zeros_like(self.words)])
            self.row_of_frame[frame] = row
            if self._index is not None:
                self._index.add(frame, row)
        return self.words[row]

    def frame(self, frame: int) -> NDArray[np.uint64]:
        """The 512 words of frame number `frame`, a view; `BusError` when strict and absent."""
        row = self.row_of_frame.get(frame)
        if row is None:
            if self.strict:
                raise BusError(frame << x86.PAGE_SHIFT)
            return self.add_frame(frame)
        return self.words[row]

    def remove_frame(self, frame: int) -> None:
        """Forget frame number `frame`; its row is zeroed and given to a later frame."""
        row = self.row_of_frame.pop(frame)
        self.words[row] = 0
        self._free_rows.append(row)
        if self._index is not None:
            self._index.remove(frame)

    def load(self, address: int) -> int:
        """The 64-bit word at byte `address` (8-byte aligned); 0 in a frame that was never added, which is not added."""
        row = self.row_of_frame.get(address >> x86.PAGE_SHIFT)
        if row is not None and not address & _IN_WORD:
            return self.words.item(row, address >> 3 & _WORD_OF_FRAME)
        self._word(address)
        if self.strict or address < 0 or address >> self.physical_bits:
            raise BusError(address & ~(x86.PAGE_BYTES - 1))
        return 0

    def load_many(self, addresses: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """The words (n,) at byte addresses (n,), multiples of 8, as `load`; and whether memory answers: 0 where not."""
        rows = self.rows_of(addresses >> np.uint64(x86.PAGE_SHIFT))
        places = addresses.view(np.int64) >> 3 & x86.TABLE_ENTRIES - 1
        found = rows >= 0
        words = np.where(found, self.words[rows, places], np.uint64(0))
        there = found if self.strict else found | (addresses >> np.uint64(self.physical_bits) == 0)
        return words, there

    def rows_of(self, frames: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row of `words` of each frame number (n,); -1: it was never added."""
        self.export()
        assert self._index is not None
        return self._index.rows_of(frames)

    def store(self, address: int, value: int) -> None:
        """Write the 64-bit `value` at byte `address` (8-byte aligned)."""
        self.frame(address >> x86.PAGE_SHIFT)[self._word(address)] = value & MASK64

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        """Write `new` at byte `address` if the word there is `old`; True when it was written. Atomic."""
        row = self.frame(address >> x86.PAGE_SHIFT)
        word = self._word(address)
        if int(row[word]) != old:
            return False
        row[word] = new
        return True

    def frames(self) -> list[int]:
        """The frame numbers in use, in order of first use."""
        return list(self.row_of_frame)

    def copy(self) -> SparseMemory:
        """An independent copy."""
        twin = SparseMemory(self.physical_bits, strict=self.strict)
        twin.words = self.words.copy()
        twin.row_of_frame = dict(self.row_of_frame)
        twin._free_rows = list(self._free_rows)
        return twin

    def first_difference(self, other: SparseMemory) -> tuple[int, int, int] | None:
        """(address, word here, word there) of the lowest word that differs; None: there is none.

        A frame that one side lacks is one of zeros there.
        """
        for frame in sorted(self.row_of_frame.keys() | other.row_of_frame.keys()):
            rows = [
                memory.words[memory.row_of_frame[frame]] if frame in memory.row_of_frame else _ZEROS
                for memory in (self, other)
            ]
            words = np.flatnonzero(rows[0] != rows[1])
            if len(words):
                word = int(words[0])
                return (frame << x86.PAGE_SHIFT) + word * x86.ENTRY_BYTES, int(rows[0][word]), int(rows[1][word])
        return None

    def __eq__(self, other: object) -> bool:
        """The same words at the same addresses. Of a pair that differs, each tells the first word in its `repr`."""
        if not isinstance(other, SparseMemory):
            return NotImplemented
        found = self.first_difference(other)
        self._told = other._told = ""
        if found is not None:
            address, here, there = found
            self._told, other._told = (f"; the word at {address:#x} is {word:#x}" for word in (here, there))
        return found is None

    __hash__ = object.__hash__  # one may be changed, and kept in a set all the same

    def __repr__(self) -> str:
        return f"<SparseMemory of {len(self.row_of_frame)} frames{self._told}>"

    def export(self) -> tuple[NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint64]]:
        """What a simulator needs to use this memory in place.

        Returns
        -------
        keys : uint64 array (slots,)
            Open-addressing hash table, slots a power of two: frame number + 1; 0 for an empty slot, all ones for one
            that was left. A frame is looked for upwards, wrapping round, to the first empty slot, from slot
            ``(frame * 0x9E3779B97F4A7C15 mod 2**64) >> (64 - log2(slots))``.
        rows : int32 array (slots,)
            Row of `words` for each key.
        words : uint64 array
            `self.words` itself: writes are seen on both sides. All three are good until a frame is added or removed.
        """
        if self._index is None or self._index.is_full():
            self._index = _Index(self.row_of_frame)
        return self._index.keys, self._index.rows, self.words

    @staticmethod
    def _word(address: int) -> int:
        if address % x86.ENTRY_BYTES:
            raise ValueError(f"a word's address must be a multiple of {x86.ENTRY_BYTES}, not {address:#x}")
        return (address % x86.PAGE_BYTES) // x86.ENTRY_BYTES


class FixedMemory(SparseMemory):
    """Physical memory in an array that others map too: a frame's row is its number, and nothing ever moves.

    Parameters
    ----------
    words : uint64 array (frames, 512)
        All of memory, zero at the start. A frame beyond it raises `BusError`.
    removed : callable (int), optional
        Told the number of each frame that is removed, after it was zeroed.
    """

    def __init__(self, words: NDArray[np.uint64], removed: Callable[[int], None] = lambda frame: None) -> None:
        super().__init__()
        if words.ndim != 2 or words.shape[1] != x86.TABLE_ENTRIES or not words.flags.c_contiguous:
            raise ValueError(f"words must have the shape (frames, {x86.TABLE_ENTRIES}), not {words.shape}")
        self.words = words
        self._removed = removed

    def add_frame(self, frame: int) -> NDArray[np.uint64]:
        """As `SparseMemory.add_frame`; the view is always good."""
        if not 0 <= frame < len(self.words):
            raise BusError(frame << x86.PAGE_SHIFT)
        if frame not in self.row_of_frame:
            self.row_of_frame[frame] = frame
            if self._index is not None:
                self._index.add(frame, frame)
        return self.words[frame]

    def remove_frame(self, frame: int) -> None:
        """As `SparseMemory.remove_frame`."""
        super().remove_frame(frame)
        self._free_rows.clear()
        self._removed(frame)


class _Index:
    """The hash table of `SparseMemory.export`, kept up as frames come and go."""

    _LEFT = MASK64

    def __init__(self, row_of_frame: dict[int, int]) -> None:
        self._bits = max(6, (4 * len(row_of_frame)).bit_length())
        self.keys = np.zeros(1 << self._bits, np.uint64)
        self.rows = np.zeros(1 << self._bits, np.int32)
        self._taken = len(row_of_frame)
        frames = np.fromiter(row_of_frame, np.uint64, self._taken)
        rows = np.fromiter(row_of_frame.values(), np.int32, self._taken)
        slots = (frames * np.uint64(SCATTER) >> np.uint64(64 - self._bits)).astype(np.intp)
        while len(frames):  # each takes its slot when that is free; of several the last one stays, the rest go on
            free = self.keys[slots] == 0
            self.keys[slots[free]] = frames[free] + np.uint64(1)
            self.rows[slots[free]] = rows[free]
            left = self.keys[slots] != frames + np.uint64(1)
            frames, rows, slots = frames[left], rows[left], (slots[left] + 1) % len(self.keys)

    def rows_of(self, frames: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The row (n,) of each frame number; -1: there is none."""
        rows = np.full(len(frames), -1, np.int64)
        left = np.arange(len(frames))
        slots = (frames * np.uint64(SCATTER) >> np.uint64(64 - self._bits)).astype(np.intp)
        while len(left):
            keys = self.keys[slots]
            here = keys == frames[left] + np.uint64(1)
            rows[left[here]] = self.rows[slots[here]]
            on = ~here & (keys != 0)
            left, slots = left[on], (slots[on] + 1) % len(self.keys)
        return rows

    def is_full(self) -> bool:
        """Half of the slots were taken once."""
        return 2 * self._taken > len(self.keys)

    def add(self, frame: int, row: int) -> None:
        """Enter a frame that is not there."""
        if 4 * self._taken > 3 * len(self.keys):
            return  # the next export makes a new table
        slot = self._first(frame)
        while self.keys[slot]:
            slot = (slot + 1) % len(self.keys)
        self.keys[slot] = frame + 1
        self.rows[slot] = row
        self._taken += 1

    def remove(self, frame: int) -> None:
        """Leave the slot of a frame, if it is there."""
        slot = self._first(frame)
        while self.keys[slot] and self.keys[slot] != frame + 1:
            slot = (slot + 1) % len(self.keys)
        if self.keys[slot]:
            self.keys[slot] = self._LEFT

    def _first(self, frame: int) -> int:
        return (frame * SCATTER & MASK64) >> (64 - self._bits)
