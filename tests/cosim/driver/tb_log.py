"""In-simulator side of test_log_on_axi.py: a unit with a dirty log and a table engine, between manager and memory."""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import cocotb
from bench import start
from cocotb.triggers import RisingEdge

from ptewalk.cosim.driver.dirty_log import UnitLog
from ptewalk.cosim.driver.engine_masks import clearing
from ptewalk.cosim.driver.rings import RingOfCommands
from ptewalk.cosim.driver.steps import run_async
from ptewalk.cosim.driver.table_engine import Listed, TableEngine, changing
from ptewalk.cosim.driver.unit import Unit
from ptewalk.cosim.simulate.run import Job
from ptewalk.model import bulk
from ptewalk.model.dirty_log import DirtyLog, LoggingMmu
from ptewalk.model.engine import Pages
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, Translated
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access, Outcome

ROOT, TABLE, RING, ROOM, SIZE = 0x1000, 0x4000, 0x1_0000, 0x1_2000, 1 << 17
RINGS = (0x1_3000, 0x1_4000)
PAGES, PCID, RECORDS = 40, 0x5A5, 512
QUALITY = {"port": 9, "engine": 5, "log": 12}
RULES = Entries(PROFILES["linux-6.12"], track=Track.NATIVE)
SOFT_DIRTY = 1 << SoftBit.SOFT_DIRTY
SPAN = Pages(ROOT >> 12, 4, 0, PAGES)


def tables() -> dict[int, int]:
    """Pages of 4 KiB, one of them read-only and one absent."""
    words = {ROOT: 0x2067, 0x2000: 0x3067, 0x3000: TABLE | 0x67}
    words |= {TABLE + 8 * page: (0x100 + page) << 12 | 0x67 for page in range(PAGES) if page != 7}
    return words | {TABLE + 8 * 9: 0x109 << 12 | 0x65}


async def watch(dut: Any, seen: dict[str, set[int]]) -> None:
    """AxQOS of accesses to tables, by whose they are: single words are of the walker, of software, or of the engine."""
    while True:
        await RisingEdge(dut.clk)
        for channel in ("aw", "ar"):
            valid, ready, at, length, qos = (
                getattr(dut, f"m_axi_{channel}{name}").value for name in ("valid", "ready", "addr", "len", "qos")
            )
            if not (int(valid) and int(ready)):
                continue
            what = "engine" if int(length) else "word"
            if channel == "aw" and RING <= int(at) < RING + 8 * RECORDS:
                what = "log"
            seen.setdefault(what, set()).add(int(qos))


@cocotb.test()
async def by_registers_alone(dut: Any) -> None:
    """Rounds of stores; records are taken, or listed, and soft-dirty is cleared. The golden model does the same."""
    job = Job.current()
    rng = random.Random(job.values["seed"])
    bus, memory = await start(dut, rng, size=SIZE)

    async def do(steps: Any) -> Any:
        return await run_async(bus, steps)

    def word(address: int) -> int:
        return int.from_bytes(memory.read(address, 8), "little")

    golden_memory = SparseMemory()
    for address, value in tables().items():
        memory.write(address, value.to_bytes(8, "little"))
        golden_memory.store(address, value)
    golden = LoggingMmu(golden_memory, DirtyLog(RING))
    state = State(ROOT, track=Track.NATIVE, pcid=PCID)
    unit = await do(Unit.open(scratch=SIZE - 512))
    await do(unit.quality(**QUALITY))
    qualities: dict[str, set[int]] = {}
    cocotb.start_soon(watch(dut, qualities))
    log, engine, ring = UnitLog(unit), TableEngine(unit), RingOfCommands(unit)
    await do(ring.set_up(RINGS[0], 4, RINGS[1], 8))
    await do(unit.context(ROOT, track=Track.NATIVE, pcid=PCID))
    await do(log.set_up(RING, RECORDS, watermark=3))
    problems: list[str] = []
    taken, counts = 0, Counter[str]()
    for turn in range(job.values["rounds"]):
        for _ in range(job.values["accesses"]):
            access = Access.WRITE if rng.random() < 0.8 else Access.READ
            linear = rng.randrange(PAGES) << 12 | rng.randrange(512) << 3
            (expected,) = golden.run(state, [Request(linear, access, user=True)])
            answer = await do(unit.translate(linear, access))
            if (answer.outcome == Outcome.OK) != isinstance(expected, Translated):
                problems.append(f"{linear:#x}: {answer}, expected {expected}")
            if rng.random() < 0.1:
                linear = 0xFFFF_8000_0000_0000 | rng.randrange(1 << 30) << 12
                golden.log.mark(linear, 3, pcid=PCID, epoch=golden.epoch, software=True)
                await do(log.append(linear, level=3))
        await do(unit.drain())
        waiting = len(golden.log.order) - taken
        if (await do(log.status()))["watermark"] != (waiting >= 3):
            problems.append(f"round {turn}: watermark with {waiting} records")
        due = [golden.log.written[at] for at in golden.log.order[taken:]]
        entries = golden_memory.frame(TABLE >> 12)[:PAGES]
        if turn % 2:
            numbers = await do(log.unread())
            found = [word(place) for place in log.places(numbers)]
            bits, absent = [], 0
            for one in log.records(found, numbers.start):
                known = one.page < PAGES
                bits.append(int(known and bool(entries[one.page] & SOFT_DIRTY)))
                absent += not known
                if known:
                    bulk.clear_refs(entries[one.page : one.page + 1], RULES)
            listed = Listed(log.base, log.size, numbers.start, len(numbers))
            told = await do(engine.clear_list(listed, SPAN, RULES, ROOM, pcid=PCID))
            if told != (sum(bits), absent):
                problems.append(f"round {turn}: list {told}, expected {sum(bits), absent}")
            if (seen := [word(ROOM + 8 * (at // 64)) >> at % 64 & 1 for at in range(len(bits))]) != bits:
                problems.append(f"round {turn}: bits {seen}, expected {bits}")
            counts["listed"] += len(bits)
            counts["absent"] += absent
            await do(log.release(len(numbers)))
        else:
            found = [one.word() for one in await do(log.take(by_phase=turn % 4 == 0))]
            cuts = sorted((0, PAGES, *rng.sample(range(PAGES), 2)))
            areas = [SPAN._replace(first=first, last=last) for first, last in pairwise(cuts)]
            marked = [int((entries[area.first : area.last] & SOFT_DIRTY != 0).sum()) for area in areas]
            bulk.clear_refs(entries, RULES)
            told = await do(ring.run([changing(area, clearing(RULES), RULES) for area in areas], pcid=PCID))
            if [(one["page"], one["changed"]) for one in told] != list(zip(cuts[1:], marked, strict=True)):
                problems.append(f"round {turn}: {told}, expected {marked} entries cleared")
        if found != due:
            problems.append(f"round {turn}: records {found}, expected {due}")
        taken += len(found)
        golden.epoch ^= 1
        await do(log.epoch(golden.epoch))
    written = {at: word(at) for at in golden.log.written}
    if written != golden.log.written:
        problems.append(f"ring {written}, expected {golden.log.written}")
    problems += [f"word {at:#x}" for at in tables() if word(at) != golden_memory.load(at)]
    status = await do(log.status())
    wrong = [name for name in ("timed_out", "overflow", "incomplete", "refused") if status[name]]
    qos = {f"qos {what}": sorted(found) for what, found in qualities.items()}
    qos["in use"] = await do(unit.in_use())
    job.publish({"problems": problems[:3], "taken": taken, "wrong": wrong, "built": dict(unit.built), **counts, **qos})
