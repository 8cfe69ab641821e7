"""The golden TLB on logs made by hand: for each trap of a cache of translations one log that is permitted, and one not.

The entries are typed by hand. Every log ends in one access that a cache answers, or in a walk.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from ptewalk.cosim.bench.events import (
    Accept,
    Answer,
    Foreign,
    Invalidate,
    LogEvent,
    Read,
    Reset,
    SetContext,
    Swap,
    WalkEnd,
)
from ptewalk.cosim.checks.golden_tlb import GoldenTlb, judge
from ptewalk.cosim.checks.minima import DISCRIMINATING
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import BusFault, GeneralProtection, PageFault, Request, State, Translated
from ptewalk.model.x86 import Access, Control, Invalidation

LINEAR = 0x0000_1234_5678_9ABC
NEIGHBOUR = LINEAR + 0x1000  # in the same 2 MiB
ROOT, PDPT, PD, PT = 0x1000, 0x2000, 0x3000, 0x4000
AT = {4: ROOT + (LINEAR >> 39 & 511) * 8, 3: PDPT + (LINEAR >> 30 & 511) * 8, 2: PD + (LINEAR >> 21 & 511) * 8}
LEAF_AT = PT + (LINEAR >> 12 & 511) * 8
P, RW, US, A, D, PS, G, SD = 1, 2, 4, 0x20, 0x40, 0x80, 0x100, 0x800
LEAF = 0x71_0000 | P | RW | US | A | D
OTHER = 0x72_0000 | P | RW | US | A | D
PAGE_FAULT = PageFault(4)
INVLPG = Invalidate(Invalidation.INVLPG, LINEAR)
CONTEXT = SetContext(State(ROOT), 1)
UPPER = P | RW | US | A


def answer(leaf: int, linear: int = LINEAR, tag: int = 1) -> Answer:
    return Answer(tag, Translated(leaf & 0xFF_F000 | linear & 0xFFF, 1, False, False, False))


def asked(access: Access = Access.READ, tag: int = 1, linear: int = LINEAR) -> Accept:
    return Accept(tag, Request(linear, access))


def uppers() -> list[LogEvent]:
    return [Read(AT[4], PDPT | UPPER), Read(AT[3], PD | UPPER), Read(AT[2], PT | UPPER)]


def walk(leaf: int = LEAF, tag: int = 0, *between: LogEvent, access: Access = Access.READ) -> list[LogEvent]:
    """A request that is walked: `between` falls after the uppers were read, before the leaf is."""
    leaf_read = Read(LEAF_AT, leaf)
    return [asked(access, tag), *uppers(), *between, leaf_read, WalkEnd(tag), answer(leaf, tag=tag)]


def hit(leaf: int = LEAF, access: Access = Access.READ, tag: int = 1) -> list[LogEvent]:
    return [asked(access, tag), answer(leaf, tag=tag)]


def context(*, keep: bool = True, pcid: int = 1, control: int = 0, **fields: object) -> SetContext:
    return SetContext(State(ROOT, control, **fields), pcid, keep)  # type: ignore[arg-type]


PGE = 1 << Control.PGE
NATIVE = {"track": Track.NATIVE}
CHANGED = Foreign(LEAF_AT, OTHER)

PERMITTED: dict[str, list[LogEvent]] = {
    "a hit": [CONTEXT, *walk(), *hit()],
    "a stale hit before any invalidation": [CONTEXT, *walk(), CHANGED, *hit()],
    "the old answer to a request accepted before the invalidation": [
        *(CONTEXT, *walk(), CHANGED, asked(), INVLPG, answer(LEAF))
    ],
    "a walk after it": [CONTEXT, *walk(), CHANGED, INVLPG, *walk(OTHER, 1), *hit(OTHER)],
    "an overtaken walk answers its own request": [CONTEXT, *walk(LEAF, 0, INVLPG)],
    "INVLPG of another page": [CONTEXT, *walk(), Invalidate(Invalidation.INVLPG, NEIGHBOUR), *hit()],
    "INVPCID 0 of another PCID": [CONTEXT, *walk(), Invalidate(Invalidation.ADDRESS, LINEAR, 2), *hit()],
    "INVPCID 0 spares global": [
        *(context(control=PGE), *walk(LEAF | G), Invalidate(Invalidation.ADDRESS, LINEAR, 1), *hit(LEAF | G))
    ],
    "INVPCID 1 of another PCID": [CONTEXT, *walk(), Invalidate(Invalidation.PCID, 0, 2), *hit()],
    "INVPCID 3 spares global": [
        *(context(control=PGE), *walk(LEAF | G), Invalidate(Invalidation.NOT_GLOBAL), *hit(LEAF | G))
    ],
    "a global page in another PCID": [
        *(context(control=PGE), *walk(LEAF | G), context(control=PGE, pcid=2), *hit(LEAF | G))
    ],
    "back to a PCID with keep": [CONTEXT, *walk(), context(pcid=2), context(pcid=1), *hit()],
    "another root under the same PCID with keep": [CONTEXT, *walk(), SetContext(State(0x9000), 1, True), *hit()],
    "a store to a dirty page": [CONTEXT, *walk(), *hit(access=Access.WRITE)],
    "a store marked by its own walk, then a hit": [
        *(CONTEXT, asked(Access.WRITE, 0), *uppers(), Read(LEAF_AT, LEAF & ~D), Swap(LEAF_AT, LEAF & ~D, LEAF)),
        *(WalkEnd(0), answer(LEAF, tag=0), *hit(access=Access.WRITE)),
    ],
    "a swap that failed, then the value read again": [
        *(CONTEXT, asked(Access.WRITE, 0), *uppers(), Read(LEAF_AT, LEAF & ~D)),
        *(Swap(LEAF_AT, LEAF & ~D, LEAF, done=False), Read(LEAF_AT, OTHER), WalkEnd(0), answer(OTHER, tag=0)),
    ],
    "native: a store to a soft-dirty page": [context(**NATIVE), *walk(LEAF | SD), *hit(access=Access.WRITE)],
    "a page fault of its own walk": [
        *(CONTEXT, *walk(), Foreign(LEAF_AT, 0), asked(), *uppers(), Read(LEAF_AT, 0), WalkEnd(1)),
        Answer(1, PAGE_FAULT),
    ],
    "answers in another order": [
        CONTEXT,
        *walk(),
        asked(tag=5),
        asked(tag=6),
        answer(LEAF, tag=6),
        answer(LEAF, tag=5),
    ],
    "the sign, without a walk": [CONTEXT, asked(linear=1 << 62), Answer(1, GeneralProtection())],
    "a bus error of its own walk": [*(CONTEXT, asked(), Read(AT[4], 0, error=True), WalkEnd(1), Answer(1, BusFault()))],
    "WP=0 lets the supervisor store": [
        *(CONTEXT, *walk(LEAF & ~RW), Accept(1, Request(LINEAR, Access.WRITE, user=False)), answer(LEAF))
    ],
}

FORBIDDEN: dict[str, tuple[str, list[LogEvent]]] = {
    "a stale hit after INVLPG": ("without a walk", [CONTEXT, *walk(), CHANGED, INVLPG, *hit()]),
    "a hit on what an overtaken walk read": ("without a walk", [CONTEXT, *walk(LEAF, 0, INVLPG), *hit()]),
    "a walk whose leaf was read after, and its uppers before": (
        "without a walk",
        [CONTEXT, *walk(LEAF, 0, Invalidate(Invalidation.ALL)), *hit()],
    ),
    "a fill in the cycle of an invalidation": (
        "without a walk",
        [CONTEXT, asked(tag=0), *uppers(), Read(LEAF_AT, LEAF), INVLPG, WalkEnd(0), answer(LEAF, tag=0), *hit()],
    ),
    "INVPCID 0 forgotten": ("without a walk", [CONTEXT, *walk(), Invalidate(Invalidation.ADDRESS, LINEAR, 1), *hit()]),
    "INVPCID 1 forgotten": ("without a walk", [CONTEXT, *walk(), Invalidate(Invalidation.PCID, 0, 1), *hit()]),
    "INVPCID 2 spares global": (
        "without a walk",
        [context(control=PGE), *walk(LEAF | G), Invalidate(Invalidation.ALL), *hit(LEAF | G)],
    ),
    "INVPCID 3 forgotten": ("without a walk", [CONTEXT, *walk(), Invalidate(Invalidation.NOT_GLOBAL), *hit()]),
    "INVLPG leaves the global entry of another PCID": (
        "without a walk",
        [context(control=PGE), *walk(LEAF | G), context(control=PGE, pcid=2), INVLPG, *hit(LEAF | G)],
    ),
    "a context without keep forgets nothing": ("without a walk", [CONTEXT, *walk(), context(keep=False), *hit()]),
    "PGE changes, and nothing is flushed": (
        "without a walk",
        [context(control=PGE), *walk(LEAF | G), context(), *hit(LEAF | G)],
    ),
    "SMEP is set, and nothing is flushed": (
        "without a walk",
        [CONTEXT, *walk(), context(control=1 << Control.SMEP), *hit()],
    ),
    "TRACK changes, and nothing is flushed": ("without a walk", [CONTEXT, *walk(LEAF), context(**NATIVE), *hit()]),
    "G counts without CR4.PGE": ("without a walk", [CONTEXT, *walk(LEAF | G), context(pcid=2), *hit(LEAF | G)]),
    "an entry of another PCID": ("without a walk", [CONTEXT, *walk(), context(pcid=2), *hit()]),
    "a page fault leaves what it faulted on": (
        "without a walk",
        [*PERMITTED["a page fault of its own walk"], *hit()],
    ),
    "a page fault by what is cached": (
        "without a walk",
        [CONTEXT, *walk(LEAF & ~RW), asked(Access.WRITE), Answer(1, PageFault(7))],
    ),
    "a page fault that its walk does not say": (
        "its walk says",
        [CONTEXT, asked(), *uppers(), Read(LEAF_AT, LEAF), WalkEnd(1), Answer(1, PAGE_FAULT)],
    ),
    "a store to a clean page": ("without a walk", [CONTEXT, *walk(LEAF & ~D), *hit(LEAF & ~D, Access.WRITE)]),
    "native: a store to a page that is not soft-dirty": (
        "without a walk",
        [context(**NATIVE), *walk(LEAF), *hit(access=Access.WRITE)],
    ),
    "a store that its walk did not mark": (
        "expected Swap",
        [CONTEXT, *walk(LEAF & ~D, 0, access=Access.WRITE)],
    ),
    "a swap that failed fills": (
        "without a walk",
        [
            *(CONTEXT, asked(Access.WRITE, 0), *uppers(), Read(LEAF_AT, LEAF & ~D)),
            *(Swap(LEAF_AT, LEAF & ~D, LEAF, done=False), Read(LEAF_AT, OTHER), WalkEnd(0), answer(OTHER, tag=0)),
            *hit(LEAF),
        ],
    ),
    "a swap from a value that was not read": (
        "expected 0x",
        [CONTEXT, asked(Access.WRITE, 0), *uppers(), Read(LEAF_AT, LEAF & ~D), Swap(LEAF_AT, OTHER, LEAF), WalkEnd(0)],
    ),
    "a probe fills": ("without a walk", [CONTEXT, *walk(access=Access.PROBE), *hit()]),
    "the other page of two": ("without a walk", [CONTEXT, *walk(), *hit(OTHER)]),
    "two frames ORed": ("without a walk", [CONTEXT, *walk(), CHANGED, INVLPG, *walk(OTHER, 1), *hit(LEAF | OTHER)]),
    "a hit of an address that is not canonical": (
        "answered Translated",
        [CONTEXT, *walk(), asked(linear=LINEAR | 1 << 62), answer(LEAF)],
    ),
    "two answers": ("not in flight", [CONTEXT, *walk(), *hit(), answer(LEAF)]),
    "no answer": ("was not answered", [CONTEXT, *walk(), asked()]),
    "an access for nobody": ("belong to no walk", [CONTEXT, *walk(), Read(AT[4], 0)]),
    "a tag twice in flight": ("while it is in flight", [CONTEXT, *walk(), asked(), asked(), answer(LEAF)]),
    "a walk that began before its request": (
        "began before",
        [CONTEXT, *uppers(), asked(), Read(LEAF_AT, LEAF), WalkEnd(1), answer(LEAF)],
    ),
    "a context under a walk": ("while a request was in flight", [CONTEXT, asked(), CONTEXT, *walk()[1:-2]]),
    "after a reset": ("without a walk", [CONTEXT, *walk(), Reset(), CONTEXT, *hit()]),
}

NEIGHBOUR_AT = LEAF_AT + 8
FAR = Invalidate(Invalidation.INVLPG, LINEAR + (1 << 40))


def below(leaf: int, *reads: LogEvent, access: Access = Access.READ) -> list[LogEvent]:
    """A walk of the neighbour that begins below its upper entries, but for those of `reads`."""
    accesses = (*reads, Read(NEIGHBOUR_AT, leaf))
    return [asked(access, 1, NEIGHBOUR), *accesses, WalkEnd(1), answer(leaf, NEIGHBOUR)]


def faulted(*accesses: LogEvent) -> list[LogEvent]:
    return [asked(linear=NEIGHBOUR), *accesses, WalkEnd(1), Answer(1, PAGE_FAULT)]


PERMITTED |= {
    "a walk below a cached PDE": [CONTEXT, *walk(), *below(OTHER)],
    "a walk below a cached PDPTE": [CONTEXT, *walk(), *below(OTHER, Read(AT[2], PT | UPPER))],
    "a walk below what an own swap gave A": [
        *(CONTEXT, asked(tag=0), *uppers()[:2], Read(AT[2], PT | P | RW | US)),
        *(Swap(AT[2], PT | P | RW | US, PT | UPPER), Read(LEAF_AT, LEAF), WalkEnd(0), answer(LEAF, tag=0)),
        *below(OTHER),
    ],
    "a stale PDE before any invalidation": [CONTEXT, *walk(), Foreign(AT[2], 0), *below(OTHER)],
    "a walk below a PDE for a request accepted before INVLPG": [
        *(CONTEXT, *walk(), asked(linear=NEIGHBOUR), INVLPG, Read(NEIGHBOUR_AT, OTHER)),
        *(WalkEnd(1), answer(OTHER, NEIGHBOUR)),
    ],
    "a page fault below a PDE, found again from the root": [
        *(CONTEXT, *walk(), *faulted(Read(NEIGHBOUR_AT, 0), *uppers(), Read(NEIGHBOUR_AT, 0)))
    ],
    "no page fault from the root any more": [
        *(CONTEXT, *walk(), asked(linear=NEIGHBOUR), Read(NEIGHBOUR_AT, 0), *uppers(), Read(NEIGHBOUR_AT, OTHER)),
        *(WalkEnd(1), answer(OTHER, NEIGHBOUR)),
    ],
    "INVPCID 0 of an address under another PML4E": [
        *(CONTEXT, *walk(), Invalidate(Invalidation.ADDRESS, LINEAR + (1 << 40), 1), *below(OTHER))
    ],
    "back to a PCID with keep, below its PDE": [CONTEXT, *walk(), context(pcid=2), context(pcid=1), *below(OTHER)],
    "what is walked below a PDE is cached": [
        *(CONTEXT, *walk(), *below(OTHER), asked(linear=NEIGHBOUR), answer(OTHER, NEIGHBOUR))
    ],
}
BELOW = "expected Read at 0x1"  # of the root's entry
APART, PT_APART = LINEAR + (1 << 21), 0x6000  # under another PDE of the same table
APART_AT = PT_APART + (APART >> 12 & 511) * 8
PERMITTED |= {
    "a walk below what a page fault takes, for a request accepted before it": [
        *(CONTEXT, *walk(), asked(tag=2, linear=APART)),
        *faulted(Read(NEIGHBOUR_AT, 0), *uppers(), Read(NEIGHBOUR_AT, 0)),
        *(Read(AT[2] + 8, PT_APART | UPPER), Read(APART_AT, OTHER), WalkEnd(2), answer(OTHER, APART, 2)),
    ],
}
FORBIDDEN |= {
    "a PDE that such a walk read": (
        BELOW,
        [
            *PERMITTED["a walk below what a page fault takes, for a request accepted before it"],
            *(asked(linear=APART + 0x1000), Read(APART_AT + 8, LEAF), WalkEnd(1), answer(LEAF, APART + 0x1000)),
        ],
    ),
    "a PDE after INVLPG of any address": (BELOW, [CONTEXT, *walk(), FAR, *below(OTHER)]),
    "a PDE after INVPCID 0 of its neighbour": (
        BELOW,
        [CONTEXT, *walk(), Invalidate(Invalidation.ADDRESS, LINEAR, 1), *below(OTHER)],
    ),
    "a PDE after INVPCID 1": (BELOW, [CONTEXT, *walk(), Invalidate(Invalidation.PCID, 0, 1), *below(OTHER)]),
    "a PDE after INVPCID 2": (BELOW, [CONTEXT, *walk(), Invalidate(Invalidation.ALL), *below(OTHER)]),
    "a PDE after INVPCID 3": (BELOW, [CONTEXT, *walk(), Invalidate(Invalidation.NOT_GLOBAL), *below(OTHER)]),
    "a PDE after a context without keep": (BELOW, [CONTEXT, *walk(), context(keep=False), *below(OTHER)]),
    "a PDE after NXE changed": (BELOW, [CONTEXT, *walk(), context(control=1 << Control.NXE), *below(OTHER)]),
    "a PDE after a page fault beside it": (
        BELOW,
        [*PERMITTED["a page fault below a PDE, found again from the root"], *below(OTHER)],
    ),
    "a PDE of another PCID": (
        "expected Read at 0x9",
        [CONTEXT, *walk(), SetContext(State(0x9000), 2, True), *below(OTHER)],
    ),
    "a PDE without A": (
        BELOW,
        [
            *(CONTEXT, asked(Access.PROBE, 0), *uppers()[:2], Read(AT[2], PT | P | RW | US), Read(LEAF_AT, LEAF)),
            *(WalkEnd(0), answer(LEAF, tag=0), *below(OTHER)),
        ],
    ),
    "a page fault that rests on a PDE": (BELOW, [CONTEXT, *walk(), *faulted(Read(NEIGHBOUR_AT, 0))]),
    "R/W of what stands above a PDE forgotten": (
        BELOW,
        [
            *(CONTEXT, asked(tag=0), Read(AT[4], PDPT | UPPER), Read(AT[3], PD | UPPER & ~RW), uppers()[2]),
            *(Read(LEAF_AT, LEAF), WalkEnd(0), answer(LEAF, tag=0)),
            *(Accept(1, Request(NEIGHBOUR, Access.WRITE)), Read(NEIGHBOUR_AT, OTHER), WalkEnd(1)),
            answer(OTHER, NEIGHBOUR),
        ],
    ),
    "a translation whose leaf was read after INVLPG of another page, and what is above before": (
        "without a walk",
        [CONTEXT, *walk(LEAF, 0, FAR), *hit()],
    ),
    "a translation made below a PDE that INVLPG of another page took meanwhile": (
        "without a walk",
        [
            *(CONTEXT, *walk(), asked(linear=NEIGHBOUR), FAR, Read(NEIGHBOUR_AT, OTHER), WalkEnd(1)),
            *(answer(OTHER, NEIGHBOUR), asked(linear=NEIGHBOUR), answer(OTHER, NEIGHBOUR)),
        ],
    ),
}


def hold(events: list[LogEvent]) -> None:
    """The log is permitted, and all its answers were judged."""
    golden = judge(events)
    assert golden.problems == [] and golden.wrong == 0
    assert golden.counts["answers"] == sum(isinstance(event, Answer) for event in events)


def refuse(text: str, events: list[LogEvent]) -> None:
    """The log is not permitted, and that is why."""
    golden = judge(events)
    assert golden.wrong and any(text in problem for problem in golden.problems), golden.problems


@pytest.mark.parametrize("name", PERMITTED)
def test_permitted(name: str) -> None:
    hold(PERMITTED[name])


@pytest.mark.parametrize("name", FORBIDDEN)
def test_not_permitted(name: str) -> None:
    refuse(*FORBIDDEN[name])


def large(leaf: int) -> list[LogEvent]:
    return [asked(tag=0), *uppers()[:2], Read(AT[2], leaf), WalkEnd(0), _large_answer(leaf, LINEAR, 0)]


def _large_answer(leaf: int, linear: int, tag: int) -> Answer:
    return Answer(tag, Translated(leaf & 0xFFE0_0000 | linear & 0x1F_FFFF, 2, False, False, False))


LARGE = 0x4000_0000 | UPPER | D | PS


def test_a_large_page_serves_its_neighbours_until_invlpg_of_any_of_them() -> None:
    neighbour = [asked(linear=NEIGHBOUR), _large_answer(LARGE, NEIGHBOUR, 1)]
    assert not judge([CONTEXT, *large(LARGE), *neighbour]).wrong
    golden = judge([CONTEXT, *large(LARGE), INVLPG, *neighbour])
    assert "without a walk" in golden.problems[0]


def test_both_sizes_of_one_address_are_permitted_until_it_is_invalidated() -> None:
    """Software went from 2 MiB to 4 KiB: either may answer [SDM 3A 4.10.2.3]."""
    both = [CONTEXT, *large(LARGE), *walk(LEAF, 1)]
    for last in ([asked(), answer(LEAF)], [asked(), _large_answer(LARGE, LINEAR, 1)]):
        golden = judge([*both, *last])
        assert not golden.wrong and golden.counts["many"] == 2
        assert judge([*both, INVLPG, *last]).wrong


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        ("INVLPG", [INVLPG]),
        ("ADDRESS", [Invalidate(Invalidation.ADDRESS, LINEAR, 1)]),
        ("PCID", [Invalidate(Invalidation.PCID, 0, 1)]),
        ("ALL", [Invalidate(Invalidation.ALL)]),
        ("NOT_GLOBAL", [Invalidate(Invalidation.NOT_GLOBAL)]),
        ("CONTEXT", [context(keep=False)]),
        ("CONTROL", [context(control=1 << Control.NXE)]),
        ("OTHER_PCID", [context(pcid=2)]),
    ],
)
def test_an_access_discriminates_when_ignoring_the_event_would_permit_another_answer(
    kind: str, events: list[LogEvent]
) -> None:
    fresh = walk(OTHER, 1)
    golden = judge([CONTEXT, *walk(), CHANGED, *events, *fresh])
    assert not golden.wrong
    assert {name: golden.counts[name] for name in DISCRIMINATING if golden.counts[name]} == {kind: 1}
    unchanged = judge([CONTEXT, *walk(), *events, *walk(LEAF, 1)])
    assert not any(unchanged.counts[name] for name in DISCRIMINATING)


def test_a_change_of_la57_discriminates_where_the_address_has_both() -> None:
    """What was made of four levels would be another page's answer below the root of five."""
    five = SetContext(State(0x9000, 1 << Control.LA57), 1, keep=True)
    below = [Read(0x9000 + (LINEAR >> 48) * 8, ROOT | UPPER), *uppers(), Read(LEAF_AT, OTHER), WalkEnd(1)]
    golden = judge([CONTEXT, *walk(), CHANGED, five, asked(), *below, answer(OTHER, tag=1), *hit(OTHER)])
    assert not golden.wrong
    assert {name: golden.counts[name] for name in DISCRIMINATING if golden.counts[name]} == {"LA57": 2}
    assert judge([CONTEXT, *walk(), CHANGED, five, asked(), *below, answer(OTHER, tag=1), *hit()]).wrong
    beyond = LINEAR | 1 << 48
    below[0] = Read(0x9000 + 8, ROOT | UPPER)
    asks = asked(tag=1, linear=beyond)
    golden = judge(
        [five, asks, *below, answer(OTHER, beyond), replace(CONTEXT, keep=True), asks, Answer(1, GeneralProtection())]
    )
    assert not golden.wrong and not any(golden.counts[name] for name in DISCRIMINATING)


