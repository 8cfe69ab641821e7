"""In-simulator side of test_list.py: stores, their records, and the engine that clears what those name, at the pins."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge, Timer
from cocotbext.axi import AxiBus, AxiSlave

from ptewalk.cosim.bench.axi import AxiTables, stalled
from ptewalk.cosim.driver.engine_masks import clearing
from ptewalk.cosim.simulate.run import Job
from ptewalk.model import bulk
from ptewalk.model.dirty_log import DirtyLog, LoggingMmu, record_of
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, Translated
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access, Control
from ptewalk.rtl.engine.beside import MmuCommandLayout
from ptewalk.rtl.engine.report import Report
from ptewalk.rtl.log.layouts import LogMode

UPPER, SD = 0x67, 1 << SoftBit.SOFT_DIRTY
ROOT, TABLE, LOG, REPORT = 0x1000, 0x4000, 0x20_0000, 0x30_0000
LINEAR = 0xFFFF_8000_0000_0000
PAGES, PCID = 40, 0x5A5
CONTROL = 1 << Control.WP | 1 << Control.NXE
RULES = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
FLAGS = ("stopped", "page", "changed", "absent", "bad", "failed", "given_up", "lost")


def tables() -> SparseMemory:
    """Pages of 4 KiB, one of them read-only and one absent."""
    memory = SparseMemory()
    for address, entry in ((ROOT + 256 * 8, 0x2000), (0x2000, 0x3000), (0x3000, TABLE)):
        memory.store(address, entry | UPPER)
    for page in range(PAGES):
        memory.store(TABLE + 8 * page, (0x100 + page) << 12 | UPPER if page != 7 else 0)
    memory.store(TABLE + 8 * 9, 0x109 << 12 | UPPER & ~2)
    for frame in (LOG, REPORT):
        memory.store(frame, 0)
    return memory


class Unit:
    """Software and a requester at the pins: what is driven after a rising edge stands until the next."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut

    def fields(self, stream: str, values: dict[str, int]) -> None:
        for name, value in values.items():
            getattr(self.dut, f"{stream}__payload__{name}").value = value

    async def send(self, stream: str, values: dict[str, int]) -> None:
        """Until it is taken."""
        self.fields(stream, values)
        await self._until(stream, "valid", "ready")

    async def pulse(self, stream: str, values: dict[str, int]) -> None:
        """For a cycle, to who is always ready."""
        self.fields(stream, values)
        getattr(self.dut, f"{stream}__valid").value = 1
        await RisingEdge(self.dut.clk)
        getattr(self.dut, f"{stream}__valid").value = 0

    async def receive(self, stream: str, *names: str) -> dict[str, int]:
        """What is told next."""
        return await self._until(stream, "ready", "valid", *names)

    async def _until(self, stream: str, ours: str, theirs: str, *names: str) -> dict[str, int]:
        getattr(self.dut, f"{stream}__{ours}").value = 1
        for _ in range(20_000):
            await ReadOnly()
            over = int(getattr(self.dut, f"{stream}__{theirs}").value)
            told = {name: int(getattr(self.dut, f"{stream}__payload__{name}").value) for name in names if over}
            await RisingEdge(self.dut.clk)
            if over:
                getattr(self.dut, f"{stream}__{ours}").value = 0
                return told
        raise AssertionError(f"{stream}: nothing happens for 20000 cycles")


def command(layout: MmuCommandLayout, **fields: Any) -> dict[str, int]:
    """Each field of a command as a number."""
    return {
        str(name): field.shape.const(fields.get(str(name))).as_bits()
        if isinstance(fields.get(str(name)), dict)
        else int(fields.get(str(name), 0))
        for name, field in layout
    }


