"""Recorded scenarios on a unit that the driver uses by its registers alone, by compiled code."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.unit_engine import COMMANDED, CommandedEngine
from ptewalk.cosim.bench.unit_lane import ROOM_BASE, UnitLane
from ptewalk.cosim.bench.unit_mmu import DrivenEngine, DrivenMmu
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.driver import table_engine
from ptewalk.cosim.driver.dirty_log import EMPTY, UnitLog
from ptewalk.cosim.driver.engine_masks import clearing
from ptewalk.cosim.driver.rings import RingOfCommands
from ptewalk.cosim.driver.steps import DriverError, Steps, run
from ptewalk.cosim.driver.table_engine import Listed, TableEngine, changing, telling_bits
from ptewalk.cosim.driver.unit import Fault, Unit
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.formats.scenarios import load, without_answers
from ptewalk.cosim.runs.engine import can_build
from ptewalk.cosim.runs.scenarios import check_on_gateware, replay_gateware
from ptewalk.cosim.runs.unit_library import UnitLibrary, unit_named
from ptewalk.model.bulk import clear_refs, pagemap
from ptewalk.model.dirty_bitmap import dirty_bitmap
from ptewalk.model.dirty_log import DirtyLog, LoggingMmu
from ptewalk.model.engine import Pages
from ptewalk.model.linux import PagemapBit, SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, translate
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access, Control, Outcome
from ptewalk.rtl.bus.self_test import CHECKS, LINE_CHECKS
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.presets import CACHING
from ptewalk.rtl.registers.map import BY_NAME, Command
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

pytestmark = pytest.mark.thorough
PAGES = 5
STEPS: list[dict[str, Any]] = [
    {"op": "mmap", "page": 0, "n": PAGES, "prot": "rw", "kind": "anon"},
    {"op": "write", "page": 0, "n": PAGES},
    {"op": "clear_refs", "value": "4"},
    {"op": "write", "page": 3, "n": 1},
    {"op": "clear_refs", "value": "1"},
    {"op": "mremap", "page": 0, "n": PAGES, "new_n": PAGES, "flags": ["MAYMOVE", "FIXED"], "new_page": 700},
    {"op": "munmap", "page": 701, "n": 1},
    {"op": "read", "page": 700, "n": PAGES},
]


@pytest.fixture(scope="module")
def unit() -> UnitLibrary:
    """Of preset `mmu-small`, with a table engine."""
    return unit_named("mmu-small", WalkerConfig())


def checked(
    unit: UnitLibrary, track: str, seed: int | None = 1, more: tuple[dict[str, Any], ...] = ()
) -> dict[str, Any]:
    """`STEPS` in step with the golden model, and more behind them."""
    every = [*STEPS, *more]
    head = {"t": "scenario", "name": "few", "base": "0x100000000000", "steps": len(every)}
    steps = [{"t": "step", "name": "few", "i": i, "op": {"who": 0} | op} for i, op in enumerate(every)]
    return check_on_gateware([without_answers([head, *steps])], "linux-6.1", track, True, None, by=unit, seed=seed)


@pytest.mark.parametrize(
    ("track", "faults", "marks", "mends"), [("off", 6, 0, 0), ("fault", 5, 1, 1), ("native", 5, 1, 0)]
)
def test_registers_alone(unit: UnitLibrary, track: str, faults: int, marks: int, mends: int) -> None:
    """First stores fault once a page; the store after the clear faults, or is marked; so does the page unmapped.

    Cleared: five soft-dirty entries, then A of five; five entries move.
    """
    told = checked(unit, track)
    assert (told["agree"], told["differ"], told["engine"]) == (len(STEPS), 0, None), told["first_difference"]
    counters, driver = told["counters"], told["driver"]
    assert (counters["marks"], counters["mends"]) == (marks, mends)
    assert counters["delivered_faults"] == driver["fault_records"]
    assert (driver["clears"], driver["agings"], driver["moves"], driver["moved"]) == (1, 1, 1, PAGES)
    assert driver["changed"] == 2 * PAGES
    assert driver["invalidations"] >= 3 and driver["contexts"] >= 1 and driver["self_tests"] == 1
    assert driver["commands"] == sum(driver[name] for name in COMMANDED) and driver["pagemaps"] >= len(STEPS)
    looked_up = 0 if track == "off" else 2 * PAGES  # after each write, for the pages stored to
    assert driver["words"] == 6 * PAGES + 2 * (PAGES - 1) + looked_up and driver["accesses"] > 1000
    assert driver["word_reads"] == driver["word_swaps"] == 0


@pytest.mark.slow
@pytest.mark.share(9)
@pytest.mark.parametrize("track", ["native", "off", "fault"])
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_recorded_scenarios(unit: UnitLibrary, kernel: str, track: str) -> None:
    """Each step as a real kernel answered, each word of memory and each counter as the golden model has it."""
    (told,) = replay_gateware([ReplayJob((str(KERNELS[kernel]),), kernel, track, seed=5)], None, by=unit)
    steps = sum(len(scenario.steps) for scenario in load([KERNELS[kernel]]))
    assert (told["agree"], told["differ"], told["skipped"], told["missing"]) == (steps, 0, 0, "")
    driver = told["driver"]
    assert driver["fault_records"] > 500 and driver["changed"] > 300 and driver["moved"] > 30
    assert driver["commands"] > steps and driver["word_reads"] == driver["word_swaps"] == 0


@pytest.mark.slow
@pytest.mark.share(3)
@pytest.mark.parametrize("track", ["native", "off", "fault"])
def test_recorded_scenarios_by_atomic_transactions(track: str) -> None:
    """The same of a unit without an engine, whose swaps, the driver's too, are AtomicCompare."""
    unit = UnitLibrary.make(UnitConfig(CACHING["mmu-small"], table_bits=128, table_atomic=True))
    (told,) = replay_gateware([ReplayJob((str(KERNELS["linux-6.1"]),), "linux-6.1", track, seed=5)], None, by=unit)
    steps = sum(len(scenario.steps) for scenario in load([KERNELS["linux-6.1"]]))
    assert (told["agree"], told["differ"], told["skipped"]) == (steps, 0, 0)
    driver = told["driver"]
    assert driver["self_tests"] == driver["commands"] == 0 and driver["changed"] > 300
    assert driver["word_reads"] > steps and driver["word_swaps"] >= driver["changed"] + 2 * driver["moved"]


