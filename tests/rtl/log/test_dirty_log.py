"""The dirty log alone: each sentence that docs/log.md says of it."""

from __future__ import annotations

import pytest

from ptewalk.model.dirty_log import record_of
from ptewalk.rtl.log.dirty_log import LogConfig

from .log_bench import BASE, PCID, PML, RING, Bench, Steps, run

HIGH = 0xFFFF_8000_1234_5678
"""An address of the upper half."""


def test_a_record_says_what_was_marked() -> None:
    """Size and PCID beside the page, in the first place; the tail moves when memory has it."""

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        bench.epoch = 1
        bench.mark(HIGH, 2)
        yield from bench.settle()
        assert bench.writes == [], "before the swap there is no record"
        bench.answer_swap()
        yield from bench.settle()
        assert [write[0] for write in bench.writes] == [BASE] and bench.tail == 0
        bench.answer_write()
        yield from bench.settle(4)
        assert bench.tail == 1

    word = run(script).memory[BASE]
    assert word == 1 | 2 << 1 | (PCID & 63) << 6 | (HIGH >> 12 & (1 << 45) - 1) << 12 | (PCID >> 6 | 1 << 6) << 57
    assert record_of(word) == (HIGH >> 12 & (1 << 45) - 1, 2, PCID, 1, False, 1)


@pytest.mark.parametrize("setup", [RING, PML], ids=["ring", "PML"])
def test_what_does_not_mark_needs_no_room(setup: dict[str, int]) -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**setup | {"index": 0xFFFF})
        bench.head = -512
        bench.mark(0x1000, marks=0)
        yield from bench.serve()
        assert not bench.marks and not bench.order and not bench.status["stalled"]

    run(script)


def test_a_mark_with_room_passes_in_its_cycle() -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        bench.mark(0x1000)
        yield
        assert len(bench.sent) == 1

    run(script)


def full(bench: Bench, left: int = 0, **setup: int) -> Steps:
    """A ring with room for so many records."""
    yield from bench.set_up(**RING | setup)
    bench.head = left - 512


def test_e1_a_mark_waits_for_room_before_its_swap() -> None:
    def script(bench: Bench) -> Steps:
        yield from full(bench, 2)
        for page in range(4):
            bench.mark(page << 12)
        yield from bench.settle()
        assert len(bench.sent) == 2 and bench.status["stalled"], "room for two is reserved, though neither is done"
        yield from bench.serve(12)
        assert len(bench.marks) == 2 and bench.tail == 2
        bench.head += 1
        yield from bench.serve(12)
        assert len(bench.marks) == 1 and bench.tail == 3

    assert not run(script).status["overflow"]


def test_e1_a_failed_swap_gives_its_room_back_and_leaves_no_hole() -> None:
    """Answers come in another order than the swaps went; the place is taken as the swap is done."""

    def script(bench: Bench) -> Steps:
        yield from full(bench, 3)
        for page in (1, 2, 3):
            bench.mark(page << 12)
        yield from bench.settle()
        for number, done in ((1, 0), (1, 1), (0, 1)):
            bench.answer_swap(number, done=done)
            yield
        bench.mark(4 << 12)
        bench.mark(5 << 12)
        yield from bench.serve(12)
        assert len(bench.marks) == 1, "room for three: the one that failed gave its room to one, and not to two"

    bench = run(script)
    assert bench.order == [BASE, BASE + 8, BASE + 16] and bench.tail == 3
    assert [record_of(bench.memory[at]).page for at in bench.order] == [3, 1, 4]


def test_e1_the_tail_moves_over_records_that_are_written() -> None:
    """In order, whatever the order of memory's answers."""

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        for page in range(3):
            bench.mark(page << 12)
        for _ in range(10):
            if bench.sent:
                bench.answer_swap()
            yield
        assert len(bench.writes) == 3
        for number, tail in ((2, 0), (1, 0), (0, 3)):
            bench.answer_write(number)
            yield from bench.settle(5)
            assert bench.tail == tail

    run(script)


