"""The walker, one walk at a time, against values typed by hand from the manual [SDM 3A chapter 4] and the TRACK table
of docs/walker.md."""

from dataclasses import replace
from typing import Any

import pytest

from ptewalk.model import x86
from ptewalk.rtl.walker import WalkerConfig

from .walker_bench import (
    ARM,
    BUS,
    E_ID,
    E_P,
    E_PK,
    E_RSVD,
    E_US,
    E_WR,
    FAULT,
    FETCH,
    FRAME,
    FRAME_1G,
    FRAME_2M,
    GP,
    LA57,
    LINEAR,
    NATIVE,
    NXE,
    OFF,
    OK,
    PAT_LARGE,
    PCD,
    PF,
    PKE,
    PROBE,
    PS,
    PWT,
    READ,
    RMW,
    RW,
    SAVED,
    SD,
    SMEP,
    TABLE,
    UPPER,
    US,
    WP,
    WRITE,
    XD,
    A,
    D,
    G,
    P,
    Seen,
    bench_of,
    slot,
    tables,
    walk,
)

LEAF = FRAME | P | RW | US | A | D
NO_SOFT_DIRTY = WalkerConfig(soft_dirty=False)
LATENCIES = (1, 2, 4, 16, 40)


def unchanged(words: dict[int, int], before: dict[int, int], **new: int) -> None:
    """Every word is as `before`, guards and neighbours too, but for the level1=..., level2=... entries named."""
    expected = dict(before)
    for level, value in new.items():
        expected[slot(LINEAR, int(level.removeprefix("level")))] = value
    assert words == expected


# The walk itself -----------------------------------------------------------------------------------------------------


def test_addresses_of_a_four_level_walk() -> None:
    """[SDM 3A 4.5.4] Bits 47:39, 38:30, 29:21 and 20:12 select the entries; bits 11:0 are the offset."""
    words = {
        0x204000 + 0x0B4 * 8: 0x300000 | UPPER,
        0x300000 + 0x169 * 8: 0x301000 | UPPER,
        0x301000 + 0x1B2 * 8: 0x302000 | UPPER,
        0x302000 + 0x143 * 8: 0x12_3456_7000 | P | US | A,
    }
    seen = walk(words, 0x0000_5A5A_7654_3218, root=0x204)
    assert seen.reads == [0x2045A0, 0x300B48, 0x301D90, 0x302A18]
    assert seen.response == {
        "outcome": OK,
        "code": 0,
        "physical": 0x12_3456_7218,
        "level": 1,
        "pwt": 0,
        "pcd": 0,
        "pat": 0,
        "tag": 0xA5,
    }


def test_addresses_of_a_five_level_walk() -> None:
    """[SDM 3A 4.5.4] With CR4.LA57 bits 56:48 select the PML5E first."""
    words = {
        0x205000 + 0x1A5 * 8: 0x204000 | UPPER,
        0x204000 + 0x0B4 * 8: 0x300000 | UPPER,
        0x300000 + 0x169 * 8: 0x301000 | UPPER,
        0x301000 + 0x1B2 * 8: 0x302000 | UPPER,
        0x302000 + 0x143 * 8: 0x12_3456_7000 | P | US | A,
    }
    seen = walk(words, 0xFFA5_5A5A_7654_3218, root=0x205, control=LA57)
    assert seen.reads == [0x205D28, 0x2045A0, 0x300B48, 0x301D90, 0x302A18]
    assert (seen.outcome, seen.response["physical"]) == (OK, 0x12_3456_7218)


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize(
    ("levels", "leaf_level", "frame", "physical"),
    [
        (4, 1, FRAME, 0x12_3456_7218),
        (5, 1, FRAME, 0x12_3456_7218),
        (4, 2, FRAME_2M | PS, 0x12_3454_3218),
        (5, 2, FRAME_2M | PS, 0x12_3454_3218),
        (4, 3, FRAME_1G | PS, 0x12_3654_3218),
        (5, 3, FRAME_1G | PS, 0x12_3654_3218),
    ],
)
def test_cycles_and_page_sizes(levels: int, leaf_level: int, frame: int, physical: int, latency: int) -> None:
    """n entries take n * L + 2 cycles; the offset is 12, 21 or 30 bits wide [SDM 3A 4.5.4]."""
    words = tables(LINEAR, frame | P | US | A, levels=levels, leaf_level=leaf_level)
    before = dict(words)
    seen = walk(words, LINEAR, latency=latency, control=LA57 if levels == 5 else 0)
    assert (seen.outcome, seen.response["physical"], seen.response["level"]) == (OK, physical, leaf_level)
    assert seen.cycles == (levels - leaf_level + 1) * latency + 2
    assert seen.reads == [slot(LINEAR, level) for level in range(levels, leaf_level - 1, -1)]
    unchanged(words, before)


@pytest.mark.parametrize("latency", LATENCIES)
@pytest.mark.parametrize("unset", [(), (4,), (3,), (2,), (4, 3), (4, 3, 2)])
@pytest.mark.parametrize("leaf_unset", [False, True])
def test_cost_of_swaps(unset: tuple[int, ...], leaf_unset: bool, latency: int) -> None:
    """A of an upper entry costs L + 2 cycles more, all bits of the leaf together L + 1."""
    leaf = FRAME | P | RW | US | (0 if leaf_unset else A | D | SD)
    words = tables(LINEAR, leaf, uppers=dict.fromkeys(unset, P | RW | US))
    seen = walk(words, LINEAR, WRITE, latency=latency, track=NATIVE)
    assert seen.cycles == 4 * latency + 2 + len(unset) * (latency + 2) + leaf_unset * (latency + 1)
    assert len(seen.swaps) == len(unset) + leaf_unset


