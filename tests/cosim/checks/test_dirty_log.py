"""The judge of a dirty log, alone."""

from ptewalk.cosim.checks.dirty_log import OVERFLOW, LogJudge, Ring
from ptewalk.model.dirty_log import COUNTS, DirtyLog

RING = Ring(0x50000, 512, 5, overflows=True)
PAGES = (0x1C0001, 0x1C0703, 0x1C00D5, 0x1C0703)
"""Of marks, in order: the first has the last room of the ring, the last has room again."""


def judged(*, first_lost: int) -> LogJudge:
    """After an invalidation whose end waits for the records of the marks before the last one."""
    golden = DirtyLog(RING.base, RING.size)
    judge = LogJudge(RING, head=-(RING.size - 1) % COUNTS)
    for number, page in enumerate(PAGES):
        if number == 3:
            judge.end("an invalidation", 3)
            judge.read(0)
        judge.mark(page)
        if number in (0, 3):
            golden.mark(page << 12, 1, pcid=RING.pcid)
            address = golden.order[-1]
            judge.write(address, golden.written[address])
            judge.told(golden.tail)
        else:
            judge.flags(OVERFLOW, first_lost << 12)
    judge.close()
    return judge


def test_a_record_is_not_of_a_mark_that_found_the_ring_full() -> None:
    """Its page was marked before, without room: a record that comes later was not due as an invalidation ended."""
    judge = judged(first_lost=PAGES[1])
    assert judge.problems == []
    assert judge.counts["lost"] == 2 and judge.counts["records"] == 2


def test_the_first_lost_page_is_that_of_the_first_mark_that_found_it_full() -> None:
    assert judged(first_lost=PAGES[2]).problems == [f"the first lost page is {PAGES[2]}, not [{PAGES[1]}]"]
