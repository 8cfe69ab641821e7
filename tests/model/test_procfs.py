"""The files of /proc: clear_refs and pagemap as the kernel has them, the tree, and what real kernels said."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np
import pytest

from ptewalk.cosim.formats import samples as recordings
from ptewalk.model import PAGE, Machine
from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.proc.files import MODES, ProcFs, pid_of
from ptewalk.model.scenario.compare import Difference
from ptewalk.model.scenario.format import read
from ptewalk.model.scenario.replay import Replay
from ptewalk.model.scenario.report import Judge, replay
from ptewalk.model.scenario.snapshot import Outcome

from .api_tasks import AT, dirty
from .served import BASE, FRAME, PRESENT, SOFT_DIRTY, bits, text, words

OLD, NEW = ("linux-seed", "linux-3.11"), ("linux-6.1", "linux-6.12", "exact")


def machine_with_one(profile: str, **options: bool) -> Machine:
    """A machine with a task, of whose eight pages the first was written."""
    machine = Machine(profile, **options)
    task = machine.spawn()
    task.mmap(8 * PAGE, at=AT)
    task.write(AT)
    return machine


def frame(machine: Machine) -> int:
    """The frame of the first page."""
    return int(machine.kernel.entries.pte_pfn(machine.tasks[0].entries(AT)[-1].entry))


def outcome(call: Callable[[], object]) -> object:
    """What a call returns, or the name of its error."""
    try:
        return call()
    except Errno as error:
        return error.name


# clear_refs.


@pytest.mark.parametrize("profile", [*OLD, *NEW])
@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"4", 1),
        (b"4\n", 2),
        (b"1", 1),
        (b"3\n", 2),
        (b"+4", 2),
        (b"04", 2),
        (b"  4  \n", 6),
        (b"4\0junk", 6),
        (b"4            ", 12),  # 13 bytes: one too many
        (b"4 and more", "EINVAL"),
        (b"            4", "EINVAL"),
        (b"", "EINVAL"),
        (b"x", "EINVAL"),
        (b"0x4", "EINVAL"),
        (b"0", "EINVAL"),
        (b"6", "EINVAL"),
        (b"44", "EINVAL"),
        (b"-4", "EINVAL"),
        (b"2147483648", "ERANGE"),
        (b"-2147483649", "ERANGE"),
        (b"2147483647", "EINVAL"),
        (b"\xff4", "EINVAL"),
    ],
)
def test_clear_refs_takes_what_the_kernel_takes(profile: str, data: bytes, answer: object) -> None:
    file = machine_with_one(profile).proc.open("1/clear_refs")
    assert outcome(lambda: file.pwrite(data, 0)) == answer


@pytest.mark.parametrize(("profile", "answer"), [*((name, "EINVAL") for name in OLD), *((name, 1) for name in NEW)])
def test_only_later_kernels_reset_the_peak(profile: str, answer: object) -> None:
    assert outcome(lambda: machine_with_one(profile).proc.open("1/clear_refs").pwrite(b"5", 0)) == answer


def test_clear_refs_clears_the_process_it_belongs_to_and_ignores_the_offset() -> None:
    machine = machine_with_one("linux-6.1")
    task = machine.tasks[0]
    child = task.fork()
    assert machine.proc.open("2/clear_refs").pwrite(b"4\n", 100) == 2
    assert dirty(task) == list(range(8))
    assert dirty(child) == []


@pytest.mark.parametrize(("profile", "after"), [("linux-3.11", "ESRCH"), ("linux-6.1", b"")])
def test_files_of_a_process_that_ended(profile: str, after: object) -> None:
    machine = machine_with_one(profile, pagemap_v2=False)
    kernel, task = machine.kernel, machine.tasks[0]
    child = task.fork()
    files = {name: machine.proc.open(f"2/{name}") for name in ("clear_refs", "pagemap", "maps", "smaps")}
    child.exit()
    assert outcome(lambda: files["pagemap"].pread(8, 8 * BASE)) == after
    assert outcome(lambda: files["maps"].pread(100, 0)) == "ESRCH"
    assert outcome(lambda: files["smaps"].pread(100, 0)) == "ESRCH"
    assert outcome(lambda: files["clear_refs"].pwrite(b"x", 0)) == "EINVAL"
    assert kernel.pagemap_v2 == (profile in NEW)
    assert outcome(lambda: files["clear_refs"].pwrite(b"4", 0)) == "ESRCH"
    assert kernel.pagemap_v2  # the switch stands before the process is looked for
    kernel.fork(task.process, 1)  # the same number, another process
    assert outcome(lambda: files["maps"].pread(100, 0)) == "ESRCH"


# pagemap.


@pytest.mark.parametrize(
    ("count", "offset", "answer"),
    [
        (12, 0, "EINVAL"),
        (8, 4, "EINVAL"),
        (4, 1 << 60, "EINVAL"),
        (0, 0, 0),
        (8, 8 * (BASE - 1), 8),
        (16, 8 * ((1 << 35) - 2), 8),  # one word to TASK_SIZE
        (8, 8 * ((1 << 35) - 1), 0),
        (8, 1 << 60, 0),
    ],
)
def test_pagemap_reads_whole_words_up_to_the_end_of_the_task(count: int, offset: int, answer: object) -> None:
    file = machine_with_one("linux-6.1").proc.open("1/pagemap")
    assert outcome(lambda: len(file.pread(count, offset))) == answer


def test_what_was_read_stays_as_it_was() -> None:
    """Bytes of an earlier read are the reader's: the next, of as many or of others, does not change them."""
    machine = machine_with_one("linux-6.1")
    task, file = machine.tasks[0], machine.proc.open("1/pagemap")
    reads, kept = [], []
    for page in range(4):
        task.clear_refs(4)
        task.write(AT + page * PAGE)
        reads.append(file.pread(8 * 8, 8 * BASE))
        kept.append(bytearray(reads[-1]))
        assert file.pread(8 * 2, 8 * BASE) == kept[-1][:16]
    assert reads == kept
    told = [np.frombuffer(words, "<u8") & SOFT_DIRTY for words in reads]
    assert [words.nonzero()[0].tolist() for words in told] == [[0], [1], [2], [3]]


