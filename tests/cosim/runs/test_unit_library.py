"""Recorded scenarios on a unit that the driver uses by its registers alone, by compiled code."""

from __future__ import annotations

from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.unit_mmu import DrivenEngine
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.driver.steps import DriverError, Steps, run
from ptewalk.cosim.driver.unit import Fault, Unit
from ptewalk.cosim.formats.samples import KERNELS
from ptewalk.cosim.formats.scenarios import load, without_answers
from ptewalk.cosim.runs.engine import can_build
from ptewalk.cosim.runs.scenarios import check_on_gateware, replay_gateware
from ptewalk.cosim.runs.unit_library import UnitLibrary, unit_named
from ptewalk.model.engine import Pages
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access, Outcome
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
    """Of preset `mmu-small`."""
    return unit_named("mmu-small", WalkerConfig())


def checked(unit: UnitLibrary, track: str, seed: int | None = 1) -> dict[str, Any]:
    """`STEPS` in step with the golden model."""
    head = {"t": "scenario", "name": "few", "base": "0x100000000000", "steps": len(STEPS)}
    steps = [{"t": "step", "name": "few", "i": i, "op": {"who": 0} | op} for i, op in enumerate(STEPS)]
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
    assert driver["word_reads"] > PAGES * len(STEPS) and driver["accesses"] > 1000


@pytest.mark.slow
@pytest.mark.share(8)
@pytest.mark.parametrize("track", ["native", "off", "fault"])
@pytest.mark.parametrize("kernel", sorted(KERNELS))
def test_recorded_scenarios(unit: UnitLibrary, kernel: str, track: str) -> None:
    """Each step as a real kernel answered, each word of memory and each counter as the golden model has it."""
    (told,) = replay_gateware([ReplayJob((str(KERNELS[kernel]),), kernel, track, seed=5)], None, by=unit)
    steps = sum(len(scenario.steps) for scenario in load([KERNELS[kernel]]))
    assert (told["agree"], told["differ"], told["skipped"]) == (steps, 0, 0)
    assert told["driver"]["fault_records"] > 500 and told["driver"]["changed"] > 300


@pytest.mark.slow
@pytest.mark.share(3)
@pytest.mark.parametrize("track", ["native", "off", "fault"])
def test_recorded_scenarios_by_atomic_transactions(track: str) -> None:
    """The same of a unit whose swaps, the driver's too, are AtomicCompare: there is no monitor to be tried."""
    unit = UnitLibrary.make(UnitConfig(CACHING["mmu-small"], table_bits=128, table_atomic=True))
    (told,) = replay_gateware([ReplayJob((str(KERNELS["linux-6.1"]),), "linux-6.1", track, seed=5)], None, by=unit)
    steps = sum(len(scenario.steps) for scenario in load([KERNELS["linux-6.1"]]))
    assert (told["agree"], told["differ"], told["skipped"]) == (steps, 0, 0)
    assert told["driver"]["self_tests"] == 0 and told["driver"]["changed"] > 300


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
    monkeypatch.setattr(Unit, "invalidate", deaf)
    assert "few step " in checked(unit, "native")["first_difference"]


def test_what_is_not_applied_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switched to, but for who tracks: the store after the clear is not marked."""
    real = Unit.context

    def wrong(self: Unit, root: int, **named: Any) -> Steps[None]:
        return real(self, root, **named | {"track": Track.OFF})

    monkeypatch.setattr(Unit, "context", wrong)
    assert "few step 3" in checked(unit, "native")["first_difference"]


def test_a_clear_that_is_not_done_is_seen(unit: UnitLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    def lazy(self: DrivenEngine, pages: Pages, rules: Entries, *, permit: bool, splits: bool) -> int:
        return pages.last

    monkeypatch.setattr(DrivenEngine, "clear", lazy)
    assert "few step 2" in checked(unit, "native")["first_difference"]


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
    """Its memory has a monitor, of as many reservations as are wanted; what the unit refuses is an error."""
    memory = SparseMemory(strict=True)
    memory.add_frame(1)
    lane = unit.lane
    lane.reset(memory)
    made = run(lane, Unit.open(scratch=0x1000))
    checks = dict.fromkeys(("pair", "spent", "write", "one_byte", "other", "two"), 1)
    assert run(lane, made.self_test(0x1000)) == {**checks, "error": 0}
    with pytest.raises(DriverError, match="READ of 0x2000: the bus refused"):
        run(lane, made.read_word(0x2000))
    before = lane.cycles
    lane.wait()
    assert lane.cycles == before + 4
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
