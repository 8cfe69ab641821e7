"""The memory port on AXI4, against a memory whose monitor is written by hand from A2 to A5 of the plan's rules."""

import random
from itertools import pairwise
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bus.exclusive import ExclusivePort, ExclusivePortConfig

from .axi_memory import DECERR, EXOKAY, OKAY, SLVERR, AxiMemory

WORD = 0x12_3456_7008
OLD, NEW, OTHER = 0x8000_0000_0000_0867, 0x8000_0000_0000_0C67, 0x1234_5678_9ABC_DEF0


def run(job: Any, config: ExclusivePortConfig | None = None, **memory: Any) -> tuple[Any, AxiMemory]:
    """What `job(ctx, port, memory)` gives, and the memory after it."""
    config = config or ExclusivePortConfig()
    port = ExclusivePort(config)
    below = AxiMemory(port.m_axi, data_bits=config.data_bits, **memory)
    result = []

    async def bench(ctx: Any) -> None:
        result.append(await job(ctx, port, below))

    simulator = Simulator(port)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.add_testbench(below.run, background=True)
    simulator.run()
    return result[0], below


async def transfer(ctx: Any, stream: Any, answers: Any, payload: dict[str, int], limit: int = 3000) -> Any:
    """Offer until it is taken; the answer, and its cycles from the acceptance."""
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    cycles = None
    for _ in range(limit):
        _, _, ready, valid, answer = await ctx.tick().sample(stream.ready, answers.valid, answers.payload)
        if cycles is not None:
            cycles += 1
            if valid:
                return answer, cycles
        elif ready:
            cycles = 0
            ctx.set(stream.valid, 0)
    raise AssertionError("no answer")


async def read(ctx: Any, port: Any, address: int, identity: int = 0) -> tuple[int, int, int]:
    """(value, error, cycles)."""
    payload = {"address": address, "id": identity}
    answer, cycles = await transfer(ctx, port.memory.reads, port.memory.data, payload)
    assert answer["id"] == identity
    return answer["value"], answer["error"], cycles


async def swap(ctx: Any, port: Any, address: int, old: int, new: int, identity: int = 0) -> tuple[int, int, int]:
    """(done, error, cycles)."""
    payload = {"address": address, "old": old, "new": new, "id": identity}
    answer, cycles = await transfer(ctx, port.memory.swaps, port.memory.swapped, payload)
    assert answer["id"] == identity
    return answer["done"], answer["error"], cycles


def status_of(ctx: Any, port: Any) -> set[str]:
    """The bits of the status that are up."""
    return {name for name in ("no_monitor", "retry_limit", "outcome_unknown") if ctx.get(port.status[name])}


