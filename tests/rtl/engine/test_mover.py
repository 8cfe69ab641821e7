"""Moves of entries and of whole tables: what is where afterwards, and in which order it was written."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ptewalk.cosim.bench.engine_masks import moving, telling
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.table_engine import EngineConfig

from .test_change import draw
from .test_table_engine import ROOT, UPPER, Bench, Tables

RULES = Entries(PROFILES["linux-6.12"])
SOURCE, TARGET = 7 << 9, 90 << 18 | 5 << 9
SOFT_DIRTY, A = 0x800, 0x20


def command(bench: Bench, source: int, target: int, entries: int, *, level: int = 1, **how: bool) -> dict[str, Any]:
    """A move; `marks` and `unprotects` as in `moving`."""
    marks, unprotects = how.get("marks", True), how.get("unprotects", False)
    where = {"target": target, "level": level, "entries": entries, "drops_markers": int(unprotects)}
    asked = {"root": ROOT >> 12, "la57": int(bench.tables.levels == 5), "page": source}
    change = moving(bench.rules, marks=marks, unprotects=unprotects)
    return {"range": asked, "change": change, "words": telling(bench.rules), "moves": 1, "move": where}


def after(entry: int, *, unprotects: bool = False) -> int:
    """By hand, of 6.12: SD is bit 11, of swap-like entries bit 1; UFFD_WP 10 and 2; a marker has type 31 at 59."""
    if entry & 0x101:
        return (entry & ~0x400 if unprotects else entry) | SOFT_DIRTY
    if unprotects and entry >> 59 == 31 and (entry >> 9 & 4):  # the offset is a complement: bit 2 of it is clear
        return 0
    return (entry & ~4 if unprotects else entry) | 2


def bench_of(entries: dict[int, int], target: range, **given: Any) -> Bench:
    """Entries from page `SOURCE` on, and tables for the pages of `target`."""
    config = given.pop("config", EngineConfig())
    levels = given.pop("levels", 4)
    bench = Bench(config, rules=RULES, **given)
    bench.tables = Tables(bench.memory, levels)
    for number, entry in entries.items():
        bench.tables.put(SOURCE + number, entry)
    for page in target:
        bench.tables.table(1, page)
    return bench


def seen(bench: Bench, page: int, pages: int) -> list[int]:
    return [bench.memory.words.get(bench.tables.at(1, page + number), 0) for number in range(pages)]


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "levels", "shift"), [(64, 4, 0), (64, 5, 500), (512, 4, 3)])
@pytest.mark.parametrize("unprotects", [False, True])
def test_entries_move_source_first(bits: int, levels: int, shift: int, unprotects: bool) -> None:
    """Over ends of tables on either side, with a walker that sets A between read and swap."""
    rng = random.Random(f"{bits}{levels}{unprotects}")
    count, first, target = 40, 490, TARGET + shift
    entries = {first + number: draw(rng) for number in range(count) if number % 5}
    given = {"config": EngineConfig(data_bits=bits), "levels": levels, "rng": rng}
    bench = bench_of(entries, range(target, target + count), **given)
    source = SOURCE + first

    def walker(start: int, length: int) -> None:
        if bench.memory.words.get(start, 0) and rng.random() < 0.3:
            bench.memory.store(start, bench.memory.words[start] ^ A)

    bench.memory.before_swap = walker
    (told,) = bench.run(command(bench, source, target, count, unprotects=unprotects))
    assert (told["stopped"], told["page"], told["homeless"]) == (Stop.DONE.value, source + count, 0)
    assert told["changed"] == sum(entry != 0 for entry in entries.values())
    assert seen(bench, source, count) == [0] * count
    log, at = bench.memory.log, bench.tables.at
    taken = {address: old for address, old, new in log if new == 0}
    expected = []
    for number in range(count):
        old = taken.get(at(1, source + number), 0)
        assert old & ~A == entries.get(first + number, 0) & ~A
        expected.append(after(old, unprotects=unprotects) if old else 0)
    assert seen(bench, target, count) == expected
    order = [address for address, _, _ in log]
    for number in range(count):
        if expected[number]:
            assert order.index(at(1, source + number)) < order.index(at(1, target + number))
    assert bench.memory.counts["failed"] > 3


def test_a_marker_goes_with_its_protection_and_a_guard_stays() -> None:
    uffd, guard = (31 << 59 | (((1 << 50) - 1) ^ bit) << 9 for bit in (1, 4))
    bench = bench_of({0: uffd, 1: guard, 2: uffd | 0}, range(TARGET, TARGET + 3))
    (told,) = bench.run(command(bench, SOURCE, TARGET, 3, unprotects=True))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 3)
    assert seen(bench, SOURCE, 3) == [0] * 3
    assert seen(bench, TARGET, 3) == [0, guard | 2, 0]


@pytest.mark.thorough
@pytest.mark.parametrize("level", [2, 3])
def test_a_table_moves_whole(level: int) -> None:
    """One entry, as it is; what is below goes with it."""
    bench = bench_of({0: 0x1867, 511: 0x2867}, range(0))
    source, target = SOURCE >> 9 * (level - 1) << 9 * (level - 1), 90 << 27
    bench.tables.table(level, target)
    entry = bench.memory.words[bench.tables.at(level, source)]
    place = bench.tables.at(level, target)
    (told,) = bench.run(command(bench, source, target, 1, level=level, marks=False))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 1)
    assert bench.memory.words[place] == entry and entry & 0xFFF == UPPER
    assert bench.memory.words[bench.tables.at(level, source)] == 0
    assert len(bench.memory.log) == 2
    assert (bench.met_global, bench.met_leaf) == (1, 1), "an entry of it may be global"


def test_a_huge_leaf_moves_and_is_marked() -> None:
    bench = bench_of({}, range(0))
    bench.tables.put(SOURCE, 0x8E7 & ~SOFT_DIRTY | 0x600 << 12, level=2)
    bench.tables.table(2, TARGET)
    place = bench.tables.at(2, TARGET & -512)
    (told,) = bench.run(command(bench, SOURCE, TARGET & -512, 1, level=2))
    assert (told["stopped"], bench.memory.words[place]) == (Stop.DONE.value, 0x8E7 | 0x600 << 12)
    assert (bench.met_global, bench.met_leaf) == (0, 1)


@pytest.mark.thorough
def test_what_has_no_table_is_passed_over_and_a_leaf_is_named() -> None:
    bench = bench_of({1024: 0x1867}, range(TARGET, TARGET + 1025, 512))
    bench.tables.put(SOURCE + 1536, 0x8E7 | 0x600 << 12, level=2)
    (told,) = bench.run(command(bench, SOURCE + 3, TARGET + 3, 2048))
    assert (told["stopped"], told["page"], told["changed"]) == (Stop.NEED_SPLIT.value, SOURCE + 1536, 1)
    assert seen(bench, TARGET + 1024, 1) == [0x1867]


def test_a_source_without_a_table_needs_none_for_the_target() -> None:
    """Though the target's walk, which goes beside it, ends higher up."""
    bench = bench_of({}, range(0))
    bench.tables.table(2, SOURCE)
    (told,) = bench.run(command(bench, SOURCE, 90 << 27, 3))
    assert (told["stopped"], told["page"], told["changed"]) == (Stop.DONE.value, SOURCE + 3, 0)
    bench.tables.put(SOURCE, 0x1067)
    (told,) = bench.run(command(bench, SOURCE, 90 << 27, 3))
    assert (told["stopped"], told["page"], told["changed"]) == (Stop.NEED_TABLE.value, SOURCE, 0)


