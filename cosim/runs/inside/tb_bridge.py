"""Inside the simulator: the bridge between cocotbext-axi's manager and memories; `runs.bus` starts it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge, Timer
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiBus, AxiMaster, AxiProt, AxiResp, AxiSlave

from ptewalk.cosim.bench.axi import AxiBytes, AxiTables, stalled
from ptewalk.cosim.bench.records import context_values
from ptewalk.cosim.bench.walker import described
from ptewalk.cosim.checks.dirty_log import LogJudge, Ring
from ptewalk.cosim.checks.last_written import LastWritten
from ptewalk.cosim.checks.walks import check
from ptewalk.cosim.formats.walks import read_walks, table_words
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.dirty_log import COUNTS
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import GeneralProtection, PageFault, Result, State, Translated
from ptewalk.model.x86 import Access, Control, Invalidation, Outcome, Wait
from ptewalk.rtl.log.layouts import LogMode

PERIOD = 10
PAGE = 4096
LINEAR, FRAME, PAGES = 0x0000_7654_3210_0000, 0x71_0000_0000, 5
TABLES = {4: 0x1000, 3: 0x2000, 2: 0x3000, 1: 0x4000}
P, RW, US, A = 1, 2, 4, 0x20
SD = 1 << SoftBit.SOFT_DIRTY
UNMAPPED, READ_ONLY = PAGES, PAGES + 1
RING, RECORDS = 0x9000, 512


class Bench:
    """The bridge and who stands round it; every channel stalls at random."""

    def __init__(self, dut: Any, seed: int, memory: SparseMemory, stalls: bool = True) -> None:
        self.dut, self.rng = dut, random.Random(seed)
        for port in described().ports:
            if port.direction == "input":
                getattr(dut, port.name).value = 0
        self.master = AxiMaster(AxiBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        self.data, self.tables = AxiBytes(), AxiTables(memory)
        below = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=self.data)
        tables = AxiSlave(AxiBus.from_prefix(dut, "t_axi"), dut.clk, dut.rst, target=self.tables)
        for side in (self.master, below, tables) if stalls else ():
            stalled(side, self.rng)

    async def start(self) -> None:
        dut = self.dut
        dut.rst.value = 1
        await Timer(PERIOD, unit="ns")  # it is known at the first edge
        Clock(dut.clk, PERIOD, unit="ns").start()
        await ClockCycles(dut.clk, 4)
        dut.rst.value = 0
        dut.control__enable.value = 1
        dut.control__final_response.value = 1
        await ClockCycles(dut.clk, 2)

    def now(self) -> int:
        return int(get_sim_time("ns")) // PERIOD

    async def watch(self, addresses: list[int]) -> None:
        """Collect the addresses of bursts as memory takes them: those that it is told of are the bus's words."""
        while True:
            await RisingEdge(self.dut.clk)
            for channel in ("ar", "aw"):
                valid, ready, address = (
                    getattr(self.dut, f"m_axi_{channel}{name}").value for name in ("valid", "ready", "addr")
                )
                if int(valid) and int(ready):
                    addresses.append(int(address))

    async def put(self, stream: str, fields: Mapping[str, int]) -> None:
        """Offer a payload until it is taken."""
        for name, value in fields.items():
            port = getattr(self.dut, f"{stream}__payload__{name}", None)
            if port is not None:
                port.value = value
        getattr(self.dut, f"{stream}__valid").value = 1
        while True:
            await ReadOnly()
            taken = int(getattr(self.dut, f"{stream}__ready").value)
            await RisingEdge(self.dut.clk)
            if taken:
                break
        getattr(self.dut, f"{stream}__valid").value = 0

    async def context(self, state: State) -> None:
        await self.put("contexts", context_values(state))

    async def forget(self, kind: Invalidation, linear: int = 0, wait: Wait = Wait.NONE) -> None:
        """An invalidation, until it is complete."""
        await self.put("invalidations", {"kind": kind, "linear": linear, "pcid": 0, "wait": wait})
        while wait:
            await ReadOnly()
            complete = int(self.dut.completions__valid.value)
            await RisingEdge(self.dut.clk)
            if complete:
                break

    async def drain(self) -> None:
        self.dut.drain.value = 1
        while True:
            await RisingEdge(self.dut.clk)
            await ReadOnly()
            done = int(self.dut.drained.value)
            await RisingEdge(self.dut.clk)
            if done:
                break
        self.dut.drain.value = 0

    async def record(self) -> dict[str, int]:
        """The next record of a fault."""
        while True:
            await ReadOnly()
            if int(self.dut.faults__valid.value):
                break
            await RisingEdge(self.dut.clk)
        found = {name: int(getattr(self.dut, f"faults__payload__{name}").value) for name in ("kind", "code", "linear")}
        await RisingEdge(self.dut.clk)
        self.dut.faults__ready.value = 1
        await RisingEdge(self.dut.clk)
        self.dut.faults__ready.value = 0
        return found