@pytest.mark.slow
@pytest.mark.skipif(not can_build("cxxrtl"), reason="cxxrtl was not found")
def test_cxxrtl_is_the_same(unit: UnitLibrary) -> None:
    """In as many cycles, under conditions."""
    other = unit_named("mmu-small", WalkerConfig(), "cxxrtl")
    assert checked(other, "fault") | {"simulator": unit.simulator} == checked(unit, "fault")


def deaf(*given: Any, **named: Any) -> Steps[None]:
    """Nothing is done."""
    yield from ()


def test_what_is_not_invalidated_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that is read and then unmapped: no command of the engine comes between."""
    monkeypatch.setattr(Unit, "invalidate", deaf)
    gone = {"op": "munmap", "page": 700, "n": 1}
    assert "few step 8" in checked(unit, "native", more=(gone,))["first_difference"]


def test_what_the_engine_does_it_invalidates(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a clear, an ageing and a move no INVALIDATE is needed; where a command names another PCID one is."""
    monkeypatch.setattr(Unit, "invalidate", deaf)
    assert checked(unit, "native")["differ"] == 0
    real = DrivenMmu.pcid_of
    monkeypatch.setattr(DrivenMmu, "pcid_of", lambda self, root: real(self, root) ^ 1)
    assert "few step " in checked(unit, "native")["first_difference"]


