"""Pages and raw entries of a process that has few of them, entry by entry: arrays pay from some dozens on.

What it makes is what `Recorder` makes of arrays, run by run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from ptewalk.model import bulk
from ptewalk.model.linux import FIRST_SPECIAL_SWAP_TYPE, TABLE_FLAGS
from ptewalk.model.proc import kpage, pagemap
from ptewalk.model.profile import Profile
from ptewalk.model.pte import ALL, FRAME, FRAME_AT, PROTNONE, SPECIAL, Entries, P
from ptewalk.model.scenario.runs import Runs, join_entries
from ptewalk.model.state import frames as page
from ptewalk.model.state.machine import MachineState, Process
from ptewalk.model.state.tables import SPAN_TABLES
from ptewalk.model.x86 import FRAME_LOW

MOST: Final = 48
"""Entries of a process."""
KINDS: Final = page.ANON | page.COMPOUND | page.ZERO | page.HUGETLB
"""Flags of a frame that a recording tells."""
_SHAPES: Final = 4096
"""That are remembered."""
_PRESENT, _SWAP, _FILE, _EXCLUSIVE = map(int, (pagemap.PRESENT, pagemap.SWAP, pagemap.FILE, pagemap.EXCLUSIVE))
_FRAME, _V1_SHIFT = int(pagemap.FRAME), int(pagemap.V1_SHIFT)
_V1_KEPT: Final = _PRESENT | _SWAP | _FILE | _FRAME
_STATUS: Final = ALL ^ _FRAME
_NO_FRAME: Final = ALL ^ FRAME


class _Shape(NamedTuple):
    """What hangs on an entry alone, without its frame where it has P."""

    word: int
    """Its pagemap word, without what is the frame's or the area's."""
    present: bool
    normal: bool
    """It maps a page that has a struct page."""
    flags: int
    text: str
    """What a run of `ptes` tells of it, and as text."""
    slot: int
    """Of a swapped entry, offset << 5 | type; of others -1."""
    offset: int
    """Of an entry that is not present."""


Item = tuple[int, int, int]
"""A page, what makes it one of a run, and a number."""


class Few:
    """One process before numbering.

    Attributes
    ----------
    seen : list of (page, status, frame)
        Pages with a visible frame. The status holds what the frame is too, as far as `KINDS` goes.
    holes : list of (first page, pages, pagemap word)
        Entries without one.
    pieces : list of list of (page, frame, shape)
        By page table, those that are not empty; the frame of present entries.
    slots : list of int
        Swap slots that the entries name, in order.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, int]] = []
        self.holes: list[tuple[int, int, int]] = []
        self.pieces: list[list[tuple[int, int, _Shape]]] = []
        self.slots: list[int] = []

    def places(self) -> Iterator[tuple[int, int]]:
        """(page, frame) of those with a visible frame."""
        return ((where, frame) for where, _, frame in self.seen)


class _Known:
    """What was worked out for a kernel, with soft-dirty or without."""

    def __init__(self, profile: Profile, soft_dirty: bool) -> None:
        self.rules = Entries(profile, soft_dirty=soft_dirty)
        self.shapes: dict[int, _Shape] = {}
        self.kinds: dict[int, int] = {}
        """Flags of a frame << 1, and whether it is another one than its head, to its `KINDS`."""
        swap = self.rules.swap_layout
        self._offset_field = ((1 << swap.offset_bits) - 1) << swap.offset_low

    @staticmethod
    @lru_cache(maxsize=16)
    def of(profile: Profile, soft_dirty: bool) -> _Known:
        """The same for all machines of a kernel."""
        return _Known(profile, soft_dirty)

    def shape(self, entry: int) -> _Shape:
        """Of an entry, whose frame does not matter where it has P."""
        if len(self.shapes) >= _SHAPES:
            self.shapes.clear()
        found = self.shapes[entry] = self._made(entry)
        return found

    def _made(self, entry: int) -> _Shape:
        rules = self.rules
        word = int(bulk.pagemap(np.array([entry], np.uint64), rules)[0])
        if entry & (P | PROTNONE):
            flags = entry & ~FRAME_AT[1]
            return _Shape(word, True, not entry & SPECIAL, flags, format(flags, "x"), -1, 0)
        flags, kind, offset = entry & ~self._offset_field, rules.swp_type(entry), rules.swp_offset(entry)
        slot = offset << 5 | kind if kind < FIRST_SPECIAL_SWAP_TYPE else -1
        return _Shape(word, False, False, flags, format(flags, "x"), slot, offset)


