"""The engine on AXI4: with a monitor of its own before a memory without one, and beside another writer."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import numpy as np
import pytest
from amaranth.hdl import Fragment
from amaranth.sim import Simulator

from ptewalk.cosim.driver.engine_masks import clearing, telling
from ptewalk.model import bulk
from ptewalk.model.linux import PagemapBit, Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.rtl.engine.fetcher import Stop
from ptewalk.rtl.engine.on_axi import AxiEngine, AxiEngineConfig
from ptewalk.rtl.engine.report import Report
from ptewalk.rtl.engine.table_engine import EngineConfig

from ..bus.burst_memory import Memory
from .test_change import draw

UPPER = 0x67
ROOT, OUT = 0x10_0000, 0x80_0000
TABLES = {4: ROOT, 3: ROOT + 0x1000, 2: ROOT + 0x2000, 1: ROOT + 0x3000}
RULES = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)


class Refusing(Memory):
    """Answers every write with SLVERR."""

    def step(self) -> None:
        super().step()
        for answer in self.out["b"]:
            answer["resp"] = 2


class Unmonitored(Memory):
    """Takes an exclusive access for any other, and answers OKAY, by ID."""

    def step(self) -> None:
        ids = {name: [one["id"] for one in self.seen[name]] for name in ("ar", "aw")}
        self.whose.extend(ids["ar"])
        for name in ("ar", "aw"):
            for one in self.seen[name]:
                self.locked += one["lock"]
                one.update(id=0, lock=0)
        before = len(self.out["r"])
        super().step()
        for beat in list(self.out["r"])[before:]:
            beat["id"] = self.whose[0]
            if beat["last"]:
                self.whose.popleft()

    def __init__(self, bus: Any, **other: Any) -> None:
        super().__init__(bus, **other)
        self.whose: deque[int] = deque()
        self.locked = 0


class Run:
    """An engine before a memory; what is asked of it is one command."""

    def __init__(
        self,
        config: AxiEngineConfig,
        *,
        rng: random.Random | None = None,
        latency: int = 4,
        kind: type[Memory] = Memory,
    ) -> None:
        self.dut = AxiEngine(config)
        bits = config.engine.data_bits
        self.memory = kind(self.dut.m_axi, latency=latency, rng=rng, bits=bits)
        self.line_bytes = config.engine.line_bytes
        self.status: dict[str, int] = {}
        self.cycles = 0

    def put(self, address: int, value: int) -> None:
        for byte in range(8):
            self.memory.bytes[address + byte] = value >> 8 * byte & 0xFF

    def fill(self, entries: list[int], page: int) -> None:
        """One table of level 1, and what leads to it."""
        for level in (4, 3, 2):
            self.put(TABLES[level] + (page >> 9 * (level - 1) & 511) * 8, TABLES[level - 1] | UPPER)
        for number, entry in enumerate(entries):
            self.put(TABLES[1] + (page + number) % 512 * 8, entry)

    def go(self, page: int, pages: int, report: Report) -> dict[str, int]:
        asked = {"root": ROOT >> 12, "page": page, "pages": pages, "changes": 1}
        address = OUT + (8 * page % self.line_bytes if report == Report.WORDS else 0)
        command = {"range": asked, "change": clearing(RULES), "words": telling(RULES)}
        told: dict[str, int] = {}

        async def bench(ctx: Any) -> None:
            ctx.set(self.dut.commands.payload, command | {"report": report, "address": address})
            ctx.set(self.dut.commands.valid, 1)
            ctx.set(self.dut.completions.ready, 1)
            valid = False
            while not valid:
                done = self.dut.completions
                _, _, valid, payload, status = await ctx.tick().sample(done.valid, done.payload, self.dut.status)
                self.cycles += 1
                assert self.cycles < 30_000, "it does not come to its end"
            told.update({str(name): int(payload[name]) for name, _ in payload.shape()})
            self.status = {str(name): int(status[name]) for name, _ in status.shape()}

        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self.memory.run, background=True)
        simulator.add_testbench(bench)
        simulator.run()
        return told


@pytest.mark.thorough
@pytest.mark.parametrize("bits", [64, 128, 512])
@pytest.mark.parametrize("report", list(Report))
def test_a_clear_behind_its_own_monitor(bits: int, report: Report) -> None:
    rng = random.Random(f"{bits}{report}")
    run = Run(AxiEngineConfig(EngineConfig(data_bits=bits, lines=4), monitor=True), rng=rng)
    page, pages = 5 << 9 | 64, 200
    entries = [draw(rng) if rng.random() < 0.9 else 0 for _ in range(pages)]
    run.fill(entries, page)
    told = run.go(page, pages, report)
    assert (told["stopped"], told["page"]) == (Stop.DONE, page + pages)
    assert not told["failed"] | told["given_up"] | told["lost"]
    assert run.status == {"no_monitor": 0, "outcome_unknown": 0}
    after = np.array(entries, np.uint64)
    words = bulk.pagemap(after, RULES)
    bulk.clear_refs(after, RULES)
    found = [run.memory.word(TABLES[1] + (page + number) % 512 * 8) for number in range(pages)]
    assert found == after.tolist()
    assert told["changed"] == sum(one != other for one, other in zip(found, entries, strict=True)) > 40
    if report == Report.BITMAP:
        bits_told = [run.memory.word(OUT + number // 64 * 8) >> number % 64 & 1 for number in range(pages)]
        assert bits_told == [word >> PagemapBit.SOFT_DIRTY & 1 for word in words.tolist()]
    if report == Report.WORDS:
        first = OUT + 8 * page % run.line_bytes
        assert [run.memory.word(first + 8 * number) for number in range(pages)] == words.tolist()


@pytest.mark.thorough
def test_a_memory_without_a_monitor_is_named_and_nothing_is_written() -> None:
    run = Run(AxiEngineConfig(EngineConfig(lines=2)), kind=Unmonitored)
    entries = [0x867 | number << 12 for number in range(64)]
    run.fill(entries, 0)
    told = run.go(0, 64, Report.NONE)
    assert (told["stopped"], told["changed"], told["failed"]) == (Stop.BUS_ERROR, 0, 1)
    assert run.status == {"no_monitor": 1, "outcome_unknown": 0}
    assert [run.memory.word(TABLES[1] + 8 * number) for number in range(64)] == entries
    assert isinstance(run.memory, Unmonitored)
    assert run.memory.locked > 17


@pytest.mark.thorough
def test_a_bus_that_refuses_swaps_leaves_the_outcome_open() -> None:
    run = Run(AxiEngineConfig(EngineConfig(lines=2), monitor=True), kind=Refusing)
    run.fill([0x867] * 16, 0)
    told = run.go(0, 16, Report.NONE)
    assert (told["stopped"], told["failed"], told["failed_page"]) == (Stop.BUS_ERROR, 1, 0)
    assert run.status == {"no_monitor": 0, "outcome_unknown": 1}


@pytest.mark.parametrize("wrong", [{"tags": 1}, {"tags": 66}, {"prot": 8}, {"line_bytes": 32}])
def test_wrong_parameters(wrong: dict[str, int]) -> None:
    from ptewalk.rtl.bus.lines import LinePortConfig

    with pytest.raises(ValueError, match=next(iter(wrong))):
        LinePortConfig(**wrong)


def test_what_is_for_an_mmu_is_no_port() -> None:
    """There is none beside it, and a pin that nothing drives would lie."""
    dut = AxiEngine(AxiEngineConfig())
    Fragment.get(dut, None)
    names = set(dut.signature.members)
    assert names == {"commands", "completions", "abort", "m_axi", "status", "clear"}


def test_more_lines_than_the_monitor_has_reservations() -> None:
    with pytest.raises(ValueError, match="reservations must be an integer from 1 to 64, not 65"):
        AxiEngineConfig(EngineConfig(lines=64), monitor=True)
    assert AxiEngineConfig(EngineConfig(lines=32), monitor=True).reservations.reservations == 33
