"""Two users of one memory port: atomic swaps of both."""

import random
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, connect, flipped
from amaranth.sim import Simulator

from ptewalk.rtl.bus.exclusive import ExclusivePort
from ptewalk.rtl.bus.lock import LockRam, LockRamConfig
from ptewalk.rtl.interfaces import MemoryPortSignature
from ptewalk.rtl.registers.share import MemoryShare, WordSignature

from ..bus.axi_memory import AxiMemory


class Shared(Component):
    """The share on what has a memory port."""

    def __init__(self, memory: LockRam | ExclusivePort) -> None:
        self.behind = memory
        self.share = MemoryShare(40)
        super().__init__({"walker": In(MemoryPortSignature(40)), "words": In(WordSignature(40)), "tested": In(1)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.behind = self.behind
        m.submodules.share = share = self.share
        m.d.comb += share.tested.eq(self.tested)
        connect(m, flipped(self.walker), share.walker)
        connect(m, flipped(self.words), share.words)
        connect(m, share.memory, self.behind.memory)
        return m


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["ram", "axi"])
def test_both_count_to_the_sum(kind: str) -> None:
    """Walker and software add to one word by read and swap, each as fast as it can: no update is lost.

    Block RAM answers in the next cycle, AXI4 when it pleases.
    """
    behind = LockRam(LockRamConfig(words=512)) if kind == "ram" else ExclusivePort()
    top = Shared(behind)
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    if isinstance(behind, ExclusivePort):
        memory = AxiMemory(behind.m_axi, rng=random.Random(2), words={64: 0}, bad={1 << 20: 2})
        simulator.add_testbench(memory.run, background=True)
    done = {"walker": 0, "software": 0}
    failed = {"walker": 0, "software": 0}
    rng = random.Random(4)

    async def walker(ctx: Any) -> None:
        port = top.walker
        number = 0

        async def access(offers: Any, answers: Any, fields: dict[str, int]) -> Any:
            nonlocal number
            number = (number + 1) % 4
            ctx.set(offers.payload, {**fields, "id": number})
            ctx.set(offers.valid, 1)
            await ctx.tick().until(offers.ready)
            ctx.set(offers.valid, 0)
            (found,) = await ctx.tick().sample(answers.payload).until(answers.valid)
            assert found.id == number
            return found

        while done["walker"] < 40:
            old = (await access(port.reads, port.data, {"address": 64})).value
            swap = {"address": 64, "old": old, "new": old + 1}
            found = await access(port.swaps, port.swapped, swap)
            (done if found.done else failed)["walker"] += 1
            await ctx.tick().repeat(rng.randrange(1, 4))

    async def software(ctx: Any) -> None:
        words = top.words

        async def access(**fields: int) -> Any:
            ctx.set(words.asked.payload, {"old": 0, "new": 0, "swap": 0, "address": 64, **fields})
            ctx.set(words.asked.valid, 1)
            (found,) = await ctx.tick().sample(words.answered.payload).until(words.answered.valid)
            ctx.set(words.asked.valid, 0)
            return found

        while done["software"] < 40:
            old = (await access()).value
            await ctx.tick().repeat(rng.randrange(1, 4))
            found = await access(swap=1, old=old, new=old + 1)
            assert not found.error
            (done if found.done else failed)["software"] += 1
        found = await access(address=1 << 20)
        assert (found.error, found.done) == (1, 0)
        while done["walker"] < 40:
            await ctx.tick()
        assert (await access()).value == 80

    simulator.add_testbench(walker)
    simulator.add_testbench(software)
    simulator.run()
    assert done == {"walker": 40, "software": 40}
    assert sum(failed.values()) >= 5, failed


def test_a_self_test_has_the_port_for_itself() -> None:
    """It begins when the walker has nothing in flight; what the walker offers then waits until it has ended."""
    top = Shared(ExclusivePort())
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    memory = AxiMemory(top.behind.m_axi, latency=9, words={64: 7})
    simulator.add_testbench(memory.run, background=True)
    answered: list[int] = []
    began: list[int] = []

    async def walker(ctx: Any) -> None:
        for _ in range(4):
            ctx.set(top.walker.reads.payload, {"address": 64, "id": 1})
            ctx.set(top.walker.reads.valid, 1)
            await ctx.tick().until(top.walker.reads.ready)
            ctx.set(top.walker.reads.valid, 0)
            (found,) = await ctx.tick().sample(top.walker.data.payload).until(top.walker.data.valid)
            answered.append(int(found.value))

    async def software(ctx: Any) -> None:
        await ctx.tick().repeat(14)  # in the middle of the walker's second read
        ctx.set(top.words.asked.payload, {"address": 128, "test": 1})
        ctx.set(top.words.asked.valid, 1)
        await ctx.tick().until(top.share.test)
        began.append(len(answered))
        for _ in range(30):
            await ctx.tick()
            assert not ctx.get(top.behind.m_axi.ar.valid) and not ctx.get(top.words.answered.valid)
        assert len(answered) == began[0]
        ctx.set(top.tested, 1)
        (found,) = await ctx.tick().sample(top.words.answered.payload).until(top.words.answered.valid)
        ctx.set(top.tested, 0)
        ctx.set(top.words.asked.valid, 0)
        assert (found.done, found.error) == (1, 0)
        while len(answered) < 4:
            await ctx.tick()

    simulator.add_testbench(walker)
    simulator.add_testbench(software)
    simulator.run()
    assert began == [2] and answered == [7] * 4
    assert {address for _, address, *_ in memory.log} == {64}


def test_software_waits_for_every_walker() -> None:
    """Two reads are in flight: the word has its turn when both are answered, not after the first."""
    share = MemoryShare(40, walkers=2)
    simulator = Simulator(share)
    simulator.add_clock(1e-6)

    async def testbench(ctx: Any) -> None:
        walker, words, memory = share.walker, share.words, share.memory
        ctx.set(memory.reads.ready, 1)
        ctx.set(walker.reads.valid, 1)
        for number in range(2):
            ctx.set(walker.reads.payload, {"address": 0x1000 * (number + 1), "id": number << 2})
            assert ctx.get(memory.reads.payload.address) == 0x1000 * (number + 1)
            await ctx.tick()
        ctx.set(walker.reads.valid, 0)
        ctx.set(words.asked.payload.address, 0x3000)
        ctx.set(words.asked.valid, 1)
        for number in (1, 0):
            await ctx.tick().repeat(4)
            assert not ctx.get(memory.reads.valid)
            ctx.set(memory.data.payload, {"value": 7 + number, "id": number << 2})
            ctx.set(memory.data.valid, 1)
            assert ctx.get(walker.data.valid) and ctx.get(walker.data.payload.value) == 7 + number
            await ctx.tick()
            ctx.set(memory.data.valid, 0)
        await ctx.tick().until(memory.reads.valid)
        assert ctx.get(memory.reads.payload.address) == 0x3000 and not ctx.get(walker.reads.ready)
        ctx.set(memory.data.payload, {"value": 9, "id": 0})
        ctx.set(memory.data.valid, 1)
        assert not ctx.get(walker.data.valid)
        assert ctx.get(words.answered.valid) and ctx.get(words.answered.payload.value) == 9

    simulator.add_testbench(testbench)
    simulator.run()


def test_an_answer_of_before_a_reset_holds_up_nobody() -> None:
    """Memory answers what nobody of now has asked for: software has its turn all the same."""
    share = MemoryShare(40, walkers=2)
    simulator = Simulator(share)
    simulator.add_clock(1e-6)
    waited: list[int] = []

    async def testbench(ctx: Any) -> None:
        ctx.set(share.memory.data.valid, 1)
        await ctx.tick()
        ctx.set(share.memory.data.valid, 0)
        ctx.set(share.words.asked.payload.address, 0x3000)
        ctx.set(share.words.asked.valid, 1)
        for cycle in range(8):
            if ctx.get(share.memory.reads.valid):
                waited.append(cycle)
            await ctx.tick()

    simulator.add_testbench(testbench)
    simulator.run()
    assert waited and waited[0] <= 2
