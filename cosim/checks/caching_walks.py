"""Recorded walks through an MMU that caches: from empty caches, from warm ones, and under changed control."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Final

from ptewalk.cosim.bench.caching import RuleOfCachingBroken
from ptewalk.cosim.bench.caching_lane import CachingRun
from ptewalk.cosim.bench.caching_session import CALM, CachingSession, quiet_conditions
from ptewalk.cosim.bench.events import Answer, Invalidate, SetContext
from ptewalk.cosim.checks.caching import judge_run
from ptewalk.cosim.checks.walks import WalkTally, check
from ptewalk.cosim.formats.walks import WalkCase, table_words
from ptewalk.model.linux import Track
from ptewalk.model.paging import Request, Result, State, Translated, translate
from ptewalk.model.x86 import PAGE_BYTES, Access, Control, Invalidation
from ptewalk.rtl.description import DesignDescription

__all__ = ["CachedWalks"]

_FREE: Final = (Control.WP, Control.SMAP, Control.PKE, Control.PKS)
"""Control bits whose change flushes nothing: what is cached must be judged by the new ones."""
_FLUSHING: Final = (Control.NXE, Control.SMEP, Control.PGE)
_PCIDS: Final = 6


class CachedWalks:
    """Runs recorded walks one after the other in one session, and counts.

    Each case is three accesses. Under a context of its own PCID and after INVPCID 2 it must be answered, and leave
    memory, as recorded. Asked again it must be answered the same, leave memory untouched, and be a hit if it is OK. The
    third is another access of its page under changed control: it must be what the golden model says. Of all three the
    golden TLB eats the log.

    Parameters
    ----------
    session : CachingSession
    design : DesignDescription
    seed : int, optional
        Latencies, stalls and drains of each case; without it memory answers at once. What the third access is depends
        on the case alone.

    Attributes
    ----------
    tally : WalkTally
    counts : Counter of str
        accesses, hits, changed_hits: those of the third accesses.
    """

    def __init__(self, session: CachingSession, design: DesignDescription, seed: int | None = None) -> None:
        self.tally = WalkTally()
        self.counts: Counter[str] = Counter()
        self._session, self._seed = session, seed
        self._soft_dirty = bool(design.parameters["soft_dirty"])
        self._tags = 1 << int(design.parameters["tag_bits"])

    def add(self, case: WalkCase, index: int) -> None:
        """Run a case, number `index` of its file, and count it."""
        try:
            difference = self._run(case, index)
        except RuleOfCachingBroken as broken:
            difference = str(broken)
        self.tally.add(case, difference)

    def _run(self, case: WalkCase, index: int) -> str | None:
        """What differs first."""
        conditions, chance = CALM, 0
        if self._seed is not None:
            drawn = random.Random(f"{self._seed} walk {index}")
            conditions, chance = quiet_conditions(drawn, self._tags), drawn.getrandbits(64)
        rng = random.Random(f"third access {index}")
        pcid = rng.randint(1, _PCIDS)
        state, request = case.state(soft_dirty=self._soft_dirty), case.request()
        other_state, other_request = _changed(state, rng), _another(request, rng)
        memory, before = case.memory(), case.memory()

        def ask(request: Request, *first: SetContext | Invalidate) -> CachingRun:
            return self._session.ask(memory, first, [request], conditions=conditions, seed=chance)

        cold = ask(request, SetContext(state, pcid, True), Invalidate(Invalidation.ALL))
        answer, after = _answer(cold), table_words(memory, case.table_frames())
        found = [check(case, answer, after)]
        warm = ask(request)
        found.append(_compared("warm", answer, _answer(warm)))
        found.append(_compared("warm: hits", int(isinstance(answer, Translated)), warm.counters["hits"]))
        found.append(None if table_words(memory, case.table_frames()) == after else "warm: memory was written")
        expected = translate(memory.copy(), other_state, other_request)
        third = ask(other_request, SetContext(other_state, pcid, True))
        found.append(_compared(f"changed control, {other_request}", expected, _answer(third)))

        runs = (cold, warm, third)
        log = [event for run in runs for event in run.read()]
        faults = [fault for run in runs for fault in run.faults()]
        verdict = judge_run(log, faults, before, memory, lambda name: sum(run.counters[name] for run in runs))
        self.counts["accesses"] += len(runs)
        self.counts["hits"] += verdict.counts["hits"]
        self.counts["changed_hits"] += third.counters["hits"]
        return next((text for text in (*found, *verdict.problems) if text is not None), None)


def _answer(run: CachingRun) -> Result:
    (result,) = (event.result for event in run.read() if isinstance(event, Answer))
    return result


def _compared(what: str, expected: object, seen: object) -> str | None:
    return None if expected == seen else f"{what}: expected {expected}, seen {seen}"


def _changed(state: State, rng: random.Random) -> State:
    """Other control state over the same tables; mostly such that nothing is flushed."""
    control = state.control
    for bit in rng.sample(_FREE, rng.randint(0, 3)):
        control ^= 1 << bit
    if rng.random() < 0.2:
        control ^= 1 << rng.choice(_FLUSHING)
    track = rng.choice(tuple(Track)) if state.soft_dirty and rng.random() < 0.2 else state.track
    pkru, pkrs = (rng.choice((register, 0, rng.getrandbits(32))) for register in (state.pkru, state.pkrs))
    return replace(state, control=control, track=track, pkru=pkru, pkrs=pkrs)


def _another(request: Request, rng: random.Random) -> Request:
    """Another access of the same page."""
    linear = request.linear & -PAGE_BYTES | rng.randrange(0, PAGE_BYTES, 8)
    user, implicit, ac = rng.random() < 0.5, rng.random() < 0.1, rng.random() < 0.3
    return Request(linear, rng.choice(tuple(Access)), user, implicit, ac)
