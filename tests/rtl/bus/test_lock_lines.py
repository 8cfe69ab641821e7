"""The line port on block RAM: no update of a walker, an engine or another device is lost to one of the others."""

from __future__ import annotations

import random
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, connect
from amaranth.sim import Simulator

from ptewalk.rtl.bus.lock import LockRam, LockRamConfig
from ptewalk.rtl.bus.lock_lines import LockLines
from ptewalk.rtl.engine.table_engine import EngineConfig

WORDS = 512
LINE = 0x200


class Top(Component):
    """A RAM, and lines before its plain port."""

    def __init__(self, *, registered: bool, line_bytes: int) -> None:
        self.ram = LockRam(LockRamConfig(physical_bits=32, words=WORDS, registered=registered))
        self.lines = LockLines(EngineConfig(physical_bits=32, lines=2, line_bytes=line_bytes))
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = self.ram
        m.submodules.lines = self.lines
        connect(m, self.lines.words, self.ram.words)
        return m


def run(top: Top, *benches: Any) -> None:
    """All benches at once, each until it ends."""
    simulator = Simulator(top)
    simulator.add_clock(1e-6)
    for bench in benches:
        simulator.add_testbench(bench)
    simulator.run()


async def ask(ctx: Any, stream: Any, payload: dict[str, int]) -> None:
    """Offer it until it is taken."""
    ctx.set(stream.payload, payload)
    ctx.set(stream.valid, 1)
    await ctx.tick().until(stream.ready)
    ctx.set(stream.valid, 0)


async def answer(ctx: Any, stream: Any, limit: int = 500) -> dict[str, int]:
    """What comes next."""
    for _ in range(limit):
        valid, payload = (await ctx.tick().sample(stream.valid, stream.payload))[2:]
        if valid:
            return {str(name): int(payload[name]) for name, _ in payload.shape()}
    raise AssertionError("no answer comes")


class Engine:
    """The side of the line port."""

    def __init__(self, ctx: Any, top: Top, tag: int = 1) -> None:
        self._ctx, self._port, self._tag = ctx, top.lines.lines, tag

    async def read(self, address: int, *, line: bool = True) -> list[int]:
        words, errors, tags = [], 0, set()
        ctx, port = self._ctx, self._port
        ctx.set(port.reads.payload, {"address": address, "line": line, "link": 1, "tag": self._tag})
        ctx.set(port.reads.valid, 1)
        last = 0
        for _ in range(500):
            ready, valid, beat = (await ctx.tick().sample(port.reads.ready, port.data.valid, port.data.payload))[2:]
            if ready:
                ctx.set(port.reads.valid, 0)
            if valid:
                words.append(int(beat.value))
                errors, last = errors | beat.error, beat.last
                tags.add(int(beat.tag))
            if last:
                break
        assert last and tags == {self._tag}
        return [] if errors else words

    async def swap(self, address: int, old: list[int], new: list[int]) -> dict[str, int]:
        for place, (was, becomes) in enumerate(zip(old, new, strict=True)):
            beat = {"address": address, "line": len(old) > 1, "old": was, "new": becomes, "tag": self._tag}
            await ask(self._ctx, self._port.swaps, beat | {"changed": was != becomes, "last": place == len(old) - 1})
        return await answer(self._ctx, self._port.swapped)

    async def write(self, address: int, words: list[int | None]) -> dict[str, int]:
        for place, word in enumerate(words):
            beat = {"address": address, "value": word or 0, "strobes": word is not None}
            await ask(self._ctx, self._port.writes, beat | {"last": place == len(words) - 1})
        return await answer(self._ctx, self._port.written)


