"""More logs made by hand: what goes wrong with several walkers, large pages, refused swaps, PCIDs.

A log of two walkers is judged as one of one walker is: the accesses of each are its own.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ptewalk.cosim.bench.events import Answer, Foreign, Invalidate, LogEvent, Read, Reset, SetContext, Swap, WalkEnd
from ptewalk.model.paging import BusFault, PageFault, State, Translated
from ptewalk.model.x86 import Access, Control, Invalidation

from .test_golden_tlb import (
    AT,
    CHANGED,
    CONTEXT,
    INVLPG,
    LEAF,
    LEAF_AT,
    LINEAR,
    NATIVE,
    NEIGHBOUR,
    NEIGHBOUR_AT,
    OTHER,
    PAGE_FAULT,
    PGE,
    PS,
    RW,
    SD,
    UPPER,
    D,
    G,
    answer,
    asked,
    context,
    hit,
    hold,
    refuse,
    uppers,
    walk,
)
from .test_golden_tlb import (
    FORBIDDEN as PLAIN_FORBIDDEN,
)


def of_walker(number: int, events: list[LogEvent]) -> list[LogEvent]:
    """The same accesses, made by another walker."""
    return [replace(event, walker=number) if isinstance(event, (Read, Swap, WalkEnd)) else event for event in events]


CLEAN = LEAF & ~D
FAULTED = [*uppers(), Read(LEAF_AT, 0), WalkEnd(1), Answer(1, PAGE_FAULT)]
NXE, LA57 = (1 << bit for bit in (Control.NXE, Control.LA57))

READ_ONLY = LEAF & ~RW
STORES: list[LogEvent] = [asked(Access.WRITE, 2), *uppers(), Read(LEAF_AT, READ_ONLY)]
"""A store to a page that is cached, and may not be written."""
DENIED = Answer(2, PageFault(7))

# Two pages of one 2 MiB leaf, a walk for each: both have read the leaf when software takes it away.
LARGE = 0x4000_0000 | UPPER | D | PS
SIBLING = LINEAR + 0x5000


def in_large(linear: int, tag: int, leaf: int = LARGE, level: int = 2) -> Answer:
    low = (1 << 12 + 9 * (level - 1)) - 1
    return Answer(tag, Translated(leaf & 0xFFFF_F000 & ~low | linear & low, level, False, False, False))


SIBLINGS: list[LogEvent] = [
    *(CONTEXT, asked(tag=2), *of_walker(0, [*uppers()[:2], Read(AT[2], LARGE)]), asked(tag=3, linear=SIBLING)),
    *of_walker(1, [*uppers()[:2], Read(AT[2], 0)]),
    *(WalkEnd(3, 1), Answer(3, PAGE_FAULT), WalkEnd(2, 0), in_large(LINEAR, 2)),
]

# A 1 GiB page: its PDPTE is the leaf.
HUGE = 0x8000_0000 | UPPER | D | PS
FAR_INSIDE = LINEAR ^ 1 << 29
WALKED_HUGE: list[LogEvent] = [
    *(CONTEXT, asked(tag=0), uppers()[0], Read(AT[3], HUGE), WalkEnd(0), in_large(LINEAR, 0, HUGE, 3)),
]
HUGE_HIT: list[LogEvent] = [asked(linear=FAR_INSIDE), in_large(FAR_INSIDE, 1, HUGE, 3)]

REFUSED: list[LogEvent] = [
    *(CONTEXT, asked(Access.WRITE, 0), *uppers(), Read(LEAF_AT, CLEAN)),
    *(Swap(LEAF_AT, CLEAN, LEAF, done=False, error=True), WalkEnd(0), Answer(0, BusFault())),
]
CLEARED: list[LogEvent] = [
    *(context(**NATIVE), *walk(LEAF | SD), Foreign(LEAF_AT, CLEAN), INVLPG),
]
GLOBAL_ON = context(control=PGE)
BESIDE: list[LogEvent] = [
    # The page was global; in PCID 2 the same address, by other tables, is not.
    *(GLOBAL_ON, *walk(LEAF | G), SetContext(State(0x9000, PGE), 2, True), asked(tag=0)),
    *(Read(0x9000 + AT[4] % 0x1000, UPPER | 0x2000), *uppers()[1:], Read(LEAF_AT, OTHER), WalkEnd(0)),
    answer(OTHER, tag=0),
]
OVERTAKEN: list[LogEvent] = [
    # One walker's walk is overtaken, the other's begins after the invalidation; they end in the order of their start.
    *(CONTEXT, asked(tag=2), *uppers(), Read(LEAF_AT, LEAF), CHANGED, INVLPG, asked(tag=3)),
    *of_walker(1, [*uppers(), Read(LEAF_AT, OTHER)]),
    *(WalkEnd(2, 0), answer(LEAF, tag=2), WalkEnd(3, 1), answer(OTHER, tag=3)),
]

PERMITTED: dict[str, list[LogEvent]] = {
    "two walkers: the walk that began after the invalidation is kept": [*OVERTAKEN, *hit(OTHER)],
    "two walkers: each swaps what it has read": [
        *(CONTEXT, asked(Access.WRITE, 2), *uppers(), Read(LEAF_AT, CLEAN), asked(Access.WRITE, 3)),
        *of_walker(1, [*uppers(), Read(LEAF_AT, CLEAN), Swap(LEAF_AT, CLEAN, LEAF)]),
        *(WalkEnd(3, 1), answer(LEAF, tag=3), Swap(LEAF_AT, CLEAN, LEAF, done=False), Read(LEAF_AT, LEAF)),
        *(WalkEnd(2, 0), answer(LEAF, tag=2)),
    ],
    "two walkers: who ends last and read first replaces nothing": [
        *(CONTEXT, asked(tag=2), *uppers(), Read(LEAF_AT, LEAF), INVLPG, asked(tag=3)),
        *of_walker(1, [*uppers(), Read(LEAF_AT, LEAF)]),
        *(WalkEnd(3, 1), answer(LEAF, tag=3), WalkEnd(2, 0), answer(LEAF, tag=2), *hit()),
    ],
    "a page fault of a sibling in one large page": SIBLINGS,
    "a 1 GiB page serves all its addresses": [*WALKED_HUGE, *HUGE_HIT],
    "a refused swap ends in a bus error": REFUSED,
    "what was asked before the end of a walk that faults may hit after it": [
        *(CONTEXT, *walk(READ_ONLY), *STORES, asked(tag=3), WalkEnd(2), DENIED, answer(READ_ONLY, tag=3)),
    ],
    "a page that was not there is found as soon as it is": [CONTEXT, asked(), *FAULTED, *walk(), *hit()],
    "what was global stands beside the PCID's own": [*BESIDE, *hit(OTHER)],
    "and either may answer": [*BESIDE, *hit(LEAF | G)],
    "many PCIDs later": [CONTEXT, *walk(), *(context(pcid=pcid) for pcid in range(2, 40)), context(), *hit()],
    "a store after its marks were cleared walks": [
        *(*CLEARED, asked(Access.WRITE, 0), *uppers(), Read(LEAF_AT, CLEAN), Swap(LEAF_AT, CLEAN, LEAF | SD)),
        *(WalkEnd(0), answer(LEAF, tag=0), *hit(access=Access.WRITE)),
    ],
    "a read-modify-write that hits a dirty page": [CONTEXT, *walk(), *hit(access=Access.RMW)],
    "the same tag again, once it is answered": [CONTEXT, *walk(tag=1), *hit(tag=1), *hit(tag=1)],
}

FORBIDDEN: dict[str, tuple[str, list[LogEvent]]] = {
    "two walkers: the overtaken one is kept, since it ended well": ("without a walk", [*OVERTAKEN, *hit(LEAF)]),
    "two walkers: one swaps from what the other has read": (
        "expected 0x",
        [
            *(CONTEXT, asked(Access.WRITE, 2), *uppers(), Read(LEAF_AT, CLEAN), Foreign(LEAF_AT, OTHER & ~D)),
            *(asked(tag=3, linear=LINEAR), *of_walker(1, [*uppers(), Read(LEAF_AT, OTHER & ~D)])),
            *(Swap(LEAF_AT, OTHER & ~D, OTHER), WalkEnd(2, 0), answer(OTHER, tag=2)),
            *(WalkEnd(3, 1), answer(OTHER, tag=3)),
        ],
    ),
    "a request that is walked twice": (
        "was walked 2 times",
        [CONTEXT, asked(), *uppers(), Read(LEAF_AT, LEAF), WalkEnd(1), *walk(LEAF, 1)[1:]],
    ),
    "a large page whose sibling's page fault came while it was walked": (
        "without a walk",
        [*SIBLINGS, asked(), in_large(LINEAR, 1)],
    ),
    "a fragment of a 1 GiB page after INVLPG elsewhere in it": ("without a walk", [*WALKED_HUGE, INVLPG, *HUGE_HIT]),
    "a fragment of a 1 GiB page after a page fault elsewhere in it": (
        "without a walk",
        [
            *WALKED_HUGE,
            asked(Access.READ, 2),
            uppers()[0],
            Read(AT[3], 0),
            WalkEnd(2),
            Answer(2, PAGE_FAULT),
            *HUGE_HIT,
        ],
    ),
    "a refused swap fills": ("without a walk", [*REFUSED, *hit()]),
    "a refused swap fills for stores": ("without a walk", [*REFUSED, *hit(access=Access.WRITE)]),
    "a page fault is cached": ("without a walk", [CONTEXT, asked(), *FAULTED, asked(), Answer(1, PAGE_FAULT)]),
    "a walk that faulted is kept": ("without a walk", [CONTEXT, asked(), *FAULTED, *hit(0)]),
    "what was global, and the PCID's own, ORed": ("without a walk", [*BESIDE, *hit(LEAF | OTHER)]),
    "a PCID that is begun anew, many later": (
        "without a walk",
        [CONTEXT, *walk(), *(context(pcid=pcid) for pcid in range(2, 40)), context(keep=False), *hit()],
    ),
    "a store hits by marks that were cleared": ("without a walk", [*CLEARED, *hit(access=Access.WRITE)]),
    "a store by a read's walk of a clean page": ("without a walk", [CONTEXT, *walk(CLEAN), *hit(CLEAN, Access.RMW)]),
    "a read's answer given to the store that waited with it": (
        "without a walk",
        [CONTEXT, asked(tag=0), asked(Access.WRITE, 1), *walk(LEAF & ~RW)[1:], answer(LEAF)],
    ),
    "what was asked between the end of a walk that faults and its answer": (
        "without a walk",
        [CONTEXT, *walk(READ_ONLY), *STORES, WalkEnd(2), asked(tag=3), DENIED, answer(READ_ONLY, tag=3)],
    ),
    "NXE changes, and nothing is flushed": ("without a walk", [CONTEXT, *walk(), context(control=NXE), *hit()]),
    "LA57 changes, and nothing is flushed": ("without a walk", [CONTEXT, *walk(), context(control=LA57), *hit()]),
    "SMEP is cleared and set again": (
        "without a walk",
        [
            *(context(control=1 << Control.SMEP), *walk(), context(), context(control=1 << Control.SMEP)),
            *hit(),
        ],
    ),
    "a prefetch of the neighbour": ("expected", [CONTEXT, *walk(LEAF, 0, Read(NEIGHBOUR_AT, LEAF))]),
    "a prefetch of the neighbour that nobody asked for": (
        "not in flight",
        [CONTEXT, *walk(), Read(NEIGHBOUR_AT, LEAF), WalkEnd(7), asked(linear=NEIGHBOUR), answer(LEAF, NEIGHBOUR)],
    ),
    "an answer to what was asked before a reset": ("not in flight", [CONTEXT, asked(), Reset(), answer(LEAF)]),
    "INVPCID 0 of an address in a large page, forgotten": (
        "without a walk",
        [
            *(CONTEXT, asked(tag=0), *uppers()[:2], Read(AT[2], LARGE), WalkEnd(0), in_large(LINEAR, 0)),
            *(Invalidate(Invalidation.ADDRESS, SIBLING, 1), asked(), in_large(LINEAR, 1)),
        ],
    ),
}


@pytest.mark.parametrize("name", PERMITTED)
def test_permitted(name: str) -> None:
    hold(PERMITTED[name])


@pytest.mark.parametrize("name", FORBIDDEN)
def test_not_permitted(name: str) -> None:
    """One thing is wrong in each, at its last answer or before."""
    refuse(*FORBIDDEN[name])


def test_documented_logs() -> None:
    """docs/mmu.md names logs that are there."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "mmu.md").read_text()
    named = set(re.findall(r"log `([^`]+)`", text))
    assert len(named) > 30 and named <= {*FORBIDDEN, *PLAIN_FORBIDDEN}, named - {*FORBIDDEN, *PLAIN_FORBIDDEN}
    assert not {*FORBIDDEN} & {*PLAIN_FORBIDDEN}


def test_each_way_to_go_wrong_is_shown_by_the_gateware() -> None:
    """Each row of docs/mmu.md's table names a test of it; tests/test_docs.py says that it exists."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "mmu.md").read_text()
    table = text.partition("| what goes wrong | shown by |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    assert len(table) >= 38
    assert [row for row in table if not re.search(r"`tests/rtl/\w+\.py::test_\w+`", row)] == []