@pytest.mark.thorough
@pytest.mark.parametrize(("bits", "latency"), [(64, 1), (64, 40), (128, 4), (256, 1), (512, 16)])
def test_cycles(bits: int, latency: int) -> None:
    """A read L + 1, a linked swap at most L + 3, another 2L + 4; at every lane of the beat."""

    async def job(ctx: Any, port: Any, below: AxiMemory) -> list[Any]:
        seen = []
        for place in range(bits // 64):
            at = WORD + 8 * place
            seen.append(await read(ctx, port, at))
            seen.append(await swap(ctx, port, at, OLD + place, NEW + place))
            seen.append(await swap(ctx, port, at, NEW + place, OTHER + place))
            seen.append(await swap(ctx, port, at, NEW + place, OLD))
        return seen

    words = {WORD + 8 * place: OLD + place for place in range(bits // 64)}
    seen, below = run(job, ExclusivePortConfig(data_bits=bits), words=words, latency=latency)
    for place in range(bits // 64):
        assert seen[4 * place : 4 * place + 4] == [
            (OLD + place, 0, latency + 1),
            (1, 0, latency + 3),
            (1, 0, 2 * latency + 4),
            (0, 0, latency + 3),  # read, and not written
        ]
        assert below.words[WORD + 8 * place] == OTHER + place
    # A beat, eight bytes, INCR, neither cacheable nor bufferable, privileged data, no QoS.
    assert below.attributes == {(0, 3, 1, 2, 1, 0)}


def test_protection_is_a_parameter() -> None:
    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        await read(ctx, port, WORD)
        assert (await swap(ctx, port, WORD, 0, NEW))[:2] == (1, 0)

    _, below = run(job, ExclusivePortConfig(prot=0b110))
    assert len(below.log) == 2 and below.attributes == {(0, 3, 1, 2, 0b110, 0)}


def test_a_link_saves_the_read_and_an_unused_one_costs_nothing() -> None:
    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        await read(ctx, port, WORD)
        await read(ctx, port, WORD + 8)  # takes the reservation over
        assert (await swap(ctx, port, WORD + 8, 0, NEW))[:2] == (1, 0)
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (1, 0)

    _, below = run(job, words={WORD: OLD})
    assert [(kind, address) for kind, address, _, _ in below.log] == [
        ("read", WORD),
        ("read", WORD + 8),
        ("write", WORD + 8),
        ("read", WORD),
        ("write", WORD),
    ]


def test_a_link_is_of_its_address() -> None:
    """The word that was read has the same value: the reservation is of another all the same."""

    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        await read(ctx, port, WORD)
        assert (await swap(ctx, port, WORD + 8, OLD, NEW))[:2] == (1, 0)

    _, below = run(job, words={WORD: OLD, WORD + 8: OLD})
    assert [(kind, address) for kind, address, _, _ in below.log] == [
        ("read", WORD),
        ("read", WORD + 8),
        ("write", WORD + 8),
    ]
    assert below.words == {WORD: OLD, WORD + 8: NEW}


def test_without_link_reads_are_plain() -> None:
    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        assert await read(ctx, port, WORD) == (OLD, 0, 2)
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (1, 0)

    _, below = run(job, ExclusivePortConfig(link=False), words={WORD: OLD})
    assert [(kind, lock, answer) for kind, _, lock, answer in below.log] == [
        ("read", False, OKAY),
        ("read", True, EXOKAY),
        ("write", True, EXOKAY),
    ]


def test_a_link_that_is_stale_is_not_believed() -> None:
    """Another writes between read and swap: what is compared is read anew, and `done` 0 is said of that."""

    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        await read(ctx, port, WORD)
        below.write(WORD, OTHER)
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (0, 0)
        assert below.words[WORD] == OTHER
        # The word is what the swap wants, and not what the link says.
        await read(ctx, port, WORD)
        below.write(WORD, OLD)
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (1, 0)
        assert below.words[WORD] == NEW

    run(job, words={WORD: OLD})


@pytest.mark.thorough
@pytest.mark.parametrize("failures", [1, 2, 63])
def test_a_reservation_that_goes_is_taken_again(failures: int) -> None:
    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (1, 0)
        assert status_of(ctx, port) == set()

    _, below = run(job, words={WORD: OLD}, fail=failures)
    assert [answer for kind, _, _, answer in below.log if kind == "write"] == [OKAY] * failures + [EXOKAY]
    assert below.words[WORD] == NEW


def test_retry_limit() -> None:
    """64 exclusive writes of a swap, then it is an error, and nothing was written."""

    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        done, error, cycles = await swap(ctx, port, WORD, OLD, NEW)
        assert (done, error) == (0, 1) and cycles < 64 * 24
        assert status_of(ctx, port) == {"retry_limit"}
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (1, 0)  # the next swap counts anew
        assert status_of(ctx, port) == {"retry_limit"}
        ctx.set(port.clear.retry_limit, 1)
        await ctx.tick()
        assert status_of(ctx, port) == set()

    _, below = run(job, words={WORD: OLD}, fail=64)
    assert [answer for kind, _, _, answer in below.log if kind == "write"] == [OKAY] * 64 + [EXOKAY]


@pytest.mark.parametrize("refusals", [1, 15, 16])
def test_a_refused_read_is_tried_again(refusals: int) -> None:
    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (1, 0)
        assert status_of(ctx, port) == set()

    _, below = run(job, words={WORD: OLD}, refuse=refusals)
    assert [answer for kind, _, _, answer in below.log] == [OKAY] * refusals + [EXOKAY, EXOKAY]


def test_no_monitor() -> None:
    """The 17th refusal: an error with nothing written; a word that is not `old` needs no monitor."""

    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        assert (await swap(ctx, port, WORD, OTHER, NEW))[:2] == (0, 0)
        assert len(below.log) == 1
        done, error, _ = await swap(ctx, port, WORD, OLD, NEW)
        assert (done, error) == (0, 1)
        assert status_of(ctx, port) == {"no_monitor"}
        assert len(below.log) == 1 + 17
        assert await read(ctx, port, WORD) == (OLD, 0, 2)  # reads need none either

    _, below = run(job, words={WORD: OLD}, refuse=10**6)
    assert {kind for kind, *_ in below.log} == {"read"}


def test_tries_are_spread() -> None:
    """A refused read waits 0 to 15 cycles at random, a failed write from the second failure on."""

    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (1, 0)

    _, below = run(job, words={WORD: OLD}, refuse=16)
    gaps = [after - before for before, after in pairwise(below.taken[:17])]
    assert len(set(gaps)) >= 6 and max(gaps) - min(gaps) <= 15, gaps

    _, below = run(job, words={WORD: OLD}, fail=63)
    kinds = [kind for kind, *_ in below.log]
    assert kinds == ["read", "write"] * 64
    first, *later = [after - before for before, after in zip(below.taken[1::2], below.taken[2::2], strict=False)]
    assert len(later) == 62 and len(set(later)) >= 12 and min(later) > first and max(later) <= first + 16, later


def test_a_status_that_is_raised_as_it_is_cleared_is_raised() -> None:
    """One that is up is cleared so many cycles after the swap that raises it anew was taken."""
    swaps = 12

    async def job(ctx: Any, port: Any, below: AxiMemory) -> list[tuple[bool, bool]]:
        seen = []
        for number in range(swaps):
            assert (await swap(ctx, port, WORD, 0, NEW))[:2] == (0, 1)
            assert status_of(ctx, port) == {"outcome_unknown"} and ctx.get(port.unknown_address) == WORD
            ctx.set(port.memory.swaps.payload, {"address": WORD + 8, "old": 0, "new": NEW, "id": 0})
            ctx.set(port.memory.swaps.valid, 1)
            await ctx.tick().until(port.memory.swaps.ready)
            ctx.set(port.memory.swaps.valid, 0)
            for cycle in range(swaps):
                ctx.set(port.clear.outcome_unknown, cycle == number)
                await ctx.tick()
            ctx.set(port.clear.outcome_unknown, 0)
            up = status_of(ctx, port) == {"outcome_unknown"}
            seen.append((up, ctx.get(port.unknown_address) == WORD + 8))
            ctx.set(port.clear.outcome_unknown, 1)
            await ctx.tick()
            ctx.set(port.clear.outcome_unknown, 0)
        return seen

    seen, _ = run(job, bad_writes={WORD: SLVERR, WORD + 8: DECERR})
    raised = seen.index((False, False))
    assert seen == [(True, True)] * raised + [(False, False)] * (swaps - raised) and raised >= 3, seen


@pytest.mark.parametrize("answer", [SLVERR, DECERR])
def test_bus_errors(answer: int) -> None:
    """Of a read; of a swap's read, with nothing written; of its write, where the outcome is not known."""

    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        assert (await read(ctx, port, WORD))[1] == 1
        assert (await swap(ctx, port, WORD, OLD, NEW))[:2] == (0, 1)
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

    _, below = run(job, bad={WORD: answer}, bad_writes={WORD + 8: answer, WORD + 16: answer})
    assert ("write", WORD, True, answer) not in below.log


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("ids", "bits", "seed", "walkers"),
    [(1, 64, 1, 1), (2, 128, 2, 1), (4, 64, 3, 1), (8, 128, 4, 8), (2, 64, 5, 8), (64, 64, 6, 16)],
)
def test_counters_under_all_conditions(ids: int, bits: int, seed: int, walkers: int) -> None:
    """Four requesters for each walker, each adding to shared words by swaps, on a bus that stalls and mixes answers.

    A foreign writer ends reservations between. Every addition that was answered `done` is there, and no other.
    """
    rng = random.Random(seed)
    words = [WORD + 8 * place for place in range(max(3, ids))]
    added = dict.fromkeys(words, 0)
    seen = {"done": 0, "not old": 0}

    async def job(ctx: Any, port: Any, below: AxiMemory) -> None:
        def foreign(address: int) -> None:
            if rng.random() < 0.2:
                below.write(address, below.words[address] + 1)
                added[address] += 1

        below.before_write = foreign
        queue: dict[str, list[dict[str, int]]] = {"reads": [], "swaps": []}
        flight: dict[tuple[str, int], dict[str, int]] = {}
        for identity in range(4 * walkers):
            queue["reads"].append({"address": rng.choice(words), "id": identity})
        memory = port.memory
        total = 0
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

    config = ExclusivePortConfig(exclusive_ids=ids, data_bits=bits, walkers=walkers)
    start = dict.fromkeys(words, 0)
    _, below = run(job, config, words=start, rng=random.Random(seed + 100))
    outstanding = {address: below.words[address] - added[address] for address in words}
    # Swaps in flight at the end may have been made.
    assert all(0 <= count <= 4 * walkers for count in outstanding.values()), outstanding
    assert seen["done"] > 60 and seen["not old"] > 10, seen


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("physical_bits", 31, "physical_bits must be an integer from 32 to 52, not 31"),
        ("data_bits", 32, "data_bits must be 64, 128, 256 or 512, not 32"),
        ("exclusive_ids", 3, "exclusive_ids must be 1, 2 or 4, not 3"),
        ("exclusive_ids", 8, "exclusive_ids must be 1, 2 or 4, not 8"),
        ("walkers", 17, "walkers must be an integer from 1 to 16, not 17"),
        ("link", 1, "link must be True or False, not 1"),
        ("prot", 8, "prot must be an integer from 0 to 7, not 8"),
    ],
)
def test_wrong_parameters(field: str, value: int, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        ExclusivePortConfig(**{field: value})  # type: ignore[arg-type]
    assert str(raised.value) == text
