"""In-simulator side of test_own_top.py: a memory of one's own, and a walker below somebody else's top."""

from __future__ import annotations

from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Timer

from ptewalk.cosim import WalkerBench
from ptewalk.cosim.bench.records import decode
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.linux import Track
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import Request, State, translate
from ptewalk.model.x86 import Access
from ptewalk.rtl.description import DesignDescription

WORDS = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x4007, 0x4008: 0x5007}


class OwnMemory:
    """Words in a dictionary; nothing answers beyond it."""

    def __init__(self) -> None:
        self.words = dict(WORDS)

    def load(self, address: int) -> int:
        if address not in self.words:
            raise BusError(address)
        return self.words[address]

    def store(self, address: int, value: int) -> None:
        self.words[address] = value

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        if self.load(address) != old:
            return False
        self.words[address] = new
        return True


async def check(bench: WalkerBench, memory: OwnMemory) -> list[str]:
    expected = SparseMemory(strict=True)
    for address, value in WORDS.items():
        expected.add_frame(address >> 12)
        expected.store(address, value)
    state = State(root=0x1000, track=Track.NATIVE)
    seen = []
    for linear, access in ((0x1678, Access.WRITE), (0x0678, Access.READ)):
        request = Request(linear, access)
        answer = decode(await bench.request(state, request))
        if linear == 0x1678:
            assert answer == translate(expected, state, request)
        seen.append(repr(answer))
    assert memory.words[0x4008] == expected.load(0x4008) == 0x5867
    return seen


@cocotb.test()
async def own_memory(dut: Any) -> None:
    """Three methods are enough; there is no batch level on such a memory."""
    memory = OwnMemory()
    bench = WalkerBench(dut, memory)
    assert not bench.has_batch_level
    await bench.start()
    Job.current().publish({"seen": await check(bench, memory)})


@cocotb.test()
async def own_top(dut: Any) -> None:
    """The top has a clock and a reset of its own, and leads the walker's ports out under a prefix."""
    job = Job.current()
    memory = OwnMemory()
    design = DesignDescription.from_json(job.values["design"])
    bench = WalkerBench(dut, memory, design=design, prefix="mmu_", clk=dut.clock)
    dut.restart.value = 1
    dut.clock.value = 0
    await Timer(8, unit="ns")
    Clock(dut.clock, 8, unit="ns").start()
    await ClockCycles(dut.clock, 3)
    dut.restart.value = 0
    await bench.start()
    job.publish({"seen": await check(bench, memory)})
