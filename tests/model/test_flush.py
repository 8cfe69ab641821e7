"""The MMU is told of whatever allows less or maps another frame: one that keeps translations uses no old one.

Each case is run on the golden MMU, which keeps nothing, on one that keeps everything, and on that one with the verb's
flush left out: the first two answer alike, the third does not.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ptewalk.model.errors import Errno
from ptewalk.model.linux import ScanFlag, Track
from ptewalk.model.mmu import ModelMmu
from ptewalk.model.proc.pagemap_scan import Argument
from ptewalk.model.scenario.format import read
from ptewalk.model.scenario.report import replay

from .caching_mmu import CachingMmu

ROOT = Path(__file__).resolve().parents[2]
PAGE = 12


def fill(m: Any) -> None:
    m.mmap(0, 4)
    m.write(0, 4)
    m.read(0, 4)


def shared(kind: str) -> Callable[[Any], None]:
    def prepare(m: Any) -> None:
        m.mmap(0, 4, kind=kind)
        for page in range(4):
            m.write(page, value=5 + page)
        m.read(0, 4)

    return prepare


def aligned(m: Any) -> None:
    """A whole page table, which mremap moves in one piece."""
    m.mmap(0, 512)
    m.write(0, 512)
    m.read(0, 4)


def huge(m: Any) -> None:
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    fill_again(m)


def fill_again(m: Any) -> None:
    m.write(0, 4)
    m.read(0, 4)


def small_in_two_blocks(m: Any) -> None:
    m.mmap(0, 1024)
    fill_again(m)


def zero_page(m: Any) -> None:
    m.mmap(0, 4)
    m.read(0, 4)


def equal_pages(m: Any) -> None:
    m.mmap(0, 4)
    m.madvise(0, 4, "MERGEABLE")
    m.write(0, 4)
    m.read(0, 4)


def with_child(m: Any) -> None:
    fill(m)
    m.fork(1)
    m.read(0, 4, who=1)
    m.write(0, 1, who=1)


def tracked(m: Any) -> None:
    m.kernel.uffd_open(m.kernel.processes[0], asynchronous=True)
    fill(m)
    m.kernel.uffd_register(m.kernel.processes[0], m.kernel.base, 4, asynchronous=True)
    m.write(0, 4)


def registered(m: Any) -> None:
    fill(m)
    m.kernel.uffd_register(m.kernel.processes[0], m.kernel.base, 4)
    m.write(0, 4)


def whole_pool(m: Any) -> None:
    """A process that has reserved the whole pool, and a child that uses its pages."""
    pages = 512 * m.kernel.pools[2].total
    m.mmap(0, pages, kind="hugetlb")
    for head in range(0, pages, 512):
        m.write(head)
    m.fork(1)
    m.read(0, 4, who=1)


def call(name: str, *arguments: object, **named: object) -> Callable[[Any], None]:
    """A system call of process 0; an `int` after the first place is not shifted by the window's base."""

    def verb(m: Any) -> None:
        kernel = m.kernel
        getattr(kernel, name)(kernel.processes[0], kernel.base, *arguments, **named)

    return verb


def scan(m: Any) -> None:
    start = m.kernel.base << PAGE
    argument = Argument(start, start + (4 << PAGE), flags=ScanFlag.WP_MATCHING, category_mask=2, return_mask=2)
    assert m.kernel.pagemap_scan(m.kernel.processes[0], argument).regions


def scan_into_its_own_memory(m: Any) -> None:
    """The regions are stored to a page that the same call has just protected."""
    start = m.kernel.base << PAGE
    argument = Argument(
        start, start + (4 << PAGE), flags=ScanFlag.WP_MATCHING, category_mask=2, return_mask=2, vec=start
    )
    assert m.kernel.pagemap_scan(m.kernel.processes[0], argument).regions


