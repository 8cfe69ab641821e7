"""The golden translation: rights, protection keys, and what is set in a leaf."""

from __future__ import annotations

import pytest

from ptewalk.model.linux import Track
from ptewalk.model.paging import (
    PageFault,
    Translated,
)
from ptewalk.model.x86 import Access

from .paging_tables import (
    ALL,
    FETCH,
    NXE,
    PAGE,
    PD,
    PDE_AT,
    PDPT,
    PDPTE_AT,
    PKE,
    PKS,
    PML4E_AT,
    PROBE,
    PS,
    PT,
    PTE_AT,
    READ,
    RMW,
    RW,
    SMAP,
    SMEP,
    US,
    WP,
    WRITE,
    A,
    D,
    LoggedMemory,
    P,
    run,
    tables,
)

XD, SOFT_DIRTY, ARM, SAVED_DIRTY = 1 << 63, 1 << 11, 1 << 52, 1 << 58


# Steps 4 and 5: access rights [SDM 3A 4.6.1].


@pytest.mark.parametrize("at", [PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT])
@pytest.mark.parametrize(
    ("bit", "access", "control", "code"),
    [(RW, WRITE, 0, 7), (RW, RMW, 0, 7), (RW, PROBE, 0, 7), (US, READ, 0, 5), (US, FETCH, 0, 5), (XD, FETCH, NXE, 21)],
)
def test_user_rights_combine_over_levels(at: int, bit: int, access: Access, control: int, code: int) -> None:
    memory = tables(PAGE | ALL | A)
    assert isinstance(run(memory, access, control), Translated)
    memory.store(at, memory.load(at) ^ bit)
    assert run(memory, access, control) == PageFault(code)


# (leaf bits, access, control, ac) to the error code of a supervisor-mode access, None when it is allowed.
_SUPERVISOR = [
    (0, READ, 0, False, None),
    (US, READ, 0, False, None),
    (US, READ, SMAP, False, 1),
    (US, READ, SMAP, True, None),
    (0, READ, SMAP, False, None),
    (0, WRITE, 0, False, None),
    (0, WRITE, WP, False, 3),
    (RW, WRITE, WP, False, None),
    (US, WRITE, 0, False, None),
    (US, WRITE, WP, False, 3),
    (US | RW, WRITE, SMAP, False, 3),
    (US | RW, WRITE, SMAP, True, None),
    (US, WRITE, SMAP, True, None),
    (US, WRITE, SMAP | WP, True, 3),
    (US, FETCH, 0, False, None),
    (US, FETCH, SMEP, False, 17),
    (US, FETCH, SMEP | NXE, True, 17),
    (US, FETCH, SMAP, False, None),
    (0, FETCH, SMEP, False, None),
    (XD, FETCH, NXE, False, 17),
    (XD, READ, NXE, False, None),
]


@pytest.mark.parametrize(("bits", "access", "control", "ac", "code"), _SUPERVISOR)
def test_supervisor_rights(bits: int, access: Access, control: int, ac: bool, code: int | None) -> None:
    result = run(tables(PAGE | P | A | bits), access, control, user=False, ac=ac)
    assert isinstance(result, Translated) if code is None else result == PageFault(code)


@pytest.mark.parametrize("user", [False, True])
@pytest.mark.parametrize("ac", [False, True])
def test_implicit_accesses_are_supervisor_accesses_that_ignore_ac(user: bool, ac: bool) -> None:
    assert isinstance(run(tables(PAGE | P | A), implicit=True, user=user, ac=ac), Translated)
    assert run(tables(PAGE | ALL | A), READ, SMAP, implicit=True, user=user, ac=ac) == PageFault(1)
    assert run(tables(PAGE | P | A), WRITE, WP, implicit=True, user=user, ac=ac) == PageFault(3)


def test_smep_concerns_supervisor_fetches_only() -> None:
    assert isinstance(run(tables(PAGE | ALL | A), FETCH, SMEP), Translated)
    assert isinstance(run(tables(PAGE | ALL | A), READ, SMEP, user=False), Translated)


def test_instruction_bit_of_the_error_code_needs_nxe_or_smep() -> None:
    for control, code in ((0, 4), (NXE, 20), (SMEP, 20), (SMEP | NXE, 20)):
        assert run(tables(0), FETCH, control) == PageFault(code)