@pytest.mark.parametrize("latency", LATENCIES)
def test_cost_of_a_mend(latency: int) -> None:
    """One swap: D, soft-dirty, RW and ARM together."""
    words = tables(LINEAR, FRAME | P | US | A | ARM)
    seen = walk(words, LINEAR, WRITE, latency=latency, track=FAULT)
    assert seen.outcome == OK
    assert (len(seen.swaps), seen.cycles) == (1, 4 * latency + 2 + latency + 1)


@pytest.mark.parametrize("tag_bits", [1, 8, 32])
def test_tag_comes_back(tag_bits: int) -> None:
    tag = 0xA5A5_A5A5 & (1 << tag_bits) - 1
    seen = walk({}, LINEAR, config=WalkerConfig(tag_bits=tag_bits), tag=tag)
    assert seen.response["tag"] == tag


# What the leaf says of memory types ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "pwt", "pcd", "pat"),
    [(0, 0, 0, 0), (PWT, 1, 0, 0), (PCD, 0, 1, 0), (PS, 0, 0, 1), (PWT | PCD | PS, 1, 1, 1)],
)
def test_memory_type_of_a_4k_leaf(flags: int, pwt: int, pcd: int, pat: int) -> None:
    """[SDM 3A table 4-20] Bit 7 of a PTE is PAT. Those of upper entries do not count."""
    words = tables(LINEAR, LEAF | flags, uppers={2: UPPER | PWT | PCD})
    response = walk(words, LINEAR).response
    assert (response["pwt"], response["pcd"], response["pat"]) == (pwt, pcd, pat)


@pytest.mark.parametrize(("leaf_level", "frame"), [(2, FRAME_2M), (3, FRAME_1G)])
@pytest.mark.parametrize("pat", [0, PAT_LARGE])
def test_memory_type_of_a_large_leaf(leaf_level: int, frame: int, pat: int) -> None:
    """[SDM 3A tables 4-16 and 4-18] Bit 12 of a large leaf is PAT, no part of its address."""
    words = tables(LINEAR, frame | PS | pat | P | US | A | PCD, leaf_level=leaf_level)
    response = walk(words, LINEAR).response
    assert (response["pwt"], response["pcd"], response["pat"]) == (0, 1, int(pat != 0))
    assert response["physical"] == frame + (LINEAR & (1 << {2: 21, 3: 30}[leaf_level]) - 1)


# Canonical addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "linear", "canonical"),
    [
        (0, 0x0000_7FFF_FFFF_FFFF, True),
        (0, 0x0000_8000_0000_0000, False),
        (0, 0xFFFF_7FFF_FFFF_FFFF, False),
        (0, 0xFFFF_8000_0000_0000, True),
        (0, 0x8000_0000_0000_0000, False),
        (0, 0x00FF_FFFF_FFFF_FFFF, False),
        (LA57, 0x00FF_FFFF_FFFF_FFFF, True),
        (LA57, 0x0100_0000_0000_0000, False),
        (LA57, 0xFEFF_FFFF_FFFF_FFFF, False),
        (LA57, 0xFF00_0000_0000_0000, True),
        (LA57, 0x0000_8000_0000_0000, True),
        (LA57, 0x7FFF_FFFF_FFFF_FFFF, False),
    ],
)
@pytest.mark.parametrize("access", [READ, WRITE, FETCH, PROBE])
def test_canonical(control: int, linear: int, canonical: bool, access: int) -> None:
    """[SDM 3A 4.5.2] Bits 63:47, with LA57 63:56, are all equal, or there is #GP and no walk."""
    seen = walk({}, linear, access, control=control)
    assert seen.outcome == (PF if canonical else GP)
    assert bool(seen.operations) is canonical
    if not canonical:
        assert (seen.code, seen.cycles) == (0, 2)


def test_four_levels_ignore_la57() -> None:
    config = WalkerConfig(levels=4)
    words = tables(LINEAR, LEAF)
    seen = walk(words, LINEAR, control=LA57, config=config, latency=3)
    assert (seen.outcome, seen.cycles, len(seen.reads)) == (OK, 4 * 3 + 2, 4)
    assert walk({}, 0x0000_8000_0000_0000, control=LA57, config=config).outcome == GP


# Presence and reserved bits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("value", [0, ~P & (1 << 64) - 1])
@pytest.mark.parametrize(("access", "code"), [(READ, E_US), (WRITE, E_US | E_WR), (RMW, E_US | E_WR), (FETCH, E_US)])
def test_not_present(level: int, value: int, access: int, code: int) -> None:
    """[SDM 3A 4.7] P=0 ends the walk; whatever else the entry holds is ignored, reserved bits too."""
    words = tables(LINEAR, LEAF, levels=5)
    words[slot(LINEAR, level)] = value
    before = dict(words)
    seen = walk(words, LINEAR, access, control=LA57, track=FAULT)
    assert (seen.outcome, seen.code, seen.response["level"]) == (PF, code, level)
    assert len(seen.reads) == 6 - level
    unchanged(words, before)


