"""The MMU that caches, where invalidations meet walks, and pages and PCIDs each other: each trap walked into.

Every log is judged by the golden TLB as well; what is expected is said by the test itself.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ptewalk.cosim.bench.events import Read
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.x86 import Access, Control, EntryBit, Invalidation
from ptewalk.rtl.caching_mmu import CachingMmuConfig

from .directed_bench import (
    ARM,
    AT,
    FAR,
    LINEAR,
    NEIGHBOUR,
    NEW,
    NXE,
    OLD,
    PGE,
    PS,
    PT,
    PT_2,
    ROOT,
    SD,
    SMALL,
    SMEP,
    THIRD,
    UPPER,
    UPPERS,
    US,
    WP,
    A,
    D,
    Directed,
    P,
    Steps,
    cycles,
    frames,
    leaf_at,
    run,
    walks,
)

KINDS = [(kind, config) for config in (SMALL, UPPERS) for kind in (Invalidation.INVLPG, Invalidation.ADDRESS)]
KINDS += [(kind, SMALL) for kind in (Invalidation.PCID, Invalidation.ALL, Invalidation.NOT_GLOBAL)]


@pytest.mark.thorough
@pytest.mark.parametrize(("kind", "config"), KINDS)
def test_an_invalidation_at_every_distance_from_a_walk(kind: Invalidation, config: CachingMmuConfig) -> None:
    """The leaf changes, and is invalidated, while it is walked: what is asked afterwards gets the new one."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        for distance in range(16):
            bench.write(leaf_at(LINEAR), OLD | UPPER | D)
            yield from bench.invalidate(Invalidation.ALL)
            yield from bench.quiet()
            yield from bench.ask()
            yield from [None] * distance
            bench.write(leaf_at(LINEAR), NEW | UPPER | D)
            yield from bench.invalidate(kind)
            yield from bench.taken()
            yield from bench.ask()
            yield
            yield from bench.ask()
            yield from bench.quiet()

    bench = run(script, config)
    seen = frames(bench)
    assert seen[1::3] == seen[2::3] == [NEW] * 16
    assert set(seen[::3]) == {OLD, NEW}
    assert bench.counts["overtaken"] >= 4


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [Invalidation.ADDRESS, Invalidation.PCID])
def test_an_invalidation_of_another_pcid_at_every_distance_from_a_fill(kind: Invalidation) -> None:
    """What is filled is kept, and what stood under the other PCID is gone."""

    def script(bench: Directed) -> Steps:
        for distance in range(16):
            bench.write(leaf_at(LINEAR), OLD | UPPER | D)
            yield from bench.invalidate(Invalidation.ALL)
            for pcid in (2, 1):
                yield from bench.quiet()
                yield from bench.context(pcid=pcid)
                yield from bench.ask()
            yield from bench.taken()
            yield from [None] * distance
            yield from bench.invalidate(kind, LINEAR, 2)
            yield from bench.quiet()
            bench.write(leaf_at(LINEAR), NEW | UPPER | D)
            for pcid in (1, 2):
                yield from bench.context(pcid=pcid)
                yield from bench.ask()
                yield from bench.quiet()

    bench = run(script)
    assert frames(bench) == [OLD, OLD, OLD, NEW] * 16
    assert walks(bench) == 3 * 16


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [Invalidation.INVLPG, Invalidation.ADDRESS])
def test_a_walk_born_beside_an_invalidation_leaves_nothing_made_of_a_stale_pde(kind: Invalidation) -> None:
    """Its leaf is read after the invalidation, and the PDE that it began below was read before."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        for distance in range(14):
            bench.write(AT[2], PT | UPPER)
            for linear in (NEIGHBOUR, THIRD):
                bench.write(leaf_at(linear, PT_2), NEW | UPPER | D)
            yield from bench.invalidate(Invalidation.ALL)
            yield from bench.quiet()
            yield from bench.ask(LINEAR)
            yield from bench.quiet()
            yield from bench.ask(NEIGHBOUR)  # below the PDE
            yield from [None] * distance
            bench.write(AT[2], PT_2 | UPPER)
            # INVLPG takes upper entries whatever its address.
            yield from bench.invalidate(kind, FAR if kind == Invalidation.INVLPG else NEIGHBOUR)
            yield from bench.taken()
            if kind == Invalidation.INVLPG:
                yield from bench.invalidate(kind, THIRD)
                yield from bench.taken()
            yield from bench.ask(NEIGHBOUR)
            yield from bench.ask(THIRD)
            yield from bench.quiet()

    bench = run(script, UPPERS)
    assert bench.counts["partial"] >= 14
    late = [frame for number, frame in enumerate(frames(bench)) if number % 4 == 3]
    assert late == [NEW] * 14


@pytest.mark.thorough
def test_a_storm_of_invalidations_starves_nobody() -> None:
    """One is always on offer: overtaken walks are not begun again, and every request is walked once at most."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.taken()
        asked = 0
        while asked < 60:
            if not bench.offers("invalidations"):
                yield from bench.invalidate((Invalidation.INVLPG, Invalidation.ALL)[asked % 2], NEIGHBOUR)
            if not bench.offers("requests"):
                yield from bench.ask(LINEAR + asked % 3 * 0x1000)
                asked += 1
            yield
        yield from bench.quiet()

    bench = run(script)
    assert None not in frames(bench) and len(frames(bench)) == 60
    assert walks(bench) <= 60
    assert sum(isinstance(event, Read) for event in bench.log) == 4 * walks(bench)
    assert bench.counts["overtaken"] >= 20
    # At most as many walks go before as may wait, and one more; each waits for two invalidations.
    assert max(cycles(bench)) <= (SMALL.waiting + 2) * (4 + 5 + 2 * 6)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [None, *Invalidation])
