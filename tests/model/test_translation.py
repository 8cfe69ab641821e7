"""What a cache may keep of a walk: numbers are literals, typed from SDM 3A tables 4-14 to 4-20."""

from __future__ import annotations

import pytest

from ptewalk.model.paging import Translated
from ptewalk.model.translation import Translation, translation

PRESENT = 0x7  # P, R/W, U/S
XD = 1 << 63
SMALL = Translated(0x12_3456_7ABC, 1, True, False, True)
BASE = Translation(0x12_3456_7, 0x4008, 1, True, True, False, 0, False, False, False, True, False, True)


def kept(*flags: int, found: Translated = SMALL, soft_dirty: bool = True) -> Translation:
    """Of a walk of entries with these flags, the leaf at 0x4008 last."""
    uppers = [(0x1000 + 0x1000 * place, 0x2000 + value) for place, value in enumerate(flags[:-1])]
    return translation([*uppers, (0x4008, 0x12_3456_7000 | flags[-1])], found, soft_dirty=soft_dirty)


def test_all_that_is_kept() -> None:
    leaf = PRESENT | 1 << 6 | 1 << 8 | 1 << 11 | 0xB << 59 | XD
    assert kept(PRESENT, PRESENT, leaf) == BASE._replace(xd=True, pkey=0xB, g=True, d=True, soft_dirty=True)
    assert kept(PRESENT, PRESENT, PRESENT) == BASE


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(("flags", "field"), [(0x5, "rw"), (0x3, "us"), (PRESENT | XD, "xd")])
def test_rights_are_those_of_all_entries(place: int, flags: int, field: str) -> None:
    entries = [PRESENT, PRESENT, PRESENT]
    entries[place] = flags
    assert kept(*entries) == BASE._replace(**{field: not getattr(BASE, field)})


@pytest.mark.parametrize("bits", [1 << 6, 1 << 8, 1 << 11, 0xF << 59])
def test_marks_key_and_global_are_the_leafs(bits: int) -> None:
    assert kept(PRESENT | bits, PRESENT | bits, PRESENT) == BASE
    assert kept(PRESENT, PRESENT, PRESENT | bits) != BASE


def test_without_soft_dirty_its_mark_is_not_told() -> None:
    assert kept(PRESENT, PRESENT | 1 << 11, soft_dirty=False) == BASE


def test_the_frame_is_the_one_accessed_and_the_level_the_pages() -> None:
    found = Translated(0x12_345F_FFFF, 2, False, True, False)
    expected = BASE._replace(frame=0x12345FF, level=2, pwt=False, pcd=True, pat=False)
    assert kept(PRESENT, PRESENT, PRESENT | 0x80, found=found) == expected
