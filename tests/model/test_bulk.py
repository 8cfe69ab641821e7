"""Bulk operations against the helpers applied to one entry at a time."""

from __future__ import annotations

import importlib.util
import random
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from ptewalk.cosim.formats.samples import KERNELS as RECORDED
from ptewalk.cosim.formats.scenarios import load
from ptewalk.model import Machine, bulk
from ptewalk.model.kernel import Kernel
from ptewalk.model.linux import PagemapBit, SoftBit, Track
from ptewalk.model.proc import pagemap
from ptewalk.model.profile import Profile
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import FRAME, PROTNONE, RW, SPECIAL, UFFD_WP, Entries, P
from ptewalk.model.scenario import replay, report
from ptewalk.model.x86 import TABLE_ENTRIES, EntryBit

COUNT = 40_000  # more than two pieces, and not a multiple of eight
KERNELS = ("linux-seed", "linux-3.11", "linux-6.1", "linux-6.12")
COMPILED = [
    False,
    pytest.param(
        True, marks=pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="numba is not installed")
    ),
]


def entries_of(rng: random.Random, rules: Entries, count: int = COUNT) -> np.ndarray:
    """Entries of every kind: none, present, PROT_NONE, swap-like; any software bits."""
    rows = []
    for _ in range(count):
        kind = rng.choice("nppppppxs")
        if kind == "n":
            rows.append(0)
        elif kind == "s":
            value = rules.swp_entry_to_pte(rng.randrange(1, 3), rng.randrange(1, 1 << 20))
            rows.append(value | rng.choice((0, rules.SWP_SOFT_DIRTY)) | rng.choice((0, rules.SWP_UFFD_WP)))
        else:
            low = rng.getrandbits(12) & 0xE7E | (PROTNONE if kind == "x" else P)
            value = rng.getrandbits(28) << 12 | low | rng.getrandbits(1) << 63 | rng.getrandbits(1) << 58
            rows.append(value & ~RW & ~(1 << 58) if kind == "x" else value)
    return np.array(rows, np.uint64)


def cleared(entry: int, rules: Entries, profile: Profile, track: Track, permit: bool) -> int:
    """One entry after clear_refs 4, row by row of docs/soft-dirty.md's table."""
    if not entry & (P | PROTNONE):
        return entry & ~rules.SWP_SOFT_DIRTY if profile.bulk_clears_swap else entry
    if track == Track.NATIVE:
        return rules.pte_clear_soft_dirty(entry)
    arm = entry & RW and permit and track == Track.FAULT
    kept = entry & rules.ARM
    after = rules.pte_clear_soft_dirty(rules.pte_wrprotect(entry)) | kept
    return after | rules.ARM if arm else after


def word(entry: int, rules: Entries, profile: Profile) -> int:
    """One pagemap word without what is the frame's, by fs/proc/task_mmu.c:pte_to_pagemap_entry."""
    if not entry:
        return 0
    if entry & (P | PROTNONE):
        found = rules.pte_pfn(entry) | 1 << PagemapBit.PRESENT
        found |= bool(entry & rules.SOFT_DIRTY) << PagemapBit.SOFT_DIRTY
        if profile.bulk_tells_uffd:
            found |= bool(entry & UFFD_WP) << PagemapBit.UFFD_WP
        return found
    found = 1 << PagemapBit.SWAP | (rules.swp_type(entry) | rules.swp_offset(entry) << 5) & (1 << 55) - 1
    mask = rules.SWP_SOFT_DIRTY | (rules.SOFT_DIRTY if profile.bulk_reads_offset else 0)
    found |= bool(entry & mask) << PagemapBit.SOFT_DIRTY
    wp = entry & rules.SWP_UFFD_WP or rules.swp_type(entry) == profile.pte_swap.marker_type
    return found | (bool(wp and rules.SWP_UFFD_WP) << PagemapBit.UFFD_WP)


@pytest.mark.thorough
@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("permit", [True, False])
@pytest.mark.parametrize("track", Track)
@pytest.mark.parametrize("name", KERNELS)
def test_clear_refs(name: str, track: Track, permit: bool, compiled: bool) -> None:
    profile = PROFILES[name]
    rules = Entries(profile, track=track)
    before = entries_of(random.Random(3), rules)
    expected = [cleared(entry, rules, profile, track, permit) for entry in before.tolist()]
    after = before.copy()
    bulk.clear_refs(after, rules, permit=permit, compiled=compiled)
    assert after.tolist() == expected
    assert sum(a != b for a, b in zip(expected, before.tolist(), strict=True)) > COUNT // 10


