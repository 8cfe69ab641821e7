"""The MMU that caches, where what is cached could be taken for a verdict: rights, faults, duplicates, probes.

Every log is judged by the golden TLB as well; what is expected is said by the test itself.
"""

from __future__ import annotations

import pytest

from ptewalk.cosim.bench.events import Accept, Answer, WalkEnd
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Translated
from ptewalk.model.x86 import Access, Control, Invalidation
from ptewalk.rtl.caching_mmu import CachingMmuConfig

from .directed_bench import (
    LINEAR,
    NEIGHBOUR,
    NXE,
    OLD,
    PD,
    PT,
    ROOT,
    RW,
    SMALL,
    UPPER,
    UPPERS,
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


def test_hits_do_not_starve_a_miss() -> None:
    """A hit is on offer in each cycle; the miss is answered as if it were alone, but for the hits before it."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.ask()
        yield from bench.quiet()
        for number in range(300):
            yield from bench.ask(NEIGHBOUR if number == 100 else LINEAR)
            yield

    bench = run(script, latency=4)
    assert walks(bench) == 2
    assert cycles(bench)[1 + 100] <= 4 * 4 + 5 + 4


@pytest.mark.thorough
@pytest.mark.parametrize("cached", [False, True])
def test_a_context_waits_for_what_is_in_flight(cached: bool) -> None:
    """CR0.WP is set at every distance from a supervisor's store to a read-only page: no flush, and no store escapes."""

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | P | US | A | D)
        for distance in range(14):
            yield from bench.context()
            if not cached:
                yield from bench.invalidate(Invalidation.ALL)
            else:
                yield from bench.ask(user=False)
            yield from bench.quiet()
            yield from bench.ask(LINEAR, Access.WRITE, user=False)
            yield from bench.taken()
            yield from [None] * distance
            yield from bench.context(WP)
            yield from bench.ask(LINEAR, Access.WRITE, user=False)
            yield from bench.quiet()

    bench = run(script)
    stores = [result for number, result in enumerate(answers(bench)) if not cached or number % 3]
    assert all(isinstance(result, Translated) for result in stores[::2])
    assert stores[1::2] == [PageFault(3)] * 14


def test_a_supervisor_store_hits_a_read_only_page_without_wp() -> None:
    """What is kept are rights, not a verdict; with WP the same entry denies, and a walk says so."""

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | P | US | A | D)
        yield from bench.context()
        for access in (Access.READ, Access.WRITE, Access.RMW):
            yield from bench.ask(LINEAR, access, user=False)
            yield from bench.quiet()
        assert walks(bench) == 1
        yield from bench.context(WP)
        yield from bench.ask(LINEAR, Access.READ, user=False)
        yield from bench.quiet()
        assert walks(bench) == 1
        yield from bench.ask(LINEAR, Access.WRITE, user=False)
        yield from bench.quiet()

    bench = run(script)
    assert frames(bench)[:4] == [OLD] * 4 and answers(bench)[4] == PageFault(3)
    assert walks(bench) == 2


@pytest.mark.thorough
@pytest.mark.parametrize(("control", "lowest"), [(0, 47), (1 << Control.LA57, 56)])
def test_an_address_that_is_not_canonical_never_hits(control: int, lowest: int) -> None:
    """The page of its other bits is cached."""
    top = 0x8000  # of five levels; its first entry leads to the root of four

    def script(bench: Directed) -> Steps:
        yield from bench.context(control, root=top if control else ROOT)
        yield from bench.ask()
        yield from bench.quiet()
        for bit in range(lowest, 64):
            yield from bench.ask(LINEAR ^ 1 << bit)
            yield from bench.ask()
        yield from bench.quiet()

    memory = SparseMemory()
    memory.store(top, ROOT | UPPER)
    bench = run(script, memory=memory)
    assert answers(bench)[1::2] == [GeneralProtection()] * (64 - lowest)
    assert set(frames(bench)[::2]) == {OLD}


def test_duplicates_are_walked_once_and_judged_each_by_its_own_rights() -> None:
    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | P | US | A | D)
        yield from bench.context(WP)
        yield from bench.taken()
        for access, user in ((Access.READ, True), (Access.FETCH, True), (Access.READ, False), (Access.WRITE, True)):
            yield from bench.ask(LINEAR, access, user=user)
            yield
        yield from bench.quiet()

    bench = run(script, latency=8)
    assert frames(bench)[:3] == [OLD] * 3 and answers(bench)[3] == PageFault(7)
    assert walks(bench) == 2, "one for all, and one of the store"


