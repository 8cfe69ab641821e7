"""Random page walks with a seed: one generator for the model, the gateware and the outside voices.

Each walk belongs to a family of the walk format (see formats/walks.py), which decides what is made likely. The
tables are made so that a fair part of the walks succeeds, and most of those which fail do so for one or two reasons.
Many walks are drawn at once, as arrays with an element a walk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.formats.walks import ARENAS, PHYSICAL_BITS, ROOT, WalkCase, run_on_model
from ptewalk.model import x86
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.paging import GeneralProtection, PageFault, Request, State, Translated
from ptewalk.model.paging_bulk import Accesses

__all__ = ["FAMILIES", "SMALLEST_PHYSICAL_BITS", "Walk", "Walks", "answered", "random_cases", "random_walks"]

Words = NDArray[np.uint64]
Numbers = NDArray[np.int64]
Truths = NDArray[np.bool_]

FAMILIES: Final = "ABCDEGH"
"""A permissions, B presence and A/D, C reserved bits, D keys, E all bits, G not canonical, H self-map."""
SMALLEST_PHYSICAL_BITS: Final = 32
"""Least width of a physical address that random walks are made for: a 1 GiB page needs a choice of frames."""


def _word(*bits: int) -> np.uint64:
    return np.uint64(sum(1 << bit for bit in bits))


_ZERO, _ONE = np.uint64(0), np.uint64(1)
_P, _RW, _US, _A, _D, _PS, _XD = (
    _word(bit)
    for bit in (
        x86.EntryBit.P,
        x86.EntryBit.RW,
        x86.EntryBit.US,
        x86.EntryBit.A,
        x86.EntryBit.D,
        x86.EntryBit.PS,
        x86.EntryBit.XD,
    )
)
_IGNORED: Final = _word(3, 4, 8, 9, 10, 11, 52, 53, 54, 55, 56, 57, 58)
"""Bits that decide nothing in a walk: PWT, PCD, G, and all that are software's."""
_FRAME: Final = np.uint64((1 << x86.FRAME_HIGH + 1) - (1 << x86.FRAME_LOW))
_KEY: Final = np.uint64((1 << x86.PKEY_BITS) - 1 << x86.PKEY_LOW)
_ARM: Final = _word(SoftBit.ARM)
_EDGE_INDEXES: Final = np.array((0, 1, 255, 256, 510, 511), np.uint64)
_RECORDED_ACCESSES: Final = {"R": x86.Access.READ, "W": x86.Access.WRITE, "X": x86.Access.FETCH, "I": x86.Access.READ}
_SHIFTS: Final = np.array([0, *(x86.LEVEL_SHIFT[level] for level in range(1, x86.LEVELS_5 + 1))], np.uint64)

