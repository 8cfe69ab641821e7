"""The golden translation, rule by rule, on tables typed by hand: numbers here are literals, not the shared facts."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from ptewalk.model.linux import Track
from ptewalk.model.memory import BusError, SparseMemory
from ptewalk.model.paging import (
    BusFault,
    GeneralProtection,
    PageFault,
    Request,
    Result,
    State,
    Translated,
    translate,
)
from ptewalk.model.x86 import Access

READ, WRITE, RMW, FETCH, PROBE = Access.READ, Access.WRITE, Access.RMW, Access.FETCH, Access.PROBE
WP, NXE, SMEP, SMAP, PKE, PKS, LA57 = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x80
P, RW, US, A, D, PS = 0x1, 0x2, 0x4, 0x20, 0x40, 0x80
XD, SOFT_DIRTY, ARM, SAVED_DIRTY = 1 << 63, 1 << 11, 1 << 52, 1 << 58

# One address per size; 4-level indexes 1, 2, 3, 4 and byte offset 0x678.
LINEAR = 1 << 39 | 2 << 30 | 3 << 21 | 4 << 12 | 0x678
ROOT, PDPT, PD, PT, PML4 = 0x1000, 0x2000, 0x3000, 0x4000, 0x5000
PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT = 0x1008, 0x2010, 0x3018, 0x4020
PAGE = 0x12_3456_7000

ALL = P | RW | US


class LoggedMemory(SparseMemory):
    """Notes each operation; `meddle` maps an operation's number to (address, value) stored just before it."""

    def __init__(self, meddle: dict[int, tuple[int, int]] | None = None) -> None:
        super().__init__(40)
        self.log: list[tuple[str, int]] = []
        self.meddle = meddle or {}

    def load(self, address: int) -> int:
        self._note("load", address)
        return super().load(address)

    def compare_exchange(self, address: int, old: int, new: int) -> bool:
        self._note("swap", address)
        return super().compare_exchange(address, old, new)

    def _note(self, what: str, address: int) -> None:
        if len(self.log) in self.meddle:
            self.store(*self.meddle[len(self.log)])
        self.log.append((what, address))


def tables(leaf: int, upper: int = ALL | A, *, memory: SparseMemory | None = None) -> SparseMemory:
    """Four levels that lead to the PTE `leaf`."""
    memory = memory or LoggedMemory()
    memory.store(PML4E_AT, PDPT | upper)
    memory.store(PDPTE_AT, PD | upper)
    memory.store(PDE_AT, PT | upper)
    memory.store(PTE_AT, leaf)
    return memory


def run(memory: SparseMemory, access: Access = READ, control: int = NXE, **more: object) -> Result:
    """Translate LINEAR; `more` are fields of State or Request, and eager."""
    eager = bool(more.pop("eager", True))
    names = {"user", "implicit", "ac"}
    request = Request(LINEAR, access, **{name: more.pop(name) for name in names & more.keys()})  # type: ignore[arg-type]
    return translate(memory, State(ROOT, control, **more), request, eager=eager)  # type: ignore[arg-type]


# Step 1: canonical addresses.


@pytest.mark.parametrize(
    ("linear", "control", "canonical"),
    [
        (0x0000_7FFF_FFFF_F000, 0, True),
        (0x0000_8000_0000_0000, 0, False),
        (0xFFFF_7FFF_FFFF_FFFF, 0, False),
        (0xFFFF_8000_0000_0000, 0, True),
        (0x8000_0000_0000_0000, 0, False),
        (0x0000_8000_0000_0000, LA57, True),
        (0x00FF_FFFF_FFFF_FFFF, LA57, True),
        (0x0100_0000_0000_0000, LA57, False),
        (0xFEFF_FFFF_FFFF_FFFF, LA57, False),
        (0xFF00_0000_0000_0000, LA57, True),
    ],
)
def test_canonical(linear: int, control: int, canonical: bool) -> None:
    memory = LoggedMemory()
    result = translate(memory, State(ROOT, control), Request(linear, READ))
    assert result == (PageFault(4) if canonical else GeneralProtection())
    assert len(memory.log) == (1 if canonical else 0), "a #GP reads nothing"


