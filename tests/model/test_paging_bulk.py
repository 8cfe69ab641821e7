"""Translation of many addresses at once says, and writes, what `paging.translate` does one by one."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pytest

from ptewalk.model import paging_bulk
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Request, Result, State, Translated, translate
from ptewalk.model.paging_bulk import Accesses
from ptewalk.model.x86 import LEVELS_4, LEVELS_5, PAGE_SHIFT, PKEY_LOW, Access, Control, EntryBit, Outcome

Asked = tuple[State, Request]


def accesses(asked: Iterable[Asked]) -> Accesses:
    rows = [
        (
            *(request.linear, request.access, request.user, request.implicit, request.ac),
            *(state.root, state.control, state.pkru, state.pkrs, state.track, state.saved_dirty),
        )
        for state, request in asked
    ]
    kinds: Sequence[Any] = (np.uint64, np.uint8, bool, bool, bool, np.uint64, *[np.uint32] * 3, np.uint8, bool)
    return Accesses(*(np.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)))


class Noted:
    """A memory that notes what one walk reads and writes, and forgets the writes after it."""

    def __init__(self, memory: SparseMemory) -> None:
        self.memory, self.physical_bits = memory, memory.physical_bits
        self.words: dict[int, int] = {}
        self.entries: list[tuple[int, int, int]] = []

    def load(self, address: int) -> int:
        self.entries.append((address, 0, 0))
        word = self.words[address] if address in self.words else self.memory.load(address)
        self.entries[-1] = address, word, word
        return word

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        assert self.entries[-1] == (address, old, old)
        self.words[address] = new
        self.entries[-1] = address, old, new
        return True


def result_of(answers: paging_bulk.Answers, at: int) -> Result:
    outcome, physical, level, pwt, pcd, pat, code = (int(column[at]) for column in answers)
    if outcome != Outcome.OK:
        assert not any((physical, level, pwt, pcd, pat))
    if outcome == Outcome.PAGE_FAULT:
        return PageFault(code)
    assert not code
    if outcome == Outcome.OK:
        return Translated(physical, level, bool(pwt), bool(pcd), bool(pat))
    return GeneralProtection() if outcome == Outcome.GENERAL_PROTECTION else BusFault()


NUMBA = importlib.util.find_spec("numba") is not None


def same(one: Any, other: Any) -> bool:
    """The same in all arrays, and in their types."""
    if isinstance(one, tuple):
        return all(same(*pair) for pair in zip(one, other, strict=True))
    return one.dtype == other.dtype and one.tolist() == other.tolist()


def compare(memory: SparseMemory, asked: Sequence[Asked], **flags: bool) -> int:
    """Every answer, and every entry that was read, as it was and as it was left; how many walks were compared.

    Where numba is installed, compiled too.
    """
    before = memory.copy()
    walked = paging_bulk.translate(memory, accesses(asked), **flags)
    if NUMBA:
        assert same(paging_bulk.translate(memory, accesses(asked), compiled=True, **flags), walked)
    assert memory == before, "nothing is written"
    for number, (state, request) in enumerate(asked):
        noted = Noted(memory)
        assert result_of(walked.answers, number) == translate(noted, state, request), (number, state, request)
        depth = int(walked.depth[number])
        rows = zip(walked.address[number], walked.read[number], walked.left[number], strict=True)
        assert [tuple(map(int, row)) for row in rows][:depth] == noted.entries, (number, state, request)
    return len(asked)


def some_tables(rng: random.Random) -> tuple[SparseMemory, int]:
    """A few tables, each entry of which refers to one of them or to a page; the first is a root."""
    memory = SparseMemory(rng.choice((32, 40, 52)), strict=rng.random() < 0.5)
    frames = [rng.getrandbits(memory.physical_bits - PAGE_SHIFT) or 1 for _ in range(4)]
    flips = [
        *EntryBit,
        *SoftBit,
        *range(PKEY_LOW, PKEY_LOW + 4),
        memory.physical_bits - 1,
        memory.physical_bits,
        13,
        29,
    ]
    for frame in frames[:3]:  # one is missing
        words = memory.add_frame(frame)
        for place in range(512):
            entry = rng.choice(frames) << PAGE_SHIFT | 0x7 | (rng.getrandbits(64) & 0x60)
            if rng.random() < 0.2:
                entry |= 1 << EntryBit.PS
                entry &= ~(0x3FFFF << 12) if rng.random() < 0.8 else ~0
            for _ in range(rng.choice((0, 0, 1, 2))):
                entry ^= 1 << rng.choice(flips)
            words[place] = entry & (1 << 64) - 1
    return memory, frames[0] << PAGE_SHIFT


def some_access(rng: random.Random, root: int, **flags: bool) -> Asked:
    linear = rng.getrandbits(64)
    if rng.random() < 0.4:  # one index at every level
        linear = sum((linear & 0xFF) << PAGE_SHIFT + 9 * level for level in range(5))
    elif rng.random() < 0.9:
        linear = (linear & (1 << 56) - 1) >> rng.choice((0, 9))
    linear = linear if rng.random() < 0.7 else ~linear & (1 << 64) - 1
    state = State(
        root,
        rng.getrandbits(Control.AC),
        rng.getrandbits(32) & rng.getrandbits(32),
        rng.getrandbits(32) & rng.getrandbits(32),
        rng.choice(list(Track)),
        rng.random() < 0.5,
        **flags,
    )
    return state, Request(linear, rng.choice(list(Access)), *(rng.random() < 0.5 for _ in range(3)))


@pytest.mark.parametrize("flags", [{}, {"soft_dirty": False}, {"gigabyte_pages": False}], ids=str)
def test_tables_that_refer_to_themselves(flags: dict[str, bool]) -> None:
    """Of every kind of answer some, and entries that a walk reads twice."""
    rng = random.Random(3)
    compared, outcomes, twice = 0, [0] * len(Outcome), 0
    for _ in range(20):
        memory, root = some_tables(rng)
        asked = [some_access(rng, root, **flags) for _ in range(200)]
        compared += compare(memory, asked, **flags)
        walked = paging_bulk.translate(memory, accesses(asked), **flags)
        for outcome in Outcome:
            outcomes[outcome] += int((walked.answers.outcome == outcome).sum())
        for number, depth in enumerate(walked.depth.tolist()):
            twice += len(set(walked.address[number, :depth].tolist())) < depth
    assert compared == 4000 and min(outcomes) >= 100 and twice >= 20, (compared, outcomes, twice)


@pytest.mark.parametrize("levels", [LEVELS_4, LEVELS_5])
def test_a_walk_of_each_depth(levels: int, walk_to: Callable[..., tuple[SparseMemory, State, Request]]) -> None:
    """An ordinary walk, by hand: what it reads, and A and D that it sets."""
    memory, state, request = walk_to(levels)
    walked = paging_bulk.translate(memory, accesses([(state, request)]))
    assert walked.depth.tolist() == [levels]
    assert walked.answers.physical.tolist() == [0x7654_3000 | request.linear & 0xFFF]
    accessed, dirty = 1 << EntryBit.A, 1 << EntryBit.D
    set_by_it = (walked.left ^ walked.read)[0, :levels].tolist()
    assert set_by_it == [accessed] * (levels - 1) + [accessed | dirty | 1 << SoftBit.SOFT_DIRTY]


@pytest.fixture
def walk_to() -> Callable[..., tuple[SparseMemory, State, Request]]:
    def make(levels: int) -> tuple[SparseMemory, State, Request]:
        memory, linear = SparseMemory(), 0x1234_5678_9ABC
        for level in range(levels, 0, -1):
            index = linear >> 12 + 9 * (level - 1) & 511
            below = 0x7654_3000 if level == 1 else (0x100 + level - 1) << PAGE_SHIFT
            memory.store((0x100 + level << PAGE_SHIFT) + 8 * index, below | 7)
        control = 1 << Control.LA57 if levels == LEVELS_5 else 0
        state = State(0x100 + levels << PAGE_SHIFT, control, track=Track.NATIVE)
        return memory, state, Request(linear, Access.WRITE)

    return make


def test_memory_that_does_not_answer() -> None:
    memory = SparseMemory(40, strict=True)
    memory.add_frame(2)
    at = np.array([0x2008, 0x3000, 1 << 41], np.uint64)
    assert [column.tolist() for column in memory.load_many(at)] == [[0, 0, 0], [True, False, False]]
    assert [column.tolist() for column in SparseMemory(40).load_many(at)] == [[0, 0, 0], [True, True, False]]
    with pytest.raises(BusError):
        memory.load(0x3000)


def test_a_root_beyond_memory() -> None:
    with pytest.raises(ValueError, match=r"root must be below 2\*\*40 \(the memory's width\), not 0x10000000000"):
        paging_bulk.translate(SparseMemory(40), accesses([(State(1 << 40), Request(0, Access.READ))]))