def leaf_of(page: int) -> int:
    return TABLES[1] + ((LINEAR >> 12) + page & 511) * 8


def tables() -> SparseMemory:
    """Pages of `LINEAR` on, one of them missing, one read-only."""
    memory = SparseMemory()
    for level in (4, 3, 2):
        memory.store(TABLES[level] + (LINEAR >> 3 + 9 * level & 511) * 8, TABLES[level - 1] | P | RW | US | A)
    for page in range(PAGES + 2):
        if page != UNMAPPED:
            writable = 0 if page == READ_ONLY else RW
            memory.store(leaf_of(page), FRAME + page * PAGE | P | writable | US | A)
    return memory


class Log:
    """Software that reads a dirty log, and who judges it."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.rng = bench, bench.rng
        self.lag = RECORDS - self.rng.choice((1, 2, RECORDS))  # records that software has not done with
        self.judge = LogJudge(Ring(RING, RECORDS, 0), -self.lag % COUNTS)
        self.pages = {leaf_of(page): (LINEAR >> 12) + page for page in range(PAGES)}
        bench.tables.before_write = self._writes

    async def start(self) -> None:
        self.bench.dut.log__head.value = self.judge.head
        setup = {"mode": LogMode.RING, "base": RING >> 12, "size": RECORDS.bit_length() - 1, "stalls": 1}
        await self.bench.put("log__setups", setup)
        cocotb.start_soon(self._watch())

    def _writes(self, address: int, value: int) -> None:
        if self.judge.holds(address):
            self.judge.write(address, value)
        elif address in self.pages and value & SD and not self.bench.tables.memory.load(address) & SD:
            self.judge.mark(self.pages[address])

    def look(self) -> None:
        """At the tail, and at flags."""
        dut = self.bench.dut
        tail, names = (
            int(dut.log__tail.value),
            ("watermark", "stalled", "timed_out", "overflow", "incomplete", "refused"),
        )
        if tail != self.judge.tail:
            self.judge.told(tail)
        flags = sum(int(getattr(dut, f"log__status__{name}").value) << place for place, name in enumerate(names))
        self.judge.flags(flags, int(dut.log__lost.value))

    async def _watch(self) -> None:
        left = 0
        while True:
            await RisingEdge(self.bench.dut.clk)
            left -= 1
            if left < 0:
                self.judge.read((self.judge.tail - self.lag) % COUNTS)
                self.bench.dut.log__head.value = self.judge.head
                left = self.rng.randrange(200)
            await ReadOnly()
            self.look()

    def close(self) -> dict[str, int]:
        """What was seen, when nothing more comes."""
        self.judge.close()
        return {"stalls": 0, **self.judge.counts}


@cocotb.test()
async def random_bursts(dut: Any) -> None:
    """Random bursts of several masters, while soft-dirty is cleared: bytes by the rule, no store without a mark."""
    job = Job.current()
    bench = Bench(dut, job.values["seed"], tables())
    memory, rng, master = bench.tables.memory, bench.rng, bench.master
    dut.faults__ready.value = 1
    await bench.start()
    await bench.context(State(TABLES[4], 1 << Control.WP, track=Track.NATIVE))
    book, counts, problems = LastWritten(), Counter[str](), []
    clearing: set[int] = set()
    wrote: set[int] = set()  # pages to which a store was granted since they were clean, or perhaps before

    def marked(address: int) -> bool:
        page = (address - FRAME) // PAGE
        wrote.add(page)
        return page in clearing or bool(memory.load(leaf_of(page)) & SD)

    bench.data.before_write = marked
    log = Log(bench) if job.values["logs"] else None
    if log:
        await log.start()
    left = job.values["count"]

    async def work(identity: int) -> None:
        nonlocal left
        while left:
            left -= 1
            page = rng.choice([*range(PAGES)] * 3 + [UNMAPPED, READ_ONLY])
            offset = rng.choice([0, 0, 0xE80]) + rng.randrange(0x80)
            length = min(rng.choice([1, 4, 8, 8, 24, 128, 250]), PAGE - offset)
            at, key = LINEAR + page * PAGE + offset, (identity, left)
            common = {"size": rng.choice([None, None, 3, 2, 0]) if length <= 128 else None}
            physical = FRAME + page * PAGE + offset
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                book.write_begins(key, bench.now(), list(enumerate(data, physical)))
                answer = await master.write(at, data, awid=identity, prot=AxiProt(0), **common)
                good = page < PAGES
                book.write_ends(key, bench.now(), written=good)
            else:
                book.read_begins(key, bench.now())
                answer = await master.read(at, length, arid=identity, prot=AxiProt(0), **common)
                good = page != UNMAPPED
                problems.extend(
                    book.read_ends(key, bench.now(), list(enumerate(answer.data, physical)) if good else [])
                )
            if answer.resp != (AxiResp.OKAY if good else AxiResp.SLVERR):
                problems.append(f"{answer.resp} at {at:#x}, page {page}")
            counts["transactions"] += 1
            counts["refused"] += not good
            await ClockCycles(dut.clk, rng.randrange(1, 12))

    async def clear() -> None:
        while left:
            await ClockCycles(dut.clk, rng.randrange(30, 150))
            page = rng.randrange(PAGES)
            clearing.add(page)
            wrote.discard(page)
            entry = memory.load(leaf_of(page))
            memory.store(leaf_of(page), entry & ~SD)
            marks = log.judge.marks if log else 0
            await bench.forget(Invalidation.INVLPG, LINEAR + page * PAGE, rng.choice((Wait.STORES, Wait.ALL)))
            clearing.discard(page)
            if log:
                log.judge.end("an invalidation", marks)
            counts["clears"] += 1
            counts["cleared"] += bool(entry & SD)

    tasks = [cocotb.start_soon(work(identity)) for identity in range(6)] + [cocotb.start_soon(clear())]
    for task in tasks:
        await task
    await bench.drain()
    for page in range(PAGES):
        if memory.load(leaf_of(page)) & SD and page not in wrote:
            problems.append(f"page {page} is marked, and nobody stored to it")
    await ReadOnly()
    told = {name: int(getattr(dut, name).value) for name in ("granted", "marks")}
    status = {name: int(getattr(dut, f"mmu_status__{name}").value) for name in ("tag_reused", "stray_retirement")}
    told |= {"busy": int(dut.status__busy.value), "judged": book.bytes_judged, "choices": book.choices, **status}
    if log:
        told |= log.close()
        problems += log.judge.problems
        problems += [f"{told['marks']} marks, {told['records']} records"] if told["marks"] != told["records"] else []
    job.publish({**counts, **told, "problems": (problems + bench.data.problems)[:5]})


@cocotb.test()
async def recorded(dut: Any) -> None:
    """Recorded walks, each as a burst of one byte: where it lands, or why not, and every word of the tables."""
    job = Job.current()
    kinds = (Access.READ, Access.WRITE, Access.FETCH)
    cases = [case for case in read_walks(Path(job.values["file"])) if case.request().access in kinds]
    cases = [case for case in cases if not case.request().implicit]
    cases = random.Random(job.values["seed"]).sample(cases, job.values["count"])
    bench = Bench(dut, job.values["seed"], cases[0].memory())
    await bench.start()
    differ, outcomes, addresses = [], Counter[str](), list[int]()
    cocotb.start_soon(bench.watch(addresses))
    for case in cases:
        request = case.request()
        bench.tables.memory = case.memory()
        await bench.context(case.state())
        await bench.forget(Invalidation.ALL)
        dut.control__ac.value = int(request.ac)
        prot = (AxiProt(0) if request.user else AxiProt.PRIVILEGED) | (
            AxiProt.INSTRUCTION if request.access == Access.FETCH else AxiProt(0)
        )
        addresses.clear()
        if request.access == Access.WRITE:
            answer = await bench.master.write(request.linear, b"\x5a", prot=prot, size=0)
        else:
            answer = await bench.master.read(request.linear, 1, prot=prot, size=0)
        result: Result
        if answer.resp == AxiResp.OKAY:
            (physical,) = addresses
            result = Translated(physical, 1, False, False, False)
        else:
            record = await bench.record()
            assert not addresses and record["linear"] == request.linear
            known: dict[Outcome, Result] = {
                Outcome.PAGE_FAULT: PageFault(record["code"]),
                Outcome.GENERAL_PROTECTION: GeneralProtection(),
            }
            result = known[Outcome(record["kind"])]
        reason = check(case, result, table_words(bench.tables.memory, case.table_frames()))
        if reason is not None:
            differ.append(f"walk {case.number}: {reason}")
        outcomes[case.outcome.name] += 1
    job.publish({"differ": differ, "compared": len(cases), **outcomes})
