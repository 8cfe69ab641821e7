"""From a guest's physical memory and page map to the state fields of a recorded step.

Pure functions on numbers: canonical numbering of frames, tables and swap slots, run compression, and the reading of raw
page tables. Everything here follows the scenario format's own rules; nothing asks what an entry permits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptewalk.model import x86
from ptewalk.model.linux import LATER_FLAGS, RECORDED_FLAGS

FLAG_LETTERS = ((8, "P"), (7, "S"), (6, "F"), (3, "G"), (2, "W"), (1, "X"), (0, "D"))
"""Bit of (pagemap entry >> 55) to its letter, in the order the format writes them."""
KIND_LETTERS = ((12, "a"), (17, "h"), (22, "t"), (24, "z"))
"""Bit of a kpageflags word (ANON, HUGE, THP, ZERO_PAGE) to its letter, in the order the format writes them."""
VMA_FLAGS = RECORDED_FLAGS | LATER_FLAGS
"""The VmFlags of smaps that a recording keeps."""
PROT_NONE_BIT = 8
SWAP_LOW, SWAP_HIGH = 9, 58
"""Lowest and highest bit of a swap-like entry's offset (stored inverted)."""
SWAP_TYPE_LOW = 59
FIRST_SPECIAL_TYPE = 26
"""Swap types from here on are not devices: the raw offset is recorded."""
LAST_FRAME_BIT = 51

OLD_FLAG_LETTERS = ((8, "P"), (7, "S"), (6, "F"), (0, "D"))
OLD_KIND_LETTERS = ((12, "a"), (17, "h"), (24, "z"))
"""What a page map and kpageflags of Linux 3.11 tell."""
OLD_SHIFT_FIELD = 0x3F
"""Bits 0..5 of (pagemap entry >> 55) in the first layout of 3.11: always 12, the page shift."""
OLD_SWAP_TYPE_BITS = 5

Json = object


class FirstSeenNumbers:
    """Small integers for physical things: one seen at the previous step keeps its number, any other gets the next."""

    def __init__(self) -> None:
        self.current: dict[int, int] = {}
        self._previous: dict[int, int] = {}
        self._next = 1

    def start_step(self) -> None:
        """What was numbered since the last call is now the previous step."""
        self._previous, self.current = self.current, {}

    def number(self, thing: int) -> int:
        """The canonical number of `thing`."""
        known = self.current.get(thing)
        if known is None:
            known = self._previous.get(thing)
            if known is None:
                known = self._next
                self._next += 1
            self.current[thing] = known
        return known

    def number_run(self, first: int, count: int) -> int | None:
        """The number of `first` when `count` things from there on are alike and get consecutive ones.

        Fast for the many frames of a large page. None: nothing was numbered, and `number` has to do it one by one.
        """
        things = range(first, first + count)
        known = list(map(self.current.get, things))
        new = known.count(None) == count
        if new:
            known = list(map(self._previous.get, things))
            if known.count(None) == count:
                known = list(range(self._next, self._next + count))
                self._next += count
        number = known[0]
        if number is None or known != list(range(number, number + count)):
            return None
        if new:
            self.current.update(zip(things, range(number, number + count), strict=True))
        return number


def letters(word: int, table: tuple[tuple[int, str], ...]) -> str:
    """The letters of `table` whose bits are set in `word`."""
    return "".join(letter for bit, letter in table if word >> bit & 1)


@dataclass(slots=True)
class PageRun:
    """Pages with equal flags and kind, as the guest reports them. Frames are physical; 0 is none or a hidden one."""

    page: int
    count: int
    flags: int
    frame: int
    step: int
    kind: int


@dataclass(slots=True)
class Leaf:
    """One non-zero leaf entry: `page` is the first page it covers."""

    page: int
    level: int
    entry: int
    upper: str


@dataclass(slots=True)
class Tables:
    """What a walk over all tables of a window found: frame numbers are physical."""

    root: int
    entries: list[tuple[int, int, int, int]] = field(default_factory=list)
    """(level, page, flags, frame of the table it points to), the upper levels first."""
    leaves: list[Leaf] = field(default_factory=list)


