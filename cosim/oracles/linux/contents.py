"""What the pages of a guest's processes contain: a checksum of every frame that is mapped, read from its memory.

Nothing here asks the guest: as with the tables, the memory is read while nothing runs.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.oracles.linux.state import LAST_FRAME_BIT, PROT_NONE_BIT, Leaf
from ptewalk.model import x86

_ZEROS = -1
"""Stands for the checksum of a page of zeros, which a recording leaves out."""


def read_contents(
    memory: Sequence[NDArray[np.uint64]], leaves: dict[int, list[Leaf]]
) -> dict[int, list[list[int | str]]]:
    """The `contents` field of each process whose `leaves` are given; each frame is read once.

    Parameters
    ----------
    memory : sequence of uint64 arrays (frames, 512)
        The guest's memory, one part after the other.
    leaves : dict
        Process to its leaves, ascending.
    """
    places = {who: mapped_frames(found) for who, found in leaves.items()}
    frames = np.unique(np.concatenate([np.empty(0, np.int64), *(own for _, own in places.values())]))
    sums = checksums(memory, frames)
    return {who: contents_runs(pages, sums[np.searchsorted(frames, own)]) for who, (pages, own) in places.items()}


def mapped_frames(leaves: Sequence[Leaf]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Page numbers, ascending, and the frame of each, of all that `leaves` map: PROT_NONE too, swapped not.

    Parameters
    ----------
    leaves : sequence of Leaf
        In ascending order, as `read_tables` gives them.
    """
    entries = np.array([leaf.entry for leaf in leaves], np.uint64)
    first = np.array([leaf.page for leaf in leaves], np.int64)
    shifts = np.array([x86.LEVEL_SHIFT[leaf.level] for leaf in leaves], np.uint64)
    present = (entries & np.uint64(1)) != 0
    chosen = present | (entries >> np.uint64(PROT_NONE_BIT) & np.uint64(1) != 0)
    frames = np.where(present, entries, ~entries) & np.uint64((1 << LAST_FRAME_BIT + 1) - 1)
    frames = frames >> shifts << (shifts - np.uint64(x86.PAGE_SHIFT))
    counts = (np.int64(1) << (shifts - np.uint64(x86.PAGE_SHIFT)).astype(np.int64))[chosen]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pages = np.repeat(first[chosen], counts) + within
    return pages, np.repeat(frames[chosen].astype(np.int64), counts) + within


def checksums(memory: Sequence[NDArray[np.uint64]], frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """CRC-32 of the 4096 bytes of each of `frames`, -1 for one of zeros.

    Parameters
    ----------
    memory : sequence of uint64 arrays (frames, 512)
        The guest's memory, one part after the other.
    frames : int64 array
        Frame numbers, ascending.

    Raises
    ------
    IndexError
        A frame lies beyond the guest's memory.
    """
    out = np.full(len(frames), _ZEROS, np.int64)
    start = 0
    for part in memory:
        low, high = np.searchsorted(frames, (start, start + len(part))).tolist()
        edges = [low, *(np.flatnonzero(np.diff(frames[low:high]) != 1) + low + 1).tolist(), high]
        for first, last in zip(edges[:-1], edges[1:], strict=True):
            if first == last:
                continue
            rows = part[frames[first] - start : frames[last - 1] - start + 1]
            used = np.flatnonzero(rows.any(axis=1)).tolist()
            out[[first + j for j in used]] = [zlib.crc32(rows[j].data) for j in used]
        start += len(part)
    if len(frames) and frames[-1] >= start:
        raise IndexError(f"frame {frames[-1]:#x} lies beyond the guest's memory")
    return out


def contents_runs(pages: NDArray[np.int64], sums: NDArray[np.int64]) -> list[list[int | str]]:
    """The `contents` field: runs [page, n, checksum] of neighbours with equal contents; pages of zeros are left out."""
    used = sums != _ZEROS
    pages, sums = pages[used], sums[used]
    starts = np.flatnonzero(np.r_[True, (np.diff(pages) != 1) | (np.diff(sums) != 0)][: len(pages)])
    counts = np.diff(np.r_[starts, len(pages)])
    return [[int(pages[at]), int(count), f"{sums[at]:08x}"] for at, count in zip(starts, counts, strict=True)]
