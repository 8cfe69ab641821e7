"""Translation of many linear addresses at once: the rules of `paging`, on arrays.

`translate` walks for all accesses level by level, each as if it were alone on the memory as it stands. `Walks` is what
it is made of: the walks under way, which whoever has the entries, a memory or a log of one, takes from level to level.
The rules stand in `paging` in the manual's order; that each walk is the same here is held by
tests/model/test_paging_bulk.py.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import (
    ENTRY_BYTES,
    FRAME_HIGH,
    FRAME_LOW,
    INDEX_BITS,
    LARGE_RESERVED,
    LEVEL_SHIFT,
    LEVELS_4,
    LEVELS_5,
    LINEAR_BITS,
    PAT_4K,
    PKEY_BITS,
    PKEY_LOW,
    Access,
    Control,
    EntryBit,
    ErrorBit,
    Outcome,
)

__all__ = ["Accesses", "Answers", "Looked", "Walked", "Walks", "translate"]

Words = NDArray[np.uint64]
Places = NDArray[np.intp]
Truths = NDArray[np.bool_]
_FINE, _NOT_PRESENT, _RESERVED, _RIGHTS, _KEY = map(np.uint64, range(5))
"""What `Looked.cause` holds."""


def _word(*bits: int) -> np.uint64:
    return np.uint64(sum(1 << bit for bit in bits))


def _field(low: int, high: int) -> np.uint64:
    """Mask of the bits `low` to `high`, both included; 0 when `high` is below `low`."""
    return np.uint64((1 << high + 1) - (1 << low) if high >= low else 0)


_ZERO, _ONE, _TWO, _HIGHEST = map(np.uint64, (0, 1, 2, 63))
_RW_LOW, _US_LOW, _PS_LOW, _XD_LOW = map(np.uint64, (EntryBit.RW, EntryBit.US, EntryBit.PS, EntryBit.XD))
_ARM_LOW, _KEY_LOW, _KEYS = map(np.uint64, (SoftBit.ARM, PKEY_LOW, (1 << PKEY_BITS) - 1))
_P, _RW, _US, _A, _D, _PS, _XD = (
    _word(bit) for bit in (EntryBit.P, EntryBit.RW, EntryBit.US, EntryBit.A, EntryBit.D, EntryBit.PS, EntryBit.XD)
)
_SOFT_DIRTY, _ARM, _SAVED_DIRTY = map(_word, (SoftBit.SOFT_DIRTY, SoftBit.ARM, SoftBit.SAVED_DIRTY))
_FRAME: Final = _field(FRAME_LOW, FRAME_HIGH)
_INDEX: Final = _field(0, INDEX_BITS - 1)
_SHIFT: Final = np.array([0, *(LEVEL_SHIFT[level] for level in range(1, LEVELS_5 + 1))], np.uint64)
_OFFSET: Final = np.array([0, *((1 << LEVEL_SHIFT[level]) - 1 for level in range(1, LEVELS_5 + 1))], np.uint64)
"""By level: lowest bit of the index; what of an address lies within a leaf."""


class Accesses(NamedTuple):
    """Accesses to translate, each with its control state: arrays (n,), by the names of `paging.Request` and `State`."""

    linear: Words
    access: NDArray[np.uint8]
    user: Truths
    implicit: Truths
    ac: Truths
    root: Words
    """Physical byte addresses."""
    control: NDArray[np.uint32]
    pkru: NDArray[np.uint32]
    pkrs: NDArray[np.uint32]
    track: NDArray[np.uint8]
    saved_dirty: Truths


class Looked(NamedTuple):
    """What entries say to the walks that read them: arrays (m,)."""

    cause: NDArray[np.uint8]
    """Why a walk ends in a page fault; 0: it does not."""
    leaf: Truths
    """The entry maps a page."""
    new: Words
    """What the entry becomes by a conditional write; itself where nothing is to be set, or the walk faults."""


class Answers(NamedTuple):
    """How walks ended: arrays (n,). All but `outcome` and `code` are 0 unless OK."""

    outcome: NDArray[np.uint8]
    """`x86.Outcome`"""
    physical: Words
    level: NDArray[np.uint8]
    pwt: NDArray[np.uint8]
    pcd: NDArray[np.uint8]
    pat: NDArray[np.uint8]
    code: NDArray[np.uint16]
    """Of a page fault, else 0."""


class Facts(NamedTuple):
    """What of an access decides at each entry that it meets: of one, or uint64 arrays (n,). Flags are 0 or 1."""

    fetch: Any
    writes: Any
    """It needs write rights."""
    changes: Any
    """It may set bits."""
    user: Any
    """It is a user-mode access."""
    protect: Any
    """CR0.WP"""
    smep: Any
    smap: Any
    """SMAP keeps it from user-mode addresses, if it is made in supervisor mode."""
    mends: Any
    """It may make an armed leaf writable."""
    user_key: Any
    supervisor_key: Any
    """The key register for user-mode addresses, and for others; 0: none is in force."""
    marks: Any
    """Bits that it sets in a leaf."""
    unmarks: Any
    """Bits that a mend clears."""
    reserved: Any
    """Bits that are reserved in all entries."""


# The rules in plain arithmetic, for one entry or for arrays; model/paging_compiled.py compiles them.


def judged(facts: Any, entry: Any, lowest: Any, page_reserved: Any, denial: Any, still: Any) -> tuple[Any, Any, Any]:
    """What entries say to the walks that read them: cause, leaf (0 or 1) and new value, as in `Looked`.

    `lowest`: the entry is of level 1. `page_reserved`: bits that are reserved in a page of its level. `denial` is what
    `denials` says of the entry as a leaf, `still` what it says of the entry with RW.
    """
    leaf = lowest | entry >> _PS_LOW & _ONE
    bad = entry & (facts.reserved | page_reserved & _ZERO - leaf)
    wrong = (bad | _ZERO - bad) >> _HIGHEST
    armed = entry >> _ARM_LOW & (entry >> _RW_LOW ^ _ONE) & _ONE
    mended = leaf & facts.mends & armed & denial[0] & (still[0] ^ _ONE)
    denied = leaf & denial[0] & (mended ^ _ONE)
    present, lawful = entry & _ONE, wrong ^ _ONE
    cause = (present ^ _ONE) * _NOT_PRESENT + (present & wrong) * _RESERVED
    cause = cause + (present & lawful & denied) * (_RIGHTS + denial[1] * (_KEY - _RIGHTS))
    marked = entry | _A ^ (_A ^ facts.marks) & _ZERO - leaf
    marked = (marked | _RW & _ZERO - mended) & ~(facts.unmarks & _ZERO - mended)
    changed = _ZERO - (present & lawful & (denied ^ _ONE) & facts.changes)
    return cause, leaf, entry ^ (entry ^ marked) & changed


def denials(facts: Any, rights: Any, no_execute: Any, leaf: Any) -> tuple[Any, Any]:
    """Is the access denied [SDM 3A 4.6.1], and does the protection key deny it [SDM 3A 4.6.2]? 0 or 1."""
    for_user, read_only = rights >> _US_LOW & _ONE, (rights >> _RW_LOW & _ONE) ^ _ONE
    by_supervisor, data = facts.user ^ _ONE, facts.fetch ^ _ONE
    denied = facts.user & (for_user ^ _ONE)
    fetch = denied | by_supervisor & for_user & facts.smep | no_execute >> _XD_LOW
    denied = denied | by_supervisor & for_user & facts.smap
    denied = denied | facts.writes & (facts.user | facts.protect) & read_only
    register = facts.supervisor_key ^ (facts.supervisor_key ^ facts.user_key) & _ZERO - for_user
    disabled = register >> (leaf >> _KEY_LOW & _KEYS) * _TWO
    key = data & (disabled | disabled >> _ONE & facts.writes & (facts.user | facts.protect)) & _ONE
    return key | data & denied | facts.fetch & fetch, key


class Walks:
    """Walks under way, each at a level of its own.

    Parameters
    ----------
    accesses : Accesses (n,)
    physical_bits : int
        MAXPHYADDR.
    soft_dirty, gigabyte_pages : bool
        As in `paging.State`, of all.

    Attributes
    ----------
    level : int64 array (n,)
        Of the entry that is read next; 0: the walk has ended.
    facts : Facts (n,)
    page_reserved : uint64 array (6,)
        By level, what is reserved in an entry with a page, beside `facts.reserved`.
    answers : Answers (n,)
        Of those that have ended. An address that is not canonical ends at once.
    """

    def __init__(
        self, accesses: Accesses, physical_bits: int, *, soft_dirty: bool = True, gigabyte_pages: bool = True
    ) -> None:
        self._accesses = accesses
        access, control = accesses.access, accesses.control
        five = control >> np.uint32(Control.LA57) & 1 != 0
        levels = np.where(five, LEVELS_5, LEVELS_4)
        sign = accesses.linear.view(np.int64) >> np.where(five, LINEAR_BITS[LEVELS_5], LINEAR_BITS[LEVELS_4]) - 1
        canonical = (sign == 0) | (sign == -1)  # [SDM 3A 4.5.2; volume 1, 3.3.7.1]
        self.level = np.where(canonical, levels, 0)
        self._table = accesses.root.copy()
        self._above = np.full(len(levels), _RW | _US)
        self._no_execute = np.zeros(len(levels), np.uint64)

        def on(bit: Control) -> Truths:
            return (control >> np.uint32(bit) & 1) != 0

        fetch = access == Access.FETCH
        writes = (access != Access.READ) & ~fetch
        user = accesses.user & ~accesses.implicit
        tracked = soft_dirty & (accesses.track != Track.OFF)
        self.facts = Facts(
            fetch=fetch.astype(np.uint64),
            writes=writes.astype(np.uint64),
            changes=(access != Access.PROBE).astype(np.uint64),
            user=user.astype(np.uint64),
            protect=on(Control.WP).astype(np.uint64),
            smep=on(Control.SMEP).astype(np.uint64),
            smap=(on(Control.SMAP) & (accesses.implicit | ~accesses.ac)).astype(np.uint64),
            mends=(soft_dirty & (accesses.track == Track.FAULT) & writes).astype(np.uint64),
            user_key=np.where(on(Control.PKE), accesses.pkru, 0).astype(np.uint64),
            supervisor_key=np.where(on(Control.PKS) & ~user, accesses.pkrs, 0).astype(np.uint64),
            marks=np.where(writes, _D, _ZERO) | np.where(writes & tracked, _SOFT_DIRTY, _ZERO) | _A,
            unmarks=np.where(accesses.saved_dirty, _ARM | _SAVED_DIRTY, _ARM),
            reserved=_field(physical_bits, FRAME_HIGH) | np.where(on(Control.NXE), _ZERO, _XD),
        )
        # Reserved in an entry with a page, by level [SDM 3A 4.5, tables 4-14 to 4-20].
        self.page_reserved = np.full(LEVELS_5 + 1, _PS)
        self.page_reserved[1] = 0
        for level, bits in LARGE_RESERVED.items():
            if level == 2 or gigabyte_pages:
                self.page_reserved[level] = _field(*bits)
        self._code = (
            np.where(writes, 1 << ErrorBit.WR, 0)
            | np.where(user, 1 << ErrorBit.US, 0)
            | np.where(fetch & (on(Control.NXE) | on(Control.SMEP)), 1 << ErrorBit.ID, 0)
        )
        leaf_level, pwt, pcd, pat = np.zeros((4, len(levels)), np.uint8)
        self.answers = Answers(
            outcome=np.where(canonical, Outcome.OK, Outcome.GENERAL_PROTECTION).astype(np.uint8),
            physical=np.zeros(len(levels), np.uint64),
            level=leaf_level,
            pwt=pwt,
            pcd=pcd,
            pat=pat,
            code=np.zeros(len(levels), np.uint16),
        )

    def addresses(self, which: Places) -> Words:
        """Physical byte addresses (m,) of the entries that these walks read next."""
        shift = _SHIFT[self.level[which]]
        index = self._accesses.linear[which] >> shift & _INDEX
        return self._table[which] + index * np.uint64(ENTRY_BYTES)

    def look(self, which: Places, entries: Words) -> Looked:
        """What these walks make of the entries (m,) that they read; steps 2 to 6 of `paging.translate`."""
        level = self.level[which]
        facts = Facts(*(column[which] for column in self.facts))
        above, no_execute = self._above[which], self._no_execute[which] | entries
        denial, still = (denials(facts, above & rights, no_execute, entries) for rights in (entries, entries | _RW))
        lowest = (level == 1).astype(np.uint64)
        cause, leaf, new = judged(facts, entries, lowest, self.page_reserved[level], denial, still)
        return Looked(cause.astype(np.uint8), leaf != 0, new)

    def fault(self, which: Places, causes: NDArray[np.uint8]) -> None:
        """These walks end in page faults of these causes (m,) [SDM 3A 4.7]."""
        self.level[which] = 0
        self.answers.outcome[which] = Outcome.PAGE_FAULT
        code = self._code[which] | np.where(causes == _NOT_PRESENT, 0, 1 << ErrorBit.P)
        code |= np.where(causes == _RESERVED, 1 << ErrorBit.RSVD, 0) | np.where(causes == _KEY, 1 << ErrorBit.PK, 0)
        self.answers.code[which] = code

    def refuse(self, which: Places) -> None:
        """Memory answered these walks with an error."""
        self.level[which] = 0
        self.answers.outcome[which] = Outcome.BUS_ERROR

    def arrive(self, which: Places, leaves: Words) -> None:
        """These walks end at these leaves (m,), as they read them [SDM 3A 4.5.4]."""
        answers, level = self.answers, self.level[which]
        offset = _OFFSET[level]
        answers.physical[which] = leaves & _FRAME & ~offset | self._accesses.linear[which] & offset
        answers.level[which] = level
        answers.pwt[which] = leaves >> np.uint64(EntryBit.PWT) & np.uint64(1)
        answers.pcd[which] = leaves >> np.uint64(EntryBit.PCD) & np.uint64(1)
        pat = np.where(level == 1, np.uint64(PAT_4K), np.uint64(EntryBit.PAT_LARGE))
        answers.pat[which] = leaves >> pat & np.uint64(1)
        self.level[which] = 0

    def descend(self, which: Places, entries: Words) -> None:
        """These walks go on below these entries (m,)."""
        self._table[which] = entries & _FRAME
        self._above[which] &= entries
        self._no_execute[which] |= entries & _XD
        self.level[which] -= 1


class Walked(NamedTuple):
    """What walks did.

    Attributes
    ----------
    answers : Answers (n,)
    depth : int64 array (n,)
        Entries that each read.
    address, read, left : uint64 arrays (n, 5)
        Those entries, root first: physical byte address, value, and what the walk left there.
    """

    answers: Answers
    depth: NDArray[np.int64]
    address: Words
    read: Words
    left: Words


def translate(
    memory: SparseMemory,
    accesses: Accesses,
    *,
    soft_dirty: bool = True,
    gigabyte_pages: bool = True,
    compiled: bool = False,
) -> Walked:
    """What `paging.translate` says of each access, and what it would write; nothing is written.

    Each walk is alone on `memory`, whose `physical_bits` is MAXPHYADDR. What it sets in an entry it finds set where it
    reads the same entry again. `compiled`: one compiled loop; ImportError without numba.

    Raises
    ------
    ValueError
        A root lies beyond the memory's physical addresses.
    """
    beyond = accesses.root >> np.uint64(memory.physical_bits) != 0
    if beyond.any():
        root = int(accesses.root[beyond][0])
        raise ValueError(f"root must be below 2**{memory.physical_bits} (the memory's width), not {root:#x}")
    walks = Walks(accesses, memory.physical_bits, soft_dirty=soft_dirty, gigabyte_pages=gigabyte_pages)
    if compiled:
        from ptewalk.model import paging_compiled

        return paging_compiled.translate(memory, accesses, walks)
    count = len(accesses.linear)
    depth = np.zeros(count, np.int64)
    address, read, left = np.zeros((3, count, LEVELS_5), np.uint64)
    for turn in range(LEVELS_5):
        under_way = np.flatnonzero(walks.level)
        at = walks.addresses(under_way)
        entries, there = memory.load_many(at)
        for earlier in range(turn):
            again = at == address[under_way, earlier]
            entries = np.where(again, left[under_way, earlier], entries)
        address[under_way, turn], depth[under_way] = at, turn + 1
        walks.refuse(under_way[~there])
        under_way, entries = under_way[there], entries[there]
        looked = walks.look(under_way, entries)
        read[under_way, turn], left[under_way, turn] = entries, looked.new
        faults = looked.cause != _FINE
        walks.fault(under_way[faults], looked.cause[faults])
        walks.arrive(under_way[looked.leaf & ~faults], entries[looked.leaf & ~faults])
        walks.descend(under_way[~looked.leaf & ~faults], entries[~looked.leaf & ~faults])
    return Walked(walks.answers, depth, address, read, left)
