"""The seed commit, sentence by sentence and hunk by hunk, under `linux-seed`: on the model, and on the gateware.

Each test is named after the sentence or hunk it holds, and runs with the golden MMU and with the gateware as the MMU.
What the commit's kernel also does wrong is in test_linux_seed_rules.py, what the gateware does by itself in
tests/cosim/checks/test_seed_mechanism.py.
"""

from __future__ import annotations

from functools import partial

import pytest

from ptewalk.cosim.bench.amaranth_mmu import AmaranthMmu

P, RW, D, SD = 0x1, 0x2, 0x40, 0x800
SEED = "linux-seed"


@pytest.fixture(params=["golden MMU", pytest.param("gateware", marks=pytest.mark.slow)])
def machine(request, machine):  # type: ignore[no-untyped-def]
    """The class of `machine`, with either MMU."""
    if request.param == "golden MMU":
        return machine

    def with_gateware(profile: str, **options: object):  # type: ignore[no-untyped-def]
        soft_dirty = bool(options.get("soft_dirty", True))
        return machine(profile, mmu=partial(AmaranthMmu, soft_dirty=soft_dirty), **options)

    return with_gateware


def prepared(machine, **options):  # type: ignore[no-untyped-def]
    """Four written pages, cleared."""
    m = machine(SEED, **options)
    m.mmap(0, 4)
    m.write(0, 4)
    m.clear()
    return m


# The message.


