"""In-simulator side of test_tables_on_axi.py: a unit with a table engine, between manager and memory."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import cocotb
import numpy as np
from bench import start

from ptewalk.cosim.driver.engine_masks import clearing
from ptewalk.cosim.driver.steps import Steps, run_async
from ptewalk.cosim.driver.sweep import Sweep
from ptewalk.cosim.driver.table_engine import TableEngine, changing, regions_of
from ptewalk.cosim.driver.tables import AddressSpace
from ptewalk.cosim.driver.unit import Unit
from ptewalk.cosim.simulate.run import Job
from ptewalk.model.dirty_bitmap import dirty_bitmap
from ptewalk.model.engine import Pages
from ptewalk.model.linux import PagemapBit, SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, Translated, translate
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries
from ptewalk.model.x86 import Access, Outcome
from ptewalk.rtl.engine.fetcher import Stop

ROOT, UPPER, MIDDLE, TABLES, DATA, ROOM = 0x1000, 0x2000, 0x3000, (0x4000, 0x5000), 0x8000, 0xA000
FIRST, LAST = 500, 540
"""Pages: the end of one table, and the beginning of the next."""
AWAY = 700
"""To which they are moved, and back."""
SIZE = 1 << 16
SOFT_DIRTY = 1 << SoftBit.SOFT_DIRTY


class Golden:
    """Words of the golden memory as the driver's: nothing of it takes time."""

    def __init__(self, memory: SparseMemory) -> None:
        self._memory = memory

    def read_word(self, address: int) -> Steps[int]:
        return self._memory.load(address)
        yield

    def swap_word(self, address: int, old: int, new: int) -> Steps[bool]:
        if self._memory.load(address) != old:
            return False
        self._memory.store(address, new)
        return True
        yield

    def write_word(self, address: int, value: int) -> Steps[int]:
        old = self._memory.load(address)
        self._memory.store(address, value)
        return old
        yield


def at_once(steps: Steps[Any]) -> Any:
    """What steps return that do nothing."""
    try:
        next(steps)
    except StopIteration as end:
        return end.value
    raise AssertionError("a step was taken")