# Protection keys [SDM 3A 4.6.2]. The leaf's key is 5: access-disable is bit 10, write-disable bit 11.


_AD, _WD = 1 << 10, 1 << 11
# (leaf bits, register, value, access, control, user) to the error code, None when allowed.
_KEYS = [
    (US | RW, "pkru", _AD, READ, PKE, True, 0x25),
    (US | RW, "pkru", _AD, READ, 0, True, None),
    (US | RW, "pkru", _AD, FETCH, PKE, True, None),
    (US | RW, "pkru", _AD, READ, PKE, False, 0x21),
    (US | RW, "pkru", _WD, READ, PKE, True, None),
    (US | RW, "pkru", _WD, WRITE, PKE, True, 0x27),
    (US | RW, "pkru", _WD, WRITE, PKE, False, None),
    (US | RW, "pkru", _WD, WRITE, PKE | WP, False, 0x23),
    (US, "pkru", _WD, WRITE, PKE, True, 0x27),
    (RW, "pkru", _AD, READ, PKE, False, None),
    (RW, "pkru", _AD, READ, PKE, True, 0x5),
    (US | RW, "pkru", 0xFFFFF3FF, WRITE, PKE | WP, True, None),
    (RW, "pkrs", _AD, READ, PKS, False, 0x21),
    (RW, "pkrs", _AD, READ, 0, False, None),
    (RW, "pkrs", _AD, FETCH, PKS, False, None),
    (RW, "pkrs", _WD, WRITE, PKS, False, None),
    (RW, "pkrs", _WD, WRITE, PKS | WP, False, 0x23),
    (0, "pkrs", _WD, WRITE, PKS | WP, False, 0x23),
    (US | RW, "pkrs", _AD, READ, PKS, False, None),
    (RW, "pkrs", _AD, READ, PKS, True, 0x5),
]


@pytest.mark.parametrize(("bits", "register", "value", "access", "control", "user", "code"), _KEYS)
def test_protection_keys(
    bits: int, register: str, value: int, access: Access, control: int, user: bool, code: int | None
) -> None:
    memory = tables(PAGE | P | A | bits | 5 << 59)
    result = run(memory, access, control, user=user, **{register: value})
    assert isinstance(result, Translated) if code is None else result == PageFault(code)


def test_key_bit_stands_beside_smap() -> None:
    memory = tables(PAGE | ALL | A | 5 << 59)
    assert run(memory, READ, PKE | SMAP, user=False, pkru=_AD) == PageFault(0x21)


def test_key_of_upper_entries_is_ignored() -> None:
    memory = tables(PAGE | ALL | A, ALL | A | 5 << 59)
    assert isinstance(run(memory, READ, PKE, pkru=_AD), Translated)


# Step 6: A, D and the tracked bits.


@pytest.mark.parametrize("access", list(Access))
def test_accessed_and_dirty(access: Access) -> None:
    memory = tables(PAGE | ALL, ALL)
    assert isinstance(run(memory, access, 0), Translated)
    upper = 0 if access == PROBE else A
    leaf = {READ: A, FETCH: A, WRITE: A | D, RMW: A | D, PROBE: 0}[access]
    assert memory.load(PML4E_AT) == PDPT | ALL | upper
    assert memory.load(PDPTE_AT) == PD | ALL | upper
    assert memory.load(PDE_AT) == PT | ALL | upper
    assert memory.load(PTE_AT) == PAGE | ALL | leaf


@pytest.mark.parametrize("access", list(Access))
def test_no_write_when_nothing_changes(access: Access) -> None:
    memory = tables(PAGE | ALL | A | D)
    run(memory, access, 0)
    assert isinstance(memory, LoggedMemory)
    assert [what for what, _ in memory.log] == ["load"] * 4


def test_a_fault_leaves_the_leaf_alone() -> None:
    for eager, upper in ((True, A), (False, 0)):
        memory = tables(PAGE | P | US, ALL)
        assert run(memory, WRITE, eager=eager) == PageFault(7)
        assert memory.load(PML4E_AT) == PDPT | ALL | upper
        assert memory.load(PDE_AT) == PT | ALL | upper
        assert memory.load(PTE_AT) == PAGE | P | US


