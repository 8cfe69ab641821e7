"""Both sides of a dirty log in Amaranth's simulator: marks, memory's answers, and software."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from amaranth.sim import Simulator

from ptewalk.model.linux import SoftBit
from ptewalk.rtl.log.dirty_log import DirtyLog, LogConfig
from ptewalk.rtl.log.layouts import LogMode

SD = 1 << SoftBit.SOFT_DIRTY
BASE = 0x1234_5000
PCID = 0xABC
RING: dict[str, int] = {"mode": LogMode.RING, "base": BASE >> 12, "size": 9, "stalls": 1}
PML: dict[str, int] = {"mode": LogMode.PML, "base": BASE >> 12, "index": 511}
WRAP = 1 << 19

Steps = Iterator[None]


class Bench:
    """A log whose swaps and records a test answers, by its word; a `yield` of the script is a cycle.

    Attributes
    ----------
    marks : deque of (int, int, int)
        {linear, level, marks}: swaps to be offered. Those that do not mark change another bit.
    sent : list of (int, int, int)
        Swaps that went out, and have no answer yet.
    writes : list of (int, int, int)
        {address, value, id}: records that have no answer yet.
    memory : dict of int to int
        Records as answered without an error.
    order, words : list of int
        Their addresses, in the order in which they were offered; their values are `words`.
    takes_swaps, takes_writes : bool
    levels : dict of int to int
        Level of each mark that was offered.
    on_append : callable
        Told {linear, level} of each record of software's that is taken.
    again : int
        Cycles in which a walk was told to begin again.
    """

    def __init__(self, script: Callable[[Bench], Steps], config: LogConfig = LogConfig()) -> None:  # noqa: B008 - frozen
        self.dut = DirtyLog(config)
        self.script = script(self)
        self.marks: deque[tuple[int, int, int]] = deque()
        self.levels: dict[int, int] = {}
        self.sent: list[tuple[int, int, int]] = []
        self.writes: list[tuple[int, int, int]] = []
        self.memory: dict[int, int] = {}
        self.order: list[int] = []
        self.words: list[int] = []
        self.appends: deque[tuple[int, int]] = deque()
        self.on_append: Callable[[int, int], None] = lambda linear, level: None
        self.setup: dict[str, int] | None = None
        self.takes_swaps = self.takes_writes = True
        self.head = self.epoch = self.drains = self.closes = 0
        self.clear: dict[str, int] = {}
        self.again = 0
        self.tail = self.index = self.quiet = self.closed = self.lost = 0
        self.status: dict[str, int] = {}
        self._swap_answer: tuple[tuple[int, int, int], int, int] | None = None
        self._write_answer: tuple[tuple[int, int, int], int] | None = None
        self._over = False

    # What a test says -------------------------------------------------------------------------------------------------

    def mark(self, linear: int, level: int = 1, marks: int = 1) -> None:
        self.levels[linear] = level
        self.marks.append((linear, level, marks))

    def answer_swap(self, number: int = 0, *, done: int = 1, error: int = 0) -> None:
        """In this cycle; one a cycle."""
        assert self._swap_answer is None
        self._swap_answer = (self.sent.pop(number), done, error)

    def answer_write(self, number: int = 0, *, error: int = 0) -> None:
        """In this cycle; one a cycle."""
        assert self._write_answer is None
        write = self.writes.pop(number)
        self._write_answer = (write, error)
        if not error:
            self.memory[write[0]] = write[1]

    def set_up(self, **fields: int) -> Steps:
        """Until it is taken."""
        self.setup = fields
        while self.setup is not None:
            yield

    def settle(self, cycles: int = 6) -> Steps:
        for _ in range(cycles):
            yield

    def serve(self, cycles: int = 6) -> Steps:
        """Everything is answered."""
        for _ in range(cycles):
            if self.sent:
                self.answer_swap()
            if self.writes:
                self.answer_write()
            yield

    # A cycle ----------------------------------------------------------------------------------------------------------

    async def run(self, ctx: Any) -> None:
        dut, software = self.dut, self.dut.software
        ctx.set(dut.pcid, PCID)
        for _ in range(50_000):
            self._over = self._over or next(self.script, self) is self
            if self._over:
                return
            swap = self.marks[0] if self.marks else None
            ctx.set(dut.marks.valid, swap is not None)
            if swap is not None:
                ctx.set(dut.marks.payload, {"address": 8 * swap[0], "old": 1, "new": 1 | (SD if swap[2] else 0x20)})
            ctx.set(dut.swaps.ready, self.takes_swaps)
            ctx.set(dut.records.writes.ready, self.takes_writes)
            ctx.set(dut.written.valid, self._swap_answer is not None)
            if self._swap_answer is not None:
                (linear, level, marks), done, error = self._swap_answer
                new = 1 | (SD if marks else 0x20)
                event = {"linear": linear, "level": level, "old": 1, "new": new, "done": done, "error": error}
                ctx.set(dut.written.payload, event)
            ctx.set(dut.records.written.valid, self._write_answer is not None)
            if self._write_answer is not None:
                (_, _, number), error = self._write_answer
                ctx.set(dut.records.written.payload, {"error": error, "id": number})
            ctx.set(software.setups.valid, self.setup is not None)
            if self.setup is not None:
                ctx.set(software.setups.payload, self.setup)
            ctx.set(software.appends.valid, bool(self.appends))
            if self.appends:
                ctx.set(software.appends.payload, {"linear": self.appends[0][0], "level": self.appends[0][1]})
            ctx.set(software.head, self.head % WRAP)
            ctx.set(software.clear, self.clear)
            for name in ("drains", "closes"):
                ctx.set(getattr(dut, name), getattr(self, name))
            ctx.set(software.epoch, self.epoch)
            streams = (dut.swaps, dut.marks, dut.records.writes, software.setups, software.appends)
            signals = [part for one in streams for part in (one.valid, one.ready)]
            told = (dut.records.writes.payload, software.status, software.tail, software.index, software.lost)
            flags = (dut.quiet, dut.closed, dut.again)
            sampled = (await ctx.tick().sample(*signals, *told, *flags))[2:]
            taken = [bool(sampled[place] and sampled[place + 1]) for place in range(0, 10, 2)]
            record, status, self.tail, self.index, self.lost, self.quiet, self.closed, again = sampled[10:]
            self.status = {str(name): int(status[name]) for name, _ in status.shape()}
            self.again += again
            assert taken[0] == taken[1]
            if taken[0]:
                self.sent.append(self.marks.popleft())
            if taken[2]:
                self.writes.append((int(record["address"]), int(record["value"]), int(record["id"])))
                self.order.append(self.writes[-1][0])
                self.words.append(self.writes[-1][1])
            if taken[3]:
                self.setup = None
            if taken[4]:
                self.on_append(*self.appends.popleft())
            self._swap_answer = self._write_answer = None
        raise AssertionError("the test does not come to its end")


def run(script: Callable[[Bench], Steps], config: LogConfig = LogConfig()) -> Bench:  # noqa: B008 - frozen
    """A script, to its end."""
    bench = Bench(script, config)
    simulator = Simulator(bench.dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench.run)
    simulator.run()
    return bench


def rng_of(seed: object) -> random.Random:
    return random.Random(f"log {seed}")
