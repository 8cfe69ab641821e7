"""In-simulator side of test_unit_on_axi.py: a unit that is reset by software in the middle of what it does."""

from __future__ import annotations

import random
from typing import Any

import cocotb
from bench import start
from cocotb.triggers import ClockCycles

from ptewalk.cosim.driver.steps import run_async
from ptewalk.cosim.driver.unit import Unit
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.linux import Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, translate
from ptewalk.model.x86 import Access
from ptewalk.rtl.registers.map import BY_NAME, Command

ROOTS = (0x1000, 0x1_1000)
LINEAR, PAGE, DATA = 0x3000, 0x4000, 0x5000
"""The page; of each root, its entry's table and its frame, from the root - 0x1000 on."""


@cocotb.test()
async def resets_between_transfers(dut: Any) -> None:
    """A store by the tables of one root, a reset some cycles later, a store by those of the other: as the golden model.

    Publishes what differed, how many stores of before a reset had marked, and how many had not.
    """
    job = Job.current()
    rng = random.Random(job.values["seed"])
    bus, memory = await start(dut, rng, size=1 << 17)
    for root in ROOTS:
        base = root - 0x1000
        for at, word in ((0x1000, 0x2007), (0x2000, 0x3007), (0x3000, 0x4007), (PAGE + 8 * (LINEAR >> 12), DATA | 7)):
            memory.write(base + at, (base + word).to_bytes(8, "little"))

    def entry(root: int) -> int:
        return int.from_bytes(memory.read(root - 0x1000 + PAGE + 8 * (LINEAR >> 12), 8), "little")

    async def do(steps: Any) -> Any:
        return await run_async(bus, steps)

    async def to_root(root: int) -> Unit:
        unit: Unit = await do(Unit.open())
        await do(unit.context(root, track=Track.NATIVE))
        return unit

    differ: list[str] = []
    marked = 0
    for number in range(job.values["count"]):
        first, second = ROOTS[number % 2], ROOTS[1 - number % 2]
        for root in ROOTS:
            memory.write(root - 0x1000 + PAGE + 8 * (LINEAR >> 12), (root - 0x1000 + DATA | 7).to_bytes(8, "little"))
        unit = await to_root(first)
        await bus.write(BY_NAME["REQUEST_LINEAR_LO"].offset, LINEAR)
        await bus.write(BY_NAME["REQUEST"].offset, BY_NAME["REQUEST"].pack(access=Access.WRITE, user=1, retire=1))
        await do(unit.begin(Command.REQUEST))
        await ClockCycles(dut.clk, rng.randint(1, 60))
        await do(unit.soft_reset())
        marked += entry(first) != first - 0x1000 + DATA | 7
        golden = SparseMemory()
        for at in range(second - 0x1000, second - 0x1000 + DATA, 8):
            golden.store(at, int.from_bytes(memory.read(at, 8), "little"))
        expected: Any = translate(
            golden, State(root=second, track=Track.NATIVE), Request(LINEAR, Access.WRITE, user=True)
        )
        unit = await to_root(second)
        found = await do(unit.translate(LINEAR, Access.WRITE))
        if found.physical != expected.physical:
            differ.append(f"{number}: {found.physical:#x}, not {expected.physical:#x}")
        for at in range(second - 0x1000, second - 0x1000 + DATA, 8):
            kept = int.from_bytes(memory.read(at, 8), "little")
            if kept != golden.load(at):
                differ.append(f"{number}: word {at:#x}: {kept:#x}, not {golden.load(at):#x}")
        if await do(unit.ended()) != 2:
            differ.append(f"{number}: commands of before the reset are counted")
    job.publish({"differ": differ, "marked": marked, "built": dict(unit.built)})