class RunList:
    """Compresses items in ascending order to runs [start, n, *key, id, step]."""

    def __init__(self) -> None:
        self.runs: list[list[Json]] = []
        self._key: tuple[Json, ...] | None = None
        self._start = self._count = self._step = 0
        self._id: int | None = None
        self._swapped: list[Any] | None = None

    def add(self, page: int, count: int, key: tuple[Json, ...], identity: int | None) -> None:
        """Append `count` pages; more than one only where there is no `identity`."""
        if key == self._key and page == self._start + self._count and (identity is None) == (self._id is None):
            if identity is None or self._id is None:
                self._count += count
                return
            if self._count == 1 and identity == self._id + 1:
                self._step = 1
            if identity == self._id + self._count * self._step:
                self._count += 1
                return
        self.flush()
        self._key, self._start, self._count, self._id, self._step = key, page, count, identity, 0

    def add_run(self, page: int, count: int, key: tuple[Json, ...], first: int) -> None:
        """Append `count` pages with identities `first`, `first` + 1, ...: the same as `add` one by one."""
        for j in range(min(count, 3)):
            self.add(page + j, 1, key, first + j)
        self._count += max(0, count - 3)  # after three in a row the run at hand has step 1

    def add_swapped(self, page: int, flags: str, kind: int, offset: int) -> None:
        """Append a swapped page as recordings of 3.11 have it; a run's offsets count up, count down or stay."""
        self.flush()
        last = self._swapped
        if last and self.runs and self.runs[-1] is last:
            start, count, step = last[0], last[1], last[8]
            if count == 1:
                step = offset - last[7]
            expected = [start + count, last[2], last[6], last[7] + count * step]
            if abs(step) <= 1 and [page, flags, kind, offset] == expected:
                last[1], last[8] = count + 1, step
                return
        self._swapped = [page, 1, flags, "", None, 0, kind, offset, 0]
        self.runs.append(self._swapped)

    def flush(self) -> None:
        """End the run at hand."""
        if self._key is not None:
            self.runs.append([self._start, self._count, *self._key, self._id, self._step])
            self._key = None


def _page_flags(word: int, old: bool) -> str:
    """The letters of a page map's entry, of which `word` is what stands from bit 55 on."""
    if not old:
        return letters(word, FLAG_LETTERS)
    if word & OLD_SHIFT_FIELD != x86.PAGE_SHIFT:
        return letters(word, OLD_FLAG_LETTERS)
    shown = letters(word & ~OLD_SHIFT_FIELD, OLD_FLAG_LETTERS)
    return shown and shown + "1"


def page_runs(runs: Iterable[PageRun], frames: FirstSeenNumbers, *, old: bool = False) -> list[list[Json]]:
    """The `pages` field: [start, n, flags, kind, id, step], with canonical frame numbers.

    `old`: as recordings of 3.11 have it: a run of swapped pages ends with swap type, offset and the offset's step.
    """
    out = RunList()
    for run in runs:
        flags = _page_flags(run.flags, old)
        if not flags:
            continue
        if old and "S" in flags:
            for j in range(run.count):
                value = run.frame + j * run.step
                out.add_swapped(run.page + j, flags, value & (1 << OLD_SWAP_TYPE_BITS) - 1, value >> OLD_SWAP_TYPE_BITS)
            continue
        if "P" not in flags or not run.frame:
            out.add(run.page, run.count, (flags, ""), None)
            continue
        key = (flags, letters(run.kind, OLD_KIND_LETTERS if old else KIND_LETTERS))
        if run.step and (first := frames.number_run(run.frame, run.count)) is not None:
            out.add_run(run.page, run.count, key, first)
            continue
        for j in range(run.count):
            out.add(run.page + j, 1, key, frames.number(run.frame + j * run.step))
    out.flush()
    return out.runs


def _upper_bits(entry: int, low: int) -> int:
    """`entry` without bits low..51."""
    return entry & ~((1 << LAST_FRAME_BIT + 1) - (1 << low))


def _is_leaf(level: int, entry: int) -> bool:
    return level == 1 or not entry & 1 or (level < x86.LEVELS_4 and bool(entry >> x86.EntryBit.PS & 1))


def read_tables(table: Callable[[int], NDArray[np.uint64]], root: int, levels: int, base: int, span: int) -> Tables:
    """Every present table entry and non-zero leaf that maps [base, base + span).

    Parameters
    ----------
    table : callable
        Frame number to that frame's 512 words.
    root : int
        Physical address of the top-level table.
    levels : int
        4 or 5.
    base, span : int
        The window in bytes; `base` is the address of page 0.
    """
    found = Tables(root >> x86.PAGE_SHIFT)
    todo = [(found.root, 0, "")]
    for level in range(levels, 0, -1):
        shift = x86.LEVEL_SHIFT[level]
        lower: list[tuple[int, int, str]] = []
        for frame, start, upper in todo:
            first = max(0, base - start) >> shift
            last = min(x86.TABLE_ENTRIES, (base + span - start + (1 << shift) - 1) >> shift)
            row = table(frame)[first:last]
            indices = np.flatnonzero(row)
            for index, entry in zip((indices + first).tolist(), row[indices].tolist(), strict=True):
                address = start + (index << shift)
                page = (address - base) >> x86.PAGE_SHIFT
                if _is_leaf(level, entry):
                    found.leaves.append(Leaf(page, level, entry, upper))
                    continue
                flags = _upper_bits(entry, x86.FRAME_LOW)
                below = (entry & ((1 << LAST_FRAME_BIT + 1) - 1)) >> x86.PAGE_SHIFT
                found.entries.append((level, page, flags, below))
                lower.append((below, address, f"{upper}.{flags:x}" if upper else f"{flags:x}"))
        todo = lower
    found.leaves.sort(key=lambda leaf: leaf.page)
    return found