def test_a_bus_error_of_a_swap_leaves_nothing() -> None:
    """Memory refuses the walk's mark: the page is not cached, with or without it."""

    class Refusing(SparseMemory):
        refuses = True

        def compare_exchange(self, address: int, old: int, new: int) -> bool:
            if self.refuses:
                raise BusError(address)
            return super().compare_exchange(address, old, new)

    memory = Refusing()

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | UPPER)
        yield from bench.context()
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from bench.quiet()
        assert bench.load(leaf_at(LINEAR)) == OLD | UPPER
        memory.refuses = False
        yield from bench.ask()
        yield from bench.quiet()
        assert walks(bench) == 2
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from bench.quiet()
        assert bench.load(leaf_at(LINEAR)) == OLD | UPPER | D

    bench = run(script, memory=memory)
    assert answers(bench)[0] == BusFault() and frames(bench)[1:] == [OLD, OLD]
    assert walks(bench) == 3


@pytest.mark.thorough
@pytest.mark.parametrize("config", [SMALL, UPPERS])
def test_a_page_fault_is_not_remembered(config: CachingMmuConfig) -> None:
    """Rights that grow need no invalidation: absent, then read-only, then writable [SDM 3A 4.10.4.3]."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        for leaf, access in ((0, Access.READ), (P | US | A, Access.WRITE), (UPPER, Access.WRITE)):
            bench.write(leaf_at(LINEAR), leaf and OLD | leaf)
            yield from bench.ask()
            yield from bench.ask(LINEAR, access)
            yield from bench.quiet()

    bench = run(script, config)
    assert answers(bench)[:2] == [PageFault(4)] * 2
    assert frames(bench)[2::2] == [OLD] * 2 and answers(bench)[3] == PageFault(7)
    assert frames(bench)[5] == OLD


@pytest.mark.thorough
@pytest.mark.parametrize("config", [SMALL, UPPERS], ids=["small", "uppers"])
def test_a_page_fault_takes_what_it_faulted_on_as_its_walk_ends(config: CachingMmuConfig) -> None:
    """Of a page that is cached: who asks before that moment may hit, who asks after it walks, answered or not."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        bench.write(leaf_at(LINEAR), OLD | P | US | A)
        for later in range(28):
            yield from bench.ask()
            yield from bench.quiet()
            yield from bench.ask(LINEAR, Access.WRITE)
            for _ in range(later):
                yield
            yield from bench.ask()
            yield from bench.quiet()

    bench = run(script, config, latency=2)
    log = list(enumerate(bench.log))
    asked = [(number, event.tag) for number, event in log if isinstance(event, Accept)]
    before = after = 0
    for (store, tag), (read, other) in zip(asked[1::3], asked[2::3], strict=True):
        end = next(number for number, event in log[store:] if isinstance(event, WalkEnd) and event.tag == tag)
        assert Answer(tag, PageFault(7)) in bench.log[end:]
        answered = next(number for number, event in log[read:] if isinstance(event, Answer) and event.tag == other)
        walked = any(isinstance(event, WalkEnd) and event.tag == other for event in bench.log[read:answered])
        assert walked or read < end
        before += not walked
        after += read > end
    assert min(before, after) >= 3


@pytest.mark.thorough
def test_each_page_has_its_own_rights() -> None:
    """Eight neighbours of all rights, cached by a supervisor's reads, then asked for by a user."""
    xd = 1 << 63
    rights = [(RW * (n & 1)) | (US * (n >> 1 & 1)) | (xd * (n >> 2 & 1)) for n in range(8)]

    def script(bench: Directed) -> Steps:
        for number, right in enumerate(rights):
            bench.write(leaf_at(LINEAR + number * 0x1000), OLD | number << 12 | P | A | D | right)
        yield from bench.context(WP | NXE)
        for access, user in ((Access.READ, False), (Access.READ, True), (Access.WRITE, True), (Access.FETCH, True)):
            for number in range(8):
                yield from bench.ask(LINEAR + number * 0x1000, access, user=user)
            yield from bench.quiet()

    bench = run(script)
    allowed = [True] * 8
    allowed += [bool(right & US) for right in rights]
    allowed += [bool(right & US and right & RW) for right in rights]
    allowed += [bool(right & US and not right & xd) for right in rights]
    assert [frame is not None for frame in frames(bench)] == allowed
    assert all(frame in (None, OLD | number % 8 << 12) for number, frame in enumerate(frames(bench)))


