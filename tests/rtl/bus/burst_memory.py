"""An AXI4 memory without a monitor, and a manager, in Amaranth's own simulator: doubles of both sides of a monitor."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

Fields = dict[str, int]


def fields_of(payload: Any) -> Fields:
    """A sampled payload as plain numbers."""
    return {str(name): int(payload[name]) for name, _ in payload.shape()}


def addresses_of(address: Fields) -> list[int]:
    """Where each beat of a burst goes [AMBA AXI, A3.4.1]."""
    size, count = 1 << address["size"], address["len"] + 1
    start = address["addr"] & -size
    if address["burst"] == 0:
        return [start] * count
    if address["burst"] == 1:
        return [start + size * beat for beat in range(count)]
    low = address["addr"] & -(size * count)
    return [low + (start - low + size * beat) % (size * count) for beat in range(count)]


@dataclass
class Channels:
    """Drives one side of an AXI interface: what is queued in `out` is offered, what comes is in `seen`.

    Attributes
    ----------
    rng : random.Random, optional
        With it, valid and ready are withheld at random.
    held : set of str
        Channels that take nothing now.
    """

    bus: Any
    outgoing: tuple[str, ...]
    rng: random.Random | None = None
    held: set[str] = field(default_factory=set)
    out: dict[str, deque[Fields]] = field(default_factory=dict)
    seen: dict[str, list[Fields]] = field(default_factory=dict)
    offered: dict[str, Fields] = field(default_factory=dict)
    now: int = 0

    def __post_init__(self) -> None:
        self.incoming = tuple(name for name in ("aw", "w", "b", "ar", "r") if name not in self.outgoing)
        self.out = {name: deque() for name in self.outgoing}
        self.seen = {name: [] for name in self.incoming}

    def step(self) -> None:
        """What a side does by itself, once a cycle."""

    async def run(self, ctx: Any) -> None:
        """A background process."""
        offering: dict[str, bool] = dict.fromkeys(self.outgoing, False)
        shown: dict[str, Fields] = {}
        while True:
            self.step()
            for name in self.outgoing:
                if not offering[name]:
                    wanted = bool(self.out[name]) and (self.rng is None or self.rng.random() < 0.6)
                    offering[name] = wanted
                    if wanted:
                        ctx.set(getattr(self.bus, name).payload, self.out[name][0])
                    ctx.set(getattr(self.bus, name).valid, wanted)
            for name in self.incoming:
                ready = name not in self.held and (self.rng is None or self.rng.random() < 0.6)
                ctx.set(getattr(self.bus, name).ready, ready)
            streams = [getattr(self.bus, name) for name in (*self.outgoing, *self.incoming)]
            signals = [part for one in streams for part in (one.valid, one.ready, one.payload)]
            sampled = (await ctx.tick().sample(*signals))[2:]
            self.now += 1
            for place, name in enumerate((*self.outgoing, *self.incoming)):
                valid, ready, payload = sampled[3 * place : 3 * place + 3]
                if name in self.outgoing:
                    if valid and ready:
                        self.out[name].popleft()
                        offering[name] = False
                    continue
                assert name not in shown or (valid and shown[name] == fields_of(payload)), f"{name} changed or went"
                shown.pop(name, None)
                if valid and ready:
                    self.seen[name].append(fields_of(payload))
                elif valid:
                    shown[name] = fields_of(payload)


class Memory(Channels):
    """Bytes; a read is done at any time between AR and R, a write between its last W and B, each channel in order."""

    def __init__(self, bus: Any, *, latency: int = 2, rng: random.Random | None = None, bits: int = 64) -> None:
        super().__init__(bus, ("b", "r"), rng)
        self.latency, self.bits = latency, bits
        self.bytes: dict[int, int] = {}
        self.answer = 0
        self.reads: list[Fields] = []
        self.writes: list[Fields] = []
        self._waiting: dict[str, deque[int]] = {"ar": deque(), "aw": deque()}
        self._complete: deque[tuple[int, Fields, list[Fields]]] = deque()

    def word(self, address: int) -> int:
        """Eight bytes."""
        return sum(self.bytes.get(address + byte, 0) << 8 * byte for byte in range(8))

    def step(self) -> None:
        for name in ("ar", "aw"):
            taken = self.seen[name]
            while taken:
                address = taken.pop(0)
                assert address["id"] == 0 and not address["lock"]
                (self.reads if name == "ar" else self.writes).append(address)
                self._waiting[name].append(self.now + self._delay() if name == "ar" else 0)
        lane = self.bits // 8
        while self._waiting["ar"] and self._waiting["ar"][0] <= self.now:
            self._waiting["ar"].popleft()
            address = self.reads[len(self.reads) - len(self._waiting["ar"]) - 1]
            for beat, at in enumerate(addresses_of(address)):
                base = at & -lane
                value = sum(self.bytes.get(base + byte, 0) << 8 * byte for byte in range(lane))
                last = int(beat == address["len"])
                self.out["r"].append({"id": 0, "data": value, "resp": self.answer, "last": last})
        self._take_bursts()
        while self._complete and self._complete[0][0] <= self.now:
            address, beats = self._complete.popleft()[1:]
            assert [beat["last"] for beat in beats] == [0] * address["len"] + [1]
            for at, beat in zip(addresses_of(address), beats, strict=True):
                for byte in range(lane):
                    if beat["strb"] >> byte & 1:
                        self.bytes[(at & -lane) + byte] = beat["data"] >> 8 * byte & 0xFF
            self.out["b"].append({"id": 0, "resp": self.answer})

    def _delay(self) -> int:
        return self.latency if self.rng is None else self.rng.randint(1, 12)

    def _take_bursts(self) -> None:
        """Writes of which all is here: they are made, and answered, so many cycles from now."""
        while self._waiting["aw"]:
            address = self.writes[len(self.writes) - len(self._waiting["aw"])]
            beats = self.seen["w"][: address["len"] + 1]
            if len(beats) <= address["len"]:
                return
            del self.seen["w"][: address["len"] + 1]
            self._waiting["aw"].popleft()
            self._complete.append((self.now + self._delay(), address, beats))


class Manager(Channels):
    """Sends bursts; collects answers, by ID."""

    def __init__(self, bus: Any, *, rng: random.Random | None = None) -> None:
        super().__init__(bus, ("aw", "w", "ar"), rng)

    def address(self, identity: int, at: int, *, beats: int = 1, lock: int = 0, **other: int) -> Fields:
        """A transfer of AW or AR, of eight bytes a beat unless said otherwise."""
        fields = {"id": identity, "addr": at, "len": beats - 1, "size": 3, "burst": 1, "lock": lock}
        return fields | {"cache": 3, "prot": 0, "qos": 0} | other

    def read(self, identity: int, at: int, **other: int) -> None:
        """AR."""
        self.out["ar"].append(self.address(identity, at, **other))

    def write(self, identity: int, at: int, values: list[int], *, strobes: int = 0xFF, **other: int) -> None:
        """AW and W."""
        self.out["aw"].append(self.address(identity, at, beats=len(values), **other))
        self.send(values, strobes=strobes)

    def send(self, values: list[int], *, strobes: int = 0xFF) -> None:
        """W alone."""
        for place, value in enumerate(values):
            self.out["w"].append({"data": value, "strb": strobes, "last": int(place == len(values) - 1)})
