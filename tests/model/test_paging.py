"""The golden translation: the walk, reserved bits, swaps that fail, and errors."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

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

from .paging_tables import (
    ALL,
    LA57,
    LINEAR,
    NXE,
    PAGE,
    PD,
    PDE_AT,
    PDPT,
    PDPTE_AT,
    PML4E_AT,
    PS,
    PT,
    PTE_AT,
    READ,
    ROOT,
    RW,
    US,
    WRITE,
    A,
    D,
    LoggedMemory,
    P,
    run,
    tables,
)

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
