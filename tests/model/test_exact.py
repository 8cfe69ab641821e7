"""The profile `exact`, by answers typed by hand: what may have changed since the last clear, and nothing else."""

from __future__ import annotations

import pytest

from ptewalk.model import PAGE


@pytest.fixture
def clean(machine):  # type: ignore[no-untyped-def]
    """Eight written pages, cleared."""
    m = machine("exact")
    m.mmap(0, 8)
    m.write(0, 8)
    m.clear()
    return m


def test_a_new_mapping_is_reported_and_cleared(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("exact")
    m.mmap(0, 4)
    assert m.dirty(0, 8) == [0, 1, 2, 3]
    m.clear()
    assert m.dirty(0, 8) == []


def test_a_store_is_reported_and_a_read_is_not(clean) -> None:  # type: ignore[no-untyped-def]
    assert clean.read(0, 8) == [7] * 8
    assert clean.dirty(0, 8) == []
    clean.write(2)
    assert clean.dirty(0, 8) == [2]


def test_a_store_of_the_same_value_counts(clean) -> None:  # type: ignore[no-untyped-def]
    clean.write(5, value=7)
    assert clean.dirty(0, 8) == [5]


def test_a_first_read_does_not_count(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("exact")
    m.mmap(0, 4)
    m.clear()
    m.read(1)
    assert m.dirty(0, 4) == []


def test_what_is_moved_to_is_reported(clean) -> None:  # type: ignore[no-untyped-def]
    clean.mremap(2, 3, 3, 16)
    assert clean.dirty(0, 32) == [16, 17, 18]


def test_a_table_that_moves_whole_is_reported(machine) -> None:  # type: ignore[no-untyped-def]
    """6.1 reports none of it: the entries do not change."""
    seen = {}
    for profile in ("exact", "linux-6.1"):
        m = machine(profile)
        m.mmap(0, 512)
        m.write(0, 512)
        m.clear()
        m.mremap(0, 512, 512, 1024)
        seen[profile] = m.dirty(1024, 512)
    assert seen == {"exact": list(range(1024, 1536)), "linux-6.1": []}


def test_contents_that_are_gone_are_reported(clean) -> None:  # type: ignore[no-untyped-def]
    clean.madvise(1, 2, "DONTNEED")
    assert clean.dirty(0, 8) == [1, 2]
    assert clean.read(1) == [0]
    clean.munmap(6, 1)
    assert clean.dirty(0, 8) == [1, 2]
    clean.mmap(6, 1)
    assert clean.dirty(0, 8) == [1, 2, 6]


def test_truncation_is_reported(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine("exact")
    m.mmap(0, 4, kind="s0")
    m.write(0, 4)
    m.clear()
    m.machine.file(0).ftruncate(2 * PAGE)
    assert m.dirty(0, 4) == [2, 3]


def test_a_neighbour_that_merges_is_not_reported(clean) -> None:  # type: ignore[no-untyped-def]
    clean.mmap(8, 1)
    assert clean.areas() == [(0, 9)]
    assert clean.dirty(0, 16) == [8]


@pytest.mark.parametrize(("kind", "advice"), [("anon", "HUGEPAGE"), ("hugetlb", "")])
def test_one_page_of_a_huge_one(machine, kind: str, advice: str) -> None:  # type: ignore[no-untyped-def]
    m = machine("exact")
    m.mmap(0, 512, kind=kind)
    if advice:
        m.madvise(0, 512, advice)
    m.write(0)
    assert m.pmd(0) & 0x80
    m.clear()
    m.write(3)
    assert m.dirty(0, 512) == [3]


def test_after_a_fork_each_process_has_its_own(clean) -> None:  # type: ignore[no-untyped-def]
    clean.fork()
    clean.write(1)
    clean.write(2, who=1)
    assert (clean.dirty(0, 8), clean.dirty(0, 8, who=1)) == ([1], [2])


def test_the_store_that_6_1_loses_in_a_shared_mapping(machine) -> None:  # type: ignore[no-untyped-def]
    """A merge takes VM_SOFTDIRTY from a page that was read: its entry is writable and unmarked."""
    seen = {}
    for profile in ("exact", "linux-6.1", "linux-6.12"):
        m = machine(profile)
        m.mmap(0, 4, kind="s0", prot="r")
        m.clear()
        m.mmap(4, 4, kind="s0", file_page=4)
        m.read(4)
        m.mprotect(0, 4, "rw")
        m.write(4)
        seen[profile] = m.dirty(0, 8)
    assert seen == {"exact": [4, 5, 6, 7], "linux-6.1": [], "linux-6.12": []}
