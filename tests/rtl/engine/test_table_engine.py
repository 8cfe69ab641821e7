"""Operations over ranges against the numpy rules: what is in memory after, what was told, how long it took."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import ResetInserter, Signal
from amaranth.sim import Simulator

from ptewalk.cosim.driver.engine_masks import clearing, telling
from ptewalk.cosim.driver.table_engine import taking_words
from ptewalk.model import bulk
from ptewalk.model.dirty_bitmap import dirty_bitmap
from ptewalk.model.engine import Pages
from ptewalk.model.linux import PagemapBit, Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import PROTNONE, UFFD_WP, Entries, P
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.report import Report
from ptewalk.rtl.engine.table_engine import EngineConfig, TableEngine

from .line_memory import LineMemory
from .test_change import draw

UPPER = 0x67
ROOT, OUT = 0x10_0000, 0x80_0000
SHIFTS = {2: 9, 3: 18, 4: 27, 5: 36}


PLAIN = Entries(PROFILES["linux-6.12"])


class Tables:
    """Page tables in a memory: entries by page, leaves by (level, page)."""

    def __init__(self, memory: LineMemory, levels: int = 4) -> None:
        self.memory, self.levels = memory, levels
        self.frames = {(levels, 0): ROOT >> 12}
        self.next = (ROOT >> 12) + 1

    def table(self, level: int, page: int) -> int:
        """The frame of the table of `level` that maps `page`; made where it is not there."""
        key = (level, page >> 9 * level if level < self.levels else 0)
        if key not in self.frames:
            self.frames[key] = self.next
            self.next += 1
            self.memory.words[self.at(level + 1, page)] = self.frames[key] << 12 | UPPER
        return self.frames[key]

    def at(self, level: int, page: int) -> int:
        """Where the entry of `page` of `level` is."""
        return (self.table(level, page) << 12) + (page >> 9 * (level - 1) & 511) * 8

    def put(self, page: int, entry: int, level: int = 1) -> None:
        self.memory.words[self.at(level, page)] = entry


class Bench:
    """An engine before a memory."""

    def __init__(self, config: EngineConfig = EngineConfig(), *, rules: Entries, **memory: Any) -> None:  # noqa: B008
        self.config, self.rules = config, rules
        self.dut = TableEngine(config)
        self.memory = LineMemory(self.dut.port, config.data_bits, config.line_bytes, **memory)
        self.tables = Tables(self.memory)
        self.cycles = self.met_global = self.met_leaf = 0
        self.reset = Signal()

    def command(
        self, page: int, pages: int, *, report: Report = Report.NONE, changes: bool = True, **range_: Any
    ) -> Any:
        asked = {"root": ROOT >> 12, "la57": int(self.tables.levels == 5), "page": page, "pages": pages}
        asked |= {"changes": int(changes)} | range_
        address = OUT + (8 * page % self.config.line_bytes if report == Report.WORDS else 0)
        change = clearing(self.rules, change=changes)
        return {"range": asked, "change": change, "words": telling(self.rules), "report": report, "address": address}

    def run(
        self, *commands: Any, abort_after: int | None = None, meanwhile: Callable[[Any], None] = lambda _: None
    ) -> list[dict[str, int]]:
        """Completions, in order, all of a command that has several; `cycles` is of the last command."""
        told: list[dict[str, int]] = []

        async def bench(ctx: Any) -> None:
            for command in commands:
                ctx.set(self.dut.commands.payload, command)
                ctx.set(self.dut.commands.valid, 1)
                ctx.set(self.dut.completions.ready, 1)
                self.cycles = 0
                while True:
                    _, _, valid, payload = await ctx.tick().sample(
                        self.dut.completions.valid, self.dut.completions.payload
                    )
                    self.cycles += 1
                    assert self.cycles < 60_000, "it does not come to its end"
                    meanwhile(ctx)
                    ctx.set(self.dut.abort, abort_after is not None and self.cycles >= abort_after)
                    if valid:
                        self.met_global = int(ctx.get(self.dut.met_global))
                        self.met_leaf = int(ctx.get(self.dut.met_leaf))
                        told.append(
                            {str(name): getattr(payload[name], "value", payload[name]) for name, _ in payload.shape()}
                        )
                        if not told[-1]["more"]:
                            break
                ctx.set(self.dut.commands.valid, 0)
                await ctx.tick()

        simulator = Simulator(ResetInserter(self.reset)(self.dut))
        simulator.add_clock(1e-6)
        simulator.add_testbench(self.memory.run, background=True)
        simulator.add_testbench(bench)
        simulator.run()
        return told

    def resets(self, after: int) -> Callable[[Any], None]:
        """For `meanwhile`: a reset, of the memory too, when so many beats of lines have come."""
        beats = left = 0

        def meanwhile(ctx: Any) -> None:
            nonlocal beats, left
            found = self.dut.port.data
            beats += ctx.get(found.valid) and ctx.get(found.payload.tag) < self.config.lines
            left = 4 if beats == after and not left else max(1, left - 1) if left else 0
            self.memory.forgets = left > 1
            ctx.set(self.reset, self.memory.forgets)

        return meanwhile

    def bits(self, pages: int) -> list[int]:
        return [self.memory.words.get(OUT + page // 64 * 8, 0) >> page % 64 & 1 for page in range(pages)]

    def told_words(self, page: int, pages: int) -> list[int]:
        first = OUT + 8 * page % self.config.line_bytes
        return [self.memory.words.get(first + 8 * number, 0) for number in range(pages)]


def expected(entries: list[int], rules: Entries) -> tuple[list[int], list[int], list[int]]:
    """Entries after a clear, their words before, and which were soft-dirty."""
    after = np.array(entries, np.uint64)
    words = bulk.pagemap(after, rules)
    bulk.clear_refs(after, rules)
    return after.tolist(), words.tolist(), (words >> np.uint64(PagemapBit.SOFT_DIRTY) & np.uint64(1)).tolist()


CONFIGS = {
    "64": EngineConfig(),
    "64, lines of 64": EngineConfig(line_bytes=64, lines=4),
    "128": EngineConfig(data_bits=128, lines=4),
    "512": EngineConfig(data_bits=512, lines=16),
    "512, lines of 64": EngineConfig(data_bits=512, line_bytes=64, lines=8),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("report", list(Report))
def test_a_clear_over_any_range(name: str, report: Report) -> None:
    """Random entries, holes and ends, a second writer, answers in any order."""
    rng = random.Random(f"{name}{report}")
    rules = Entries(PROFILES["linux-6.12"], track=Track.FAULT)
    bench = Bench(CONFIGS[name], rules=rules, rng=rng, latency=3)
    page = (0x7F << 27 | 511 << 9 | 320) if report == Report.BITMAP else (0x7F << 27 | 511 << 9 | 333)
    pages = 470
    entries = {}
    for number in range(pages):
        if not 200 < number < 230:
            entries[number] = draw(rng)
            bench.tables.put(page + number, entries[number])

    def second_writer(start: int, length: int) -> None:
        if rng.random() < 0.2:
            address = start + 8 * rng.randrange(length // 8)
            if bench.memory.words.get(address):
                bench.memory.store(address, bench.memory.words[address] ^ 0x20)

    bench.memory.before_swap = second_writer
    (told,) = bench.run(bench.command(page, pages, report=report))
    assert told["stopped"] == Stop.DONE.value
    assert told["page"] == page + pages
    assert not told["failed"] | told["given_up"] | told["lost"]
    after, words, dirty = expected([entries.get(number, 0) for number in range(pages)], rules)
    found = [bench.memory.words.get(bench.tables.at(1, page + number), 0) for number in range(pages)]
    accessed = 0x20
    assert [one & ~accessed for one in found] == [one & ~accessed for one in after]
    assert told["changed"] == len(bench.memory.log) > 100
    assert bench.memory.counts["failed"] >= 1
    if report == Report.BITMAP:
        assert bench.bits(pages) == dirty
        assert sum(dirty) > 50
    if report == Report.WORDS:
        assert bench.told_words(page, pages) == words


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["64", "64, lines of 64", "512"])
def test_bits_are_set_in_what_is_there(name: str) -> None:
    """From any page on, for some pages a bit, over several lines of the bitmap; what lies beside stays."""
    for unit in (0, 2, 4, 7):
        rng = random.Random(f"{name}{unit}")
        bench = Bench(CONFIGS[name], rules=PLAIN, rng=rng, latency=3)
        page, pages = 0x7F << 27 | rng.randrange(512), 1 + rng.randrange(1200)
        dirty = np.array([rng.random() < (0.3 if unit < 3 else 0.02) for _ in range(pages)])
        for number in np.flatnonzero(dirty).tolist():
            bench.tables.put(page + number, 0x867 | 0x77 << 12)
        places = [OUT + 8 * place for place in range(-16, 48)]
        bench.memory.words |= {place: rng.getrandbits(64) & rng.getrandbits(64) for place in places}
        before = dict(bench.memory.words)
        # The bitmap's first word lies anywhere in a line.
        address = OUT + 8 * rng.randrange(16)
        command = bench.command(page, pages, report=Report.BITMAP) | {"ors": 1, "unit": unit, "address": address}
        (told,) = bench.run(command)
        assert (told["stopped"], told["lost"], told["changed"]) == (Stop.DONE.value, 0, np.count_nonzero(dirty))
        length = len(dirty_bitmap(dirty, page, unit=unit))
        there = np.array([before[address + 8 * place] for place in range(length)], np.uint64)
        due = dirty_bitmap(dirty, page, unit=unit, there=there).tolist()
        expected = {place: before[place] for place in places}
        expected |= {address + 8 * place: word for place, word in enumerate(due)}
        assert {place: bench.memory.words[place] for place in places} == expected


def test_a_range_may_end_within_the_last_unit_of_a_word() -> None:
    bench = Bench(rules=PLAIN)
    filled(bench, 1, 1)
    filled(bench, 63 * 8 + 2, 1)
    bench.run(bench.command(0, 63 * 8 + 3, report=Report.BITMAP) | {"unit": 3})
    assert bench.memory.words[OUT] == 1 | 1 << 63


def test_what_the_bus_refuses_of_a_bitmap_is_not_written() -> None:
    """Bits of another word of that line would be lost: the line stays, and the report is told to be lost."""
    bench = Bench(rules=PLAIN)
    filled(bench, 0, 2048)
    there = {OUT + 8 * place: 0xF0 << 2 * place for place in range(32)}
    bench.memory.words |= there
    bench.memory.bad.add(OUT + 8)
    (told,) = bench.run(bench.command(0, 2048, report=Report.BITMAP) | {"ors": 1})
    assert (told["stopped"], told["lost"], told["changed"]) == (Stop.DONE.value, 1, 2048)
    found = [bench.memory.words[place] for place in there]
    assert found == [*list(there.values())[:16], *[(1 << 64) - 1] * 16]


@pytest.mark.thorough
def test_an_aborted_scan_goes_on_in_the_middle_of_a_word() -> None:
    """Bits that were told before the abort stay: none is lost, and each is told once."""
    bench = Bench(rules=PLAIN, latency=20)
    filled(bench, 0, 512)
    first = bench.command(0, 512, report=Report.BITMAP) | {"ors": 1}
    (told,) = bench.run(first, abort_after=200)
    assert told["stopped"] == Stop.ABORTED.value and 16 < told["page"] < 500
    page, bits = told["page"], bench.bits(512)
    assert bits == [1] * page + [0] * (512 - page)
    again = Bench(rules=PLAIN, latency=20)
    again.memory.words = bench.memory.words
    (told,) = again.run(
        again.command(page, 512 - page, report=Report.BITMAP) | {"ors": 1, "address": OUT + page // 64 * 8}
    )
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 512 - page)
    assert again.bits(512) == [1] * 512


def protected(entry: int, rules: Entries) -> int:
    """What a write-protection of written pages makes of an entry of level 1 (make_uffd_wp_pte)."""
    if bulk.pagemap(np.array([entry], np.uint64), rules)[0] >> np.uint64(PagemapBit.UFFD_WP) & np.uint64(1):
        return entry
    if entry & (P | PROTNONE):
        return rules.pte_mkuffd_wp(entry)
    return entry | rules.SWP_UFFD_WP if entry else rules.make_uffd_marker()


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["64", "512, lines of 64"])
def test_a_protection_tells_what_each_swap_replaced(name: str) -> None:
    """PM_SCAN_WP_MATCHING in one pass, aborted and gone on with, while another marks pages and protects them.

    A page's word is of the value that its swap replaced, and of none before: what was marked after the line was read is
    told. What was not dealt with is as it was.
    """
    rng = random.Random(name)
    rules = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
    bench = Bench(CONFIGS[name], rules=rules, rng=rng, latency=3)
    page, pages = 0x7F << 27 | 333, 400
    drawn = [draw(rng) if rng.random() < 0.9 else 0 for _ in range(pages)]
    places = [bench.tables.at(1, page + number) for number in range(pages)]
    bench.memory.words |= dict(zip(places, drawn, strict=True))

    def second_writer(start: int, length: int) -> None:
        for _ in range(2):
            address = start + 8 * rng.randrange(length // 8)
            entry = bench.memory.words.get(address, 0)
            if address in places and entry & P:
                bench.memory.store(address, entry ^ rng.choice((rules.SOFT_DIRTY, UFFD_WP)))

    at, words, changed = page, [], 0
    while at < page + pages:
        if words:
            one, frames = bench.memory, bench.tables.frames
            shared = {"words": one.words, "log": one.log, "counts": one.counts}
            bench = Bench(CONFIGS[name], rules=rules, rng=rng, latency=3, **shared)
            bench.tables.frames = frames
        bench.memory.before_swap = second_writer
        before = [bench.memory.words[place] for place in places]
        swaps = len(bench.memory.log)
        command = taking_words(Pages(ROOT >> 12, 4, at, page + pages), rules, OUT + 8 * at % bench.config.line_bytes)
        (told,) = bench.run(command, abort_after=200 if len(words) < 200 else None)
        assert told["stopped"] in (Stop.DONE.value, Stop.ABORTED.value) and told["page"] > at
        replaced = {address: old for address, old, _ in bench.memory.log[swaps:]}
        assert told["changed"] == len(replaced) == len(bench.memory.log) - swaps
        done = told["page"] - page
        now = [bench.memory.words[place] for place in places]
        assert {address for address, old in replaced.items()} <= set(places[at - page : done])
        values = [replaced.get(place, now[number]) for number, place in enumerate(places)]
        assert now[at - page : done] == [protected(entry, rules) for entry in values[at - page : done]]
        assert now[done:] == before[done:]
        found = bench.told_words(at, told["page"] - at)
        assert found == bulk.pagemap(np.array(values[at - page : done], np.uint64), rules).tolist()
        words, at, changed = words + found, told["page"], changed + told["changed"]
    assert len(words) == pages and changed > 100 and bench.memory.counts["failed"] >= 5


def filled(bench: Bench, page: int, pages: int, entry: int = 0x867) -> None:
    """Pages with frames in a row."""
    for number in range(pages):
        bench.tables.put(page + number, entry | (0x200 + number) << 12)


@pytest.mark.thorough
def test_huge_leaves_and_holes() -> None:
    """A giant leaf, two of 2 MiB with a hole between, PROT_NONE and swap-like ones; upper levels end and begin."""
    bench = Bench(rules=PLAIN)
    giant = 5 << 18
    huge = giant + (1 << 18)
    bench.tables.put(giant, 0x8E7 | 0x40000 << 12, level=3)
    bench.tables.put(huge + 512, 0x8E7 | 0x600 << 12 | 1 << 12, level=2)  # with PAT
    bench.tables.put(huge + 3 * 512, 0x9E0 | (~(0x800 << 12) & (1 << 52) - (1 << 12)), level=2)
    bench.tables.put(huge + 4 * 512, 0x867 | 0x77 << 12)
    first, pages = huge - 128, 128 + 5 * 512
    bench.tables.memory.words[bench.tables.at(2, huge + 4 * 512)] = bench.tables.table(1, huge + 4 * 512) << 12 | UPPER
    bench.tables.put(huge + 4 * 512 + 3, 0x867 | 0x78 << 12)
    before = dict(bench.memory.words)
    words, bitmap = bench.run(
        bench.command(first, pages, report=Report.WORDS, changes=False),
        bench.command(first, pages, report=Report.BITMAP, changes=False),
    )
    assert words["stopped"] == bitmap["stopped"] == Stop.DONE.value
    assert words["page"] == bitmap["page"] == first + pages
    present, dirty = 1 << 63, 1 << 55
    expected_words = [present | dirty | 0x40000 + (1 << 18) - 128 + number for number in range(128)]
    expected_words += [0] * 512 + [present | dirty | 0x600 + number for number in range(512)] + [0] * 512
    expected_words += [present | dirty | 0x800 + number for number in range(512)]
    expected_words += [present | dirty | 0x77, 0, 0, present | dirty | 0x78] + [0] * 508
    # The bitmap stands where the words began, and is shorter: they are compared from its end on.
    skipped = -(-pages // 64)
    assert bench.told_words(first, pages)[skipped:] == expected_words[skipped:]
    assert bench.bits(pages) == [word >> 55 & 1 for word in expected_words]
    tables = {address: value for address, value in bench.memory.words.items() if address < OUT}
    assert tables == {address: value for address, value in before.items() if address < OUT}


def test_a_leaf_is_changed_by_one_swap_and_read_again_where_it_fails() -> None:
    bench = Bench(rules=PLAIN)
    huge = 9 << 9
    bench.tables.put(huge, 0x8E7 | 0x600 << 12, level=2)
    address, seen = bench.tables.at(2, huge), []

    def second_writer(start: int, length: int) -> None:
        seen.append((start, length))
        if len(seen) == 1:
            bench.memory.store(address, 0x8E7 | 0x600 << 12 | 1 << 9)

    bench.memory.before_swap = second_writer
    (told,) = bench.run(bench.command(huge, 512, report=Report.BITMAP))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 1)
    assert seen == [(address, 8)] * 2
    assert bench.memory.words[address] == 0x0A5 | 0x600 << 12 | 1 << 9 | 1 << 58
    assert bench.bits(512) == [1] * 512


@pytest.mark.parametrize(("flag", "is_global"), [(0, 0), (1 << 8, 1)])
@pytest.mark.parametrize("refused", [False, True])
def test_a_leaf_that_was_changed_or_may_have_been_is_told_as_such(flag: int, is_global: int, refused: bool) -> None:
    """A swap that the bus refuses may have been written: what is cached of the leaf must go all the same."""
    bench = Bench(rules=PLAIN)
    huge = 9 << 9
    bench.tables.put(huge, 0x8E7 | flag | 0x600 << 12, level=2)
    address = bench.tables.at(2, huge)

    def refuses(start: int, length: int) -> None:
        if refused:
            bench.memory.bad.add(address)

    bench.memory.before_swap = refuses
    (told,) = bench.run(bench.command(huge, 512))
    assert (told["stopped"], told["changed"]) == ((Stop.BUS_ERROR if refused else Stop.DONE).value, not refused)
    assert (bench.met_global, bench.met_leaf) == (is_global, 1)


@pytest.mark.thorough
def test_a_leaf_that_was_split_meanwhile_is_looked_at_anew() -> None:
    bench = Bench(rules=PLAIN)
    huge = 9 << 9
    bench.tables.put(huge, 0x8E7 | 0x600 << 12, level=2)
    address = bench.tables.at(2, huge)

    def split(start: int, length: int) -> None:
        bench.memory.before_swap = None
        filled(bench, huge, 512)
        bench.memory.store(address, bench.tables.table(1, huge) << 12 | UPPER)

    bench.memory.before_swap = split
    (told,) = bench.run(bench.command(huge, 512, report=Report.BITMAP))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 512)
    assert bench.bits(512) == [1] * 512
    assert bench.memory.words[address] & 0xFFF == UPPER


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("first", "pages", "flags", "stopped"),
    [
        (0, 512, {"splits": 1}, Stop.NEED_SPLIT),
        (0, 100, {}, Stop.PARTIAL),
        (100, 412, {}, Stop.PARTIAL),
        (0, 100, {"whole_leaves": 1}, Stop.DONE),
        (0, 100, {"changes": 0}, Stop.DONE),
        (100, 100, {"splits": 1, "changes": 0}, Stop.DONE),
    ],
)
def test_leaves_that_software_must_see(first: int, pages: int, flags: dict[str, int], stopped: Stop) -> None:
    bench = Bench(rules=PLAIN)
    huge = 9 << 9
    filled(bench, huge - 20, 20)
    bench.tables.put(huge, 0x8E7 | 0x600 << 12, level=2)
    begin = huge - 20 if first == 0 else huge + first
    length = huge + first + pages - begin
    (told,) = bench.run(bench.command(begin, length) | {"range": bench.command(begin, length)["range"] | flags})
    assert told["stopped"] == stopped.value
    assert told["page"] == (begin + length if stopped == Stop.DONE else huge + (first if first else 0))
    leaf = bench.memory.words[bench.tables.at(2, huge)]
    assert (leaf & 0x800 == 0) == (flags == {"whole_leaves": 1})


def test_bits_beyond_the_range_are_zero() -> None:
    bench = Bench(rules=PLAIN)
    bench.tables.put(9 << 9, 0x8E7 | 0x600 << 12, level=2)
    bench.run(bench.command(9 << 9, 100, report=Report.BITMAP, changes=False))
    assert bench.bits(128) == [1] * 100 + [0] * 28
    assert OUT + 16 not in bench.memory.words


def test_five_levels_and_ends_of_tables() -> None:
    bench = Bench(rules=PLAIN)
    bench.tables = Tables(bench.memory, levels=5)
    page = (3 << 36) - 5
    filled(bench, page, 10)
    (told,) = bench.run(bench.command(page, 10, report=Report.WORDS))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 10)
    assert [word & (1 << 55) - 1 for word in bench.told_words(page, 10)] == list(range(0x200, 0x20A))


@pytest.mark.thorough
def test_an_abort_ends_what_was_begun_and_says_where_to_go_on() -> None:
    bench = Bench(rules=PLAIN, latency=20)
    filled(bench, 0, 1024)
    (told,) = bench.run(bench.command(0, 1024, report=Report.BITMAP), abort_after=400)
    page = told["page"]
    assert told["stopped"] == Stop.ABORTED.value
    assert 100 < page < 900
    assert told["changed"] == page
    assert bench.bits(1024) == [1] * page + [0] * (1024 - page)
    found = [bench.memory.words[bench.tables.at(1, number)] >> 11 & 1 for number in range(1024)]
    assert found == [0] * page + [1] * (1024 - page)


@pytest.mark.thorough
def test_a_line_that_fails_goes_entry_by_entry_and_one_entry_is_given_up() -> None:
    bench = Bench(rules=PLAIN)
    filled(bench, 0, 64)
    target = bench.tables.at(1, 21)
    swaps = {"line": 0, "entry": 0}

    def second_writer(start: int, length: int) -> None:
        if start <= target < start + length:
            swaps["line" if length > 8 else "entry"] += 1
            bench.memory.store(target, bench.memory.words[target] ^ 1 << 9)

    bench.memory.before_swap = second_writer
    (told,) = bench.run(bench.command(0, 64, report=Report.BITMAP))
    assert told["stopped"] == Stop.DONE.value
    assert (told["given_up"], told["given_up_page"], told["changed"]) == (1, 16, 63)
    assert swaps == {"line": 4, "entry": 64}
    assert bench.bits(64) == [1] * 64
    found = [bench.memory.words[bench.tables.at(1, number)] >> 11 & 1 for number in range(64)]
    assert found == [int(number == 21) for number in range(64)]


@pytest.mark.thorough
@pytest.mark.parametrize("level", [1, 2, 4])
def test_bus_errors(level: int) -> None:
    bench = Bench(rules=PLAIN, latency=10)
    filled(bench, 0, 512)
    bench.memory.bad.add(bench.tables.at(level, 40 if level == 1 else 0))
    (told,) = bench.run(bench.command(0, 512, report=Report.BITMAP))
    assert told["stopped"] == Stop.BUS_ERROR.value
    assert (told["failed"], told["failed_page"]) == ((1, 32) if level == 1 else (0, 0))
    assert told["page"] == (told["changed"] + 16 if level == 1 else 0)
    if level == 1:
        assert told["page"] > 48
        assert bench.bits(told["page"]) == [1] * told["page"]


@pytest.mark.thorough
def test_a_table_beyond_the_physical_addresses_and_a_report_that_is_refused() -> None:
    bench = Bench(rules=PLAIN)
    filled(bench, 0, 64)
    bench.memory.bad.add(OUT)
    lost, found = bench.run(bench.command(0, 64, report=Report.BITMAP), bench.command(0, 64))
    assert (lost["lost"], lost["stopped"], found["lost"]) == (1, Stop.DONE.value, 0)
    bench = Bench(rules=PLAIN)
    filled(bench, 0, 64)
    bench.memory.words[bench.tables.at(2, 0)] |= 1 << 40
    (beyond,) = bench.run(bench.command(0, 64))
    assert (beyond["stopped"], beyond["page"]) == (Stop.BUS_ERROR.value, 0)


@pytest.mark.parametrize(
    "wrong", [{"lines": 3}, {"lines": 128}, {"line_bytes": 32}, {"data_bits": 32}, {"physical_bits": 8}]
)
def test_wrong_parameters(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EngineConfig(**wrong)


# The rates of a dense table; latency of the port, lines in flight as the default has them.
RATES = [("clear", 40), ("words", 40), ("bitmap", 16), ("OR", 40), ("clear", 1)]


@pytest.mark.thorough
@pytest.mark.parametrize(("what", "latency"), RATES)
def test_a_dense_table_goes_at_the_rate_of_the_port(what: str, latency: int) -> None:
    bench = Bench(rules=PLAIN, latency=latency)
    filled(bench, 0, 1024)
    report = {"clear": Report.NONE, "words": Report.WORDS}.get(what, Report.BITMAP)
    how = {"ors": 1, "unit": 4} if what == "OR" else {}
    command = bench.command(0, 1024, report=report, changes=what != "words") | how
    half = bench.command(0, 512, report=report, changes=what != "words") | how
    bench.run(half)
    begun = bench.cycles
    again = Bench(rules=PLAIN, latency=latency)
    filled(again, 0, 1024)
    again.run(command)
    assert 512 / (again.cycles - begun) >= 0.95


@pytest.mark.thorough
@pytest.mark.parametrize("seed", [1, 2])
def test_a_read_that_waits_gives_way_to_none(seed: int) -> None:
    """Where upper tables and lines are read at once, at a port that is often busy: what is offered stands."""
    bench = Bench(rules=PLAIN, rng=random.Random(seed))
    middle = 16 << 9  # here a line of the table above ends
    filled(bench, middle - 60, 120)
    (told,) = bench.run(bench.command(middle - 60, 120))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 120)


@pytest.mark.parametrize("beats", [5, 21])
def test_a_reset_in_the_middle_of_a_line(beats: int) -> None:
    """The next command's lines are not taken for what was left of one: entries stay in their places."""
    rules = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
    bench = Bench(rules=rules, latency=3)
    entries = [0x867 | number + 1 << 12 for number in range(64)]
    for number, entry in enumerate(entries):
        bench.tables.put(0x1000 + number, entry)
    (told,) = bench.run(bench.command(0x1000, 64, report=Report.BITMAP), meanwhile=bench.resets(beats))
    assert (told["stopped"], told["changed"]) == (Stop.DONE.value, 64)
    found = [bench.memory.words[bench.tables.at(1, 0x1000 + number)] for number in range(64)]
    assert found == [entry & ~0x800 for entry in entries]
    assert bench.bits(64) == [1] * 64 and len(bench.memory.log) == 64