class FewRules:
    """How one machine's entries are told.

    Parameters
    ----------
    kernel : MachineState
    """

    def __init__(self, kernel: MachineState) -> None:
        self._kernel = kernel
        self._known = _Known.of(kernel.profile, kernel.entries.soft_dirty)
        self._upper = ".".join([format(TABLE_FLAGS, "x")] * (kernel.levels - 1))

    def of(self, process: Process) -> Few | None:
        """What a process has; None: many entries, or huge ones, or it does not see frames, or others make its words."""
        kernel, mm = self._kernel, process.mm
        sees = pagemap.shows_frames(kernel, privileged=process.sees_frames)
        if kernel.engine is not None or kernel.compiled or kernel.exact or not sees:
            return None
        few, base, v2, known = Few(), kernel.base, kernel.pagemap_v2, self._known
        exclusive = pagemap.tells_exclusive(kernel)
        flags, mapcount = kernel.frames.flags.item, kernel.frames.mapcount
        left, holes, seen = MOST, few.holes, few.seen
        shapes, kinds, heads = known.shapes, known.kinds, kernel.frames.head.item
        for vma in mm.areas:
            if vma.huge_level:
                return None
            shared = pagemap.area_word(mm, vma) if v2 else 0
            at = vma.start - base
            for piece in mm.tables.pieces(vma, vma.start, vma.end, together=SPAN_TABLES):
                if piece.leaf:
                    return None
                part = mm.tables.look(piece.first, piece.last)
                used = part.nonzero()[0]
                left -= len(used)
                if left < 0:
                    return None
                if not len(used):
                    continue
                entries: list[tuple[int, int, _Shape]] = []
                few.pieces.append(entries)
                first = piece.first - base
                for place, entry in zip(used.tolist(), part[used].tolist(), strict=True):
                    where = first + place
                    key = entry & _NO_FRAME if entry & P else entry
                    shape = shapes.get(key) or known.shape(key)
                    if shared and where > at:
                        holes.append((at, where - at, shared))
                    at = where + 1
                    word = shape.word | shared
                    frame = (entry & FRAME) >> FRAME_LOW if entry & P else word & _FRAME
                    entries.append((where, frame, shape))
                    if word & _PRESENT:
                        flag = flags(frame)
                        if shape.normal:
                            if not flag & page.ANON:
                                word |= _FILE
                            if exclusive and mapcount(frame) == 1:
                                word |= _EXCLUSIVE
                        kind = kinds.get(flag << 1 | (heads(frame) != frame))
                        if kind is None:
                            kind = self._kind(frame)
                        seen.append((where, (word if v2 else word & _V1_KEPT | _V1_SHIFT) & _STATUS | kind, frame))
                        continue
                    if shape.slot >= 0:
                        few.slots.append(shape.slot)
                    if v2:
                        holes.append((where, 1, word))
                    elif word & _V1_KEPT:
                        holes.append((where, 1, word & _V1_KEPT | _V1_SHIFT))
            if shared and vma.end - base > at:
                holes.append((at, vma.end - base - at, shared))
        return few

    def _kind(self, frame: int) -> int:
        """`KINDS` of `kpage.visible` of a frame."""
        frames = self._kernel.frames
        found = int(kpage.visible(self._kernel, np.array([frame]))[0]) & KINDS
        self._known.kinds[frames.flags.item(frame) << 1 | (frames.head.item(frame) != frame)] = found
        return found

    def page_runs(self, few: Few, numbers: Mapping[int, int]) -> list[tuple[int, int, int, int, int]]:
        """Runs of `seen`: (first page, pages, status, number, step)."""
        items = [(at, status, numbers[frame]) for at, status, frame in few.seen]
        return [(items[first][0], last - first, *items[first][1:], step) for first, last, step in group(items)]

    def entry_runs(self, few: Few, numbers: Mapping[int, int], slots: Mapping[int, int]) -> Runs:
        """`ptes` of the format."""
        runs: Runs = []
        for piece in few.pieces:
            items = []
            for where, frame, shape in piece:
                if shape.present:
                    number = numbers.get(frame, 0)
                else:
                    number = slots[shape.slot] if shape.slot >= 0 else shape.offset
                items.append((where, shape.flags << 2 | shape.present << 1 | (number != 0), number))
            for first, last, step in group(items):
                where, _, number = items[first]
                _, _, shape = piece[first]
                known = number or not shape.present
                runs.append([where, last - first, 1, shape.text, self._upper, number if known else None, step])
        return join_entries(runs)

    def mapped(self, few: Few) -> Iterator[tuple[int, int]]:
        """(page, frame) of what the entries map."""
        for piece in few.pieces:
            for where, frame, shape in piece:
                if shape.present:
                    yield where, frame


def group(items: list[Item]) -> list[tuple[int, int, int]]:
    """As `runs.group`: neighbours with equal keys and numbers that stay or count up: (first, last + 1, step)."""
    runs: list[tuple[int, int, int]] = []
    first, count = 0, len(items)
    while first < count:
        at, key, number = items[first]
        last, step = first + 1, -1
        while last < count:
            there, other, following = items[last]
            rise = following - number
            if there != at + last - first or other != key or rise != (step if step >= 0 else rise & 1):
                break
            step, number, last = rise, following, last + 1
        runs.append((first, last, max(step, 0)))
        first = last
    return runs