def test_e1_whoever_drains_waits_for_records_and_for_no_later_ones() -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        for page in range(2):
            bench.mark(page << 12)
        for _ in range(8):
            if bench.sent:
                bench.answer_swap()
            yield
        bench.closes = 1
        bench.answer_write()
        yield from bench.settle()
        assert not bench.closed
        bench.mark(5 << 12)
        yield from bench.settle(2)
        bench.answer_swap()
        yield from bench.settle()
        assert len(bench.writes) == 2
        bench.answer_write()
        for _ in range(4):
            yield
            if bench.closed:
                bench.closes = 0
                return
        raise AssertionError("not closed, though what was there before is written")

    run(script)


def test_e1_a_walk_that_waits_for_room_begins_again_where_somebody_waits_for_it() -> None:
    def script(bench: Bench) -> Steps:
        yield from full(bench)
        bench.mark(0x1000)
        yield from bench.settle()
        assert not bench.again
        bench.drains = 1
        yield
        bench.drains = 0
        yield
        assert bench.again == 1 and not bench.sent
        bench.head += 1
        bench.drains = 1
        yield from bench.settle()
        assert bench.again == 1 and len(bench.sent) == 1, "with room it goes on"

    run(script)


@pytest.mark.parametrize("stalls", [0, 1])
def test_e2_overflow_keeps_the_first_lost_address_and_what_was_before(stalls: int) -> None:
    """By configuration at once, or after the time-out; then nobody waits until the flag is cleared."""

    def script(bench: Bench) -> Steps:
        yield from full(bench, 1, stalls=stalls, time_out=30)
        bench.mark(0x1000)
        bench.mark(0x2000)
        bench.mark(0x3000)
        yield from bench.serve(20)
        assert len(bench.marks) == (2 if stalls else 0)
        yield from bench.serve(30)
        assert not bench.marks and bench.status["overflow"] and bench.lost == 0x2000
        assert bench.status["timed_out"] == stalls
        bench.head += 1
        bench.mark(0x4000)
        yield from bench.serve()
        bench.mark(0x5000)
        yield from bench.serve()
        assert bench.lost == 0x2000 and not bench.marks
        bench.clear = {"overflow": 1, "timed_out": 1}
        yield
        bench.clear = {}
        yield
        assert not bench.status["overflow"]
        bench.mark(0x6000)
        yield from bench.serve()
        assert bool(bench.marks) == bool(stalls)

    bench = run(script)
    assert [record_of(bench.memory[at]).page for at in bench.order] == [1, 4], "room that comes is used"
    assert bench.lost == (0x2000 if stalls else 0x6000)


def test_e2_a_mark_that_fails_without_room_loses_nothing() -> None:
    def script(bench: Bench) -> Steps:
        yield from full(bench, stalls=0)
        bench.mark(0x1000)
        yield from bench.settle()
        bench.answer_swap(done=0)
        yield from bench.settle()
        assert not bench.status["overflow"]

    run(script)


def test_e3_without_a_time_out_it_waits_for_good_and_says_so() -> None:
    def script(bench: Bench) -> Steps:
        yield from full(bench)
        bench.mark(0x1000)
        yield from bench.settle(1000)
        assert bench.status["stalled"] and bench.marks and not bench.status["timed_out"]
        bench.head += 1
        yield from bench.serve()
        assert not bench.status["stalled"] and not bench.marks

    run(script)


def test_e4_pml_counts_down_and_stops_behind_its_last_entry() -> None:
    """Bare addresses; neither mark nor access without an index from 0 to 511; a setup goes on."""

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**PML | {"index": 1})
        for page in (1, 2, 3):
            bench.mark(HIGH + (page << 12), level=3)
        yield from bench.serve(14)
        assert bench.index == 0xFFFF and bench.status["stalled"] and len(bench.marks) == 1
        yield from bench.settle(200)
        assert len(bench.marks) == 1 and not bench.status["timed_out"]
        yield from bench.set_up(**PML)
        yield from bench.serve(8)
        assert not bench.marks and bench.index == 510

    bench = run(script)
    assert bench.order == [BASE + 8, BASE, BASE + 8 * 511]
    assert [bench.memory[at] for at in bench.order] == [HIGH - 0x678 + (page << 12) for page in (1, 2, 3)]


