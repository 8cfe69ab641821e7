"""The memory port on block RAM, against a dictionary."""

import random
from typing import Any

import pytest
from amaranth.sim import Simulator

from ptewalk.rtl.bus.lock import LockRam, LockRamConfig

WORDS = 512


@pytest.mark.thorough
@pytest.mark.parametrize("latency", [1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_against_a_dictionary(seed: int, latency: int) -> None:
    """All three at once, on a few words and beyond the end: each answer after L cycles, in the order of acceptance."""
    ram = LockRam(LockRamConfig(words=WORDS, registered=latency == 3))
    rng = random.Random(seed)
    addresses = [0, 8, 0x200, 8 * (WORDS - 1), 8 * WORDS, 1 << 39]
    seen = {"done": 0, "not old": 0, "beyond": 0, "written": 0, "words held back": 0, "together": 0}

    async def bench(ctx: Any) -> None:
        memory = dict.fromkeys(addresses[:4], 0)
        expected: list[list[tuple[str, dict[str, int]]]] = [[] for _ in range(latency)]  # by the cycle they are due in
        offers: dict[str, dict[str, int]] = {}
        streams = {"reads": ram.memory.reads, "swaps": ram.memory.swaps, "words": ram.words.requests}
        answers = {"reads": ram.memory.data, "swaps": ram.memory.swapped, "words": ram.words.answers}
        waited = 0
        for _ in range(1500):
            for kind, stream in streams.items():
                if kind not in offers and rng.random() < 0.4:
                    address = rng.choice(addresses)
                    offer = {"address": address, "id": rng.randrange(4)}
                    if kind == "swaps":
                        old = memory.get(address, 0) if rng.random() < 0.6 else rng.getrandbits(64)
                        offer |= {"old": old, "new": rng.getrandbits(64)}
                    if kind == "words":
                        del offer["id"]
                        offer |= {
                            "write": rng.randrange(2),
                            "value": rng.getrandbits(64),
                            "strobes": rng.getrandbits(8),
                        }
                    offers[kind] = offer
                    ctx.set(stream.payload, offer)
                ctx.set(stream.valid, kind in offers)
            seen["together"] += len(offers) == 3
            readies = [streams[kind].ready for kind in streams]
            outputs = [signal for kind in answers for signal in (answers[kind].valid, answers[kind].payload)]
            now = expected.pop(0)
            later: list[tuple[str, dict[str, int]]] = []
            sampled = (await ctx.tick().sample(*readies, *outputs))[2:]
            for place, kind in enumerate(streams):
                valid, payload = sampled[3 + 2 * place : 5 + 2 * place]
                due = [answer for who, answer in now if who == kind]
                assert valid == bool(due), kind
                if due:
                    assert {name: int(payload[name]) for name in due[0]} == due[0]
            taken = [kind for place, kind in enumerate(streams) if sampled[place] and kind in offers]
            assert len(taken) <= 1
            waited = waited + 1 if "words" in offers and "words" not in taken else 0
            seen["words held back"] += waited > 0
            assert waited <= 1 + latency, "words waits for one other access at most, a swap's cycles"
            for kind in taken:
                offer = offers.pop(kind)
                address = offer["address"]
                beyond = address not in memory
                value = memory.get(address, 0)
                seen["beyond"] += beyond
                answer = {"error": int(beyond)} | ({"id": offer["id"]} if "id" in offer else {})
                if kind == "swaps":
                    done = not beyond and offer["old"] == value
                    seen["done" if done else "not old"] += 1
                    answer["done"] = int(done)
                    if done:
                        memory[address] = offer["new"]
                elif not beyond:
                    answer["value"] = value
                if kind == "words" and offer["write"] and not beyond:
                    mask = sum(0xFF << 8 * byte for byte in range(8) if offer["strobes"] >> byte & 1)
                    memory[address] = value & ~mask | offer["value"] & mask
                    seen["written"] += 1
                later.append((kind, answer))
            expected.append(later)
        await ctx.tick().repeat(latency)
        assert [ctx.get(ram.ram.data[address // 8]) for address in memory] == list(memory.values())

    simulator = Simulator(ram)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert min(seen.values()) > 20, seen


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("physical_bits", 53, "physical_bits must be an integer from 32 to 52, not 53"),
        ("words", 513, "words must be a power of two from 512 to 1048576, not 513"),
        ("words", 256, "words must be a power of two from 512 to 1048576, not 256"),
        ("registered", 2, "registered must be True or False, not 2"),
    ],
)
def test_wrong_parameters(field: str, value: int, text: str) -> None:
    with pytest.raises(ValueError) as raised:
        LockRamConfig(**{field: value})
    assert str(raised.value) == text
