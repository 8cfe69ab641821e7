"""An AXI4 memory in Amaranth's own simulator, with a monitor that a test can break: a double of what lies below."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OKAY, EXOKAY, SLVERR, DECERR = range(4)
_ATTRIBUTES = ("len", "size", "burst", "cache", "prot", "qos")


@dataclass
class AxiMemory:
    """Words of 64 bits by address; single-beat transfers, answered after `latency` cycles, or later at random.

    The monitor holds one address per ID; a write that lands ends every reservation of that word.

    Attributes
    ----------
    refuse, fail : int
        So many exclusive reads are answered OKAY; so many exclusive writes find their reservation gone.
    bad : dict
        Address to the answer of every access there.
    before_write : callable
        Called with the address of an exclusive write before it is judged.
    log : list
        (kind, address, exclusive, answer) of each access, in order.
    taken : list of int
        The cycle in which each of them was, a write's address or its data, whichever came later.
    attributes : set
        `_ATTRIBUTES` of each access.
    """

    bus: Any
    data_bits: int = 64
    latency: int = 1
    rng: random.Random | None = None
    words: dict[int, int] = field(default_factory=dict)
    refuse: int = 0
    fail: int = 0
    bad: dict[int, int] = field(default_factory=dict)
    bad_writes: dict[int, int] = field(default_factory=dict)
    before_write: Callable[[int], None] = lambda address: None
    reserved: dict[int, int] = field(default_factory=dict)
    log: list[tuple[str, int, bool, int]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    attributes: set[tuple[int, ...]] = field(default_factory=set)

    def write(self, address: int, value: int) -> None:
        """A word, by whoever: reservations of it end."""
        self.words[address] = value
        self.reserved = {identity: where for identity, where in self.reserved.items() if where != address}

    def _delay(self) -> int:
        return self.latency if self.rng is None else self.rng.randint(1, 6)

    def _read(self, ar: dict[str, int]) -> dict[str, int]:
        address, answer = ar["addr"], OKAY
        if address in self.bad:
            answer = self.bad[address]
        elif ar["lock"] and self.refuse:
            self.refuse -= 1
            self.reserved.pop(ar["id"], None)
        elif ar["lock"]:
            self.reserved[ar["id"]] = address
            answer = EXOKAY
        self.log.append(("read", address, bool(ar["lock"]), answer))
        return {"id": ar["id"], "data": self._beat(address), "resp": answer, "last": 1}

    def _beat(self, address: int) -> int:
        """A beat of R with the word in its lanes."""
        lane = address // 8 % (self.data_bits // 64)
        # Guard: the other lanes of the beat are noise.
        noise = int.from_bytes(random.Random(address).randbytes(self.data_bits // 8), "little")
        keep = noise & ~((2**64 - 1) << 64 * lane)
        return keep | self.words.get(address, 0) << 64 * lane

    def _write(self, aw: dict[str, int], w: dict[str, int]) -> dict[str, int]:
        address, answer = aw["addr"], OKAY
        assert aw["lock"]
        lane = address // 8 % (self.data_bits // 64)
        assert w["strb"] == 0xFF << 8 * lane
        self.before_write(address)
        if self.fail:
            self.fail -= 1
            self.reserved.pop(aw["id"], None)
        if address in self.bad_writes:
            answer = self.bad_writes[address]
        elif self.reserved.get(aw["id"]) == address:
            self.write(address, w["data"] >> 64 * lane & 2**64 - 1)
            answer = EXOKAY
        self.log.append(("write", address, True, answer))
        return {"id": aw["id"], "resp": answer}

    def _made(self, aw: dict[str, int], beats: list[dict[str, int]]) -> dict[str, dict[str, int]]:
        """The answers of a burst that is written, by channel."""
        (beat,) = beats
        return {"b": self._write(aw, beat)}

    async def run(self, ctx: Any) -> None:
        """A background process."""
        channels = {name: getattr(self.bus, name) for name in ("aw", "w", "ar", "r", "b")}
        held: dict[str, list[Any]] = {"aw": [], "w": []}
        answers: dict[str, list[tuple[int, dict[str, int]]]] = {"r": [], "b": []}
        now = 0
        shown: dict[str, int] = {}
        offered: dict[str, Any] = {}
        while True:
            for name in ("aw", "w", "ar"):
                ctx.set(channels[name].ready, self.rng is None or self.rng.random() < 0.6)
            for name in ("r", "b"):
                queue = answers[name]
                due = [i for i, (when, _) in enumerate(queue) if when <= now]
                shown[name] = -1
                if due:
                    shown[name] = due[0] if self.rng is None else self.rng.choice(due)
                    ctx.set(channels[name].payload, queue[shown[name]][1])
                ctx.set(channels[name].valid, bool(due))
            names = [*("aw", "w", "ar"), *("r", "b")]
            signals = [s for n in names for s in (channels[n].valid, channels[n].ready, channels[n].payload)]
            sampled = (await ctx.tick().sample(*signals))[2:]
            now += 1
            for place, name in enumerate(names):
                valid, ready, payload = sampled[3 * place : 3 * place + 3]
                if name in ("aw", "w", "ar"):
                    plain = {str(key): int(payload[key]) for key, _ in payload.shape()}
                    if name in offered:
                        assert valid and offered[name] == plain, f"{name} was withdrawn or changed"
                    offered.pop(name, None)
                    if valid and not ready:
                        offered[name] = plain
                    if not (valid and ready):
                        continue
                    if name == "ar":
                        self.taken.append(now)
                        self.attributes.add(tuple(plain[k] for k in _ATTRIBUTES))
                        answers["r"].append((now + self._delay() - 1, self._read(plain)))
                    else:
                        held[name].append(plain)
                else:
                    assert ready, "an answer is always taken"
                    if valid:
                        answers[name].pop(shown[name])
            while held["aw"] and len(held["w"]) > held["aw"][0]["len"]:
                aw = held["aw"].pop(0)
                beats = [held["w"].pop(0) for _ in range(aw["len"] + 1)]
                assert [beat["last"] for beat in beats] == [0] * aw["len"] + [1]
                self.attributes.add(tuple(aw[k] for k in _ATTRIBUTES))
                self.taken.append(now)
                for name, answer in self._made(aw, beats).items():
                    answers[name].append((now + self._delay() - 1, answer))


@dataclass
class AtomicMemory(AxiMemory):
    """The same with AXI5's atomic transactions, of which it takes AtomicCompare of 16 bytes alone.

    Attributes
    ----------
    knows : bool
        False: what does not know AWATOP, and takes both words for data.
    bad_founds : dict
        Address to what R says of an AtomicCompare there; `bad_writes` is what B says.
    """

    knows: bool = True
    bad_founds: dict[int, int] = field(default_factory=dict)

    def _read(self, ar: dict[str, int]) -> dict[str, int]:
        assert not ar["lock"]
        return super()._read(ar)

    def _made(self, aw: dict[str, int], beats: list[dict[str, int]]) -> dict[str, dict[str, int]]:
        """As the table of AtomicCompare in the specification has its halves."""
        assert aw["atop"] == 0b110001 and not aw["lock"]
        address, upper = aw["addr"], aw["addr"] >> 3 & 1
        assert address % 8 == 0 and aw["burst"] == (2 if upper else 1)
        if self.data_bits == 64:
            assert (aw["len"], aw["size"]) == (1, 3) and [beat["strb"] for beat in beats] == [0xFF] * 2
            halves = [beat["data"] for beat in beats]
        else:
            assert (aw["len"], aw["size"]) == (0, 4)
            shift = address // 16 % (self.data_bits // 128)
            assert beats[0]["strb"] == 0xFFFF << 16 * shift
            pair = beats[0]["data"] >> 128 * shift
            halves = [pair >> 64 * half & 2**64 - 1 for half in (0, 1)]
        if not self.knows:
            self.words |= {(address & -16) + 8 * half: value for half, value in enumerate(halves)}
            return {"b": {"id": aw["id"], "resp": OKAY}}
        compare, new = reversed(halves) if upper else halves
        self.before_write(address)
        found = {"id": aw["id"], "data": self._beat(address), "resp": self.bad_founds.get(address, OKAY), "last": 1}
        told = {"id": aw["id"], "resp": self.bad_writes.get(address, OKAY)}
        if self.words.get(address, 0) == compare and not found["resp"] | told["resp"]:
            self.write(address, new)
        self.log.append(("swap", address, False, told["resp"]))
        return {"r": found, "b": told}
