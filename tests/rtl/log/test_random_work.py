"""The dirty log alone, under random work: marks that were done, and records of software's, by the golden model."""

from __future__ import annotations

import pytest

from ptewalk.model.dirty_log import DirtyLog, record_of
from ptewalk.rtl.log.dirty_log import LogConfig

from .log_bench import BASE, PCID, PML, RING, Bench, Steps, rng_of, run


class Random:
    """Draws what happens in a cycle; the golden model has a record for each mark that was done."""

    def __init__(self, seed: str, *, pml: bool = False) -> None:
        self.rng = rng_of(seed)
        self.golden = DirtyLog(BASE, pml=pml)
        self.done: list[tuple[int, int, bool]] = []
        """{linear, level, software's} of each record that is due."""
        self.page = self.stalled = self.setups = self.appended = 0

    def swap(self, bench: Bench, number: int, done: bool) -> None:
        linear, level, marks = bench.sent[number]
        bench.answer_swap(number, done=done)
        if marks and done:
            self.done.append((linear, level, False))

    def append(self, linear: int, level: int) -> None:
        self.appended += 1
        self.done.append((linear, level, True))

    def cycle(self, bench: Bench) -> None:
        rng = self.rng
        if len(bench.marks) < 3 and rng.random() < 0.4:
            self.page += 1
            bench.mark(self.page << 12, rng.randrange(1, 4), rng.random() < 0.9)
        bench.on_append = self.append
        if not bench.appends and rng.random() < 0.2:
            self.page += 1
            bench.appends.append((self.page << 12, rng.randrange(1, 4)))
        bench.takes_swaps, bench.takes_writes = rng.random() < 0.7, rng.random() < 0.8
        if len(bench.sent) > rng.randrange(4):
            self.swap(bench, rng.randrange(len(bench.sent)), rng.random() < 0.8)
        if bench.writes and rng.random() < 0.5:
            bench.answer_write(rng.randrange(len(bench.writes)))
        if rng.random() < 0.1:
            bench.head = max(bench.head, bench.tail - 512 + rng.randrange(16))
        self.stalled += bench.status.get("stalled", 0)

    def rest(self, bench: Bench) -> Steps:
        """What is on its way comes to its end, but for marks that wait."""
        bench.takes_swaps = bench.takes_writes = True
        bench.appends.clear()
        for _ in range(60):
            if bench.sent:
                self.swap(bench, 0, True)
            if bench.writes:
                bench.answer_write()
            yield
        assert bench.quiet


@pytest.mark.parametrize("records", [2, 8])
@pytest.mark.thorough
def test_random_work_gives_each_mark_its_record(records: int) -> None:
    """Marks that fail, answers in any order, software that reads now and then."""
    drawn = Random(f"ring {records}")

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        bench.head = -500  # soon full
        for _ in range(4000):
            drawn.cycle(bench)
            yield
            assert len(bench.order) >= bench.tail
        bench.head = bench.tail
        yield from drawn.rest(bench)

    bench = run(script, LogConfig(records))
    assert drawn.stalled > 50 and not bench.status["overflow"]
    golden = drawn.golden
    for linear, level, software in drawn.done:
        golden.head = golden.tail
        golden.mark(linear, level, pcid=PCID, software=software)
    assert drawn.appended > 30
    assert bench.order == golden.order and bench.memory == golden.written
    assert bench.tail == golden.tail > 520


@pytest.mark.thorough
def test_random_work_in_a_buffer() -> None:
    drawn = Random("PML", pml=True)
    golden = drawn.golden

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**PML | {"index": 40})
        golden.index = 40
        while drawn.setups < 20:
            drawn.cycle(bench)
            yield
            if bench.status["stalled"] and drawn.rng.random() < 0.1:
                yield from drawn.rest(bench)
                for linear, level, software in drawn.done:
                    golden.mark(linear, level, software=software)
                assert bench.order == golden.order and bench.memory == golden.written
                assert bench.index == golden.index
                drawn.done.clear()
                bench.order.clear()
                golden.order.clear()
                golden.index = 10 + drawn.setups
                yield from bench.set_up(**PML | {"index": golden.index})
                drawn.setups += 1

    assert not run(script, LogConfig(8)).status["overflow"]
    assert drawn.stalled > 20 and drawn.appended > 50


@pytest.mark.thorough
def test_random_work_with_overflow() -> None:
    """No page has two records, and what is lost is told."""
    drawn = Random("overflow")

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING | {"stalls": 0})
        bench.head = -500
        for _ in range(3000):
            drawn.cycle(bench)
            yield
        yield from drawn.rest(bench)

    bench = run(script, LogConfig(8))
    pages = [record_of(word).page for word in bench.words]
    assert len(set(pages)) == len(pages) > 100
    assert bench.status["overflow"] and len(drawn.done) > len(pages) + 20
    assert bench.lost == next(linear for linear, _, _ in drawn.done if linear >> 12 not in pages)