# Step 2: which entries are read, and P.


def test_reads_root_first_and_sets_a_as_it_goes() -> None:
    memory = tables(PAGE | ALL, ALL)
    assert run(memory) == Translated(PAGE | 0x678, 1, False, False, False)
    assert isinstance(memory, LoggedMemory)
    assert memory.log == [(what, at) for at in (PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT) for what in ("load", "swap")]


def test_not_eager_sets_a_after_the_leaf_was_judged() -> None:
    memory = tables(PAGE | ALL, ALL)
    assert run(memory, eager=False) == Translated(PAGE | 0x678, 1, False, False, False)
    assert isinstance(memory, LoggedMemory)
    places = (PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT)
    assert memory.log == [("load", at) for at in places] + [("swap", at) for at in places]


def test_five_levels_start_one_table_higher() -> None:
    memory = tables(PAGE | ALL | A)
    memory.store(0x5000 + 8 * 7, ROOT | ALL | A)
    linear = LINEAR | 7 << 48
    assert translate(memory, State(0x5000, LA57), Request(linear, READ)) == Translated(
        PAGE | 0x678, 1, False, False, False
    )


@pytest.mark.parametrize("at", [PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT])
def test_not_present_ignores_all_other_bits(at: int) -> None:
    memory = tables(PAGE | ALL | A)
    memory.store(at, 0xFFFF_FFFF_FFFF_FFFE)
    before = memory.copy()
    assert run(memory, control=0) == PageFault(4)
    assert (memory.words == before.words).all(), "nothing is set in an entry with P=0"


# Step 3: reserved bits.

_RESERVED = (
    [(at, bit, 0) for at in (PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT) for bit in (40, 45, 51)]
    + [(at, 63, 0) for at in (PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT)]
    + [(PML4E_AT, 7, NXE)]
)


@pytest.mark.parametrize(("at", "bit", "control"), _RESERVED)
def test_reserved_bits(at: int, bit: int, control: int) -> None:
    memory = tables(PAGE | ALL | A)
    memory.store(at, memory.load(at) | 1 << bit)
    assert run(memory, WRITE, control) == PageFault(0b01111)
    assert run(memory, READ, control, user=False) == PageFault(0b01001)


@pytest.mark.parametrize("at", [PML4E_AT, PDPTE_AT, PDE_AT, PTE_AT])
@pytest.mark.parametrize("bit", [3, 4, 6, 8, 9, 10, 11, 52, 53, 54, 55, 56, 57, 58, 59, 62])
def test_ignored_bits(at: int, bit: int) -> None:
    memory = tables(PAGE | ALL | A)
    memory.store(at, memory.load(at) | 1 << bit)
    result = run(memory)
    assert isinstance(result, Translated)
    assert result.physical == PAGE | 0x678


def test_bit_7_of_a_pte_is_pat() -> None:
    assert run(tables(PAGE | ALL | A | PS)) == Translated(PAGE | 0x678, 1, False, False, True)


def test_five_level_root_has_no_large_page() -> None:
    memory = tables(PAGE | ALL | A)
    memory.store(0x5000 + 8 * 7, ROOT | ALL | A | PS)
    assert translate(memory, State(0x5000, LA57), Request(LINEAR | 7 << 48, READ)) == PageFault(13)


@pytest.mark.parametrize(("at", "level", "low_bits"), [(PDE_AT, 2, range(13, 21)), (PDPTE_AT, 3, range(13, 30))])
def test_reserved_address_bits_of_large_pages(at: int, level: int, low_bits: range) -> None:
    for bit in range(12, 41):
        memory = tables(0)
        memory.store(at, ALL | A | PS | 1 << bit)
        result = run(memory)
        if bit in low_bits or bit == 40:
            assert result == PageFault(13), bit
        else:
            assert isinstance(result, Translated) and result.level == level, bit
            assert result.pat == (bit == 12)


