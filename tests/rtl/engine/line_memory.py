"""A memory behind a line port, in Amaranth's own simulator: links are kept as a monitor keeps reservations."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Fields = dict[str, Any]


@dataclass
class LineMemory:
    """Words by address, in bytes; what is not there reads as zero.

    Attributes
    ----------
    latency : int
        Cycles from the acceptance of a read to its first beat, and from a swap's last beat to its answer.
    rng : random.Random, optional
        With it answers of tags come in any order, ready is withheld and latency varies.
    bad : set of int
        Addresses of words that the bus refuses.
    before_swap : callable, optional
        Called with the address and words of a swap before it is judged: a second writer.
    forgets : bool
        While it is true what is asked is forgotten, as by a memory that is reset.
    log : list
        (address, old, new) of every word that a swap changed.
    """

    port: Any
    data_bits: int
    line_bytes: int
    latency: int = 4
    rng: random.Random | None = None
    words: dict[int, int] = field(default_factory=dict)
    bad: set[int] = field(default_factory=set)
    before_swap: Callable[[int, int], None] | None = None
    forgets: bool = False
    log: list[tuple[int, int, int]] = field(default_factory=list)
    links: dict[int, tuple[int, int]] = field(default_factory=dict)
    answers: deque[tuple[int, list[Fields]]] = field(default_factory=deque)
    outcomes: deque[tuple[int, Fields]] = field(default_factory=deque)
    receipts: deque[tuple[int, Fields]] = field(default_factory=deque)
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("reads", "swaps", "writes", "failed"), 0))
    now: int = 0

    @property
    def lanes(self) -> int:
        """Words of a beat."""
        return self.data_bits // 64

    def store(self, address: int, value: int) -> None:
        """Anybody's write: ends the links to the word."""
        self.words[address] = value
        for tag, (start, length) in list(self.links.items()):
            if start <= address < start + length:
                del self.links[tag]

    def _delay(self) -> int:
        return self.now + self.latency + (self.rng.randrange(8) if self.rng else 0)

    def _read(self, asked: Fields) -> None:
        self.counts["reads"] += 1
        length = self.line_bytes if asked["line"] else 8
        start = asked["address"]
        assert start % length == 0, "not aligned"
        if asked["link"]:
            self.links[asked["tag"]] = (start, length)
        beats = []
        width = min(length, self.data_bits // 8)
        for at in range(start, start + length, width):
            value, error = 0, 0
            for lane in range(width // 8):
                address = at + 8 * lane
                error |= address in self.bad
                value |= self.words.get(address, 0) << 64 * (address // 8 % self.lanes)
            beats.append(
                {"value": value, "error": error, "last": int(at + width == start + length), "tag": asked["tag"]}
            )
        self.answers.append((self._delay(), beats))

    def _swap(self, beats: list[Fields]) -> None:
        self.counts["swaps"] += 1
        first, tag = beats[0], beats[0]["tag"]
        length = self.line_bytes if first["line"] else 8
        start = first["address"]
        assert all(one["address"] == start and one["tag"] == tag for one in beats), "a beat of another"
        assert len(beats) == max(1, length * 8 // self.data_bits)
        changes = []
        for number, one in enumerate(beats):
            for lane in range(self.lanes):
                if one["changed"] >> lane & 1:
                    base = start if first["line"] else start & -(8 * self.lanes)
                    address = base + 8 * (number * self.lanes + lane)
                    old, new = (one[name] >> 64 * lane & (1 << 64) - 1 for name in ("old", "new"))
                    changes.append((address, old, new))
        assert changes, "a swap that changes nothing"
        if self.before_swap:
            self.before_swap(start, length)
        done = self.links.pop(tag, None) == (start, length)
        error = any(address in self.bad for address, _, _ in changes)
        self.counts["failed"] += not done
        if done and not error:
            for address, old, new in changes:
                assert start <= address < start + length
                assert self.words.get(address, 0) == old, "swapped from another value than was read"
                self.store(address, new)
                self.log.append((address, old, new))
        self.outcomes.append((self._delay(), {"done": int(done and not error), "error": int(error), "tag": tag}))

    def _write(self, beats: list[Fields]) -> None:
        self.counts["writes"] += 1
        start, error = beats[0]["address"], False
        assert start % self.line_bytes == 0
        assert len(beats) == self.line_bytes * 8 // self.data_bits
        for number, one in enumerate(beats):
            for lane in range(self.lanes):
                if one["strobes"] >> lane & 1:
                    address = start + 8 * (number * self.lanes + lane)
                    error |= address in self.bad
                    self.store(address, one["value"] >> 64 * lane & (1 << 64) - 1)
        self.receipts.append((self._delay(), {"error": int(error)}))

    def _due(self, queue: deque[Any]) -> Any:
        """What may be answered now: in any order with `rng`, else the oldest."""
        ready = [place for place, one in enumerate(queue) if one[0] <= self.now]
        if not ready or (self.rng and self.rng.random() < 0.3):
            return None
        place = self.rng.choice(ready) if self.rng else 0
        if place not in ready:
            return None
        one = queue[place]
        del queue[place]
        return one[1]

    async def run(self, ctx: Any) -> None:
        """A background process."""
        port = self.port
        collected: dict[str, list[Fields]] = {"swaps": [], "writes": []}
        sending: list[Fields] = []
        waiting: dict[str, Fields] = {}
        while True:
            if self.forgets:
                for forgotten in (sending, self.answers, self.outcomes, self.receipts, waiting, *collected.values()):
                    forgotten.clear()
            if not sending:
                sending = self._due(self.answers) or []
            beat = sending.pop(0) if sending and not (self.rng and self.rng.random() < 0.2) else None
            outcome = self._due(self.outcomes)
            receipt = self.receipts.popleft()[1] if self.receipts and self.receipts[0][0] <= self.now else None
            for stream, payload in ((port.data, beat), (port.swapped, outcome), (port.written, receipt)):
                ctx.set(stream.valid, payload is not None)
                if payload is not None:
                    ctx.set(stream.payload, payload)
            for name in ("reads", "swaps", "writes"):
                ctx.set(getattr(port, name).ready, not (self.rng and self.rng.random() < 0.3))
            streams = [getattr(port, name) for name in ("reads", "swaps", "writes")]
            signals = [part for one in streams for part in (one.valid, one.ready, one.payload)]
            sampled = (await ctx.tick().sample(*signals))[2:]
            self.now += 1
            for place, name in enumerate(("reads", "swaps", "writes")):
                valid, ready, payload = sampled[3 * place : 3 * place + 3]
                fields = {str(key): int(payload[key]) for key, _ in payload.shape()}
                before = waiting.pop(name, None)
                assert before is None or (valid and fields == before), f"{name} changed before it was taken"
                if valid and not ready:
                    waiting[name] = fields
                if not (valid and ready):
                    continue
                if name == "reads":
                    self._read(fields)
                    continue
                collected[name].append(fields)
                if fields["last"]:
                    (self._swap if name == "swaps" else self._write)(collected[name])
                    collected[name] = []
