"""What the files of /proc of a live kernel say: the `files` of a recorded step."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.oracles.linux.state import PageRun, parse_state
from ptewalk.model import x86

__all__ = ["Reader", "ended", "read_files"]

Reader = Callable[[str, int, int], bytes | str]
"""Bytes of a file, or an errno's name: path, or "" for the one that is open; offset; count."""
MOST: Final = 1 << 20
WINDOW_BYTES: Final = 1 << 39
_PRESENT: Final = 1 << 63 - 55


def ended(read: Reader, who: int, base: int) -> dict[str, Any]:
    """What the pagemap of a process that has ended, opened before, says of page 0: how many bytes, or why not."""
    seen = read("", base // x86.PAGE_BYTES * 8, 8)
    return {f"{who + 1}/pagemap": seen if isinstance(seen, str) else len(seen)}


def read_files(read: Reader, pids: dict[int, int], base: int, state: NDArray[np.int64]) -> dict[str, Any]:
    """The files of the live processes, by the names that the model's tree has.

    Parameters
    ----------
    pids : dict
        Process to the guest's number of it.
    state : int64 array
        The agent's record of the step.

    Returns
    -------
    dict
        ``PID/smaps``: the text, of the window's areas, each with address, rights and offset as its first line.
        ``PID/smaps_rollup``, ``PID/status``: the names of the lines. ``PID/kpageflags``: [page, pages, word] of what is
        mapped.
    """
    out: dict[str, Any] = {}
    for who, _, pages in parse_state(state, base):
        folder, name = f"/proc/{pids[who]}", f"{who + 1}"
        out[f"{name}/smaps"] = window_of(_text(read(f"{folder}/smaps", 0, MOST)), base)
        for file in ("smaps_rollup", "status"):
            out[f"{name}/{file}"] = line_names(_text(read(f"{folder}/{file}", 0, MOST)))
        out[f"{name}/kpageflags"] = _flags(read, pages)
    return out


def _text(seen: bytes | str) -> str:
    return seen if isinstance(seen, str) else seen.decode()


def window_of(smaps: str, base: int) -> str:
    """Of the text of smaps the areas of the window, without device, inode and name."""
    kept: list[str] = []
    inside = False
    for line in smaps.splitlines():
        start, dash, _ = line.partition("-")
        if dash and ":" not in start:
            inside = base <= int(start, 16) < base + WINDOW_BYTES
            line = " ".join(line.split()[:3])
        if inside:
            kept.append(line)
    return "\n".join(kept)


def line_names(text: str) -> list[str]:
    """What stands before the colons."""
    return [line.split(":")[0] for line in text.splitlines() if ":" in line.split(" ")[0]]


def _flags(read: Reader, runs: list[PageRun]) -> list[list[Any]]:
    words: list[tuple[int, int]] = []
    read("/proc/kpageflags", 0, 0)
    for run in runs:
        for j in range(run.count if run.flags & _PRESENT and run.frame else 0):
            seen = read("", 8 * (run.frame + j * run.step), 8)
            assert isinstance(seen, bytes)
            words.append((run.page + j, int.from_bytes(seen, "little")))
    return flag_runs(words)


def flag_runs(words: list[tuple[int, int]]) -> list[list[Any]]:
    """[page, pages, word] of neighbours with the same word."""
    out = []
    for (_, word), group in groupby(enumerate(words), lambda item: (item[1][0] - item[0], item[1][1])):
        pages = [page for _, (page, _) in group]
        out.append([pages[0], len(pages), f"{word:x}"])
    return out
