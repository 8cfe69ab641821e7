"""Pagemap words of many tables at once: the same as those that are made entry by entry's frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.formats.samples import KERNELS as RECORDED
from ptewalk.cosim.formats.scenarios import load
from ptewalk.model.linux import PagemapBit
from ptewalk.model.memory import SparseMemory
from ptewalk.model.proc import pagemap
from ptewalk.model.profiles import PROFILES
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.verbs import Unsupported
from ptewalk.model.state import frames as page
from ptewalk.model.state.frames import Frames
from ptewalk.model.state.machine import Mm
from ptewalk.model.x86 import TABLE_ENTRIES

TABLES = 70
"""More than are worked on at once."""


@contextmanager
def always(pays: bool, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Anonymous areas are read by many tables, however small, or never."""
    with monkeypatch.context() as patch:
        patch.setattr(pagemap._Many, "pays", staticmethod(lambda mm, vma, pages: pays and vma.is_anonymous))
        yield


def both(monkeypatch: pytest.MonkeyPatch, mm: Mm, start: int, pages: int) -> tuple[list[int], list[int]]:
    """The words by many tables, and frame by frame."""
    told = []
    for pays in (True, False):
        with always(pays, monkeypatch):
            told.append(pagemap.read(mm, start, pages).tolist())
    return told[0], told[1]


