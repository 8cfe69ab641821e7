"""/proc/PID/maps and smaps, byte for byte."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Machine
from ptewalk.model.kernel import Kernel
from ptewalk.model.proc.files import ProcFs

from ..api_tasks import AT
from ..served import text


def fields(kernel: Kernel, who: int = 0) -> dict[str, int]:
    """The lines of an only area's smaps that are not 0."""
    found = {}
    for line in text(kernel, "smaps", who).splitlines()[1:-1]:
        name, value = line.split()[:2]
        if int(value):
            found[name.rstrip(":")] = int(value)
    return found


def test_maps() -> None:
    machine = Machine("linux-6.1")
    task = machine.spawn()
    task.mmap(4 * PAGE, "r", at=AT)
    task.mmap(2 * PAGE, "rw", "shared", at=AT + 8 * PAGE)
    task.mmap(2 * PAGE, "rwx", file=machine.file(1), offset=5 * PAGE, at=AT + 16 * PAGE)
    task.mmap(512 * PAGE, flags="HUGETLB", at=AT + 512 * PAGE)
    task.mmap(PAGE, "-", "shared", file=machine.file(4), offset=PAGE, at=AT + 0x1000 * PAGE)
    assert text(task.kernel, "maps") == (
        "100000000000-100000004000 r--p 00000000 00:00 0 \n"
        "100000008000-10000000a000 rw-s 00000000 00:01 1                          /dev/zero (deleted)\n"
        "100000010000-100000012000 rwxp 00005000 00:01 2                          /file1\n"
        "100000200000-100000400000 rw-p 00000000 00:0f 3                          /anon_hugepage (deleted)\n"
        "100001000000-100001001000 ---s 00001000 08:00 4                          /file4\n"
    )


def test_maps_in_pieces() -> None:
    task = Machine("linux-6.1").spawn()
    for place in range(0, 20, 2):
        task.mmap(PAGE, at=AT + place * PAGE)
    file = ProcFs(task.kernel).open("1/maps")
    pieces = []
    while piece := file.read(7):
        pieces.append(piece)
    assert b"".join(pieces).decode() == text(task.kernel, "maps")


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
def test_smaps_has_the_lines_of_its_kernel(profile: str, expected: str) -> None:
    task = Machine(profile).spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, 2 * PAGE)
    task.read(AT + 2 * PAGE)  # the zero page is no page
    assert text(task.kernel, "smaps") == expected


def test_smaps_after_clear_refs() -> None:
    """1 clears A, 4 the area's flag; D stays, so the pages stay dirty."""
    task = Machine("linux-6.1").spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, 2 * PAGE)
    task.clear_refs(1)
    assert "Referenced" not in fields(task.kernel)
    assert fields(task.kernel)["Private_Dirty"] == 8
    task.clear_refs(4)
    assert text(task.kernel, "smaps").endswith("VmFlags: rd wr mr mw me ac \n")
    assert fields(task.kernel)["Private_Dirty"] == 8


@pytest.mark.parametrize("profile", ["linux-3.11", "linux-6.1", "linux-6.12"])
def test_smaps_of_pages_that_a_fork_shares(profile: str) -> None:
    task = Machine(profile).spawn()
    task.mmap(8 * PAGE, at=AT)
    task.write(AT, 6 * PAGE)
    task.fork()
    task.write(AT, 2 * PAGE)
    parent, child = fields(task.kernel), fields(task.kernel, 1)
    assert (parent["Rss"], parent["Pss"], parent["Shared_Dirty"], parent["Private_Dirty"]) == (24, 16, 16, 8)
    assert (child["Rss"], child["Pss"], child["Shared_Dirty"]) == (24, 16, 16)
    assert "Referenced" not in child  # fork clears A in the child


def test_smaps_of_swapped_locked_and_lazily_freed_pages() -> None:
    task = Machine("linux-6.1").spawn()
    task.mmap(8 * PAGE, at=AT)
    task.write(AT, 6 * PAGE)
    task.madvise(AT, 3 * PAGE, "PAGEOUT")
    task.fork()
    task.write(AT)  # back in, its own
    seen = fields(task.kernel)
    assert (seen["Swap"], seen["SwapPss"], seen["Rss"]) == (8, 4, 16)
    task = Machine("linux-6.1").spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, 4 * PAGE)
    task.mlock(AT, 4 * PAGE)
    assert fields(task.kernel)["Locked"] == 16
    task = Machine("linux-6.1").spawn()
    task.mmap(4 * PAGE, at=AT)
    task.write(AT, 4 * PAGE)
    task.madvise(AT, 4 * PAGE, "FREE")
    assert (fields(task.kernel)["LazyFree"], fields(task.kernel)["Private_Clean"]) == (16, 16)


def test_smaps_of_shared_memory_that_is_swapped_out() -> None:
    machine = Machine("linux-6.1")
    task = machine.spawn()
    task.mmap(8 * PAGE, "rw", "shared", file=machine.file(1), at=AT)
    task.write(AT, 6 * PAGE)
    assert (fields(task.kernel)["Rss"], "Anonymous" in fields(task.kernel)) == (24, False)
    task.madvise(AT, 4 * PAGE, "PAGEOUT")
    assert (fields(task.kernel)["Rss"], fields(task.kernel)["Swap"]) == (8, 16)


def test_smaps_of_huge_pages() -> None:
    task = Machine("linux-6.1").spawn()
    task.mmap(1024 * PAGE, at=AT)
    task.madvise(AT, 1024 * PAGE, "HUGEPAGE")
    task.write(AT + 5 * PAGE)
    task.read(AT + 600 * PAGE)  # the huge zero page counts nowhere
    seen = fields(task.kernel)
    assert seen == {
        "Size": 4096, "KernelPageSize": 4, "MMUPageSize": 4, "Rss": 2048, "Pss": 2048, "Pss_Dirty": 2048,
        "Private_Dirty": 2048, "Referenced": 2048, "Anonymous": 2048, "AnonHugePages": 2048, "THPeligible": 1,
    }  # fmt: skip
    task = Machine("linux-6.1").spawn()
    task.mmap(1024 * PAGE, flags="HUGETLB", at=AT)
    task.write(AT)
    task.read(AT + 512 * PAGE)
    task.fork()
    assert fields(task.kernel) == {
        "Size": 4096, "KernelPageSize": 2048, "MMUPageSize": 2048, "Shared_Hugetlb": 4096,
    }  # fmt: skip


def test_smaps_tells_the_protection_key() -> None:
    task = Machine("linux-6.1").spawn()
    task.mmap(PAGE, at=AT)
    task.pkey_mprotect(AT, PAGE, "rw", 3)
    assert fields(task.kernel)["ProtectionKey"] == 3
