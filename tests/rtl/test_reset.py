"""Reset in the middle of a walk, with a memory that goes on and answers late."""

from collections import deque
from functools import partial
from typing import Any

import pytest
from amaranth.hdl import ClockDomain, Elaboratable, Module
from amaranth.sim import Simulator

from ptewalk.model import x86
from ptewalk.rtl.caching_mmu import CachingMmu, CachingMmuConfig
from ptewalk.rtl.memory_port import ResetGeneration
from ptewalk.rtl.mmu import Mmu
from ptewalk.rtl.walker import Walker, WalkerConfig

from .walker_bench import FRAME, LINEAR, OK, RW, TABLE, US, WRITE, A, P, tables

LATENCY = 8
"""Long enough for an answer to be late: the next walk reads four cycles after the reset."""
LATE_SWAP = 4 * LATENCY + 2
"""Cycles to the answer of a swap of before the reset: then the next walk waits for its own."""
ELSEWHERE = 0x0000_1234_5678_9000
"""A linear address that the walk before the reset asks for; its entries are all 0."""


class Resettable(Elaboratable):
    """`core` with a reset that a test can reach."""

    def __init__(self, core: Any) -> None:
        self.core = core
        self.domain = ClockDomain("sync")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.domains += self.domain
        m.submodules.core = self.core
        return m


class Memory:
    """Answers on each channel in order, some cycles after an access, whatever happens to who asked."""

    def __init__(self, ctx: Any, port: Any, words: dict[int, int], latency: int) -> None:
        self.ctx, self.port, self.words, self.latency = ctx, port, words, latency
        self.pending: dict[str, deque[list[Any]]] = {"data": deque(), "swapped": deque()}
        self.late = 0
        """Answers to accesses of before the reset that came while one of after it was outstanding on their channel."""
        for stream in (port.reads, port.swaps):
            ctx.set(stream.ready, 1)

    async def cycle(self, *, before: bool = False) -> None:
        """One cycle; `before`: accesses that are made in it are of the time before the reset."""
        ctx, port = self.ctx, self.port
        if ctx.get(port.reads.valid):
            access = ctx.get(port.reads.payload)
            answer = {"value": self.words.get(access.address, 0), "error": 0, "id": access.id}
            self.pending["data"].append([self.latency, answer, before])
        if ctx.get(port.swaps.valid):
            access = ctx.get(port.swaps.payload)
            done = self.words.get(access.address, 0) == access.old
            if done:
                self.words[access.address] = access.new
            latency = LATE_SWAP if before else self.latency
            self.pending["swapped"].append([latency, {"done": done, "error": 0, "id": access.id}, before])
        await ctx.tick()
        for name, answers in self.pending.items():
            stream = getattr(port, name)
            for entry in answers:
                entry[0] -= 1
            due = bool(answers) and answers[0][0] <= 0
            ctx.set(stream.valid, due)
            if due:
                _, answer, old = answers.popleft()
                ctx.set(stream.payload, answer)
                self.late += old and any(not entry[2] for entry in answers)


def simulate(core: Any, job: Any) -> None:
    top = Resettable(core)
    ended = []

    async def bench(ctx: Any) -> None:
        await job(ctx, top.domain.rst)
        ended.append(True)

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert ended


async def through_a_reset(
    ctx: Any, reset: Any, mmu: Any, *, moment: int, first: int, words: dict[int, int], latency: int = LATENCY
) -> Any:
    """A walk to `first`, a reset in its cycle `moment`, a walk to LINEAR: its answer, its cycles, the memory."""
    requests, responses = mmu.requester.requests, mmu.requester.responses
    memory = Memory(ctx, mmu.memory, words, latency)
    for number, (linear, cycles) in enumerate(((first, moment), (LINEAR, 200))):
        ctx.set(mmu.contexts.payload.root, TABLE[4] >> 12)
        ctx.set(mmu.contexts.valid, 1)
        while not ctx.get(mmu.contexts.ready):
            await memory.cycle()
        await memory.cycle()
        ctx.set(mmu.contexts.valid, 0)
        ctx.set(requests.payload, {"linear": linear, "access": x86.Access(WRITE), "user": 1})
        ctx.set(requests.valid, 1)
        ctx.set(responses.ready, 1)
        while not ctx.get(requests.ready):
            await memory.cycle()
        for cycle in range(cycles):
            if number and ctx.get(responses.valid):
                return ctx.get(responses.payload), cycle, memory
            await memory.cycle(before=number == 0)
            ctx.set(requests.valid, 0)
        ctx.set(reset, 1)
        await memory.cycle(before=True)
        ctx.set(reset, 0)
    raise AssertionError("no response")


def caching() -> CachingMmu:
    """Small, with caches of upper entries."""
    return CachingMmu(CachingMmuConfig(WalkerConfig(tag_bits=2), upper_entries=2))


def bridged() -> CachingMmu:
    """As in a bridge, where few registers take the reset."""
    return CachingMmu(CachingMmuConfig(WalkerConfig(tag_bits=2), upper_entries=2, read_grants=True))


def split() -> CachingMmu:
    """Whose lookup takes a cycle more."""
    return CachingMmu(CachingMmuConfig(WalkerConfig(tag_bits=2), waiting=5, upper_entries=2, split_lookup=True))