def test_what_is_not_applied_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched to, but for who tracks: the store after the clear is not marked."""
    real = Unit.context

    def wrong(self: Unit, root: int, **named: Any) -> Steps[None]:
        return real(self, root, **named | {"track": Track.OFF})

    monkeypatch.setattr(Unit, "context", wrong)
    assert "few step 3" in checked(unit, "native")["first_difference"]


def test_a_clear_that_is_not_done_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(self: CommandedEngine, pages: Pages, rules: Entries, *, permit: bool, splits: bool) -> int:
        return pages.last

    monkeypatch.setattr(CommandedEngine, "clear", lazy)
    assert "few step 2" in checked(unit, "native")["first_difference"]


@pytest.mark.parametrize(("mask", "step"), [("clearing", 2), ("ageing", 4), ("moving", 5)])
def test_a_mask_that_lacks_a_bit_is_seen(
    unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch, mask: str, step: int
) -> None:
    """Of what a clear or an ageing takes from an entry, or of what a move sets in it: nothing else does that."""
    real = getattr(table_engine, mask)

    def wrong(*given: Any, **named: Any) -> Any:
        change = real(*given, **named)
        present = change["present"]
        which = "set" if mask == "moving" else "clear"
        part = max(present[which], key=lambda name: present[which][name])
        bit = present[which][part] & -present[which][part]
        assert bit
        fewer = present[which] | {part: present[which][part] ^ bit}
        return change | {"present": present | {which: fewer}}

    monkeypatch.setattr(table_engine, mask, wrong)
    assert f"few step {step}" in checked(unit, "native")["first_difference"]


def test_what_a_command_tells_is_compared(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many entries it changed, beside what memory saw."""
    real = TableEngine.end

    def wrong(self: TableEngine) -> Steps[list[dict[str, int]]]:
        told = yield from real(self)
        return [one | {"changed": one["changed"] + (one["changed"] == PAGES)} for one in told]

    monkeypatch.setattr(TableEngine, "end", wrong)
    assert f"{PAGES + 1} entries changed, of {PAGES} seen" in checked(unit, "native")["first_difference"]


def test_a_command_that_stops_short_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is aborted before it begins: the driver says where it stopped."""
    real = TableEngine.begin

    def wrong(self: TableEngine, *given: Any, **named: Any) -> Steps[None]:
        yield from real(self, *given, **named)
        yield from self.abort()

    monkeypatch.setattr(TableEngine, "begin", wrong)
    assert "ended as ABORTED" in checked(unit, "native", seed=None)["first_difference"]


def test_words_that_are_wrong_are_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the engine wrote is what pagemap says."""
    real = DrivenMmu.carry

    def wrong(self: DrivenMmu, steps: Steps[Any], *, room: int = 0) -> Any:
        told, events, report = real(self, steps, room=room)
        report[report != 0] ^= 1 << 55
        return told, events, report

    monkeypatch.setattr(DrivenMmu, "carry", wrong)
    assert "golden model's state" in checked(unit, "native")["first_difference"]