def reserved_cases() -> list[Any]:
    cases = []
    for bits in (36, 40, 52):
        for level in range(1, 6):
            cases += [(bits, level, 1 << bit, bits <= bit <= 51) for bit in (32, bits - 1, bits, 51, 52, 58)]
            cases.append((bits, level, 1 << 62 | 1 << 59 | 1 << 52 | 7 << 9 | G, False))
            cases.append((bits, level, XD, True))
            if level != 3:  # a PDPTE with PS is a leaf, whose address has reserved bits of its own
                cases.append((bits, level, PS, level >= 4))
    return [pytest.param(*case, id=f"{case[0]}-{case[1]}-{case[2]:#x}") for case in cases]


@pytest.mark.parametrize(("bits", "level", "flag", "reserved"), reserved_cases())
def test_reserved_bits(bits: int, level: int, flag: int, reserved: bool) -> None:
    """[SDM 3A 4.7 and tables 4-14 to 4-20] Bits 51:MAXPHYADDR; XD without NXE; PS of a PML5E and a PML4E."""
    words = tables(LINEAR, FRAME & 0xFFFF_F000 | P | US, levels=5)
    entry = slot(LINEAR, level)
    words[entry] |= flag
    before = dict(words)
    seen = walk(words, LINEAR, config=WalkerConfig(physical_bits=bits), control=LA57)
    if reserved:
        assert (seen.outcome, seen.code, seen.response["level"]) == (PF, E_P | E_RSVD | E_US, level)
        unchanged(words, before)
    else:
        # Not malformed: what the flag does to the address is not this test's business.
        assert seen.code & E_RSVD == 0 or seen.response["level"] < level


@pytest.mark.parametrize(
    ("leaf_level", "bit", "reserved"),
    [(2, 12, False), (2, 13, True), (2, 17, True), (2, 20, True), (2, 21, False)]
    + [(3, 12, False), (3, 13, True), (3, 21, True), (3, 29, True), (3, 30, False)],
)
def test_reserved_bits_of_a_large_leaf(leaf_level: int, bit: int, reserved: bool) -> None:
    """[SDM 3A tables 4-16 and 4-18] Bits 20:13 of a 2 MiB leaf, 29:13 of a 1 GiB leaf; bit 12 is PAT."""
    leaf = {2: FRAME_2M, 3: FRAME_1G}[leaf_level] | PS | P | US
    words = tables(LINEAR, leaf ^ 1 << bit, leaf_level=leaf_level)
    before = dict(words)
    seen = walk(words, LINEAR)
    assert seen.outcome == (PF if reserved else OK)
    if reserved:
        assert seen.code == E_P | E_RSVD | E_US
        unchanged(words, before)


def test_reserved_beats_what_lies_below_and_rights() -> None:
    """The check is made at each entry's own level, before the next is read and before any right is judged."""
    words = tables(LINEAR, 0, uppers={3: UPPER | 1 << 45, 4: P | A})
    seen = walk(words, LINEAR, WRITE)
    assert (seen.outcome, seen.code, len(seen.reads)) == (PF, E_P | E_RSVD | E_US | E_WR, 2)


def test_not_present_above_a_reserved_bit() -> None:
    words = tables(LINEAR, LEAF | 1 << 45, uppers={2: 0})
    assert walk(words, LINEAR).code == E_US


@pytest.mark.parametrize("gigabyte_pages", [True, False])
def test_gigabyte_pages(gigabyte_pages: bool) -> None:
    """Without them PS of a PDPTE is reserved [SDM 3A table 4-17]."""
    words = tables(LINEAR, FRAME_1G | PS | P | US | A, leaf_level=3)
    before = dict(words)
    seen = walk(words, LINEAR, config=WalkerConfig(gigabyte_pages=gigabyte_pages))
    if gigabyte_pages:
        assert seen.outcome == OK
    else:
        assert (seen.outcome, seen.code) == (PF, E_P | E_RSVD | E_US)
    unchanged(words, before)


def test_two_megabyte_pages_without_gigabyte_pages() -> None:
    words = tables(LINEAR, FRAME_2M | PS | P | US | A, leaf_level=2)
    assert walk(words, LINEAR, config=WalkerConfig(gigabyte_pages=False)).response["physical"] == 0x12_3454_3218


# Rights, as far as the walk combines them ----------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    ("taken", "given", "access", "code"),
    [
        (RW, 0, WRITE, E_P | E_WR | E_US),
        (RW, 0, PROBE, E_P | E_WR | E_US),
        (US, 0, READ, E_P | E_US),
        (0, XD, FETCH, E_P | E_US | E_ID),
    ],
)
def test_one_entry_without_the_right_is_enough(level: int, taken: int, given: int, access: int, code: int) -> None:
    """[SDM 3A 4.6.1] RW and U/S are ANDed over the levels, XD is ORed. The leaf is not written."""
    words = tables(LINEAR, FRAME | P | RW | US, levels=5)
    words[slot(LINEAR, level)] = words[slot(LINEAR, level)] & ~taken | given
    before = dict(words)
    seen = walk(words, LINEAR, access, control=LA57 | NXE, track=NATIVE)
    assert (seen.outcome, seen.code, seen.response["level"]) == (PF, code, 1)
    unchanged(words, before)


