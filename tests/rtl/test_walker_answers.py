"""What a walk answers: rights of all levels, errors of the bus, the translation.

Values are typed by hand from the manual [SDM 3A chapter 4].
"""

import pytest

from .walker_bench import (
    ARM,
    BUS,
    E_ID,
    E_P,
    E_PK,
    E_US,
    E_WR,
    FAULT,
    FETCH,
    FRAME,
    FRAME_1G,
    FRAME_2M,
    LA57,
    LEAF,
    LINEAR,
    NATIVE,
    NXE,
    OK,
    PAT_LARGE,
    PCD,
    PF,
    PKE,
    PROBE,
    PS,
    READ,
    RMW,
    RW,
    SD,
    SMEP,
    UPPER,
    US,
    WP,
    WRITE,
    XD,
    A,
    D,
    G,
    P,
    slot,
    tables,
    unchanged,
    walk,
)

# Rights, as far as the walk combines them -----------------------------------------------------------------------------


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


# Bus errors -----------------------------------------------------------------------------------------------------------


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


# The translation ------------------------------------------------------------------------------------------------------


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
