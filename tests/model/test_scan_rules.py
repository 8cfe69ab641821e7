"""Rules of userfaultfd and PAGEMAP_SCAN."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ptewalk.model.linux import ScanCategory, ScanFlag
from ptewalk.model.proc import pagemap_scan
from ptewalk.model.proc.pagemap_scan import Answer, Argument
from ptewalk.model.profiles import PROFILES
from ptewalk.model.x86 import TABLE_ENTRIES

from .situations import RW, SD, UFFD_WP, B, C, D, cleared, huge, modern, wp

SAVED = 1 << 58


def scan(m, page: int, n: int, **fields: int) -> Answer:  # type: ignore[no-untyped-def]
    first = m.kernel.base + page
    answer: Answer = m.kernel.pagemap_scan(m.kernel.processes[0], Argument(first << 12, first + n << 12, **fields))
    answer.regions = [(start - m.kernel.base, pages, categories) for start, pages, categories in answer.regions]
    return answer


# userfaultfd.


@modern
def test_protection_of_file_memory_survives_as_a_marker(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pte_to_pagemap_entry: a marker reads as swapped, with no swap."""
    m = cleared(machine(profile), 1, "s0")
    wp(m, 0, 1)
    m.madvise(0, 1, "DONTNEED")
    assert m.mm().entries.is_marker(m.mm().tables.get(m.kernel.base))
    assert [m.words(0, 1)[0] >> bit & 1 for bit in (63, 62, 57, 55)] == [0, 1, 1, 0]


