"""The MMU's top: walker, fault unit and counters together."""

from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.model import x86
from ptewalk.rtl.layouts import ControlLayout
from ptewalk.rtl.mmu import Mmu, MmuConfig
from ptewalk.rtl.walker import WalkerConfig

from .walker_bench import (
    ARM,
    FAULT,
    FRAME,
    LINEAR,
    NATIVE,
    NXE,
    OFF,
    OK,
    PF,
    PROBE,
    READ,
    RW,
    SAVED,
    SD,
    SMEP,
    TABLE,
    US,
    WP,
    WRITE,
    A,
    D,
    P,
    control_bits,
    set_context,
    slot,
    tables,
)

BASE = FRAME | P | US
COUNTERS = ("marks", "mends", "delivered_faults", "lost_faults")


class Requester:
    """Asks an MMU whose memory answers in the next cycle; tables of one walk lie in `words`."""

    def __init__(self, ctx: Any, mmu: Mmu) -> None:
        self.ctx = ctx
        self.mmu = mmu
        self.state: dict[str, int] = {}
        self.offer: tuple[int, dict[str, int]] = (-1, {})
        for stream in (mmu.memory.reads, mmu.memory.swaps, mmu.requester.responses):
            ctx.set(stream.ready, 1)

    def offer_in_cycle(self, cycle: int, fields: dict[str, int]) -> None:
        """In this cycle of the next walk, a context with these fields is offered, and stands until it is taken."""
        self.offer = cycle, fields

    async def ask(
        self,
        words: dict[int, int],
        access: int,
        *,
        tag: int = 7,
        user: int = 1,
        keep_context: bool = False,
        **state: int,
    ) -> int:
        """The outcome of one request, and the cycles it took in `self.cycles`."""
        ctx, memory = self.ctx, self.mmu.memory
        requests, responses = self.mmu.requester.requests, self.mmu.requester.responses
        self.state |= state
        if not keep_context:
            await set_context(ctx, self.mmu.contexts, **{"root": TABLE[4] >> 12} | self.state)
        refuse = False
        ctx.set(requests.payload, {"linear": LINEAR, "access": x86.Access(access), "user": user, "tag": tag})
        ctx.set(requests.valid, 1)
        for _ in range(256):
            if ctx.get(requests.ready):
                break
            await ctx.tick()
        assert ctx.get(requests.ready)
        contexts = self.mmu.contexts
        for cycle in range(100):
            if cycle == self.offer[0]:
                fields = {"root": TABLE[4] >> 12} | self.state | self.offer[1]
                control = ControlLayout().const(control_bits(fields.pop("control", 0)))
                ctx.set(contexts.payload, fields | {"control": control})
                ctx.set(contexts.valid, 1)
            if ctx.get(responses.valid):
                outcome = int(ctx.get(responses.payload.outcome))
                assert ctx.get(responses.payload.tag) == tag
                self.cycles = cycle
                await ctx.tick()
                if ctx.get(contexts.valid):
                    assert ctx.get(contexts.ready)
                    await ctx.tick()
                    ctx.set(contexts.valid, 0)
                    self.offer = -1, {}
                return outcome
            read, swap = ctx.get(memory.reads.valid), ctx.get(memory.swaps.valid)
            asked, payload = ctx.get(memory.reads.payload), ctx.get(memory.swaps.payload)
            await ctx.tick()
            ctx.set(requests.valid, 0)
            ctx.set(memory.data.valid, read)
            ctx.set(memory.swapped.valid, swap)
            if read:
                ctx.set(memory.data.payload, {"value": words[asked.address], "id": asked.id})
            if swap:
                refuse = not refuse and self.refuse_first
                if not refuse:
                    words[payload.address] = payload.new
                ctx.set(memory.swapped.payload, {"done": not refuse, "id": payload.id})
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


@pytest.mark.thorough
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
        expected = {"marks": marks, "mends": mends, "delivered_faults": faults, "lost_faults": 0}
        assert requester.counters() == expected
        assert requester.ctx.get(requester.mmu.supervisor.faults.valid) in (0, faults)
        if outcome == OK:
            assert await requester.ask(words, WRITE, tag=8) == OK
            assert requester.counters() == expected, "the second write found its marks"

    run(test)


def test_a_refused_swap_is_not_counted() -> None:
    async def test(requester: Requester) -> None:
        requester.refuse_first = True
        assert await requester.ask(tables(LINEAR, BASE | A | ARM), WRITE, track=FAULT) == OK
        assert requester.counters() == {"marks": 1, "mends": 1, "delivered_faults": 0, "lost_faults": 0}

    run(test)


