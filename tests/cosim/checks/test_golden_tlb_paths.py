"""The golden TLB's fast path against the plain one, on random work and on answers that were falsified."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.bench.events import Answer, LogEvent
from ptewalk.cosim.checks.caching import random_work
from ptewalk.cosim.checks.golden_tlb import GoldenTlb
from ptewalk.cosim.checks.logged_walks import CachedEntries, CachedTranslation, NotSo
from ptewalk.cosim.checks.minima import DISCRIMINATING
from ptewalk.cosim.checks.staleness import KINDS, Cover, Staleness
from ptewalk.cosim.runs.caching_library import CachingLibrary
from ptewalk.cosim.stimulus.caches import CacheStory
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import PageFault, Result, Translated, translate
from ptewalk.model.x86 import LEVEL_SHIFT, Control
from ptewalk.rtl.presets import CACHING

pytestmark = pytest.mark.slow

ACCESSES = 25_000


class PlainStaleness(Staleness):
    """What covers a page is looked up each time."""

    def cover(self, linear: int, pcid: int, is_global: bool, level: int) -> Cover:
        self._known.clear()
        return super().cover(linear, pcid, is_global, level)


class PlainTlb(GoldenTlb):
    """Nothing is remembered of one judgement for the next, and no translation is let go of."""

    def _forget(self) -> None:
        super()._forget()
        self._stale = PlainStaleness()

    @staticmethod
    def _replace(known: list[CachedTranslation], made: CachedTranslation) -> None:
        return None

    def _thin(self, known: list[CachedTranslation]) -> None:
        pass

    def _serve(self, made, flight):  # type: ignore[no-untyped-def]
        now = flight.context.state
        state = replace(now, root=made.root, control=now.control & ~(1 << Control.LA57) | made.la57)
        try:
            found = translate(CachedEntries(made.chain, self._bits), state, flight.request)
        except NotSo:
            return None
        if not isinstance(found, Translated):
            return None
        offset = (1 << LEVEL_SHIFT[made.level]) - 1
        return replace(found, physical=found.physical & ~offset | flight.request.linear & offset)


def recorded(design: str) -> tuple[list[LogEvent], SparseMemory]:
    library = CachingLibrary.make(CACHING[design])
    work = random_work(CacheStory("paths"), ACCESSES, "paths")
    before = work.memory.copy()
    run = library.lane.run(work, 1, CachingConditions(idle=0.1, latency=2, latency_spread=4))
    return list(run.read()), before


def falsified(log: list[LogEvent]) -> list[LogEvent]:
    """One answer in twenty is another's, or allows another frame."""
    rng = random.Random(0)

    def other(result: Result) -> Result:
        return replace(result, physical=result.physical ^ 0x1000) if isinstance(result, Translated) else PageFault(0)

    return [
        replace(event, result=other(event.result)) if isinstance(event, Answer) and rng.random() < 0.05 else event
        for event in log
    ]


@pytest.mark.share(2)
@pytest.mark.parametrize("design", CACHING)
def test_both_paths_say_the_same(design: str) -> None:
    log, memory = recorded(design)
    for events, wrong in ((log, False), (falsified(log), True)):
        judges = [kind(physical_bits=40, shadow=memory.copy()) for kind in (GoldenTlb, PlainTlb)]
        for judge in judges:
            judge.feed(events)
            judge.finish()
        fast, plain = judges
        assert fast.problems == plain.problems and fast.wrong == plain.wrong
        assert (fast.wrong > ACCESSES // 50) == wrong
        for name in fast.counts | plain.counts:
            if name in DISCRIMINATING:  # the plain path remembers what went stale long ago
                assert fast.counts[name] <= plain.counts[name], name
            elif name != "many" or not wrong:  # of what is not permitted it does not count
                assert fast.counts[name] == plain.counts[name], name
        assert plain.counts["hits"] > ACCESSES // 4 and sum(fast.counts[kind] for kind in KINDS) > 100
