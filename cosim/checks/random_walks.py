"""Random walks with a second writer, in batches, each against the golden model.

A batch has chance of its own, of the run's seed and its number, so that it can be repeated alone.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.conditions import BatchResult, Conditions, random_conditions
from ptewalk.cosim.bench.records import INTERFERENCE, REQUEST, Records, relevant
from ptewalk.cosim.bench.scoreboard import Scoreboard
from ptewalk.cosim.checks.covered import walk_bins
from ptewalk.cosim.checks.golden import Golden
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.cosim.stimulus.walks import Walks, random_walks
from ptewalk.model import linux, x86
from ptewalk.model.memory import SparseMemory
from ptewalk.rtl.description import DesignDescription

__all__ = ["Judge", "RandomBatch", "random_batch"]

Truths = NDArray[np.bool_]
_PAGE_SHIFT: Final = np.uint64(x86.PAGE_SHIFT)
_DRAWN: Final = 2000
"""Walks that are drawn for a batch, of whatever size: so that one of a few walks has the first of a large one's."""

_DISTURBED: Final = np.array(
    (
        *(x86.EntryBit.P, x86.EntryBit.RW, x86.EntryBit.US, x86.EntryBit.A, x86.EntryBit.A, x86.EntryBit.D),
        *(x86.EntryBit.XD, x86.EntryBit.PS, linux.SoftBit.SOFT_DIRTY, linux.SoftBit.ARM, linux.SoftBit.SAVED_DIRTY),
        *(x86.FRAME_LOW, x86.PKEY_LOW, linux.SoftBit.SPECIAL),
    ),
    np.uint64,
)
"""Bits that the second writer flips."""
_COUNTED: Final = ("swaps", "failed_swaps", "foreign_writes", "drains", "lost_faults", "marks", "mends")
_COMPARED: Final = ("words", "events", "traced")


@dataclass
class RandomBatch:
    """What is asked, of which memory, under which conditions.

    Attributes
    ----------
    requests, interferences : Records
    memory : SparseMemory
        Changed by the run.
    before : Shadow
        What it was.
    conditions : Conditions
    """

    requests: Records
    interferences: Records
    memory: SparseMemory
    before: Shadow
    conditions: Conditions


def random_batch(seed: int, number: int, size: int, design: DesignDescription) -> RandomBatch:
    """The batch of this number: `size` walks; some tables are missing, so that their reads end in a bus error.

    A smaller batch is the beginning of a larger one, up to `_DRAWN` walks.
    """
    rng = np.random.default_rng([seed, number])
    physical_bits = design.parameters["physical_bits"]
    tracks = tuple(linux.Track) if design.parameters["soft_dirty"] else (linux.Track.OFF,)
    walks = random_walks(rng, max(size, _DRAWN), physical_bits=physical_bits, tracks=tracks)
    there = walks.there & ~_missing(rng, walks)
    roots = walks.accesses.root[:size] >> _PAGE_SHIFT
    writes = _disturb(rng, walks, there)
    walks, there = walks.first(size), there[:size]
    before = Shadow.of_words(walks.address[there], walks.value[there], roots, physical_bits, strict=True)
    return RandomBatch(
        _asked(walks, design),
        writes[writes["request"] < size],
        before.memory(),
        before,
        random_conditions(random.Random(f"{seed} {number}")),
    )


def _missing(rng: np.random.Generator, walks: Walks) -> Truths:
    """Of one walk in thirty the words of a table, whose frame does not exist unless it is the root: which (n, 5)."""
    place = (rng.random(len(walks)) * walks.there.sum(1)).astype(np.int64)
    column = np.argmax(np.cumsum(walks.there, 1) > place[:, None], 1)
    frame, frames = walks.address[np.arange(len(walks)), column] >> _PAGE_SHIFT, walks.address >> _PAGE_SHIFT
    gone = walks.there.any(1) & (rng.random(len(walks)) < 0.03)
    missing: Truths = gone[:, None] & (frames == frame[:, None])
    return missing


