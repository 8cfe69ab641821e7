"""In-simulator side of test_axi_walks.py: an MMU whose tables lie behind AXI4, in cocotbext-axi's memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocotb
from cocotbext.axi import AxiBus, AxiSlave, MemoryInterface

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


class Tables(MemoryInterface):
    """A `SparseMemory` as the target of an AXI subordinate: where there is none, SLVERR.

    Attributes
    ----------
    accesses : list of ("read" or "write", address, bytes)
    """

    def __init__(self, memory: SparseMemory) -> None:
        super().__init__(size=1 << memory.physical_bits)
        self.memory = memory
        self.accesses: list[tuple[str, int, int]] = []

    async def _read(self, address: int, length: int, **keywords: Any) -> bytes:
        first, last = address >> 3, address + length + 7 >> 3
        self.accesses.append(("read", address, length))
        words = b"".join(self.memory.load(word << 3).to_bytes(8, "little") for word in range(first, last))
        return words[address & 7 : (address & 7) + length]

    async def _write(self, address: int, data: bytes, **keywords: Any) -> None:
        assert address % 8 == 0 and len(data) == 8, "an entry is written whole"
        self.accesses.append(("write", address, len(data)))
        self.memory.store(address, int.from_bytes(data, "little"))


def pauses(rng: random.Random) -> Iterator[bool]:
    """A channel that stalls one cycle in four."""
    while True:
        yield rng.random() < 0.25


async def begin(dut: Any, seed: int, memory: SparseMemory) -> tuple[WalkerBench, Tables]:
    """A bench that runs, and the memory behind its AXI port, which stalls at random on every channel."""
    bench = WalkerBench(dut, memory, Conditions(seed=seed, stalls=Stalls(requests=0.2, responses=0.2)))
    tables = Tables(memory)
    subordinate = AxiSlave(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, target=tables)
    rng = random.Random(seed)
    for interface in (subordinate.write_if, subordinate.read_if):
        for name in ("aw", "w", "b", "ar", "r"):
            channel = getattr(interface, f"{name}_channel", None)
            if channel is not None:
                channel.set_pause_generator(pauses(random.Random(rng.random())))
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
