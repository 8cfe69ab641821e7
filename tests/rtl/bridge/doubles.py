"""Doubles of what stands round a bridge: memory below it, with a monitor, and an MMU beside it."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..bus.burst_memory import Channels, Fields, addresses_of, fields_of

OKAY, EXOKAY, SLVERR, DECERR = range(4)
OK, PAGE_FAULT, GENERAL_PROTECTION, BUS_ERROR = range(4)
READ, WRITE, RMW, FETCH, PROBE = range(5)
PAGE = 0x1000


@dataclass
class Burst:
    """A burst that memory has in work; `due` is the cycle in which its answer may be on offer."""

    address: Fields
    due: int
    beats: list[Fields] = field(default_factory=list)


class Memory(Channels):
    """Bytes, with a monitor. Bursts of an ID are done in order, of others in any with `rng`.

    A read is done as its first beat is offered, a write as its B is.

    Attributes
    ----------
    latency : int
        Cycles from AR, or from the later of AW and the last of W, to the answer.
    bad : dict
        Page to the answer of every access there.
    stuck : bool
        Nothing is answered.
    reads, writes, beats : list
        AR, AW and W as they came.
    user : dict
        Further fields of B and R.
    """

    def __init__(self, bus: Any, *, latency: int = 1, rng: random.Random | None = None, bits: int = 64) -> None:
        super().__init__(bus, ("b", "r"), rng)
        self.latency, self.lanes = latency, bits // 8
        self.bytes: dict[int, int] = {}
        self.bad: dict[int, int] = {}
        self.stuck = False
        self.reads: list[Fields] = []
        self.writes: list[Fields] = []
        self.beats: list[Fields] = []
        self.user: Fields = {}
        self._reserved: dict[int, Fields] = {}
        self._reading: list[Burst] = []
        self._writing: list[Burst] = []
        self._unpaired: deque[Fields] = deque()  # AW without its W

    def store(self, at: int, values: bytes) -> None:
        """Bytes, by whoever."""
        self.bytes |= {at + place: value for place, value in enumerate(values)}

    def load(self, at: int, count: int) -> bytes:
        """Bytes."""
        return bytes(self.bytes.get(at + place, 0) for place in range(count))

    def step(self) -> None:
        for address in self._take("ar"):
            self.reads.append(address)
            self._reading.append(Burst(address, self._due()))
        for address in self._take("aw"):
            self.writes.append(address)
            self._unpaired.append(address)
        while self._unpaired and any(beat["last"] for beat in self.seen["w"]):
            count = [beat["last"] for beat in self.seen["w"]].index(1) + 1
            address = self._unpaired.popleft()
            assert count == address["len"] + 1, "W is as long as AW says"
            self._writing.append(Burst(address, self._due(), self.seen["w"][:count]))
            self.beats += self.seen["w"][:count]
            del self.seen["w"][:count]
        for bursts, finish in ((self._reading, self._read), (self._writing, self._write)):
            ready = self._ready(bursts)
            while ready and not self.stuck:
                one = ready[0] if self.rng is None else self.rng.choice(ready)
                bursts.remove(one)
                finish(one)
                ready = self._ready(bursts) if self.rng is None else []

    def _take(self, name: str) -> list[Fields]:
        taken, self.seen[name] = self.seen[name], []
        return taken

    def _due(self) -> int:
        return self.now - 1 + (self.latency if self.rng is None else self.rng.randint(1, 12))

    def _ready(self, bursts: list[Burst]) -> list[Burst]:
        """Those that may be answered now: of each ID the oldest."""
        oldest: dict[int, Burst] = {}
        for one in bursts:
            oldest.setdefault(one.address["id"], one)
        return [one for one in oldest.values() if one.due <= self.now]

    def _read(self, one: Burst) -> None:
        address = one.address
        response = self.bad.get(address["addr"] // PAGE, OKAY)
        if address["lock"] and response == OKAY:
            self._reserved[address["id"]] = address
            response = EXOKAY
        for beat, at in enumerate(addresses_of(address)):
            value = int.from_bytes(self.load(at & -self.lanes, self.lanes), "little")
            last = int(beat == address["len"])
            self.out["r"].append({"id": address["id"], "data": value, "resp": response, "last": last} | self.user)

    def _write(self, one: Burst) -> None:
        address = one.address
        response = self.bad.get(address["addr"] // PAGE, OKAY)
        if address["lock"] and response == OKAY:
            kept = self._reserved.pop(address["id"], None)
            same = kept is not None and all(kept[name] == address[name] for name in ("addr", "len", "size"))
            response = EXOKAY if same else OKAY
        if response == (EXOKAY if address["lock"] else OKAY):
            page = address["addr"] // PAGE
            self._reserved = {i: kept for i, kept in self._reserved.items() if kept["addr"] // PAGE != page}
            for at, beat in zip(addresses_of(address), one.beats, strict=True):
                for lane in range(self.lanes):
                    if beat["strb"] >> lane & 1:
                        self.bytes[(at & -self.lanes) + lane] = beat["data"] >> 8 * lane & 0xFF
        self.out["b"].append({"id": address["id"], "resp": response} | self.user)


@dataclass
class Mmu:
    """Answers as a table of pages says, after `latency` cycles or more; keeps book of grants.

    Attributes
    ----------
    pages : dict
        Page to (outcome, frame or error code, memory type as {"pat", "pcd", "pwt"}).
    slow : set
        Pages whose answers are held back.
    closed : bool
        No request is taken.
    requests : list
        As they were accepted, each with its cycle.
    granted, reading : dict
        Tag to page, of stores and reads that were granted and have not retired.
    retired : list of (page, cycle)
        Of stores.
    """

    port: Any
    latency: int = 3
    rng: random.Random | None = None
    pages: dict[int, tuple[int, int, Fields]] = field(default_factory=dict)
    slow: set[int] = field(default_factory=set)
    closed: bool = False
    requests: list[tuple[int, Fields]] = field(default_factory=list)
    granted: dict[int, int] = field(default_factory=dict)
    reading: dict[int, int] = field(default_factory=dict)
    retired: list[tuple[int, int]] = field(default_factory=list)
    now: int = 0

    def map(self, page: int, frame: int, **memory_type: int) -> None:
        self.pages[page] = (OK, frame, memory_type)

    def fault(self, page: int, code: int = 6, outcome: int = PAGE_FAULT) -> None:
        self.pages[page] = (outcome, code, {})

    async def run(self, ctx: Any) -> None:
        """A background process."""
        asked, answers, retired = self.port.requests, self.port.responses, self.port.retired
        flying: list[tuple[int, Fields]] = []
        offered: Fields | None = None
        while True:
            ctx.set(asked.ready, not self.closed and (self.rng is None or self.rng.random() < 0.7))
            shown = None
            due = [one for one in flying if one[0] <= self.now and one[1]["linear"] // PAGE not in self.slow]
            if due:
                shown = due[0] if self.rng is None else self.rng.choice(due)
                ctx.set(answers.payload, self._answer(shown[1]))
            ctx.set(answers.valid, shown is not None)
            signals = (asked.valid, asked.ready, asked.payload, answers.ready, retired.valid, retired.payload)
            valid, ready, payload, taken, retires, tag = (await ctx.tick().sample(*signals))[2:]
            self.now += 1
            request = fields_of(payload)
            assert offered is None or (valid and offered == request), "a request was withdrawn or changed"
            offered = request if valid and not ready else None
            if retires:
                if tag["tag"] in self.reading:
                    del self.reading[int(tag["tag"])]
                else:
                    self.retired.append((self.granted.pop(int(tag["tag"])), self.now))
            if valid and ready:
                used = {*self.granted, *self.reading, *(one["tag"] for _, one in flying)}
                assert request["tag"] not in used, "a tag is used twice"
                self.requests.append((self.now, request))
                delay = self.latency if self.rng is None else self.rng.randint(3, 20)
                flying.append((self.now - 1 + delay, request))
            if shown is not None:
                assert taken, "answers are taken at once"
                flying.remove(shown)
                page = shown[1]["linear"] // PAGE
                if shown[1]["access"] != PROBE and self.pages[page][0] == OK:
                    (self.granted if shown[1]["access"] == WRITE else self.reading)[shown[1]["tag"]] = page

    def _answer(self, request: Fields) -> Fields:
        linear = request["linear"]
        outcome, value, memory_type = self.pages[linear // PAGE]
        answer = {"outcome": outcome, "code": 0xFFFF, "physical": 0x55_5555_5555, "tag": request["tag"]}
        if outcome == PAGE_FAULT:
            return answer | {"code": value}
        if outcome == OK:
            return answer | {"physical": value * PAGE + linear % PAGE} | memory_type
        return answer
