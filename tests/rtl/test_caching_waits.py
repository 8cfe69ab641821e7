"""The MMU that caches, and invalidations that wait: for what was before them, while others go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptewalk.cosim.bench.events import Accept, Invalidate
from ptewalk.model.x86 import Access, Invalidation, Wait
from ptewalk.rtl.caching_mmu import CachingMmuConfig

from .directed_bench import FAR, LINEAR, NEIGHBOUR, SMALL, THIRD, Directed, Steps, run, walks

READS = replace(SMALL, read_grants=True)
SEVERAL = replace(SMALL, walkers=2)


def settle(cycles: int = 12) -> Steps:
    yield from [None] * cycles


def answered(bench: Directed) -> Steps:
    """All that was asked has been answered."""
    yield from bench.taken()
    while bench.flying():
        yield


@pytest.mark.parametrize("config", [SMALL, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("wait", [Wait.STORES, Wait.ALL])
def test_it_waits_for_the_stores_before_it_and_not_for_those_after(wait: Wait, config: object) -> None:
    def script(bench: Directed) -> Steps:
        yield from bench.context()
        bench.held = {0, 1}
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from answered(bench)
        yield from bench.invalidate(wait=wait)
        yield from bench.taken()
        yield from bench.ask(NEIGHBOUR, Access.WRITE)
        yield from answered(bench)
        assert bench.granted() == {0, 1}, "requests go on meanwhile"
        yield from settle()
        assert bench.complete == []
        bench.held = {1}
        yield from settle()
        assert len(bench.complete) == 1 and bench.granted() == {1}
        bench.held = set()
        yield from bench.quiet()

    run(script, config)  # type: ignore[arg-type]


def test_one_that_waits_for_nothing_is_not_told() -> None:
    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from bench.invalidate()
        yield from bench.quiet()
        assert bench.complete == []

    run(script)


@pytest.mark.parametrize("access", [Access.READ, Access.WRITE, Access.PROBE])
def test_it_waits_for_the_answers_of_the_requests_before_it(access: Access) -> None:
    """A walk that began before it may use an old table until its answer."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        bench.latency(40)
        yield from bench.ask(LINEAR, access)
        yield from bench.taken()
        yield from bench.invalidate(wait=Wait.ALL)
        yield from bench.taken()
        while bench.flying():
            assert bench.complete == []
            yield
        yield from settle()
        assert len(bench.complete) == 1

    run(script)


@pytest.mark.parametrize("config", [SMALL, SEVERAL], ids=["one", "several"])
@pytest.mark.parametrize("wait", [Wait.STORES, Wait.ALL])
def test_what_is_accepted_right_before_it_is_waited_for(wait: Wait, config: CachingMmuConfig) -> None:
    """Nothing else is in flight, so it is known late that one is: a request of its own cycle, or one before it."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from settle(20)  # the table of grants is cleared
        for later in range(6):
            bench.held = {0}
            yield from bench.ask(LINEAR, Access.WRITE)
            yield from settle(later)
            yield from bench.invalidate(wait=wait)
            while not bench.granted():
                yield
            yield from settle()
            assert len(bench.complete) == later
            bench.held = set()
            yield from bench.quiet()
            assert len(bench.complete) == later + 1

    bench = run(script, config, latency=3)
    accepted, taken = (
        [when for event, when in zip(bench.log, bench.when, strict=True) if isinstance(event, kind)]
        for kind in (Accept, Invalidate)
    )
    assert [two - one for one, two in zip(accepted, taken, strict=True)] == [*range(6)]


@pytest.mark.parametrize("wait", [Wait.STORES, Wait.ALL])
def test_one_right_before_it_that_is_answered_right_after_it(wait: Wait) -> None:
    """A hit: its answer grants a store, at every distance from the invalidation, and the grant moves to its count."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from settle(20)
        for later in range(8):
            bench.held = {0}
            yield from bench.ask(LINEAR, Access.WRITE)
            yield from settle(later)
            yield from bench.invalidate(Invalidation.PCID, pcid=2, wait=wait)
            yield from answered(bench)
            yield from settle()
            assert bench.granted() == {0} and len(bench.complete) == later
            bench.held = set()
            yield from bench.quiet()
            assert len(bench.complete) == later + 1

    assert walks(run(script)) == 1


def test_reads_that_were_granted_are_waited_for_where_all_are() -> None:
    """And stores do not wait for them, though those that wait for stores came before and after."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        bench.held = {0}
        yield from bench.ask(LINEAR)
        yield from answered(bench)
        assert bench.granted() == {0}
        for done in (1, 2):
            yield from bench.invalidate(wait=Wait.STORES)
            yield from bench.taken()
            yield from settle()
            assert len(bench.complete) == done
        yield from bench.invalidate(wait=Wait.ALL)
        yield from bench.ask(NEIGHBOUR, Access.WRITE)
        yield from answered(bench)
        yield from settle()
        assert len(bench.complete) == 2 and bench.granted() == {0}
        bench.held = set()
        yield from settle()
        assert len(bench.complete) == 3

    run(script, READS)


@pytest.mark.parametrize("read_grants", [False, True])
def test_what_a_grant_is(read_grants: bool) -> None:
    """Each access that was allowed but a probe, or only stores. The bench retires what is a grant, and no more."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        bench.held = {*range(16)}
        for access in Access:
            yield from bench.ask(LINEAR, access)
            yield from answered(bench)
        yield from bench.ask(FAR, Access.READ)  # a page fault
        yield from answered(bench)
        seen = bench.granted()
        expected = {Access.WRITE, Access.RMW} | ({Access.READ, Access.FETCH} if read_grants else set())
        assert len(seen) == len(expected)
        bench.held = set()
        yield from bench.quiet()

    bench = run(script, replace(SMALL, read_grants=read_grants))
    assert not bench.status, "no retirement was stray, no tag used twice"


@pytest.mark.thorough
def test_two_wait_and_a_third_is_not_taken_until_one_is_complete() -> None:
    """One that waits for nothing is taken before; contexts and requests go on."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        bench.held = {0}
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from answered(bench)
        for wait in (Wait.STORES, Wait.ALL):
            yield from bench.invalidate(wait=wait)
            yield from bench.taken()
        yield from bench.invalidate(linear=THIRD)
        yield from bench.taken()
        yield from bench.invalidate(wait=Wait.ALL)
        yield from settle()
        yield from bench.ask(NEIGHBOUR, Access.WRITE)
        while bench.offers("requests") or bench.flying():
            yield
        bench.held = {0, 1}
        yield from settle(20)
        assert bench.offers("invalidations") and bench.complete == []
        bench.held = {1}
        yield from bench.taken()
        yield from settle()
        assert len(bench.complete) == 1
        bench.held = set()
        yield from settle(20)
        assert len(bench.complete) == 3

    bench = run(script)
    kinds = [event.wait for event in bench.log if isinstance(event, Invalidate)]
    assert kinds == [Wait.STORES, Wait.ALL, Wait.NONE, Wait.ALL]


def test_a_completion_comes_within_six_cycles() -> None:
    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        yield from bench.invalidate(Invalidation.ALL, wait=Wait.ALL)
        yield from bench.quiet()

    bench = run(script)
    taken = next(when for event, when in zip(bench.log, bench.when, strict=True) if isinstance(event, Invalidate))
    assert 0 < bench.complete[0] - taken <= 6