def test_xd_that_is_cached_is_not_granted_once_it_is_reserved() -> None:
    """EFER.NXE goes: bit 63 is reserved then, for reads too."""

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), 1 << 63 | OLD | UPPER | D)
        yield from bench.context(NXE)
        for _ in range(2):
            yield from bench.ask()
            yield from bench.quiet()
        yield from bench.context()
        yield from bench.ask()
        yield from bench.quiet()

    bench = run(script)
    assert frames(bench)[:2] == [OLD] * 2 and answers(bench)[2] == PageFault(13)


def test_a_full_fault_queue_stalls_nobody() -> None:
    """Nobody takes the records: faults are answered, hits and walks go on; what is lost is counted."""

    def script(bench: Directed) -> Steps:
        bench.takes_faults = False
        bench.write(leaf_at(LINEAR), 0)
        yield from bench.context()
        for _ in range(12):
            yield from bench.ask()
            yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()
        bench.takes_faults = True

    bench = run(script)
    assert answers(bench)[::2] == [PageFault(4)] * 12 and None not in frames(bench)[1::2]
    assert bench.counts["gateware delivered_faults"] == 12
    assert bench.counts["gateware lost_faults"] in (12 - SMALL.fault_depth, 12 - SMALL.fault_depth - 1)


def test_a_probe_leaves_nothing() -> None:
    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | UPPER & ~A | D)
        yield from bench.context()
        for _ in range(2):
            yield from bench.ask(LINEAR, Access.PROBE)
            yield from bench.quiet()
        assert walks(bench) == 2 and bench.load(leaf_at(LINEAR)) == OLD | UPPER & ~A | D
        yield from bench.ask()
        yield from bench.quiet()
        assert bench.load(leaf_at(LINEAR)) == OLD | UPPER | D

    assert walks(run(script, UPPERS)) == 3


def test_a_probe_leaves_no_upper_entry_without_a() -> None:
    """A walk that began below it would never set A there [SDM 3A 4.8]."""
    entry = leaf_at(LINEAR >> 9, PD)

    def script(bench: Directed) -> Steps:
        bench.write(entry, PT | UPPER & ~A)
        yield from bench.context()
        yield from bench.ask(LINEAR, Access.PROBE)
        yield from bench.quiet()
        assert bench.load(entry) == PT | UPPER & ~A
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()
        assert bench.load(entry) == PT | UPPER

    assert walks(run(script, UPPERS)) == 2


def test_a_store_over_two_pages_is_allowed_in_both_before_it_marks_either() -> None:
    """Probes first: where one of them faults the other page stays clean; the fault is that of the store's own half."""
    first, second = NEIGHBOUR - 4, NEIGHBOUR

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | UPPER)
        bench.write(leaf_at(NEIGHBOUR), 0)
        yield from bench.context(WP)
        for access in (Access.PROBE, Access.WRITE):
            if access == Access.PROBE:
                yield from bench.ask(first, access)
            yield from bench.ask(second, access)
            yield from bench.quiet()
        assert bench.load(leaf_at(LINEAR)) == OLD | UPPER and bench.load(leaf_at(NEIGHBOUR)) == 0
        bench.write(leaf_at(NEIGHBOUR), OLD | 0x1000 | UPPER)
        for access in (Access.PROBE, Access.WRITE):
            for linear in (first, second):
                yield from bench.ask(linear, access)
            yield from bench.quiet()
        assert bench.load(leaf_at(LINEAR)) == OLD | UPPER | D
        assert bench.load(leaf_at(NEIGHBOUR)) == OLD | 0x1000 | UPPER | D

    bench = run(script)
    assert frames(bench) == [OLD, None, None, *(OLD, OLD + 0x1000) * 2]
    assert answers(bench)[1:3] == [PageFault(6)] * 2 and bench.faults == [(second, 6, bench.faults[0][2])]
