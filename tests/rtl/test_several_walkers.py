"""The MMU that caches with several walks in flight: what they share, and what each has to itself.

Every log is judged by the golden TLB as well; what is expected is said by the test itself.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import replace
from typing import Any

import pytest
from amaranth.lib import data
from amaranth.sim import Simulator

from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.bench.events import Accept, Answer, Read, Swap, WalkEnd
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import PageFault, Request
from ptewalk.model.x86 import Access, Invalidation
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.in_turn import InTurn

from . import test_caching_mmu
from .directed_bench import (
    AT,
    FAR,
    LINEAR,
    NEIGHBOUR,
    NEW,
    OLD,
    PS,
    PT,
    PT_2,
    SMALL,
    THIRD,
    UPPER,
    US,
    WP,
    A,
    D,
    Directed,
    P,
    Steps,
    answers,
    cycles,
    frames,
    leaf_at,
    run,
    walks,
)
from .test_caching_mmu import Script, cycles_of, read, timed

pytestmark = pytest.mark.thorough  # each elaborates an MMU of several walkers

TWO = replace(SMALL, walkers=2)
TWO_UPPERS = replace(TWO, upper_entries=2)
EIGHT = replace(SMALL, walkers=8, waiting=12, upper_entries=2)
NOT_THERE, NOT_THERE_2 = LINEAR + 0x10_0000, LINEAR + 0x10_1000
PAGES = [LINEAR + number * 0x1000 for number in range(3)]


def spans(bench: Directed) -> list[tuple[int, int, int]]:
    """Of each walk that read: its walker, the cycle of its first read's answer, and that of its end."""
    begun: dict[int, int] = {}
    found = []
    for event, when in zip(bench.log, bench.when, strict=True):
        if isinstance(event, Read | Swap):
            begun.setdefault(event.walker, when)
        elif isinstance(event, WalkEnd) and event.walker in begun:
            found.append((event.walker, begun.pop(event.walker), when))
    return found


# Random work ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("walkers", "seed"), [(2, "a"), (3, "b"), (8, "c")])
def test_random_work(walkers: int, seed: str) -> None:
    config = replace(TWO_UPPERS, walkers=walkers, waiting=2 * walkers)
    conditions = CachingConditions(idle=0.1, latency=2, latency_spread=9)
    verdict = test_caching_mmu.run(300, seed, conditions, config)
    assert verdict.problems == []
    assert verdict.counts["hits"] >= 60 and verdict.counts["partial"] >= 20


# Cycles ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [TWO, EIGHT])
@pytest.mark.parametrize("latency", [1, 4])
def test_a_walk_alone_takes_as_long_as_with_one_walker(config: CachingMmuConfig, latency: int) -> None:
    assert cycles_of(timed(Script([read()]), 1, latency=latency, config=config)) == [4 * latency + 5]
    assert cycles_of(timed(Script([read()], levels=5), 1, latency=latency, config=config)) == [5 * latency + 5]
    store = Script([Request(LINEAR, Access.WRITE)], leaf=UPPER)
    assert cycles_of(timed(store, 1, latency=latency, config=config)) == [5 * latency + 5]
    assert cycles_of(timed(Script([read(1 << 62)]), 1, config=config)) == [6], "what is not read waits its turn"


def test_walks_of_other_pages_are_side_by_side() -> None:
    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        for linear in PAGES:
            yield from bench.ask(linear)
        yield from bench.quiet()

    bench = run(script, TWO, latency=16)
    assert frames(bench) == [OLD, OLD + 0x1000, OLD + 0x2000]
    walk = 4 * 16 + 5
    first, second, third = cycles(bench)
    assert (first, second) == (walk, walk + 3), "what the first leaves is kept meanwhile"
    assert walk < third < 2 * walk + 16, "it waits for a walker, and for no more"
    assert [walker for walker, _, _ in spans(bench)] == [0, 1, 0]