@cocotb.test()
async def by_registers_alone(dut: Any) -> None:
    """Stores, and what /proc and mremap do, by registers; `Sweep` and the golden model do the same on their memory.

    Publishes what was compared, what differed, and how many accesses there were.
    """
    job = Job.current()
    rng = random.Random(job.values["seed"])
    bus, memory = await start(dut, rng, size=SIZE)

    async def do(steps: Any) -> Any:
        return await run_async(bus, steps)

    unit = await do(Unit.open(scratch=SIZE - 2048))
    engine = TableEngine(unit)
    space = AddressSpace(unit, iter(()), pcid=5)
    space.root = ROOT
    golden = SparseMemory()
    rules = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
    state = State(root=ROOT, track=Track.NATIVE, pcid=5)

    words = {ROOT: UPPER | 7, UPPER: MIDDLE | 7, MIDDLE: TABLES[0] | 7, MIDDLE + 8: TABLES[1] | 7}
    for page in range(FIRST, LAST):
        kind = rng.random()
        if kind < 0.7:
            words[TABLES[page // 512] + 8 * (page % 512)] = DATA + 0x1000 * (page % 4) | (7 if page % 3 else 5)
        elif kind < 0.85:  # a page that was swapped out, soft-dirty
            words[TABLES[page // 512] + 8 * (page % 512)] = 0x7FFF_0000_0000_0002 | page << 20
    for address, value in words.items():
        golden.store(address, value)
        memory.write(address, value.to_bytes(8, "little"))
    await do(unit.context(ROOT, track=Track.NATIVE, pcid=5))

    differ: list[str] = []
    counts: Counter[str] = Counter()
    base, marks = FIRST, 0  # where the pages are
    stay = 0  # bitmaps in which bits were set

    def span() -> Pages:
        first = base + rng.randrange(LAST - FIRST)
        return Pages(ROOT >> 12, 4, first, first + 1 + rng.randrange(base + LAST - FIRST - first))

    def compare(number: int, what: str, found: Any, expected: Any) -> None:
        counts[what] += 1
        if found != expected:
            differ.append(f"{number}: {what}: {found}, not {expected}")

    for number in range(job.values["count"]):
        what = rng.choices(("store", "clear", "old", "words", "move", "bitmap"), (10, 4, 1, 3, 1, 3))[0]
        if what == "store":
            access = rng.choice((Access.READ, Access.WRITE, Access.WRITE))
            page = base + rng.randrange(LAST - FIRST)
            linear, entry = page << 12 | rng.randrange(512) << 3, TABLES[page // 512] + 8 * (page % 512)
            before = golden.load(entry)
            expected = translate(golden, state, Request(linear, access, user=True))
            marks += bool(~before & golden.load(entry) & SOFT_DIRTY)
            found = await do(unit.translate(linear, access))
            compare(number, what, found.outcome == Outcome.OK, isinstance(expected, Translated))
            if found.outcome == Outcome.PAGE_FAULT:
                await do(unit.pop_fault())
        elif what in ("clear", "old"):
            pages = span()
            sweep = Sweep(Golden(golden), pages)  # type: ignore[arg-type]
            stopped, changed = at_once(sweep.clear(rules) if what == "clear" else sweep.make_old())
            if what == "clear" and rng.random() < 0.5:
                found = await do(space.clear(pages.first << 12, pages.last - pages.first))
                compare(number, "clear of a space", found, len(changed))
                continue
            steps = engine.clear if what == "clear" else engine.make_old
            compare(number, what, await do(steps(pages, rules, pcid=5)), (stopped, len(changed)))
        elif what == "bitmap":
            # Of both tables, or of some pages by OR: what the golden model's words were, and what is there stays.
            ors, power, clears = rng.random() < 0.7, rng.choice((0, 0, 1, 4, 6, 9)), rng.random() < 0.7
            pages = span() if ors else Pages(ROOT >> 12, 4, 0, 1024)
            sweep = Sweep(Golden(golden), pages)  # type: ignore[arg-type]
            dirty = (at_once(sweep.words(rules)) >> np.uint64(PagemapBit.SOFT_DIRTY) & np.uint64(1)).astype(np.bool_)
            changed = len(at_once(sweep.clear(rules))[1]) if clears else 0
            length = 8 * len(dirty_bitmap(dirty, pages.first, unit=power))
            there = np.frombuffer(memory.read(ROOM - 8, length + 16), np.uint64)
            due = dirty_bitmap(dirty, pages.first, unit=power, there=there[1:-1] if ors else None)
            how = {"or_": ors, "page_size": 0x1000 << power, "clears": clears, "pcid": 5}
            compare(number, what, await do(engine.scan(pages, rules, ROOM, **how)), changed)
            told = memory.read(ROOM - 8, length + 16)
            compare(number, "bits", told, there[:1].tobytes() + due.tobytes() + there[-1:].tobytes())
            stay += ors and bool(there[1:-1].any())
        elif what == "words":
            pages = span()
            expected = at_once(Sweep(Golden(golden), pages).words(rules))  # type: ignore[arg-type]
            at = await do(engine.words(pages, rules, ROOM, pcid=5))
            told = memory.read(at, 8 * len(expected))
            compare(number, what, told, expected.tobytes())
        else:
            pages, target = Pages(ROOT >> 12, 4, base, base + LAST - FIRST), AWAY + FIRST - base
            how = {"marks": True, "unprotects": False}
            moved = at_once(Sweep(Golden(golden), pages).move(target, 1, rules, **how))  # type: ignore[arg-type]
            compare(number, what, await do(engine.move(pages, target, 1, rules, pcid=5, **how)), moved)
            base = target
    # What was written is told and write-protected, in one pass each; the second finds nothing more.
    taken = []
    for _ in range(2):
        pages = Pages(ROOT >> 12, 4, base + 3, base + LAST - FIRST)
        words, changed = at_once(Sweep(Golden(golden), pages).take_written(rules))  # type: ignore[arg-type]
        at, count = await do(engine.take_written(pages, rules, ROOM, pcid=5))
        compare(-1, "written", (count, memory.read(at, 8 * len(words))), (len(changed), words.tobytes()))
        taken.append(sum(pages for _, pages in regions_of(words, pages.first)))
    await do(unit.drain())
    for address in range(ROOT, TABLES[1] + 0x1000, 8):
        if int.from_bytes(memory.read(address, 8), "little") != golden.load(address):
            differ.append(f"word {address:#x}: {memory.read(address, 8)[::-1].hex()}, not {golden.load(address):x}")
    # A command that is told to stop says where it did, and is not in force for what lies behind.
    await do(engine.begin(changing(Pages(ROOT >> 12, 4, 0, 1024), clearing(rules), rules), pcid=5))
    await do(engine.abort())
    (aborted,) = await do(engine.end())
    job.publish(
        {
            "built": dict(unit.built),
            "differ": differ,
            "counters": await do(unit.counters()),
            "status": await do(unit.status()),
            "aborted": [aborted["stopped"] == Stop.ABORTED, aborted["page"]],
            "accesses": bus.accesses,
            "counts": dict(counts),
            "marks": marks,
            "stay": stay,
            "taken": taken,
        }
    )