@pytest.mark.thorough
@pytest.mark.parametrize("line_bytes", [64, 128])
@pytest.mark.parametrize("registered", [False, True])
def test_no_update_is_lost(registered: bool, line_bytes: int) -> None:
    """Three count in the words of a line, by swaps of words, of the line, and by writes of a byte that is theirs."""
    top = Top(registered=registered, line_bytes=line_bytes)
    words = line_bytes // 8
    rng = random.Random(f"{registered}{line_bytes}")
    counted = [0] * words  # in bits 0 to 31
    written = [0] * words  # in bits 56 to 63
    seen = {"lines": 0, "lines failed": 0, "words": 0, "words failed": 0, "plain": 0}
    running = {"engine"}

    async def engine(ctx: Any) -> None:
        port = Engine(ctx, top)
        while seen["lines"] < 80:
            one = rng.random() < 0.2
            place = rng.randrange(words)
            address = LINE + 8 * place if one else LINE
            old = await port.read(address, line=not one)
            await ctx.tick().repeat(rng.randrange(1, 60))
            which = [one or rng.random() < 0.6 for _ in old]
            told = await port.swap(address, old, [word + which[at] for at, word in enumerate(old)])
            assert not told["error"] and told["tag"] == 1
            seen["lines" if told["done"] else "lines failed"] += 1
            for at, counts in enumerate(which):
                counted[place if one else at] += counts and told["done"]
        running.clear()
        await ctx.tick().repeat(500)  # the others end
        found = [ctx.get(top.ram.ram.data[LINE // 8 + place]) for place in range(words)]
        assert [word & 0xFFFF_FFFF for word in found] == counted
        assert [word >> 56 for word in found] == written

    async def walker(ctx: Any) -> None:
        memory = top.ram.memory
        while running:
            place = rng.randrange(words)
            address = LINE + 8 * place
            await ask(ctx, memory.reads, {"address": address, "id": 0})
            found = await answer(ctx, memory.data)
            await ctx.tick().repeat(rng.randrange(1, 150))
            swap = {"address": address, "old": found["value"], "new": found["value"] + 1, "id": 0}
            await ask(ctx, memory.swaps, swap)
            told = await answer(ctx, memory.swapped)
            seen["words" if told["done"] else "words failed"] += 1
            counted[place] += told["done"]
            await ctx.tick().repeat(rng.randrange(1, 120))

    async def other(ctx: Any) -> None:
        port = top.lines.others
        while running:
            place, byte = rng.randrange(words), rng.randrange(256)
            write = {"address": LINE + 8 * place, "write": 1, "value": byte << 56, "strobes": 0x80}
            await ask(ctx, port.requests, write)
            assert not (await answer(ctx, port.answers))["error"]
            written[place] = byte
            seen["plain"] += 1
            await ctx.tick().repeat(rng.randrange(1, 200))

    run(top, engine, walker, other)
    assert min(seen.values()) > 10, seen


@pytest.mark.thorough
@pytest.mark.parametrize("registered", [False, True])
def test_lines_words_and_reports(registered: bool) -> None:
    """Each kind of access alone, and beyond the RAM."""
    top = Top(registered=registered, line_bytes=64)

    async def bench(ctx: Any) -> None:
        port, beyond = Engine(ctx, top, tag=2), 8 * WORDS
        first = [0x1111 * place for place in range(1, 9)]
        assert await port.write(LINE, [*first]) == {"error": 0}
        assert await port.read(LINE) == first
        assert await port.write(LINE, [None, 7, None, None, None, None, 8, None]) == {"error": 0}
        second = [first[0], 7, *first[2:6], 8, first[7]]
        assert await port.read(LINE) == second
        assert await port.read(LINE + 8, line=False) == [7]
        # Of a swap what did not change is not written, and each word that was read counts.
        third = [0, *second[1:]]
        assert await port.swap(LINE, second, third) == {"done": 1, "error": 0, "tag": 2}
        assert await port.read(LINE) == third
        for place in range(8):
            stale = [word ^ (at == place) for at, word in enumerate(third)]
            assert (await port.swap(LINE, stale, [9, *stale[1:]]))["done"] == 0
        assert await port.read(LINE) == third
        assert await port.swap(LINE + 56, [third[7]], [5]) == {"done": 1, "error": 0, "tag": 2}
        assert await port.swap(LINE + 56, [third[7]], [6]) == {"done": 0, "error": 0, "tag": 2}
        assert await port.read(LINE) == [*third[:7], 5]
        # Beyond the RAM, which wraps for nobody.
        assert await port.read(beyond) == []
        assert (await port.write(beyond, [1] * 8))["error"] == 1
        told = await port.swap(beyond, [0] * 8, [1] * 8)
        assert (told["done"], told["error"]) == (0, 1)
        assert not any(ctx.get(top.ram.ram.data[place]) for place in range(8))

    run(top, bench)