CASES: dict[str, tuple[str, Callable[[Any], None], Callable[[Any], None]]] = {
    "munmap": ("linux-6.12", fill, lambda m: m.munmap(1, 2)),
    "mmap over": ("linux-6.12", fill, lambda m: m.mmap(1, 2)),
    "mremap": ("linux-6.12", fill, lambda m: m.mremap(0, 4, 4, 600)),
    "mremap of a table": ("linux-6.12", aligned, lambda m: m.mremap(0, 512, 512, 1024)),
    "mremap of a huge page": ("linux-6.12", huge, lambda m: m.mremap(0, 512, 512, 1024)),
    "mremap DONTUNMAP": ("linux-6.12", fill, lambda m: m.mremap(0, 4, 4, 600, ("MAYMOVE", "FIXED", "DONTUNMAP"))),
    "mprotect r": ("linux-6.12", fill, lambda m: m.mprotect(0, 4, "r")),
    "mprotect none": ("linux-6.12", huge, lambda m: m.mprotect(0, 512, "-")),
    "DONTNEED": ("linux-6.12", fill, lambda m: m.madvise(0, 4, "DONTNEED")),
    "DONTNEED in a huge page": ("linux-6.12", huge, lambda m: m.madvise(0, 2, "DONTNEED")),
    "FREE": ("linux-6.1", fill, lambda m: m.madvise(0, 4, "FREE")),
    "COLD": ("linux-6.1", fill, lambda m: m.madvise(0, 4, "COLD")),
    "PAGEOUT": ("linux-6.1", fill, lambda m: m.madvise(0, 4, "PAGEOUT")),
    "PAGEOUT of 3.11": ("linux-3.11", fill, lambda m: m.madvise(0, 4, "PAGEOUT")),
    "PAGEOUT of a file": ("linux-6.1", shared("s0"), lambda m: m.madvise(0, 4, "PAGEOUT")),
    "REMOVE": ("linux-6.12", shared("sanon"), lambda m: m.madvise(0, 4, "REMOVE")),
    "COLLAPSE": ("linux-6.12", small_in_two_blocks, lambda m: m.madvise(0, 512, "COLLAPSE")),
    "COLLAPSE, half of it in vain": ("linux-6.12", small_in_two_blocks, lambda m: m.madvise(0, 1024, "COLLAPSE")),
    "SOFT_OFFLINE": ("linux-6.1", fill, lambda m: m.madvise(0, 4, "SOFT_OFFLINE")),
    "clear_refs 4": ("linux-6.12", fill, lambda m: m.clear()),
    "clear_refs 4 of a huge page": ("linux-6.12", huge, lambda m: m.clear()),
    "clear_refs 1": ("linux-6.12", fill, lambda m: m.clear("1")),
    "fork": ("linux-6.12", fill, lambda m: m.fork(1)),
    "ftruncate": ("linux-6.12", shared("s0"), lambda m: m.kernel.ftruncate("0", 1)),
    "sync": ("linux-3.11", shared("s4"), lambda m: m.kernel.sync("4")),
    "remap_file_pages": ("linux-3.11", shared("s0"), call("remap_file_pages", 2, 2)),
    "move_pages": ("linux-6.1", fill, call("move_pages", 4, 1)),
    "ksm_scan": ("linux-6.12", equal_pages, lambda m: m.kernel.ksm_scan()),
    "uffd_writeprotect": ("linux-6.1", registered, call("uffd_writeprotect", 4, protect=True)),
    "PAGEMAP_SCAN": ("linux-6.12", tracked, scan),
    "pin": ("linux-6.12", zero_page, call("pin", 4)),
    "write through /proc/PID/mem": ("linux-6.12", zero_page, lambda m: m.mem_write(0, 4)),
    "copy on write": ("linux-6.12", zero_page, lambda m: m.write(0, 4)),
    "copy on write, by the kernel": (
        "linux-6.12",
        zero_page,
        lambda m: m.kernel.copy_to_user(m.kernel.processes[0], m.kernel.base, 8, 3),
    ),
    "hugetlb takes a page from a child": ("linux-6.1", whole_pool, lambda m: m.write(0)),
}


def answers(machine: Any, case: str, mmu: Any, *, flushes: bool = True) -> object:
    """What every process reads and writes after a verb, what the kernel finds there, and the entries."""
    profile, prepare, verb = CASES[case]
    m = machine(profile, mmu=mmu)
    prepare(m)
    forget = m.kernel.forget
    if not flushes:
        m.kernel.forget = m.kernel.stale.take
    failed = None
    try:
        verb(m)
    except Errno as error:
        failed = error.name
    m.kernel.forget = forget
    found: list[object] = [m.write(3, value=4), m.pte(3), m.pmd(3)]
    m.mem_write(0, 1)  # by the kernel: whoever reads must see it
    for who in sorted(m.kernel.processes):
        found.append(m.read(0, 4, who=who))
        found.append(m.write(0, 4, who=who, value=3))
        pages = range(m.kernel.base, m.kernel.base + 4)
        found.append(m.kernel.mem_access(m.kernel.processes[who], pages, write=False))
        found.append([m.pte(page, who) | m.pmd(page, who) for page in range(4)])
    return failed, found


@pytest.mark.parametrize("case", CASES)
def test_no_old_translation_is_used(machine: Any, case: str) -> None:
    plain = answers(machine, case, ModelMmu)
    assert answers(machine, case, CachingMmu) == plain
    assert answers(machine, case, CachingMmu, flushes=False) != plain, "without the flush the case shows nothing"


def test_what_pagemap_scan_stores_goes_where_it_just_protected(machine: Any) -> None:
    entries = []
    for mmu in (ModelMmu, CachingMmu):
        m = machine("linux-6.12", mmu=mmu)
        tracked(m)
        scan_into_its_own_memory(m)
        entries.append([m.pte(page) for page in range(4)])
    assert entries[0] == entries[1]
    assert entries[0][0] & 1 << 10 == 0 != entries[0][1] & 1 << 10


@pytest.mark.parametrize("track", [Track.OFF, Track.FAULT, Track.NATIVE])
@pytest.mark.parametrize("kernel", ["linux-seed", "linux-3.11", "linux-6.1", "linux-6.12"])
@pytest.mark.slow
def test_recordings(kernel: str, track: Track) -> None:
    """Every step of the own recordings, with an MMU that keeps translations: answers as with one that does not."""
    scenarios = read(ROOT / "tests" / "data" / f"own-{kernel}.jsonl.gz")
    plain = replay(scenarios, kernel, track=track)
    caches: list[CachingMmu] = []

    def caching(memory: Any) -> CachingMmu:
        caches.append(CachingMmu(memory))
        return caches[-1]

    kept = replay(scenarios, kernel, track=track, mmu=caching)
    assert (kept.agree, kept.differ, kept.skipped) == (plain.agree, plain.differ, plain.skipped)
    assert sum(cache.hits for cache in caches) > 0