def test_supervisor_write_to_a_read_only_page_without_wp_sets_d() -> None:
    memory = tables(PAGE | P | US | A)
    assert isinstance(run(memory, WRITE, 0, user=False), Translated)
    assert memory.load(PTE_AT) == PAGE | P | US | A | D


_SUPERVISOR_WRITE: dict[str, object] = {"user": False, "control": 0}
# (track, leaf before, how, leaf after; None: #PF) [the TRACK table]
_TRACK: list[tuple[Track, int, dict[str, object], int | None]] = [
    (Track.OFF, RW, {}, RW | A | D),
    (Track.FAULT, RW, {}, RW | A | D | SOFT_DIRTY),
    (Track.NATIVE, RW, {}, RW | A | D | SOFT_DIRTY),
    (Track.FAULT, RW | A | D, {}, RW | A | D | SOFT_DIRTY),
    (Track.NATIVE, RW | A | SOFT_DIRTY, {}, RW | A | D | SOFT_DIRTY),
    (Track.OFF, RW | ARM, {}, RW | ARM | A | D),
    (Track.OFF, ARM, {}, None),
    (Track.NATIVE, ARM, {}, None),
    (Track.FAULT, ARM, {}, RW | A | D | SOFT_DIRTY),
    (Track.FAULT, ARM | SAVED_DIRTY, {}, RW | A | D | SOFT_DIRTY | SAVED_DIRTY),
    (Track.FAULT, ARM | SAVED_DIRTY, {"saved_dirty": True}, RW | A | D | SOFT_DIRTY),
    (Track.FAULT, ARM, {"soft_dirty": False}, None),
    (Track.FAULT, RW, {"soft_dirty": False}, RW | A | D),
    (Track.FAULT, 0, {}, None),
    (Track.FAULT, ARM, {"user": False, "control": WP}, RW | A | D | SOFT_DIRTY),
    (
        Track.FAULT,
        ARM | SAVED_DIRTY,
        {**_SUPERVISOR_WRITE, "saved_dirty": True},
        ARM | SAVED_DIRTY | A | D | SOFT_DIRTY,
    ),
    (Track.NATIVE, ARM, _SUPERVISOR_WRITE, ARM | A | D | SOFT_DIRTY),
    (Track.OFF, ARM, _SUPERVISOR_WRITE, ARM | A | D),
    (Track.FAULT, RW | SAVED_DIRTY, {"saved_dirty": True}, RW | SAVED_DIRTY | A | D | SOFT_DIRTY),
    (Track.FAULT, ARM, {"user": False, "control": WP | SMAP}, None),
    (Track.FAULT, ARM, {"control": PKE, "pkru": 2}, None),
]


@pytest.mark.parametrize("access", [WRITE, RMW, PROBE])
@pytest.mark.parametrize(("track", "before", "how", "after"), _TRACK)
def test_tracked_writes(track: Track, before: int, how: dict[str, object], after: int | None, access: Access) -> None:
    memory = tables(PAGE | P | US | before)
    result = run(memory, access, track=track, **how)  # type: ignore[arg-type]
    assert isinstance(result, PageFault if after is None else Translated)
    if after is None or access == PROBE:
        assert memory.load(PTE_AT) == PAGE | P | US | before
    else:
        assert memory.load(PTE_AT) == PAGE | P | US | after
        assert isinstance(memory, LoggedMemory)
        assert memory.log.count(("swap", PTE_AT)) == 1


@pytest.mark.parametrize("access", [READ, FETCH])
@pytest.mark.parametrize("track", list(Track))
def test_reads_and_fetches_track_nothing(access: Access, track: Track) -> None:
    memory = tables(PAGE | P | US | ARM)
    assert isinstance(run(memory, access, track=track), Translated)
    assert memory.load(PTE_AT) == PAGE | P | US | ARM | A


def test_an_armed_leaf_under_a_read_only_table_is_not_mended() -> None:
    memory = tables(PAGE | P | US | ARM)
    memory.store(PDE_AT, PT | P | US | A)
    assert run(memory, WRITE, track=Track.FAULT) == PageFault(7)


def test_large_armed_page_is_mended() -> None:
    memory = tables(0)
    memory.store(PDE_AT, P | US | PS | ARM)
    assert isinstance(run(memory, WRITE, track=Track.FAULT), Translated)
    assert memory.load(PDE_AT) == P | US | PS | RW | A | D | SOFT_DIRTY