def private(frames: Frames) -> list[bool]:
    """`private_blocks`, frame by frame."""
    kinds = []
    for block in range(-(-frames.next // TABLE_ENTRIES)):
        run = range(TABLE_ENTRIES * block, TABLE_ENTRIES * (block + 1))
        small = all(not frames.maps[f] or (frames.maps[f] == 1 and frames.flags[f] & page.ANON) for f in run)
        huge = any(f in frames.huge_maps or frames.flags[f] & page.ZERO for f in run if frames.head[f] == f)
        kinds.append(bool(small and not huge and block))
    return kinds


@pytest.mark.thorough
@pytest.mark.parametrize("name", [name for name in RECORDED if PROFILES[name].pagemap_tells_exclusive])
def test_recorded_states(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Every area after every step: forks, swap, KSM, files, huge pages, hidden and zero pages."""
    areas = 0
    for scenario in load([RECORDED[name]]):
        run = Replay(scenario, PROFILES[name])
        for _ in scenario.steps:
            try:
                run.step()
            except Unsupported:
                break
            due = private(run.kernel.frames)
            assert run.kernel.frames.private_blocks().tolist() == due
            before = [due[:block].count(False) for block in range(len(due) + 1)]
            assert run.kernel.frames.shared_before().tolist() == [*before, before[-1] + 1]
            for process in run.kernel.processes.values():
                for vma in process.mm.areas:
                    if vma.end - vma.start <= 1 << 16:
                        one, other = both(monkeypatch, process.mm, vma.start, vma.end - vma.start)
                        assert one == other, scenario.name
                        areas += 1
    assert areas > 300


def test_whatever_maps_frames_is_noticed() -> None:
    """`private_blocks` after each change of one frame, or of a huge page, in blocks that it has told of before."""
    frames = Frames(SparseMemory())
    single = [frames.alloc(0) for _ in range(4 * TABLE_ENTRIES)][::TABLE_ENTRIES]
    huge, gone = frames.alloc_compound(page.COMPOUND), frames.alloc_compound(page.COMPOUND)
    some = np.array(single[2:], np.int64)
    steps: list[tuple[Callable[..., object], Any]] = [
        (frames.add_new_anon_rmap, (single[1], 1, 1)),
        (frames.add_rmap, (single[1],)),
        (frames.remove_rmap, (single[1],)),
        (frames.add_rmap, (single[2],)),
        (frames.share_rmaps, (some,)),
        (frames.remove_rmaps, (some,)),
        (frames.remove_rmap, (single[2],)),
        (frames.add_anon_rmap, (single[3], 1, 1)),
        (frames.remove_rmap, (single[3],)),
        (frames.add_new_huge_anon_rmap, (huge, 1, 1)),
        (frames.share_huge_rmap, (huge,)),
        (frames.remove_huge_rmap, (huge,)),
        (frames.remove_huge_rmap, (huge,)),
        (frames.add_huge_rmap, (huge,)),
        (frames.split_huge_rmap, (huge,)),
        (frames.add_rmap, (huge + 7,)),
        (frames.migrate, (huge, gone, TABLE_ENTRIES)),
        (frames.get_huge_zero, ()),
        (frames.free, (single[1],)),
        (frames.alloc, (0,)),
    ]
    seen: list[list[bool]] = []
    for change, given in steps:
        change(*given)
        seen.append(frames.private_blocks().tolist())
        assert seen[-1] == private(frames), change.__name__
    assert sum(one != other for one, other in pairwise(seen)) > 12


@pytest.mark.parametrize("name", ["linux-6.1", "linux-6.12", "linux-7.3"])
def test_tables_of_all_kinds(monkeypatch: pytest.MonkeyPatch, machine: type, name: str) -> None:
    """Private tables beside such with a page that is shared, zero, swapped, hidden, or below a huge page."""
    m = machine(name)
    m.mmap(5, TABLE_ENTRIES * TABLES)
    m.mmap(TABLE_ENTRIES * (TABLES + 2), TABLE_ENTRIES, "rw", "sanon")
    for table in range(TABLES):
        first = 5 + TABLE_ENTRIES * table
        if table % 3:
            m.madvise(TABLE_ENTRIES * (table + 1), TABLE_ENTRIES, "HUGEPAGE")
        m.write(first + 11)
    m.clear()
    for table in range(3, TABLES, 4):
        first = TABLE_ENTRIES * table
        m.madvise(first + 3, 5, "DONTNEED")
        if table % 16 == 7:
            m.read(first + 4)
        m.write(first + 20, 9)
        if table % 16 == 11:
            m.madvise(first, 40, "PAGEOUT")
        if table % 16 == 15:
            m.mprotect(first + 21, 2, "-")
    mm, start, pages = m.mm(), m.kernel.base, TABLE_ENTRIES * (TABLES + 1)
    told: list[np.ndarray] = []
    for turn in range(3):
        if turn == 1:
            m.fork()
        if turn == 2:
            for table in range(0, TABLES, 7):
                m.write(TABLE_ENTRIES * table + 30, 3)
        one, other = both(monkeypatch, mm, start + turn, pages - turn)
        assert one == other
        told.append(np.array(one, np.uint64))
        blocks = m.kernel.frames.private_blocks().tolist()
        assert blocks == private(m.kernel.frames) and any(blocks) and not all(blocks)
        first, last = 6 * TABLE_ENTRIES, 40 * TABLE_ENTRIES + 77
        assert pagemap.read(mm, start + first, last - first).tolist() == one[first - turn : last - turn]
    share = [(words >> np.uint64(PagemapBit.EXCLUSIVE) & np.uint64(1)).mean() for words in told]
    assert share[0] > 0.4 and not share[1] and 0 < share[2] < 0.1
    assert any((words >> np.uint64(PagemapBit.SWAP) & np.uint64(1)).any() for words in told)


def test_when_it_is_done(monkeypatch: pytest.MonkeyPatch, machine: type) -> None:
    """Of anonymous memory of many pages, by a kernel that tells what is mapped once; not by compiled code."""
    calls: list[int] = []
    put = pagemap._Many.put

    def noted(many: pagemap._Many, first: int, last: int, out: np.ndarray) -> None:
        calls.append(last - first)
        put(many, first, last, out)

    monkeypatch.setattr(pagemap._Many, "put", noted)
    m = machine("linux-6.12")
    m.mmap(0, 16 * TABLE_ENTRIES)
    m.mmap(16 * TABLE_ENTRIES, 16 * TABLE_ENTRIES, "rw", "sanon")
    m.write(0, 8 * TABLE_ENTRIES)
    m.write(16 * TABLE_ENTRIES, 8 * TABLE_ENTRIES)
    pagemap.read(m.mm(), m.kernel.base, 32 * TABLE_ENTRIES)
    assert calls == [8 * TABLE_ENTRIES]
    pagemap.read(m.mm(), m.kernel.base, 7 * TABLE_ENTRIES)
    assert len(calls) == 1
