"""Random bursts of every kind through a bridge; memory and MMU answer in any order, and every channel stalls."""

import random
from collections import Counter, deque
from typing import Any

import pytest

from ptewalk.cosim.checks.last_written import LastWritten
from ptewalk.rtl.bridge.config import BridgeConfig

from ..bus.burst_memory import Fields, addresses_of
from .bench import FRAME, LINEAR, Bench, run
from .doubles import EXOKAY, OKAY, PAGE, SLVERR

pytestmark = pytest.mark.thorough

PAGES = 4
UNMAPPED, BROKEN = PAGES, PAGES - 1
"""A page that faults; one whose memory answers SLVERR."""


class Traffic:
    """Draws bursts, sends them, and judges their answers."""

    def __init__(self, bench: Bench, rng: random.Random, config: BridgeConfig) -> None:
        self.bench, self.rng, self.lanes = bench, rng, config.data_bits // 8
        self.book = LastWritten()
        self.open: dict[str, dict[int, deque[tuple[int, Fields]]]] = {"b": {}, "r": {}}
        self.beats: dict[int, list[Fields]] = {}
        self.counts: Counter[str] = Counter()
        self.number = 0
        self.problems: list[str] = []

    def draw(self) -> Fields:
        rng = self.rng
        size = rng.randrange(self.lanes.bit_length())
        kind = rng.choice([0, 1, 1, 1, 2])
        beats = rng.choice([2, 4, 8, 16]) if kind == 2 else rng.choice([1, 1, 2, 5, 16])
        at = rng.randrange(0x100) + (rng.random() < 0.1) * 0xEF0
        at &= -(1 << size) if kind == 2 else -1
        page = rng.randrange(PAGES + 1)
        return self.bench.manager.address(
            rng.randrange(4), LINEAR + page * PAGE + at, beats=beats, size=size, burst=kind
        )

    def crosses(self, address: Fields) -> bool:
        return addresses_of(address)[-1] // PAGE != address["addr"] // PAGE

    def bytes_of(self, address: Fields, beats: list[Fields]) -> list[tuple[int, int]]:
        """(physical address, byte) of what the beats carry where the burst goes; for writes where a strobe is set."""
        found = {}
        for at, beat in zip(addresses_of(address), beats, strict=True):
            for byte in range(at, at + (1 << address["size"])):
                if beat.get("strb", -1) >> byte % self.lanes & 1:
                    place = byte - LINEAR + FRAME * PAGE
                    found[place] = beat["data"] >> 8 * (byte % self.lanes) & 0xFF
        return list(found.items())

    def send(self) -> None:
        address, rng, now = self.draw(), self.rng, self.bench.manager.now
        self.number += 1
        if rng.random() < 0.5:
            self.bench.manager.out["ar"].append(address)
            self.open["r"].setdefault(address["id"], deque()).append((self.number, address))
            self.book.read_begins(self.number, now)
            return
        strobes = [rng.choice([0, (1 << self.lanes) - 1, rng.getrandbits(self.lanes)]) for _ in range(3)]
        size = 1 << address["size"]
        lawful = [((1 << size) - 1) << at % self.lanes for at in addresses_of(address)]
        lawful[0] &= -1 << address["addr"] % self.lanes  # it begins inside the beat
        beats = [
            {"data": rng.getrandbits(8 * self.lanes), "strb": lane & rng.choice(strobes), "last": 0} for lane in lawful
        ]
        beats[-1]["last"] = 1
        self.bench.manager.out["aw"].append(address)
        self.bench.manager.out["w"].extend(beats)
        self.open["b"].setdefault(address["id"], deque()).append((self.number, address))
        self.book.write_begins(self.number, now, self.bytes_of(address, beats))

    def expected(self, address: Fields) -> int:
        page = (address["addr"] - LINEAR) // PAGE
        return SLVERR if page in (UNMAPPED, BROKEN) or self.crosses(address) else OKAY

    def collect(self) -> None:
        manager = self.bench.manager
        for answer in manager.seen["b"]:
            number, address = self.open["b"][answer["id"]].popleft()
            good = answer["resp"] == OKAY
            expected = self.expected(address)
            # What changes no byte never gets to memory that is broken.
            if answer["resp"] != expected and not (good and (address["addr"] - LINEAR) // PAGE == BROKEN):
                self.problems.append(f"write {number}: {answer['resp']}, expected {expected}")
            self.book.write_ends(number, manager.now, written=good)
            self.counts["errors" if not good else "writes"] += 1
        manager.seen["b"].clear()
        for beat in manager.seen["r"]:
            number, address = self.open["r"][beat["id"]][0]
            beats = self.beats.setdefault(beat["id"], [])
            beats.append(beat)
            if len(beats) <= address["len"]:
                if beat["last"]:
                    self.problems.append(f"read {number}: last too early")
                continue
            self.open["r"][beat["id"]].popleft()
            del self.beats[beat["id"]]
            if not beat["last"] or {one["resp"] for one in beats} != {self.expected(address)}:
                self.problems.append(f"read {number}: {beats}")
            good = beat["resp"] in (OKAY, EXOKAY)
            data = self.bytes_of(address, beats) if good else []
            self.problems += self.book.read_ends(number, manager.now, data)
            self.counts["reads" if good else "errors"] += 1
        manager.seen["r"].clear()

    @property
    def under_way(self) -> int:
        return sum(len(queue) for queues in self.open.values() for queue in queues.values())


@pytest.mark.parametrize(("bits", "seed"), [(64, 1), (64, 2), (128, 3)])
def test_each_byte_is_the_last_one_written(bits: int, seed: int) -> None:
    rng = random.Random(seed)
    config = BridgeConfig(data_bits=bits, reads=8, writes=8, fault_depth=16)
    told: list[Traffic] = []

    async def job(bench: Bench) -> None:
        bench.mmu.fault(LINEAR // PAGE + UNMAPPED)
        bench.memory.bad[FRAME + BROKEN] = SLVERR
        bench.ctx.set(bench.bridge.faults.ready, 1)
        traffic = Traffic(bench, rng, config)
        told.append(traffic)
        granted = sends_only_what_is_granted(bench)
        while traffic.number < 160 or traffic.under_way:
            if traffic.number < 160 and traffic.under_way < 12 and rng.random() < 0.3:
                traffic.send()
            await bench.ctx.tick()
            traffic.collect()
        assert granted() == len(bench.mmu.retired) == len(bench.memory.writes)

    bench = run(job, config, rng=rng)
    (traffic,) = told
    assert traffic.problems == []
    assert traffic.counts["reads"] > 30 and traffic.counts["writes"] > 20 and traffic.counts["errors"] > 20
    assert traffic.book.bytes_judged > 500 and traffic.book.choices > 5
    assert len(bench.mmu.retired) > 20


def sends_only_what_is_granted(bench: Bench) -> Any:
    """Every write that memory takes has a grant of its page out; the answer counts them."""
    step, seen = bench.memory.step, []

    def checked() -> None:
        for address in bench.memory.seen["aw"]:
            seen.append(address)
            assert address["addr"] // PAGE - FRAME + LINEAR // PAGE in bench.mmu.granted.values()
        step()

    bench.memory.step = checked  # type: ignore[method-assign]
    return lambda: len(seen)
