"""The way in: every wrong use gets one line that says the mend."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ptewalk.model import PAGE, PROFILES, Errno, Fault, Machine, Task

from .api_tasks import AT

WRONG: list[tuple[Callable[[Task], object], type[Exception], str]] = [
    (
        lambda t: Machine("linux-6.13"),
        ValueError,
        f"profile must be one of {', '.join(PROFILES)}, exact, not 'linux-6.13'",
    ),
    (lambda t: Machine(track="nativ"), ValueError, "track must be one of off, fault, native, not 'nativ'"),
    (lambda t: Machine(levels=6), ValueError, "levels must be 4 or 5, not 6"),
    (lambda t: t.mmap(PAGE, "rw", "hared"), ValueError, "kind must be one of private, shared, not 'hared'"),
    (lambda t: t.mmap(PAGE, "rw", "anonymous"), ValueError, "kind must be one of private, shared, not 'anonymous'"),
    (
        lambda t: t.mmap(PAGE, flags="POPULTE"),
        ValueError,
        "a flag of mmap must be one of FIXED, FIXED_NOREPLACE, GROWSDOWN, HUGETLB, HUGE_1GB, LOCKED, NORESERVE, "
        "POPULATE, not 'POPULTE'",
    ),
    (
        lambda t: t.mremap(AT, PAGE, PAGE, ["maymove", 7]),
        ValueError,
        "a flag of mremap must be one of MAYMOVE, FIXED, DONTUNMAP, not 7",
    ),
    (
        lambda t: t.madvise(AT, PAGE, "DONTNED"),
        ValueError,
        "advice must be one of COLD, COLLAPSE, DODUMP, DOFORK, DONTDUMP, DONTFORK, DONTNEED, DONTNEED_LOCKED, FREE, "
        "GUARD_INSTALL, GUARD_REMOVE, HUGEPAGE, KEEPONFORK, MERGEABLE, NOHUGEPAGE, NORMAL, PAGEOUT, POPULATE_READ, "
        "POPULATE_WRITE, RANDOM, REMOVE, SEQUENTIAL, SOFT_OFFLINE, UNMERGEABLE, WILLNEED, WIPEONFORK, not 'DONTNED'",
    ),
    (
        lambda t: t.mprotect(AT, PAGE, "rq"),
        ValueError,
        "prot must be made of r, w and x, or be \"-\" for none, not 'rq'",
    ),
    (lambda t: t.mmap(PAGE, 3), ValueError, 'prot must be made of r, w and x, or be "-" for none, not 3'),  # type: ignore[arg-type]
    (lambda t: t.munmap(AT + 1, PAGE), Errno, "EINVAL (22): at must be a multiple of 4096, not 0x100000000001"),
    (lambda t: t.mprotect(AT + 8, PAGE, "r"), Errno, "EINVAL (22): at must be a multiple of 4096, not 0x100000000008"),
    (lambda t: t.madvise(AT + 8, 1, "COLD"), Errno, "EINVAL (22): at must be a multiple of 4096, not 0x100000000008"),
    (
        lambda t: t.mremap(AT, PAGE, PAGE, "MAYMOVE FIXED", AT + 5),
        Errno,
        "EINVAL (22): new must be a multiple of 4096, not 0x100000000005",
    ),
    (
        lambda t: t.mmap(PAGE, flags="FIXED", at=AT + 5),
        Errno,
        "EINVAL (22): at must be a multiple of 4096, not 0x100000000005",
    ),
    (
        lambda t: t.userfaultfd().register(AT, 100),
        Errno,
        "EINVAL (22): length must be a multiple of 4096, not 0x64",
    ),
    (lambda t: t.mmap(0), Errno, "EINVAL (22): length must be more than 0"),
    (lambda t: t.mmap(-PAGE), ValueError, "length must be 0 or more, not -4096"),
    (lambda t: t.munmap(AT, -1), ValueError, "length must be 0 or more, not -1"),
    (lambda t: t.read(AT, 1.5), TypeError, "length must be a whole number, not 1.5"),  # type: ignore[arg-type]
    (lambda t: t.write(AT, True), TypeError, "length must be a whole number, not True"),
    (lambda t: t.read(-1), ValueError, "at must be 0 or more, not -1"),
    (
        lambda t: t.write((1 << 64) - 1, b"ab"),
        ValueError,
        "at and its length must lie below 2**64, not 0xffffffffffffffff and 2",
    ),
    (lambda t: t.write(AT, "text"), TypeError, "what must be bytes, or a length in bytes, not 'text'"),  # type: ignore[arg-type]
    (lambda t: t.write(AT, PAGE, value=256), ValueError, "value must be a byte, 0 to 255, not 256"),
    (lambda t: t.mmap(PAGE, flags="FIXED"), ValueError, "FIXED and FIXED_NOREPLACE need at=, the address to map at"),
    (lambda t: t.mremap(AT, 1, 1, "MAYMOVE|FIXED"), ValueError, "FIXED needs new=, the address to move to"),
    (
        lambda t: t.mmap(PAGE, flags="FIXED_NOREPLACE", at=AT),
        Errno,
        "EEXIST (17): something is mapped in the 4096 bytes from 0x100000000000 on",
    ),
    (lambda t: t.mmap(PAGE, offset=5), ValueError, "offset needs a file, and must be 0 without one, not 5"),
    (lambda t: t.mmap(PAGE, file="log"), TypeError, "file must be what Machine.file gives, not 'log'"),  # type: ignore[arg-type]
    (lambda t: t.mmap(PAGE, file=Machine().file(0)), ValueError, "file must be of the task's own machine"),
    (
        lambda t: t.mmap(PAGE, "rw", "shared", "HUGETLB HUGE_1GB"),
        ValueError,
        "HUGE_1GB is for private memory, and needs HUGETLB beside it",
    ),
    (
        lambda t: t.mmap(PAGE, flags="HUGETLB", file=Machine().file(0)),
        ValueError,
        "HUGETLB memory is anonymous: leave file= away",
    ),
    (lambda t: Machine().file(10), ValueError, "number of a file must be 0 to 9, not 10"),
    (lambda t: Machine().file("abc"), TypeError, "number must be a whole number, not 'abc'"),  # type: ignore[arg-type]
    (lambda t: Machine().file(0).ftruncate(5), ValueError, "length of a file must be a multiple of 4096, not 5"),
    (lambda t: t.pkey_mprotect(AT, PAGE, "r", 16), ValueError, "key must be 0 to 15, not 16"),
    (lambda t: t.wrpkru(3, 4), ValueError, "key must be 0 to 15 and rights 0 to 3, not 3 and 4"),
    (
        lambda t: t.pagemap_scan(AT, PAGE, category_mask="DIRTY"),
        ValueError,
        "category_mask must be one of WPALLOWED, WRITTEN, FILE, PRESENT, SWAPPED, PFNZERO, HUGE, SOFT_DIRTY, GUARD, "
        "ACCESSED, not 'DIRTY'",
    ),
    (lambda t: t.clear_refs("four"), Errno, "EINVAL (22)"),
    (lambda t: t.move_pages(AT, PAGE, 2), Errno, "ENODEV (19)"),
    (lambda t: t.mmap(1 << 60), Errno, "ENOMEM (12)"),
    (lambda t: t.write((1 << 46) + 7), Fault, "SIGSEGV (SEGV_MAPERR) at 0x400000000007"),
]


@pytest.mark.parametrize(("use", "kind", "text"), WRONG, ids=[text[:60] for _, _, text in WRONG])
def test_a_wrong_use_gets_one_line(task: Task, use: Callable[[Task], object], kind: type[Exception], text: str) -> None:
    before = task.maps(), task.pagemap(AT, 16 * PAGE).words.tolist()
    with pytest.raises(kind) as caught:
        use(task)
    assert str(caught.value) == text and type(caught.value) is kind
    assert (task.maps(), task.pagemap(AT, 16 * PAGE).words.tolist()) == before, "and changes nothing"