def test_what_takes_a_gigabyte_page_takes_all_its_fragments(kind: Invalidation | None) -> None:
    """None: a page fault does, of an address of which no fragment stands."""
    places = (LINEAR, LINEAR ^ 1 << 29, LINEAR ^ 1 << 22, LINEAR ^ 5 << 24)

    def script(bench: Directed) -> Steps:
        bench.write(AT[3], 0x4000_0000 | UPPER | D | PS)
        yield from bench.context()
        for _ in range(2):
            for linear in places:
                yield from bench.ask(linear)
                yield from bench.quiet()
        assert walks(bench) == len(places)
        if kind is None:
            bench.write(AT[3], 0)
            yield from bench.ask(LINEAR ^ 1 << 25)
            yield from bench.quiet()
        bench.write(AT[3], 0x8000_0000 | UPPER | D | PS)
        if kind is not None:
            yield from bench.invalidate(kind, LINEAR ^ 1 << 25)
            yield from bench.taken()
        for linear in places:
            yield from bench.ask(linear)
        yield from bench.quiet()

    bench = run(script, replace(SMALL, large_ways=4))
    offsets = [linear & 0x3FFF_F000 for linear in places]
    old, new = ([base | offset for offset in offsets] for base in (0x4000_0000, 0x8000_0000))
    assert frames(bench) == [*old, *old, *([None] if kind is None else []), *new]


def test_two_sizes_of_one_address_are_never_mixed() -> None:
    """Software goes from 2 MiB to 4 KiB and invalidates later; meanwhile a store's walk fills beside it."""

    def script(bench: Directed) -> Steps:
        bench.write(AT[2], 0x4000_0000 | UPPER | PS)
        yield from bench.context()
        yield from bench.ask()
        yield from bench.quiet()
        bench.write(AT[2], PT | UPPER)
        bench.write(leaf_at(LINEAR), OLD | UPPER)
        yield from bench.ask(LINEAR, Access.WRITE)
        yield from bench.quiet()
        yield from bench.ask()
        yield from bench.ask(NEIGHBOUR)  # by the large page still
        yield from bench.quiet()
        assert walks(bench) == 2
        yield from bench.invalidate()
        yield from bench.taken()
        yield from bench.ask()
        yield from bench.ask(NEIGHBOUR)
        yield from bench.quiet()

    large, small = 0x4000_0000 | LINEAR & 0x1F_F000, OLD | 0x1000
    bench = run(script)
    assert frames(bench) == [large, OLD, OLD, large + 0x1000, OLD, small]