@pytest.mark.parametrize("gigabyte_pages", [True, False])
def test_gigabyte_pages_can_be_missing(gigabyte_pages: bool) -> None:
    """Without them PS of a PDPTE is reserved; PS of a PDE is not."""
    memory = tables(PAGE | ALL | A | D)
    memory.store(PDPTE_AT, 0x40000000 | ALL | A | PS)
    state = State(ROOT, NXE, gigabyte_pages=gigabyte_pages)
    found = translate(memory, state, Request(LINEAR, READ, user=True))
    assert found == (
        Translated(0x40000000 | LINEAR & 0x3FFFFFFF, 3, False, False, False) if gigabyte_pages else PageFault(0xD)
    )
    memory.store(PDPTE_AT, PD | ALL | A)
    memory.store(PDE_AT, 0x200000 | ALL | A | PS)
    assert isinstance(translate(memory, state, Request(LINEAR, READ, user=True)), Translated)


def test_reserved_width_follows_the_memory() -> None:
    for physical_bits in (36, 52):
        memory = SparseMemory(physical_bits)
        tables(1 << 36 | ALL | A, memory=memory)
        wide = physical_bits == 52
        assert run(memory) == (Translated(1 << 36 | 0x678, 1, False, False, False) if wide else PageFault(13))


def test_reserved_comes_before_a_lower_entry_and_before_rights() -> None:
    memory = tables(PAGE | A)
    memory.store(PDE_AT, PT | P | 1 << 45)
    memory.store(PTE_AT, 0)
    assert run(memory, WRITE) == PageFault(15)
    memory.store(PDPTE_AT, PD | RW)
    assert run(memory, WRITE) == PageFault(6)


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


# Another writer.


def test_failed_swap_above_the_leaf_reads_the_same_entry_again() -> None:
    memory = tables(PAGE | ALL | A, ALL, memory=LoggedMemory({3: (PDPTE_AT, PD | ALL | 1 << 9)}))
    assert isinstance(memory, LoggedMemory)
    memory.log.clear()
    assert isinstance(run(memory), Translated)
    assert memory.log[2:6] == [("load", PDPTE_AT), ("swap", PDPTE_AT), ("load", PDPTE_AT), ("swap", PDPTE_AT)]
    assert memory.load(PDPTE_AT) == PD | ALL | 1 << 9 | A


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize(
    ("meanwhile", "result"),
    [
        (0, PageFault(6)),
        (PAGE | ALL | 1 << 45, PageFault(15)),
        (PAGE | P | US, PageFault(7)),
        (0x9999000 | ALL, Translated(0x9999678, 1, False, False, False)),
    ],
)
def test_failed_swap_of_the_leaf_judges_it_again(eager: bool, meanwhile: int, result: Result) -> None:
    memory = tables(PAGE | ALL, memory=LoggedMemory({4: (PTE_AT, meanwhile)}))
    assert run(memory, WRITE, eager=eager) == result
    marks = A | D if isinstance(result, Translated) else 0
    assert memory.load(PTE_AT) == meanwhile | marks


def test_a_large_leaf_that_becomes_a_table_is_followed() -> None:
    memory = tables(PAGE | ALL | A, memory=LoggedMemory({3: (PDE_AT, PT | ALL)}))
    memory.store(PDE_AT, ALL | PS)
    assert run(memory) == Translated(PAGE | 0x678, 1, False, False, False)


def test_rights_of_a_changed_upper_entry_count_as_last_read() -> None:
    memory = tables(PAGE | ALL | A, ALL, memory=LoggedMemory({3: (PDPTE_AT, PD | P | US)}))
    assert run(memory, WRITE) == PageFault(7)


def test_not_eager_walk_starts_again_when_overtaken() -> None:
    memory = tables(PAGE | ALL, ALL, memory=LoggedMemory({5: (PDPTE_AT, 0)}))
    assert run(memory, WRITE, eager=False) == PageFault(6)
    assert memory.load(PML4E_AT) == PDPT | ALL | A
    assert memory.load(PTE_AT) == PAGE | ALL


