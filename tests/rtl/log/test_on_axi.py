"""Records on AXI4: each in its lanes, answered by the id that it came with, errors told."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.log.on_axi import RecordPort

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