@pytest.mark.thorough
@pytest.mark.parametrize("track", [Track.NATIVE, Track.FAULT])
def test_write_clear_write_again_and_again(track: Track) -> None:
    """Marks are cleared and the page is invalidated at every distance from a store: the next one marks it again."""
    clear = OLD | (UPPER if track == Track.NATIVE else P | US | A | ARM)
    seen: list[int] = []

    def script(bench: Directed) -> Steps:
        yield from bench.context(track=track)
        for distance in range(32):
            yield from bench.quiet()
            if distance % 2:  # the first store is a walk as well
                bench.write(leaf_at(LINEAR), clear)
                yield from bench.invalidate(Invalidation.ALL)
                yield from bench.taken()
            yield from bench.ask(LINEAR, Access.WRITE)
            yield
            yield from bench.ask(LINEAR, Access.WRITE)
            yield from [None] * (distance // 2)
            bench.write(leaf_at(LINEAR), clear)
            yield from bench.invalidate()
            yield from bench.taken()
            yield from bench.ask(LINEAR, Access.WRITE)
            yield from bench.quiet()
            seen.append(bench.load(leaf_at(LINEAR)))

    memory = SparseMemory()
    bench = run(script, memory=memory)
    assert None not in frames(bench)
    assert seen == [OLD | UPPER | D | SD] * 32


@pytest.mark.thorough
def test_pcids_that_share_slots_share_nothing_else() -> None:
    """Six address spaces, four slots: each finds its own pages, right after another and many later."""
    memory = SparseMemory()
    roots = {pcid: 0x10000 * pcid for pcid in range(1, 7)}
    pages = [LINEAR + number * 0x1000 for number in range(4)]

    def leaf_of(pcid: int, linear: int) -> int:
        return leaf_at(linear, roots[pcid] + 0x3000)

    for pcid, root in roots.items():
        for table, at in ((root, AT[4]), (root + 0x1000, AT[3]), (root + 0x2000, AT[2])):
            memory.store(table + at % 0x1000, table + 0x1000 | UPPER)
        for number, linear in enumerate(pages):
            memory.store(leaf_of(pcid, linear), 0x70_0000 + root + number * 0x1000 | UPPER | D)
    order = (1, 2, 1, 2, 3, 4, 5, 6, 1, 6, 5, 1, 2, 3, 3, 4, 1, 2) * 3
    expected: list[int] = []

    def script(bench: Directed) -> Steps:
        for number, pcid in enumerate(order):
            linear = pages[number // 3 % 4]
            yield from bench.context(pcid=pcid, root=roots[pcid])
            for _ in range(2):
                yield from bench.ask(linear)
            yield from bench.quiet()
            expected.append(bench.load(leaf_of(pcid, linear)) & ~0xFFF)
            if number % 5 == 4:  # a page changes, mostly of one that does not run
                other = order[number - 1]
                leaf = leaf_of(other, linear)
                bench.write(leaf, bench.load(leaf) ^ 0x100_0000)
                yield from bench.invalidate((Invalidation.PCID, Invalidation.ADDRESS)[number % 2], linear, other)
                yield from bench.quiet()

    bench = run(script, replace(UPPERS, small_ways=4), memory=memory)
    assert frames(bench)[::2] == frames(bench)[1::2] == expected
    assert bench.counts["gateware wraps"] >= 6
    assert bench.counts["hits"] >= len(order)


@pytest.mark.thorough
@pytest.mark.parametrize("pge", [False, True])
@pytest.mark.parametrize("kind", [None, *Invalidation])
def test_what_takes_a_global_page(kind: Invalidation | None, pge: bool) -> None:
    """It serves another PCID, with CR4.PGE alone, and goes by INVLPG and by what takes all, whoever runs."""

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(LINEAR), OLD | UPPER | D | 1 << EntryBit.G)
        yield from bench.context(PGE * pge)
        yield from bench.ask()
        yield from bench.quiet()
        bench.write(leaf_at(LINEAR), NEW | UPPER | D | 1 << EntryBit.G)
        yield from bench.context(PGE * pge, pcid=2)
        yield from bench.taken()
        if kind is not None:
            yield from bench.invalidate(kind, LINEAR, 1)
            yield from bench.taken()
        yield from bench.ask()
        yield from bench.quiet()

    stays = pge and kind not in (Invalidation.INVLPG, Invalidation.ALL)
    assert frames(run(script, UPPERS)) == [OLD, OLD if stays else NEW]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("change", "forgets"),
    [
        ({"keep": False}, True),
        ({"control": PGE}, True),
        ({"control": NXE}, True),
        ({"control": SMEP}, True),
        ({"control": 1 << Control.LA57, "root": 0x8000}, True),
        ({"track": Track.NATIVE}, True),
        ({"control": WP}, False),
        ({"root": 0x9000}, False),
    ],
)
@pytest.mark.parametrize("back", [False, True])
def test_what_a_context_makes_it_forget(change: dict[str, Any], forgets: bool, back: bool) -> None:
    """The leaf changed before; `back`: the context is then as it was at first."""

    def script(bench: Directed) -> Steps:
        yield from bench.context()
        yield from bench.ask()
        yield from bench.quiet()
        bench.write(leaf_at(LINEAR), NEW | UPPER | D)
        yield from bench.context(**change)
        yield from bench.taken()
        if back:
            yield from bench.context()
        yield from bench.ask()
        yield from bench.quiet()

    memory = SparseMemory()
    memory.store(0x8000, ROOT | UPPER)
    assert frames(run(script, UPPERS, memory=memory)) == [OLD, NEW if forgets else OLD]