@pytest.mark.parametrize(("control", "bit"), [(0, 0), (NXE, E_ID), (SMEP, E_ID), (WP, 0)])
def test_fetch_bit_of_the_error_code(control: int, bit: int) -> None:
    """[SDM 3A 4.7] I/D is set for a fetch only with NXE or SMEP."""
    assert walk({}, LINEAR, FETCH, control=control).code == E_US | bit
    assert walk({}, LINEAR, READ, control=control).code == E_US


def test_key_of_the_leaf_only() -> None:
    """[SDM 3A 4.6.2] Bits 62:59 of the leaf; those of upper entries are ignored. PK beside another violation."""
    words = tables(LINEAR, LEAF | 5 << 59, uppers={2: UPPER | 9 << 59})
    assert walk(words, LINEAR, control=PKE, pkru=0b11 << 18).outcome == OK
    assert walk(words, LINEAR, control=PKE, pkru=0b01 << 10).code == E_P | E_US | E_PK
    assert walk(words, LINEAR, WRITE, control=PKE, pkru=0b10 << 10).code == E_P | E_WR | E_US | E_PK
    words[slot(LINEAR, 1)] &= ~RW
    assert walk(words, LINEAR, WRITE, control=PKE, pkru=0b10 << 10).code == E_P | E_WR | E_US | E_PK


@pytest.mark.parametrize(("user", "implicit", "bit"), [(1, 0, E_US), (0, 0, 0), (1, 1, 0), (0, 1, 0)])
def test_user_bit_of_the_error_code(user: int, implicit: int, bit: int) -> None:
    """[SDM 3A 4.7] An implicit supervisor access is no user-mode access, at CPL 3 either."""
    assert walk({}, LINEAR, user=user, implicit=implicit).code == bit


# A and D -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("access", "leaf_bits"), [(READ, A), (FETCH, A), (WRITE, A | D), (RMW, A | D)])
def test_accessed_and_dirty(access: int, leaf_bits: int) -> None:
    """[SDM 3A 4.8] A in each entry used, D in the leaf for a write, in one conditional write each, root first."""
    words = tables(LINEAR, FRAME | P | RW | US, uppers=dict.fromkeys((2, 3, 4), P | RW | US))
    before = dict(words)
    seen = walk(words, LINEAR, access)
    assert seen.outcome == OK
    leaf = FRAME | P | RW | US
    assert seen.swaps == [
        (slot(LINEAR, 4), TABLE[3] | 7, TABLE[3] | 0x27, True),
        (slot(LINEAR, 3), TABLE[2] | 7, TABLE[2] | 0x27, True),
        (slot(LINEAR, 2), TABLE[1] | 7, TABLE[1] | 0x27, True),
        (slot(LINEAR, 1), leaf, leaf | leaf_bits, True),
    ]
    upper = {f"level{level}": TABLE[level - 1] | 0x27 for level in (2, 3, 4)}
    unchanged(words, before, level1=leaf | leaf_bits, **upper)
    again = dict(words)
    assert walk(words, LINEAR, access).swaps == []
    unchanged(words, again)


@pytest.mark.parametrize(("leaf_level", "frame"), [(2, FRAME_2M), (3, FRAME_1G)])
def test_dirty_in_a_large_leaf(leaf_level: int, frame: int) -> None:
    leaf = frame | PS | P | RW | US
    words = tables(LINEAR, leaf, leaf_level=leaf_level)
    before = dict(words)
    assert walk(words, LINEAR, WRITE, track=NATIVE).outcome == OK
    unchanged(words, before, **{f"level{leaf_level}": leaf | A | D | SD})


def test_eager_accessed_above_a_fault() -> None:
    """A is set as the walk passes [SDM 3A 4.8]; the entry that faults is left alone."""
    words = tables(LINEAR, FRAME | P | US, uppers={4: P | RW | US})
    before = dict(words)
    seen = walk(words, LINEAR, WRITE)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    unchanged(words, before, level4=TABLE[3] | 0x27)


@pytest.mark.parametrize("track", [OFF, FAULT, NATIVE])
def test_read_marks_nothing(track: int) -> None:
    words = tables(LINEAR, FRAME | P | US | ARM | SAVED)
    before = dict(words)
    assert walk(words, LINEAR, READ, track=track, saved_dirty=1).outcome == OK
    unchanged(words, before, level1=FRAME | P | US | ARM | SAVED | A)


# The TRACK table -----------------------------------------------------------------------------------------------------