def test_pagemap_seeks() -> None:
    file = machine_with_one("linux-6.1").proc.open("1/pagemap")
    assert file.seek(8 * BASE) == 8 * BASE
    first, second = file.read(16), file.read(16)
    assert first + second == file.pread(32, 8 * BASE)
    assert file.seek(-16, os.SEEK_CUR) == 8 * (BASE + 2)
    assert file.read(16) == second
    assert outcome(lambda: file.seek(0, os.SEEK_END)) == "EINVAL"
    assert outcome(lambda: file.seek(-1)) == "EINVAL"
    assert outcome(lambda: file.write(b"12345678")) == "EINVAL"


@pytest.mark.parametrize(("profile", "hidden"), [*((name, False) for name in OLD), *((name, True) for name in NEW)])
def test_pagemap_hides_frames_from_the_unprivileged(profile: str, hidden: bool) -> None:
    machine = machine_with_one(profile)
    [full], [seen] = (words(machine.kernel, "1/pagemap", BASE, 1, privileged=flag) for flag in (True, False))
    assert full & FRAME == frame(machine) != 0
    assert seen == (full & ~FRAME if hidden else full)


@pytest.mark.parametrize("profile", OLD)
def test_pagemap_changes_its_layout_with_the_first_4(profile: str) -> None:
    """Rule A36: the page shift in every word, holes too, then soft-dirty in its place."""
    machine = machine_with_one(profile, pagemap_v2=False)
    kernel, fs = machine.kernel, machine.proc
    v1 = [PRESENT | 12 << 55 | frame(machine), 12 << 55]
    assert words(kernel, "1/pagemap", BASE, 2) == v1
    for data in (b"1", b"3", b"4x"):
        outcome(lambda data=data: fs.open("1/clear_refs").pwrite(data, 0))
    assert words(kernel, "1/pagemap", BASE, 2) == v1
    fs.open("1/clear_refs").pwrite(b"4", 0)
    assert words(kernel, "1/pagemap", BASE, 2) == [PRESENT | frame(machine), 0]
    machine.tasks[0].write(AT)
    assert words(kernel, "1/pagemap", BASE, 2) == [PRESENT | SOFT_DIRTY | frame(machine), 0]


