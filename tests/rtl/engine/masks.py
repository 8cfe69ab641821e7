"""Masks of operations as a kernel wants them, from the names of `model/bulk.py`; what a driver puts into registers."""

from __future__ import annotations

from typing import Any

from ptewalk.model import bulk
from ptewalk.model.pte import Entries


def flags(mask: int) -> dict[str, int]:
    """A mask of an entry without its frame."""
    mask = int(mask)
    assert not mask & (1 << 52) - (1 << 12), hex(mask)
    return {"low": mask & 0xFFF, "high": mask >> 52}


def clearing(rules: Entries, *, permit: bool = True, change: bool = True) -> dict[str, Any]:
    """clear_refs 4, whose matches are soft-dirty entries; without `change` they are only looked at."""
    masks, layout = bulk.Masks.of(rules, permit=permit), bulk.Layout.of(rules)
    none = flags(0)
    maps = {"clear": flags(masks.clear) if change else none, "set": none, "match": flags(layout.soft_dirty)}
    swap = {
        "clear": flags(masks.clear_swapped) if change else none,
        "set": none,
        "match": flags(layout.swap_soft_dirty),
    }
    return {
        "present": maps,
        "hidden": maps,
        "swap": swap,
        "arm": int(change and masks.arm != 0),
        "save_dirty": int(change and masks.saved != 0),
        "only_matching": 0,
    }


def telling(rules: Entries) -> dict[str, Any]:
    """The kernel's pagemap words."""
    layout = bulk.Layout.of(rules)
    return {
        "soft_dirty": int(layout.soft_dirty != 0),
        "uffd_wp": int(layout.uffd != 0),
        "inverts": int(layout.inverted != 0),
        "swap_soft_dirty": int(layout.swap_soft_dirty),
        "swap_uffd_wp": int(layout.swap_uffd),
        "has_marker": int(layout.marker < 32),
        "marker": int(layout.marker) & 31,
    }
