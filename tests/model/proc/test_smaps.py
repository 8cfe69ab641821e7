"""/proc/PID/maps and smaps, byte for byte."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE
from ptewalk.model.kernel import Kernel
from ptewalk.model.proc.files import ProcFs

from ..served import text


def fields(kernel: Kernel, who: int = 0) -> dict[str, int]:
    """The lines of an only area's smaps that are not 0."""
    found = {}
    for line in text(kernel, "smaps", who).splitlines()[1:-1]:
        name, value = line.split()[:2]
        if int(value):
            found[name.rstrip(":")] = int(value)
    return found


def test_maps(machine: type) -> None:
    m = machine()
    m.mmap(0, 4, "r")
    m.mmap(8, 2, "rw", "sanon")
    m.mmap(16, 2, "rwx", "p1", 5)
    m.mmap(512, 512, kind="hugetlb")
    m.mmap(0x1000, 1, "-", "s4", 1)
    assert text(m.kernel, "maps") == (
        "100000000000-100000004000 r--p 00000000 00:00 0 \n"
        "100000008000-10000000a000 rw-s 00000000 00:01 1                          /dev/zero (deleted)\n"
        "100000010000-100000012000 rwxp 00005000 00:01 2                          /file1\n"
        "100000200000-100000400000 rw-p 00000000 00:0f 3                          /anon_hugepage (deleted)\n"
        "100001000000-100001001000 ---s 00001000 08:00 4                          /file4\n"
    )


def test_maps_in_pieces(machine: type) -> None:
    m = machine()
    for at in range(0, 20, 2):
        m.mmap(at, 1)
    file = ProcFs(m.kernel).open("1/maps")
    pieces = []
    while piece := file.read(7):
        pieces.append(piece)
    assert b"".join(pieces).decode() == text(m.kernel, "maps")


SMAPS_6_1 = """\
100000000000-100000004000 rw-p 00000000 00:00 0 
Size:                 16 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Rss:                   8 kB
Pss:                   8 kB
Pss_Dirty:             8 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         8 kB
Referenced:            8 kB
Anonymous:             8 kB
LazyFree:              0 kB
AnonHugePages:         0 kB
ShmemPmdMapped:        0 kB
FilePmdMapped:         0 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
Swap:                  0 kB
SwapPss:               0 kB
Locked:                0 kB
THPeligible:    0
ProtectionKey:         0
VmFlags: rd wr mr mw me ac sd 
"""  # noqa: W291
SMAPS_3_11 = """\
100000000000-100000004000 rw-p 00000000 00:00 0 
Size:                 16 kB
Rss:                   8 kB
Pss:                   8 kB
Shared_Clean:          0 kB
Shared_Dirty:          0 kB
Private_Clean:         0 kB
Private_Dirty:         8 kB
Referenced:            8 kB
Anonymous:             8 kB
AnonHugePages:         0 kB
Swap:                  0 kB
KernelPageSize:        4 kB
MMUPageSize:           4 kB
Locked:                0 kB
VmFlags: rd wr mr mw me ac 
"""  # noqa: W291
SMAPS_6_12 = SMAPS_6_1.replace("LazyFree", "KSM:                   0 kB\nLazyFree").replace(
    "THPeligible:    0", "THPeligible:           0"
)


@pytest.mark.parametrize(
    ("profile", "expected"), [("linux-3.11", SMAPS_3_11), ("linux-6.1", SMAPS_6_1), ("linux-6.12", SMAPS_6_12)]
)
def test_smaps_has_the_lines_of_its_kernel(machine: type, profile: str, expected: str) -> None:
    m = machine(profile)
    m.mmap(0, 4)
    m.write(0, 2)
    m.read(2)  # the zero page is no page
    assert text(m.kernel, "smaps") == expected


def test_smaps_after_clear_refs(machine: type) -> None:
    """1 clears A, 4 the area's flag; D stays, so the pages stay dirty."""
    m = machine()
    m.mmap(0, 4)
    m.write(0, 2)
    m.clear("1")
    assert "Referenced" not in fields(m.kernel)
    assert fields(m.kernel)["Private_Dirty"] == 8
    m.clear("4")
    assert text(m.kernel, "smaps").endswith("VmFlags: rd wr mr mw me ac \n")
    assert fields(m.kernel)["Private_Dirty"] == 8


@pytest.mark.parametrize("profile", ["linux-3.11", "linux-6.1", "linux-6.12"])
def test_smaps_of_pages_that_a_fork_shares(machine: type, profile: str) -> None:
    m = machine(profile)
    m.mmap(0, 8)
    m.write(0, 6)
    m.fork(1)
    m.write(0, 2)
    parent, child = fields(m.kernel), fields(m.kernel, 1)
    assert (parent["Rss"], parent["Pss"], parent["Shared_Dirty"], parent["Private_Dirty"]) == (24, 16, 16, 8)
    assert (child["Rss"], child["Pss"], child["Shared_Dirty"]) == (24, 16, 16)
    assert "Referenced" not in child  # fork clears A in the child


def test_smaps_of_swapped_locked_and_lazily_freed_pages(machine: type) -> None:
    m = machine()
    m.mmap(0, 8)
    m.write(0, 6)
    m.madvise(0, 3, "PAGEOUT")
    m.fork(1)
    m.write(0)  # back in, its own
    seen = fields(m.kernel)
    assert (seen["Swap"], seen["SwapPss"], seen["Rss"]) == (8, 4, 16)
    m = machine()
    m.mmap(0, 4)
    m.write(0, 4)
    m.task().mlock(m.at(0), 4 * PAGE)
    assert fields(m.kernel)["Locked"] == 16
    m = machine()
    m.mmap(0, 4)
    m.write(0, 4)
    m.madvise(0, 4, "FREE")
    assert (fields(m.kernel)["LazyFree"], fields(m.kernel)["Private_Clean"]) == (16, 16)


def test_smaps_of_shared_memory_that_is_swapped_out(machine: type) -> None:
    m = machine()
    m.mmap(0, 8, kind="s1")
    m.write(0, 6)
    assert (fields(m.kernel)["Rss"], "Anonymous" in fields(m.kernel)) == (24, False)
    m.madvise(0, 4, "PAGEOUT")
    assert (fields(m.kernel)["Rss"], fields(m.kernel)["Swap"]) == (8, 16)


def test_smaps_of_huge_pages(machine: type) -> None:
    m = machine()
    m.mmap(0, 1024)
    m.madvise(0, 1024, "HUGEPAGE")
    m.write(5)
    m.read(600)  # the huge zero page counts nowhere
    seen = fields(m.kernel)
    assert seen == {
        "Size": 4096, "KernelPageSize": 4, "MMUPageSize": 4, "Rss": 2048, "Pss": 2048, "Pss_Dirty": 2048,
        "Private_Dirty": 2048, "Referenced": 2048, "Anonymous": 2048, "AnonHugePages": 2048, "THPeligible": 1,
    }  # fmt: skip
    m = machine()
    m.mmap(0, 1024, kind="hugetlb")
    m.write(0)
    m.read(512)
    m.fork(1)
    assert fields(m.kernel) == {
        "Size": 4096, "KernelPageSize": 2048, "MMUPageSize": 2048, "Shared_Hugetlb": 4096,
    }  # fmt: skip


def test_smaps_tells_the_protection_key(machine: type) -> None:
    m = machine()
    m.mmap(0, 1)
    m.task().pkey_mprotect(m.at(0), PAGE, "rw", 3)
    assert fields(m.kernel)["ProtectionKey"] == 3
