"""The walks of model/paging_bulk.py as one compiled loop; needs numba, which is optional (extra `fast`).

The rules are `paging_bulk.denials` and `judged`, compiled for one entry.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from ptewalk.model import paging_bulk
from ptewalk.model.memory import SCATTER, SparseMemory
from ptewalk.model.x86 import (
    ENTRY_BYTES,
    FRAME_HIGH,
    FRAME_LOW,
    INDEX_BITS,
    LEVELS_5,
    PAGE_SHIFT,
    TABLE_ENTRIES,
    EntryBit,
)

Words = NDArray[np.uint64]

_ZERO, _ONE, _LOW, _RW = map(np.uint64, (0, 1, PAGE_SHIFT, 1 << EntryBit.RW))
_FRAME: Final = np.uint64((1 << FRAME_HIGH + 1) - (1 << FRAME_LOW))
_SCATTER: Final = np.uint64(SCATTER)
_ARRIVED, _FAULTED, _REFUSED = range(3)
"""How a walk ends."""

_rule = numba.njit(cache=True, inline="always")
_denials: Any = _rule(paging_bulk.denials)
_judged: Any = _rule(paging_bulk.judged)


@numba.njit(cache=True)
def _row(keys: Any, rows: Any, frame: Any) -> Any:
    """The row of a frame; -1: there is none (`SparseMemory.export`)."""
    mask = np.uint64(len(keys) - 1)
    slot = frame * _SCATTER >> np.uint64(64 - int(np.log2(len(keys))))
    while keys[slot] != _ZERO:
        if keys[slot] == frame + _ONE:
            return np.int64(rows[slot])
        slot = slot + _ONE & mask
    return np.int64(-1)


@numba.njit(cache=True)
def _walk(
    keys: Any,
    rows: Any,
    words: Any,
    limit: Any,
    linear: Any,
    root: Any,
    levels: Any,
    facts: Any,
    page_reserved: Any,
    found: Any,
) -> None:
    """Every walk to its end, which `found` tells. `limit`: an absent frame is 0 below this frame number."""
    depth, address, read, left, ends, causes = found
    for i in range(len(linear)):
        one = paging_bulk.Facts(
            facts.fetch[i],
            facts.writes[i],
            facts.changes[i],
            facts.user[i],
            facts.protect[i],
            facts.smep[i],
            facts.smap[i],
            facts.mends[i],
            facts.user_key[i],
            facts.supervisor_key[i],
            facts.marks[i],
            facts.unmarks[i],
            facts.reserved[i],
        )
        table, above, no_execute = root[i], ~_ZERO, _ZERO
        for level in range(levels[i], 0, -1):
            index = linear[i] >> np.uint64(PAGE_SHIFT + INDEX_BITS * (level - 1)) & np.uint64(TABLE_ENTRIES - 1)
            at, turn = table + index * np.uint64(ENTRY_BYTES), depth[i]
            address[i, turn] = at
            depth[i] += 1
            row = _row(keys, rows, at >> _LOW)
            if row < 0 and at >> _LOW >= limit:
                ends[i] = _REFUSED
                break
            entry = words[row, index] if row >= 0 else _ZERO
            for earlier in range(turn):
                if address[i, earlier] == at:
                    entry = left[i, earlier]
            denial = _denials(one, above & entry, no_execute | entry, entry)
            still = _denials(one, above & (entry | _RW), no_execute | entry, entry)
            cause, leaf, new = _judged(one, entry, np.uint64(level == 1), page_reserved[level], denial, still)
            read[i, turn], left[i, turn] = entry, new
            if cause:
                ends[i], causes[i] = _FAULTED, cause
                break
            if leaf:
                break
            table, above, no_execute = entry & _FRAME, above & entry, no_execute | entry


def translate(memory: SparseMemory, accesses: paging_bulk.Accesses, walks: paging_bulk.Walks) -> paging_bulk.Walked:
    """See `paging_bulk.translate`; `walks` are those of the accesses, none begun."""
    count = len(accesses.linear)
    depth, (ends, causes) = np.zeros(count, np.int64), np.zeros((2, count), np.uint8)
    address, read, left = np.zeros((3, count, LEVELS_5), np.uint64)
    limit = np.uint64(0 if memory.strict else 1 << memory.physical_bits - PAGE_SHIFT)
    levels = walks.level.copy()
    found = depth, address, read, left, ends, causes
    _walk(*memory.export(), limit, accesses.linear, accesses.root, levels, walks.facts, walks.page_reserved, found)
    begun = np.flatnonzero(levels)
    walks.level[begun] -= depth[begun] - 1
    last = depth[begun] - 1
    walks.refuse(begun[ends[begun] == _REFUSED])
    faulted = begun[ends[begun] == _FAULTED]
    walks.fault(faulted, causes[faulted])
    arrived = ends[begun] == _ARRIVED
    walks.arrive(begun[arrived], read[begun[arrived], last[arrived]])
    return paging_bulk.Walked(walks.answers, depth, address, read, left)
