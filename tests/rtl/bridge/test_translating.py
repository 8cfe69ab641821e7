"""The bridge with its MMU: bytes land where the tables say, and no byte lands without its mark."""

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.translating import TranslatingBridge, TranslatingBridgeConfig

from ..bus.axi_memory import AxiMemory
from ..bus.burst_memory import Manager
from ..walker_bench import LEAF, NATIVE, SD, TABLE, US, A, D, P, slot, tables
from .bench import Bench
from .doubles import OKAY, SLVERR, Memory

pytestmark = pytest.mark.thorough

LINEAR, FRAME = 0x0000_5A5A_7654_3000, 0x12_3456_7000
INVLPG, STORES, ALL = 4, 1, 2


class Whole(Bench):
    """And the tables."""

    words: dict[int, int]

    @property
    def leaf(self) -> int:
        return self.words[slot(LINEAR, 1)]

    async def put(self, stream: Any, **fields: Any) -> None:
        """Offer it until it is taken."""
        self.ctx.set(stream.payload, fields)
        self.ctx.set(stream.valid, 1)
        await self.ctx.tick().until(stream.ready)
        self.ctx.set(stream.valid, 0)

    async def invalidate(self, wait: int) -> bool:
        """Of the page; whether it was complete in time."""
        await self.put(self.bridge.invalidations, kind=INVLPG, linear=LINEAR, pcid=0, wait=wait)
        return await self.completes()

    async def completes(self) -> bool:
        """An invalidation is complete before 100 cycles have passed."""
        for _ in range(100):
            if self.ctx.get(self.bridge.completions.valid):
                await self.ctx.tick()
                return True
            await self.ctx.tick()
        return False

    async def clear(self) -> None:
        """Soft-dirty of the leaf, as software clears it: entry, invalidation, drain."""
        self.words[slot(LINEAR, 1)] &= ~SD
        await self.invalidate(STORES)


def run(job: Any, leaf: int = LEAF & ~D & ~A, *, rng: random.Random | None = None) -> Whole:
    """Run `job(bench)` with one page mapped, and tracking; at the end nothing is under way."""
    bridge = TranslatingBridge(TranslatingBridgeConfig(bridge=BridgeConfig(data_bits=64)))
    manager = Manager(bridge.s_axi, rng=rng)
    memory = Memory(bridge.m_axi, rng=rng)
    table = AxiMemory(bridge.t_axi, rng=rng, words=tables(LINEAR, leaf))
    benches = []

    async def testbench(ctx: Any) -> None:
        bench = Whole(ctx, bridge, manager, memory, None)  # type: ignore[arg-type]
        bench.words = table.words
        benches.append(bench)
        bench.control(enable=1, final_response=1)
        await bench.put(bridge.contexts, root=TABLE[4] >> 12, track=NATIVE)
        await job(bench)
        await bench.ticks(6)
        assert not bench.status("busy") and not ctx.get(bridge.granted)

    simulator = Simulator(bridge)
    simulator.add_clock(1e-6)
    simulator.add_testbench(testbench)
    for side in (manager, memory, table):
        simulator.add_testbench(side.run, background=True)
    simulator.run()
    return benches[0]


def test_bytes_and_marks() -> None:
    """A read sets A; a write sets D and soft-dirty before its bytes land, and again after they were cleared."""

    async def job(bench: Whole) -> None:
        bench.memory.store(FRAME + 8, bytes(range(8)))
        assert bench.leaf == LEAF & ~D & ~A
        assert await bench.read(LINEAR + 8) == (OKAY, [0x0706_0504_0302_0100])
        assert bench.leaf == LEAF & ~D
        assert await bench.write(LINEAR + 16, [0xAB], strobes=1) == OKAY
        assert bench.memory.load(FRAME + 16, 2) == b"\xab\x00"
        assert bench.leaf == LEAF | SD
        bench.words[slot(LINEAR, 1)] = LEAF  # cleared, and nobody told: a mark is owed by nobody
        assert await bench.write(LINEAR + 16, [1]) == OKAY
        assert bench.leaf == LEAF
        await bench.clear()
        assert await bench.write(LINEAR + 16, [2]) == OKAY
        assert bench.leaf == LEAF | SD

    run(job)


def test_a_fault_reaches_neither_memory_nor_mark() -> None:
    async def job(bench: Whole) -> None:
        assert await bench.write(LINEAR, [1]) == SLVERR
        record = await bench.fault()
        assert (record["linear"], record["code"], record["write"]) == (LINEAR, 0b111, 1)
        assert (await bench.read(LINEAR))[0] == OKAY
        assert not bench.memory.writes and bench.leaf & (D | SD) == 0

    run(job, leaf=FRAME | P | US)


@pytest.mark.parametrize(("write", "wait"), [(True, STORES), (True, ALL), (False, STORES), (False, ALL)])
def test_what_an_invalidation_waits_for(write: bool, wait: int) -> None:
    """For stores until memory has answered; where it says so for reads until R is in the bridge, and no longer."""

    async def job(bench: Whole) -> None:
        await bench.read(LINEAR)
        bench.memory.stuck = True
        bench.manager.held |= {"r", "b"}
        if write:
            bench.manager.write(1, LINEAR, [1])
        else:
            bench.manager.read(1, LINEAR, beats=2)
        await bench.ticks(60)
        assert len(bench.memory.writes) + len(bench.memory.reads) == 2
        waits = write or wait == ALL
        assert await bench.invalidate(wait) is not waits
        bench.memory.stuck = False
        if waits:
            assert await bench.completes()
        assert not bench.manager.seen["r"] and not bench.manager.seen["b"]
        bench.manager.held.clear()
        await bench.wait("b" if write else "r", 1 if write else 2)

    run(job)


def test_random_words_against_a_dictionary() -> None:
    """With every channel stalling, clears between: bytes are as last written, no store lands in a clean page."""
    rng = random.Random(5)

    async def job(bench: Whole) -> None:
        words: dict[int, int] = {}
        for _ in range(40):
            at = LINEAR + 8 * rng.randrange(8)
            if rng.random() < 0.5:
                words[at] = rng.getrandbits(64)
                assert await bench.write(at, [words[at]], identity=rng.randrange(16)) == OKAY
                assert bench.leaf & (D | SD) == D | SD
            elif rng.random() < 0.8:
                assert await bench.read(at, identity=rng.randrange(16)) == (OKAY, [words.get(at, 0)])
            else:
                await bench.clear()
                assert bench.leaf & SD == 0

    run(job, rng=rng)