def test_counts() -> None:
    golden = judge([CONTEXT, *walk(LEAF, 0, INVLPG), *walk(LEAF, 1), *hit(), *hit()])
    assert {name: golden.counts[name] for name in ("answers", "walks", "hits", "overtaken", "many")} == {
        "answers": 4,
        "walks": 2,
        "hits": 2,
        "overtaken": 1,
        "many": 0,
    }


def test_counts_of_walks_below_the_root() -> None:
    fault = PERMITTED["a page fault below a PDE, found again from the root"]
    golden = judge([*PERMITTED["a walk below a cached PDE"], *fault[len(walk()) + 1 :]])
    assert (golden.counts["walks"], golden.counts["partial"], golden.counts["restarts"]) == (3, 2, 1)


def test_reads_and_swaps_against_the_shadow_memory() -> None:
    shadow = SparseMemory()
    for address, value in ((AT[4], PDPT | UPPER), (AT[3], PD | UPPER), (AT[2], PT | UPPER), (LEAF_AT, LEAF)):
        shadow.store(address, value)
    assert not judge([CONTEXT, *walk(), CHANGED, INVLPG, *walk(OTHER, 1)], shadow=shadow.copy()).wrong
    stale = judge([CONTEXT, *walk(), CHANGED, INVLPG, *walk(LEAF, 1)], shadow=shadow.copy())
    assert "gave 0x" in stale.problems[0]


def test_stale_translations_do_not_pile_up() -> None:
    """A page that is walked again and again is judged as it was at first."""
    golden = GoldenTlb(physical_bits=40)
    golden.feed([CONTEXT])
    for _ in range(50):
        golden.feed([*walk(), INVLPG])
    golden.feed([*walk(OTHER, 1), *hit(OTHER)])
    assert not golden.wrong
    golden.feed(hit(LEAF))
    assert golden.wrong


def test_contexts_judge_what_is_cached() -> None:
    """The key register says otherwise now: a walk, and its page fault; no flush is needed."""
    denied = context(control=1 << Control.PKE, pkru=1)
    allowed = replace(denied, state=replace(denied.state, pkru=0))
    assert judge([allowed, *walk(), denied, *hit()]).wrong
    assert not judge([allowed, *walk(), denied, allowed, *hit()]).wrong