def test_tracks_which_pages_a_task_writes_to(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    m.write(2)
    assert m.dirty(0, 4) == [2]


def test_step_1_clear_soft_dirty_bits_by_writing_4(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 4)
    m.write(0, 4)
    assert m.dirty(0, 4) == [0, 1, 2, 3]
    assert m.clear("4") == 1
    assert m.dirty(0, 4) == []


def test_step_2_waiting_and_reading_marks_nothing(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    assert m.read(0, 4) == [7, 7, 7, 7]
    assert m.dirty(0, 4) == []


def test_step_3_read_bit_55_of_pagemap(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    m.write(1)
    assert [word >> 55 & 1 for word in m.words(0, 4)] == [0, 1, 0, 0]


def test_writable_bit_is_cleared_when_the_soft_dirty_bit_is(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 1)
    m.write(0)
    assert m.pte(0) & (RW | SD) == RW | SD
    m.clear()
    assert m.pte(0) & (RW | SD) == 0
    assert m.pte(0) & (P | D) == P | D, "D and the mapping stay"


def test_a_write_faults_and_the_kernel_sets_the_bit(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    m.write(0)
    assert m.pte(0) & (RW | D | SD) == RW | D | SD


def test_the_faults_are_fast_the_page_is_still_mapped_to_physical_memory(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    before = m.frame(0)
    m.write(0)
    assert m.frame(0) == before, "writable, dirty and soft-dirty are put back on the same frame"
    assert m.read(0) == [7]


def test_mremap_marks_what_it_moves(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    m.mremap(0, 4, 4, 16)
    assert m.dirty(0, 32) == [16, 17, 18, 19]
    assert m.pte(16) & RW == 0, "moved, not made writable"


# Documentation/filesystems/proc.txt.


@pytest.mark.parametrize("value", ["0", "5", "6", "44", "-4", "x", ""])
def test_any_other_value_has_no_effect(machine, value: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 1)
    m.write(0)
    before = m.pte(0)
    assert m.error(m.clear, value) == "EINVAL"
    assert m.pte(0) == before


@pytest.mark.parametrize("value", ["1", "2", "3"])
def test_values_1_to_3_reset_accessed_and_leave_soft_dirty(machine, value: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 1)
    m.write(0)
    m.clear(value)
    assert m.pte(0) & (RW | D | SD) == RW | D | SD
    assert bool(m.pte(0) & 0x20) == (value == "3"), "3 is for mapped files"


# arch/x86/include/asm/pgtable.h and include/asm-generic/pgtable.h: tests/model/test_pte.py holds the helpers.


def test_hunk_pte_mkdirty_a_first_touch_is_soft_dirty(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 2)
    m.read(0)
    m.write(1)
    assert m.pte(0) & (D | SD) == 0
    assert m.pte(1) & (D | SD) == D | SD


def test_hunk_pmd_mkdirty_a_huge_first_touch_is_soft_dirty(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(5)
    assert m.pmd(0) & (D | SD) == D | SD
    assert len(m.dirty(0, 512)) == 512


def test_hunk_hidden_bit_is_bit_11(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 1)
    m.write(0)
    assert m.kernel.entries.SOFT_DIRTY == 1 << 11
    assert m.pte(0) >> 11 & 1


# fs/proc/task_mmu.c.


def test_hunk_clear_refs_type_4_exists_and_5_does_not(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    assert m.error(m.clear, "4") is None
    assert m.error(m.clear, "5") == "EINVAL"


def test_hunk_clear_soft_dirty_wrprotects_and_clears_in_one_entry(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 600)
    m.write(0, 600)
    guard = [m.pte(page) for page in range(600)]
    m.clear()
    assert [m.pte(page) for page in range(600)] == [entry & ~(RW | SD) for entry in guard]


def test_hunk_clear_takes_the_zero_page_too_and_skips_what_is_not_present(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 4)
    m.read(0)
    m.write(1)
    m.madvise(1, 1, "PAGEOUT")
    swapped = m.pte(1)
    m.clear()
    assert m.pte(1) == swapped, "a swap entry is left alone"
    assert m.pte(2) == 0


def test_hunk_hugetlb_areas_are_skipped(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 512, kind="hugetlb")
    m.write(0)
    before = m.pmd(0)
    m.clear()
    assert m.pmd(0) == before


def test_hunk_notifiers_hear_of_the_whole_address_space(machine) -> None:  # type: ignore[no-untyped-def]
    m = prepared(machine)
    assert m.kernel.notifications == [("soft_dirty", 0, 0xFFFF_FFFF_FFFF_FFFF)]
    m.clear("1")
    assert len(m.kernel.notifications) == 1, "only for 4"


@pytest.mark.parametrize("value", ["1", "2", "3", "4"])
def test_hunk_the_tlb_is_flushed(machine, value: str) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 1)
    flushes: list[tuple[int | None, int]] = []
    m.kernel.mmu.invalidate = lambda *space: flushes.append(space)
    m.clear(value)
    assert (None, m.kernel.processes[0].mm.tables.pcid) in flushes


def test_hunk_pagemap_has_the_bit_in_its_second_layout_only(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED, pagemap_v2=False, pagemap_fixed=True)
    m.mmap(0, 2)
    m.write(0)
    m.clear()
    m.write(0)
    assert m.words(0, 2)[0] >> 55 & 0x3F == 12
    assert m.words(0, 2)[1] == 12 << 55, "the page shift stands in every word, mapped or not"


def test_the_next_commit_switches_the_layout_with_the_first_4(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED, pagemap_v2=False)
    m.mmap(0, 2)
    m.write(0)
    assert m.words(0, 1)[0] >> 55 & 0x3F == 12
    m.clear("1")
    assert m.words(0, 1)[0] >> 55 & 0x3F == 12, "1 does not switch"
    m.clear("4")
    m.write(0)
    assert m.words(0, 2) == [1 << 63 | 1 << 55 | m.frame(0), 0]


def test_hunk_huge_pagemap_words_carry_the_pmds_bit(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    words = m.words(0, 512)
    assert all(word >> 55 & 1 for word in words)
    m.mprotect(0, 512, "r")
    assert not any(word >> 55 & 1 for word in m.words(0, 512)), "still huge, and pmd_modify lost the bit"
    assert m.pmd(0) & 0x80


# mm/huge_memory.c and mm/mremap.c.


def test_hunk_move_huge_pmd_marks(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 512)
    m.madvise(0, 512, "HUGEPAGE")
    m.write(0)
    m.mprotect(0, 512, "r")
    m.mremap(0, 512, 512, 1024)
    assert m.pmd(1024) & SD and m.pmd(1024) & 0x80
    assert len(m.dirty(1024, 512)) == 512


def test_hunk_move_ptes_marks_every_entry_that_moves(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED)
    m.mmap(0, 8)
    m.write(0, 2)
    m.read(4, 2)
    m.mprotect(1, 1, "-")
    m.mprotect(1, 1, "rw")
    m.clear()
    m.mremap(0, 8, 8, 16)
    assert m.dirty(0, 32) == [16, 17, 20, 21], "none stays none; the zero page is marked like any other"


# Kconfig: MEM_SOFT_DIRTY=n.


def test_feature_off_nothing_is_tracked_and_4_is_accepted(machine) -> None:  # type: ignore[no-untyped-def]
    m = machine(SEED, soft_dirty=False)
    m.mmap(0, 4)
    m.write(0, 4)
    before = [m.pte(page) for page in range(4)]
    assert not any(entry & SD for entry in before)
    assert m.clear() == 1
    assert [m.pte(page) for page in range(4)] == before, "RW is not dropped"
    m.mremap(0, 4, 4, 16)
    assert m.dirty(0, 32) == []
