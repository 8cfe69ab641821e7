"""The profile `exact`, by answers typed by hand: what may have changed since the last clear, and nothing else."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE, Machine, Task

from .api_tasks import AT, dirty

FAR = AT + 1024 * PAGE


@pytest.fixture
def clean() -> Task:
    """Eight written pages, cleared."""
    return cleared(8)


def cleared(pages: int, profile: str = "exact", **options: object) -> Task:
    """A task with written pages, cleared."""
    task = Machine(profile).spawn()
    task.mmap(pages * PAGE, at=AT, **options)  # type: ignore[arg-type]
    task.write(AT, pages * PAGE)
    task.clear_refs()
    return task


def test_a_new_mapping_is_reported_and_cleared() -> None:
    task = Machine("exact").spawn()
    task.mmap(4 * PAGE, at=AT)
    assert dirty(task) == [0, 1, 2, 3]
    task.clear_refs()
    assert dirty(task) == []


def test_a_store_is_reported_and_a_read_is_not(clean: Task) -> None:
    assert clean.read(AT, 8 * PAGE)[::PAGE] == bytes([1] * 8)
    assert dirty(clean) == []
    clean.write(AT + 2 * PAGE)
    assert dirty(clean) == [2]


def test_a_store_of_the_same_value_counts(clean: Task) -> None:
    clean.write(AT + 5 * PAGE, b"\1")
    assert dirty(clean) == [5]


def test_a_first_read_does_not_count() -> None:
    task = Machine("exact").spawn()
    task.mmap(4 * PAGE, at=AT)
    task.clear_refs()
    task.read(AT + PAGE)
    assert dirty(task) == []


def test_what_is_moved_to_is_reported(clean: Task) -> None:
    clean.mremap(AT + 2 * PAGE, 3 * PAGE, 3 * PAGE, "MAYMOVE FIXED", AT + 16 * PAGE)
    assert dirty(clean, 32 * PAGE) == [16, 17, 18]


def test_a_table_that_moves_whole_is_reported() -> None:
    """6.1 reports none of it: the entries do not change."""
    seen = {}
    for profile in ("exact", "linux-6.1"):
        task = cleared(512, profile)
        task.mremap(AT, 512 * PAGE, 512 * PAGE, "MAYMOVE FIXED", FAR)
        seen[profile] = dirty(task, 512 * PAGE, FAR)
    assert seen == {"exact": list(range(512)), "linux-6.1": []}


def test_contents_that_are_gone_are_reported(clean: Task) -> None:
    clean.madvise(AT + PAGE, 2 * PAGE, "DONTNEED")
    assert dirty(clean) == [1, 2]
    assert clean.read(AT + PAGE) == b"\0"
    clean.munmap(AT + 6 * PAGE, PAGE)
    assert dirty(clean) == [1, 2]
    clean.mmap(PAGE, at=AT + 6 * PAGE)
    assert dirty(clean) == [1, 2, 6]


def test_truncation_is_reported() -> None:
    machine = Machine("exact")
    task, file = machine.spawn(), machine.file(0)
    task.mmap(4 * PAGE, "rw", "shared", file=file, at=AT)
    task.write(AT, 4 * PAGE)
    task.clear_refs()
    file.ftruncate(2 * PAGE)
    assert dirty(task) == [2, 3]


def test_a_neighbour_that_merges_is_not_reported(clean: Task) -> None:
    clean.mmap(PAGE, at=AT + 8 * PAGE)
    assert clean.maps().splitlines()[0].startswith(f"{AT:x}-{AT + 9 * PAGE:x} ")
    assert dirty(clean, 16 * PAGE) == [8]


@pytest.mark.parametrize(("flags", "advice"), [("", "HUGEPAGE"), ("HUGETLB", "")])
def test_one_page_of_a_huge_one(flags: str, advice: str) -> None:
    task = Machine("exact").spawn()
    task.mmap(512 * PAGE, flags=flags, at=AT)
    if advice:
        task.madvise(AT, 512 * PAGE, advice)
    task.write(AT)
    assert [leaf.level for leaf in task.entries(AT)] == [2]
    task.clear_refs()
    task.write(AT + 3 * PAGE)
    assert dirty(task, 512 * PAGE) == [3]


def test_after_a_fork_each_process_has_its_own(clean: Task) -> None:
    child = clean.fork()
    clean.write(AT + PAGE)
    child.write(AT + 2 * PAGE)
    assert (dirty(clean), dirty(child)) == ([1], [2])


def test_the_store_that_6_1_loses_in_a_shared_mapping() -> None:
    """A merge takes VM_SOFTDIRTY from a page that was read: its entry is writable and unmarked."""
    seen = {}
    for profile in ("exact", "linux-6.1", "linux-6.12"):
        machine = Machine(profile)
        task, file = machine.spawn(), machine.file(0)
        task.mmap(4 * PAGE, "r", "shared", file=file, at=AT)
        task.clear_refs()
        task.mmap(4 * PAGE, "rw", "shared", file=file, offset=4 * PAGE, at=AT + 4 * PAGE)
        task.read(AT + 4 * PAGE)
        task.mprotect(AT, 4 * PAGE, "rw")
        task.write(AT + 4 * PAGE)
        seen[profile] = dirty(task)
    assert seen == {"exact": [4, 5, 6, 7], "linux-6.1": [], "linux-6.12": []}
