"""Page tables made, cleared and read by the driver, in the memory of a unit."""

from typing import Any

import pytest

from ptewalk.cosim.driver.simulated import AmaranthRegisters
from ptewalk.cosim.driver.steps import DriverError, run_async
from ptewalk.cosim.driver.table_engine import TableEngine
from ptewalk.cosim.driver.tables import AddressSpace
from ptewalk.cosim.driver.unit import Unit
from ptewalk.model.engine import Pages
from ptewalk.model.linux import PagemapBit, Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access, Outcome
from ptewalk.rtl.engine.table_engine import EngineConfig

from .unit_bench import OnRam, simulate

BASE = 0x7F00_0000_6000
ENGINE = EngineConfig(lines=2, line_bytes=64)
ROOM_BYTES = 64 + 8
"""Of a line and a word: four pages from place 6 of a line on need two reports."""
PRESENT, DIRTY = 1 << PagemapBit.PRESENT, 1 << PagemapBit.SOFT_DIRTY


@pytest.mark.thorough
@pytest.mark.parametrize("engine", [None, ENGINE], ids=["words", "engine"])
@pytest.mark.parametrize("track", [Track.NATIVE, Track.FAULT, Track.OFF])
def test_an_epoch(track: Track, engine: EngineConfig | None) -> None:
    """Map, store, clear, store, report: only what was stored to after the clear; without tracking the store faults."""

    async def body(ctx: Any, bus: AmaranthRegisters, top: OnRam) -> None:
        async def do(steps: Any) -> Any:
            return await run_async(bus, steps)

        # Tables at frames 1 to 4, already empty; pages 8 to 10.
        unit = await do(Unit.open())
        room = range(0x7000, 0x7000 + ROOM_BYTES)
        space = AddressSpace(unit, iter(range(0x1000, 0x5000, 0x1000)), zeroed=True, track=track, room=room)
        await do(space.create())
        for number in range(3):
            await do(space.map(BASE + 0x1000 * number, 0x8000 + 0x1000 * number, write=number < 2))
        with pytest.raises(DriverError, match="0x7f0000006000 is mapped already"):
            await do(space.map(BASE, 0x9000))
        with pytest.raises(DriverError, match="no frame is free for a table"):
            await do(space.map(0, 0x9000))
        await do(space.enter())
        for number in range(2):
            assert (await do(unit.store(BASE + 0x1000 * number + 8, number))).outcome == Outcome.OK
        frames = [PRESENT | 8 + number for number in range(3)]
        if track != Track.OFF:
            reported = await do(space.pagemap(BASE, 4))
            assert reported == [frames[0] | DIRTY, frames[1] | DIRTY, frames[2], 0]
        assert await do(space.clear(BASE, 4)) == 2  # one was neither written nor writable, one is no page
        assert await do(space.pagemap(BASE, 4)) == [*frames, 0]
        assert (await do(unit.load(BASE + 8)))[1] == 0
        again = await do(unit.store(BASE + 0x1000 + 8, 7))
        if track == Track.OFF:
            assert (again.outcome, again.code) == (Outcome.PAGE_FAULT, 0b111)
            assert (await do(unit.pop_fault())).linear == BASE + 0x1008
        else:
            assert again.outcome == Outcome.OK
            assert await do(space.pagemap(BASE, 4)) == [frames[0], frames[1] | DIRTY, frames[2], 0]
            assert await do(unit.load(BASE + 0x1008)) == (again, 7)
        old = await do(space.unmap(BASE + 0x1000))
        assert old >> 12 & 0xFF == 9
        assert (await do(unit.translate(BASE + 0x1008, Access.READ))).outcome == Outcome.PAGE_FAULT
        assert await do(space.unmap(BASE + 0x1000)) == 0
        assert await do(space.unmap(0)) == 0
        counted = await do(unit.counters())
        assert counted["marks"] == {Track.OFF: 0, Track.FAULT: 3, Track.NATIVE: 3}[track]
        assert counted["mends"] == (1 if track == Track.FAULT else 0)
        written = [word for word in range(0x7000 // 8, 0x8000 // 8) if ctx.get(top.ram.ram.data[word])]
        assert (len(written) > 0) == (engine is not None)  # words were the engine's
        assert all(0x7000 <= 8 * word < 0x7000 + ROOM_BYTES for word in written)

    simulate(body, engine=engine)


def test_room_for_pagemap_words() -> None:
    async def body(ctx: Any, bus: AmaranthRegisters, top: OnRam) -> None:
        unit = await run_async(bus, Unit.open())
        space = AddressSpace(unit, iter((0x1000,)), zeroed=True, room=range(0x7000, 0x7030))
        await run_async(bus, space.create())
        with pytest.raises(ValueError) as raised:
            await run_async(bus, space.pagemap(BASE, 1))
        assert str(raised.value) == "room for pagemap words must have 8 bytes and a line, not 48 bytes"

    simulate(body, engine=ENGINE)


@pytest.mark.thorough
def test_a_bitmap_by_the_engine() -> None:
    """A bit a page, in words from the 64th on; a look changes nothing, a scan clears, and stores mark anew after it."""

    async def body(ctx: Any, bus: AmaranthRegisters, top: OnRam) -> None:
        async def do(steps: Any) -> Any:
            return await run_async(bus, steps)

        unit = await do(Unit.open())
        space = AddressSpace(unit, iter(range(0x1000, 0x5000, 0x1000)), zeroed=True)
        await do(space.create())
        engine, rules = TableEngine(unit), Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
        mapped = (0, 3, 58, 60, 63, 64)  # of 70 pages
        for number, page in enumerate(mapped):
            await do(space.map(BASE + 0x1000 * page, 0x8000 + 0x1000 * number))
        await do(space.enter())
        first = (BASE >> 12) % (1 << 36) & ~63
        offset = BASE >> 12 & 63
        span = Pages(space.root >> 12, 4, first, first + offset + 70)
        count = (offset + 70 + 63) // 64
        for place in range(count + 1):
            await do(unit.write_word(0x7008 + 8 * place, 0xAAAA))  # is lost, and what is behind stays

        async def dirty() -> set[int]:
            words = [await do(unit.read_word(0x7008 + 8 * place)) for place in range(count + 1)]
            assert words.pop() == 0xAAAA
            bits = sum(word << 64 * place for place, word in enumerate(words))
            assert not bits & (1 << offset) - 1 and not bits >> offset + 70
            return {page for page in range(70) if bits >> offset + page & 1}

        assert await do(engine.scan(span, rules, 0x7008)) == 0
        assert await dirty() == set()
        for page in (3, 58, 63, 64):
            await do(unit.store(BASE + 0x1000 * page, 1))
        for _ in range(2):
            assert await do(engine.scan(span, rules, 0x7008, clears=False)) == 0
            assert await dirty() == {3, 58, 63, 64}
        assert await do(engine.scan(span, rules, 0x7008)) == 4
        assert await dirty() == {3, 58, 63, 64}
        await do(unit.store(BASE + 0x1000 * 64, 2))
        assert await do(engine.scan(span, rules, 0x7008)) == 1
        assert await dirty() == {64}
        for wrong in ((span._replace(first=first + 1), 0x7008), (span, 0x7004)):
            with pytest.raises(ValueError, match="a bitmap is from a multiple of 64 pages on, and 8-byte aligned"):
                await do(engine.scan(wrong[0], rules, wrong[1]))
        # Bits stay, and are set for the first of the pages alone that a bit tells of; and the next commands' are none.
        for page in (0, 60):
            await do(unit.store(BASE + 0x1000 * page, 1))
        await do(unit.write_word(0x7010, 0xAAAA))
        large = span._replace(first=first + offset)
        assert await do(engine.scan(large, rules, 0x7010, or_=True, page_size=0x4000, clears=False)) == 0
        bits = {first + offset + page >> 2 & 63 for page in (0, 60)}
        assert await do(unit.read_word(0x7010)) == 0xAAAA | sum(1 << bit for bit in bits)
        assert await do(engine.scan(span, rules, 0x7008)) == 2
        assert await dirty() == {0, 60}
        text = "a bitmap is from a multiple of 512 pages on, and 8-byte aligned, not from page"
        with pytest.raises(ValueError, match=text):
            await do(engine.scan(span._replace(first=first + 64), rules, 0x7008, page_size=0x8000))
        for size in (0, 0x1800, 0x800, 0x40_0000):
            with pytest.raises(ValueError) as raised:
                await do(engine.scan(span, rules, 0x7008, page_size=size))
            assert str(raised.value) == f"page_size must be a power of two from 4096 to 2097152, not {size}"
        older = TableEngine(Unit(unit.built | {"bitmaps": 0}))
        for how in ({"or_": True}, {"page_size": 0x20_0000}):
            with pytest.raises(ValueError) as raised:
                await do(older.scan(span._replace(first=0), rules, 0x7008, **how))
            assert str(raised.value) == "this unit writes bitmaps of a bit a page over what is there: CAPS.bitmaps is 0"

    simulate(body, engine=ENGINE)
