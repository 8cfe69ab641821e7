"""Random work for an MMU that caches: few pages, few frames, entries that change right before they are invalidated.

Every address space has a root of its own; tables below are shared, as Linux shares the kernel's half. Half of the
invalidations aim at what is in flight or was changed last. With five levels CR4.LA57 comes and goes: each space has a
second root, under which its lower addresses are those of another space, so that what is kept from before is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import (
    ENTRY_BYTES,
    LEVEL_SHIFT,
    LEVELS_4,
    LEVELS_5,
    PAGE_SHIFT,
    TABLE_ENTRIES,
    Access,
    Control,
    EntryBit,
    Invalidation,
)

__all__ = ["CacheStory"]

_P, _RW, _US, _A, _D, _PS, _G, _XD = (
    1 << bit
    for bit in (*(EntryBit.P, EntryBit.RW, EntryBit.US, EntryBit.A, EntryBit.D, EntryBit.PS, EntryBit.G, EntryBit.XD),)
)
_SD, _ARM = 1 << SoftBit.SOFT_DIRTY, 1 << SoftBit.ARM
_ROOT, _ROOT_OF_FIVE, _PDPT, _PD, _PT, _PAGES = 0x100, 0x180, 0x200, 0x300, 0x400, 0x800
"""First frame number of the roots, those of five levels too, of the tables of each level, and of the pages."""
_INDEXES: Final = {4: (0, 1, 511), 3: (0, 7), 2: (0, 1, 2), 1: (0, 1, 2, 3, 17, 33)}
"""Level to the indexes in use. At level 1 some lie in one set of a TLB."""
_ACCESSES: Final = (*(Access.READ,) * 4, *(Access.WRITE,) * 3, Access.RMW, Access.FETCH, Access.PROBE)
_CONTROLS: Final = (Control.WP, Control.NXE, Control.SMEP, Control.SMAP, Control.PKE, *(Control.PGE,) * 5)

_BASE: Final = 1 << Control.PGE | 1 << Control.NXE | 1 << Control.WP
_LA57: Final = 1 << Control.LA57
_BEYOND: Final = 1 << LEVEL_SHIFT[LEVELS_5]
"""What makes of an address one that only five levels have."""


class CacheStory:
    """Tables, and what is drawn of them.

    Parameters
    ----------
    seed : str
    physical_bits : int
    spaces : int
        Address spaces, and PCIDs in use: 1 to `spaces`.
    soft_dirty : bool
    levels : int
        Of the design: with 5 (default) CR4.LA57 comes and goes, with 4 it is never set.

    Attributes
    ----------
    memory : SparseMemory
    """

    def __init__(
        self,
        seed: str,
        *,
        physical_bits: int = 40,
        spaces: int = 6,
        soft_dirty: bool = True,
        levels: int = LEVELS_5,
    ) -> None:
        self._rng = random.Random(seed)
        self._spaces, self._soft_dirty = spaces, soft_dirty
        self.memory = SparseMemory(physical_bits)
        self._tables: dict[int, int] = {}  # address of an upper entry to its table
        self._linears: list[int] = []
        self._changed: list[int] = []  # linear addresses whose entries changed last
        self._level = 1  # of that entry
        self._space = 1
        self._track = Track.NATIVE if soft_dirty else Track.OFF
        self._hot: list[int] = []
        self._controls: tuple[Control, ...] = _CONTROLS
        self._base = _BASE
        self._state = State(_ROOT << PAGE_SHIFT)
        self._build()
        if levels == LEVELS_5:
            self._build_fifth()
            self._controls = (*_CONTROLS, *(Control.LA57,) * 5)
            self._base ^= self._rng.choice((0, 0, _LA57))
        self._control = self._base

    def _build(self) -> None:
        rng = self._rng
        for space in range(1, self._spaces + 1):
            root = _ROOT + space
            for place, index in enumerate(_INDEXES[4]):
                # The upper half is the same in all address spaces; the others have a table of their own each second.
                pdpt = _PDPT + place * 16 + (0 if place == 2 else space % 2)
                self._set(4, root, index, pdpt)
                for three in _INDEXES[3]:
                    pd = _PD + (pdpt - _PDPT) * 4 + three % 3
                    self._set(3, pdpt, three, pd)
                    for two in _INDEXES[2]:
                        self._set(2, pd, two, _PT + (pd - _PD) % 31 * 4 + two)
                        for one in _INDEXES[1]:
                            self._set(1, _PT + (pd - _PD) % 31 * 4 + two, one, _PAGES + rng.randrange(24))
        for indexes in (
            (four, three, two, one)
            for four in _INDEXES[4]
            for three in _INDEXES[3]
            for two in _INDEXES[2]
            for one in _INDEXES[1]
        ):
            linear = sum(index << LEVEL_SHIFT[4 - place] for place, index in enumerate(indexes))
            self._linears.append(linear | (0xFFFF << 48 if linear >> 47 else 0))

    def _build_fifth(self) -> None:
        """Of each address space the table above its root. Its lower half is another's, its upper half its own."""
        for space in range(1, self._spaces + 1):
            for index, other in ((0, space % self._spaces + 1), (1, space), (511, space)):
                self._set(LEVELS_5, _ROOT_OF_FIVE + space, index, _ROOT + other)
        self._linears += [linear | _BEYOND for linear in self._linears if linear < _BEYOND >> 1]

    def _top(self) -> tuple[int, int]:
        """Under the current control: how many levels there are, and the frame number of the root."""
        if self._control & _LA57:
            return LEVELS_5, _ROOT_OF_FIVE + self._space
        return LEVELS_4, _ROOT + self._space

    def _here(self, linear: int) -> int:
        """An address that only five levels have is another where there are four."""
        return linear & ~_BEYOND if linear >> LEVEL_SHIFT[LEVELS_5] == 1 and not self._control & _LA57 else linear

    def _set(self, level: int, table: int, index: int, frame: int) -> None:
        address = (table << PAGE_SHIFT) + index * ENTRY_BYTES
        if not self.memory.load(address):
            self.memory.add_frame(table)
            self.memory.store(address, self._entry(level, frame))
            self._tables[address] = frame

    def _entry(self, level: int, frame: int) -> int:
        """An entry that mostly allows; the frames of tables stand in all, so that a large page may come and go."""
        rng = self._rng
        value = _P | _RW | _US | _A | frame << PAGE_SHIFT
        for bit, chance in ((_RW, 0.06), (_US, 0.02), (_P, 0.02), (_A, 0.1)):
            if rng.random() < (chance if level == 1 else chance / 8):
                value &= ~bit
        if rng.random() < 0.03:
            value |= _XD
        if level > 1:
            return value
        value |= sum(bit for bit in (_D, _D, _G, _SD) if rng.random() < 0.5) & (_D | _G | _SD)
        if rng.random() < 0.1:
            value = value & ~_RW | _ARM
        return value | rng.choice((0, 0, 0, 1, 2)) << 59

    def request(self) -> Request:
        """An access; one in fifty is not canonical."""
        rng = self._rng
        if not self._hot or rng.random() < 0.009:
            self._hot = [rng.choice(self._linears) for _ in range(4)]
        choices = (*(self._hot,) * 13, *(self._changed or self._hot,) * 5, *(self._linears,) * 2)
        linear = self._here(rng.choice(rng.choice(choices)))
        linear |= rng.randrange(0, 1 << PAGE_SHIFT, 8)
        if rng.random() < 0.02:
            linear ^= 1 << rng.choice((48, 57, 62))
        user = rng.random() < 0.6
        return Request(linear, rng.choice(_ACCESSES), user, rng.random() < 0.05, rng.random() < 0.3)

    def context(self) -> tuple[State, int, bool]:
        """(state, PCID, keep) of the next address space: mostly another, with `keep`."""
        rng = self._rng
        stays = rng.random() < 0.3
        if not stays:
            self._space = rng.randint(1, self._spaces)
        if rng.random() < 0.3:
            self._control = self._base if self._control != self._base else self._base ^ 1 << rng.choice(self._controls)
        if self._soft_dirty and rng.random() < 0.1:
            self._track = rng.choice(tuple(Track))
        self._state = State(
            self._top()[1] << PAGE_SHIFT,
            self._control,
            pkru=rng.choice((0, 0, 0, 4, 0x30)),
            pkrs=0,
            track=self._track,
            soft_dirty=self._soft_dirty,
        )
        return self._state, self._space, rng.random() < (0.4 if stays else 0.8)

    def reload(self) -> tuple[State, int, bool]:
        """The last context again, without `keep`: what software does to CR3 to invalidate."""
        return self._state, self._space, False

    def change(self) -> tuple[int, int]:
        """(address, value) of the next write by software."""
        rng = self._rng
        level = rng.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, *((5,) if self._control & _LA57 else ())))
        linear = self._here(rng.choice(self._hot if self._hot and rng.random() < 0.8 else self._linears))
        level, address = self._entry_of(linear, level)
        self._level = level
        self._changed = [linear, linear, self._here(rng.choice(self._linears))]
        old = self.memory.load(address)
        if level == 1:
            value = self._entry(1, _PAGES + rng.randrange(24))
        elif level == LEVELS_5:
            self._tables[address] = _ROOT + rng.randint(1, self._spaces)
            value = self._entry(level, self._tables[address])
        elif old & _PS or not old & _P or rng.random() < 0.6:
            value = self._entry(level, self._tables[address])
        elif rng.random() < 0.2:
            value = old & ~rng.choice((_RW, _US))
        else:
            page = rng.randint(1, 3) << LEVEL_SHIFT[level]
            value = self._entry(1, 0) | page | _PS
        return address, value

    def _entry_of(self, linear: int, level: int) -> tuple[int, int]:
        """(level, address) of the entry of `linear` in this address space, at the lowest the walk's last."""
        levels, root = self._top()
        table = root << PAGE_SHIFT
        for here in range(levels, 0, -1):
            address = table + (linear >> LEVEL_SHIFT[here] & TABLE_ENTRIES - 1) * ENTRY_BYTES
            entry = self.memory.load(address)
            if here == level or entry & _PS:
                break
            table = self._tables[address] << PAGE_SHIFT
        return here, address

    def invalidation(self, flying: Sequence[int], *, changes: bool = False) -> tuple[Invalidation, int, int]:
        """(kind, linear, PCID) of the next invalidation.

        Parameters
        ----------
        flying : sequence of int
            Addresses of requests in flight.
        changes : bool
            It follows a change, and is mostly one that takes what was changed in the address space that runs: where
            that was above the leaf, what was translated by it for other pages too.
        """
        rng = self._rng
        kinds = (*(Invalidation.INVLPG,) * 6, *(Invalidation.ADDRESS,) * 5, *(Invalidation.PCID,) * 3)
        kind = rng.choice((*kinds, Invalidation.ALL, Invalidation.NOT_GLOBAL))
        if changes and rng.random() < 0.93:
            if self._level > 1 and kind in (Invalidation.INVLPG, Invalidation.ADDRESS) and rng.random() < 0.85:
                kind = rng.choice((Invalidation.ALL, Invalidation.NOT_GLOBAL, Invalidation.PCID, Invalidation.ALL))
            return kind, self._changed[0], self._space
        aim = rng.random()
        linear = self._here(rng.choice(self._linears))
        if aim < 0.4 and flying:
            linear = rng.choice(flying)
        elif aim < 0.8 and self._changed:
            linear = self._here(rng.choice(self._changed))
        if rng.random() < 0.15:
            linear ^= 1 << rng.choice((12, 13, 21))
        pcid = self._space if rng.random() < 0.6 else rng.randint(1, self._spaces)
        return kind, linear, pcid
