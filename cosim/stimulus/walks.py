"""Random page walks with a seed: one generator for the model, the gateware and the outside voices.

Each walk belongs to a family of the walk format (see formats/walks.py), which decides what is made likely. The
tables are made so that a fair part of the walks succeeds, and most of those which fail do so for one or two reasons.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

from ptewalk.cosim.formats.walks import ARENAS, PHYSICAL_BITS, ROOT, WalkCase, run_on_model
from ptewalk.model import x86
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.paging import GeneralProtection, PageFault, Request, State, Translated

__all__ = ["FAMILIES", "SMALLEST_PHYSICAL_BITS", "Walk", "answered", "pick", "random_case", "random_walk"]

_T = TypeVar("_T")

FAMILIES: Final = "ABCDEGH"
"""A permissions, B presence and A/D, C reserved bits, D keys, E all bits, G not canonical, H self-map."""
SMALLEST_PHYSICAL_BITS: Final = 32
"""Least width of a physical address that random walks are made for: a 1 GiB page needs a choice of frames."""

_P, _RW, _US, _A, _D, _PS, _XD = (
    1 << bit
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
_IGNORED: Final = sum(1 << bit for bit in (3, 4, 8, 9, 10, 11, 52, 53, 54, 55, 56, 57, 58))
"""Bits that decide nothing in a walk: PWT, PCD, G, and all that are software's."""
_FRAME: Final = (1 << x86.FRAME_HIGH + 1) - (1 << x86.FRAME_LOW)
_KEY: Final = (1 << x86.PKEY_BITS) - 1 << x86.PKEY_LOW
_ARM: Final = 1 << SoftBit.ARM
_PRESENT: Final = _P | _RW | _US
_ACCESSED: Final = _A | _D
_EDGE_INDEXES: Final = (0, 1, 255, 256, 510, 511)
_ACCESSES: Final = tuple(x86.Access)
_RECORDED_ACCESSES: Final = {"R": x86.Access.READ, "W": x86.Access.WRITE, "X": x86.Access.FETCH, "I": x86.Access.READ}