def test_an_engine_that_does_too_little_is_told(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the driver reads pagemaps by words all is equal, and the answer says that the engine did little."""
    monkeypatch.setattr(CommandedEngine, "words", lambda self, *a, **k: DrivenEngine(self._carrier).words(*a, **k))
    many = replay_gateware([ReplayJob((str(KERNELS["linux-3.11"]),), "linux-3.11", "native")], None, by=unit)[0]
    driver = many["driver"]
    assert (many["differ"], driver["commands"]) == (0, driver["clears"] + driver["agings"] + driver["moves"])
    assert many["missing"] == f"the table engine did {driver['commands']} commands in {many['agree']} steps"


def test_commands_that_do_not_end_are_counted(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """The unit counts what has ended, the lane what was given."""
    real = Unit.ended

    def wrong(self: Unit) -> Steps[int]:
        return (yield from real(self)) + 1

    monkeypatch.setattr(Unit, "ended", wrong)
    assert "commands have ended, of" in checked(unit, "native")["first_difference"]


@pytest.mark.parametrize(("track", "by_words"), [*((track, False) for track in Track), (Track.NATIVE, True)])
def test_a_clear_and_a_pagemap_by_registers(unit: UnitLibrary, track: Track, by_words: bool) -> None:
    """Over two tables, on a bus that stalls: each entry and each word is the golden model's. The end is in force: a
    store that the TLB knew before is marked again, though no INVALIDATE was given. By words, as on memory that reserves
    no lines, too."""
    rules, rng = Entries(PROFILES["linux-6.1"], track=track), random.Random(f"clear {track}")
    first, last = 0x1FC0, 0x2047  # page numbers
    memory = SparseMemory(strict=True)
    for frame in range(1, 6):
        memory.add_frame(frame)
    for at, table in ((1 << 12, 2), (2 << 12, 3), ((3 << 12) + 8 * (first >> 9), 4), ((3 << 12) + 8 * (last >> 9), 5)):
        memory.store(at, table << 12 | 7)
    kinds = (0, 0x65, 0x67, rules.pte_mksoft_dirty(0x67), rules.pte_mksoft_dirty(0x25))
    chosen = [rng.choice(kinds) and rng.choice(kinds[1:]) | page << 12 for page in range(first, last)]
    entries = np.array(chosen, np.uint64)
    entries[0] = rules.pte_mksoft_dirty(0x67) | 0x77 << 12
    places = [((4 + (page >> 9) - (first >> 9)) << 12) + 8 * (page & 511) for page in range(first, last)]
    for at, entry in zip(places, entries.tolist(), strict=True):
        memory.store(at, entry)
    lane, pages = unit.lane, Pages(1, 4, first, last)
    lane.reset(memory)
    made = run(lane, Unit.open())
    lane.write(BY_NAME["LIMITS"].offset, BY_NAME["LIMITS"].pack(words=by_words))
    given = {"stalls": 0.3, "latency": 3, "latency_spread": 9}
    lane.remember(memory, seed=2, **given)
    run(lane, made.context(0x1000, control=1 << Control.WP, pcid=5, keep=True, track=track))
    linear = first << 12
    for _ in range(2):  # the second one is answered by the TLB
        run(lane, made.translate(linear, Access.WRITE, user=False))
    entries[0] = memory.load(places[0])
    lane.events()
    stopped, changed = run(lane, TableEngine(made).clear(pages, rules, pcid=5))
    events = lane.events()
    due = entries.copy()
    clear_refs(due, rules, permit=True)
    assert [memory.load(at) for at in places] == due.tolist()
    assert (stopped, changed) == (last, int(np.count_nonzero(due != entries))) and changed > 20
    assert np.count_nonzero(events["writes"] & events["done"]) == changed
    run(lane, made.translate(linear, Access.WRITE, user=False))
    marked = memory.load(places[0])
    assert (marked & ~due.tolist()[0] != 0) == (track != Track.OFF)
    due[0] = marked
    engine = TableEngine(made)
    room = lane.room(engine.report_words(pages) + last - first)
    lane.remember(memory, seed=3, **given)
    assert run(lane, engine.words(pages, rules, ROOM_BASE, pcid=5)) == ROOM_BASE + 8 * engine.report_words(pages)
    assert room[engine.report_words(pages) :].tolist() == pagemap(due, rules).tolist()


def test_resets_by_software(unit: UnitLibrary) -> None:
    """While a store is translated, or the engine clears: no offer is withdrawn, each entry is as before or as after,
    and what the unit is asked next is answered by other tables and by these, and cleared to the end."""
    rules, rng = Entries(PROFILES["linux-6.1"], track=Track.NATIVE), random.Random("resets")
    clear, counted = clearing(rules), [0, 0]
    for number in range(40):
        memory = SparseMemory(strict=True)
        for frame in range(1, 9):
            memory.add_frame(frame)
        for table in (1, 2, 3, 5, 6, 7):
            memory.store(table << 12, table + 1 << 12 | 0x67)
        for table in (4, 8):
            for page in range(64):
                memory.store((table << 12) + 8 * page, (0x100 * table + page) << 12 | (0x867 if page else 0x67))
        lane, pages = unit.lane, Pages(1, 4, 1, 64)
        lane.reset(memory)
        made = run(lane, Unit.open())
        lane.remember(memory, seed=number, stalls=0.3, latency=3, latency_spread=9)
        run(lane, made.context(0x1000, track=Track.NATIVE))
        if number % 2:
            run(lane, TableEngine(made).begin(changing(pages, clear, rules)))
        else:
            lane.write(BY_NAME["REQUEST"].offset, BY_NAME["REQUEST"].pack(access=Access.WRITE, user=1, retire=1))
            run(lane, made.begin(Command.REQUEST))
        for _ in range(rng.randrange(100)):
            lane.read(BY_NAME["STATUS"].offset)
        run(lane, made.soft_reset())
        entries = [memory.load((4 << 12) + 8 * page) for page in range(64)]
        assert {entry & 0xFFF for entry in entries[1:]} <= {0x867, 0x067} and entries[0] & 0xFFF in (0x067, 0x867)
        cleared = sum(entry & 0x800 == 0 for entry in entries[1:])
        counted[number % 2] += 0 < cleared < 63 if number % 2 else entries[0] & 0x800 != 0
        made = run(lane, Unit.open())
        for root, table in ((0x5000, 8), (0x1000, 4)):
            run(lane, made.context(root, track=Track.NATIVE))
            assert run(lane, made.translate(0x5008, Access.WRITE)).physical == (0x100 * table + 5) << 12 | 8
            assert memory.load((table << 12) + 8 * 5) & 0xFFF == 0x867
        assert run(lane, TableEngine(made).clear(pages, rules)) == (64, 63 - cleared + (entries[5] & 0x800 == 0))
        assert not any(memory.load((4 << 12) + 8 * page) & 0x800 for page in range(1, 64))
    assert min(counted) > 2


@pytest.fixture(scope="module")
def logged() -> UnitLibrary:
    """Preset `mmu-small` with a dirty log and a table engine that takes lists, and has rings."""
    mmu = replace(CACHING["mmu-small"], walker=WalkerConfig(trace=False), log=LogConfig())
    return UnitLibrary.make(UnitConfig(mmu, engine=EngineConfig(lists=True), rings=True))


def logged_pages(lane: UnitLane, count: int) -> tuple[SparseMemory, Unit, UnitLog]:
    """A unit that was reset, with so many pages; its log has 512 words of room at `ROOM_BASE`, and is off."""
    memory = SparseMemory(strict=True)
    for frame in range(1, 5):
        memory.add_frame(frame)
    for table in (1, 2, 3):
        memory.store(table << 12, table + 1 << 12 | 0x67)
    for page in range(count):
        memory.store((4 << 12) + 8 * page, 0x100 + page << 12 | 0x67)
    lane.reset(memory)
    made = run(lane, Unit.open())
    return memory, made, UnitLog(made)


@pytest.mark.slow
def test_a_log_by_registers(logged: UnitLibrary) -> None:
    """Forty epochs on a bus that stalls, so that the ring comes round: each word is the golden model's.

    Software reads the ring in memory; the engine clears, and when it has ended every record is there.
    """
    rng, lane, pages = random.Random(8), logged.lane, 60
    memory, made, log = logged_pages(lane, pages)
    golden, state = LoggingMmu(memory.copy(), DirtyLog(ROOM_BASE)), State(0x1000, track=Track.NATIVE, pcid=5)
    rules, span = Entries(PROFILES["linux-6.1"], track=Track.NATIVE), Pages(1, 4, 0, pages)
    ring = lane.room(512)
    lane.remember(memory, seed=2, stalls=0.2, latency=3, latency_spread=9)
    run(lane, made.context(0x1000, pcid=5, track=Track.NATIVE))
    run(lane, log.set_up(ROOM_BASE, 512))
    read = 0
    for epoch in range(40):
        for _ in range(100):
            request = Request(rng.randrange(pages) << 12, rng.choice((Access.WRITE, Access.READ)), user=True)
            golden.run(state, [request])
            assert run(lane, made.translate(request.linear, request.access)).outcome == Outcome.OK
        run(lane, TableEngine(made).clear(span, rules, pcid=5))
        clear_refs(golden.memory.frame(4)[:pages], rules)  # type: ignore[attr-defined]
        numbers = run(lane, log.unread())
        assert numbers == range(read % (1 << 19), golden.log.tail)
        words = [int(ring[place - ROOM_BASE >> 3]) for place in log.places(numbers)]
        assert [one.word() for one in log.records(words, numbers.start)] == words
        assert words == [golden.log.written[at] for at in golden.log.order[read:]]
        run(lane, log.release(len(numbers)))
        read = len(golden.log.order)
        golden.log.head = golden.log.tail
        golden.epoch = epoch & 1
        run(lane, log.epoch(golden.epoch))
    assert read > 1024 and memory.frame(4).tolist() == golden.memory.frame(4).tolist()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_live_migration_by_registers(logged: UnitLibrary) -> None:
    """Forty rounds of stores, each with a list of the older half of the records: nothing is lost, or told twice.

    What lists told since each store, and what is soft-dirty, are together the pages that were stored to.
    """
    rng, lane, pages = random.Random(10), logged.lane, 60
    memory, made, log = logged_pages(lane, pages)
    rules, span, engine = Entries(PROFILES["linux-6.1"], track=Track.NATIVE), Pages(1, 4, 0, 0), TableEngine(made)
    room = lane.room(512 + 16)
    lane.remember(memory, seed=4, stalls=0.2, latency=3, latency_spread=9)
    run(lane, made.context(0x1000, pcid=5, track=Track.NATIVE))
    run(lane, log.set_up(ROOM_BASE, 512))
    listed, owed = 0, set[int]()  # pages that were stored to, and not told since
    for _ in range(40):
        for page in rng.sample(range(pages), 25):
            run(lane, made.translate(page << 12, Access.WRITE))
            owed.add(page)
        run(lane, made.drain())
        numbers = run(lane, log.unread())
        late = numbers[len(numbers) // 2 :]  # the rest is for the next round
        numbers = numbers[: len(numbers) // 2]
        words = [int(room[place - ROOM_BASE >> 3]) for place in log.places(numbers)]
        named = [one.page for one in log.records(words, numbers.start)]
        ring = Listed(log.base, log.size, numbers.start, len(numbers))
        told = run(lane, engine.clear_list(ring, span, rules, ROOM_BASE + 0x1000, pcid=5))
        bits = [int(room[512 + at // 64]) >> at % 64 & 1 for at in range(len(numbers))]
        assert bits == [1] * len(numbers) and told == (len(numbers), 0)
        assert len(set(named)) == len(named) and set(named) <= owed
        owed -= set(named)
        assert {page for page in range(pages) if memory.load((4 << 12) + 8 * page) >> SoftBit.SOFT_DIRTY & 1} == owed
        assert len(late) >= len(owed)
        run(lane, log.release(len(numbers)))
        listed += len(numbers)
    assert listed > 512


@pytest.mark.slow
def test_a_ring_of_commands(logged: UnitLibrary) -> None:
    """Of clears of areas at random, up to eight by a doorbell, between stores; software reaches the rings in memory."""
    rng, lane, pages = random.Random(11), logged.lane, 60
    memory, made, _ = logged_pages(lane, pages)
    golden, state = memory.copy(), State(0x1000, track=Track.NATIVE, pcid=5)
    rules, ring = Entries(PROFILES["linux-6.1"], track=Track.NATIVE), RingOfCommands(made)
    room = lane.room(1024)
    lane.remember(memory, seed=5, stalls=0.2, latency=3, latency_spread=9)
    run(lane, made.context(0x1000, pcid=5, track=Track.NATIVE))
    run(lane, ring.set_up(ROOM_BASE, 8, ROOM_BASE + 0x1000, 16))
    done = 0
    for _ in range(30):
        for page in rng.sample(range(pages), 20):
            translate(golden, state, Request(page << 12, Access.WRITE, user=True))
            run(lane, made.translate(page << 12, Access.WRITE))
        areas, due = [], []
        for _ in range(rng.randrange(1, 9)):
            first = rng.randrange(pages)
            areas.append(Pages(1, 4, first, rng.randrange(first, pages) + 1))
            entries = golden.frame(4)[first : areas[-1].last]
            before = entries.copy()
            clear_refs(entries, rules)
            due.append((len(due), areas[-1].last, int(np.count_nonzero(entries != before))))
        commands = [changing(area, clearing(rules), rules) for area in areas]
        run(lane, ring.stage(commands[0]))
        for identity, (command, place) in enumerate(zip(commands, ring.places(len(commands)), strict=True)):
            at = place - ROOM_BASE >> 3
            room[at : at + 8] = ring.descriptor(command, identity, pcid=5)
        run(lane, ring.give(len(commands)))
        run(lane, made.await_end(Command.RING))
        numbers = run(lane, ring.told())
        told = []
        for number, place in zip(numbers, ring.done_places(numbers), strict=True):
            words = [int(word) for word in room[place - ROOM_BASE >> 3 :][:4]]
            assert ring.holds(words[0], number)
            told.append(ring.done(words))
        run(lane, ring.release(len(told)))
        assert [(one["id"], one["page"], one["changed"]) for one in told] == due
        assert memory.frame(4).tolist() == golden.frame(4).tolist()
        done += len(told)
    assert done > 100


@pytest.mark.slow
def test_bitmaps_by_a_ring(logged: UnitLibrary) -> None:
    """Scans of areas at random, of a page a bit to 512, that set bits in bitmaps that are there, or write over them."""
    rng, lane, pages = random.Random(12), logged.lane, 60
    memory, made, _ = logged_pages(lane, pages)
    golden, state = memory.copy(), State(0x1000, track=Track.NATIVE, pcid=5)
    rules, ring = Entries(PROFILES["linux-6.1"], track=Track.NATIVE), RingOfCommands(made)
    room = lane.room(1024)
    bitmaps = room[768:]
    lane.remember(memory, seed=6, stalls=0.2, latency=3, latency_spread=9)
    run(lane, made.context(0x1000, pcid=5, track=Track.NATIVE))
    run(lane, ring.set_up(ROOM_BASE, 8, ROOM_BASE + 0x1000, 16))
    due, stay, dirty = bitmaps.copy(), 0, 0
    for _ in range(20):
        for page in rng.sample(range(pages), 10):
            translate(golden, state, Request(page << 12, Access.WRITE, user=True))
            run(lane, made.translate(page << 12, Access.WRITE))
        commands = []
        for _ in range(rng.randrange(1, 9)):
            ors, unit, place = rng.random() < 0.7, rng.randrange(10), rng.randrange(20)
            first = rng.randrange(pages) if ors else 0
            area = Pages(1, 4, first, rng.randrange(first, pages) + 1)
            entries = golden.frame(4)[first : area.last]
            found = pagemap(entries, rules) >> np.uint64(PagemapBit.SOFT_DIRTY) & np.uint64(1) != 0
            clear_refs(entries, rules)
            there = due[place : place + 1] if ors else None
            stay, dirty = stay + (ors and bool(due[place])), dirty + np.count_nonzero(found)
            due[place] = dirty_bitmap(found, first, unit=unit, there=there)[0]
            at = ROOM_BASE + 8 * (768 + place)
            commands.append(telling_bits(area, rules, at, ors=ors, page_size=0x1000 << unit))
        run(lane, ring.stage(commands[0]))
        for identity, (command, place) in enumerate(zip(commands, ring.places(len(commands)), strict=True)):
            at = place - ROOM_BASE >> 3
            room[at : at + 8] = ring.descriptor(command, identity, pcid=5)
        run(lane, ring.give(len(commands)))
        run(lane, made.await_end(Command.RING))
        run(lane, ring.release(len(run(lane, ring.told()))))
        assert bitmaps.tolist() == due.tolist()
        assert memory.frame(4).tolist() == golden.frame(4).tolist()
    assert stay > 20 and dirty > 100


@pytest.mark.slow
def test_pml_buffers_in_turn(logged: UnitLibrary) -> None:
    """Made empty by registers, taken while the other one is filled: no page is told twice, and none is missing."""
    rng, lane, pages = random.Random(9), logged.lane, 60
    memory, made, log = logged_pages(lane, pages)
    room = lane.room(1024)
    lane.remember(memory, seed=3, stalls=0.2, latency=3, latency_spread=9)
    run(lane, made.context(0x1000, pcid=5, track=Track.NATIVE))
    buffers = [ROOM_BASE, ROOM_BASE + 0x1000]
    for base in buffers:
        run(lane, log.make_empty(base))
    assert room.tolist() == [EMPTY] * 1024
    run(lane, log.set_up_pml(buffers[0]))
    told: list[int] = []
    stored = rng.sample(range(pages), 40)
    for turn in range(4):
        for page in stored[10 * turn : 10 * turn + 10]:
            run(lane, made.translate(page << 12, Access.WRITE))
        buffers.reverse()
        told += run(lane, log.take_pml(buffers[0]))
    assert told == [page << 12 for page in stored]
    assert room.tolist() == [EMPTY] * 1024


def test_a_wrong_record_of_a_fault_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Unit.pop_fault

    def wrong(self: Unit) -> Steps[Fault | None]:
        fault = yield from real(self)
        return fault and Fault(fault.linear ^ 0x1000, fault.code, fault.tag)

    monkeypatch.setattr(Unit, "pop_fault", wrong)
    assert "records Fault" in checked(unit, "off")["first_difference"]


@pytest.mark.parametrize("name", ["marks", "delivered_faults"])
def test_a_wrong_counter_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = Unit.counters

    def wrong(self: Unit, *, clear: bool = False) -> Steps[dict[str, int]]:
        found = yield from real(self, clear=clear)
        return found | {name: found[name] + 1}

    monkeypatch.setattr(Unit, "counters", wrong)
    assert f"counter {name}: " in checked(unit, "native")["first_difference"]


def test_the_lane_is_a_bus(unit: UnitLibrary) -> None:
    """Its memory has a monitor, of lines too; what the unit refuses is an error."""
    memory = SparseMemory(strict=True)
    memory.add_frame(1)
    lane = unit.lane
    lane.reset(memory)
    made = run(lane, Unit.open(scratch=0x1000))
    held = {**dict.fromkeys((*CHECKS, *LINE_CHECKS), 1), "error": 0, "ids": made.built["exclusive_ids"]}
    assert run(lane, made.self_test(0x1000)) == held and held["ids"] == 10
    assert run(lane, made.in_use()) == (10, 128)
    with pytest.raises(DriverError, match="READ of 0x2000: the bus refused"):
        run(lane, made.read_word(0x2000))
    lane.write(BY_NAME["MEMORY_ADDRESS_LO"].offset, 0)
    before = lane.cycles
    for _ in range(2):  # the second wait without a write between is twice as long
        lane.wait()
    assert lane.cycles == before + 4 + 8
    memory.store(0x1000, 0x1007)  # a table of each level, and the page: a store there that does not retire
    lane.remember(memory)
    run(lane, made.context(0x1000))
    assert run(lane, made.translate(0, Access.WRITE, retire=False)).outcome == Outcome.OK
    command = BY_NAME["COMMAND"].offset
    with pytest.raises(DriverError, match="write of register 0x02c: response 2"):
        for _ in range(100):
            lane.write(command, Command.DRAIN)


def test_a_unit_that_there_is_not() -> None:
    with pytest.raises(ToolError, match="not before mmu-uncached: give --design mmu-small"):
        unit_named("mmu-uncached", WalkerConfig())
    with pytest.raises(ToolError, match="Verilator or CXXRTL only, not on icarus: leave out --simulator"):
        unit_named("mmu", WalkerConfig(), "icarus")