def mixed(profile: str) -> Machine:
    """A process with something of everything."""
    machine = Machine(profile, pagemap_v2=True)
    task = machine.spawn()
    at = [AT + page * PAGE for page in range(5010)]
    task.mmap(40 * PAGE, at=AT)
    task.write(at[3], 9 * PAGE)
    task.read(at[20], 4 * PAGE)
    task.mmap(1024 * PAGE, at=at[512])
    task.madvise(at[512], 1024 * PAGE, "HUGEPAGE")
    task.write(at[700])
    task.read(at[1024])
    task.mmap(512 * PAGE, flags="HUGETLB", at=at[2048])
    task.write(at[2050])
    task.mmap(30 * PAGE, "rw", "shared", file=machine.file(1), at=at[4096])
    task.write(at[4100], 4 * PAGE)
    task.read(at[4110])
    task.mmap(10 * PAGE, at=at[5000])
    task.write(at[5000], 10 * PAGE)
    task.madvise(at[5000], 5 * PAGE, "PAGEOUT")
    task.fork()
    task.write(at[3])
    task.clear_refs()
    task.write(at[4])
    task.mprotect(at[6], 2 * PAGE, "-")
    return machine


@pytest.mark.thorough
@pytest.mark.parametrize("profile", [*OLD, *NEW])
@pytest.mark.parametrize("path", ["1/pagemap", "2/pagemap", "kpageflags", "kpagecount"])
def test_a_bulk_read_is_the_same_as_word_by_word(profile: str, path: str) -> None:
    machine = mixed(profile)
    first, count = (BASE - 10, 5100) if "pagemap" in path else (0, machine.kernel.frames.next)
    file = machine.proc.open(path)
    whole = file.pread(8 * count, 8 * first)
    assert len(whole) == 8 * count
    step = 1 if "pagemap" in path else 11
    assert all(file.pread(8, 8 * (first + at)) == whole[8 * at : 8 * at + 8] for at in range(0, count, step))
    if path.startswith("k"):
        assert file.pread(8, 8 * count) == b""
        assert outcome(lambda: file.pread(8, 8 * count + 4)) == "EINVAL"