def test_answers_come_in_the_order_in_which_memory_gives_them() -> None:
    """The first walk's leaf comes last."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        yield from bench.ask(LINEAR)
        yield from bench.taken()
        yield from [None] * 6
        bench.latency(1)
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()

    bench = run(script, TWO, latency=40)
    assert frames(bench) == [OLD, OLD + 0x1000]
    asked = [event.tag for event in bench.log if isinstance(event, Accept)]
    assert [event.tag for event in bench.log if isinstance(event, Answer)] == asked[::-1]


# Duplicates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", range(8))
def test_a_duplicate_waits_and_is_looked_up_again(between: int) -> None:
    """Back to back, and later; each is judged by its own rights, and leaves the other walker to others."""

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | P | US | A | D)
        yield from bench.context(WP)
        yield from bench.taken()
        yield from bench.ask(LINEAR)
        yield from bench.taken()
        yield from [None] * between
        yield from bench.ask(LINEAR)
        yield from bench.taken()
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from bench.taken()
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()

    bench = run(script, TWO, latency=8)
    assert frames(bench)[:2] == [OLD, OLD] and frames(bench)[3] == OLD + 0x1000
    assert answers(bench)[2] == PageFault(7)
    assert walks(bench) == 3, "one for two, one of the store, and one of the other page"
    assert cycles(bench)[3] <= 4 * 8 + 5 + 4, "who waits for a walk of its page stops nobody"


def test_no_request_joins_a_walk_that_an_invalidation_overtook() -> None:
    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        yield from bench.ask()
        yield from [None] * 20
        bench.write(leaf_at(LINEAR), NEW | UPPER | D)
        yield from bench.invalidate(Invalidation.INVLPG)
        yield from bench.taken()
        yield from bench.ask()
        yield from bench.quiet()

    bench = run(script, TWO, latency=12)
    assert frames(bench)[1] == NEW
    (_, _, first_ends), (_, second_begins, _) = spans(bench)
    assert second_begins < first_ends


def test_who_waited_for_a_walk_that_faults_walks_by_itself() -> None:
    """And once only: its own walk is not waited for again, whatever is in flight."""

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), 0)
        yield from bench.context()
        yield from bench.taken()
        for _ in range(3):
            yield from bench.ask()
        yield from bench.quiet()

    bench = run(script, TWO, latency=8)
    assert answers(bench) == [PageFault(4)] * 3
    assert walks(bench) == 3
    assert max(cycles(bench)) <= 2 * (4 * 8 + 5) + 16, "the two that waited are walked side by side"


def test_who_waits_for_a_walker_has_it_though_it_may_wait_for_a_walk_anew() -> None:
    """A new request, at every distance, takes no walker from the one whose turn to be looked up again it is.

    The last asked for NOT_THERE waited for a walk of walker 0, which has ended two since. So it seems to wait anew as
    the one before it begins a walk there: it has its turn already, has to walk, and finds the other walker free.
    """
    distances = range(12)

    def ends(bench: Directed, count: int) -> Steps:
        """So many walks have ended."""
        while walks(bench) < count:
            yield

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        for distance in distances:
            before = walks(bench)
            yield from bench.invalidate(Invalidation.ALL)
            yield from bench.taken()
            bench.latency(8)
            yield from bench.ask(NOT_THERE)  # in walker 0
            yield from bench.taken()
            yield from [None] * 4
            bench.latency(90)
            yield from bench.ask(NOT_THERE_2)  # in walker 1
            yield from bench.taken()
            yield from [None] * 4
            bench.latency(1)
            yield from bench.ask(NOT_THERE_2)
            yield from bench.taken()
            yield from bench.ask(NOT_THERE)
            yield from bench.taken()
            yield from ends(bench, before + 1)
            yield from bench.ask(THIRD)  # in walker 0 again
            yield from ends(bench, before + 3)
            yield from [None] * distance
            yield from bench.ask(NEIGHBOUR)
            yield from bench.quiet()

    bench = run(script, TWO)
    assert frames(bench) == [None, None, None, None, OLD + 0x2000, OLD + 0x1000] * len(distances)
    assert walks(bench) == 6 * len(distances)


def test_nobody_waits_for_a_probe() -> None:
    """It leaves nothing."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        yield from bench.ask(LINEAR, Access.PROBE)
        yield from bench.ask(LINEAR)
        yield from bench.quiet()

    bench = run(script, TWO, latency=8)
    (_, _, first_ends), (_, second_begins, _) = spans(bench)
    assert second_begins < first_ends


# Invalidations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Invalidation))
@pytest.mark.parametrize("config", [TWO, EIGHT])
def test_an_invalidation_overtakes_every_walk_that_it_covers(kind: Invalidation, config: CachingMmuConfig) -> None:
    """At every distance from two walks of two pages that change together."""
    distances = range(0, 24, 3)

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        for distance in distances:
            for linear, frame in ((LINEAR, OLD), (NEIGHBOUR, OLD + 0x1000)):
                bench.write(leaf_at(linear), frame | UPPER | D)
            yield from bench.invalidate(Invalidation.ALL)
            yield from bench.quiet()
            for linear in (LINEAR, NEIGHBOUR):
                yield from bench.ask(linear)
            yield from [None] * distance
            for linear in (LINEAR, NEIGHBOUR):
                bench.write(leaf_at(linear), NEW | UPPER | D)
            for linear in (LINEAR, NEIGHBOUR):
                yield from bench.invalidate(kind, linear)
            yield from bench.taken()
            for linear in (LINEAR, NEIGHBOUR):
                yield from bench.ask(linear)
            yield from bench.quiet()

    bench = run(script, config, latency=3)
    seen = frames(bench)
    assert seen[2::4] == seen[3::4] == [NEW] * len(distances)
    assert OLD in seen[::4] and OLD + 0x1000 in seen[1::4]
    assert bench.counts["overtaken"] >= 4