@pytest.mark.thorough
def test_clearing_pcide_is_an_invalidation_of_all_under_pcid_0() -> None:
    """INVPCID 2, and PCID 0 from then on: nothing of any PCID is left, global or not, nor a table above it."""

    def script(bench: Directed) -> Steps:
        bench.write(leaf_at(NEIGHBOUR), OLD | UPPER | D | 1 << EntryBit.G)
        for pcid in (0, 1, 2):
            yield from bench.context(PGE, pcid=pcid)
            for linear in (LINEAR, NEIGHBOUR):
                yield from bench.ask(linear)
                yield from bench.quiet()
        assert walks(bench) == 4
        bench.write(AT[2], PT_2 | UPPER)
        for linear in (LINEAR, NEIGHBOUR):
            bench.write(leaf_at(linear, PT_2), NEW | UPPER | D | 1 << EntryBit.G)
        yield from bench.invalidate(Invalidation.ALL, 0, 0)
        for pcid in (0, 1, 2):
            yield from bench.context(PGE, pcid=pcid)
            for linear in (LINEAR, THIRD, NEIGHBOUR):
                yield from bench.ask(linear)
            yield from bench.quiet()

    bench = run(script, UPPERS)
    assert frames(bench) == [OLD] * 6 + [NEW, None, NEW] * 3


def test_what_stays_set_takes_nothing() -> None:
    """Only a change of PGE, NXE or LA57 takes all, and SMEP only as it is set."""
    memory = SparseMemory()
    memory.store(0x8000, ROOT | UPPER)
    kept = PGE | NXE | SMEP | 1 << Control.LA57

    def script(bench: Directed) -> Steps:
        yield from bench.context(kept, root=0x8000)
        yield from bench.ask()
        yield from bench.quiet()
        bench.write(leaf_at(LINEAR), NEW | UPPER | D)
        yield from bench.context(kept | WP, root=0x8000)
        yield from bench.taken()
        yield from bench.ask()
        yield from bench.quiet()

    assert frames(run(script, UPPERS, memory=memory)) == [OLD, OLD]