@modern
def test_write_protection_leaves_both_dirty_bits(machine, profile: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(profile)
    m.mmap(0, 1)
    m.write(0)
    wp(m, 0, 1)
    assert m.pte(0) & (RW | SD | UFFD_WP) == SD | UFFD_WP and m.pte(0) & (D | SAVED)
    m.clear()
    assert m.pte(0) & (SD | UFFD_WP) == UFFD_WP


# PAGEMAP_SCAN.


def test_scan_takes_soft_dirty_from_the_area_too(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_scan_test_walk"""
    m = machine(C)
    m.mmap(0, 4)
    assert scan(m, 0, 4, category_mask=ScanCategory.SOFT_DIRTY).regions == [(0, 4, int(ScanCategory.SOFT_DIRTY))]
    m.clear()
    m.write(2)
    (region,) = scan(m, 0, 4, category_mask=ScanCategory.SOFT_DIRTY).regions
    assert region[:2] == (2, 1) and region[2] & ScanCategory.SOFT_DIRTY


@modern
def test_pages_of_many_tables_are_looked_at_by_what_they_may_be(  # type: ignore[no-untyped-def]
    machine, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is asked for, only pages are passed over that would not have been told."""
    m = machine(profile)
    if "pagemap_scan" not in m.kernel.profile.verbs:
        return
    m.mmap(0, 1200)
    m.mmap(1200, 1200, "rw", "s0")
    for page in (*range(0, 2400, 7), *range(500, 700)):
        m.write(page)
    for page in range(3, 1200, 5):
        m.read(page)  # the zero page
    m.madvise(400, 200, "PAGEOUT")
    m.clear()
    for page in (*range(450, 460), *range(1700, 1750)):
        m.write(page)
    rng, every = random.Random(1), m.kernel.profile.pagemap_scan_categories
    asked = [
        {
            "category_mask": every & rng.getrandbits(10) & rng.getrandbits(10),
            "category_inverted": every & rng.choice((0, rng.getrandbits(10))),
            "category_anyof_mask": every & rng.choice((0, rng.getrandbits(10))),
            "return_mask": every & rng.choice((0x3FF, rng.getrandbits(10))),
        }
        for _ in range(60)
    ]
    likely, asks_marks, found = pagemap_scan._Scan._likely, pagemap_scan._Scan._asks_marks, []
    passed: set[bool] = set()
    by_marks: set[bool] = set()

    def counted(self, words):  # type: ignore[no-untyped-def]
        places = likely(self, words)
        passed.add(len(places) < len(words))
        return places

    def told(self) -> bool:  # type: ignore[no-untyped-def]
        by_marks.add(asks_marks(self))
        return asks_marks(self)

    for likely_way, marks_way in ((counted, told), (lambda self, words: np.arange(len(words)), lambda self: False)):
        monkeypatch.setattr(pagemap_scan._Scan, "_likely", likely_way)
        monkeypatch.setattr(pagemap_scan._Scan, "_asks_marks", marks_way)
        found.append([scan(m, 0, 2400, **fields) for fields in asked])
    assert found[0] == found[1] and passed == by_marks == {False, True}
    assert sum(len(answer.regions) > 1 for answer in found[0]) > 10


@pytest.mark.parametrize("shuffled", [False, True])
def test_pages_with_a_mark_are_found_in_many_tables(  # type: ignore[no-untyped-def]
    machine, monkeypatch: pytest.MonkeyPatch, shuffled: bool
) -> None:
    """Of a page, or swapped out, wherever the tables lie, also where there is no room for all: as by each entry."""
    tables, rng = 70, random.Random(2)
    m = machine("linux-6.12")
    m.mmap(5, TABLE_ENTRIES * tables)
    for table in rng.sample(range(tables), tables) if shuffled else range(tables):
        m.write(5 + TABLE_ENTRIES * table, 3)
    m.clear()
    for table in (1, 2, 40, 66, 69):
        m.write(5 + TABLE_ENTRIES * table + table, 2)
    m.madvise(5 + TABLE_ENTRIES * 3, 3, "PAGEOUT")
    m.madvise(5 + TABLE_ENTRIES * 40 + 40, 2, "PAGEOUT")
    assert not any(m.pte(5 + TABLE_ENTRIES * 40 + page) & SD for page in (*range(3), 40, 41)), "another bit"
    asks_marks, found = pagemap_scan._Scan._asks_marks, []
    asked = [{"vec_len": room, "max_pages": most} for room in (1000, 3) for most in (0, 1, 7)]
    for way in (asks_marks, lambda self: False):
        monkeypatch.setattr(pagemap_scan._Scan, "_asks_marks", way)
        found.append(
            [
                scan(m, first, TABLE_ENTRIES * tables, category_mask=ScanCategory.SOFT_DIRTY, **fields)
                for fields in asked
                for first in (0, 300)
            ]
        )
    assert found[0] == found[1]
    assert [region[:2] for region in found[0][0].regions] == [
        (5 + TABLE_ENTRIES * table + table, 2) for table in (1, 2, 40, 66, 69)
    ]
    assert any(categories & ScanCategory.SWAPPED for _, _, categories in found[0][0].regions)


def test_scan_reports_the_raw_bit_of_hugetlb(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_hugetlb_category; pagemap does not look at it."""
    m = machine(C)
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    m.clear()
    assert m.dirty(0, 512) == []
    assert scan(m, 0, 512, category_mask=ScanCategory.SOFT_DIRTY).regions[0][:2] == (0, 512)


def test_scan_calls_holes_written_where_there_is_a_table(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(C)
    m.mmap(0, 8)
    m.clear()
    assert scan(m, 0, 8, category_mask=ScanCategory.WRITTEN).regions == []
    m.write(3)
    assert [region[:2] for region in scan(m, 0, 8, category_mask=ScanCategory.WRITTEN).regions] == [
        (0, 3),
        (3, 1),
        (4, 4),
    ]


def test_scan_protects_what_it_found_and_leaves_soft_dirty(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:make_uffd_wp_pte: a second tracker, beside soft-dirty."""
    m = cleared(machine(C), 4)
    wp(m, 0, 4, asynchronous=True)
    m.write(1, 2)
    both = {"category_mask": ScanCategory.WRITTEN, "return_mask": ScanCategory.WRITTEN}
    found = scan(m, 0, 4, flags=ScanFlag.WP_MATCHING | ScanFlag.CHECK_WPASYNC, **both)
    assert [region[:2] for region in found.regions] == [(1, 2)]
    assert all(m.pte(page) & UFFD_WP for page in range(4)) and m.dirty(0, 4) == [1, 2]
    assert scan(m, 0, 4, **both).regions == []
    m.clear()
    assert all(m.pte(page) & UFFD_WP for page in range(4))


def test_scan_needs_asynchronous_protection(machine) -> None:  # type: ignore[no-untyped-def]
    """EPERM with CHECK_WPASYNC; 6.1 has no such call."""
    m = cleared(machine(C), 4)
    assert scan(m, 0, 4, flags=ScanFlag.CHECK_WPASYNC).error == "EPERM"
    before = machine(B)
    assert before.error(scan, before, 0, 4) == "ENOTTY"


def test_scan_that_protects_a_part_of_a_huge_page_marks_all(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_scan_thp_entry splits, and 6.12's split marks."""
    m = huge(machine(C))
    wp(m, 0, 512, protect=False, asynchronous=True)
    assert m.dirty(0, 512) == []
    scan(m, 0, 8, flags=ScanFlag.WP_MATCHING, category_mask=ScanCategory.WRITTEN)
    assert not m.pmd(0) and len(m.dirty(0, 512)) == 512


def test_a_full_scan_buffer_leaves_walk_end_behind(machine) -> None:  # type: ignore[no-untyped-def]
    """More than 512 regions: walk_end is that of the last flush although all of the range was answered."""
    m = machine(C)
    m.mmap(0, 2048)
    m.clear()
    for page in range(0, 1300, 2):
        m.write(page)
    answer = scan(m, 0, 2048, category_mask=ScanCategory.SOFT_DIRTY)
    assert len(answer.regions) == 650
    assert answer.walk_end == m.kernel.base + 1024 << 12


def test_scan_protects_hugetlb_pages_that_are_not_there(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_scan_pte_hole: a marker in each entry that the hole has, and in no other."""
    m = machine(C)
    m.mmap(0, 1536, kind="hugetlb")
    wp(m, 0, 1536, protect=False, asynchronous=True)
    scan(m, 512, 512, flags=ScanFlag.WP_MATCHING)
    assert [m.mm().entries.is_marker(m.pmd(page)) for page in (0, 512, 1024)] == [False, True, False]


def test_small_pages_before_a_huge_page_that_is_taken_back_stay_found(machine) -> None:  # type: ignore[no-untyped-def]
    """fs/proc/task_mmu.c:pagemap_scan_backout_range: the huge page's part joined the region before it."""
    m = machine(C)
    m.mmap(0, 1024)
    wp(m, 0, 1024, protect=False, asynchronous=True)
    m.madvise(512, 512, "HUGEPAGE")
    m.write(500, 12)
    m.write(512)
    assert m.pmd(512) and not m.pmd(0)
    written = {"category_mask": ScanCategory.WRITTEN, "return_mask": ScanCategory.WRITTEN}
    answer = scan(m, 500, 100, flags=ScanFlag.WP_MATCHING, **written)
    assert sorted(page for at, n, _ in answer.regions for page in range(at, at + n)) == list(range(500, 600))


@pytest.mark.parametrize("profile", [name for name, one in PROFILES.items() if "pagemap_scan" in one.verbs])
def test_whatever_pairs_of_categories_are_asked_for(  # type: ignore[no-untyped-def]
    machine, profile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many tables, each one and each two of the categories: only what would not be told is passed over."""
    m = machine(profile)
    m.mmap(0, 1200)
    m.mmap(1200, 1200, "rw", "s0")
    m.mmap(2400, 1200)
    for page in (*range(0, 3600, 7), *range(500, 700), *range(2500, 2700)):
        m.write(page)
    for page in range(3, 1200, 5):
        m.read(page)
    m.madvise(400, 200, "PAGEOUT")
    wp(m, 2400, 1200, protect=False, asynchronous=True)
    m.clear()
    for page in (*range(450, 460), *range(1700, 1750), *range(2600, 2650)):
        m.write(page)
    every = m.kernel.profile.pagemap_scan_categories
    ones = [1 << bit for bit in range(10) if every >> bit & 1]
    masks = [*ones, *(a | b for a in ones for b in ones if a < b)]
    asked = [
        {"category_anyof_mask" if anyof else "category_mask": mask, "category_inverted": inverted, "return_mask": every}
        for mask in masks
        for anyof in (False, True)
        for inverted in {0, mask, mask & -mask}
    ]
    found = []
    ways = (pagemap_scan._Scan._likely, pagemap_scan._Scan._asks_marks)
    for likely, asks_marks in (ways, (lambda self, words: np.arange(len(words)), lambda self: False)):
        monkeypatch.setattr(pagemap_scan._Scan, "_likely", likely)
        monkeypatch.setattr(pagemap_scan._Scan, "_asks_marks", asks_marks)
        found.append([scan(m, 0, 3600, **fields) for fields in asked])
    assert [f for f, a, b in zip(asked, *found, strict=True) if a != b] == []
    assert sum(len(answer.regions) > 1 for answer in found[0]) > 10