@pytest.mark.parametrize("kind", [Invalidation.INVLPG, Invalidation.ADDRESS])
def test_a_walk_born_beside_an_invalidation_leaves_nothing_made_of_a_stale_pde(kind: Invalidation) -> None:
    """While another walk is in flight; its own leaf is read after the invalidation, the PDE was read before."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        for distance in range(12):
            bench.write(AT[2], PT | UPPER)
            for linear in (NEIGHBOUR, THIRD):
                bench.write(leaf_at(linear, PT_2), NEW | UPPER | D)
            yield from bench.invalidate(Invalidation.ALL)
            yield from bench.quiet()
            yield from bench.ask(LINEAR)
            yield from bench.quiet()
            yield from bench.ask(FAR)
            yield from bench.ask(NEIGHBOUR)  # below the PDE
            yield from [None] * distance
            bench.write(AT[2], PT_2 | UPPER)
            yield from bench.invalidate(kind, FAR if kind == Invalidation.INVLPG else NEIGHBOUR)
            yield from bench.taken()
            if kind == Invalidation.INVLPG:
                yield from bench.invalidate(kind, THIRD)
                yield from bench.taken()
            yield from bench.ask(NEIGHBOUR)
            yield from bench.ask(THIRD)
            yield from bench.quiet()

    bench = run(script, TWO_UPPERS)
    assert bench.counts["partial"] >= 12
    late = [frame for number, frame in enumerate(frames(bench)) if number % 5 >= 3]
    assert late == [NEW] * 24


def test_a_page_fault_overtakes_the_walk_of_its_sibling() -> None:
    """Two pages of one large page: the store's #PF takes it; the read that is answered after it leaves nothing."""

    def script(bench: Directed) -> Steps:
        bench.write(AT[2], 0x4000_0000 | P | US | A | PS)
        yield from bench.context(WP)
        yield from bench.taken()
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()

    bench = run(script, TWO, latency=6)
    page = 0x4000_0000 | NEIGHBOUR & 0x1F_F000
    assert answers(bench)[0] == PageFault(7) and frames(bench)[1:] == [page, page]
    assert walks(bench) == 3


def test_a_storm_of_invalidations_starves_nobody() -> None:
    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        asked = 0
        while asked < 40:
            if not bench.offers("invalidations"):
                yield from bench.invalidate((Invalidation.INVLPG, Invalidation.ALL)[asked % 2], NEIGHBOUR)
            if not bench.offers("requests"):
                yield from bench.ask(PAGES[asked % 3])
                asked += 1
            yield
        yield from bench.quiet()

    bench = run(script, TWO)
    assert None not in frames(bench) and len(frames(bench)) == 40
    assert walks(bench) <= 40
    assert max(cycles(bench)) <= (TWO.waiting + 2) * (4 + 5 + 2 * 6)


# Memory ---------------------------------------------------------------------------------------------------------------


def test_two_walks_mark_one_entry_and_one_of_them_reads_it_again() -> None:
    """Both find the PDE without A: memory says to one of them that another was there first."""

    def script(bench: Directed) -> Steps:
        bench.write(AT[2], PT | P | US | 2)
        yield from bench.context()
        yield from bench.taken()
        yield from bench.ask(LINEAR)
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()

    bench = run(script, TWO, latency=5)
    assert frames(bench) == [OLD, OLD + 0x1000]
    swaps = [event for event in bench.log if isinstance(event, Swap)]
    assert [(swap.walker, swap.done) for swap in swaps] == [(0, True), (1, False)]
    reads = Counter(event.walker for event in bench.log if isinstance(event, Read))
    assert reads == {0: 4, 1: 5}


def test_a_bus_error_is_that_walks_alone() -> None:
    """Memory refuses the second walk's leaf."""
    memory = SparseMemory(physical_bits=40)

    def script(bench: Directed) -> Steps:
        bench.write(AT[2] + 8, 0xFF_FFFF_F000 | UPPER)  # a table that is not there
        memory.strict = True
        yield from bench.context()
        yield from bench.taken()
        yield from bench.ask(LINEAR)
        yield from bench.ask(LINEAR + 0x20_0000)
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()

    bench = run(script, TWO, memory=memory, latency=3)
    assert frames(bench) == [OLD, None, OLD + 0x1000]


# Parts ----------------------------------------------------------------------------------------------------------------


def test_in_turn_against_a_deque() -> None:
    rng, dut = random.Random(1), InTurn(data.StructLayout({"number": 8}), depth=4)
    known: deque[int] = deque()

    async def test(ctx: Any) -> None:
        for number in range(600):
            assert ctx.get(dut.valid) == bool(known)
            if known:
                assert ctx.get(dut.head.number) == known[0]
            push = len(known) < 5 and rng.random() < (0.7 if number // 40 % 2 else 0.3)
            take = bool(known) and rng.random() < 0.5
            ctx.set(dut.push, push)
            ctx.set(dut.new.number, number % 256 if push else 0)
            ctx.set(dut.take, take)
            await ctx.tick()
            if take:
                known.popleft()
            if push:
                known.append(number % 256)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(test)
    simulator.run()


@pytest.mark.parametrize("walkers", [0, 9, "2"])
def test_number_of_walkers(walkers: Any) -> None:
    with pytest.raises(ValueError, match=f"walkers must be an integer from 1 to 8, not {walkers!r}"):
        CachingMmuConfig(walkers=walkers)
