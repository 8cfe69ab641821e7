"""What is kept of a guest's files of /proc."""

from __future__ import annotations

import struct

import numpy as np

from ptewalk.cosim.oracles.linux.files import ended, flag_runs, line_names, read_files, window_of

BASE = 0x1000_0000_0000
SMAPS = """\
00400000-00401000 r-xp 00000000 00:02 7    /init
Size:                  4 kB
VmFlags: rd ex mr mw me
100000000000-100000002000 rw-p 00000000 00:00 0
Size:                  8 kB
VmFlags: rd wr mr mw me ac sd
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0    [stack]
Size:                132 kB
VmFlags: rd wr mr mw me gd ac
"""


def test_only_the_window_is_kept_without_names() -> None:
    assert window_of(SMAPS, BASE).splitlines() == [
        "100000000000-100000002000 rw-p 00000000",
        "Size:                  8 kB",
        "VmFlags: rd wr mr mw me ac sd",
    ]


def test_names_of_lines() -> None:
    assert line_names("Name:\tinit\nRss:  4 kB\n00400000-7fff ---p 00000000 00:00 0  [rollup]\n") == ["Name", "Rss"]


def test_neighbours_with_one_word_are_one_run() -> None:
    assert flag_runs([(0, 0x10), (1, 0x10), (2, 0x20), (4, 0x20)]) == [[0, 2, "10"], [2, 1, "20"], [4, 1, "20"]]
    assert flag_runs([]) == []


class Guest:
    """A guest with one process, 7, whose two pages lie in frames 5 and 6."""

    def __init__(self) -> None:
        self.open = b""
        self.texts = {
            "/proc/7/smaps": SMAPS.encode(),
            "/proc/7/smaps_rollup": b"Rss: 8 kB\n",
            "/proc/7/status": b"VmRSS:\t8 kB\n",
            "/proc/kpageflags": struct.pack("<8Q", *range(0x100, 0x108)),
        }

    def read(self, path: str, offset: int, count: int) -> bytes | str:
        """As `LinuxVm.read_file`."""
        if path and path not in self.texts:
            return "ENOENT"
        self.open = self.texts[path] if path else self.open
        return self.open[offset : offset + count]


def test_files_of_a_process() -> None:
    present = 1 << 63 - 55
    state = np.array([3, 0, 1, BASE // 4096, 2, present, 5, 1, 0], np.int64)
    assert read_files(Guest().read, {3: 7}, BASE, state) == {
        "4/smaps": window_of(SMAPS, BASE),
        "4/smaps_rollup": ["Rss"],
        "4/status": ["VmRSS"],
        "4/kpageflags": [[0, 1, "105"], [1, 1, "106"]],
    }


def test_the_pagemap_of_a_process_that_has_ended() -> None:
    assert ended(lambda path, offset, count: b"", 1, BASE) == {"2/pagemap": 0}
    assert ended(lambda path, offset, count: "ESRCH", 1, BASE) == {"2/pagemap": "ESRCH"}
