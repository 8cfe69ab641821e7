"""Random walks with a second writer, in batches, each against the golden model.

A batch has chance of its own, of the run's seed and its number, so that it can be repeated alone.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ptewalk.cosim.bench.conditions import BatchResult, Conditions, random_conditions
from ptewalk.cosim.bench.records import INTERFERENCE, REQUEST, Records, relevant
from ptewalk.cosim.bench.scoreboard import Scoreboard
from ptewalk.cosim.checks.covered import walk_bins
from ptewalk.cosim.checks.golden import Golden
from ptewalk.cosim.checks.shadow import Shadow
from ptewalk.cosim.stimulus.walks import Walk, pick, random_walk
from ptewalk.model import linux, x86
from ptewalk.model.memory import SparseMemory
from ptewalk.rtl.description import DesignDescription

__all__ = ["Judge", "RandomBatch", "random_batch"]

_DISTURBED: Final[tuple[int, ...]] = (
    *(x86.EntryBit.P, x86.EntryBit.RW, x86.EntryBit.US, x86.EntryBit.A, x86.EntryBit.A, x86.EntryBit.D),
    *(x86.EntryBit.XD, x86.EntryBit.PS, linux.SoftBit.SOFT_DIRTY, linux.SoftBit.ARM, linux.SoftBit.SAVED_DIRTY),
    *(x86.FRAME_LOW, x86.PKEY_LOW, linux.SoftBit.SPECIAL),
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
    """The batch of this number: `size` walks; some tables are missing, so that their reads end in a bus error."""
    rng = random.Random(f"{seed} {number}")
    physical_bits = design.parameters["physical_bits"]
    tracks = tuple(linux.Track) if design.parameters["soft_dirty"] else (linux.Track.OFF,)
    used: set[int] = set()
    walks = [random_walk(rng, physical_bits=physical_bits, tracks=tracks, used=used) for _ in range(size)]
    words: dict[int, int] = {}
    for walk in walks:
        words.update(walk.entries)
        if walk.entries and rng.random() < 0.03:
            missing = pick(rng, walk.entries)[0] >> x86.PAGE_SHIFT
            for address, _ in walk.entries:
                if address >> x86.PAGE_SHIFT == missing:
                    del words[address]
    before = Shadow(words, [walk.root >> x86.PAGE_SHIFT for walk in walks], physical_bits, strict=True)
    return RandomBatch(
        _asked(walks, design),
        _disturb(rng, walks, before),
        before.memory(),
        before,
        random_conditions(rng),
    )


def _asked(walks: list[Walk], design: DesignDescription) -> Records:
    """The `REQUEST` records of the walks; tags go round."""
    requests = np.zeros(len(walks), REQUEST)
    for name, column in zip(Walk._fields, zip(*walks, strict=True), strict=True):
        if name in (REQUEST.names or ()):
            requests[name] = [root >> x86.PAGE_SHIFT for root in column] if name == "root" else column
    requests["tag"] = np.arange(len(walks)) % min(256, 1 << design.parameters["tag_bits"])
    if not design.parameters["soft_dirty"]:
        requests["saved_dirty"] = 0
    return requests


def _disturb(rng: random.Random, walks: list[Walk], memory: Shadow) -> Records:
    """Writes by a second writer: to an entry right after the walk has read it, or to any of the walk's at any time."""
    rows = []
    for number, walk in enumerate(walks):
        if rng.random() > 0.4 or not walk.entries:
            continue
        for _ in range(pick(rng, (1, 1, 2, 3))):
            after = pick(rng, range(1, 7))
            address, value = walk.entries[min(after, len(walk.entries)) - 1]
            if rng.random() < 0.3:
                address, value = pick(rng, walk.entries)
            for _ in range(pick(rng, (1, 1, 1, 2))):
                value ^= 1 << pick(rng, _DISTURBED)
            if address >> x86.PAGE_SHIFT in memory.frames:
                rows.append((address, value, number, after))
    return np.array(rows, INTERFERENCE)


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