def several() -> CachingMmu:
    """And with several walkers, whose numbers stand in the ids too."""
    return CachingMmu(CachingMmuConfig(WalkerConfig(tag_bits=2), upper_entries=2, walkers=3))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("core", "latency", "takes"),
    # The walk of an MMU that caches begins later, so that answers must be later as well.
    [
        *((core, LATENCY, 5 * LATENCY + 3) for core in (Walker, Mmu)),
        *((core, 3 * LATENCY, 15 * LATENCY + 5) for core in (caching, bridged, several)),
    ],
)
@pytest.mark.parametrize("moment", range(1, 12))
def test_late_answers_are_dropped(core: Any, latency: int, takes: int, moment: int) -> None:
    """Whatever the moment: a mapped address is OK, in as many cycles as after any other start."""
    words = tables(LINEAR, FRAME | P | RW | US | A)
    seen = []

    async def job(ctx: Any, reset: Any) -> None:
        how = {"moment": moment, "first": ELSEWHERE, "words": words, "latency": latency}
        answer, cycles, memory = await through_a_reset(ctx, reset, dut, **how)
        assert (int(answer.outcome), answer.physical) == (OK, 0x12_3456_7218)
        assert cycles == takes
        seen.append(memory.late)

    dut = core()
    simulate(dut, job)
    assert seen[0] <= 1


@pytest.mark.thorough
@pytest.mark.parametrize("core", [caching, bridged, several])
def test_nothing_that_was_cached_survives_a_reset(core: Any) -> None:
    """The page and its upper entries were walked before, with a root that the context gives again: a whole walk."""
    words = tables(LINEAR, FRAME | P | RW | US | A)

    async def job(ctx: Any, reset: Any) -> None:
        answer, cycles, _ = await through_a_reset(ctx, reset, dut, moment=80, first=LINEAR, words=words)
        assert (int(answer.outcome), answer.physical) == (OK, 0x12_3456_7218)
        assert cycles == 4 * LATENCY + 5

    dut = core()
    simulate(dut, job)


@pytest.mark.thorough
@pytest.mark.parametrize("core", [caching, bridged, split, several])
@pytest.mark.parametrize("moment", range(1, 8))
def test_nobody_in_flight_survives_a_reset(core: Any, moment: int) -> None:
    """Hits or misses, wherever they are: nothing is answered after it, and nothing asked of memory or told."""
    words = tables(LINEAR, FRAME | P | RW | US | A)

    async def job(ctx: Any, reset: Any, second: int) -> None:
        requests, responses = dut.requester.requests, dut.requester.responses
        memory = Memory(ctx, dut.memory, words, 1)
        ctx.set(dut.contexts.payload.root, TABLE[4] >> 12)
        ctx.set(dut.contexts.valid, 1)
        while not ctx.get(dut.contexts.ready):
            await memory.cycle()
        await memory.cycle()
        ctx.set(dut.contexts.valid, 0)
        ctx.set(responses.ready, 1)
        ctx.set(requests.payload, {"linear": LINEAR, "access": x86.Access.READ, "user": 1})
        ctx.set(requests.valid, 1)
        while not ctx.get(requests.ready):
            await memory.cycle()
        for cycle in range(40 + moment):  # the first is kept; then one comes in each cycle
            await memory.cycle()
            ctx.set(requests.payload.linear, second)
            ctx.set(requests.payload.tag, cycle + 1 & 3)
            ctx.set(requests.valid, cycle >= 40)
        ctx.set(reset, 1)
        ctx.set(requests.valid, 0)
        await memory.cycle()
        ctx.set(reset, 0)
        for _ in range(24):
            offered = (responses, dut.memory.reads, dut.memory.swaps, dut.supervisor.faults, dut.completions)
            assert not any(ctx.get(one.valid) for one in (*offered, dut.o_written, dut.o_walked))
            await ctx.tick()

    for second in (LINEAR, ELSEWHERE):
        dut = core()
        simulate(dut, partial(job, second=second))


@pytest.mark.thorough
def test_some_answers_were_late() -> None:
    """The test above would show it: at three moments at least an answer of the first walk reaches the second."""
    late = 0
    for moment in range(1, 12):
        walker = Walker()

        async def job(ctx: Any, reset: Any, walker: Walker = walker, moment: int = moment) -> None:
            nonlocal late
            words = tables(LINEAR, FRAME | P | RW | US | A)
            late += (await through_a_reset(ctx, reset, walker, moment=moment, first=ELSEWHERE, words=words))[2].late

        simulate(walker, job)
    assert late >= 3


def test_a_late_answer_to_a_swap_is_dropped() -> None:
    """It comes while the second walk waits for a swap of its own, and does not shorten that wait."""
    words = tables(LINEAR, FRAME | P | RW | US | A, uppers={3: P | RW | US, 2: P | RW | US})

    async def job(ctx: Any, reset: Any) -> None:
        moment = 2 * LATENCY + 3  # the swap that sets A of the PDPTE has just left
        answer, cycles, memory = await through_a_reset(ctx, reset, walker, moment=moment, first=LINEAR, words=words)
        assert memory.late == 1
        assert (int(answer.outcome), answer.physical) == (OK, 0x12_3456_7218)
        # A of the PDE, and the leaf's marks.
        assert cycles == 4 * LATENCY + 2 + (LATENCY + 2) + (LATENCY + 1)

    walker = Walker()
    simulate(walker, job)


@pytest.mark.parametrize("cycles", [1, 2, 7])
def test_a_reset_counts_once(cycles: int) -> None:
    async def job(ctx: Any, reset: Any) -> None:
        for number in (0, 1, 2, 3, 0, 1):
            assert ctx.get(generation.value) == number
            await ctx.tick()
            assert ctx.get(generation.value) == number
            ctx.set(reset, 1)
            for _ in range(cycles):
                await ctx.tick()
            ctx.set(reset, 0)

    generation = ResetGeneration()
    simulate(generation, job)