_CHANCES: Final = {
    x86.Control.WP: 0.6,
    x86.Control.NXE: 0.85,
    x86.Control.SMEP: 0.4,
    x86.Control.SMAP: 0.4,
    x86.Control.PKE: 0.35,
    x86.Control.PKS: 0.35,
    x86.Control.PGE: 0.5,
    x86.Control.LA57: 0.35,
}
"""The chance of each control bit to be set; those of keys have `_KEY_CHANCE` where keys are the matter."""
_KEY_CHANCE: Final = 0.85
_RIGHTS_SPOILT: Final = {"A": (0, 1, 1, 2, 3), "E": (0, 0, 1, 2), "D": (0, 0, 1)}
"""Family to the numbers of rights taken away, to choose from."""
_SPOILT: Final = (0, 0, 0, 1)
"""The same where the family says nothing."""
_ABSENT_CHANCE: Final = {"B": 0.5, "C": 0.3, "E": 0.1}
"""Family to the chance of an entry with P=0."""
_RECORDED_FRAMES: Final = tuple(ROOT[x86.LEVELS_4] // x86.PAGE_BYTES - 4 + level for level in range(x86.LEVELS_5 + 1))
"""Frames of the tables of recorded walks, by level."""


class Walk(NamedTuple):
    """One access, the control state it is made in, and the tables it meets.

    Attributes
    ----------
    family : str
        A letter of `FAMILIES`.
    request : Request
    state : State
    entries : tuple of (address, value)
        Every word of the tables that is not 0.
    """

    family: str
    request: Request
    state: State
    entries: tuple[tuple[int, int], ...]


@dataclass
class Walks:
    """Accesses, the control state each is made in, and the tables it meets.

    Attributes
    ----------
    family : int64 array (n,)
        Place in `FAMILIES`.
    accesses : Accesses (n,)
    address, value : uint64 arrays (n, 5)
        Words of each walk's tables, root first. Where `there` is not set there is none.
    there : bool array (n, 5)
    """

    family: Numbers
    accesses: Accesses
    address: Words
    value: Words
    there: Truths

    def __len__(self) -> int:
        return len(self.family)

    def first(self, count: int) -> Walks:
        """The first `count` of them."""
        cut = Accesses(**{name: column[:count] for name, column in self.accesses._asdict().items()})
        return Walks(self.family[:count], cut, *(getattr(self, name)[:count] for name in _OF_TABLES))

    def __iter__(self) -> Iterator[Walk]:
        """One by one."""
        rows = zip(*(column.tolist() for column in self.accesses), strict=True)
        words = zip(*(getattr(self, name).tolist() for name in _OF_TABLES), strict=True)
        for family, row, (address, value, there) in zip(self.family.tolist(), rows, words, strict=True):
            linear, access, user, implicit, ac, root, control, pkru, pkrs, track, saved = row
            yield Walk(
                FAMILIES[family],
                Request(linear, x86.Access(access), user, implicit, ac),
                State(root, control, pkru, pkrs, Track(track), saved),
                tuple((at, word) for at, word, held in zip(address, value, there, strict=True) if held),
            )


_OF_TABLES: Final = tuple(field.name for field in fields(Walks))[2:]


def random_walks(
    rng: np.random.Generator,
    count: int,
    *,
    family: str | None = None,
    physical_bits: int = PHYSICAL_BITS,
    tracks: Sequence[Track] = tuple(Track),
) -> Walks:
    """Walks of any access, in any way to track, through tables anywhere in physical memory.

    No two of them have a frame of their tables in common, so that they can stand in one memory without meeting.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where all chance comes from: the same state gives the same walks.
    count : int
    family : str or None
        A letter of `FAMILIES`; None for any.
    physical_bits : int
        Width of a physical address, 32 to 52.
    tracks : sequence of Track
        The ways to track to choose from.

    Raises
    ------
    ValueError
        `family`, `physical_bits` or `tracks` is not one of these.
    """
    if not SMALLEST_PHYSICAL_BITS <= physical_bits <= x86.MAX_PHYSICAL_BITS:
        low, high = SMALLEST_PHYSICAL_BITS, x86.MAX_PHYSICAL_BITS
        raise ValueError(f"physical_bits must be {low} to {high}, not {physical_bits!r}")
    if not tracks:
        raise ValueError("tracks must name at least one way to track")
    drafts = _Drafts(rng, count, family, physical_bits)
    drafts.scatter()
    access = drafts.one_of(tuple(x86.Access)).astype(np.uint8)
    drafts.make(access, implicit=(access != x86.Access.FETCH) & drafts.chance(0.2))
    track = drafts.one_of(tuple(tracks)).astype(np.uint8)
    drafts.arm(drafts.chance(np.where(track == Track.FAULT, 0.6, 0.1)))
    return drafts.walks(track, drafts.chance(0.5))


def random_cases(rng: np.random.Generator, count: int, *, family: str | None = None) -> list[WalkCase]:
    """Walks as the walk format holds them, numbered from 0, with the golden model's answers.

    The tables and pages lie where recorded walks have them, so that every backend can run each.

    Parameters
    ----------
    rng : numpy.random.Generator
        Where all chance comes from.
    count : int
    family : str or None
        A letter of `FAMILIES`; None for any.

    Raises
    ------
    ValueError
        `family` is not one of these.
    """
    drafts = _Drafts(rng, count, family, PHYSICAL_BITS)
    kinds = ["RWXI"[place] for place in rng.integers(4, size=count)]
    kinds = ["R" if letter == FAMILIES.index("H") else kind for letter, kind in zip(drafts.family, kinds, strict=True)]
    implicit = np.array([kind == "I" for kind in kinds])
    access = np.array([_RECORDED_ACCESSES[kind] for kind in kinds], np.uint8)
    drafts.make(access, implicit=implicit, aligned=np.where(implicit, np.uint64(32), np.uint64(8)))
    walks = drafts.walks(np.full(count, Track.OFF, np.uint8), np.zeros(count, bool))
    return [
        answered(
            WalkCase(
                number=number,
                family=walk.family,
                kind=kind,
                user=walk.request.user,
                control=walk.state.control | walk.request.ac << x86.Control.AC,
                linear=walk.request.linear,
                entries=walk.entries,
                outcome=x86.Outcome.OK,
                value=0,
                added=(),
                pkru=walk.state.pkru,
                pkrs=walk.state.pkrs,
                voices="m",
            )
        )
        for number, (kind, walk) in enumerate(zip(kinds, walks, strict=True))
    ]


def answered(case: WalkCase) -> WalkCase:
    """`case` with the golden model's outcome and A and D bits in place of its own."""
    result, lazy = run_on_model(case, eager=False)
    _, eager = run_on_model(case, eager=True)
    added = tuple(lazy[address] ^ value for address, value in case.entries)
    if isinstance(result, PageFault):
        sooner = tuple(eager[address] ^ value for address, value in case.entries)
        outcome, value = x86.Outcome.PAGE_FAULT, result.code
        return replace(case, outcome=outcome, value=value, added=added, eager=sooner if sooner != added else None)
    if isinstance(result, Translated):
        return replace(case, outcome=x86.Outcome.OK, value=result.physical, added=added, eager=None)
    if isinstance(result, GeneralProtection):
        return replace(case, outcome=x86.Outcome.GENERAL_PROTECTION, value=0, added=added, eager=None)
    raise ValueError(f"a walk's table must lie in physical memory, case {case.number} met a bus error")


class _Drafts:
    """Walks while they are made; all arrays have an element, or a row, a walk.

    The entries of a walk, root first, are columns; `_own` of one that lies where an earlier one does is that one's.
    """

    def __init__(self, rng: np.random.Generator, count: int, family: str | None, physical_bits: int) -> None:
        if family is not None and (family not in FAMILIES or len(family) != 1):
            raise ValueError(f"family must be a letter of {FAMILIES}, not {family!r}")
        self._rng, self._count, self._physical_bits = rng, count, physical_bits
        self.family = rng.integers(len(FAMILIES), size=count)
        if family is not None:
            self.family[:] = FAMILIES.index(family)
        self._control = np.zeros(count, np.uint32)
        for bit, chance in _CHANCES.items():
            of_keys = bit in (x86.Control.PKE, x86.Control.PKS)
            chances = np.where(self._of("D") & of_keys, _KEY_CHANCE, chance)
            self._control |= self.chance(chances).astype(np.uint32) << np.uint32(bit)
        five = self._control >> np.uint32(x86.Control.LA57) & 1 != 0
        self._levels = np.where(five, x86.LEVELS_5, x86.LEVELS_4)
        self._frames = np.tile(np.array(_RECORDED_FRAMES, np.uint64), (count, 1))
        """Frame number of each level's table."""
        self._scattered = False

    # Chance.

    def chance(self, of: float | NDArray[np.float64]) -> Truths:
        """Each true with this chance."""
        return self._rng.random(self._count) < of

    def one_of(self, options: Sequence[int] | Words) -> NDArray[Any]:
        """One of `options` each."""
        return np.asarray(options)[self._rng.integers(len(options), size=self._count)]

    def _bits(self, width: int = 64) -> Words:
        return self._rng.integers(1 << width, size=self._count, dtype=np.uint64)

    def _below(self, limits: Numbers) -> Numbers:
        """A number below each of these."""
        return (self._rng.random(self._count) * limits).astype(np.int64)

    def _of(self, families: str) -> Truths:
        """Which walks are of one of these families."""
        return np.array([letter in families for letter in FAMILIES])[self.family]

    # Steps.

    def scatter(self) -> None:
        """Put the tables anywhere, each in a frame of its own."""
        self._scattered = True
        width = self._physical_bits - x86.PAGE_SHIFT
        frames = self._rng.integers(1, 1 << width, size=(self._count, x86.LEVELS_5), dtype=np.uint64)
        while True:
            _, firsts = np.unique(frames, return_index=True)
            if len(firsts) == frames.size:
                break
            again = np.ones(frames.size, bool)
            again[firsts] = False
            frames.reshape(-1)[again] = self._rng.integers(1, 1 << width, size=int(again.sum()), dtype=np.uint64)
        self._frames[:, 1:] = frames

    def make(self, access: NDArray[np.uint8], *, implicit: Truths, aligned: Words | None = None) -> None:
        """Choose address, tables and registers for these accesses, at multiples of `aligned` bytes."""
        of_eleven = np.where(self._of("H"), 0, self._rng.random(self._count) * 11)
        self._leaf_level = np.select([of_eleven < 6, of_eleven < 9], [1, 2], 3)
        self._depth = self._levels - self._leaf_level + 1
        linear, page = self._addresses()
        self._build(linear, page)
        self._spoil()
        low = np.where(self._levels == x86.LEVELS_5, *(x86.LINEAR_BITS[n] - 1 for n in (5, 4))).astype(np.uint64)
        wrong = self._rng.integers(1, (_ONE << np.uint64(64) - low) - _ONE, dtype=np.uint64) << low
        linear = np.where(self._of("G"), linear ^ wrong, linear)
        self._linear = linear if aligned is None else linear & (_ZERO - aligned)
        self._access, self._implicit = access, implicit
        self._user, self._ac = self.chance(0.5), self.chance(0.4)

    def arm(self, which: Truths) -> None:
        """Make the leaves of some walks ones that a mend makes writable."""
        self._change(which, self._depth - 1, lambda value: value & ~_RW | _ARM)

    def walks(self, track: NDArray[np.uint8], saved_dirty: Truths) -> Walks:
        """The walks as they stand."""
        root = self._frames[np.arange(self._count), self._levels] << np.uint64(x86.PAGE_SHIFT)
        accesses = Accesses(
            linear=self._linear,
            access=self._access,
            user=self._user,
            implicit=self._implicit,
            ac=self._ac,
            root=root,
            control=self._control,
            pkru=self._keys(),
            pkrs=self._keys(),
            track=track,
            saved_dirty=saved_dirty,
        )
        columns = np.arange(x86.LEVELS_5)
        there = (columns < self._depth[:, None]) & (self._own == columns) & (self._value != 0)
        return Walks(self.family, accesses, self._address, self._value, there)

    def _keys(self) -> NDArray[np.uint32]:
        """Key registers: sparse, or half full where keys are the matter."""
        return (self._bits(32) & np.where(self._of("D"), ~_ZERO, self._bits(32))).astype(np.uint32)

    def _addresses(self) -> tuple[Words, Words]:
        """Canonical linear addresses, and the physical addresses of their pages."""
        linear = np.zeros(self._count, np.uint64)
        for _ in range(x86.LEVELS_5):
            index = np.where(self.chance(0.4), self.one_of(_EDGE_INDEXES), self._bits(x86.INDEX_BITS))
            linear = linear << np.uint64(x86.INDEX_BITS) | index
        width = np.where(self._levels == x86.LEVELS_5, *(x86.LINEAR_BITS[n] for n in (5, 4))).astype(np.uint64)
        shift = _SHIFTS[self._leaf_level]
        if self._scattered:
            physical = self._bits(self._physical_bits)
        else:
            bases, sizes = np.array(ARENAS, np.uint64).T
            arena = self._rng.integers(len(ARENAS), size=self._count)
            physical = bases[arena] + self._rng.integers(sizes[arena], dtype=np.uint64)
        page = physical >> shift << shift
        linear = linear << np.uint64(x86.PAGE_SHIFT) >> shift << shift | physical - page
        beyond = np.uint64(64) - width
        return (linear << beyond).view(np.int64).__rshift__(beyond.view(np.int64)).view(np.uint64), page

    def _build(self, linear: Words, page: Words) -> None:
        """Entries that allow everything, from the root to `page`."""
        walks, rng = np.arange(self._count), self._rng
        noise = np.where(self.chance(0.5), _IGNORED, _ZERO)
        noise |= np.where(self._of("DE") | self.chance(0.25), _KEY, _ZERO)
        noise |= _A | _D
        self._address, self._value = np.zeros((2, self._count, x86.LEVELS_5), np.uint64)
        self._own = np.tile(np.arange(x86.LEVELS_5), (self._count, 1))
        table = self._frames[walks, self._levels] << np.uint64(x86.PAGE_SHIFT)
        self_mapped = self._of("H")
        for column in range(x86.LEVELS_5):
            level = self._levels - column
            here, leaf = column < self._depth, level == self._leaf_level
            index = linear >> _SHIFTS[level] & np.uint64(x86.TABLE_ENTRIES - 1)
            address = np.where(here, table | index * np.uint64(x86.ENTRY_BYTES), _ZERO)
            pat = np.where(level == 1, self._bits(1) << np.uint64(x86.PAT_4K), self._bits(1) << np.uint64(12))
            below = self._frames[walks, np.maximum(level - 1, 0)] << np.uint64(x86.PAGE_SHIFT)
            value = _P | _RW | _US | self._bits() & noise
            value |= np.where(leaf, page | pat | np.where(level == 1, _ZERO, _PS), below)
            picked = self._frames[walks, 1 + self._below(self._levels)] << np.uint64(x86.PAGE_SHIFT)
            value = np.where(self_mapped & (rng.random(self._count) < 0.6), value & ~_FRAME | picked, value)
            self._address[:, column], self._value[:, column] = address, value
            for earlier in range(column - 1, -1, -1):
                same = here & (self._address[:, earlier] == address)
                self._own[same, column] = earlier
            table = self._value[walks, self._own[:, column]] & _FRAME

    def _change(self, which: Truths, column: Numbers, change: Any) -> None:
        """Change the entry at one column of each of some walks."""
        rows = np.flatnonzero(which)
        columns = self._own[rows, column[rows]]
        self._value[rows, columns] = change(self._value[rows, columns])

    def _spoil(self) -> None:
        """Take away what the family is about."""
        counts = np.zeros(self._count, np.int64)
        for place, letter in enumerate(FAMILIES):
            chosen = self.one_of(_RIGHTS_SPOILT.get(letter, _SPOILT))
            counts = np.where(self.family == place, chosen, counts)
        for number in range(int(max(map(max, _RIGHTS_SPOILT.values())))):
            which, bit = counts > number, self.one_of(np.array([_RW, _RW, _US, _US, _XD]))
            chosen = bit[which]
            spoilt = lambda value: np.where(chosen == _XD, value | _XD, value & ~chosen)  # noqa: B023, E731 - at once
            self._change(which, self._below(self._depth), spoilt)
        reserved = self._of("C") | self._of("E") & self.chance(0.15)
        for which in (reserved, reserved & self.chance(1 / 3)):
            column = self._below(self._depth)
            bits = self._reserved_bits(column)[which]
            self._change(which, column, lambda value: value ^ _ONE << bits)  # noqa: B023 - at once
        chances = np.array([_ABSENT_CHANCE.get(letter, 0.02) for letter in FAMILIES])
        absent = self.chance(chances[self.family])
        flipped = (self._bits() & self._bits())[absent]
        self._change(absent, self._below(self._depth), lambda value: (value ^ flipped) & ~_P)

    def _reserved_bits(self, column: Numbers) -> Words:
        """A bit of the entry at each column that is reserved, or would be in another state."""
        options = {
            (level, leaf): self._reserved_at(level, leaf)
            for leaf in (1, 2, 3)
            for level in range(leaf, x86.LEVELS_5 + 1)
        }
        counts = np.ones((x86.LEVELS_5 + 1, 4), np.int64)
        table = np.zeros((*counts.shape, max(map(len, options.values()))), np.uint64)
        for place, bits in options.items():
            counts[place], table[place][: len(bits)] = len(bits), bits
        level = self._levels - column
        chosen: Words = table[level, self._leaf_level, self._below(counts[level, self._leaf_level])]
        return chosen

    def _reserved_at(self, level: int, leaf_level: int) -> list[int]:
        """Bits of an entry at `level` that are reserved, or would be in another state, to choose from."""
        bits = [*range(self._physical_bits, x86.FRAME_HIGH + 1), x86.EntryBit.XD]
        if level >= x86.LEVELS_4:
            bits += [x86.EntryBit.PS] * 4
        if self._scattered and leaf_level < level < x86.LEVELS_4:
            bits += [x86.EntryBit.PS] * 2
        if level == leaf_level and level in x86.LARGE_RESERVED:
            low, high = x86.LARGE_RESERVED[level]
            bits += range(low, high + 1)
        return bits