@pytest.mark.parametrize("index", [512, 0x8000, 0xFFFF])
def test_e4_an_index_outside_is_no_room(index: int) -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**PML | {"index": index, "time_out": 10})
        bench.mark(0x1000)
        yield from bench.settle(50)
        assert bench.marks and bench.status["stalled"] and not bench.status["timed_out"] | bench.status["overflow"]

    run(script)


@pytest.mark.parametrize("size", [9, 13, 18])
def test_e5_sizes(size: int) -> None:
    """It is full when its last place is taken."""

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING | {"size": size})
        # As if software had never read: it is full when the last place is taken.
        bench.head = 2 - (1 << size)
        for page in range(3):
            bench.mark(page << 12)
        yield from bench.serve(14)
        assert len(bench.marks) == 1 and bench.status["stalled"]

    run(script)


@pytest.mark.thorough
def test_e5_a_larger_ring_wraps_at_its_own_end() -> None:
    """Its last place, and the first one of the next round, whose phase is the other one."""

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING | {"size": 10})
        for page in range(1030):
            bench.mark(page << 12)
        while bench.tail < 1030:
            bench.head = bench.tail
            yield from bench.serve(1)

    bench = run(script, LogConfig(16))
    assert bench.order == [BASE + 8 * (number % 1024) for number in range(1030)]
    assert [record_of(word).phase for word in bench.words] == [1] * 1024 + [0] * 6


@pytest.mark.parametrize("bad", [{"size": size} for size in (0, 8, 19, 31)] + [{"mode": 3}])
def test_e5_another_size_is_refused(bad: dict[str, int]) -> None:
    """And a mode that is none."""

    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING | bad)
        yield
        assert bench.status["refused"]
        bench.mark(0x1000)
        yield from bench.serve()
        assert not bench.marks and not bench.order
        bench.clear = {"refused": 1}
        yield from bench.settle(2)
        assert not bench.status["refused"]

    run(script)


@pytest.mark.parametrize("what", ["record", "swap"])
def test_e6_what_is_not_known_to_be_there(what: str) -> None:
    """A record that is refused is passed; so is a swap whose outcome is unknown, which has none."""

    def script(bench: Bench) -> Steps:
        yield from full(bench, 2)
        bench.mark(0x1000)
        yield from bench.settle()
        bench.answer_swap(done=what == "record", error=what == "swap")
        yield from bench.settle()
        if what == "record":
            bench.answer_write(error=1)
        yield from bench.settle()
        assert bench.status["incomplete"] and not bench.status["overflow"]
        bench.mark(0x2000)
        yield from bench.serve()
        assert bench.tail == 1 + (what == "record")

    run(script)


@pytest.mark.parametrize("setup", [RING, PML | {"index": 3}], ids=["ring", "PML"])
def test_a_mark_and_a_record_of_softwares_do_not_share_a_place(setup: dict[str, int]) -> None:
    """Offered in each cycle around each other, with one place left."""
    for delay in range(8):

        def script(bench: Bench, delay: int = delay) -> Steps:
            yield from bench.set_up(**setup)
            bench.head = 4 - 512
            for page in range(3):
                bench.mark(page << 12)
            for cycle in range(30):
                if cycle == delay:
                    bench.appends.append((0x9000, 1))
                    bench.mark(0xA000)
                yield from bench.serve(1)
            assert len(bench.order) == 4 == len(bench.memory) == bench.tail
            assert len(bench.marks) + len(bench.appends) == 1
            assert min(bench.order) >= BASE and max(bench.order) < BASE + 4096

        run(script, LogConfig(2))


def test_e3_the_time_runs_on_while_a_walk_is_put_back() -> None:
    """Somebody drains every few cycles: the mark that finds no room is put back, and comes again."""

    def script(bench: Bench) -> Steps:
        yield from full(bench, time_out=60)
        bench.mark(0x1000)
        for cycle in range(200):
            bench.drains = cycle % 20 == 19
            if bench.drains:
                waiting = bench.marks.popleft() if bench.marks else None
                yield
                bench.drains = 0
                yield
                bench.marks.extend([waiting] if waiting else [])
            yield
            if not bench.marks:
                break
        assert 60 < cycle * 1.1 < 90, "after its time, and not before"
        assert bench.status["timed_out"]
        bench.answer_swap(done=0)
        bench.mark(0x2000)
        yield from bench.settle(50)
        assert bench.marks, "the first one's time was not the second's"
        yield from bench.settle(20)
        assert not bench.marks

    run(script)


