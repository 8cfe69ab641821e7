"""In-simulator side of test_bus.py: the exclusive monitor between cocotbext-axi's manager and its memory."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles
from cocotbext.axi import AxiBus, AxiLockType, AxiMaster, AxiRam, AxiResp

from ptewalk.cosim.simulate.run import Job

LINE = 0x2340
WORDS = 8


def pauses(rng: random.Random) -> Iterator[bool]:
    """A channel that stalls one cycle in three."""
    while True:
        yield rng.random() < 0.33


@cocotb.test()
async def contend(dut: Any) -> None:
    """Four agents add exclusively, by the word and by the line; two write single bytes between.

    Publishes what was answered, what memory has at the end, and how many transactions there were.
    """
    job = Job.current()
    rng = random.Random(job.values["seed"])
    rounds = job.values["rounds"]
    manager = AxiMaster(AxiBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
    memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=1 << 16)
    for side in (manager, memory):
        for channels in (side.write_if, side.read_if):
            for name in ("aw", "w", "b", "ar", "r"):
                channel = getattr(channels, f"{name}_channel", None)
                if channel is not None:
                    channel.set_pause_generator(pauses(random.Random(rng.random())))
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await ClockCycles(dut.clk, 2)

    added = [0] * WORDS
    counts = {"transactions": 0, "done": 0, "failed": 0, "refused": 0, "plain": 0}
    lasting = {}

    async def add(identity: int) -> None:
        for _ in range(rounds):
            wide = identity % 2 == 1
            word = rng.randrange(WORDS)
            at, length = (LINE, 8 * WORDS) if wide else (LINE + 8 * word, 8)
            lock = AxiLockType.EXCLUSIVE
            found = await manager.read(at, length, arid=identity, lock=lock, size=3)
            counts["transactions"] += 1
            if found.resp != AxiResp.EXOKAY:
                assert found.resp == AxiResp.OKAY
                counts["refused"] += 1
                continue
            data = bytearray(found.data)
            place = 8 * word if wide else 0
            value = int.from_bytes(data[place : place + 4], "little") + 1
            data[place : place + 4] = value.to_bytes(4, "little")
            written = await manager.write(at, bytes(data), awid=identity, lock=lock, size=3)
            counts["transactions"] += 1
            done = written.resp == AxiResp.EXOKAY
            assert done or written.resp == AxiResp.OKAY
            counts["done" if done else "failed"] += 1
            added[word] += done

    async def write(identity: int) -> None:
        for number in range(rounds):
            await ClockCycles(dut.clk, rng.randrange(1, 90))
            byte = 8 * rng.randrange(WORDS) + identity
            await manager.write(LINE + byte, bytes([number + 1]), awid=identity)
            lasting[byte] = number + 1
            counts["transactions"] += 1
            counts["plain"] += 1

    tasks = [cocotb.start_soon(add(identity)) for identity in range(4)]
    tasks += [cocotb.start_soon(write(identity)) for identity in (5, 6)]
    for task in tasks:
        await task
    expected = bytearray(8 * WORDS)
    for place, value in enumerate(added):
        expected[8 * place : 8 * place + 4] = value.to_bytes(4, "little")
    for byte, value in lasting.items():
        expected[byte] = value
    # As the bus sees it, and as memory has it.
    seen = await manager.read(LINE, 8 * WORDS, arid=15)
    assert seen.resp == AxiResp.OKAY
    job.publish(
        {**counts, "seen": seen.data.hex(), "kept": memory.read(LINE, 8 * WORDS).hex(), "expected": expected.hex()}
    )