def _asked(walks: Walks, design: DesignDescription) -> Records:
    """The `REQUEST` records of the walks; tags go round."""
    requests = np.zeros(len(walks), REQUEST)
    for name, column in walks.accesses._asdict().items():
        requests[name] = column >> _PAGE_SHIFT if name == "root" else column
    requests["tag"] = np.arange(len(walks)) % min(256, 1 << design.parameters["tag_bits"])
    if not design.parameters["soft_dirty"]:
        requests["saved_dirty"] = 0
    return requests


def _disturb(rng: np.random.Generator, walks: Walks, there: Truths) -> Records:
    """Writes by a second writer: to an entry right after the walk has read it, or to any of the walk's at any time.

    `there` are the words that exist; nothing is written to others.
    """
    count, held = len(walks), walks.there.sum(1)
    disturbed = (rng.random(count) < 0.4) & (held > 0)
    times = np.array((1, 1, 2, 3))[rng.integers(4, size=count)]
    each, columns = np.arange(count), np.cumsum(walks.there, 1)
    rows = []
    for turn in range(3):
        after = rng.integers(1, 7, size=count)
        place = np.minimum(after, held) - 1
        place = np.where(rng.random(count) < 0.3, (rng.random(count) * held).astype(np.int64), place)
        column = np.argmax(columns > place[:, None], 1)
        flips = np.uint64(1) << _DISTURBED[rng.integers(len(_DISTURBED), size=(2, count))]
        flips[1, rng.random(count) < 3 / 4] = 0
        made = np.zeros(count, INTERFERENCE)
        made["address"] = walks.address[each, column]
        made["value"] = walks.value[each, column] ^ flips[0] ^ flips[1]
        made["request"], made["after"] = each, after
        rows.append(made[disturbed & (turn < times) & there[each, column]])
    return np.concatenate(rows)


@dataclass
class Judge:
    """Compares batches with the golden model, and adds up what was seen.

    Attributes
    ----------
    scoreboard : Scoreboard
        For the responses.
    design : DesignDescription
    outcomes : Counter of str
        Outcome to responses.
    seen : Counter of str
        What happened: swaps, failed_swaps, foreign_writes, drains, lost_faults, words, events, traced, contexts.
    bins : Counter of str
        Functional coverage, as `covered.walk_bins`.
    differences : list of str
        What differs beside the responses.
    differ : int
    """

    scoreboard: Scoreboard
    design: DesignDescription
    outcomes: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    bins: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    differ: int = 0

    def __post_init__(self) -> None:
        self._golden = Golden(self.design)
        self.outcomes.update(dict.fromkeys((outcome.name for outcome in x86.Outcome), 0))
        self.seen.update(dict.fromkeys((*_COUNTED, *_COMPARED), 0))

    def add(self, batch: RandomBatch, result: BatchResult) -> None:
        """Compare a batch that was run."""
        verdict = self._golden.judge(
            result,
            physical_bits=batch.memory.physical_bits,
            shadow=batch.before,
            memory=batch.memory,
            refusals=batch.conditions.errors > 0,
        )
        self.scoreboard.compare(relevant(result.responses), relevant(verdict.expected), result.requests)
        self.differ += verdict.differ
        self.differences += verdict.differences
        five = self.design.parameters["levels"] == x86.LEVELS_5
        self.bins += walk_bins(result.requests, result.responses, verdict.depths, verdict.swaps, five=five)
        for name in _COUNTED:
            self.seen[name] += getattr(result.counters, name)
        for name in _COMPARED:
            self.seen[name] += getattr(verdict, name)
        for outcome in x86.Outcome:
            self.outcomes[outcome.name] += int((result.responses["outcome"] == outcome).sum())

    @property
    def failed(self) -> bool:
        """Something differs."""
        return bool(self.differ or self.scoreboard.mismatches)

    def as_json(self) -> dict[str, Any]:
        """The counts."""
        return {"outcomes": dict(self.outcomes), "bins": dict(sorted(self.bins.items())), **self.seen}