@cocotb.test()
async def migration(dut: Any) -> None:
    """Rounds of stores, each ended by a list of the records since; tables, records and bitmaps are the golden model's.

    The last stores stay: what lists told, and what is soft-dirty in the end, are the pages that were written.
    """
    job = Job.current()
    rng = random.Random(job.values["seed"])
    for name in job.values["inputs"]:
        getattr(dut, name).value = name.endswith("faults__ready")
    dut.clk.value, dut.rst.value = 0, 1
    await Timer(10, unit="ns")
    Clock(dut.clk, 10, unit="ns").start()
    memory, golden_memory = AxiTables(tables()), tables()
    stalled(AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=memory), rng)
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    unit, golden = Unit(dut), LoggingMmu(golden_memory, DirtyLog(LOG))
    state = State(ROOT, control=CONTROL, track=Track.NATIVE, pcid=PCID)
    await unit.send("contexts", {"root": ROOT >> 12, "control": CONTROL, "track": int(Track.NATIVE), "pcid": PCID})
    await unit.send("log__setups", {"mode": LogMode.RING, "base": LOG >> 12, "size": 9, "stalls": 1})
    layout = MmuCommandLayout(job.values["physical_bits"], lists=True)
    where = {"root": ROOT >> 12, "changes": 1}
    problems: list[str] = []
    written: set[int] = set()
    told: set[int] = set()
    listed = head = 0
    for turn in range(job.values["rounds"] + 1):
        for _ in range(job.values["accesses"]):
            page, access = rng.randrange(PAGES), Access.WRITE if rng.random() < 0.8 else Access.READ
            request = Request(LINEAR + (page << 12) + 8 * rng.randrange(512), access, user=True)
            (expected,) = golden.run(state, [request])
            asked = {"linear": request.linear, "access": int(access), "user": 1, "implicit": 0, "ac": 0, "tag": 3}
            await unit.send("requester__requests", asked)
            answer = await unit.receive("requester__responses", "outcome", "physical")
            ok = isinstance(expected, Translated)
            if (answer["outcome"] == 0) != ok or (ok and answer["physical"] != expected.physical):
                problems.append(f"{request}: {answer}, expected {expected}")
            if ok and access == Access.WRITE:
                written.add(page)
                await unit.pulse("requester__retired", {"tag": 3})
        if turn == job.values["rounds"]:
            break
        tail = golden.log.tail
        pages = [record_of(golden.log.written[golden.log.order[number]]).page % 512 for number in range(head, tail)]
        bits = []
        for page in pages:
            entries = golden_memory.frame(TABLE >> 12)[page : page + 1].copy()
            bits.append(int(entries[0]) >> SoftBit.SOFT_DIRTY & 1)
            bulk.clear_refs(entries, RULES)
            golden_memory.store(TABLE + 8 * page, int(entries[0]))
        ring = {"lists": 1, "list": {"base": LOG >> 12, "size": 9}, "list_first": head, "list_count": tail - head}
        what = {"range": where, "change": clearing(RULES), "report": Report.BITMAP, "address": REPORT, "pcid": PCID}
        unit.fields("table_commands", command(layout, **what, **ring))
        dut.table_commands__valid.value = 1
        found = await unit.receive("table_completions", *FLAGS)
        dut.table_commands__valid.value = 0
        expected_end = dict.fromkeys(FLAGS, 0) | {"page": tail - head, "changed": sum(bits)}
        if found != expected_end:
            problems.append(f"list {turn}: {found}, expected {expected_end}")
        bitmap = memory.memory.load(REPORT)
        seen = [bitmap >> place & 1 for place in range(len(pages))]
        if seen != bits:
            problems.append(f"list {turn}: bitmap {seen}, expected {bits}")
        told |= {page for page, bit in zip(pages, seen, strict=True) if bit}
        listed, head = listed + len(pages), tail
        dut.log__head.value = head
        kept = [golden_memory.load(TABLE + 8 * page) for page in range(PAGES)]
        if (there := [memory.memory.load(TABLE + 8 * page) for page in range(PAGES)]) != kept:
            problems.append(f"list {turn}: tables {there}, expected {kept}")
    dirty = {page for page in range(PAGES) if memory.memory.load(TABLE + 8 * page) & SD}
    if told | dirty != written:
        problems.append(f"pages told or soft-dirty {sorted(told | dirty)}, written {sorted(written)}")
    job.publish({"problems": problems[:3], "listed": listed, "dirty": len(dirty), "written": len(written)})