@pytest.mark.parametrize("eager", [False, True])
def test_one_entry_used_at_every_level(eager: bool) -> None:
    memory = LoggedMemory()
    memory.store(0x1008, ROOT | ALL)
    linear = sum(1 << shift for shift in (12, 21, 30, 39)) | 0x10
    result = translate(memory, State(ROOT), Request(linear, WRITE), eager=eager)
    assert result == Translated(ROOT | 0x10, 1, False, False, False)
    assert memory.load(0x1008) == ROOT | ALL | A | D
    assert memory.frames() == [1]


# Results, bus errors, bad arguments.


@pytest.mark.parametrize(
    ("at", "entry", "level", "offset_bits"),
    [(PTE_AT, 0x7F_FFFF_F000, 1, 12), (PDE_AT, 0x7F_FFE0_0000, 2, 21), (PDPTE_AT, 0x7F_C000_0000, 3, 30)],
)
def test_physical_address_and_memory_type(at: int, entry: int, level: int, offset_bits: int) -> None:
    pat = 7 if level == 1 else 12
    for pattern in range(8):
        pwt, pcd, pat_bit = pattern & 1, pattern >> 1 & 1, pattern >> 2
        memory = tables(0)
        memory.store(at, entry | ALL | A | (PS if level > 1 else 0) | pwt << 3 | pcd << 4 | pat_bit << pat)
        physical = entry | LINEAR & (1 << offset_bits) - 1
        assert run(memory) == Translated(physical, level, bool(pwt), bool(pcd), bool(pat_bit))


class _Broken(LoggedMemory):
    """Fails the operation of number `broken`."""

    broken = 0

    def _note(self, what: str, address: int) -> None:
        super()._note(what, address)
        if len(self.log) - 1 == self.broken:
            raise BusError(address)


@pytest.mark.parametrize("broken", range(8))
def test_bus_error_of_any_operation(broken: int) -> None:
    memory = _Broken()
    memory.broken = broken + 100
    tables(PAGE | ALL, ALL, memory=memory)
    memory.broken = broken
    assert run(memory, WRITE) == BusFault()
    assert len(memory.log) == broken + 1, "nothing is done after a bus error"


def test_bus_error_of_a_strict_memory() -> None:
    memory = SparseMemory(40, strict=True)
    memory.add_frame(1)
    memory.store(PML4E_AT, PDPT | ALL)
    assert run(memory) == BusFault()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: State(0x1001), r"root must be a multiple of 4096 below 2\*\*52, not 0x1001"),
        (lambda: State(-4096), r"root must be a multiple of 4096 below 2\*\*52, not -0x1000"),
        (lambda: State(1 << 52), r"root must be .*, not 0x10000000000000"),
        (lambda: State(0, 0x100), r"control must hold the bits WP to LA57 only \(below 0x100\), not 0x100"),
        (lambda: State(0, 0, 1 << 32), "pkru must be an unsigned 32-bit number, not 0x100000000"),
        (lambda: State(0, 0, 0, -1), "pkrs must be an unsigned 32-bit number, not -0x1"),
        (lambda: Request(1 << 64, READ), "linear must be an unsigned 64-bit number, not 0x10000000000000000"),
        (lambda: Request(-1, READ), "linear must be an unsigned 64-bit number, not -0x1"),
        (
            lambda: translate(SparseMemory(32), State(1 << 32), Request(0, READ)),
            r"root must be below 2\*\*32 \(the memory's width\), not 0x100000000",
        ),
    ],
)
def test_errors(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_eager_and_not_eager_agree_but_for_a_above_the_leaf() -> None:
    rng = random.Random(2)
    for _ in range(300):
        leaf = PAGE | rng.getrandbits(12) | rng.getrandbits(1) << 63 | P
        upper = [rng.choice((ALL, ALL, P | US, P | RW)) for _ in range(3)]
        access, control, user = rng.choice(list(Access)), rng.getrandbits(4), rng.random() < 0.5
        seen = []
        for eager in (False, True):
            memory = tables(leaf)
            for at, table, bits in zip((PML4E_AT, PDPTE_AT, PDE_AT), (PDPT, PD, PT), upper, strict=True):
                memory.store(at, table | bits)
            seen.append((run(memory, access, control, user=user, eager=eager), memory.load(PTE_AT)))
        assert seen[0] == seen[1]