@pytest.mark.thorough
def test_a_table_is_needed_before_anything_is_taken() -> None:
    bench = bench_of({0: 0x1067, 1: 0x2067}, range(TARGET + 511, TARGET + 512))
    (told,) = bench.run(command(bench, SOURCE, TARGET + 511, 2))
    assert (told["stopped"], told["page"], told["changed"]) == (Stop.NEED_TABLE.value, SOURCE + 1, 1)
    assert seen(bench, SOURCE, 2) == [0, 0x2067]
    bench.tables.table(1, TARGET + 512)
    (told,) = bench.run(command(bench, told["page"], TARGET + 512, 1))
    assert (told["stopped"], seen(bench, TARGET + 511, 2)) == (Stop.DONE.value, [0x1867, 0x2867])


def test_an_occupied_place_stops_before_anything_is_taken() -> None:
    bench = bench_of({0: 0x1067, 1: 0x2067}, range(TARGET, TARGET + 1))
    bench.tables.put(TARGET + 1, 0x9067)
    (told,) = bench.run(command(bench, SOURCE, TARGET, 2))
    assert (told["stopped"], told["page"], told["homeless"]) == (Stop.OCCUPIED.value, SOURCE + 1, 0)
    assert seen(bench, SOURCE, 2) == [0, 0x2067]
    assert seen(bench, TARGET, 2) == [0x1867, 0x9067]