def executed(call: Callable[[], object]) -> int:
    """Lines of Python that a call executes."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines


@pytest.mark.parametrize("profile", ["linux-3.11", "linux-6.1", "linux-6.12"])
def test_no_loop_over_pages(profile: str) -> None:
    """To read or clear 500 pages of one table executes no more lines than 50."""
    lines = []
    for count in (50, 500):
        machine = Machine(profile, pagemap_v2=True)
        task, fs = machine.spawn(), machine.proc
        task.mmap(512 * PAGE, at=AT)
        task.write(AT, count * PAGE)
        task.madvise(AT, count // 2 * PAGE, "PAGEOUT")
        lines.append(
            [
                executed(lambda fs=fs, count=count: fs.open("1/pagemap").pread(8 * count, 8 * BASE)),
                executed(lambda fs=fs, count=count: fs.open("kpageflags").pread(8 * count, 0)),
                executed(lambda fs=fs, count=count: fs.open("kpagecount").pread(8 * count, 0)),
                executed(lambda fs=fs: fs.open("1/clear_refs").pwrite(b"4", 0)),
            ]
        )
    assert lines[0] == lines[1]
    assert min(lines[0]) > 0


# Against recordings of real kernels.


LETTERS = {"P": 63, "S": 62, "F": 61, "G": 58, "W": 57, "X": 56, "D": 55}


def check_recorded(kernel: Kernel, who: int, seen: dict[str, Any], end: int) -> int:
    """Compare pagemap, kpageflags, maps and smaps with one recorded process; the number of pages compared."""
    base, fs = kernel.base, ProcFs(kernel)
    pagemap = fs.open(f"{pid_of(who)}/pagemap", privileged=kernel.processes[who].sees_frames)
    recorded: dict[int, tuple[str, str]] = {}
    for start, n, flags, kind, *_ in seen["pages"]:
        recorded |= dict.fromkeys(range(start, min(start + n, end)), (flags, kind))
    heads = []
    for vma in seen["vmas"]:
        first, last = vma["page"], vma["page"] + vma["n"]
        heads.append(f"{first + base << 12:08x}-{last + base << 12:08x} {vma['perm']}")
        data = pagemap.pread(8 * (min(last, end) - first), 8 * (base + first)) if first < end else b""
        for page, word in enumerate(np.frombuffer(data, "<u8").tolist(), first):
            flags, kind = recorded.pop(page, ("", ""))
            if "1" in flags or (not flags and not kernel.pagemap_v2):
                assert word >> 55 & 63 == 12
                letters = "".join(letter for letter in "PSF" if word >> LETTERS[letter] & 1)
            else:
                letters = "".join(letter for letter, bit in LETTERS.items() if word >> bit & 1)
            assert letters == flags.replace("1", ""), (page, letters, flags)
            if "P" in flags and word & FRAME:
                [told] = words(kernel, "kpageflags", word & FRAME, 1)
                zero = told & bits("ZERO_PAGE") or (told & bits("RESERVED") and not kernel.profile.kpage_zero_page)
                marks = (told & bits("ANON"), told & bits("THP"), zero, told & bits("HUGE"))
                assert "".join(c for c, mark in zip("atzh", marks, strict=True) if mark) == kind, (page, hex(told))
    assert not recorded
    lines = text(kernel, "smaps", who).splitlines()
    assert [
        line[: len(head)] for line, head in zip(text(kernel, "maps", who).splitlines(), heads, strict=True)
    ] == heads
    flags = [line.split()[1:] for line in lines if line.startswith("VmFlags")]
    told_apart = {name for vma in seen["vmas"] for name in vma["flags"]}
    assert [[f for f in names if f in told_apart] for names in flags] == [vma["flags"] for vma in seen["vmas"]]
    huge = [int(line.split()[1]) for line in lines if line.startswith("AnonHugePages")]
    assert huge == [vma["anon_huge_kb"] for vma in seen["vmas"]]
    return sum(vma["n"] for vma in seen["vmas"])


class FilesJudge(Judge):
    """Compares the files with the recording after the last step of each scenario.

    Attributes
    ----------
    pages : int
        Pages compared.
    """

    def __init__(self) -> None:
        self.pages = 0

    def step(self, run: Replay, index: int, outcome: Outcome) -> list[Difference] | None:
        steps = run.scenario.steps
        if index == len(steps) - 1:
            state = (steps[-1].recorded or {}).get("state") or {}
            for who, seen in state.items():
                self.pages += check_recorded(run.kernel, int(who), seen, run.scenario.window or 1 << 40)
        return []


@pytest.mark.thorough
@pytest.mark.parametrize("profile", sorted(recordings.KERNELS))
def test_the_files_say_what_real_kernels_said(profile: str) -> None:
    """Bits of pagemap, kinds of kpageflags, lines of maps and smaps at the end of each recorded scenario."""
    judge = FilesJudge()
    report = replay(read(recordings.KERNELS[profile]), profile, judge=judge)
    assert report.scenarios >= 30 and not report.skipped
    assert judge.pages > 3_000


# The tree.


def test_tree() -> None:
    machine = machine_with_one("linux-6.1")
    machine.kernel.fork(machine.tasks[0].process, 4)
    fs = machine.proc
    assert fs.names("") == [
        *("1", "5", "self", "kpageflags", "kpagecount"),
        *("meminfo", "stat", "cpuinfo", "uptime", "loadavg", "version"),
    ]
    assert fs.names("5") == [
        *("clear_refs", "pagemap", "maps", "smaps", "smaps_rollup"),
        *("stat", "statm", "status", "cmdline", "comm"),
    ]
    assert set(MODES) == {"clear_refs", "pagemap", "kpageflags", "kpagecount"}
    assert [fs.is_folder(path) for path in ("", "1", "1/maps", "kpagecount")] == [True, True, False, False]
    for path in ("2", "1/mem", "x", "1/maps/x", "/1"):
        assert outcome(lambda path=path: fs.open(path)) == "ENOENT"
        assert outcome(lambda path=path: fs.names(path)) == "ENOENT"
    assert outcome(lambda: fs.open("1")) == "EISDIR"
    assert outcome(lambda: fs.names("1/maps")) == outcome(lambda: fs.names("kpageflags")) == "ENOTDIR"
    assert outcome(lambda: fs.open("1/clear_refs").pread(8, 0)) == "EINVAL"
    assert outcome(lambda: fs.open("1/maps").pwrite(b"4", 0)) == "EINVAL"