@pytest.mark.thorough
@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("name", KERNELS)
def test_pagemap(name: str, compiled: bool) -> None:
    profile = PROFILES[name]
    rules = Entries(profile)
    entries = entries_of(random.Random(4), rules)
    expected = [word(entry, rules, profile) for entry in entries.tolist()]
    assert bulk.pagemap(entries, rules, compiled=compiled).tolist() == expected


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("track", Track)
@pytest.mark.parametrize("name", KERNELS)
def test_scan_is_pagemap_then_clear(name: str, track: Track, compiled: bool) -> None:
    rules = Entries(PROFILES[name], track=track)
    entries = entries_of(random.Random(5), rules, 10_001)
    dirty = bulk.pagemap(entries, rules) >> np.uint64(PagemapBit.SOFT_DIRTY) & np.uint64(1)
    expected = entries.copy()
    bulk.clear_refs(expected, rules)
    bitmap = bulk.scan(entries, rules, compiled=compiled)
    assert np.unpackbits(bitmap, bitorder="little")[: len(entries)].tolist() == dirty.tolist()
    assert entries.tolist() == expected.tolist()
    assert 0 < dirty.sum() < len(dirty)


def test_feature_off_changes_nothing() -> None:
    rules = Entries(PROFILES["linux-6.1"], soft_dirty=False)
    entries = entries_of(random.Random(6), Entries(PROFILES["linux-6.1"]))
    before = entries.copy()
    bulk.clear_refs(entries, rules)
    assert (entries == before).all()
    present = (entries & np.uint64(P)) != 0
    words = bulk.pagemap(entries, rules)
    assert not (words[present] >> np.uint64(PagemapBit.SOFT_DIRTY) & np.uint64(1)).any()


@pytest.mark.parametrize("wrong", [[1, 2], np.zeros(4, np.int64), np.zeros((2, 2), np.uint64), SimpleNamespace()])
def test_wrong_arrays(wrong: object) -> None:
    with pytest.raises(TypeError, match="entries must be a one-dimensional uint64 array, not "):
        bulk.clear_refs(wrong, Entries(PROFILES["linux-6.1"]))  # type: ignore[arg-type]


def test_entries_that_lie_apart() -> None:
    with pytest.raises(TypeError, match="entries must lie side by side, not 16 bytes apart"):
        bulk.clear_refs(np.zeros(8, np.uint64)[::2], Entries(PROFILES["linux-6.1"]))


@pytest.mark.parametrize("compiled", COMPILED)
def test_any_length_at_any_place(compiled: bool) -> None:
    """Neither side of the entries changes, nor of the words."""
    rules = Entries(PROFILES["linux-6.12"], track=Track.FAULT)
    whole = entries_of(random.Random(7), rules, 3000)
    expected = [word(entry, rules, rules.profile) for entry in whole.tolist()]
    after = [cleared(entry, rules, rules.profile, Track.FAULT, True) for entry in whole.tolist()]
    for start, count in ((0, 0), (0, 1), (1, 7), (3, 64), (5, 511), (2, 513), (9, 1024), (11, 2989)):
        end = start + count
        entries, words = whole.copy(), np.full(len(whole) + 2, 5, np.uint64)
        bulk.pagemap(entries[start:end], rules, out=words[start + 1 : end + 1], compiled=compiled)
        assert words.tolist() == [5] * (start + 1) + expected[start:end] + [5] * (len(whole) + 1 - end)
        bulk.clear_refs(entries[start:end], rules, compiled=compiled)
        assert entries.tolist() == whole[:start].tolist() + after[start:end] + whole[end:].tolist()


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("name", ["linux-seed", "linux-6.1", "linux-6.12"])
def test_whole_areas(machine: type, name: str, compiled: bool) -> None:
    """/proc over many tables at once, with areas that end inside a table: entry by entry the same."""
    tables = 70
    m = machine(name)
    m.kernel.compiled = compiled
    rules, base = m.mm().entries, m.kernel.base
    m.mmap(3, 512 * tables)
    m.mmap(512 * tables + 3, 200, "r")
    m.clear()
    for page in range(3, 512 * tables + 203, 509):
        m.write(page)
        m.read(page + 1)
    m.read(512 * tables + 3, 100)
    m.madvise(1024, 300, "PAGEOUT")

    def entries() -> list[int]:
        return [entry for block in range(tables + 1) for entry in m.mm().tables.part(*at(block)).tolist()]

    def at(block: int) -> tuple[int, int]:
        first = base + 512 * block
        return first, first + 512

    before = entries()
    assert sum(map(bool, before)) > tables
    words = pagemap.read(m.mm(), base, len(before)).tolist()
    told = ~(1 << PagemapBit.FILE | 1 << PagemapBit.EXCLUSIVE)
    assert [w & told for w in words] == [word(entry, rules, rules.profile) & told for entry in before]
    m.clear()
    assert entries() == [cleared(entry, rules, rules.profile, Track.OFF, True) for entry in before]


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("dirty", [False, True])
def test_every_word_is_written(machine: type, dirty: bool, compiled: bool) -> None:
    """Before, between and behind the tables of an area too, whatever stood in the array."""
    m = machine("linux-6.12")
    m.kernel.compiled = compiled
    m.mmap(0, 7 * TABLE_ENTRIES)
    for table in (1, 2, 4, 5):
        m.read(TABLE_ENTRIES * table + 7)
    if not dirty:
        m.clear()
    base = m.kernel.base
    (vma,) = m.mm().areas.in_range(base, base + 1)
    found = [np.full(7 * TABLE_ENTRIES, junk, np.uint64) for junk in (0, 2**64 - 1)]
    for words in found:
        pagemap._fill(m.mm(), vma, base, base + len(words), words)
    assert (found[0] == found[1]).all() and bool(found[1][0]) == dirty