def split_leaf(level: int, entry: int) -> tuple[int, int, bool]:
    """Cut a leaf by the format's rule for the frame field: (flags, value, swap-like?)."""
    if entry & 1 or entry >> PROT_NONE_BIT & 1:
        low = x86.LEVEL_SHIFT[level]
        field_mask = (1 << LAST_FRAME_BIT + 1) - (1 << low)
        value = entry if entry & 1 else ~entry
        return entry & ~field_mask, (value & field_mask) >> x86.PAGE_SHIFT, False
    field_mask = (1 << SWAP_HIGH + 1) - (1 << SWAP_LOW)
    return entry & ~field_mask, (~entry & field_mask) >> SWAP_LOW, True


def leaf_runs(leaves: Iterable[Leaf], frames: FirstSeenNumbers, slots: FirstSeenNumbers) -> list[list[Json]]:
    """The `ptes` field: [page, n, level, flags, upper, id, step].

    Frames have the numbers that the page maps of this step gave them; one that no page map shows is null.
    """
    out = RunList()
    for leaf in leaves:
        flags, value, swapped = split_leaf(leaf.level, leaf.entry)
        identity: int | None
        if not swapped:
            identity = frames.current.get(value)
        elif flags >> SWAP_TYPE_LOW >= FIRST_SPECIAL_TYPE:
            identity = value
        else:
            identity = slots.number(flags >> SWAP_TYPE_LOW << 50 | value)
        key = (leaf.level, f"{flags:x}", leaf.upper)
        if leaf.level == 1:
            out.add(leaf.page, 1, key, identity)
        else:
            out.flush()
            pages = 1 << x86.LEVEL_SHIFT[leaf.level] - x86.PAGE_SHIFT
            out.runs.append([leaf.page, pages, *key, identity, 0 if identity is None else 1])
    out.flush()
    return out.runs


@dataclass(slots=True)
class GuestArea:
    """One mapping of the window; `text` is its rights and its VmFlags as smaps writes them."""

    page: int
    count: int
    anon_huge_kb: int
    shmem_huge_kb: int
    text: str

    def json(self) -> dict[str, Json]:
        """The element of the `vmas` field."""
        perm, *flags = self.text.split()
        return {
            "page": self.page,
            "n": self.count,
            "perm": perm,
            "anon_huge_kb": self.anon_huge_kb,
            "shmem_huge_kb": self.shmem_huge_kb,
            "flags": [flag for flag in flags if flag in VMA_FLAGS],
        }


@dataclass(slots=True)
class ProcessState:
    """One live process after a step."""

    vmas: list[GuestArea]
    pages: list[PageRun]
    tables: Tables
    contents: list[list[int | str]] = field(default_factory=list)
    """As `read_contents` gives it."""


class StateWriter:
    """The `state` fields of one scenario's steps, with its three canonical numberings.

    Parameters
    ----------
    old : bool
        As recordings of 3.11 have them: without raw tables and contents.
    """

    def __init__(self, *, old: bool = False) -> None:
        self.old = old
        self.frames, self.tables, self.slots = FirstSeenNumbers(), FirstSeenNumbers(), FirstSeenNumbers()

    def step(self, processes: dict[int, ProcessState]) -> dict[str, Json]:
        """The `state` field for the live `processes`, ascending."""
        for numbering in (self.frames, self.tables, self.slots):
            numbering.start_step()
        pages = {who: page_runs(state.pages, self.frames, old=self.old) for who, state in processes.items()}
        out: dict[str, Json] = {}
        for who, state in processes.items():
            if self.old:
                out[str(who)] = {"pages": pages[who], "vmas": [vma.json() for vma in state.vmas]}
                continue
            root = self.tables.number(state.tables.root)
            out[str(who)] = {
                "pages": pages[who],
                "vmas": [vma.json() for vma in state.vmas],
                "root": root,
                "ptes": leaf_runs(state.tables.leaves, self.frames, self.slots),
                "tables": [
                    [level, page, f"{flags:x}", self.tables.number(frame)]
                    for level, page, flags, frame in state.tables.entries
                ],
                "contents": state.contents,
            }
        return out


def parse_state(words: NDArray[np.int64], base: int) -> Iterator[tuple[int, list[GuestArea], list[PageRun]]]:
    """The agent's state records: (process, VMAs, page runs) for each live process."""
    at = 0
    base_page = base >> x86.PAGE_SHIFT
    while at < len(words):
        who, vma_count, run_count = (int(word) for word in words[at : at + 3])
        at += 3
        vmas = []
        for record in words[at : at + 16 * vma_count].reshape(-1, 16):
            start, end, anon, shmem = (int(word) for word in record[:4])
            text = record[4:].tobytes().split(b"\0", 1)[0].decode("ascii")
            vmas.append(GuestArea((start - base) >> x86.PAGE_SHIFT, (end - start) >> x86.PAGE_SHIFT, anon, shmem, text))
        at += 16 * vma_count
        rows = words[at : at + 6 * run_count].reshape(-1, 6).tolist()
        runs = [
            PageRun(page - base_page, count, flags, frame, step, kind) for page, count, flags, frame, step, kind in rows
        ]
        at += 6 * run_count
        yield who, vmas, runs
