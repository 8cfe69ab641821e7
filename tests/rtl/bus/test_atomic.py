"""The memory port by AXI5's atomic transactions, against a memory written by hand from the specification."""

import random
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from ptewalk.rtl.bus.atomic import PATIENCE, AtomicPort, AtomicPortConfig
from ptewalk.rtl.bus.rules import AxiRules, broken_rules

from .axi_memory import DECERR, SLVERR, AtomicMemory
from .test_exclusive import read, status_of, swap

WORD = 0x12_3456_7000
OLD, NEW, OTHER = 0x8000_0000_0000_0867, 0x8000_0000_0000_0C67, 0x1234_5678_9ABC_DEF0


def run(job: Any, config: AtomicPortConfig | None = None, **memory: Any) -> tuple[Any, AtomicMemory]:
    """What `job(ctx, port, memory)` gives, and the memory after it; with up to eight IDs no rule of AXI is broken."""
    config = config or AtomicPortConfig()
    top = Module()
    top.submodules.port = port = AtomicPort(config)
    top.submodules.rules = rules = AxiRules(port.m_axi, reads=min(config.ids, 8), writes=min(config.ids, 8))
    below = AtomicMemory(port.m_axi, data_bits=config.data_bits, **memory)
    result = []

    async def bench(ctx: Any) -> None:
        result.append(await job(ctx, port, below))

    async def watch(ctx: Any) -> None:
        while True:
            _, _, broken = await ctx.tick().sample(rules.broken)
            assert not broken, broken_rules(broken)

    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(below.run, background=True)
    if config.ids <= 8:
        simulator.add_testbench(watch, background=True)
    simulator.run()
    return result[0], below


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "latency"), [(64, 1), (64, 40), (128, 4), (256, 1), (512, 16)])
def test_cycles(bits: int, latency: int) -> None:
    """A read L + 1, a swap L + 3, and a cycle more where W has two beats; at every lane of the beat."""
    places = max(2, bits // 64)

    async def job(ctx: Any, port: Any, below: AtomicMemory) -> list[Any]:
        seen = []
        for place in range(places):
            at = WORD + 8 * place
            seen.append(await read(ctx, port, at))
            seen.append(await swap(ctx, port, at, OLD + place, NEW + place))
            seen.append(await swap(ctx, port, at, OLD + place, OTHER))
        return seen

    words = {WORD + 8 * place: OLD + place for place in range(places)}
    seen, below = run(job, AtomicPortConfig(data_bits=bits), words=words, latency=latency)
    cost = latency + 3 + (bits == 64)
    for place in range(places):
        found = (OLD + place, 0, latency + 1)
        assert seen[3 * place : 3 * place + 3] == [found, (1, 0, cost), (0, 0, cost)]
    assert below.words == {WORD + 8 * place: NEW + place for place in range(places)}
    # Neither cacheable nor bufferable, privileged data, no QoS: a word, and 16 bytes that begin at either half.
    beats, size = (1, 3) if bits == 64 else (0, 4)
    assert below.attributes == {(0, 3, 1, 2, 1, 0), (beats, size, 1, 2, 1, 0), (beats, size, 2, 2, 1, 0)}


def test_protection_is_a_parameter() -> None:
    async def job(ctx: Any, port: Any, below: AtomicMemory) -> None:
        await read(ctx, port, WORD)
        assert (await swap(ctx, port, WORD, 0, NEW))[:2] == (1, 0)

    _, below = run(job, AtomicPortConfig(prot=0b110))
    assert {attributes[4] for attributes in below.attributes} == {0b110} and len(below.attributes) == 2


@pytest.mark.parametrize("answer", [SLVERR, DECERR])
@pytest.mark.parametrize("where", ["bad_founds", "bad_writes"])
def test_bus_errors(answer: int, where: str) -> None:
    """Of a read; of a swap, on R or on B: so answers what takes no atomic transactions. Nobody knows what was done."""

    async def job(ctx: Any, port: Any, below: AtomicMemory) -> None:
        assert (await read(ctx, port, WORD))[1] == 1
        assert status_of(ctx, port) == set()
        for at in (WORD + 16, WORD + 8):
            assert (await swap(ctx, port, at, 0, NEW))[:2] == (0, 1)
            assert status_of(ctx, port) == {"outcome_unknown"}
            assert ctx.get(port.unknown_address) == WORD + 16
        ctx.set(port.clear.outcome_unknown, 1)
        await ctx.tick()
        ctx.set(port.clear.outcome_unknown, 0)
        assert status_of(ctx, port) == set()
        assert (await swap(ctx, port, WORD + 8, 0, NEW))[:2] == (0, 1)
        assert ctx.get(port.unknown_address) == WORD + 8
        assert (await swap(ctx, port, WORD + 32, 0, NEW))[:2] == (1, 0)  # the next is for itself

    run(job, bad={WORD: answer}, **{where: {WORD + 8: answer, WORD + 16: answer}})


@pytest.mark.thorough
def test_a_bus_that_does_not_know_atomic_transactions() -> None:
    """B comes, and R never: it is told, and nothing is answered."""

    async def job(ctx: Any, port: Any, below: AtomicMemory) -> None:
        with pytest.raises(AssertionError, match="no answer"):
            await swap(ctx, port, WORD, OLD, NEW)
        assert status_of(ctx, port) == set()
        for _ in range(PATIENCE - 2900):
            await ctx.tick()
        assert status_of(ctx, port) == {"no_monitor"}

    _, below = run(job, words={WORD: OLD}, knows=False)
    assert below.words == {WORD: OLD, WORD + 8: NEW}


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("ids", "bits", "seed", "walkers"),
    [(1, 64, 1, 1), (2, 128, 2, 1), (4, 64, 3, 1), (8, 256, 4, 8), (2, 64, 5, 8), (64, 512, 6, 16)],
)
def test_counters_under_all_conditions(ids: int, bits: int, seed: int, walkers: int) -> None:
    """Four requesters for each walker add to shared words by swaps, on a bus that stalls and mixes answers, R and B.

    A foreign writer adds between. Every addition that was answered `done` is there, and no other.
    """
    rng = random.Random(seed)
    words = [WORD + 8 * place for place in range(max(3, ids))]
    added = dict.fromkeys(words, 0)
    seen = {"done": 0, "not old": 0}

    async def job(ctx: Any, port: Any, below: AtomicMemory) -> None:
        def foreign(address: int) -> None:
            if rng.random() < 0.2:
                below.write(address, below.words[address] + 1)
                added[address] += 1

        below.before_write = foreign
        queue: dict[str, list[dict[str, int]]] = {"reads": [], "swaps": []}
        flight: dict[tuple[str, int], dict[str, int]] = {}
        for identity in range(4 * walkers):
            queue["reads"].append({"address": rng.choice(words), "id": identity})
        memory, total = port.memory, 0
        while total < 200:
            offered = {}
            for kind, stream in (("reads", memory.reads), ("swaps", memory.swaps)):
                ctx.set(stream.valid, bool(queue[kind]))
                if queue[kind]:
                    offered[kind] = queue[kind][0]
                    ctx.set(stream.payload, offered[kind])
            signals = (memory.reads.ready, memory.swaps.ready, *(memory.data.valid, memory.data.payload))
            sampled = await ctx.tick().sample(*signals, memory.swapped.valid, memory.swapped.payload)
            reads_ready, swaps_ready, found, value, swapped, outcome = sampled[2:]
            for kind, ready in (("reads", reads_ready), ("swaps", swaps_ready)):
                if kind in offered and ready:
                    flight[kind, offered[kind]["id"]] = queue[kind].pop(0)
            if found:
                asked = flight.pop(("reads", value["id"]))
                assert not value["error"]
                queue["swaps"].append({**asked, "old": value["value"], "new": value["value"] + 1})
            if swapped:
                asked = flight.pop(("swaps", outcome["id"]))
                assert not outcome["error"]
                added[asked["address"]] += outcome["done"]
                seen["done" if outcome["done"] else "not old"] += 1
                total += 1
                queue["reads"].append({"address": rng.choice(words), "id": asked["id"]})
        assert status_of(ctx, port) == set()

    config = AtomicPortConfig(ids=ids, data_bits=bits, walkers=walkers)
    _, below = run(job, config, words=dict.fromkeys(words, 0), rng=random.Random(seed + 100))
    outstanding = {address: below.words[address] - added[address] for address in words}
    # Swaps in flight at the end may have been made.
    assert all(0 <= count <= 4 * walkers for count in outstanding.values()), outstanding
    assert seen["done"] > 60 and seen["not old"] > 10, seen


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("physical_bits", 31, "physical_bits must be an integer from 32 to 52, not 31"),
        ("data_bits", 32, "data_bits must be 64, 128, 256 or 512, not 32"),
        ("ids", 8, "ids must be 1, 2 or 4, not 8"),
        ("walkers", 17, "walkers must be an integer from 1 to 16, not 17"),
        ("prot", 8, "prot must be an integer from 0 to 7, not 8"),
    ],
)
def test_wrong_parameters(field: str, value: int, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        AtomicPortConfig(**{field: value})
    assert str(raised.value) == text
