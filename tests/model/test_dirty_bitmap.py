"""The golden bitmap, its words typed by hand."""

from __future__ import annotations

import numpy as np

from ptewalk.model.dirty_bitmap import dirty_bitmap


def pages(count: int, *dirty: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.isin(np.arange(count), dirty)


def test_a_bit_a_page() -> None:
    assert dirty_bitmap(pages(66, 0, 5, 63, 65), 128).tolist() == [1 << 63 | 0x21, 2]
    # From page 130 on, which is bit 2 of its word.
    assert dirty_bitmap(pages(4, 0, 3), 130).tolist() == [0b100100]


def test_a_bit_for_some_pages() -> None:
    """Of 4 pages, from the page 254 on: 254 and 255 are the last bit of a word, 256 to 259 the first of the next."""
    assert dirty_bitmap(pages(6, 1), 254, unit=2).tolist() == [1 << 63, 0]
    assert dirty_bitmap(pages(6, 2, 5), 254, unit=2).tolist() == [0, 1]
    assert dirty_bitmap(pages(1025, 511, 512, 1024), 0, unit=9).tolist() == [0b111]


def test_bits_that_are_there_stay() -> None:
    there = np.array([0xF0, 1 << 40], np.uint64)
    assert dirty_bitmap(pages(100, 0, 64), 0, there=there).tolist() == [0xF1, 1 << 40 | 1]
    assert there.tolist() == [0xF0, 1 << 40]
