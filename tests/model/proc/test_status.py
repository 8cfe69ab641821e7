"""The text files of /proc that name processes and sum up memory."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ptewalk.model.errors import Errno
from ptewalk.model.kernel import Kernel
from ptewalk.model.proc.files import ProcFs
from ptewalk.model.profiles import PROFILES
from ptewalk.model.x86 import Access

KB = 4
"""Kilobytes of a page."""


def machine(profile: str = "linux-6.1") -> Kernel:
    """16 anonymous pages, 3 of them paged out; 4 of a tmpfs file; 2 of a disk file; a huge page in a pool; a stack."""
    kernel = Kernel(PROFILES[profile])
    process = kernel.processes[0]

    def store(at: int, pages: int) -> None:
        assert kernel.touch_pages(process, range(kernel.base + at, kernel.base + at + pages), Access.WRITE, 1) == (
            ["ok"] * pages
        )

    def mmap(at: int, pages: int, kind: str, flags: Sequence[str] = ()) -> None:
        kernel.mmap(process, kernel.base + at, pages, "rw", kind, 0, flags)

    mmap(0, 20, "anon")
    store(0, 16)
    mmap(32, 8, "s1")
    store(32, 4)
    mmap(48, 8, "s4")
    store(48, 2)
    mmap(64, 4, "anon", ["growsdown"])
    store(66, 1)
    mmap(512, 512, "hugetlb")
    store(512, 1)
    kernel.madvise(process, kernel.base, 3, "PAGEOUT")
    kernel.mlock(process, kernel.base + 8, 2, lock=True)
    return kernel


def text(kernel: Kernel, path: str) -> str:
    """A whole file."""
    return ProcFs(kernel).open(path).read(1 << 20).decode()


def kilobytes(kernel: Kernel, path: str) -> dict[str, int]:
    """The lines with a number."""
    rows = [line.split() for line in text(kernel, path).splitlines()]
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def test_sizes_by_kind() -> None:
    kernel = machine()
    status = kilobytes(kernel, "1/status")
    assert {key: pages // KB for key, pages in status.items() if key.startswith(("Vm", "Rss", "Huge"))} == {
        "VmPeak": 552,
        "VmSize": 552,
        "VmLck": 2,
        "VmPin": 0,
        "VmHWM": 20,
        "VmRSS": 20,
        "RssAnon": 14,
        "RssFile": 2,
        "RssShmem": 4,
        "VmData": 20 + 512,
        "VmStk": 4,
        "VmExe": 0,
        "VmLib": 0,
        "VmPTE": 5,
        "VmSwap": 3,
        "HugetlbPages": 512,  # four levels on the way to the window, and a second page table
    } | {"VmPTE": 1 + sum(map(len, kernel.processes[0].mm.tables.tables.values()))}
    assert text(kernel, "1/statm") == "552 20 6 0 0 536 0\n"


def test_a_huge_page_counts_512_pages_and_the_zero_page_none() -> None:
    kernel = Kernel(PROFILES["linux-6.1"])
    process = kernel.processes[0]
    kernel.mmap(process, kernel.base, 1024, "rw", "anon", 0, [])
    kernel.madvise(process, kernel.base, 512, "HUGEPAGE")
    kernel.touch_pages(process, [kernel.base], Access.WRITE, 1)
    kernel.touch_pages(process, [kernel.base + 600], Access.READ)
    assert kilobytes(kernel, "1/status")["RssAnon"] == 512 * KB
    assert kilobytes(kernel, "meminfo")["AnonHugePages"] == 512 * KB
    assert kilobytes(kernel, "meminfo")["AnonPages"] == 512 * KB


def test_old_kernels_have_fewer_lines() -> None:
    status = kilobytes(machine("linux-3.11"), "1/status")
    assert status["VmSwap"] == 3 * KB
    assert not {"RssAnon", "RssFile", "RssShmem", "HugetlbPages"} & status.keys()


def test_stat_has_its_52_fields() -> None:
    """proc(5): the 20th is num_threads, the 23rd vsize, the 24th rss, the 38th exit_signal."""
    fields = text(machine(), "1/stat").split()
    assert len(fields) == 52
    assert fields[:4] == ["1", "(process0)", "S", "0"]
    assert [int(fields[n - 1]) for n in (18, 19, 20, 23, 24, 38)] == [20, 0, 1, 552 * 4096, 20, 17]


def test_parents_and_orphans() -> None:
    kernel = machine()
    processes = kernel.processes
    kernel.fork(processes[0], 1)
    kernel.fork(processes[1], 2)
    assert [text(kernel, f"{pid}/stat").split()[3] for pid in (1, 2, 3)] == ["0", "1", "2"]
    kernel.exit(processes[1])
    assert text(kernel, "3/stat").split()[3] == "1"
    assert kilobytes(kernel, "3/status")["PPid"] == 1


def test_an_ordinary_user_owns_the_process() -> None:
    kernel = machine()
    assert "Uid:\t0\t0\t0\t0\n" in text(kernel, "1/status")
    kernel.setuid(kernel.processes[0])
    assert "Uid:\t65534\t65534\t65534\t65534\n" in text(kernel, "1/status")


def test_rollup_is_the_sum_of_smaps() -> None:
    kernel = machine()
    sums: dict[str, int] = {}
    for line in text(kernel, "1/smaps").splitlines():
        name, *rest = line.split()
        if rest[-1:] == ["kB"]:
            sums[name] = sums.get(name, 0) + int(rest[0])
    for name in ("Size:", "KernelPageSize:", "MMUPageSize:"):
        del sums[name]
    header, *lines = text(kernel, "1/smaps_rollup").splitlines()
    assert header.split() == ["100000000000-100000400000", "---p", "00000000", "00:00", "0", "[rollup]"]
    assert {line.split()[0]: int(line.split()[1]) for line in lines} == sums
    assert sums["Rss:"] == 20 * KB and sums["Swap:"] == 3 * KB


def test_3_11_has_no_rollup() -> None:
    files = ProcFs(machine("linux-3.11"))
    assert "smaps_rollup" not in files.names("1")
    with pytest.raises(Errno, match="ENOENT"):
        files.open("1/smaps_rollup")


def test_meminfo_counts_frames() -> None:
    kernel = machine()
    info = kilobytes(kernel, "meminfo")
    tables = 1 + sum(map(len, kernel.processes[0].mm.tables.tables.values()))
    assert {key: info[key] // KB for key in ("MemTotal", "AnonPages", "Cached", "Mapped", "PageTables")} == {
        "MemTotal": 1 << 20,
        "AnonPages": 14,
        "Cached": 6,
        "Mapped": 6,
        "PageTables": tables,
    }
    assert info["SwapTotal"] - info["SwapFree"] == 3 * KB
    assert (info["HugePages_Total"], info["HugePages_Free"], info["HugePages_Rsvd"], info["Hugepagesize"]) == (
        8,
        7,
        0,
        2048,
    )
    assert info["MemTotal"] - info["MemFree"] == (14 + 6 + tables + 8 * 512) * KB


def test_self_is_process_0() -> None:
    files = ProcFs(machine())
    assert files.open("self/comm").read(100) == files.open("1/comm").read(100) == b"process0\n"
    assert files.open("self/cmdline").read(100) == b"process0\0"


def test_the_machine_has_one_idle_cpu() -> None:
    kernel = machine()
    assert [line.split()[0] for line in text(kernel, "stat").splitlines()][:2] == ["cpu", "cpu0"]
    assert text(kernel, "uptime") == "1.00 1.00\n"
    assert text(kernel, "loadavg").split()[3] == "1/1"
    assert text(kernel, "version").startswith("Linux version 6.1 ")


def test_a_process_that_ended_has_no_status() -> None:
    kernel = machine()
    kernel.fork(kernel.processes[0], 1)
    file = ProcFs(kernel).open("2/status")
    kernel.exit(kernel.processes[1])
    with pytest.raises(Errno, match="ESRCH"):
        file.read(100)