def test_fault_record_and_grants() -> None:
    async def test(requester: Requester) -> None:
        ctx, supervisor, retired = requester.ctx, requester.mmu.supervisor, requester.mmu.requester.retired
        assert await requester.ask(tables(LINEAR, BASE | A), WRITE) == PF
        for _ in range(2):
            await ctx.tick()
        assert ctx.get(supervisor.faults.valid)
        record = {name: int(ctx.get(supervisor.faults.payload[name])) for name in ("linear", "code", "tag")}
        assert record == {"linear": LINEAR, "code": 7, "tag": 7}
        assert await requester.ask(tables(LINEAR, BASE | RW | A), WRITE) == OK
        assert ctx.get(supervisor.granted) == 1
        ctx.set(supervisor.drain, 1)
        assert not ctx.get(supervisor.drained)
        ctx.set(retired.payload.tag, 7)
        ctx.set(retired.valid, 1)
        await ctx.tick()
        ctx.set(retired.valid, 0)
        assert ctx.get(supervisor.drained)

    run(test)


def test_a_probe_that_faults_is_answered_and_no_more() -> None:
    async def test(requester: Requester) -> None:
        assert await requester.ask(tables(LINEAR, BASE | A), PROBE) == PF
        for _ in range(4):
            assert not requester.ctx.get(requester.mmu.supervisor.faults.valid)
            await requester.ctx.tick()
        assert not any(requester.counters().values())

    run(test)


def test_a_full_fault_queue_stalls_nobody() -> None:
    """Nobody takes the records: all faults are answered, in the usual time; what is lost is counted."""

    async def test(requester: Requester) -> None:
        for _ in range(8):
            assert await requester.ask(tables(LINEAR, BASE | A), WRITE) == PF
            assert requester.cycles == 4 * 1 + 2
        counters = requester.counters()
        assert counters["delivered_faults"] == 8
        assert counters["lost_faults"] in (8 - 2, 8 - 3)
        assert requester.ctx.get(requester.mmu.supervisor.status.fault_overflow)
        assert await requester.ask(tables(LINEAR, BASE | A), READ) == OK

    run(test, MmuConfig(fault_depth=2))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("field", "value"), [("control", 0), ("track", OFF), ("root", 0), ("pkru", 0xFFFF_FFFF), ("saved_dirty", 0)]
)
@pytest.mark.parametrize("moment", range(1, 16))
def test_a_context_offered_in_flight_changes_nothing(field: str, value: int, moment: int) -> None:
    """TRACK, SMEP, NXE and the rest are judged as they were when the request was accepted."""
    leaf = BASE | A | ARM | SAVED

    async def test(requester: Requester) -> None:
        words = tables(LINEAR, leaf)
        requester.offer_in_cycle(moment, {field: value})
        state = {"control": WP | NXE | SMEP, "track": FAULT, "saved_dirty": 1}
        assert await requester.ask(words, WRITE, **state) == OK
        assert words[slot(LINEAR, 1)] == (leaf | RW | D | SD) & ~ARM & ~SAVED

    run(test)


@pytest.mark.parametrize(("offered", "outcome"), [({}, OK), ({"control": WP}, PF)])
def test_the_next_request_is_judged_by_it(offered: dict[str, int], outcome: int) -> None:
    async def test(requester: Requester) -> None:
        words = tables(LINEAR, BASE | A)
        requester.offer_in_cycle(3, offered)
        assert await requester.ask(words, READ) == OK
        assert await requester.ask(words, WRITE, tag=8, user=0, keep_context=True) == outcome

    run(test)


def test_without_soft_dirty() -> None:
    mmu_config = MmuConfig(WalkerConfig(soft_dirty=False))

    async def test(requester: Requester) -> None:
        assert not {"marks", "mends"} & set(requester.mmu.signature.members)
        assert not {"track", "saved_dirty"} & set(requester.mmu.contexts.payload.shape().members)
        words = tables(LINEAR, BASE | RW | A)
        assert await requester.ask(words, WRITE) == OK
        assert requester.ctx.get(requester.mmu.delivered_faults) == 0

    run(test, mmu_config)


def test_without_trace() -> None:
    async def test(requester: Requester) -> None:
        assert not {"o_walked", "o_translation"} & set(requester.mmu.signature.members)
        assert await requester.ask(tables(LINEAR, BASE | A), READ) == OK

    run(test, MmuConfig(WalkerConfig(trace=False)))


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"walker": None}, "walker must be a WalkerConfig, not None"),
        ({"walker": WalkerConfig(tag_bits=11)}, "tag_bits of a fault unit must be an integer from 1 to 10, not 11"),
        ({"fault_depth": 0}, "fault_depth must be an integer from 1 to 1024, not 0"),
        ({"fault_depth": 1025}, "fault_depth must be an integer from 1 to 1024, not 1025"),
        ({"fault_depth": "4"}, "fault_depth must be an integer from 1 to 1024, not '4'"),
    ],
)
def test_parameter_errors(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as error:
        MmuConfig(**parameters)
    assert str(error.value) == text