BASE = FRAME | P | US
TRACK_TABLE = [
    # event, leaf, {way to track: bits set, bits cleared, or None for a page fault}
    ("D and SD set", BASE | RW | A | D | SD, {OFF: (0, 0), FAULT: (0, 0), NATIVE: (0, 0)}),
    ("D clear", BASE | RW | A | SD, {OFF: (D, 0), FAULT: (D, 0), NATIVE: (D, 0)}),
    ("SD clear", BASE | RW | A | D, {OFF: (0, 0), FAULT: (SD, 0), NATIVE: (SD, 0)}),
    ("both clear", BASE | RW | A, {OFF: (D, 0), FAULT: (D | SD, 0), NATIVE: (D | SD, 0)}),
    ("A, D and SD clear", BASE | RW, {OFF: (A | D, 0), FAULT: (A | D | SD, 0), NATIVE: (A | D | SD, 0)}),
    ("armed", BASE | A | ARM, {OFF: None, FAULT: (D | SD | RW, ARM), NATIVE: None}),
    ("armed, A clear", BASE | ARM, {OFF: None, FAULT: (A | D | SD | RW, ARM), NATIVE: None}),
    ("armed, D set", BASE | A | D | ARM, {OFF: None, FAULT: (SD | RW, ARM), NATIVE: None}),
    ("armed, D and SD set", BASE | A | D | SD | ARM, {OFF: None, FAULT: (RW, ARM), NATIVE: None}),
    ("read-only", BASE | A, {OFF: None, FAULT: None, NATIVE: None}),
    ("read-only, D and SD set", BASE | A | D | SD, {OFF: None, FAULT: None, NATIVE: None}),
    ("writable with a stray ARM", BASE | RW | A | ARM, {OFF: (D, 0), FAULT: (D | SD, 0), NATIVE: (D | SD, 0)}),
]
ROWS = [
    pytest.param(leaf, track, change, id=f"{name}-{('off', 'fault', 'native')[track]}")
    for name, leaf, changes in TRACK_TABLE
    for track, change in changes.items()
]


@pytest.mark.parametrize("access", [WRITE, RMW])
@pytest.mark.parametrize(("leaf", "track", "change"), ROWS)
def test_track_table(leaf: int, track: int, change: tuple[int, int] | None, access: int) -> None:
    words = tables(LINEAR, leaf)
    before = dict(words)
    seen = walk(words, LINEAR, access, track=track)
    if change is None:
        assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
        unchanged(words, before)
    else:
        assert (seen.outcome, seen.response["physical"]) == (OK, 0x12_3456_7218)
        assert len(seen.swaps) == (change != (0, 0))
        unchanged(words, before, level1=(leaf | change[0]) & ~change[1])


@pytest.mark.parametrize(
    ("leaf", "track", "new"),
    [
        (BASE | A, OFF, BASE | A | D),
        (BASE | A, FAULT, BASE | A | D | SD),
        (BASE | A, NATIVE, BASE | A | D | SD),
        (BASE | A | ARM, OFF, BASE | A | ARM | D),
        (BASE | A | ARM, FAULT, BASE | A | ARM | D | SD),
        (BASE | A | ARM | SAVED, FAULT, BASE | A | ARM | SAVED | D | SD),
        (BASE | A | D | SD, FAULT, BASE | A | D | SD),
    ],
)
def test_supervisor_write_without_wp(leaf: int, track: int, new: int) -> None:
    """[SDM 3A 4.6.1] With CR0.WP=0 RW does not bind the supervisor; RW and ARM are kept."""
    words = tables(LINEAR, leaf)
    before = dict(words)
    assert walk(words, LINEAR, WRITE, user=0, track=track, saved_dirty=1).outcome == OK
    unchanged(words, before, level1=new)


def test_supervisor_write_with_wp() -> None:
    """With CR0.WP the supervisor is judged like a user: an armed leaf is mended, a read-only one faults."""
    words = tables(LINEAR, BASE | A | ARM)
    assert walk(words, LINEAR, WRITE, user=0, control=WP, track=FAULT).outcome == OK
    assert words[slot(LINEAR, 1)] == BASE | A | D | SD | RW
    seen = walk(tables(LINEAR, BASE | A), LINEAR, WRITE, user=0, control=WP, track=FAULT)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR)


@pytest.mark.parametrize(("saved_dirty", "kept"), [(0, SAVED), (1, 0)])
def test_saved_dirty(saved_dirty: int, kept: int) -> None:
    """A mend clears SAVED_DIRTY, where the profile has it; else the bit is somebody else's."""
    words = tables(LINEAR, BASE | A | ARM | SAVED)
    before = dict(words)
    walk(words, LINEAR, WRITE, track=FAULT, saved_dirty=saved_dirty)
    unchanged(words, before, level1=BASE | A | D | SD | RW | kept)


def test_saved_dirty_stays_without_a_mend() -> None:
    words = tables(LINEAR, BASE | RW | A | SAVED)
    before = dict(words)
    walk(words, LINEAR, WRITE, track=FAULT, saved_dirty=1)
    unchanged(words, before, level1=BASE | RW | A | D | SD | SAVED)


@pytest.mark.parametrize("denial", ["upper RW", "U/S", "key"])
def test_arm_lifts_nothing_but_rw_of_the_leaf(denial: str) -> None:
    """A mend needs that all else allows the write."""
    words = tables(LINEAR, BASE | A | ARM)
    pkru = 0
    if denial == "upper RW":
        words[slot(LINEAR, 3)] &= ~RW
    elif denial == "U/S":
        words[slot(LINEAR, 1)] &= ~US
    else:
        pkru = 0b10
    before = dict(words)
    seen = walk(words, LINEAR, WRITE, track=FAULT, control=PKE, pkru=pkru)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US | (E_PK if pkru else 0))
    unchanged(words, before)


