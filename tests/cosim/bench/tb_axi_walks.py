"""In-simulator side of test_axi_walks.py: an MMU whose tables lie behind AXI4, in cocotbext-axi's memory."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import cocotb
from cocotbext.axi import AxiBus, AxiSlave

from ptewalk.cosim.bench.axi import AxiTables, stalled
from ptewalk.cosim.bench.axi_atomic import AtomicTarget
from ptewalk.cosim.bench.conditions import Conditions, Stalls
from ptewalk.cosim.bench.records import decode
from ptewalk.cosim.bench.walker import WalkerBench
from ptewalk.cosim.checks.walks import check
from ptewalk.cosim.formats.walks import read_walks, table_words
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import translate
from ptewalk.model.x86 import Outcome


async def begin(dut: Any, seed: int, memory: SparseMemory) -> tuple[WalkerBench, AxiTables]:
    """A bench that runs, and the memory behind its AXI port, which stalls at random on every channel."""
    bench = WalkerBench(dut, memory, Conditions(seed=seed, stalls=Stalls(requests=0.2, responses=0.2)))
    tables = AxiTables(memory)
    if hasattr(dut, "m_axi_awatop"):
        AtomicTarget(dut, "m_axi", tables, random.Random(seed))
    else:
        subordinate = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=tables)
        stalled(subordinate, random.Random(seed))
    await bench.start()
    return bench, tables


@cocotb.test()
async def recorded(dut: Any) -> None:
    """Recorded walks, each in a memory of its own: answer and every word as the engines left them.

    Then a store to the same page under tracking, which the golden model answers too: the mark goes over AXI. Publishes
    how many there were, what differed, and how many accesses the memory saw.
    """
    job = Job.current()
    cases = read_walks(Path(job.values["file"]))
    cases = random.Random(job.values["seed"]).sample(cases, job.values["count"])
    bench, tables = await begin(dut, job.values["seed"], cases[0].memory())
    differ, marked = [], 0
    for case in cases:
        tables.memory = case.memory()
        bench.use(tables.memory)
        found = decode(await bench.request(case.state(), case.request()))
        reason = check(case, found, table_words(tables.memory, case.table_frames()))
        if reason is not None:
            differ.append(f"walk {case.number}: {reason}")
        if case.outcome != Outcome.OK:
            continue
        golden, state = case.memory(), case.state(track=Track.NATIVE)
        tables.memory = case.memory()
        bench.use(tables.memory)
        expected = translate(golden, state, case.request())
        found = decode(await bench.request(state, case.request()))
        seen, wanted = (table_words(memory, case.table_frames()) for memory in (tables.memory, golden))
        if (found, seen) != (expected, wanted):
            differ.append(f"walk {case.number}, native: {found} and {seen}, expected {expected} and {wanted}")
        marked += any((seen[at] & ~value) >> SoftBit.SOFT_DIRTY & 1 for at, value in case.entries if at in seen)
    told = {"differ": differ, "compared": len(cases), "marked": marked}
    job.publish({**told, **Counter(kind for kind, _, _ in tables.accesses)})


@cocotb.test()
async def no_memory(dut: Any) -> None:
    """A table that is not there: the answer of AXI is the walk's bus error, which is no page fault."""
    job = Job.current()
    cases = read_walks(Path(job.values["file"]))
    case = next(one for one in cases if one.outcome == Outcome.PAGE_FAULT and len(one.entries) >= 3)
    bench, tables = await begin(dut, 1, SparseMemory(case.physical_bits, strict=True))
    answer = decode(await bench.request(case.state(), case.request()))
    job.publish({"answer": str(answer), "accesses": len(tables.accesses)})
