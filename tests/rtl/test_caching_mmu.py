"""The MMU that caches in Amaranth's own simulator, judged by the golden TLB: the whole log of random work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.cosim.bench.caching import CachingBench, CachingConditions
from ptewalk.cosim.bench.events import Accept, Answer, Invalidate
from ptewalk.cosim.checks.caching import COUNTERS, CachingVerdict, judge_run
from ptewalk.cosim.stimulus.caches import CacheStory
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State
from ptewalk.model.x86 import Access, Invalidation
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe, flat_top
from ptewalk.rtl.presets import CACHING
from ptewalk.rtl.walker import WalkerConfig

SMALL = CachingMmuConfig(WalkerConfig(tag_bits=4))
FULL = replace(CACHING["mmu"], walker=WalkerConfig(tag_bits=4))
SPLIT = replace(SMALL, split_lookup=True, waiting=5)


def simulate(config: CachingMmuConfig, bench: CachingBench) -> dict[str, int]:
    """Run a bench to its end; the gateware's counters."""
    top = flat_top(config)
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    signals = {name: signal for name, (_, signal) in top.ports.items()}
    counted: dict[str, int] = {}

    async def cycles(ctx: Any) -> None:
        driven: dict[str, int] = {}

        def put(name: str, value: int) -> None:
            if driven.get(name) != int(value):
                ctx.set(signals[name], int(value))
                driven[name] = int(value)

        while not bench.done:
            bench.drive(put)
            await ctx.delay(4e-7)
            bench.sample(lambda name: int(ctx.get(signals[name])))
            await ctx.tick()
        counted.update({name: int(ctx.get(signals[name])) for name in COUNTERS if name in signals})

    simulator.add_testbench(cycles)
    simulator.run()
    return counted


def run(
    count: int, seed: str, conditions: CachingConditions | None = None, config: CachingMmuConfig = SMALL
) -> CachingVerdict:
    story = CacheStory(seed, soft_dirty=config.walker.soft_dirty, levels=config.walker.levels)
    before = story.memory.copy()
    bench = CachingBench(describe(config), story, count, seed=seed, conditions=conditions)
    counted = simulate(config, bench)
    return judge_run(bench.log, bench.faults, before, story.memory, counted.get)


@pytest.mark.thorough
@pytest.mark.parametrize("seed", ["a", "b"])
def test_random_work(seed: str) -> None:
    verdict = run(300, seed)
    assert verdict.problems == []
    assert verdict.counts["hits"] >= 0.2 * verdict.counts["answers"]


@pytest.mark.thorough
@pytest.mark.parametrize("changed", [{}, {"split_lookup": True, "waiting": 5}])
def test_random_work_with_caches_of_upper_entries(changed: dict[str, Any]) -> None:
    verdict = run(300, "b", config=replace(FULL, upper_entries=2, **changed))
    assert verdict.problems == []
    assert verdict.counts["partial"] >= 20 and verdict.counts["restarts"] >= 2


# Cycles ---------------------------------------------------------------------------------------------------------------

P, RW, US, A, D, PS = 1, 2, 4, 0x20, 0x40, 0x80
UPPER = P | RW | US | A
LINEAR = 0x0000_1234_5678_9000
OTHER = LINEAR + 0x1000


class Script:
    """Asks for what is listed, under one context; every page is mapped, with these flags."""

    def __init__(self, requests: list[Request], *, leaf: int = UPPER | D, levels: int = 4) -> None:
        self.memory = SparseMemory()
        self._requests = iter(requests)
        self._control = 1 << 7 if levels == 5 else 0
        table = 0x1000
        for level in range(levels, 1, -1):
            self.memory.store(table + (LINEAR >> 12 + 9 * (level - 1) & 511) * 8, table + 0x1000 | UPPER)
            table += 0x1000
        for index in range(512):
            self.memory.store(table + index * 8, 0x100_0000 + (index << 12) | leaf)

    def request(self) -> Request:
        return next(self._requests)

    def context(self) -> tuple[State, int, bool]:
        return State(0x1000, self._control), 1, False

    def change(self) -> tuple[int, int]:
        raise AssertionError("no change was asked for")

    def invalidation(self, flying: Sequence[int], *, changes: bool = False) -> tuple[Invalidation, int, int]:
        return Invalidation.ADDRESS, LINEAR, 0  # a live slot's, and no walk is overtaken


def timed(
    script: Script, count: int, *, latency: int = 1, invalidations: float = 0.0, config: CachingMmuConfig = SMALL
) -> CachingBench:
    """Run `count` requests of a script, one a cycle where the MMU takes them."""
    conditions = CachingConditions(
        idle=0,
        contexts=0,
        changes=0,
        drains=0,
        stalls=0,
        invalidations=invalidations,
        latency=latency,
        latency_spread=0,
    )
    before = script.memory.copy()
    bench = CachingBench(describe(config), script, count, seed="cycles", conditions=conditions)
    simulate(config, bench)
    assert judge_run(bench.log, bench.faults, before, script.memory, lambda name: None).problems == []
    return bench


def cycles_of(bench: CachingBench) -> list[int]:
    """Cycles from acceptance to answer of each request, in the order of acceptance."""
    pairs = list(zip(bench.log, bench.when, strict=True))
    waiting = [(event.tag, place) for place, event in enumerate(bench.log) if isinstance(event, Accept)]
    answers = [
        next(when for event, when in pairs[place:] if isinstance(event, Answer) and event.tag == tag)
        for tag, place in waiting
    ]
    return [answer - bench.when[place] for answer, (_, place) in zip(answers, waiting, strict=True)]


def read(linear: int = LINEAR) -> Request:
    return Request(linear, Access.READ)


