"""The text files of /proc that name processes and sum up memory."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Errno, Machine

KB = 4
"""Kilobytes of a page."""


BASE = 0x1000_0000_0000
"""First byte of the window: a huge page and its page table begin there."""


def machine(profile: str = "linux-6.1") -> Machine:
    """16 anonymous pages, 3 of them paged out; 4 of a tmpfs file; 2 of a disk file; a huge page in a pool; a stack."""
    found = Machine(profile)
    task = found.spawn()
    task.mmap(20 * PAGE, at=BASE)
    task.write(BASE, 16 * PAGE)
    task.mmap(8 * PAGE, "rw", "shared", file=found.file(1), at=BASE + 32 * PAGE)
    task.write(BASE + 32 * PAGE, 4 * PAGE)
    task.mmap(8 * PAGE, "rw", "shared", file=found.file(4), at=BASE + 48 * PAGE)
    task.write(BASE + 48 * PAGE, 2 * PAGE)
    task.mmap(4 * PAGE, flags="GROWSDOWN", at=BASE + 64 * PAGE)
    task.write(BASE + 66 * PAGE)
    task.mmap(512 * PAGE, flags="HUGETLB", at=BASE + 512 * PAGE)
    task.write(BASE + 512 * PAGE)
    task.madvise(BASE, 3 * PAGE, "PAGEOUT")
    task.mlock(BASE + 8 * PAGE, 2 * PAGE)
    return found


def text(served: Machine, path: str) -> str:
    """A whole file."""
    return served.proc.open(path).read(1 << 20).decode()


def kilobytes(served: Machine, path: str) -> dict[str, int]:
    """The lines with a number."""
    rows = [line.split() for line in text(served, path).splitlines()]
    return {row[0].rstrip(":"): int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def test_sizes_by_kind() -> None:
    served = machine()
    status = kilobytes(served, "1/status")
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
    } | {"VmPTE": len(served.kernel.processes[0].mm.tables.frames_used())}
    assert text(served, "1/statm") == "552 20 6 0 0 536 0\n"


def test_a_huge_page_counts_512_pages_and_the_zero_page_none() -> None:
    served = Machine("linux-6.1")
    task = served.spawn()
    task.mmap(1024 * PAGE, at=BASE)
    task.madvise(BASE, 512 * PAGE, "HUGEPAGE")
    task.write(BASE)
    task.read(BASE + 600 * PAGE)
    assert kilobytes(served, "1/status")["RssAnon"] == 512 * KB
    assert kilobytes(served, "meminfo")["AnonHugePages"] == 512 * KB
    assert kilobytes(served, "meminfo")["AnonPages"] == 512 * KB


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
    served = machine()
    child = served.tasks[0].fork()
    child.fork()
    assert [text(served, f"{pid}/stat").split()[3] for pid in (1, 2, 3)] == ["0", "1", "2"]
    child.exit()
    assert text(served, "3/stat").split()[3] == "1"
    assert kilobytes(served, "3/status")["PPid"] == 1


def test_an_ordinary_user_owns_the_process() -> None:
    served = machine()
    assert "Uid:\t0\t0\t0\t0\n" in text(served, "1/status")
    served.tasks[0].setuid()
    assert "Uid:\t65534\t65534\t65534\t65534\n" in text(served, "1/status")


def test_rollup_is_the_sum_of_smaps() -> None:
    served = machine()
    sums: dict[str, int] = {}
    for line in text(served, "1/smaps").splitlines():
        name, *rest = line.split()
        if rest[-1:] == ["kB"]:
            sums[name] = sums.get(name, 0) + int(rest[0])
    for name in ("Size:", "KernelPageSize:", "MMUPageSize:"):
        del sums[name]
    header, *lines = text(served, "1/smaps_rollup").splitlines()
    assert header.split() == ["100000000000-100000400000", "---p", "00000000", "00:00", "0", "[rollup]"]
    rolled = {line.split()[0]: int(line.split()[1]) for line in lines}
    assert [rolled.pop(name) for name in ("Pss_Anon:", "Pss_File:", "Pss_Shmem:")] == [14 * KB, 2 * KB, 4 * KB]
    assert rolled == sums
    assert sums["Rss:"] == 20 * KB and sums["Swap:"] == 3 * KB


def test_3_11_has_no_rollup() -> None:
    files = machine("linux-3.11").proc
    assert "smaps_rollup" not in files.names("1")
    with pytest.raises(Errno, match="ENOENT"):
        files.open("1/smaps_rollup")


def test_meminfo_counts_frames() -> None:
    served = machine()
    info = kilobytes(served, "meminfo")
    tables = len(served.kernel.processes[0].mm.tables.frames_used())
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


def test_what_was_read_ahead_is_no_mapped_memory() -> None:
    """meminfo_proc_show: AnonPages counts mapped pages, SwapCached those that are in swap too."""
    served = Machine("linux-6.12")
    task = served.spawn()
    task.mmap(8 * PAGE, at=BASE)
    task.write(BASE, 8 * PAGE)
    task.madvise(BASE, 8 * PAGE, "PAGEOUT")
    task.fork()
    task.read(BASE + 3 * PAGE, 1)
    info = kilobytes(served, "meminfo")
    assert (info["SwapCached"] // KB, info["AnonPages"] // KB) == (8, 1)


def test_self_is_process_0() -> None:
    files = machine().proc
    assert files.open("self/comm").read(100) == files.open("1/comm").read(100) == b"process0\n"
    assert files.open("self/cmdline").read(100) == b"process0\0"


def test_the_machine_has_one_idle_cpu() -> None:
    served = machine()
    assert [line.split()[0] for line in text(served, "stat").splitlines()][:2] == ["cpu", "cpu0"]
    assert text(served, "uptime") == "1.00 1.00\n"
    assert text(served, "loadavg").split()[3] == "1/1"
    assert text(served, "version").startswith("Linux version 6.1 ")


def test_a_process_that_ended_has_no_status() -> None:
    served = machine()
    child = served.tasks[0].fork()
    file = served.proc.open("2/status")
    child.exit()
    with pytest.raises(Errno, match="ESRCH"):
        file.read(100)
