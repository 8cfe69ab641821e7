"""In-simulator side of test_unit_on_axi.py: the unit between cocotbext-axi's AXI4-Lite manager and its memory."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import cocotb
from bench import start

from ptewalk.cosim.driver.steps import run_async
from ptewalk.cosim.driver.unit import Unit
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import PageFault, Request, State, Translated, translate
from ptewalk.model.x86 import Access, Invalidation, Outcome

PAGES = 8
ROOT, UPPER, TABLE, DATA = 0x1000, 0x2000, 0x3000, 0x8000


@cocotb.test()
async def by_registers_alone(dut: Any) -> None:
    """Tables are made, used, changed and read by registers alone; the golden model does the same on its own memory.

    Publishes what was compared, what differed, and how many accesses there were.
    """
    job = Job.current()
    rng = random.Random(job.values["seed"])
    bus, memory = await start(dut, rng, size=1 << 16, manager_stalls=True)

    async def do(steps: Any) -> Any:
        return await run_async(bus, steps)

    scratch = (1 << 16) - 16
    unit = await do(Unit.open(scratch=scratch))
    tested = await do(unit.self_test(scratch))
    golden = SparseMemory()
    state = State(root=ROOT, track=Track.NATIVE)

    async def set_word(address: int, value: int) -> None:
        await do(unit.write_word(address, value))
        golden.store(address, value)

    for address, value in ((ROOT, UPPER | 7), (UPPER, TABLE | 7), (TABLE, 0x4007)):
        await set_word(address, value)
    entries = 0x4000
    for page in range(PAGES):
        await set_word(entries + 8 * page, DATA + 0x1000 * (page % 4) | (7 if page % 3 else 5))
    await do(unit.context(ROOT, track=Track.NATIVE))

    differ: list[str] = []
    counts: Counter[str] = Counter()
    for number in range(job.values["count"]):
        page = rng.randrange(PAGES + 1)
        if rng.random() < 0.3:  # what clear_refs does under native, and an invalidation
            address = entries + 8 * page
            old = golden.load(address)
            if old and not await do(unit.swap_word(address, old, old & ~0x800)):
                differ.append(f"{number}: the entry of page {page} is not {old:#x}")
            golden.store(address, old & ~0x800)
            await do(unit.invalidate(Invalidation.INVLPG, linear=page << 12))
            counts["clears"] += 1
            continue
        access = rng.choice((Access.READ, Access.WRITE, Access.PROBE))
        linear = page << 12 | rng.randrange(512) << 3
        expected = translate(golden, state, Request(linear, access, user=True))
        found = await do(unit.translate(linear, access))
        told = (found.outcome, found.code, found.physical if found.outcome == Outcome.OK else 0)
        wanted = (Outcome.OK, 0, expected.physical) if isinstance(expected, Translated) else None
        if isinstance(expected, PageFault):
            wanted = (Outcome.PAGE_FAULT, expected.code, 0)
            counts["faults"] += 1
            if access != Access.PROBE:
                fault = await do(unit.pop_fault())
                if fault is None or (fault.linear, fault.code) != (linear, expected.code):
                    differ.append(f"{number}: fault {fault}")
        if told != wanted:
            differ.append(f"{number}: {told}, not {wanted}")
        counts["requests"] += 1
    await do(unit.drain())
    for address in range(0, 1 << 13, 8):
        kept = int.from_bytes(memory.read(entries + address & 0xFFFF, 8), "little")
        if entries + address < DATA and kept != golden.load(entries + address):
            differ.append(f"word {entries + address:#x}: {kept:#x}")
    counters = await do(unit.counters())
    job.publish(
        {
            "tested": tested,
            "built": dict(unit.built),
            "differ": differ,
            "counters": counters,
            "accesses": bus.accesses,
            **counts,
        }
    )