# Probes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("track", [OFF, FAULT, NATIVE])
@pytest.mark.parametrize("leaf", [BASE, BASE | RW, BASE | ARM, BASE | RW | A | D | SD])
def test_probe_writes_nothing(leaf: int, track: int) -> None:
    """It answers what a write would get, and leaves A, D and soft-dirty as they are."""
    words = tables(LINEAR, leaf, uppers=dict.fromkeys((2, 3, 4), P | RW | US))
    before = dict(words)
    seen = walk(words, LINEAR, PROBE, track=track)
    allowed = bool(leaf & RW) or (track == FAULT and bool(leaf & ARM))
    assert (seen.outcome, seen.code) == ((OK, 0) if allowed else (PF, E_P | E_WR | E_US))
    assert seen.cycles == 4 * 1 + 2
    assert seen.swaps == []
    unchanged(words, before)


# The second writer ---------------------------------------------------------------------------------------------------


def disturbed(words: dict[int, int], at: int, level: int, value: int, access: int, **options: Any) -> Seen:
    """A walk in which another writer sets the entry of `level` to `value`, right after the `at`-th read."""

    def write(count: int, address: int) -> None:
        if count == at:
            words[slot(LINEAR, level)] = value

    return walk(words, LINEAR, access, after_read=write, **options)


def test_refused_swap_then_read_only() -> None:
    """RW went away between check and swap: the swap fails, the entry is checked again, the write faults."""
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    seen = disturbed(words, 4, 1, BASE | A, WRITE, track=FAULT)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    assert seen.reads[3:] == [slot(LINEAR, 1)] * 2
    assert seen.swaps == [(slot(LINEAR, 1), BASE | RW | A, BASE | RW | A | D | SD, False)]
    unchanged(words, before, level1=BASE | A)


def test_refused_swap_then_not_present() -> None:
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    gone = FRAME | RW | US
    seen = disturbed(words, 4, 1, gone, WRITE)
    assert (seen.outcome, seen.code) == (PF, E_WR | E_US)
    unchanged(words, before, level1=gone)


def test_refused_swap_then_another_frame() -> None:
    """The answer is by the entry that was marked."""
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    seen = disturbed(words, 4, 1, 0x45_0000_0000 | P | RW | US, WRITE, track=NATIVE)
    assert (seen.outcome, seen.response["physical"]) == (OK, 0x45_0000_0218)
    assert [done for *_, done in seen.swaps] == [False, True]
    unchanged(words, before, level1=0x45_0000_0000 | P | RW | US | A | D | SD)


def test_refused_swap_then_nothing_left_to_do() -> None:
    words = tables(LINEAR, BASE | RW | A)
    before = dict(words)
    seen = disturbed(words, 4, 1, BASE | RW | A | D | SD, WRITE, track=NATIVE)
    assert (seen.outcome, len(seen.swaps)) == (OK, 1)
    unchanged(words, before, level1=BASE | RW | A | D | SD)


def test_refused_mend_then_disarmed() -> None:
    """Fork cleared ARM meanwhile: two tasks share the frame, and the write must fault."""
    words = tables(LINEAR, BASE | A | ARM)
    before = dict(words)
    seen = disturbed(words, 4, 1, BASE | A, WRITE, track=FAULT)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    unchanged(words, before, level1=BASE | A)


def test_refused_swap_in_an_upper_entry() -> None:
    """The entry is read again, and the walk goes on by its new value."""
    words = tables(LINEAR, LEAF, uppers={3: P | RW | US})
    before = dict(words)
    elsewhere = 0x400000 | P | RW | US
    words[0x400000 + (LINEAR >> 21 & 511) * 8] = before[0x400000 + (LINEAR >> 21 & 511) * 8] = 0
    seen = disturbed(words, 2, 3, elsewhere, READ)
    assert (seen.outcome, seen.code, seen.response["level"]) == (PF, E_US, 2)
    assert seen.reads == [slot(LINEAR, 4), slot(LINEAR, 3), slot(LINEAR, 3), 0x400000 + (LINEAR >> 21 & 511) * 8]
    unchanged(words, before, level3=elsewhere | A)


def test_swaps_may_fail_again_and_again() -> None:
    words = tables(LINEAR, BASE | RW | A)

    def write(count: int, address: int) -> None:
        if 4 <= count < 10:
            words[slot(LINEAR, 1)] ^= 1 << 9

    seen = walk(words, LINEAR, WRITE, after_read=write)
    assert [done for *_, done in seen.swaps] == [False] * 6 + [True]
    assert words[slot(LINEAR, 1)] == BASE | RW | A | D


# Bus errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("value", [0, P, LEAF, P | 1 << 45])
def test_bus_error_on_a_read(level: int, value: int) -> None:
    """It beats a page fault, whatever stands on the data lines; nothing is read or written after it."""
    words = tables(LINEAR, LEAF)
    words[slot(LINEAR, level)] = value
    before = dict(words)
    seen = walk(words, LINEAR, WRITE, bus_error=lambda kind, address: address == slot(LINEAR, level))
    assert (seen.outcome, seen.code) == (BUS, 0)
    assert len(seen.operations) == 5 - level
    unchanged(words, before)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_bus_error_on_a_swap(level: int) -> None:
    words = tables(LINEAR, LEAF & ~D, uppers=dict.fromkeys((2, 3, 4), P | RW | US))
    seen = walk(words, LINEAR, WRITE, bus_error=lambda kind, address: kind == "swap" and address == slot(LINEAR, level))
    assert (seen.outcome, seen.code) == (BUS, 0)
    assert seen.operations[-1][:2] == ("swap", slot(LINEAR, level))
    assert [address for address, *_ in seen.swaps] == [slot(LINEAR, n) for n in range(4, level - 1, -1)]


# Handshakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["reads", "swaps", "responses"])
@pytest.mark.parametrize("period", [2, 3, 7])
def test_backpressure(channel: str, period: int) -> None:
    """What is offered stands until it is taken, and the result is the same."""
    words = tables(LINEAR, FRAME | P | RW | US, uppers=dict.fromkeys((2, 3, 4), P | RW | US))
    free = dict(words)
    expected = walk(free, LINEAR, WRITE, track=NATIVE, latency=2)
    seen = walk(
        words, LINEAR, WRITE, track=NATIVE, latency=2, stall=lambda name, cycle: name == channel and cycle % period > 0
    )
    assert seen.response == expected.response
    assert seen.operations == expected.operations
    assert words == free


# Parameters ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"levels": 3}, "levels must be 4 or 5, not 3"),
        ({"levels": 4.0}, "levels must be 4 or 5, not 4.0"),
        ({"levels": "4"}, "levels must be 4 or 5, not '4'"),
        ({"physical_bits": 31}, "physical_bits must be an integer from 32 to 52, not 31"),
        ({"physical_bits": 53}, "physical_bits must be an integer from 32 to 52, not 53"),
        ({"physical_bits": 40.0}, "physical_bits must be an integer from 32 to 52, not 40.0"),
        ({"tag_bits": 0}, "tag_bits must be an integer from 1 to 32, not 0"),
        ({"tag_bits": 33}, "tag_bits must be an integer from 1 to 32, not 33"),
        ({"soft_dirty": 1}, "soft_dirty must be True or False, not 1"),
        ({"gigabyte_pages": "no"}, "gigabyte_pages must be True or False, not 'no'"),
        ({"trace": None}, "trace must be True or False, not None"),
        ({"observe": 0}, "observe must be True or False, not 0"),
    ],
)
def test_parameter_errors(parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError) as error:
        WalkerConfig(**parameters)
    assert str(error.value) == text


@pytest.mark.parametrize(("parameter", "value"), [("physical_bits", 32), ("physical_bits", 52), ("tag_bits", 32)])
def test_extremes_are_allowed(parameter: str, value: int) -> None:
    config = replace(WalkerConfig(), **{parameter: value})
    linear = 0x7FFF_FFFF_FFF8
    frame = 0xFFFF_F000
    seen = walk(tables(linear, frame | P | US | A), linear, config=config)
    assert (seen.outcome, seen.response["physical"]) == (OK, 0xFFFF_FFF8)


# Without soft-dirty --------------------------------------------------------------------------------------------------


def test_no_soft_dirty_has_no_ports() -> None:
    def names(config: WalkerConfig) -> set[str]:
        walker = bench_of(config).walker
        return {*walker.contexts.payload.shape().members, *walker.o_translation.shape().members}

    assert names(WalkerConfig()) - names(NO_SOFT_DIRTY) == {"track", "saved_dirty", "soft_dirty"}


@pytest.mark.parametrize("soft", [0, SD])
@pytest.mark.parametrize("access", [READ, WRITE, RMW])
def test_no_soft_dirty_leaves_bit_11_alone(soft: int, access: int) -> None:
    words = tables(LINEAR, BASE | RW | soft, uppers=dict.fromkeys((2, 3, 4), P | RW | US | soft))
    seen = walk(words, LINEAR, access, config=NO_SOFT_DIRTY)
    assert seen.outcome == OK
    assert len(seen.swaps) == 4
    assert all((old ^ new) & ~(A | D) == 0 for _, old, new, _ in seen.swaps)
    dirty = A if access == READ else A | D
    assert words[slot(LINEAR, 1)] == BASE | RW | soft | dirty


def test_no_soft_dirty_knows_no_arm() -> None:
    words = tables(LINEAR, BASE | A | ARM)
    before = dict(words)
    seen = walk(words, LINEAR, WRITE, config=NO_SOFT_DIRTY)
    assert (seen.outcome, seen.code) == (PF, E_P | E_WR | E_US)
    unchanged(words, before)


# The trace port ------------------------------------------------------------------------------------------------------


def test_events() -> None:
    """A record for each swap, done or not, and one for the walk."""
    words = tables(LINEAR, BASE | RW | A)
    seen = disturbed(words, 4, 1, BASE | RW, WRITE)
    common = {"linear": LINEAR, "tag": 0xA5, "level": 1}
    swap = common | {"address": slot(LINEAR, 1), "error": 0}
    assert seen.written == [
        swap | {"old": BASE | RW | A, "new": BASE | RW | A | D, "done": 0},
        swap | {"old": BASE | RW, "new": BASE | RW | A | D, "done": 1},
    ]
    answer = {"outcome": OK, "code": 0, "physical": 0x12_3456_7218, "pwt": 0, "pcd": 0, "pat": 0}
    assert seen.walked == [common | answer]