@pytest.mark.thorough
@pytest.mark.parametrize("name", KERNELS)
def test_alike_is_pagemap_with_a_bit(name: str) -> None:
    """Table by table: the words, between which frames theirs are, whether marks differ or not; where one is hidden."""
    rules, rng = Entries(PROFILES[name]), random.Random(8)
    entries = entries_of(rng, rules)
    for table in range(0, 70, 2):  # nothing but none and present
        part = entries[table * TABLE_ENTRIES : (table + 1) * TABLE_ENTRIES]
        part[part & np.uint64(P) == 0] = 0
        if table % 8 == 2:
            part[part != 0] &= np.uint64(~(rules.SOFT_DIRTY | UFFD_WP) & (1 << 64) - 1)
        if table % 8 == 4:
            part[:] = 0
    for table in range(1, 70, 4):
        part = entries[table * TABLE_ENTRIES : (table + 1) * TABLE_ENTRIES]
        part[part & np.uint64(P | PROTNONE) == PROTNONE] = 0
    words = np.full_like(entries, 5)
    found = bulk.alike(entries, rules, words)
    if not rules.profile.bulk_tells_uffd:
        assert found is None
        return
    assert found is not None and len(found.low) == len(found.high) == len(found.hidden) == -(-COUNT // TABLE_ENTRIES)
    expected = bulk.pagemap(entries, rules)
    there = entries & np.uint64(P) != 0
    expected[there] |= np.uint64(1 << PagemapBit.EXCLUSIVE)
    assert (words == expected).all()
    for table, (low, high, hidden) in enumerate(zip(*(column.tolist() for column in found), strict=True)):
        run = slice(table * TABLE_ENTRIES, (table + 1) * TABLE_ENTRIES)
        part, present = entries[run], there[run]
        assert hidden == bool((part & np.uint64(P | PROTNONE) == PROTNONE).any()) == (table % 4 == 3 or table >= 70)
        frames = (part[present] & np.uint64(FRAME)) >> np.uint64(12)
        if table % 2 == 0 and table < 70:  # no other entries
            assert (low, high) == ((frames.min(), frames.max()) if len(frames) else (0, 0))
        else:
            assert 0 <= low <= frames.min() and frames.max() <= high


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("huge", [False, True])
def test_mapped_is_pagemap_and_what_is_known_of_frames(exclusive: bool, huge: bool) -> None:
    """Frame by frame, of entries of every kind; a frame that nothing is known of is refused."""
    pytest.importorskip("numba")
    rules, rng, frames = Entries(PROFILES["linux-6.12"]), random.Random(5), 3000
    entries = entries_of(rng, rules, 1001)
    present = entries & np.uint64(P) != 0
    entries[present] &= ~np.uint64(FRAME)
    entries[present] |= np.array(rng.choices(range(frames), k=int(present.sum())), np.uint64) << np.uint64(12)
    entries = entries[(entries & np.uint64(P | PROTNONE)) != PROTNONE]
    numbers = np.random.default_rng(5)
    heads = np.arange(frames) & -16
    huge_maps = np.where(np.arange(frames) % 48 == 0, 1 + np.arange(frames) // 48 % 2, 0).astype(np.int32)
    known = bulk.Known(
        numbers.integers(0, 4, frames).astype(np.uint16),
        np.uint16(1),
        numbers.integers(0, 3, frames).astype(np.int32),
        heads,
        huge_maps if huge else np.zeros(0, np.int32),
        exclusive,
        np.uint64(1 << PagemapBit.SOFT_DIRTY),
    )
    found = bulk.mapped(entries, rules, known).tolist()
    kinds = set()
    for entry, plain, got in zip(entries.tolist(), bulk.pagemap(entries, rules).tolist(), found, strict=True):
        expected = plain | 1 << PagemapBit.SOFT_DIRTY
        if entry & P and not entry & SPECIAL:
            frame = entry >> 12 & (1 << 40) - 1
            file = not known.flags[frame] & 1
            once = exclusive and known.maps[frame] + (huge_maps[heads[frame]] if huge else 0) == 1
            expected |= file << PagemapBit.FILE | bool(once) << PagemapBit.EXCLUSIVE
            kinds.add((file, bool(once)))
        assert got == expected, hex(entry)
    assert len(kinds) == 2 + 2 * exclusive
    entries[700] = frames << 12 | P
    with pytest.raises(IndexError, match="beyond those that are known"):
        bulk.mapped(entries, rules, known)


@pytest.mark.thorough
@pytest.mark.parametrize("profile", ["linux-6.1", "linux-6.12"])
def test_recorded_answers_by_compiled_code(monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    """Files, huge pages, swap, forks, PAGEMAP_SCAN: a machine that works by compiled code answers as a kernel did."""
    pytest.importorskip("numba")
    monkeypatch.setattr(replay, "Kernel", partial(Kernel, compiled=True))
    made, told = report.replay(load([RECORDED[profile]]), profile), bulk.mapped
    assert made.steps > 500 and made.agree == made.steps - made.skipped and not made.differ
    calls = []
    monkeypatch.setattr(bulk, "mapped", lambda *given, **how: calls.append(1) or told(*given, **how))
    report.replay(load([RECORDED[profile]])[:3], profile)
    assert calls


def test_long_runs_are_cleared_as_short_ones() -> None:
    """Tables in which nothing is rare are cleared by one mask; those with a swapped or PROT_NONE entry one by one."""
    rng = random.Random(3)
    for name in KERNELS:
        for track in Track:
            rules = Entries(PROFILES[name], track=track)
            entries = entries_of(rng, rules, 12 * TABLE_ENTRIES + 7)
            usual = entries & np.uint64(P) != 0
            usual[3 * TABLE_ENTRIES : 4 * TABLE_ENTRIES] = True  # there the others stay, and at the end
            usual[-7:] = True
            entries[~usual] = 0
            short = entries.copy()
            for start in range(0, len(short), 100):
                bulk.clear_refs(short[start : start + 100], rules)
            bulk.clear_refs(entries, rules)
            assert entries.tolist() == short.tolist(), (name, track)


@pytest.mark.parametrize("track", Track)
@pytest.mark.parametrize("name", [name for name in KERNELS if Entries(PROFILES[name]).SWP_SOFT_DIRTY])
def test_one_swapped_entry_among_present_ones_is_cleared(name: str, track: Track) -> None:
    """It has nothing but its mark, its type and its offset, in a table of which all else is usual."""
    profile = PROFILES[name]
    rules = Entries(profile, track=track)
    usual = P | RW | 1 << EntryBit.D | rules.SOFT_DIRTY
    entries = np.array([usual | page << 12 for page in range(1, 12 * TABLE_ENTRIES + 1)], np.uint64)
    place = TABLE_ENTRIES + 77
    entries[place] = 0x1000 << 12 | rules.SWP_SOFT_DIRTY
    due = [cleared(entry, rules, profile, track, permit=True) for entry in entries.tolist()]
    bulk.clear_refs(entries, rules)
    assert entries.tolist() == due
    assert (due[place] != 0x1000 << 12 | rules.SWP_SOFT_DIRTY) == profile.bulk_clears_swap


def test_compiled_without_numba_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="needs numba: pip install"):
        Machine("linux-6.12", compiled=True)


def test_arm_is_kept_and_never_given_to_read_only_entries() -> None:
    arm = 1 << SoftBit.ARM
    entries = np.array([0x867, 0x865, 0x865 | arm], np.uint64)
    bulk.clear_refs(entries, Entries(PROFILES["linux-6.1"], track=Track.FAULT))
    assert entries.tolist() == [0x065 | arm, 0x065, 0x065 | arm]
