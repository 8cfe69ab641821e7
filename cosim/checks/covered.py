"""Which bins of the walker's functional coverage a batch met."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.records import Records
from ptewalk.model.linux import SoftBit
from ptewalk.model.x86 import (
    FRAME_HIGH,
    FRAME_LOW,
    LEVELS_4,
    LEVELS_5,
    PKEY_BITS,
    PKEY_LOW,
    Access,
    Control,
    EntryBit,
    ErrorBit,
    Outcome,
)
from ptewalk.rtl.walker_bins import CAUSES, NO_LEVEL, WHO

__all__ = ["BIN", "SWAP", "walk_bins"]

BIN: Final = "/"
"""Between the cross and the values of a bin, in its name."""
SWAP: Final = np.dtype(
    [
        ("address", np.uint64),
        ("old", np.uint64),
        ("new", np.uint64),
        ("instead", np.uint64),  # what was read there afterwards
        ("request", np.uint32),
        ("depth", np.uint8),  # entries read before
        ("done", np.bool_),
        ("refused", np.bool_),
        ("overtaken", np.bool_),  # it failed, and `instead` is known
    ],
    align=True,
)
"""A conditional write of a walk."""

_SETS: Final = (("A", EntryBit.A), ("RW", EntryBit.RW), ("D", EntryBit.D), ("SD", SoftBit.SOFT_DIRTY))
_BITS: Final = {
    **{bit.name: 1 << bit for bit in (EntryBit.P, EntryBit.RW, EntryBit.US, EntryBit.A, EntryBit.D, EntryBit.PS)},
    "XD": 1 << EntryBit.XD,
    "SD": 1 << SoftBit.SOFT_DIRTY,
    **{bit.name: 1 << bit for bit in (SoftBit.ARM, SoftBit.SAVED_DIRTY, SoftBit.SPECIAL)},
    "frame": (1 << FRAME_HIGH + 1) - (1 << FRAME_LOW),
    "key": (1 << PKEY_BITS) - 1 << PKEY_LOW,
}
_LEVEL_NAMES: Final = (NO_LEVEL, *map(str, range(1, LEVELS_5 + 1)))
_SET_NAMES: Final = tuple(
    " ".join(name for place, (name, _) in enumerate(_SETS) if number >> place & 1) for number in range(1 << len(_SETS))
)
_PLACE: Final = {cause: place for place, cause in enumerate(CAUSES)}


def walk_bins(
    requests: Records, responses: Records, depths: NDArray[np.int64], swaps: Records, *, five: bool
) -> Counter[str]:
    """Count the bins of `rtl.walker_bins.WALKER`.

    Parameters
    ----------
    requests, responses : Records (n,)
        As they were accepted and answered.
    depths : int64 array (n,)
        Entries that each walk read; an entry that was read again counts once.
    swaps : Records
        All that were made, `SWAP` records.
    five : bool
        The design knows five levels.

    Returns
    -------
    Counter of str
        Name of the cross and values, joined by `BIN`, to times.
    """
    count = min(len(requests), len(responses), len(depths))
    requests, responses = requests[:count], responses[:count]
    control = requests["control"].astype(np.int64)
    levels = np.where((control >> Control.LA57 & 1) * five > 0, LEVELS_5, LEVELS_4)
    read = depths[:count]
    level = np.where(read > 0, levels - read + 1, 0)
    cause = _causes(responses)
    access = requests["access"].astype(np.int64)
    who = np.select(
        [requests["implicit"] > 0, requests["user"] > 0, requests["ac"] > 0],
        [WHO.index("implicit"), WHO.index("user"), WHO.index("supervisor AC")],
        WHO.index("supervisor"),
    )
    accesses = tuple(one.name for one in Access)
    bins: Counter[str] = Counter()
    _cross(bins, "answer", (cause, CAUSES), (level, _LEVEL_NAMES), (access, accesses))
    _cross(bins, "who", (cause, CAUSES), (access, accesses), (who, WHO))
    for bit in Control:
        if bit != Control.AC:
            _cross(bins, "control", (cause, CAUSES), (control >> bit & 1, (f"{bit.name}=0", f"{bit.name}=1")))
    at = levels[swaps["request"]] - swaps["depth"] + 1
    added = swaps["new"] & ~swaps["old"]
    sets = sum((added >> np.uint64(bit) & np.uint64(1)).astype(np.int64) << k for k, (_, bit) in enumerate(_SETS))
    ends = np.select([swaps["refused"], swaps["done"]], [2, 1], 0)
    _cross(bins, "swap", (at, _LEVEL_NAMES), (sets, _SET_NAMES), (ends, ("failed", "done", "refused")))
    changed = np.where(swaps["overtaken"], swaps["old"] ^ swaps["instead"], np.uint64(0))
    for name, mask in _BITS.items():
        hit = changed & np.uint64(mask) != 0
        _cross(bins, "overtaken", (at[hit], _LEVEL_NAMES), (np.zeros(int(hit.sum()), np.int64), (name,)))
    return bins


def _causes(responses: Records) -> NDArray[np.int64]:
    """For each response the place in `CAUSES`."""
    outcome, code = responses["outcome"], responses["code"].astype(np.int64)
    faulted = outcome == Outcome.PAGE_FAULT
    return np.select(
        [
            outcome == Outcome.OK,
            outcome == Outcome.GENERAL_PROTECTION,
            outcome == Outcome.BUS_ERROR,
            faulted & (code >> ErrorBit.P & 1 == 0),
            faulted & (code >> ErrorBit.RSVD & 1 == 1),
            faulted & (code >> ErrorBit.PK & 1 == 1),
        ],
        [_PLACE[name] for name in ("OK", "NOT_CANONICAL", "BUS_ERROR", "NOT_PRESENT", "RESERVED", "KEY")],
        _PLACE["RIGHTS"],
    )


def _cross(bins: Counter[str], name: str, *axes: tuple[NDArray[Any], tuple[str, ...]]) -> None:
    """Count each combination of values once an element."""
    keys = _keys(name, tuple(names for _, names in axes))
    place = axes[0][0]
    for values, names in axes[1:]:
        place = place * len(names) + values
    counts = np.bincount(place, minlength=len(keys))
    for at in np.flatnonzero(counts).tolist():
        bins[keys[at]] += int(counts[at])


@lru_cache(maxsize=64)
def _keys(name: str, axes: tuple[tuple[str, ...], ...]) -> list[str]:
    """The names of the bins of a cross, the values of the last axis next to each other."""
    return [BIN.join((name, *values)) for values in product(*axes)]