def test_event_of_a_swap_that_the_bus_refused() -> None:
    seen = walk(tables(LINEAR, BASE | RW | A), LINEAR, WRITE, bus_error=lambda kind, address: kind == "swap")
    assert [(event["done"], event["error"]) for event in seen.written] == [(0, 1)]
    assert [walked["outcome"] for walked in seen.walked] == [BUS]


def test_trace_can_be_left_out() -> None:
    config = WalkerConfig(trace=False)
    assert "o_walked" not in bench_of(config).walker.signature.members
    assert walk(tables(LINEAR, LEAF), LINEAR, config=config).outcome == OK


# The translation -----------------------------------------------------------------------------------------------------


def test_translation() -> None:
    """Rights combined over the levels, the leaf as it stands after the walk's own swap, and where it lies."""
    leaf = FRAME | P | US | A | ARM | G | PCD | 5 << 59
    words = tables(LINEAR, leaf, uppers={3: UPPER | XD, 2: UPPER & ~US})
    seen = walk(words, LINEAR, WRITE, track=FAULT, user=0, control=NXE | WP)
    assert seen.outcome == OK
    assert seen.translation == {
        "frame": 0x12_3456_7,
        "level": 1,
        "rw": 1,
        "us": 0,
        "xd": 1,
        "pkey": 5,
        "g": 1,
        "d": 1,
        "soft_dirty": 1,
        "pwt": 0,
        "pcd": 1,
        "pat": 0,
        "address": slot(LINEAR, 1),
    }


@pytest.mark.parametrize(("leaf_level", "frame"), [(1, FRAME), (2, FRAME_2M | PS | PAT_LARGE), (3, FRAME_1G | PS)])
def test_translation_names_the_page_that_was_accessed(leaf_level: int, frame: int) -> None:
    seen = walk(tables(LINEAR, frame | P | US | A, leaf_level=leaf_level), LINEAR)
    assert seen.translation["frame"] == seen.response["physical"] >> 12
    assert (seen.translation["level"], seen.translation["address"]) == (leaf_level, slot(LINEAR, leaf_level))
    assert seen.translation["pat"] == (leaf_level == 2)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(("taken", "given", "field"), [(RW, 0, "rw"), (US, 0, "us"), (0, XD, "xd")])
def test_translation_combines_every_level(level: int, taken: int, given: int, field: str) -> None:
    words = tables(LINEAR, LEAF, levels=5)
    words[slot(LINEAR, level)] = words[slot(LINEAR, level)] & ~taken | given
    seen = walk(words, LINEAR, user=0, control=LA57 | NXE)
    assert seen.outcome == OK
    assert {name: seen.translation[name] for name in ("rw", "us", "xd")} == {"rw": 1, "us": 1, "xd": 0} | {
        field: int(field == "xd")
    }


@pytest.mark.parametrize(("access", "dirty", "soft"), [(READ, 0, 0), (PROBE, 0, 0), (WRITE, 1, 1), (RMW, 1, 1)])
def test_translation_after_its_own_swap(access: int, dirty: int, soft: int) -> None:
    """Only a store sets D and soft-dirty, and then they stand in memory."""
    words = tables(LINEAR, FRAME | P | RW | US | A)
    seen = walk(words, LINEAR, access, track=NATIVE)
    assert (seen.translation["d"], seen.translation["soft_dirty"]) == (dirty, soft)
    assert bool(words[slot(LINEAR, 1)] & D) == dirty and bool(words[slot(LINEAR, 1)] & SD) == soft


# Contexts ------------------------------------------------------------------------------------------------------------


def test_a_context_goes_before_a_request_and_waits_for_one_in_flight() -> None:
    """Offered together, the request is judged under the context; offered later, it changes nothing for it."""
    walker = bench_of(WalkerConfig()).walker
    requests, responses, contexts = walker.requester.requests, walker.requester.responses, walker.contexts
    words = tables(LINEAR, LEAF & ~US)

    async def job(ctx: Any) -> None:
        ctx.set(responses.ready, 1)
        ctx.set(walker.memory.reads.ready, 1)
        ctx.set(contexts.payload.root, TABLE[4] >> 12)
        ctx.set(contexts.valid, 1)
        ctx.set(requests.payload, {"linear": LINEAR, "access": x86.Access.FETCH})
        ctx.set(requests.valid, 1)
        assert ctx.get(contexts.ready) and not ctx.get(requests.ready)
        await ctx.tick()
        assert ctx.get(contexts.ready) and not ctx.get(requests.ready), "contexts go first"
        ctx.set(contexts.valid, 0)
        assert ctx.get(requests.ready)
        await ctx.tick()
        ctx.set(requests.valid, 0)
        # Under the new context, with another root, the same request would be a page fault.
        ctx.set(contexts.payload.root, 0)
        ctx.set(contexts.valid, 1)
        for _ in range(20):
            if ctx.get(responses.valid):
                break
            assert not ctx.get(contexts.ready)
            read = ctx.get(walker.memory.reads.valid)
            payload = ctx.get(walker.memory.reads.payload)
            await ctx.tick()
            ctx.set(walker.memory.data.valid, read)
            ctx.set(walker.memory.data.payload, {"value": words.get(payload.address, 0), "id": payload.id})
        assert int(ctx.get(responses.payload.outcome)) == OK
        assert not ctx.get(contexts.ready)
        await ctx.tick()
        assert ctx.get(contexts.ready)

    bench_of(WalkerConfig()).run(job)
