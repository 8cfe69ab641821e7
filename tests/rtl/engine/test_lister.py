"""Lists: pages that records of a ring name are cleared one by one, by the numpy rules; where it stops, it goes on."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ptewalk.model.dirty_log import COUNTS, DirtyLog
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.report import Report
from ptewalk.rtl.engine.table_engine import EngineConfig

from .test_change import draw
from .test_table_engine import Bench, expected, filled

RING, SIZE = 0xA0_0000, 512
PCID, OTHER = 0x9A5, 0x9A4
NATIVE = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
FIRST = 5 << 18 | 3 << 9
SIGN_5 = 1 << 44
SMALL = EngineConfig(line_bytes=64, lines=2, lists=True)


class Listing(Bench):
    """An engine that goes through lists, and a ring whose records the golden log wrote."""

    def __init__(self, config: EngineConfig = SMALL, **memory: Any) -> None:
        super().__init__(config, rules=NATIVE, **memory)
        self.log = DirtyLog(RING, SIZE)

    def logs(self, *pages: int, pcid: int = PCID, level: int = 1) -> None:
        """So many records more; software has read all before."""
        for page in pages:
            self.log.head = self.log.tail
            self.log.mark(page << 12, level, pcid=pcid)
            self.memory.words[self.log.order[-1]] = self.log.written[self.log.order[-1]]

    def list(self, first: int, count: int, **other: Any) -> dict[str, Any]:
        """The command, of so many records from that number on."""
        ring = {"base": RING >> 12, "size": SIZE.bit_length() - 1, "pcid": PCID}
        command = self.command(0x1234, 77, **other)  # neither counts, nor how many pages a bit has
        return {**command, "unit": 3, "lists": 1, "list": ring, "list_first": first % COUNTS, "list_count": count}

    def entry(self, page: int, level: int = 1) -> int:
        return self.memory.words.get(self.tables.at(level, page), 0)


CONFIGS = {
    "64": EngineConfig(lists=True),
    "64, lines of 64": SMALL,
    "512": EngineConfig(data_bits=512, lines=8, lists=True),
}


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "levels"), [("64", 5), ("64, lines of 64", 4), ("512", 4)])
def test_pages_of_records_are_cleared_as_the_model_clears_them(name: str, levels: int) -> None:
    """In any order, some twice, of another PCID, or without a table; a second writer; answers in any order."""
    rng = random.Random(f"{name} {levels}")
    bench = Listing(CONFIGS[name], rng=rng, latency=3)
    bench.tables.levels = levels
    bench.tables.frames = {(levels, 0): 0x100}
    high = 0x1FF << 27 if levels == 4 else 0x1FF << 36
    places = [high | table << 9 | place for table in (3, 4, 77, 1 << 10) for place in rng.sample(range(512), 14)]
    before = {page: draw(rng) for page in places}
    for page, entry in before.items():
        bench.tables.put(page, entry)
    listed = rng.choices(places[:42], k=44)
    absent = {7: high | 9 << 18, 30: high | 11 << 9}
    mine = [(absent.get(number, page), OTHER if number % 9 == 5 else PCID) for number, page in enumerate(listed)]
    start = (COUNTS if levels == 5 else 2 * SIZE) - 40  # the phase turns on the way, and where numbers begin anew
    bench.log.order += [0] * start
    for page, pcid in mine:
        bench.logs(page | (high >> 36 & 1) * (SIGN_5 | 0xFF << 36 if levels == 4 else 0), pcid=pcid)

    def second_writer(address: int, length: int) -> None:
        if rng.random() < 0.2 and bench.memory.words.get(address):
            bench.memory.store(address, bench.memory.words[address] ^ 0x20)

    bench.memory.before_swap = second_writer
    (told,) = bench.run(bench.list(start, len(mine), report=Report.BITMAP))
    assert (told["stopped"], told["page"], told["bad"]) == (Stop.DONE.value, len(mine), 0)
    gone = sum(pcid == OTHER or number in absent for number, (_, pcid) in enumerate(mine))
    assert told["absent"] == gone >= 6
    after, _, dirty = (dict(zip(before, of, strict=True)) for of in expected(list(before.values()), NATIVE))
    cleared: set[int] = set()
    bits = []
    for page, pcid in mine:
        takes = pcid == PCID and page not in cleared and page in before
        bits.append(dirty[page] if takes else 0)
        cleared |= {page} if takes else set()
    assert bench.bits(len(mine)) == bits and sum(bits) > 4
    accessed = 0x20
    for page, entry in before.items():
        assert bench.entry(page) & ~accessed == (after[page] if page in cleared else entry) & ~accessed, hex(page)
    assert told["changed"] == len(bench.memory.log) > 4


@pytest.mark.thorough
@pytest.mark.parametrize(("flags", "stopped"), [({}, Stop.PARTIAL), ({"splits": 1}, Stop.NEED_SPLIT)])
def test_a_huge_leaf_is_softwares_unless_it_may_be_cleared_whole(flags: dict[str, int], stopped: Stop) -> None:
    """The command stops at its record; software acts and goes on there, or has the whole leaf cleared."""
    bench = Listing()
    filled(bench, FIRST, 3)
    huge = FIRST + 1024
    bench.tables.put(huge, 0x8E7 | 0x600 << 12, level=2)
    bench.logs(FIRST, huge + 77, FIRST + 2)
    first, whole = bench.run(bench.list(0, 3, **flags), bench.list(1, 2, whole_leaves=1, report=Report.BITMAP))
    assert (first["stopped"], first["page"], first["changed"], first["absent"]) == (stopped.value, 1, 1, 0)
    assert (whole["stopped"], whole["page"], whole["changed"]) == (Stop.DONE.value, 2, 2)
    assert bench.entry(huge, 2) == 0x0E7 | 0x600 << 12 and bench.bits(2) == [1, 1]
    assert [bench.entry(FIRST + place) >> 11 & 1 for place in range(3)] == [0, 1, 0]


@pytest.mark.thorough
def test_what_is_no_record_stops_it() -> None:
    """A place of the ring that holds what was written a round ago."""
    bench = Listing()
    filled(bench, FIRST, 8)
    bench.logs(*(FIRST + place for place in range(5)))
    (told,) = bench.run(bench.list(0, 8))
    assert (told["stopped"], told["bad"], told["page"], told["changed"]) == (Stop.ABORTED.value, 1, 5, 5)


@pytest.mark.thorough
def test_an_abort_says_at_which_record_to_go_on() -> None:
    bench = Listing(latency=10)
    filled(bench, FIRST, 40)
    pages = [FIRST + place * 37 % 40 for place in range(40)]
    bench.logs(*pages)
    (told,) = bench.run(bench.list(0, 40), abort_after=250)
    done = told["page"]
    assert (told["stopped"], told["bad"]) == (Stop.ABORTED.value, 0) and 5 < done < 35
    assert [bench.entry(page) >> 11 & 1 for page in pages] == [0] * done + [1] * (40 - done)
    bench.memory.log.clear()
    (rest,) = bench.run(bench.list(done, 40 - done))
    assert (rest["stopped"], rest["page"], len(bench.memory.log)) == (Stop.DONE.value, 40 - done, 40 - done)


@pytest.mark.thorough
def test_bus_errors() -> None:
    """Of the records: what was begun ends. Of a line of entries: the record is named, and reported as dirty."""
    bench = Listing()
    filled(bench, FIRST, 64)
    bench.logs(*(FIRST + 2 * place for place in range(32)))
    bench.memory.bad = {RING + 8 * 20}
    (told,) = bench.run(bench.list(0, 32))
    assert (told["stopped"], told["page"], told["changed"], told["failed"]) == (Stop.BUS_ERROR.value, 16, 16, 0)
    bench.memory.bad = {bench.tables.at(1, FIRST + 48)}
    (told,) = bench.run(bench.list(16, 16, report=Report.BITMAP))
    assert (told["stopped"], told["failed"], told["failed_page"]) == (Stop.BUS_ERROR.value, 1, 8)
    assert bench.bits(9) == [1] * 9


@pytest.mark.thorough
def test_an_entry_whose_swap_always_fails_is_given_up() -> None:
    bench = Listing()
    filled(bench, FIRST, 16)
    bench.logs(FIRST + 3, FIRST + 4)
    spoiled = bench.tables.at(1, FIRST + 3)

    def second_writer(start: int, length: int) -> None:
        if start <= spoiled < start + length:
            bench.memory.store(spoiled, bench.entry(FIRST + 3) ^ 0x20)

    bench.memory.before_swap = second_writer
    (told,) = bench.run(bench.list(0, 2))
    assert (told["stopped"], told["given_up"], told["given_up_page"], told["changed"]) == (Stop.DONE.value, 1, 0, 1)


@pytest.mark.thorough
def test_a_pause_between_two_records_forgets_tables() -> None:
    """The table of the second page is another after the pause: what was read of upper tables is not used."""
    bench = Listing(latency=2)
    filled(bench, FIRST, 256)
    bench.logs(*(FIRST + place for place in range(0, 256, 16)))
    old = bench.tables.table(1, FIRST) << 12
    upper = bench.tables.at(2, FIRST)
    new, seen = 0x7000 << 12, []

    def meanwhile(ctx: Any) -> None:
        if len(bench.memory.log) == 1 and not seen:
            ctx.set(bench.dut.pause, 1)
        if ctx.get(bench.dut.pause) and ctx.get(bench.dut.paused) and not seen:
            seen.append(len(bench.memory.log))
            for place in range(512):
                bench.memory.words[new + 8 * place] = bench.memory.words.get(old + 8 * place, 0)
            bench.memory.words[upper] = new | 0x67
        elif seen and ctx.get(bench.dut.pause):
            ctx.set(bench.dut.pause, 0)

    (told,) = bench.run(bench.list(0, 16), meanwhile=meanwhile)
    assert told["stopped"] == Stop.DONE.value and told["changed"] == 16
    late = [address for address, _, _ in bench.memory.log[seen[0] :]]
    assert 4 < len(late) < 16 and all(address >= new for address in late)


@pytest.mark.thorough
@pytest.mark.parametrize("levels", [4, 5])
def test_a_line_that_is_kept_is_of_its_table(levels: int) -> None:
    """Pages at the same places of tables of levels 1, 2 and 3: each is found in its own."""
    bench = Listing()
    bench.tables.levels = levels
    bench.tables.frames = {(levels, 0): 0x100}
    pages = [FIRST + far for far in (0, 1 << 9, 1 << 18, 1 << 27, 1 << 27 | 1 << 18, 1 << 18 | 1)]
    for place, page in enumerate(pages):
        bench.tables.put(page, 0x867 | (0x200 + place) << 12)
    for page in pages:
        bench.logs(page, FIRST)
    (told,) = bench.run(bench.list(0, 2 * len(pages), report=Report.BITMAP))
    assert (told["stopped"], told["changed"], told["absent"]) == (Stop.DONE.value, len(pages), 0)
    assert [bench.entry(page) for page in pages] == [0x067 | (0x200 + place) << 12 for place in range(len(pages))]


def test_no_records_are_no_work() -> None:
    bench = Listing()
    (told,) = bench.run(bench.list(5, 0))
    assert (told["stopped"], told["page"], bench.memory.counts["reads"]) == (Stop.DONE.value, 0, 0)


@pytest.mark.thorough
def test_an_ordinary_command_goes_through_its_range() -> None:
    bench = Listing()
    filled(bench, FIRST, 40)
    command = {**bench.command(FIRST, 40, report=Report.BITMAP), "lists": 0, "list_count": 9}
    bench.logs(*range(9))
    told, listed = bench.run(command, bench.list(0, 9))
    assert (told["stopped"], told["page"], told["changed"], told["absent"]) == (Stop.DONE.value, FIRST + 40, 40, 0)
    assert bench.bits(40) == [1] * 40 and listed["absent"] == 9


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("tables", "latency", "cycles"), [(1, 4, 8.375), (1, 40, 12.5625), (4, 4, 12.0625), (4, 40, 14.375)]
)
def test_the_rate_of_records(tables: int, latency: int, cycles: float) -> None:
    """Random pages, of one table or of several side by side, eight lines in flight: cycles of each further record."""
    pages = [FIRST + 512 * table + place for table in range(tables) for place in range(0, 512, 4)]
    random.Random(3).shuffle(pages)
    taken = []
    for count in (16, 48):
        bench = Listing(EngineConfig(lists=True), latency=latency)
        for page in pages:
            bench.tables.put(page, 0x867 | 0x200 << 12)
        bench.logs(*pages[:count])
        (told,) = bench.run(bench.list(0, count))
        assert told["changed"] == count
        taken.append(bench.cycles)
    assert (taken[1] - taken[0]) / 32 == cycles


@pytest.mark.parametrize("value", [1, None])
def test_wrong_parameter(value: Any) -> None:
    with pytest.raises(ValueError, match="lists must be True or False, not"):
        EngineConfig(lists=value)