_RIGHTS_SPOILT: Final = {"A": (0, 1, 1, 2, 3), "E": (0, 0, 1, 2), "D": (0, 0, 1)}
"""Family to the numbers of rights taken away, to choose from."""
_SPOILT: Final = (0, 0, 0, 1)
"""The same where the family says nothing."""
_ABSENT_CHANCE: Final = {"B": 0.5, "C": 0.3, "E": 0.1}
"""Family to the chance of an entry with P=0."""
_CHANCES: Final = tuple(
    (1 << bit, chance)
    for bit, chance in (
        (x86.Control.WP, 0.6),
        (x86.Control.NXE, 0.85),
        (x86.Control.SMEP, 0.4),
        (x86.Control.SMAP, 0.4),
        (x86.Control.PKE, 0.35),
        (x86.Control.PKS, 0.35),
        (x86.Control.PGE, 0.5),
        (x86.Control.LA57, 0.35),
    )
)
"""Each control bit, and its chance to be set."""
_KEY_CHANCES: Final = tuple(
    (bit, 0.85 if bit in (1 << x86.Control.PKE, 1 << x86.Control.PKS) else chance) for bit, chance in _CHANCES
)
"""The same where keys are the matter."""
_RECORDED_FRAMES: Final = tuple(ROOT[x86.LEVELS_4] // x86.PAGE_BYTES - 4 + level for level in range(x86.LEVELS_5 + 1))
"""Frames of the tables of recorded walks, by level."""


class Walk(NamedTuple):
    """One access, the control state it is made in, and the tables it meets.

    Attributes
    ----------
    family : str
        A letter of `FAMILIES`.
    linear, access, user, implicit, ac
        The access, as in `Request`.
    root, control, pkru, pkrs, track, saved_dirty
        Control state, as in `State`.
    entries : tuple of (address, value)
        Every word of the tables that is not 0.
    """

    family: str
    linear: int
    access: x86.Access
    user: bool
    implicit: bool
    ac: bool
    root: int
    control: int
    pkru: int
    pkrs: int
    track: Track
    saved_dirty: bool
    entries: tuple[tuple[int, int], ...]

    @property
    def request(self) -> Request:
        """The access."""
        return Request(self.linear, self.access, self.user, self.implicit, self.ac)

    @property
    def state(self) -> State:
        """The control state."""
        return State(self.root, self.control, self.pkru, self.pkrs, self.track, self.saved_dirty)


def pick(rng: random.Random, options: Sequence[_T]) -> _T:
    """One of `options`, the same as `rng.choice` would take, in less time."""
    draw, count = rng.getrandbits, len(options)
    bits = count.bit_length()
    number = draw(bits)
    while number >= count:
        number = draw(bits)
    return options[number]


def random_walk(
    rng: random.Random,
    *,
    family: str | None = None,
    physical_bits: int = PHYSICAL_BITS,
    tracks: Sequence[Track] = tuple(Track),
    used: set[int] | None = None,
) -> Walk:
    """A walk of any access, in any way to track, through tables anywhere in physical memory.

    Parameters
    ----------
    rng : random.Random
        Where all chance comes from: the same state gives the same walk.
    family : str or None
        A letter of `FAMILIES`; None for any.
    physical_bits : int
        Width of a physical address, 32 to 52.
    tracks : sequence of Track
        The ways to track to choose from.
    used : set of int or None
        Frame numbers that no table may have. This walk's table frames are added to it, so that walks made with one set
        can stand in one memory without meeting.

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
    draft = _Draft(rng, _family(rng, family), physical_bits)
    draft.scatter(set() if used is None else used)
    access = pick(rng, _ACCESSES)
    draft.make(access, implicit=access != x86.Access.FETCH and rng.random() < 0.2)
    track = pick(rng, tracks)
    armed = 0.6 if track == Track.FAULT else 0.1
    if rng.random() < armed:
        draft.arm()
    return draft.walk(track, saved_dirty=rng.random() < 0.5)


def random_case(rng: random.Random, *, family: str | None = None, number: int = 0) -> WalkCase:
    """A walk as the walk format holds it, with the golden model's answer.

    The tables and pages lie where recorded walks have them, so that every backend can run it.

    Parameters
    ----------
    rng : random.Random
        Where all chance comes from.
    family : str or None
        A letter of `FAMILIES`; None for any.
    number : int
        The case's running number.

    Raises
    ------
    ValueError
        `family` is not one of these.
    """
    draft = _Draft(rng, _family(rng, family), PHYSICAL_BITS)
    kind = "R" if draft.family == "H" else pick(rng, "RWXI")
    draft.make(_RECORDED_ACCESSES[kind], implicit=kind == "I", aligned=32 if kind == "I" else 8)
    walk = draft.walk(Track.OFF, saved_dirty=False)
    case = WalkCase(
        number=number,
        family=walk.family,
        kind=kind,
        user=walk.user,
        control=walk.control | walk.ac << x86.Control.AC,
        linear=walk.linear,
        entries=walk.entries,
        outcome=x86.Outcome.OK,
        value=0,
        added=(),
        pkru=walk.pkru,
        pkrs=walk.pkrs,
        voices="m",
    )
    return answered(case)


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


def _family(rng: random.Random, family: str | None) -> str:
    if family is None:
        return pick(rng, FAMILIES)
    if family not in FAMILIES or len(family) != 1:
        raise ValueError(f"family must be a letter of {FAMILIES}, not {family!r}")
    return family


class _Draft:
    """A walk while it is made."""

    def __init__(self, rng: random.Random, family: str, physical_bits: int) -> None:
        self.rng = rng
        self.family = family
        self.physical_bits = physical_bits
        self.control = 0
        for bit, chance in _KEY_CHANCES if family == "D" else _CHANCES:
            if rng.random() < chance:
                self.control |= bit
        self.levels = x86.LEVELS_5 if self.control >> x86.Control.LA57 & 1 else x86.LEVELS_4
        self.table_frames = list(_RECORDED_FRAMES)
        """Frame number of each level's table."""
        self.scattered = False
        self.path: list[tuple[int, int]] = []
        """(level, address) of each entry of the walk, root first."""
        self.values: dict[int, int] = {}

    def scatter(self, used: set[int]) -> None:
        """Put the tables anywhere, each in a frame that is not in `used`."""
        self.scattered = True
        draw, bits = self.rng.getrandbits, self.physical_bits - x86.PAGE_SHIFT
        for level in range(1, self.levels + 1):
            frame = draw(bits)
            while frame in used or frame == 0:
                frame = draw(bits)
            used.add(frame)
            self.table_frames[level] = frame

    def make(self, access: x86.Access, *, implicit: bool, aligned: int = 1) -> None:
        """Choose address, tables and registers for `access` at a multiple of `aligned` bytes."""
        rng = self.rng
        of_eleven = rng.random() * 11 if self.family != "H" else 0
        leaf_level = 1 if of_eleven < 6 else 2 if of_eleven < 9 else 3
        linear, page = self._addresses(leaf_level)
        self._build(linear, leaf_level, page)
        self._spoil(leaf_level)
        if self.family == "G":
            low = x86.LINEAR_BITS[self.levels] - 1
            linear ^= rng.randrange(1, (1 << 64 - low) - 1) << low
        self.linear, self.access, self.implicit = linear & -aligned, access, implicit
        self.user = rng.random() < 0.5
        self.ac = rng.random() < 0.4

    def arm(self) -> None:
        """Make the leaf one that a mend makes writable."""
        _, address = self.path[-1]
        self.values[address] = self.values[address] & ~_RW | _ARM

    def walk(self, track: Track, *, saved_dirty: bool) -> Walk:
        """The walk as it stands."""
        root = self.table_frames[self.levels] << x86.PAGE_SHIFT
        return Walk(
            self.family,
            self.linear,
            self.access,
            self.user,
            self.implicit,
            self.ac,
            root,
            self.control,
            self._keys(),
            self._keys(),
            track,
            saved_dirty,
            tuple([entry for entry in self.values.items() if entry[1]]),
        )

    def _keys(self) -> int:
        """A key register: sparse, or half full where keys are the matter."""
        value = self.rng.getrandbits(32)
        return value if self.family == "D" else value & self.rng.getrandbits(32)

    def _addresses(self, leaf_level: int) -> tuple[int, int]:
        """A canonical linear address, and the physical address of its page."""
        rng = self.rng
        linear = 0
        for _ in range(self.levels):
            index = pick(rng, _EDGE_INDEXES) if rng.random() < 0.4 else rng.getrandbits(x86.INDEX_BITS)
            linear = linear << x86.INDEX_BITS | index
        linear <<= x86.PAGE_SHIFT
        shift = x86.LEVEL_SHIFT[leaf_level]
        if self.scattered:
            physical = rng.getrandbits(self.physical_bits)
        else:
            base, size = pick(rng, ARENAS)
            physical = base + rng.randrange(size)
        page = physical >> shift << shift
        linear = linear >> shift << shift | physical - page
        top = x86.LINEAR_BITS[self.levels]
        if linear >> top - 1:
            linear |= (1 << 64) - (1 << top)
        return linear, page

    def _build(self, linear: int, leaf_level: int, page: int) -> None:
        """Entries that allow everything, from the root to `page`."""
        rng = self.rng
        noise = _IGNORED if rng.random() < 0.5 else 0
        if self.family in "DE" or rng.random() < 0.25:
            noise |= _KEY
        noise |= _ACCESSED
        path, values, frames = self.path, self.values, self.table_frames
        table = frames[self.levels] << x86.PAGE_SHIFT
        for level in range(self.levels, leaf_level - 1, -1):
            address = table | (linear >> x86.LEVEL_SHIFT[level] & x86.TABLE_ENTRIES - 1) * x86.ENTRY_BYTES
            path.append((level, address))
            if address not in values:
                value = _PRESENT | rng.getrandbits(64) & noise
                if level == leaf_level:
                    value |= page | self._leaf_bits(level)
                else:
                    value |= frames[level - 1] << x86.PAGE_SHIFT
                if self.family == "H" and rng.random() < 0.6:
                    value = value & ~_FRAME | pick(rng, frames[1 : self.levels + 1]) << x86.PAGE_SHIFT
                values[address] = value
            table = values[address] & _FRAME

    def _leaf_bits(self, level: int) -> int:
        """PS and PAT of a leaf."""
        pat = self.rng.getrandbits(1)
        if level == 1:
            return pat << x86.PAT_4K
        return _PS | pat << x86.EntryBit.PAT_LARGE

    def _spoil(self, leaf_level: int) -> None:
        """Take away what the family is about."""
        rng, family = self.rng, self.family
        self._spoil_rights(pick(rng, _RIGHTS_SPOILT.get(family, _SPOILT)))
        if family == "C" or (family == "E" and rng.random() < 0.15):
            for _ in range(pick(rng, (1, 1, 2))):
                level, address = pick(rng, self.path)
                self.values[address] ^= 1 << pick(rng, self._reserved_bits(level, leaf_level))
        if rng.random() < _ABSENT_CHANCE.get(family, 0.02):
            _, address = pick(rng, self.path)
            self.values[address] = (self.values[address] ^ rng.getrandbits(64) & rng.getrandbits(64)) & ~_P

    def _spoil_rights(self, count: int) -> None:
        rng = self.rng
        for _ in range(count):
            _, address = pick(rng, self.path)
            bit = pick(rng, (_RW, _RW, _US, _US, _XD))
            value = self.values[address]
            self.values[address] = value | _XD if bit == _XD else value & ~bit

    def _reserved_bits(self, level: int, leaf_level: int) -> list[int]:
        """Bits of an entry at `level` that are reserved, or would be in another state."""
        bits = [*range(self.physical_bits, x86.FRAME_HIGH + 1), x86.EntryBit.XD]
        if level >= x86.LEVELS_4:
            bits += [x86.EntryBit.PS] * 4
        if self.scattered and leaf_level < level < x86.LEVELS_4:
            bits += [x86.EntryBit.PS] * 2
        if level == leaf_level and level in x86.LARGE_RESERVED:
            low, high = x86.LARGE_RESERVED[level]
            bits += range(low, high + 1)
        return bits
