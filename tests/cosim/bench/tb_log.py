"""In-simulator side of test_log.py: an MMU with a dirty log against the golden model's, access by access."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge, Timer

from ptewalk.cosim.simulate.run import Job
from ptewalk.model.dirty_log import DirtyLog, LoggingMmu
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.memory import SparseMemory
from ptewalk.model.paging import Request, State, Translated
from ptewalk.model.x86 import Access, Control, EntryBit, Invalidation, Wait
from ptewalk.rtl.log.layouts import LogMode

UPPER, SD, HUGE = 0x67, 1 << SoftBit.SOFT_DIRTY, 1 << EntryBit.PS
ROOT, TABLE, LOG = 0x1000, 0x4000, 0x20_0000
LINEAR = 0xFFFF_8000_0000_0000
PAGES = 24
PCID = 0x5A5
CONTROL = 1 << Control.WP | 1 << Control.NXE


def tables() -> SparseMemory:
    """24 pages of 4 KiB, of which one is read-only and one absent, and behind them a huge one."""
    memory = SparseMemory()
    for address, entry in ((ROOT + 256 * 8, 0x2000), (0x2000, 0x3000), (0x3000, TABLE)):
        memory.store(address, entry | UPPER)
    memory.store(0x3008, 0x4000_0000 | UPPER | HUGE)
    for page in range(PAGES):
        memory.store(TABLE + 8 * page, (0x100 + page) << 12 | UPPER if page != 7 else 0)
    memory.store(TABLE + 8 * 9, 0x109 << 12 | UPPER & ~2)
    return memory


class Agents:
    """Memory and software at the pins: everything is driven after a rising edge, and sampled before the next."""

    def __init__(self, dut: Any, memory: dict[int, int], rng: random.Random) -> None:
        self.dut, self.memory, self.rng = dut, memory, rng
        self.due: dict[str, list[tuple[int, dict[str, int]]]] = {"data": [], "swapped": [], "written": []}
        self.log: dict[int, int] = {}
        self.offer: dict[str, dict[str, int]] = {}
        self.cycle = self.completed = self.tail = 0
        self.answer: dict[str, int] | None = None
        self.retired: int | None = None
        self.drained = False

    def pin(self, name: str) -> Any:
        return getattr(self.dut, name)

    def put(self, stream: str, fields: dict[str, int] | None) -> None:
        self.pin(f"{stream}__valid").value = fields is not None
        for name, value in (fields or {}).items():
            self.pin(f"{stream}__payload__{name}").value = value

    def get(self, stream: str, *names: str) -> dict[str, int] | None:
        """What is taken, or told, in this cycle."""
        pins = [getattr(self.dut, f"{stream}__{end}", None) for end in ("valid", "ready")]
        if not all(int(pin.value) for pin in pins if pin is not None):
            return None
        return {name: int(self.pin(f"{stream}__payload__{name}").value) for name in names}

    async def step(self) -> None:
        """A cycle."""
        rng = self.rng
        for name, stream in (("data", "memory__data"), ("swapped", "memory__swapped"), ("written", "records__written")):
            ready = [one for one in self.due[name] if one[0] <= self.cycle]
            chosen = rng.choice(ready) if ready else None
            if chosen:
                self.due[name].remove(chosen)
            self.put(stream, chosen[1] if chosen else None)
        for stream in ("contexts", "invalidations", "requester__requests", "log__setups"):
            self.put(stream, self.offer.get(stream))
        self.put("requester__retired", None if self.retired is None else {"tag": self.retired})
        self.retired = None
        for stream in ("memory__reads", "memory__swaps", "records__writes", "requester__responses"):
            self.pin(f"{stream}__ready").value = rng.random() < 0.8
        await ReadOnly()
        self._sample()
        await RisingEdge(self.dut.clk)
        self.cycle += 1

    def _sample(self) -> None:
        rng, memory = self.rng, self.memory
        for stream in list(self.offer):
            if self.get(stream) is not None:
                del self.offer[stream]
        at = self.cycle + 1 + rng.randrange(6)
        if read := self.get("memory__reads", "address", "id"):
            value = memory.get(read["address"], 0)
            self.due["data"].append((at, {"value": value, "error": 0, "id": read["id"]}))
        if swap := self.get("memory__swaps", "address", "old", "new", "id"):
            done = memory.get(swap["address"], 0) == swap["old"]
            if done:
                memory[swap["address"]] = swap["new"]
            self.due["swapped"].append((at, {"done": done, "error": 0, "id": swap["id"]}))
        if write := self.get("records__writes", "address", "value", "id"):
            self.log[write["address"]] = write["value"]
            self.due["written"].append((at + rng.randrange(20), {"error": 0, "id": write["id"]}))
        if answer := self.get("requester__responses", "outcome", "physical", "tag"):
            self.answer = answer
        if self.get("completions") is not None:
            self.completed += 1
        self.tail = int(self.pin("log__tail").value)
        self.drained = bool(int(self.pin("supervisor__drained").value))

    async def send(self, stream: str, fields: dict[str, int]) -> None:
        self.offer[stream] = fields
        while stream in self.offer:
            await self.step()

    async def drain(self) -> None:
        """Until nothing is in flight."""
        self.pin("supervisor__drain").value = 1
        await self.step()
        while not self.drained:
            await self.step()
        self.pin("supervisor__drain").value = 0

    async def access(self, fields: dict[str, int]) -> dict[str, int]:
        self.answer = None
        await self.send("requester__requests", fields)
        while self.answer is None:
            await self.step()
        return self.answer


def draw(rng: random.Random) -> Iterator[Request]:
    while True:
        page = rng.randrange(PAGES) if rng.random() < 0.8 else 512 + rng.randrange(512)
        access = Access.WRITE if rng.random() < 0.8 else Access.READ
        yield Request(LINEAR + (page << 12) + 8 * rng.randrange(512), access, user=True)


@cocotb.test()
async def epochs(dut: Any) -> None:
    """Accesses one after the other, drains now and then, and clears between; publishes what differs, and counts."""
    job = Job.current()
    rng = random.Random(job.values["seed"])
    for name in job.values["inputs"]:
        getattr(dut, name).value = name == "supervisor__faults__ready"
    dut.clk.value, dut.rst.value = 0, 1
    await Timer(10, unit="ns")  # no edge comes before the reset
    Clock(dut.clk, 10, unit="ns").start()
    golden_memory = tables()
    frames = {number << 12: golden_memory.frame(number) for number in golden_memory.frames()}
    words = {base + 8 * place: int(word) for base, frame in frames.items() for place, word in enumerate(frame)}
    agents = Agents(dut, words, rng)
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    golden = LoggingMmu(golden_memory, DirtyLog(LOG))
    state = State(ROOT, control=CONTROL, track=Track.NATIVE, pcid=PCID)
    context = {"root": ROOT >> 12, "control": CONTROL, "track": int(Track.NATIVE), "pcid": PCID}
    await agents.send("contexts", context)
    await agents.send("log__setups", {"mode": LogMode.RING, "base": LOG >> 12, "size": 9, "stalls": 1})
    problems: list[str] = []
    requests = draw(rng)
    marks_by_epoch: list[int] = []
    for _ in range(job.values["epochs"]):
        before = golden.log.tail
        for _ in range(job.values["accesses"]):
            request = next(requests)
            (expected,) = golden.run(state, [request])
            fields = {"linear": request.linear, "access": int(request.access), "user": 1, "implicit": 0, "ac": 0}
            answer = await agents.access(fields | {"tag": rng.randrange(16)})
            ok = isinstance(expected, Translated)
            if (answer["outcome"] == 0) != ok or (ok and answer["physical"] != expected.physical):
                problems.append(f"{request}: {answer}, expected {expected}")
            if ok and request.access == Access.WRITE:
                agents.retired = answer["tag"]
            if rng.random() < 0.2:
                await agents.drain()
                if agents.tail != golden.log.tail:
                    problems.append(f"tail {agents.tail} when all is drained, expected {golden.log.tail}")
        marks_by_epoch.append(golden.log.tail - before)
        # clear_refs: marks go, and the translations that rest on them; then every record must be there.
        for address in [0x3008, *(TABLE + 8 * page for page in range(PAGES))]:
            words[address] &= ~SD
            golden_memory.store(address, golden_memory.load(address) & ~SD)
        known = agents.completed
        everything = {"kind": int(Invalidation.ALL), "linear": 0, "pcid": 0, "wait": int(Wait.ALL)}
        await agents.send("invalidations", everything)
        while agents.completed == known:
            await agents.step()
        if agents.tail != golden.log.tail:
            problems.append(f"tail {agents.tail} at the end of an epoch, expected {golden.log.tail}")
        golden.epoch ^= 1
        dut.log__epoch.value = golden.epoch
    if agents.log != golden.log.written:
        problems.append(f"records {agents.log}, expected {golden.log.written}")
    kept = {address: golden_memory.load(address) for address in words}
    if kept != words:
        problems.append("tables differ")
    job.publish({"problems": problems[:3], "marks": marks_by_epoch, "tail": agents.tail})
