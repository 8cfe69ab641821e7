"""The MMU's top: walker, fault unit and counters together."""

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.model import x86
from ptewalk.rtl.mmu import Mmu, MmuConfig
from ptewalk.rtl.walker import WalkerConfig

from .walker_bench import (
    ARM,
    FAULT,
    FRAME,
    LINEAR,
    NATIVE,
    OFF,
    OK,
    PF,
    READ,
    RW,
    SD,
    TABLE,
    US,
    WRITE,
    A,
    D,
    P,
    tables,
)

BASE = FRAME | P | US
COUNTERS = ("marks", "mends", "delivered_faults")


class Requester:
    """Asks an MMU whose memory answers in the next cycle; tables of one walk lie in `words`."""

    def __init__(self, ctx: Any, mmu: Mmu) -> None:
        self.ctx = ctx
        self.mmu = mmu
        ctx.set(mmu.root, TABLE[4] >> 12)
        for stream in (mmu.o_reads, mmu.o_swaps, mmu.o_responses):
            ctx.set(stream.ready, 1)

    async def ask(self, words: dict[int, int], access: int, **state: int) -> int:
        """The outcome of one request, and the cycles it took in `self.cycles`."""
        ctx, mmu = self.ctx, self.mmu
        for name, value in state.items():
            ctx.set(getattr(mmu, name), value)
        refuse = False
        ctx.set(mmu.i_requests.payload, {"linear": LINEAR, "access": x86.Access(access), "user": 1, "tag": 7})
        ctx.set(mmu.i_requests.valid, 1)
        assert ctx.get(mmu.i_requests.ready)
        for cycle in range(100):
            if ctx.get(mmu.o_responses.valid):
                outcome = int(ctx.get(mmu.o_responses.payload.outcome))
                assert ctx.get(mmu.o_responses.payload.tag) == 7
                self.cycles = cycle
                await ctx.tick()
                return outcome
            read, swap = ctx.get(mmu.o_reads.valid), ctx.get(mmu.o_swaps.valid)
            address, payload = ctx.get(mmu.o_reads.payload.address), ctx.get(mmu.o_swaps.payload)
            await ctx.tick()
            ctx.set(mmu.i_requests.valid, 0)
            ctx.set(mmu.i_data.valid, read)
            ctx.set(mmu.i_swapped.valid, swap)
            if read:
                ctx.set(mmu.i_data.payload.value, words[address])
            if swap:
                refuse = not refuse and self.refuse_first
                if not refuse:
                    words[payload.address] = payload.new
                ctx.set(mmu.i_swapped.payload.done, not refuse)
        raise AssertionError("no response")

    refuse_first = False

    def counters(self) -> dict[str, int]:
        return {name: self.ctx.get(getattr(self.mmu, name)) for name in COUNTERS}


def run(test: Callable[[Requester], Any], config: MmuConfig | None = None) -> None:
    mmu = Mmu(config or MmuConfig())
    ended = []

    async def bench(ctx: Any) -> None:
        await test(Requester(ctx, mmu))
        ended.append(True)

    simulator = Simulator(mmu)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert ended


def test_timing_is_the_walkers() -> None:
    async def test(requester: Requester) -> None:
        assert await requester.ask(tables(LINEAR, BASE | A), READ) == OK
        assert requester.cycles == 4 * 1 + 2

    run(test)


@pytest.mark.parametrize(
    ("leaf", "track", "outcome", "marks", "mends"),
    [
        (BASE | RW | A, NATIVE, OK, 1, 0),
        (BASE | RW | A | D, NATIVE, OK, 1, 0),
        (BASE | RW | A | SD, NATIVE, OK, 0, 0),
        (BASE | RW | A | D | SD, NATIVE, OK, 0, 0),
        (BASE | RW | A, OFF, OK, 0, 0),
        (BASE | A | ARM, FAULT, OK, 1, 1),
        (BASE | A | D | SD | ARM, FAULT, OK, 0, 1),
        (BASE | A | ARM, NATIVE, PF, 0, 0),
        (BASE | A, FAULT, PF, 0, 0),
    ],
)
def test_counters(leaf: int, track: int, outcome: int, marks: int, mends: int) -> None:
    """`marks`: swaps that set soft-dirty. `mends`: swaps that made an entry writable. Each counts once."""

    async def test(requester: Requester) -> None:
        words = tables(LINEAR, leaf)
        assert await requester.ask(words, WRITE, track=track) == outcome
        faults = int(outcome == PF)
        expected = {"marks": marks, "mends": mends, "delivered_faults": faults}
        assert requester.counters() == expected
        assert requester.ctx.get(requester.mmu.o_faults.valid) in (0, faults)
        if outcome == OK:
            assert await requester.ask(words, WRITE) == OK
            assert requester.counters() == expected, "the second write found its marks"

    run(test)


def test_a_refused_swap_is_not_counted() -> None:
    async def test(requester: Requester) -> None:
        requester.refuse_first = True
        assert await requester.ask(tables(LINEAR, BASE | A | ARM), WRITE, track=FAULT) == OK
        assert requester.counters() == {"marks": 1, "mends": 1, "delivered_faults": 0}

    run(test)


def test_fault_record_and_grants() -> None:
    async def test(requester: Requester) -> None:
        ctx, mmu = requester.ctx, requester.mmu
        assert await requester.ask(tables(LINEAR, BASE | A), WRITE) == PF
        for _ in range(2):
            await ctx.tick()
        assert ctx.get(mmu.o_faults.valid)
        record = {name: int(ctx.get(mmu.o_faults.payload[name])) for name in ("linear", "code", "tag")}
        assert record == {"linear": LINEAR, "code": 7, "tag": 7}
        assert await requester.ask(tables(LINEAR, BASE | RW | A), WRITE) == OK
        assert ctx.get(mmu.o_granted) == 1
        ctx.set(mmu.i_drain, 1)
        assert not ctx.get(mmu.o_drained)
        ctx.set(mmu.i_retired.payload.tag, 7)
        ctx.set(mmu.i_retired.valid, 1)
        await ctx.tick()
        ctx.set(mmu.i_retired.valid, 0)
        assert ctx.get(mmu.o_drained)

    run(test)


def test_without_soft_dirty() -> None:
    mmu_config = MmuConfig(WalkerConfig(soft_dirty=False))

    async def test(requester: Requester) -> None:
        assert not {"marks", "mends", "track", "saved_dirty"} & set(requester.mmu.signature.members)
        words = tables(LINEAR, BASE | RW | A)
        assert await requester.ask(words, WRITE) == OK
        assert requester.ctx.get(requester.mmu.delivered_faults) == 0

    run(test, mmu_config)


def test_without_trace() -> None:
    async def test(requester: Requester) -> None:
        assert "o_trace" not in requester.mmu.signature.members
        assert await requester.ask(tables(LINEAR, BASE | A), READ) == OK

    run(test, MmuConfig(WalkerConfig(trace=False)))


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"walker": None}, "walker must be a WalkerConfig, not None"),
        ({"fault_depth": 0}, "fault_depth must be an integer from 1 to 1024, not 0"),
        ({"fault_depth": 1025}, "fault_depth must be an integer from 1 to 1024, not 1025"),
        ({"fault_depth": "4"}, "fault_depth must be an integer from 1 to 1024, not '4'"),
    ],
)
def test_parameter_errors(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as error:
        MmuConfig(**parameters)
    assert str(error.value) == text