def test_a_mark_waits_again_when_the_overflow_is_cleared() -> None:
    def script(bench: Bench) -> Steps:
        yield from full(bench, time_out=30)
        bench.mark(0x1000)
        yield from bench.serve(40)
        assert bench.status["overflow"] and not bench.marks
        bench.clear = {"overflow": 1}
        yield
        bench.clear = {}
        bench.mark(0x2000)
        yield from bench.serve(20)
        assert bench.marks and not bench.status["overflow"]

    run(script)


def test_an_answer_of_before_a_reset_counts_for_nothing() -> None:
    def script(bench: Bench) -> Steps:
        bench.writes.append((BASE, 0, 0))
        bench.answer_write(error=1)
        yield from bench.settle()
        assert bench.quiet and bench.tail == 0 and not bench.status["incomplete"]
        yield from bench.set_up(**RING)
        bench.mark(0x1000)
        yield from bench.serve()
        assert bench.tail == 1

    run(script)


def test_what_happens_in_the_cycle_of_a_clear_is_told() -> None:
    def script(bench: Bench) -> Steps:
        yield from full(bench, stalls=0)
        for page in (1, 2):
            bench.mark(page << 12)
        yield from bench.settle(3)
        bench.answer_swap()
        yield
        bench.answer_swap()
        bench.clear = {"overflow": 1}
        yield
        bench.clear = {}
        yield from bench.settle(2)
        assert bench.status["overflow"] and bench.lost == 0x2000

    run(script)


def test_without_a_watermark_none_is_told() -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        bench.mark(0x1000)
        yield from bench.serve()
        assert bench.tail == 1 and not bench.status["watermark"]

    run(script)


def test_the_watermark_goes_with_its_cause() -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING | {"watermark": 2})
        bench.mark(0x1000)
        yield from bench.serve()
        assert not bench.status["watermark"]
        bench.mark(0x2000)
        yield from bench.serve()
        assert bench.status["watermark"]
        bench.head = 1
        yield from bench.settle(2)
        assert not bench.status["watermark"]

    run(script)


def test_software_appends_where_there_is_room() -> None:
    def script(bench: Bench) -> Steps:
        bench.appends.append((0x9000, 2))
        yield from bench.settle()
        assert bench.appends, "not while the log is off"
        yield from full(bench, 1)
        yield from bench.serve()
        bench.appends.append((0xA000, 1))
        yield from bench.serve()
        assert len(bench.appends) == 1 and not bench.status["stalled"]

    bench = run(script)
    assert [record_of(word)[:5] for word in bench.memory.values()] == [(9, 2, PCID, 0, True)]


def test_a_record_of_softwares_waits_for_a_setup_of_the_same_cycle() -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        yield from bench.settle()
        bench.setup = PML
        bench.appends.append((0x9000, 1))
        yield from bench.serve(10)

    assert run(script).memory == {BASE + 8 * 511: 0x9000}


def test_a_setup_waits_for_what_is_on_its_way_and_marks_wait_for_it() -> None:
    def script(bench: Bench) -> Steps:
        yield from bench.set_up(**RING)
        bench.mark(0x1000)
        yield from bench.settle()
        bench.setup = PML
        bench.mark(0x2000)
        yield from bench.settle()
        assert bench.setup is not None and len(bench.sent) == 1
        bench.answer_swap()
        yield from bench.settle()
        assert bench.setup is not None
        bench.answer_write()
        yield from bench.settle()
        assert bench.setup is None
        yield from bench.serve()

    assert run(script).order == [BASE, BASE + 8 * 511]


def test_a_swap_on_offer_stays() -> None:
    """Whatever comes: room that goes, a setup, somebody who drains."""

    def script(bench: Bench) -> Steps:
        bench.takes_swaps = False
        yield from full(bench, 1)
        bench.mark(0x1000)
        yield from bench.settle()
        bench.head -= 1
        bench.drains = 1
        bench.setup = PML
        yield from bench.settle()
        assert not bench.again and bench.setup is not None
        bench.takes_swaps = True
        yield from bench.serve(10)
        assert bench.order == [BASE]

    run(script)
