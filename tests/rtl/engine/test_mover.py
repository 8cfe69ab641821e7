"""Moves of entries and of whole tables: what is where afterwards, and in which order it was written."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ptewalk.cosim.driver.engine_masks import moving, telling
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
@pytest.mark.parametrize("shift", [0, 1], ids=["by lines", "one by one"])
def test_an_abort_stops_between_entries(shift: int) -> None:
    bench = bench_of({number: 0x67 | number + 1 << 12 for number in range(200)}, range(TARGET, TARGET + 1))
    (told,) = bench.run(command(bench, SOURCE, TARGET + shift, 200), abort_after=200)
    moved = told["page"] - SOURCE
    assert told["stopped"] == Stop.ABORTED.value and 5 < moved < 195 and told["changed"] == moved
    assert [bool(entry) for entry in seen(bench, TARGET + shift, 200)] == [True] * moved + [False] * (200 - moved)
    assert [bool(entry) for entry in seen(bench, SOURCE, 200)] == [False] * moved + [True] * (200 - moved)


# Where lines are moved: five entries in the first, and three lines more.
LINED = {number: 0x67 | number + 1 << 12 for number in range(11, 64)}
FIRST, LINED_PAGES = SOURCE + 11, 53


def lined(*, bits: int = 64, latency: int = 4, lines: int = 8, line_bytes: int = 128) -> tuple[Bench, Any]:
    """A bench, and a command of four pairs of lines, or more of shorter ones."""
    config = EngineConfig(data_bits=bits, lines=lines, line_bytes=line_bytes)
    bench = bench_of(LINED, range(TARGET, TARGET + 1), config=config, latency=latency)
    return bench, command(bench, FIRST, TARGET + 11, LINED_PAGES)


def moved_pages(bench: Bench) -> list[int]:
    """Entries that are at the target, whole and marked, and not at the source; all others are at one of the two."""
    there, here = seen(bench, TARGET + 11, LINED_PAGES), seen(bench, FIRST, LINED_PAGES)
    for number, (new, old) in enumerate(zip(there, here, strict=True)):
        entry = LINED[number + 11]
        assert (new, old) in ((entry | SOFT_DIRTY, 0), (0, entry)), number
    return [number for number, new in enumerate(there) if new]


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "lines"), [(64, 8), (512, 8), (64, 2)])
def test_lines_move_by_one_swap_each(bits: int, lines: int) -> None:
    """All words of a source at once, those of the target then; four pairs are in flight, or one."""
    bench, asked = lined(bits=bits, latency=40, lines=lines)
    (told,) = bench.run(asked)
    assert (told["stopped"], told["changed"], told["page"]) == (Stop.DONE.value, LINED_PAGES, FIRST + LINED_PAGES)
    assert moved_pages(bench) == list(range(LINED_PAGES))
    assert (bench.memory.counts["swaps"], bench.memory.counts["reads"]) == (8, 6 + 8)
    at_once = bench.cycles < 3 * 43 + 3 * 40 + 4 * 4 * 16 + 60
    assert at_once == (lines == 8)


@pytest.mark.parametrize("latency", [1, 4])
def test_lines_of_one_beat(latency: int) -> None:
    """Those of a pair come one right behind the other: what is there of the first is known as the second comes."""
    bench, asked = lined(bits=512, latency=latency, line_bytes=64)
    (told,) = bench.run(asked)
    assert (told["stopped"], told["changed"], told["page"]) == (Stop.DONE.value, LINED_PAGES, FIRST + LINED_PAGES)
    assert moved_pages(bench) == list(range(LINED_PAGES))
    assert bench.memory.counts["swaps"] == 2 * 7


@pytest.mark.parametrize("pages", [4, 21, 48, 50])
def test_what_of_a_line_is_out_of_the_range_stays(pages: int) -> None:
    """Before the first entry and behind the last, in lines that are moved in part; nothing is written there either."""
    before = {number: 0x67 | number + 1 << 12 for number in range(11)}
    bench = bench_of(before | LINED, range(TARGET, TARGET + 1))
    (told,) = bench.run(command(bench, FIRST, TARGET + 11, pages))
    assert (told["stopped"], told["changed"], told["page"]) == (Stop.DONE.value, pages, FIRST + pages)
    assert moved_pages(bench) == list(range(pages))
    assert seen(bench, SOURCE, 11) == list(before.values())
    assert seen(bench, TARGET, 11) == [0] * 11


def test_lines_in_one_table_go_one_by_one() -> None:
    """A line may hold what goes and where it goes."""
    bench = bench_of({number: 0x67 | number + 1 << 12 for number in range(8)}, range(0))
    (told,) = bench.run(command(bench, SOURCE, SOURCE + 16, 8))
    assert (told["stopped"], told["changed"], bench.memory.counts["failed"]) == (Stop.DONE.value, 8, 0)
    assert seen(bench, SOURCE, 24)[16:] == [0x867 | number + 1 << 12 for number in range(8)]


@pytest.mark.thorough
@pytest.mark.parametrize("which", ["read", "source", "target"])
def test_a_line_that_another_writes_goes_entry_by_entry(which: str) -> None:
    """To a word between that is no part of it, or is: what stayed is moved, and what was taken is put."""
    bench, asked = lined()
    at, begun = bench.tables.at, []
    place = {"read": at(1, TARGET + 3), "source": at(1, FIRST + 20), "target": at(1, TARGET + 3)}[which]

    def other(start: int, length: int) -> None:
        if start <= place < start + length and length > 8 and not begun:
            begun.append(start)
            old = bench.memory.words.get(place, 0)
            bench.memory.store(place, old ^ A if which == "source" else 0x9067)

    bench.memory.before_swap = other
    (told,) = bench.run(asked)
    assert (told["stopped"], told["changed"], told["more"]) == (Stop.DONE.value, LINED_PAGES, 0)
    assert begun and bench.memory.counts["failed"] == 1
    found = seen(bench, TARGET, 64)
    wanted = [0] * 11 + [LINED[number] | SOFT_DIRTY for number in range(11, 64)]
    if which == "source":
        wanted[31] ^= A
    else:
        wanted[3] = 0x9067
    assert (found, seen(bench, FIRST, LINED_PAGES)) == (wanted, [0] * LINED_PAGES)


@pytest.mark.thorough
@pytest.mark.parametrize("side", ["source", "target"])
def test_a_pause_forgets_tables(side: str) -> None:
    """Behind it the table of level 2 is another: nothing more is taken from what it led to, or put there."""
    old = {number: 0x67 | 0x100 + number << 12 for number in range(128)}
    bench = bench_of(old, range(TARGET, TARGET + 1))
    memory, page, swaps = bench.memory, {"source": SOURCE, "target": TARGET}[side], bench.memory.counts
    table, upper = (bench.tables.table(level, page) << 12 for level in (1, 2))
    other, other_upper = (bench.tables.next + number << 12 for number in (0, 1))
    for number in range(512):
        memory.words[other_upper + 8 * number] = memory.words.get(upper + 8 * number, 0)
        memory.words[other + 8 * number] = old[number] + (0x200 << 12) if side == "source" and number < 128 else 0
    place = (page >> 9 & 511) * 8
    memory.words[other_upper + place] = other | UPPER
    state = {"paused": False, "before": 0}

    def meanwhile(ctx: Any) -> None:
        if swaps["swaps"] and not state["paused"]:
            ctx.set(bench.dut.pause, 1)
        if swaps["swaps"] and not state["paused"] and ctx.get(bench.dut.paused):
            state.update(paused=True, before=swaps["swaps"])
            memory.store(bench.tables.at(3, page), other_upper | UPPER)
            ctx.set(bench.dut.pause, 0)

    (told,) = bench.run(command(bench, SOURCE, TARGET, 128), meanwhile=meanwhile)
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 128)
    entries = [16 * number for number in (state["before"] // 2, 8 - state["before"] // 2)]
    assert 16 <= entries[0] < 128
    left, found = ([memory.words.get(at + 8 * number, 0) for number in range(128)] for at in (table, other))
    new = [one + (0x200 << 12) for one in old.values()]
    if side == "source":
        assert left == [0] * entries[0] + list(old.values())[entries[0] :]
        assert found == new[: entries[0]] + [0] * entries[1]
    else:
        marked = [one | SOFT_DIRTY for one in old.values()]
        assert left == marked[: entries[0]] + [0] * entries[1]
        assert found == [0] * entries[0] + marked[entries[0] :]


@pytest.mark.thorough
def test_a_move_over_the_end_of_an_upper_table() -> None:
    """Of the source's where nothing is, and of the target's at another place."""
    source, target = (9 << 18) - 20, (90 << 18) - 10
    entries = {number: 0x67 | number + 1 << 12 for number in range(60) if number not in range(25, 40)}
    bench = bench_of({}, range(target, target + 60))
    for number, entry in entries.items():
        bench.tables.put(source + number, entry)
    bench.tables.put(source + 60 + 1024, 0x9067)
    for page in (target + 10 + 512, target + 60 + 1024):
        bench.tables.table(1, page)
    (told,) = bench.run(command(bench, source, target, 60 + 1025))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, len(entries) + 1)
    assert seen(bench, target, 60) == [entries[number] | SOFT_DIRTY if number in entries else 0 for number in range(60)]
    assert seen(bench, target + 60 + 1024, 1) == [0x9867]


@pytest.mark.thorough
def test_an_occupied_place_in_a_line_stops_at_it() -> None:
    """Before it all is moved; the next lines, begun by then, may be."""
    bench, asked = lined()
    bench.tables.put(TARGET + 40, 0x9067)
    (told,) = bench.run(asked)
    assert (told["stopped"], told["page"], told["homeless"]) == (Stop.OCCUPIED.value, SOURCE + 40, 0)
    bench.tables.put(TARGET + 40, 0)
    moved = moved_pages(bench)
    assert moved[:29] == list(range(29)) and set(moved[29:]) <= set(range(37, LINED_PAGES))
    assert told["changed"] == len(moved)
    (rest,) = bench.run(asked | {"range": {**asked["range"], "page": SOURCE + 40}} | {"move": rest_of(asked, 29)})
    assert (rest["stopped"], rest["changed"]) == (Stop.DONE.value, LINED_PAGES - len(moved))
    assert moved_pages(bench) == list(range(LINED_PAGES))


def rest_of(asked: Any, entries: int) -> dict[str, int]:
    """The move, behind so many entries."""
    move = asked["move"]
    return {**move, "target": move["target"] + entries, "entries": move["entries"] - entries}


@pytest.mark.thorough
@pytest.mark.parametrize("lost", [(), (33,), (33, 35, 40), (35, 50)])
def test_places_of_a_line_that_are_taken_meanwhile(lost: tuple[int, ...]) -> None:
    """Entries go back; where that is taken too each is told, the first not dealt with by the last completion."""
    bench, asked = lined()
    at, begun, taken = bench.tables.at, [], {33, *lost}

    def other(start: int, length: int) -> None:
        if start == at(1, TARGET + 32) and not begun:
            begun.append(start)
            for place in sorted(taken):
                bench.memory.store(at(1, TARGET + place), 0x9067)
            for place in lost:
                bench.memory.store(at(1, SOURCE + place), 0x8067)

    bench.memory.before_swap = other
    *further, told = bench.run(asked)
    assert (told["stopped"], told["page"]) == (Stop.OCCUPIED.value, SOURCE + 33)
    assert told["homeless"] == (LINED[33] if 33 in lost else 0)
    also = [(SOURCE + place, LINED[place]) for place in lost if place != 33]
    assert [(one["page"], one["homeless"]) for one in further] == also
    assert all(one["more"] for one in further) and not told["more"]
    for place in range(32, 64):  # the next line was begun too
        here, there = bench.memory.words[at(1, SOURCE + place)], bench.memory.words[at(1, TARGET + place)]
        if place in lost:
            assert (here, there) == (0x8067, 0x9067)
        elif place in taken:
            assert (here, there) == (LINED[place], 0x9067)
        else:
            assert (here, there) == (0, LINED[place] | SOFT_DIRTY)


@pytest.mark.thorough
@pytest.mark.parametrize("side", [SOURCE, TARGET])
def test_a_swap_of_a_line_that_the_bus_refuses_names_all_entries(side: int) -> None:
    """It may be written, or not: each entry may be where it was, where it goes, or nowhere."""
    bench, asked = lined()
    place = bench.tables.at(1, side + 32)
    bench.memory.before_swap = lambda start, length: bench.memory.bad.add(place) if start == place else None
    *further, told = bench.run(asked)
    assert (told["stopped"], told["page"], told["homeless"]) == (Stop.BUS_ERROR.value, SOURCE + 32, LINED[32])
    assert [(one["page"], one["homeless"]) for one in further] == [(SOURCE + n, LINED[n]) for n in range(33, 48)]


@pytest.mark.thorough
def test_a_line_that_cannot_be_read_is_looked_at_by_entries() -> None:
    bench, asked = lined()
    bench.memory.bad.add(bench.tables.at(1, SOURCE + 40))
    (told,) = bench.run(asked)
    assert (told["stopped"], told["page"], told["homeless"]) == (Stop.BUS_ERROR.value, SOURCE + 40, 0)
    assert moved_pages(bench)[:29] == list(range(29))


def test_a_clear_after_a_move_is_a_clear() -> None:
    """One command leaves nothing behind for the next."""
    bench = bench_of({number: 0x867 | number + 1 << 12 for number in range(8)}, range(TARGET, TARGET + 1))
    moved, cleared = bench.run(command(bench, SOURCE, TARGET, 8), bench.command(TARGET, 8))
    assert (moved["changed"], cleared["changed"], cleared["stopped"]) == (8, 8, Stop.DONE.value)
    assert not any(entry & SOFT_DIRTY for entry in seen(bench, TARGET, 8))


@pytest.mark.parametrize("beats", [5, 21])
def test_a_reset_in_the_middle_of_a_line(beats: int) -> None:
    """Of the source, or of the target: entries go where they belong when the move is asked for again."""
    bench, asked = lined()
    (told,) = bench.run(asked, meanwhile=bench.resets(beats))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, LINED_PAGES)
    assert moved_pages(bench) == list(range(LINED_PAGES))