@pytest.mark.thorough
@pytest.mark.parametrize("both", [False, True])
def test_a_place_that_is_taken_meanwhile(both: bool) -> None:
    """The entry goes back as it was; where that is taken too, the completion has it: nothing is lost.

    The next one is read by then, and stays.
    """
    bench = bench_of({0: 0x1067, 1: 0x2067}, range(TARGET, TARGET + 1))
    source, target = bench.tables.at(1, SOURCE), bench.tables.at(1, TARGET)

    def other(start: int, length: int) -> None:
        if start == target:
            bench.memory.store(target, 0x9067)
            if both:
                bench.memory.store(source, 0x8067)

    bench.memory.before_swap = other
    (told,) = bench.run(command(bench, SOURCE, TARGET, 2))
    assert (told["stopped"], told["page"], told["changed"]) == (Stop.OCCUPIED.value, SOURCE, 0)
    assert told["homeless"] == (0x1067 if both else 0)
    assert (seen(bench, SOURCE, 1), seen(bench, TARGET, 1)) == ([0x8067 if both else 0x1067], [0x9067])
    assert seen(bench, SOURCE + 1, 1) == [0x2067]


@pytest.mark.thorough
@pytest.mark.parametrize("side", ["source", "target"])
def test_swaps_that_always_fail(side: str) -> None:
    bench = bench_of({0: 0x1067}, range(TARGET, TARGET + 1))
    place = bench.tables.at(1, SOURCE if side == "source" else TARGET)
    failed = []

    def other(start: int, length: int) -> None:
        if start == place:
            failed.append(start)
            bench.memory.store(place, bench.memory.words.get(place, 0) ^ (A if side == "source" else 0))

    bench.memory.before_swap = other
    (told,) = bench.run(command(bench, SOURCE, TARGET, 1))
    assert (told["stopped"], told["changed"], len(failed)) == (Stop.RETRY_LIMIT.value, 0, 64)
    assert told["homeless"] == (0 if side == "source" else 0x1067)


@pytest.mark.thorough
@pytest.mark.parametrize("place", ["upper", "source", "target"])
def test_a_bus_that_refuses(place: str) -> None:
    bench = bench_of({0: 0x1067, 1: 0x2067}, range(TARGET, TARGET + 2))
    at = {"upper": (2, SOURCE), "source": (1, SOURCE + 1), "target": (1, TARGET + 1)}[place]
    bench.memory.bad.add(bench.tables.at(*at))
    (told,) = bench.run(command(bench, SOURCE, TARGET, 2))
    done = 0 if place == "upper" else 1
    assert (told["stopped"], told["page"], told["changed"]) == (Stop.BUS_ERROR.value, SOURCE + done, done)
    assert seen(bench, SOURCE, 2)[1] == 0x2067


def test_a_swap_that_the_bus_refuses_names_the_entry() -> None:
    bench = bench_of({0: 0x1067}, range(TARGET, TARGET + 1))
    target = bench.tables.at(1, TARGET)
    bench.memory.before_swap = lambda start, length: bench.memory.bad.add(target)
    (told,) = bench.run(command(bench, SOURCE, TARGET, 1))
    assert (told["stopped"], told["homeless"]) == (Stop.BUS_ERROR.value, 0x1067)


@pytest.mark.thorough
def test_an_abort_stops_between_entries() -> None:
    bench = bench_of({number: 0x67 | number + 1 << 12 for number in range(100)}, range(TARGET, TARGET + 1))
    (told,) = bench.run(command(bench, SOURCE, TARGET, 100), abort_after=500)
    moved = told["page"] - SOURCE
    assert told["stopped"] == Stop.ABORTED.value and 5 < moved < 95 and told["changed"] == moved
    assert [bool(entry) for entry in seen(bench, TARGET, 100)] == [True] * moved + [False] * (100 - moved)
    assert [bool(entry) for entry in seen(bench, SOURCE, 100)] == [False] * moved + [True] * (100 - moved)


def test_a_clear_after_a_move_is_a_clear() -> None:
    """One command leaves nothing behind for the next."""
    bench = bench_of({number: 0x867 | number + 1 << 12 for number in range(8)}, range(TARGET, TARGET + 1))
    moved, cleared = bench.run(command(bench, SOURCE, TARGET, 8), bench.command(TARGET, 8))
    assert (moved["changed"], cleared["changed"], cleared["stopped"]) == (8, 8, Stop.DONE.value)
    assert not any(entry & SOFT_DIRTY for entry in seen(bench, TARGET, 8))
