"""A table engine of gateware beside an MMU: clear_refs, pagemap and write-protection go through it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.bench.engine_lane import (
    REPORT_BASE,
    EngineConditions,
    EngineLane,
    EngineRun,
    RuleOfEngineBroken,
)
from ptewalk.cosim.driver.engine_masks import ageing, clearing, protecting
from ptewalk.cosim.driver.table_engine import changing, moving_to, taking_words, telling_words
from ptewalk.model.engine import Pages
from ptewalk.model.memory import SparseMemory
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import ENTRY_BYTES
from ptewalk.rtl.engine.fetcher import Stop

__all__ = ["ENGINE_COUNTS", "GatewareEngine"]

ENGINE_COUNTS: Final = (
    *("clears", "agings", "pagemaps", "protections", "scans", "moves", "relinks"),
    *("changed", "moved", "words", "cycles"),
)
"""Commands by what they do; entries that the gateware says it changed, or moved; words of pagemap; cycles."""

_CALM: Final = EngineConditions()
_FAILED: Final = ("failed", "given_up", "lost", "homeless")


class GatewareEngine:
    """An `Engine` that gives each operation to the gateware as a command.

    Parameters
    ----------
    lane : EngineLane
    memory : SparseMemory
        The tables, which software, MMU and engine share.
    counts : Counter of str
        What was done is added: see `ENGINE_COUNTS`.
    problems : list of str
        To it is added what did not end as it should, entries that were changed and not counted, and broken rules.
    seed : int, optional
        Latencies and stalls are drawn anew for each command, and answers come in any order; without it memory answers
        at once.
    """

    def __init__(
        self,
        lane: EngineLane,
        memory: SparseMemory,
        counts: Counter[str],
        problems: list[str],
        *,
        seed: int | None = None,
    ) -> None:
        self._lane, self._memory, self._counts, self._problems = lane, memory, counts, problems
        self._rng = None if seed is None else random.Random(f"engine {seed}")

    def clear(self, pages: Pages, rules: Entries, *, permit: bool, splits: bool) -> int:
        """As `Engine.clear`."""
        return self._change("clears", pages, clearing(rules, permit=permit), rules, splits=splits)

    def make_old(self, pages: Pages, rules: Entries, *, splits: bool) -> int:
        """As `Engine.make_old`."""
        return self._change("agings", pages, ageing(), rules, splits=splits)

    def protect(self, pages: Pages, rules: Entries) -> None:
        """As `Engine.protect`."""
        self._change("protections", pages, protecting(rules), rules, splits=False)

    def words(self, pages: Pages, rules: Entries, *, marks: bool) -> NDArray[np.uint64]:
        """As `Engine.words`."""
        count, skipped = pages.last - pages.first, pages.first % (self._lane.line_bytes // ENTRY_BYTES)
        command = telling_words(pages, rules, REPORT_BASE + ENTRY_BYTES * skipped, marks=marks)
        run = self._run("pagemaps", command, skipped + count)
        self._counts["words"] += count
        self._ended("pagemaps", pages, run.completions[0])
        return run.report[skipped:]

    def take_written(self, pages: Pages, rules: Entries) -> NDArray[np.uint64]:
        """As `Engine.take_written`."""
        count, skipped = pages.last - pages.first, pages.first % (self._lane.line_bytes // ENTRY_BYTES)
        command = taking_words(pages, rules, REPORT_BASE + ENTRY_BYTES * skipped)
        run = self._run("scans", command, skipped + count)
        told = run.completions[0]
        self._counts["words"] += count
        self._compare("scans", pages, run)
        self._ended("scans", pages, told)
        return run.report[skipped:]

    def move(self, pages: Pages, target: int, level: int, rules: Entries, *, marks: bool, unprotects: bool) -> None:
        """As `Engine.move`."""
        name = "moves" if marks else "relinks"
        command = moving_to(pages, target, level, rules, marks=marks, unprotects=unprotects)
        told = self._run(name, command, 0).completions[0]
        self._counts["moved"] += told["changed"]
        self._ended(name, pages, told)

    def _found(self, problem: str) -> None:
        """What did not end as it should."""
        self._problems.append(problem)

    def _change(self, name: str, pages: Pages, change: Mapping[str, Any], rules: Entries, *, splits: bool) -> int:
        run = self._run(name, changing(pages, change, rules, splits=splits), 0)
        told = run.completions[0]
        self._compare(name, pages, run)
        if told["stopped"] == Stop.NEED_SPLIT and splits and pages.first <= told["page"] < pages.last:
            return told["page"]
        self._ended(name, pages, told)
        return pages.last

    def _compare(self, name: str, pages: Pages, run: EngineRun) -> None:
        """How many entries it says that it changed, with what memory saw."""
        changed, seen = run.completions[0]["changed"], run.counts["changed_words"]
        self._counts["changed"] += changed
        if changed != seen:
            self._found(f"{name}, {pages}: {changed} entries changed, of {seen} seen in memory")

    def _run(self, name: str, command: Mapping[str, Any], report_words: int) -> EngineRun:
        conditions, seed = _CALM, 0
        if self._rng is not None:
            rng = self._rng
            latency, spread, stalls = rng.choice((1, 2, 4, 16)), rng.choice((0, 2, 12)), rng.choice((0.0, 0.1, 0.4))
            conditions, seed = EngineConditions(latency, spread, stalls), rng.getrandbits(64)
        self._counts[name] += 1
        given: dict[str, Any] = {"report_words": report_words, "conditions": conditions, "seed": seed}
        try:
            run = self._lane.run([command], self._memory, **given)
        except RuleOfEngineBroken as error:
            self._found(f"{name}: {error}")
            where = command["range"]
            told = dict.fromkeys(("changed", *_FAILED), 0) | {"stopped": 0, "page": where["page"] + where["pages"]}
            return EngineRun([told], [], np.zeros(report_words, np.uint64), {"changed_words": 0})
        self._counts["cycles"] += run.counts["cycles"]
        return run

    def _ended(self, name: str, pages: Pages, told: Mapping[str, int]) -> None:
        """A command must have dealt with all pages."""
        failed = [field for field in _FAILED if told[field]]
        if told["stopped"] != Stop.DONE or told["page"] != pages.last or failed:
            stopped = Stop(told["stopped"]).name
            self._found(f"{name}, {pages}: ended as {stopped} at page {told['page']:#x} {' '.join(failed)}")
