"""What a read may give while writes are under way, by hand."""

import random

from ptewalk.cosim.checks.last_written import LastWritten


def read(book: LastWritten, begin: int, end: int, value: int, at: int = 7) -> bool:
    """Whether the byte `value` is permitted to a read from `begin` to `end`."""
    book.read_begins("read", begin)
    return not book.read_ends("read", end, [(at, value)])


def wrote(book: LastWritten, begin: int, end: int, value: int, at: int = 7) -> None:
    book.write_begins("write", begin, [(at, value)])
    book.write_ends("write", end)


def test_the_last_one_before() -> None:
    book = LastWritten()
    assert read(book, 1, 2, 0) and not read(book, 1, 2, 5)
    wrote(book, 3, 4, 5)
    assert [read(book, 5, 6, value) for value in (0, 5)] == [False, True]
    wrote(book, 7, 8, 6)
    assert [read(book, 9, 10, value) for value in (0, 5, 6)] == [False, False, True]
    assert read(book, 9, 10, 0, at=8)
    assert book.bytes_judged == 8 and book.choices == 0


def test_one_that_overlaps() -> None:
    """While it is under way, and when it ended after the read began; the one before it too."""
    book = LastWritten()
    wrote(book, 1, 2, 5)
    book.write_begins("late", 10, [(7, 6)])
    assert [read(book, 3, 4, value) for value in (5, 6)] == [True, False]  # it began after that read
    assert [read(book, 11, 12, value) for value in (0, 5, 6)] == [False, True, True]
    book.write_ends("late", 20)
    assert [read(book, 19, 22, value) for value in (5, 6)] == [True, True]
    assert [read(book, 21, 22, value) for value in (5, 6)] == [False, True]
    assert book.choices == 5


def test_writes_that_overlap_each_other() -> None:
    """Either may be the last one; not what both came after."""
    book = LastWritten()
    wrote(book, 1, 2, 5)
    book.write_begins("one", 3, [(7, 6)])
    book.write_begins("other", 4, [(7, 8)])
    book.write_ends("one", 5)
    book.write_ends("other", 9)
    assert [read(book, 10, 11, value) for value in (5, 6, 8)] == [False, True, True]


def test_one_that_wrote_nothing_and_one_of_which_nobody_knows() -> None:
    book = LastWritten()
    wrote(book, 1, 2, 5)
    book.write_begins("failed", 3, [(7, 6)])
    book.write_ends("failed", 4, written=False)
    assert [read(book, 5, 6, value) for value in (5, 6)] == [True, False]
    book.write_begins("unknown", 7, [(7, 9)])
    book.write_ends("unknown", 8, written=None)
    assert [read(book, 9, 10, value) for value in (5, 6, 9)] == [True, False, True]


def test_what_is_forgotten_changes_nothing() -> None:
    """Beside a book that is read by nobody until the end, so that it forgets at other times."""
    rng = random.Random(3)
    book = LastWritten()
    history: list[tuple[int, int, int]] = []
    now = 0
    for value in range(200):
        book.write_begins(value, now, [(7, value)])
        history.append((now, now + 3, value))
        if value:
            book.write_ends(value - 1, now + 1)
            history[-2] = (history[-2][0], now + 1, value - 1)
        now += rng.randrange(2, 5)
        begin = now
        permitted = {v for b, e, v in history[:-1] if not any(b2 > e and e2 < begin for b2, e2, _ in history[:-1])}
        permitted |= {value}
        assert {v for v in range(200) if read(book, begin, now, v)} == permitted