@pytest.mark.thorough
@pytest.mark.parametrize("latency", [1, 4, 16])
@pytest.mark.parametrize("levels", [4, 5])
def test_a_walk_takes_three_cycles_more_than_the_walkers(levels: int, latency: int) -> None:
    bench = timed(Script([read()], levels=levels), 1, latency=latency)
    assert cycles_of(bench) == [levels * latency + 5]


@pytest.mark.thorough
@pytest.mark.parametrize("latency", [1, 4])
def test_a_split_lookup_takes_a_cycle_more(latency: int) -> None:
    asked = [read(), Request(LINEAR, Access.WRITE)]
    bench = timed(Script(asked, leaf=UPPER), 2, latency=latency, config=SPLIT)
    assert cycles_of(bench)[0] == 4 * latency + 6
    alone = timed(Script(asked[1:], leaf=UPPER), 1, latency=latency, config=SPLIT)
    assert cycles_of(alone) == [5 * latency + 6]
    assert cycles_of(timed(Script([read(1 << 62)]), 1, config=SPLIT)) == [6]


@pytest.mark.thorough
@pytest.mark.parametrize("latency", [1, 4])
def test_the_mark_of_a_page_that_hits_is_a_walk_with_a_swap(latency: int) -> None:
    """The leaf was read before: the store walks again, and swaps. The swap's answer is the walk's last cycle."""
    bench = timed(Script([read(), Request(LINEAR, Access.WRITE)], leaf=UPPER), 2, latency=latency)
    walk = 4 * latency + 5
    assert cycles_of(bench)[0] == walk
    alone = timed(Script([Request(LINEAR, Access.WRITE)], leaf=UPPER), 1, latency=latency)
    assert cycles_of(alone) == [walk + latency]


@pytest.mark.parametrize(("config", "latency"), [(SMALL, 3), (SPLIT, 4)])
def test_hits_are_one_a_cycle_three_cycles_late(config: CachingMmuConfig, latency: int) -> None:
    """Or four, where the lookup is split."""
    bench = timed(Script([read() for _ in range(60)]), 60, config=config)
    late = cycles_of(bench)
    assert config.hit_latency == latency and late[-40:] == [latency] * 40
    answers = [when for event, when in zip(bench.log, bench.when, strict=True) if isinstance(event, Answer)]
    assert answers[-40:] == list(range(answers[-1] - 39, answers[-1] + 1))


@pytest.mark.thorough
def test_not_canonical() -> None:
    bench = timed(Script([read(1 << 62)]), 1)
    assert cycles_of(bench) == [5]


def test_hits_go_on_under_a_miss() -> None:
    """While one walk is in flight others that hit are answered, before it."""
    bench = timed(Script([read(), *[read(OTHER)] * 1, *[read() for _ in range(12)]]), 14, latency=16)
    order = [event.tag for event in bench.log if isinstance(event, Answer)]
    asked = [event.tag for event in bench.log if isinstance(event, Accept)]
    assert order[0] == asked[0]
    assert order.index(asked[1]) > 1, "the second walk was overtaken by hits"


@pytest.mark.thorough
@pytest.mark.parametrize(("config", "most"), [(SMALL, 4), (SPLIT, 5)])
def test_invalidations_are_taken_at_once_and_hold_requests_for_few_cycles(config: CachingMmuConfig, most: int) -> None:
    bench = timed(Script([read() for _ in range(300)]), 300, invalidations=0.5, config=config)
    events = list(zip(bench.log, bench.when, strict=True))
    taken = [when for event, when in events if isinstance(event, Invalidate)]
    accepted = [when for event, when in events if isinstance(event, Accept)]
    assert len(taken) > 50
    assert min(b - a for a, b in pairwise(taken)) <= most + 1, (
        "the next one is taken within so many cycles of its offer"
    )
    held = [next(when for when in accepted if when > cycle) - cycle for cycle in taken if cycle < accepted[-1]]
    assert max(held[10:]) <= most + 2  # the first wait for the walk


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"walker": None}, "walker must be a WalkerConfig, not None"),
        ({"walker": WalkerConfig(observe=True)}, "observe must be False in an MMU that caches, not True"),
        ({"small_sets": 3}, "small_sets must be a power of two from 2 to 256, not 3"),
        ({"large_ways": 16}, "large_ways must be a power of two from 1 to 8, not 16"),
        ({"slots": 1}, "slots must be a power of two from 2 to 16, not 1"),
        ({"split_lookup": 1}, "split_lookup must be True or False, not 1"),
        ({"split_lookup": True, "walkers": 2}, "split_lookup must be False with several walkers"),
        ({"waiting": 2}, "waiting must be an integer from 3 to 64, not 2"),
        ({"upper_entries": 3}, "upper_entries must be 0 or a power of two from 2 to 64, not 3"),
    ],
)
def test_parameter_errors(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as error:
        CachingMmuConfig(**parameters)
    assert str(error.value) == text


def test_the_limits_themselves_are_taken() -> None:
    small = CachingMmuConfig(small_sets=2, large_sets=2, small_ways=1, large_ways=1, slots=2, waiting=3)
    large = CachingMmuConfig(small_sets=256, large_sets=256, small_ways=8, large_ways=8, slots=16, waiting=64)
    assert small.small_sets < large.small_sets
    for name, too_large in {"small_sets": 512, "large_sets": 512, "small_ways": 16, "slots": 32, "waiting": 65}.items():
        with pytest.raises(ValueError, match=f"{name} must be .* to {getattr(large, name)}, not {too_large}"):
            CachingMmuConfig(**{name: too_large})  # type: ignore[arg-type]
