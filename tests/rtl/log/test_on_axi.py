"""Records on AXI4: each in its lanes, answered by the id that it came with, errors told."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.model.dirty_log import record_of
from ptewalk.model.linux import Track
from ptewalk.model.x86 import Access, Control
from ptewalk.rtl.bus.on_axi import AxiMmu, AxiMmuConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.log.layouts import LogMode
from ptewalk.rtl.log.on_axi import RecordPort
from ptewalk.rtl.walker import WalkerConfig

from ..bus.burst_memory import Memory


@pytest.mark.parametrize("bits", [64, 128, 512])
def test_records_arrive(bits: int) -> None:
    """Four in flight, ids that begin anew while nothing is, a memory that stalls; the last ones are refused."""
    rng = random.Random(f"records {bits}")
    dut = RecordPort(address_bits=40, data_bits=bits, id_bits=2)
    memory = Memory(dut.m_axi, rng=rng, bits=bits)
    expected: dict[int, int] = {}

    async def bench(ctx: Any) -> None:
        writes, written = dut.records.writes, dut.records.written
        for error in (0, 0, 2):
            memory.answer = error
            flying: list[int] = []
            left, number = 23, rng.randrange(4)
            offer: tuple[int, int] | None = None
            for _ in range(2000):
                if offer is None and left and len(flying) < 4 and rng.random() < 0.7:
                    offer = (0x1_2345_6000 + 8 * rng.randrange(64), rng.getrandbits(64))
                ctx.set(writes.valid, offer is not None)
                if offer is not None:
                    ctx.set(writes.payload, {"address": offer[0], "value": offer[1], "id": number})
                signals = (writes.ready, written.valid, written.payload)
                _, _, ready, valid, told = await ctx.tick().sample(*signals)
                if valid:
                    assert (int(told.id), int(told.error)) == (flying.pop(0), error >> 1)
                if offer is not None and ready:
                    expected[offer[0]] = offer[1]
                    flying.append(number)
                    number, left, offer = (number + 1) % 4, left - 1, None
                if not left and not flying:
                    break
            assert not left and not flying

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.run, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    assert {at: memory.word(at) for at in expected} == expected and len(expected) > 25
    assert {one["id"] for one in memory.writes} == {0} and not memory.reads


@pytest.mark.thorough
@pytest.mark.parametrize("bits", [64, 256])
def test_an_mmu_alone_on_axi(bits: int) -> None:
    """Marks by exclusive writes and records by plain ones on one bus, behind a monitor."""
    mmu = CachingMmuConfig(WalkerConfig(tag_bits=4, trace=False), log=LogConfig())
    dut = AxiMmu(AxiMmuConfig(mmu, data_bits=bits, monitor=True))
    memory = Memory(dut.m_axi, rng=random.Random(f"mmu {bits}"), bits=bits)
    ring, table, pages = 0x9_0000, 0x4000, 12

    def put(address: int, value: int) -> None:
        memory.bytes |= {address + byte: value >> 8 * byte & 0xFF for byte in range(8)}

    for address, entry in ((0x1000, 0x2067), (0x2000, 0x3067), (0x3000, table | 0x67)):
        put(address, entry)
    for page in range(pages):
        put(table + 8 * page, (0x100 + page) << 12 | 0x67)

    async def bench(ctx: Any) -> None:
        async def until(signal: Any) -> None:
            for _ in range(2000):
                if (await ctx.tick().sample(signal))[-1]:
                    return
            raise AssertionError("it does not go on")

        async def send(stream: Any, fields: dict[str, int]) -> None:
            ctx.set(stream.payload, fields)
            ctx.set(stream.valid, 1)
            await until(stream.ready)
            ctx.set(stream.valid, 0)

        await send(dut.log.setups, {"mode": LogMode.RING, "base": ring >> 12, "size": 9, "stalls": 1})
        control = {Control.WP.name.lower(): 1}
        context: dict[str, Any] = {"root": 1, "track": Track.NATIVE, "pcid": 7, "control": control}
        await send(dut.contexts, context)
        responses = dut.requester.responses
        ctx.set(responses.ready, 1)
        for tag, page in enumerate(range(pages)):
            request = {"linear": page << 12, "access": Access.WRITE if page % 3 else Access.READ, "user": 1, "tag": tag}
            await send(dut.requester.requests, request)
            await until(responses.valid)
        await until(dut.log.tail == pages * 2 // 3)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(memory.run, background=True)
    simulator.add_testbench(bench)
    simulator.run()
    marked = [page for page in range(pages) if memory.word(table + 8 * page) & 1 << 11]
    assert marked == [page for page in range(pages) if page % 3]
    records = [record_of(memory.word(ring + 8 * number)) for number in range(len(marked) + 1)]
    assert [(one.page, one.level, one.pcid) for one in records[:-1]] == [(page, 1, 7) for page in marked]
    assert records[-1].level == 0
