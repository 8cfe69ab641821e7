"""Trace files: the project's own, and the text of valgrind's tool lackey.

A file of the project's own is the line "ptewalk trace 1" and then little-endian words of 64 bits: the kind in bits
63:60, a linear address below. A kind is `x86.Access` (0 read, 1 write, 2 read-modify-write, 3 fetch), with 8 added when
the operating system accesses; 14 ends an epoch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.trace_lane import KIND_SHIFT
from ptewalk.model.linux import TASK_PAGES
from ptewalk.model.x86 import PAGE_BYTES, PAGE_SHIFT, Access

__all__ = ["EPOCH", "LINEAR", "Words", "pages_of", "read_words", "touched", "write_header"]

Words = NDArray[np.uint64]
EPOCH: Final = 14
LINEAR: Final = (1 << KIND_SHIFT) - 1
_HEADER: Final = b"ptewalk trace 1\n"
_KNOWN: Final = frozenset(kind | supervisor for kind in range(4) for supervisor in (0, 8)) | {EPOCH}
_CHUNK: Final = 1 << 20
"""Words at a time; lines of a text."""
_LACKEY: Final = {b"I ": Access.FETCH, b" L": Access.READ, b" S": Access.WRITE, b" M": Access.RMW}
_LINE: Final = re.compile(rb"(I | L| S| M)  ?([0-9a-fA-F]{1,16}),([0-9]{1,4})")
_LAST: Final = TASK_PAGES[4] << PAGE_SHIFT


def write_header(stream: BinaryIO) -> None:
    """The first line of a file of the project's own."""
    stream.write(_HEADER)


def read_words(path: Path) -> Iterator[Words]:
    """The accesses of a file, of either format, in pieces. Raises `ToolError`."""
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_HEADER))
            if start == _HEADER:
                yield from _own(path, handle)
            elif start.startswith(_HEADER[:14]):
                raise ToolError(f"{path}: another version of a trace; this ptewalk reads version 1")
            else:
                handle.seek(0)
                yield from _lackey(path, handle)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; name a trace file") from error


def _own(path: Path, handle: BinaryIO) -> Iterator[Words]:
    place = len(_HEADER)
    while data := handle.read(8 * _CHUNK):
        if len(data) % 8:
            raise ToolError(f"{path}: it is cut off in the midst of a word; record it again")
        words: Words = np.frombuffer(data, "<u8").astype(np.uint64)
        kinds = words >> np.uint64(KIND_SHIFT)
        bad = ~np.isin(kinds, sorted(_KNOWN)) | ((words & np.uint64(LINEAR)) >= _LAST)
        if bad.any():
            at = int(bad.argmax())
            raise ToolError(f"{path}: byte {place + 8 * at}: {int(words[at]):#018x} is no access of a trace")
        place += len(data)
        yield words


def _lackey(path: Path, handle: BinaryIO) -> Iterator[Words]:
    """Lines of `valgrind --tool=lackey --trace-mem=yes`; its own remarks, which begin with ==, are passed over."""
    found: list[int] = []
    some = False
    for number, line in enumerate(handle, 1):
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            if line.startswith((b"==", b"--")) or not line.strip():
                continue
            raise ToolError(
                f"{path}: line {number} is no access: give lines of valgrind's lackey, such as ' S 1ffefffe80,8', "
                "or a file that begins with 'ptewalk trace 1'"
            )
        linear, size = int(match[2], 16), int(match[3])
        if linear + size > _LAST:
            raise ToolError(f"{path}: line {number}: {linear:#x} is no address of a program")
        kind = _LACKEY[match[1]] << KIND_SHIFT
        found.append(kind | linear)
        end = linear + size - 1
        if size and (end ^ linear) >> PAGE_SHIFT:
            found.append(kind | end & -PAGE_BYTES)
        some = True
        if len(found) >= _CHUNK:
            yield np.array(found, np.uint64)
            found.clear()
    if not some:
        raise ToolError(f"{path}: no access in it; name a trace file")
    yield np.array(found, np.uint64)


def touched(path: Path) -> tuple[Words, int]:
    """The pages that a file touches, ascending, and how many accesses it has. Raises `ToolError`."""
    pages: set[int] = set()
    count = 0
    for words in read_words(path):
        real = words[words >> np.uint64(KIND_SHIFT) != EPOCH]
        count += len(real)
        pages.update(np.unique((real & np.uint64(LINEAR)) >> np.uint64(PAGE_SHIFT)).tolist())
    return np.array(sorted(pages), np.uint64), count


def pages_of(pages: Words) -> Iterator[tuple[int, int]]:
    """Runs of neighbouring pages: (first, how many)."""
    if not len(pages):
        return
    breaks = np.flatnonzero(np.diff(pages) != 1) + 1
    for run in np.split(pages, breaks):
        yield int(run[0]), len(run)
