"""Canonical numbering, run compression and table reading, on data typed by hand."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from numpy.typing import NDArray

from ptewalk.cosim.oracles.linux.state import (
    FirstSeenNumbers,
    GuestArea,
    Leaf,
    PageRun,
    ProcessState,
    RunList,
    StateWriter,
    Tables,
    leaf_runs,
    page_runs,
    parse_state,
    read_tables,
    split_leaf,
)

BASE = 0x1000_0000_0000
P, S, F, W, X, D = 1 << 8, 1 << 7, 1 << 6, 1 << 2, 1 << 1, 1
ANON, HUGETLB, THP, ZERO = 1 << 12, 1 << 17, 1 << 22, 1 << 24


class Memory:
    """Physical frames of 512 words."""

    def __init__(self) -> None:
        self.frames: dict[int, NDArray[np.uint64]] = {}

    def __call__(self, frame: int) -> NDArray[np.uint64]:
        return self.frames.setdefault(frame, np.zeros(512, np.uint64))

    def put(self, frame: int, index: int, entry: int) -> None:
        self(frame)[index] = entry


def numbering(*seen: int) -> FirstSeenNumbers:
    """Frames that have the numbers 1, 2, ..."""
    frames = FirstSeenNumbers()
    frames.start_step()
    for frame in seen:
        frames.number(frame)
    return frames


def test_a_number_is_kept_from_step_to_step_only() -> None:
    frames = numbering(0x50, 0x40)
    frames.start_step()
    assert frames.number(0x40) == 2
    assert frames.number(0x77) == 3
    assert frames.number(0x77) == 3
    frames.start_step()
    assert frames.number(0x50) == 4, "it was gone for one step"
    assert frames.number(0x40) == 2


@pytest.mark.parametrize(
    ("items", "runs"),
    [
        ([(0, 1), (1, 2), (2, 3)], [[0, 3, "k", 1, 1]]),
        ([(0, 7), (1, 7), (2, 7)], [[0, 3, "k", 7, 0]]),
        ([(0, 7), (1, 7), (2, 8)], [[0, 2, "k", 7, 0], [2, 1, "k", 8, 0]]),
        ([(0, 1), (1, 2), (2, 2)], [[0, 2, "k", 1, 1], [2, 1, "k", 2, 0]]),
        ([(0, 2), (1, 1)], [[0, 1, "k", 2, 0], [1, 1, "k", 1, 0]]),
        ([(0, 1), (2, 2)], [[0, 1, "k", 1, 0], [2, 1, "k", 2, 0]]),
        ([(0, 1), (1, None), (2, None)], [[0, 1, "k", 1, 0], [1, 2, "k", None, 0]]),
    ],
)
def test_runs(items: list[tuple[int, int | None]], runs: list[list[object]]) -> None:
    out = RunList()
    for page, identity in items:
        out.add(page, 1, ("k",), identity)
    out.flush()
    assert out.runs == runs


def test_runs_of_pages_without_frames_are_not_counted_one_by_one() -> None:
    out = RunList()
    out.add(0, 1_000_000, ("D", ""), None)
    out.add(1_000_000, 5, ("D", ""), None)
    out.flush()
    assert out.runs == [[0, 1_000_005, "D", "", None, 0]]


def test_pages_have_letters_in_the_formats_order() -> None:
    runs = [
        PageRun(0, 1, P | X | D | W | F, 0x20, 0, ANON | THP),
        PageRun(1, 1, P | F, 0x21, 0, ZERO | THP),
        PageRun(2, 1, P, 0x22, 0, HUGETLB | ANON),
        PageRun(3, 2, S | D, 0, 0, 0),
        PageRun(5, 1, P, 0, 0, 0),
    ]
    assert page_runs(runs, numbering()) == [
        [0, 1, "PFWXD", "at", 1, 0],
        [1, 1, "PF", "tz", 2, 0],
        [2, 1, "P", "ah", 3, 0],
        [3, 2, "SD", "", None, 0],
        [5, 1, "P", "", None, 0],
    ]


def test_pages_of_3_11() -> None:
    first_layout = 12
    runs = [
        PageRun(0, 1, P | D, 0x20, 0, ANON | THP),
        PageRun(1, 511, P | D, 0x21, 1, THP),
        PageRun(512, 1, S | D, 5 << 5, 0, 0),
        PageRun(513, 1, S | D, 6 << 5, 0, 0),
        PageRun(514, 1, S | D, 7 << 5, 0, 0),
        PageRun(515, 1, S | D, 3 << 5, 0, 0),
        PageRun(516, 1, S, 2 << 5 | 1, 0, 0),
        PageRun(517, 1, S, 9 << 5, 0, 0),
        PageRun(518, 1, S, 8 << 5, 0, 0),
        PageRun(519, 1, S, 7 << 5, 0, 0),
        PageRun(520, 1, S, 4 << 5, 0, 0),
        PageRun(600, 1, P | F | first_layout, 0x999, 0, 0),
        PageRun(601, 1, S | first_layout, 8 << 5, 0, 0),
        PageRun(602, 9, first_layout, 0, 0, 0),
    ]
    assert page_runs(runs, numbering(), old=True) == [
        [0, 1, "PD", "a", 1, 0],
        [1, 511, "PD", "", 2, 1],
        [512, 3, "SD", "", None, 0, 0, 5, 1],
        [515, 1, "SD", "", None, 0, 0, 3, 0],
        [516, 1, "S", "", None, 0, 1, 2, 0],
        [517, 3, "S", "", None, 0, 0, 9, -1],
        [520, 1, "S", "", None, 0, 0, 4, 0],
        [600, 1, "PF1", "", 513, 0],
        [601, 1, "S1", "", None, 0, 0, 8, 0],
    ]


def test_physically_scattered_frames_make_one_run() -> None:
    runs = [PageRun(0, 1, P, 0x90, 0, ANON), PageRun(1, 2, P, 0x20, 1, ANON)]
    assert page_runs(runs, numbering()) == [[0, 3, "P", "a", 1, 1]]


def test_tables_of_four_levels() -> None:
    memory = Memory()
    memory.put(1, 31, 0x9067)  # below the window
    memory.put(1, 32, 0x2067)
    memory.put(2, 0, 0x3067)
    memory.put(2, 2, 0x4067)
    memory.put(3, 1, 0x5067)
    memory.put(3, 3, 0x80000000004000E7)  # a 2 MiB leaf
    memory.put(4, 0, 0x6067)
    memory.put(5, 511, 0x8000000000123867)
    memory.put(6, 0, 0x7FFFFFFFFF9F0)
    found = read_tables(memory, 0x1000, 4, BASE, 1 << 39)
    assert found.root == 1
    assert found.entries == [
        (4, 0, 0x67, 2),
        (3, 0, 0x67, 3),
        (3, 2 * 262144, 0x67, 4),
        (2, 512, 0x67, 5),
        (2, 2 * 262144, 0x67, 6),
    ]
    assert [(leaf.page, leaf.level, leaf.entry, leaf.upper) for leaf in found.leaves] == [
        (1023, 1, 0x8000000000123867, "67.67.67"),
        (1536, 2, 0x80000000004000E7, "67.67"),
        (2 * 262144, 1, 0x7FFFFFFFFF9F0, "67.67.67"),
    ]


def test_tables_of_five_levels_and_a_gigabyte_leaf() -> None:
    memory = Memory()
    memory.put(1, 0, 0x2067)
    memory.put(2, 32, 0x3067)
    memory.put(3, 1, 0x80000000400000E7)
    found = read_tables(memory, 0x1000, 5, BASE, 1 << 39)
    assert [entry[0] for entry in found.entries] == [5, 4]
    assert [(leaf.page, leaf.level, leaf.upper) for leaf in found.leaves] == [(262144, 3, "67.67")]


def test_runs_of_frames_are_numbered_as_one_by_one() -> None:
    rng = random.Random(1)
    slow, fast = FirstSeenNumbers(), FirstSeenNumbers()
    for _ in range(200):
        if rng.random() < 0.3:
            slow.start_step()
            fast.start_step()
        first, count, second = rng.randrange(40), rng.randint(2, 8), rng.choice((5, 6))
        expected, found = RunList(), RunList()
        for runs in (expected, found):
            runs.add(0, 1, ("k",), 5)
            runs.add(1, 1, ("k",), second)
        identities = [slow.number(first + j) for j in range(count)]
        start = fast.number_run(first, count)
        if start is None:
            assert identities == [fast.number(first + j) for j in range(count)]
            continue
        assert identities == list(range(start, start + count))
        for j, identity in enumerate(identities):
            expected.add(2 + j, 1, ("k",), identity)
        found.add_run(2, count, ("k",), start)
        expected.flush()
        found.flush()
        assert found.runs == expected.runs


def test_an_empty_table_is_still_a_table() -> None:
    memory = Memory()
    memory.put(1, 32, 0x2067)
    found = read_tables(memory, 0x1000, 4, BASE, 1 << 39)
    assert (len(found.entries), found.leaves) == (1, [])


@pytest.mark.parametrize(
    ("level", "entry", "flags", "value", "swapped"),
    [
        (1, 0x8000000012345867, "8000000000000867", 0x12345, False),
        (2, 0x80000000004008E7, "80000000000008e7", 0x400, False),
        (2, 0x80000000004018E7, "80000000000018e7", 0x400, False),  # PAT of a large leaf stays in the flags
        (3, 0x80000000400000E7, "80000000000000e7", 0x40000, False),
        (1, 0x800FFFFFEDCBA960, "8000000000000960", 0x12345, False),  # PROT_NONE: frame inverted
        (3, 0x000FFFFFBFFFF9E0, "3ffff9e0", 0x40000, False),  # PROT_NONE hugetlb inverts the low bits too
        (1, 0x07FFFFFFFFFFFC0A, "a", 1, True),  # swap: type 0, offset 1, exclusive and soft-dirty
        (1, 0xF7FFFFFFFFFFFC00, "f000000000000000", 1, True),  # a marker: type 30
    ],
)
def test_the_frame_field(level: int, entry: int, flags: str, value: int, swapped: bool) -> None:
    found_flags, found_value, found_swapped = split_leaf(level, entry)
    assert (f"{found_flags:x}", found_value, found_swapped) == (flags, value, swapped)


def test_leaf_runs() -> None:
    swap = 0x07FFFFFFFFFFFC0A
    leaves = [
        Leaf(0, 1, 0x8000000000050867, "67.67.67"),
        Leaf(1, 1, 0x8000000000051867, "67.67.67"),
        Leaf(2, 1, 0x8000000000099867, "67.67.67"),  # no page map shows this frame
        Leaf(3, 1, swap, "67.67.67"),
        Leaf(4, 1, swap - (1 << 9), "67.67.67"),
        Leaf(5, 1, 0xF7FFFFFFFFFFFC00, "67.67.67"),
        Leaf(6, 1, 0xF7FFFFFFFFFFFC00, "67.67.67"),
        Leaf(512, 2, 0x80000000004000E7, "67.67"),
        Leaf(1024, 2, 0x80000000006000E7, "67.67"),
    ]
    frames = numbering(0x50, 0x51, *range(0x400, 0x800))
    slots = FirstSeenNumbers()
    slots.start_step()
    assert leaf_runs(leaves, frames, slots) == [
        [0, 2, 1, "8000000000000867", "67.67.67", 1, 1],
        [2, 1, 1, "8000000000000867", "67.67.67", None, 0],
        [3, 2, 1, "a", "67.67.67", 1, 1],
        [5, 2, 1, "f000000000000000", "67.67.67", 1, 0],
        [512, 512, 2, "80000000000000e7", "67.67", 3, 1],
        [1024, 512, 2, "80000000000000e7", "67.67", 515, 1],
    ]


def test_a_process_that_hides_its_frames_shows_those_that_another_shows() -> None:
    shown, hidden = Tables(1, [(4, 0, 0x67, 2)]), Tables(9, [(4, 0, 0x67, 8)])
    shown.leaves = [Leaf(0, 1, 0x50025, "67.67.67")]
    hidden.leaves = [Leaf(0, 1, 0x50045, "67.67.67"), Leaf(1, 1, 0x77867, "67.67.67")]
    vma = GuestArea(0, 2, 0, 0, "rw-p rd wr mr mw me ac io sd")
    state = StateWriter().step(
        {
            0: ProcessState([vma], [PageRun(0, 1, P, 0x50, 0, ANON)], shown),
            1: ProcessState([vma], [PageRun(0, 2, P, 0, 0, 0)], hidden),
        }
    )
    vma_json = {
        "page": 0,
        "n": 2,
        "perm": "rw-p",
        "anon_huge_kb": 0,
        "shmem_huge_kb": 0,
        "flags": ["rd", "wr", "ac", "sd"],
    }
    assert state["0"] == {
        "pages": [[0, 1, "P", "a", 1, 0]],
        "vmas": [vma_json],
        "root": 1,
        "ptes": [[0, 1, 1, "25", "67.67.67", 1, 0]],
        "tables": [[4, 0, "67", 2]],
        "contents": [],
    }
    assert state["1"] == {
        "pages": [[0, 2, "P", "", None, 0]],
        "vmas": [vma_json],
        "root": 3,
        "ptes": [[0, 1, 1, "45", "67.67.67", 1, 0], [1, 1, 1, "867", "67.67.67", None, 0]],
        "tables": [[4, 0, "67", 4]],
        "contents": [],
    }


def test_the_agents_state_records() -> None:
    text = b"rw-p rd wr ac sd".ljust(96, b"\0")
    vma = struct.pack("<4q", BASE + 4096, BASE + 3 * 4096, 0, 4) + text
    run = struct.pack("<6q", (BASE >> 12) + 1, 2, P | D, 0x50, 1, ANON)
    words = np.frombuffer(struct.pack("<3q", 3, 1, 1) + vma + run + struct.pack("<3q", 4, 0, 0), np.int64)
    assert list(parse_state(words, BASE)) == [
        (3, [GuestArea(1, 2, 0, 4, "rw-p rd wr ac sd")], [PageRun(1, 2, P | D, 0x50, 1, ANON)]),
        (4, [], []),
    ]
