"""Entry helpers, by literals typed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES
from ptewalk.model.pte import Entries

P, RW, US, A, D, PROTNONE, SPECIAL, UFFD_WP, SD = 0x1, 0x2, 0x4, 0x20, 0x40, 0x100, 0x200, 0x400, 0x800
ARM, SAVED, NX = 1 << 52, 1 << 58, 1 << 63
ALL_PROFILES = list(PROFILES)


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_mkdirty_sets_two_bits(profile: str) -> None:
    entries = Entries(PROFILES[profile])
    assert entries.pte_mkdirty(P | RW) == P | RW | D | SD
    assert entries.pmd_mkdirty(P | RW) == P | RW | D | SD


@pytest.mark.parametrize("profile", ["linux-seed", "linux-3.11", "linux-6.1"])
def test_mkclean_and_wrprotect_leave_soft_dirty(profile: str) -> None:
    entries = Entries(PROFILES[profile])
    assert entries.pte_mkclean(P | RW | D | SD) == P | RW | SD
    assert entries.pte_wrprotect(P | RW | D | SD) == P | D | SD
    assert entries.pte_mkwrite(P | D) == P | RW | D
    assert entries.pte_mkyoung(P) == P | A
    assert entries.pte_mkold(P | A | SD) == P | SD


def test_saved_dirty_follows_rw() -> None:
    """6.6 and later: D of a read-only entry is kept in bit 58."""
    entries = Entries(PROFILES["linux-6.12"])
    assert entries.pte_wrprotect(P | RW | D | SD) == P | SD | SAVED
    assert entries.pte_mkwrite(P | SAVED) == P | RW | D
    assert entries.pte_mkdirty(P) == P | SD | SAVED
    assert entries.pte_mkclean(P | SAVED | D) == P
    assert entries.pte_dirty(P | SAVED)


def test_without_soft_dirty_helpers_are_the_fallbacks() -> None:
    """include/asm-generic/pgtable.h of the seed commit: tests answer 0, setters change nothing."""
    entries = Entries(PROFILES["linux-seed"], soft_dirty=False)
    assert entries.pte_soft_dirty(P | SD) == 0
    assert entries.pmd_soft_dirty(P | SD) == 0
    assert entries.pte_mksoft_dirty(P) == P
    assert entries.pmd_mksoft_dirty(P) == P
    assert entries.pte_mkdirty(P) == P | D
    assert entries.pte_clear_soft_dirty(P | SD) == P | SD


def test_soft_dirty_helpers() -> None:
    entries = Entries(PROFILES["linux-seed"])
    assert entries.pte_soft_dirty(P | SD) == SD
    assert entries.pmd_soft_dirty(P) == 0
    assert entries.pte_mksoft_dirty(P) == P | SD
    assert entries.pmd_mksoft_dirty(P) == P | SD
    assert entries.pte_clear_soft_dirty(P | RW | SD) == P | RW


@pytest.mark.parametrize("profile", ALL_PROFILES)
def test_arrays_and_integers_agree(profile: str) -> None:
    entries = Entries(PROFILES[profile])
    values = [0x867, 0x65, 0x8000000000000225, 0x8400000000000025, 0x120, 0x920, NX | 0x12345067]
    array = np.array(values, np.uint64)
    for name in ("pte_mkdirty", "pte_mkclean", "pte_mkyoung", "pte_mkold", "pte_mkwrite", "pte_wrprotect"):
        assert getattr(entries, name)(array).tolist() == [getattr(entries, name)(v) for v in values], name
    assert entries.pte_pfn(array).tolist() == [entries.pte_pfn(v) for v in values]
    prot = entries.vm_page_prot(3)
    assert entries.pte_modify(array, prot).tolist() == [entries.pte_modify(v, prot) for v in values]


@pytest.mark.parametrize(
    ("profile", "kept"), [("linux-seed", 0), ("linux-3.11", 0), ("linux-6.1", SD), ("linux-6.12", SD)]
)
def test_modify_keeps_soft_dirty_or_not(profile: str, kept: int) -> None:
    """Rule A4: the mask of 3.11 has no soft-dirty, so mprotect loses it."""
    entries = Entries(PROFILES[profile])
    read_only = entries.vm_page_prot(1)
    assert read_only == NX | US | P | A
    assert entries.pte_modify(P | US | A | SD, read_only) & SD == kept


def test_prot_none_complements_the_frame() -> None:
    entries = Entries(PROFILES["linux-6.1"])
    none = entries.vm_page_prot(0)
    assert none == PROTNONE | A
    entry = entries.pte_modify(0x8000000012345867, none)
    assert entry == 0x000FFFFFEDCBA960
    assert entries.pte_pfn(entry) == 0x12345
    assert entries.pte_present(entry)
    assert entries.pte_modify(entry, entries.vm_page_prot(3)) == 0x8000000012345865
    assert Entries(PROFILES["linux-seed"]).pte_modify(0x12345067, PROTNONE | A) == 0x12345160


def test_protection_of_areas() -> None:
    """read 1, write 2, execute 4, shared 8."""
    entries = Entries(PROFILES["linux-6.1"])
    assert entries.vm_page_prot(1 | 2) == NX | 0x25
    assert entries.vm_page_prot(1 | 2 | 8) == NX | 0x27
    assert entries.vm_page_prot(1 | 4) == 0x25
    assert entries.vm_page_prot(1 | 2 | 5 << 32) == NX | 5 << 59 | 0x25


def test_swap_entries() -> None:
    entries = Entries(PROFILES["linux-6.1"])
    entry = entries.swp_entry_to_pte(0, 0x123)
    assert entry == (((1 << 50) - 1) ^ 0x123) << 9
    assert entries.swp_offset(entry) == 0x123
    assert entries.swp_type(entry | 30 << 59) == 30
    assert entries.is_marker(entries.make_uffd_marker())
    old = Entries(PROFILES["linux-seed"])
    assert old.swp_entry_to_pte(0, 5) == 5 << 9
    assert old.swp_entry_to_pte(1, 4) & SD
    assert not old.SWP_SOFT_DIRTY
    assert Entries(PROFILES["linux-3.11"]).SWP_SOFT_DIRTY == 0x80


def test_arm_goes_wherever_rw_is_decided() -> None:
    entries = Entries(PROFILES["linux-6.1"], track=Track.FAULT)
    assert entries.pte_wrprotect(P | ARM) == P
    assert entries.pte_mkwrite(P | ARM) == P | RW
    assert entries.pte_shares_write(P | ARM)
    assert not entries.pte_write(P | ARM)
    assert Entries(PROFILES["linux-6.1"]).pte_wrprotect(P | ARM) == P | ARM


def test_native_may_write_needs_both_bits() -> None:
    entries = Entries(PROFILES["linux-6.1"], track=Track.NATIVE)
    assert entries.pte_write(P | RW | SD)
    assert not entries.pte_write(P | RW)
    assert not entries.pte_write(P | SD)


def test_a_profile_without_markers_says_so() -> None:
    with pytest.raises(ValueError, match="profile 'linux-seed' has no PTE markers"):
        Entries(PROFILES["linux-seed"]).make_uffd_marker()
