"""The net of an entry's change against the numpy rules, kernel by kernel, for every way of tracking."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from ptewalk.cosim.driver.engine_masks import ageing, clearing, protecting, taking_written, telling
from ptewalk.model import bulk
from ptewalk.model.linux import PagemapBit, SoftBit, Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.rtl.engine.change import EntryChange, EntryKind

ENTRIES = 200
INTERESTING = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 51, 52, 58, 59, 62, 63)


def draw(rng: random.Random) -> int:
    """An entry: any bits; or few; or a marker."""
    kind = rng.randrange(5)
    if kind == 0:
        return rng.getrandbits(64)
    if kind == 1:
        return sum(1 << bit for bit in INTERESTING if rng.random() < 0.3)
    if kind == 2:
        low = sum(1 << bit for bit in range(12) if rng.random() < 0.5)
        return rng.getrandbits(40) << 12 | low
    if kind == 3:
        flipped = (rng.getrandbits(3) ^ (1 << 50) - 1) << 9
        return rng.choice((30, 31, 26)) << 59 | flipped | rng.getrandbits(4) << 1
    return rng.getrandbits(50) << 9 | rng.getrandbits(5) << 1 | rng.getrandbits(1) << 7


def through(entries: list[int], change: Any, words: Any) -> list[dict[str, int]]:
    """What the net says of each entry."""
    dut = EntryChange()
    told = []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.change, change)
        ctx.set(dut.words, words)
        for entry in entries:
            ctx.set(dut.entry, entry)
            told.append(
                {name: int(ctx.get(getattr(dut, name))) for name in ("new", "changes", "matches", "word")}
                | {"kind": int(ctx.get(dut.kind))}
            )

    simulator = Simulator(dut)
    simulator.add_testbench(bench)
    simulator.run()
    return told


@pytest.mark.thorough
@pytest.mark.parametrize("track", list(Track))
@pytest.mark.parametrize("name", PROFILES)
def test_a_clear_is_the_models(name: str, track: Track) -> None:
    rng = random.Random(f"{name}{track}")
    rules = Entries(PROFILES[name], track=track)
    entries = [draw(rng) for _ in range(ENTRIES)] + [0]
    told = through(entries, clearing(rules), telling(rules))
    expected = np.array(entries, np.uint64)
    words = bulk.pagemap(expected, rules)
    bulk.clear_refs(expected, rules)
    differing = 0
    for entry, found, new, word in zip(entries, told, expected.tolist(), words.tolist(), strict=True):
        assert found["new"] == new, hex(entry)
        assert found["changes"] == (new != entry), hex(entry)
        assert found["word"] == word, hex(entry)
        assert found["matches"] == word >> PagemapBit.SOFT_DIRTY & 1, hex(entry)
        differing += new != entry
    assert differing > len(entries) // 8


@pytest.mark.parametrize("name", PROFILES)
def test_an_ageing_takes_a_of_what_has_a_page(name: str) -> None:
    """clear_refs 1 to 3 (clear_refs_pte_range): A of present and PROT_NONE entries, unless bit 9, SPECIAL, is set."""
    rng = random.Random(name)
    entries = [draw(rng) for _ in range(ENTRIES)] + [0]
    told = through(entries, ageing(), telling(Entries(PROFILES[name])))
    for entry, found in zip(entries, told, strict=True):
        ages = entry & 0x101 and not entry & 0x200
        assert found["new"] == (entry & ~0x20 if ages else entry), hex(entry)
        assert found["changes"] == bool(ages and entry & 0x20), hex(entry)


@pytest.mark.parametrize("track", list(Track))
@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("name", [name for name, kernel in PROFILES.items() if "pagemap_scan" in kernel.verbs])
def test_a_protection_is_the_models(name: str, written: bool, track: Track) -> None:
    """PAGEMAP_SCAN write-protects (make_uffd_wp_pte): what is there, and what maps nothing becomes a marker.

    In one pass with what it tells, only what is not write-protected.
    """
    rng = random.Random(f"{name}{track}")
    rules = Entries(PROFILES[name], track=track)
    entries = [draw(rng) for _ in range(ENTRIES)] + [0, rules.make_uffd_marker()]
    words = bulk.pagemap(np.array(entries, np.uint64), rules).tolist()
    masks = taking_written(rules) if written else protecting(rules)
    for entry, word, found in zip(entries, words, through(entries, masks, telling(rules)), strict=True):
        if written and word >> PagemapBit.UFFD_WP & 1:
            new = entry
        elif entry & 0x101:
            new = rules.pte_mkuffd_wp(entry)
        else:
            new = entry | rules.SWP_UFFD_WP if entry else rules.make_uffd_marker()
        assert found["new"] == new, hex(entry)
        assert found["changes"] == (new != entry), hex(entry)


def test_the_kinds() -> None:
    rules = Entries(PROFILES["linux-6.12"])
    entries = {
        0: "NONE",
        1: "PRESENT",
        0x101: "PRESENT",
        0x100: "HIDDEN",
        0x180: "HIDDEN",
        0x80: "SWAP",
        1 << 63: "SWAP",
    }
    told = through(list(entries), clearing(rules), telling(rules))
    assert [EntryKind(one["kind"]).name for one in told] == list(entries.values())


def test_only_what_matches_changes() -> None:
    """As PAGEMAP_SCAN write-protects (pagemap_scan_pmd_entry): what does not match stays."""
    written = 1 << SoftBit.UFFD_WP
    change = {
        "present": {
            "clear": {"low": 2, "high": 0},
            "set": {"low": written, "high": 1 << 11},
            "match": {"low": 0x800, "high": 1},
        },
        "only_matching": 1,
    }
    told = through([0x803, 0x3, 1 << 52 | 3, 0x802], change, {})
    protected = 0x801 | written | 1 << 63
    assert [one["new"] for one in told] == [protected, 0x3, 1 << 52 | 1 | written | 1 << 63, 0x802]
    assert [one["changes"] for one in told] == [1, 0, 1, 0]
    assert [one["matches"] for one in told] == [1, 0, 1, 0]


def test_a_frame_never_changes() -> None:
    ones = {"low": 0xFFF, "high": 0xFFF}
    kind = {"clear": ones, "set": {"low": 0, "high": 0}, "match": ones}
    rng = random.Random(5)
    entries = [draw(rng) for _ in range(300)]
    frame = (1 << 52) - (1 << 12)
    told = through(entries, {"present": kind, "hidden": kind, "swap": kind, "arm": 1, "save_dirty": 1}, {})
    assert all(one["new"] & frame == entry & frame for one, entry in zip(told, entries, strict=True))
    assert sum(one["changes"] for one in told) > 200
