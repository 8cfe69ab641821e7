"""What pages contain, read from a guest's memory that is typed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptewalk.cosim.oracles.linux.contents import checksums, contents_runs, mapped_frames, read_contents
from ptewalk.cosim.oracles.linux.state import Leaf, ProcessState, StateWriter, Tables

SUM = "cbf43926"
PROT_NONE = 1 << 8
PS = 1 << 7


def memory(*parts: int, **stores: int) -> list[NDArray[np.uint64]]:
    """Parts of so many frames, with a byte at offset 8 of frame `f<number>`."""
    whole = np.zeros((sum(parts), 512), np.uint64)
    for name, value in stores.items():
        whole[int(name[1:]), 1] = value
    return np.split(whole, np.cumsum(parts)[:-1].tolist())


def entry(frame: int, flags: int = 1) -> int:
    return frame << 12 | flags


def hidden(frame: int, flags: int = 0) -> int:
    """PROT_NONE: bits 12 to 51 are inverted."""
    return (frame << 12) ^ ((1 << 52) - (1 << 12)) | PROT_NONE | flags


def test_the_checksum_is_crc_32() -> None:
    part = np.zeros((1, 512), np.uint64)
    part.view(np.uint8)[0, :9] = list(b"123456789")
    crc = 0xFFFFFFFF
    for byte in part.tobytes():
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    assert checksums([part], np.array([0])).tolist() == [crc ^ 0xFFFFFFFF]


def test_frames_of_all_parts_of_the_memory() -> None:
    parts = memory(4, 3, f1=5, f3=6, f5=5)
    sums = checksums(parts, np.array([0, 1, 3, 5, 6]))
    assert sums[0] == sums[4] == -1, "zeros"
    assert sums[1] == sums[3] > 0
    assert len(set(sums.tolist())) == 3
    with pytest.raises(IndexError, match="frame 0x7 lies beyond"):
        checksums(parts, np.array([0, 7]))
    assert checksums(parts, np.array([], np.int64)).tolist() == []


def test_which_frames_leaves_map() -> None:
    swapped = 0x3FF << 9
    leaves = [
        Leaf(0, 1, entry(0x50), ""),
        Leaf(1, 1, hidden(0x40), ""),
        Leaf(2, 1, swapped, ""),
        Leaf(512, 2, entry(0x600, 1 | PS), ""),
        Leaf(1024, 2, hidden(0x800, PS), ""),
    ]
    pages, frames = mapped_frames(leaves)
    assert pages.tolist() == [0, 1, *range(512, 1536)]
    assert frames.tolist() == [0x50, 0x40, *range(0x600, 0x800), *range(0x800, 0xA00)]
    pages, frames = mapped_frames([Leaf(0, 3, entry(1 << 18, 1 | PS), "")])
    assert (len(pages), pages[-1], frames[0], frames[-1]) == (1 << 18, (1 << 18) - 1, 1 << 18, (2 << 18) - 1)
    assert [len(found) for found in mapped_frames([])] == [0, 0]


def test_runs_are_neighbours_of_equal_contents() -> None:
    pages = np.array([0, 1, 2, 3, 5, 6, 8])
    assert contents_runs(pages, np.array([7, 7, 9, -1, 9, 9, 9])) == [
        [0, 2, "00000007"],
        [2, 1, "00000009"],
        [5, 2, "00000009"],
        [8, 1, "00000009"],
    ]
    assert contents_runs(pages, np.full(7, -1)) == []


def test_contents_of_each_process() -> None:
    parts = memory(8, f3=2, f4=2, f5=9)
    zero = Leaf(7, 1, entry(6), "")
    found = read_contents(parts, {0: [Leaf(0, 1, entry(3), ""), Leaf(1, 1, entry(4), ""), zero], 2: [zero], 3: []})
    assert [run[:2] for run in found[0]] == [[0, 2]]
    assert found[2] == found[3] == []
    assert read_contents(parts, {}) == {}
    assert read_contents(parts, {1: [Leaf(9, 1, entry(5), "")]})[1] != [[9, 1, found[0][0][2]]]


def test_contents_stand_in_the_state_but_for_old_kernels() -> None:
    state = ProcessState([], [], Tables(1), [[0, 1, SUM]])
    assert StateWriter().step({0: state})["0"]["contents"] == [[0, 1, SUM]]  # type: ignore[index]
    assert "contents" not in StateWriter(old=True).step({0: state})["0"]  # type: ignore[operator]
