"""Runs: what the format writes instead of a value per page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Runs = list[list[Any]]


def starts(pages: NDArray[np.int64], words: NDArray[np.uint64], chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Runs of chosen neighbours with equal words: (first, last + 1)."""
    where = chosen.nonzero()[0]
    if not len(where):
        return []
    at, word = pages[where], words[where]
    breaks = (where[1:] - where[:-1] != 1) | (at[1:] - at[:-1] != 1) | (word[1:] != word[:-1])
    inner = (breaks.nonzero()[0] + 1).tolist()
    firsts, lasts = [0, *inner], [*inner, len(where)]
    return [(int(where[a]), int(where[b - 1]) + 1) for a, b in zip(firsts, lasts, strict=True)]


def group(pages: NDArray[np.int64], keys: tuple[NDArray[Any], ...], ids: NDArray[Any]) -> list[tuple[int, int, int]]:
    """Runs of neighbouring pages with equal keys and ids that stay or count up: (first, last + 1, step)."""
    count = len(pages)
    if count == 1:
        return [(0, 1, 0)]
    deltas = ids[1:] - ids[:-1]
    hard = (pages[1:] - pages[:-1] != 1) | (deltas >> 1 != 0)
    for key in keys:
        hard |= key[1:] != key[:-1]
    steps = np.where(hard, -1, deltas)
    edges = [0, *((steps[1:] != steps[:-1]).nonzero()[0] + 1).tolist(), count - 1]
    runs: list[tuple[int, int, int]] = []
    first = 0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        step = int(steps[low])
        if step < 0:
            runs.extend((at, at + 1, 0) for at in range(first, high))
            first = high
            continue
        if first > high:
            continue
        if first == high:
            continue
        runs.append((first, high + 1, step))
        first = high + 1
    if first < count:
        runs.append((first, count, 0))
    return runs


def merge_holes(holes: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Join neighbouring runs without frames that have the same word."""
    merged: list[tuple[int, int, int]] = []
    for start, count, word in holes:
        if merged and merged[-1][2] == word and merged[-1][0] + merged[-1][1] == start:
            merged[-1] = (merged[-1][0], merged[-1][1] + count, word)
        else:
            merged.append((start, count, word))
    return merged


def join_entries(runs: Runs) -> Runs:
    """Join runs of small entries that meet at a table's end."""
    joined: Runs = []
    for run in runs:
        last = joined[-1] if joined else None
        if (
            last
            and last[2] == run[2] == 1
            and last[0] + last[1] == run[0]
            and last[3] == run[3]
            and last[5] is not None
            and run[5] is not None
        ):
            step = last[6] if last[1] > 1 else run[5] - last[5]
            if step in (0, 1) and run[5] == last[5] + last[1] * step and (run[1] == 1 or run[6] == step):
                last[1] += run[1]
                last[6] = step
                continue
        joined.append(run)
    return joined


def page_table(runs: Sequence[Sequence[Any]]) -> dict[int, tuple[Any, ...]]:
    """`pages` by page: (flags, kind, id, swap type, swap offset)."""
    table: dict[int, tuple[Any, ...]] = {}
    for run in runs:
        start, count, flags, kind, number, step = run[:6]
        slot = run[6:9] if len(run) == 9 else None
        for j in range(count):
            swapped = (slot[0], slot[1] + j * slot[2]) if slot else ()
            table[start + j] = (flags, kind, None if number is None else number + j * step, *swapped)
    return table


def entry_table(runs: Sequence[Sequence[Any]], ignored: int = 0) -> dict[tuple[int, int], tuple[Any, ...]]:
    """`ptes` by (page, level): (flags without `ignored`, upper, id); a huge leaf is one."""
    table: dict[tuple[int, int], tuple[Any, ...]] = {}
    for start, count, level, flags, upper, number, step in runs:
        value = int(flags, 16) & ~ignored
        if level > 1:
            table[start, level] = (value, upper, number)
            continue
        for j in range(count):
            table[start + j, 1] = (value, upper, None if number is None else number + j * step)
    return table


def contents_table(runs: Sequence[Sequence[Any]]) -> dict[int, str]:
    """`contents` by page: its checksum."""
    return {start + j: text for start, count, text in runs for j in range(count)}
