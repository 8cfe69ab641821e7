"""Which bins of the walker's functional coverage a batch met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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

__all__ = ["BIN", "Swap", "walk_bins"]

BIN: Final = "/"
"""Between the cross and the values of a bin, in its name."""
Swap = tuple[int, int, int, int, bool, bool, int | None]
"""Request, number of entries read before, old and new value, done, refused; and the value that stood there instead."""

_SETS: Final = (("A", EntryBit.A), ("RW", EntryBit.RW), ("D", EntryBit.D), ("SD", SoftBit.SOFT_DIRTY))
_BITS: Final = {
    **{bit.name: 1 << bit for bit in (EntryBit.P, EntryBit.RW, EntryBit.US, EntryBit.A, EntryBit.D, EntryBit.PS)},
    "XD": 1 << EntryBit.XD,
    "SD": 1 << SoftBit.SOFT_DIRTY,
    **{bit.name: 1 << bit for bit in (SoftBit.ARM, SoftBit.SAVED_DIRTY, SoftBit.SPECIAL)},
    "frame": (1 << FRAME_HIGH + 1) - (1 << FRAME_LOW),
    "key": (1 << PKEY_BITS) - 1 << PKEY_LOW,
}
_PLACE: Final = {cause: place for place, cause in enumerate(CAUSES)}


def walk_bins(
    requests: Records, responses: Records, depths: Sequence[int], swaps: Sequence[Swap], *, five: bool
) -> Counter[str]:
    """Count the bins of `rtl.walker_bins.WALKER`.

    Parameters
    ----------
    requests, responses : Records (n,)
        As they were accepted and answered.
    depths : sequence of int (n,)
        Entries that each walk read; an entry that was read again counts once.
    swaps : sequence of Swap
        All that were made.
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
    read = np.array(depths[:count], np.int64)
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
    _cross(bins, "answer", (cause, CAUSES), (level, (NO_LEVEL, "1", "2", "3", "4", "5")), (access, accesses))
    _cross(bins, "who", (cause, CAUSES), (access, accesses), (who, WHO))
    for bit in Control:
        if bit != Control.AC:
            _cross(bins, "control", (cause, CAUSES), (control >> bit & 1, (f"{bit.name}=0", f"{bit.name}=1")))
    for request, depth, old, new, done, refused, instead in swaps:
        at = str(int(levels[request]) - depth + 1)
        sets = " ".join(name for name, bit in _SETS if new & ~old & 1 << bit)
        ends = "refused" if refused else "done" if done else "failed"
        bins[BIN.join(("swap", at, sets, ends))] += 1
        if instead is not None:
            for name, mask in _BITS.items():
                if (old ^ instead) & mask:
                    bins[BIN.join(("overtaken", at, name))] += 1
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
    shape = tuple(len(names) for _, names in axes)
    counts = np.bincount(np.ravel_multi_index([values for values, _ in axes], shape), minlength=int(np.prod(shape)))
    for place in np.flatnonzero(counts).tolist():
        values = np.unravel_index(place, shape)
        key = BIN.join((name, *(names[int(at)] for at, (_, names) in zip(values, axes, strict=True))))
        bins[key] += int(counts[place])
