"""Many page tables at once: what they are found to be, wherever their words lie in memory."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptewalk.model.pte import A
from ptewalk.model.state.tables import ALL_TABLES, PMD_PAGES, SPAN_TABLES, PageTables
from ptewalk.model.state.vma import Vma

ORDERS = ([0, 1, 2, 3, 4, 5], [0, 2, 1, 3, 4, 5], [5, 3, 1, 4, 2, 0])


def tables_made(machine: type, order: list[int]) -> tuple[PageTables, int]:
    """An area whose page tables are made in this order, all of other entries; its tables, and its first page."""
    m = machine("linux-6.1")
    m.mmap(0, PMD_PAGES * len(order))
    for block in order:
        m.read(PMD_PAGES * block)  # the zero page: only a table is new
    tables: PageTables = m.mm().tables
    for block in order:
        first = m.kernel.base + PMD_PAGES * block
        tables.write(first, np.arange(PMD_PAGES, dtype=np.uint64) + np.uint64(1000 * block))
    return tables, m.kernel.base


@pytest.mark.parametrize("order", ORDERS)
def test_tables_that_lie_anywhere(machine: type, order: list[int]) -> None:
    """Neighbours in memory or not, in order or not: they read and change as if they lay side by side."""
    tables, base = tables_made(machine, order)
    first, last = base + 100, base + PMD_PAGES * len(order) - 50
    due = np.concatenate([tables.part(at, at + PMD_PAGES) for at in range(base, base + 6 * PMD_PAGES, PMD_PAGES)])
    assert (tables.look(first, last) == due[100:-50]).all() and not tables.look(first, last).flags.writeable
    kept = tables.entries(first, last)
    tables.change(first, last, lambda part: np.add(part, np.uint64(7), out=part))
    assert (tables.look(first, last) == due[100:-50] + np.uint64(7)).all() and (kept == due[100:-50]).all()
    assert tables.get(first - 1) == due[99] and tables.get(last) == due[-50]


def test_tables_that_changed_places(machine: type) -> None:
    """What was found before of a run of tables is not remembered."""
    tables, base = tables_made(machine, [0, 1, 2])
    run = base, base + 3 * PMD_PAGES
    before = tables.entries(*run).reshape(3, PMD_PAGES)
    assert len({part.tobytes() for part in before}) == 3
    due = tables.upper_entries(*run)
    assert [row[0] for row in due] == [4, 3, 2, 2, 2]
    first, second = (tables.unlink(base + at * PMD_PAGES, 1) for at in (0, 1))
    assert [row[:2] for row in tables.upper_entries(*run)] == [row[:2] for row in (*due[:2], due[4])]
    tables.link(base, 1, second)
    tables.link(base + PMD_PAGES, 1, first)
    assert (tables.look(*run).reshape(3, PMD_PAGES) == before[[1, 0, 2]]).all()
    assert [row[3] for row in tables.upper_entries(*run)] == [*(row[3] for row in due[:2]), second, first, due[4][3]]
    tables.memory.store(tables.entry_address(base, 2), due[2][2] | A)
    assert tables.upper_entries(*run)[2][2] == due[2][2] | A, "entries are read each time"


def test_what_an_engine_moved_is_found_where_it_went(machine: type) -> None:
    """A table, and a leaf of level 2: what was found before is not remembered at the old place."""
    m = machine("linux-6.1")
    m.mmap(0, 6 * PMD_PAGES)
    m.madvise(4 * PMD_PAGES, 2 * PMD_PAGES, "HUGEPAGE")
    m.read(0)  # a table
    m.write(4 * PMD_PAGES)  # a leaf
    tables, base = m.mm().tables, m.kernel.base
    areas = m.mm().areas.in_range(base, base + 6 * PMD_PAGES)

    def blocks(area: Vma) -> list[tuple[int, bool]]:
        return [((p.first - base) // PMD_PAGES, bool(p.leaf)) for p in tables.pieces(area, area.start, area.end)]

    assert sum((blocks(area) for area in areas), []) == [(0, False), (4, True)]
    tables.relinked(base, base + 2 * PMD_PAGES, 1)
    assert sum((blocks(area) for area in areas), []) == [(2, False), (4, True)]
    leaf = tables.get_huge(base + 4 * PMD_PAGES)
    tables.memory.store(tables.entry_address(base + 5 * PMD_PAGES, 2), leaf)
    tables.moved_huge(base + 4 * PMD_PAGES, base + 5 * PMD_PAGES)
    assert sum((blocks(area) for area in areas), []) == [(2, False), (5, True)]


def test_more_tables_than_are_changed_at_once(machine: type) -> None:
    """Those that lie apart are changed in parts, each entry once."""
    count = 2 * SPAN_TABLES + 3
    tables, base = tables_made(machine, random.Random(1).sample(range(count), count))
    parts: list[int] = []

    def change(part: np.ndarray) -> None:
        parts.append(len(part))
        part += np.uint64(1)

    before = tables.entries(base + 10, base + PMD_PAGES * count - 20)
    tables.change(base + 10, base + PMD_PAGES * count - 20, change)
    assert (tables.entries(base + 10, base + PMD_PAGES * count - 20) == before + np.uint64(1)).all()
    assert parts == [SPAN_TABLES * PMD_PAGES - 10, SPAN_TABLES * PMD_PAGES, 3 * PMD_PAGES - 20]


@pytest.mark.parametrize("together", [1, 3, ALL_TABLES])
def test_pieces_of_many_blocks_are_those_of_few(machine: type, together: int) -> None:
    """Tables, leaves and nothing at all, in any order: looked up one by one, or found in an index."""
    m = machine("linux-6.1")
    rng = random.Random(together)
    m.mmap(0, 40 * PMD_PAGES)
    m.madvise(0, 40 * PMD_PAGES, "HUGEPAGE")
    (vma,) = m.mm().areas.in_range(m.kernel.base, m.kernel.base + 1)
    for block in rng.sample(range(40), 28):
        m.write(PMD_PAGES * block)
        if rng.random() < 0.6:
            m.madvise(PMD_PAGES * block + 3, 1, "DONTNEED")  # which breaks the huge page up
        for _ in range(4):
            start, end = sorted(rng.sample(range(vma.start, vma.end + 1), 2))
            low, high = start >> 9, (end - 1) >> 9
            tables = m.mm().tables
            pieces = [(p.first, p.last, bool(p.leaf)) for p in tables.pieces(vma, start, end, together=together)]
            few = tables._few_runs(low, high, together)
            assert pieces == [(max(start, a << 9), min(end, b << 9), huge) for a, b, huge in few]
    assert {huge for _, _, huge in pieces} == {False, True}
