"""Masks of operations of a table engine as a kernel wants them, from the names of `model/bulk.py`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptewalk.model import bulk
from ptewalk.model.pte import RW, SPECIAL, UFFD_WP, A, D, Entries

__all__ = ["ageing", "clearing", "flags", "looking", "moving", "protecting", "taking_written", "telling"]


def flags(mask: int | np.uint64) -> dict[str, int]:
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
    return _change(maps, swap) | {
        "arm": int(change and masks.arm != 0),
        "save_dirty": int(change and masks.saved != 0),
    }


def _change(maps: dict[str, Any], swap: dict[str, Any]) -> dict[str, Any]:
    """The masks of `ChangeLayout`, where present and hidden entries fare alike."""
    plain = {"arm": 0, "save_dirty": 0, "only_matching": 0, "written": 0, "spares": flags(0), "empty": 0}
    return {"present": maps, "hidden": maps, "swap": swap} | plain


def telling(rules: Entries, *, marks: bool = True) -> dict[str, Any]:
    """The kernel's pagemap words; without `marks` they do not tell soft-dirty."""
    layout = bulk.Layout.of(rules)
    return {
        "soft_dirty": int(marks and layout.soft_dirty != 0),
        "uffd_wp": int(layout.uffd != 0),
        "inverts": int(layout.inverted != 0),
        "swap_soft_dirty": int(layout.swap_soft_dirty),
        "swap_uffd_wp": int(layout.swap_uffd),
        "has_marker": int(layout.marker < 32),
        "marker": int(layout.marker) & 31,
    }


def ageing() -> dict[str, Any]:
    """clear_refs 1 to 3: A off, of what has a struct page."""
    none = flags(0)
    maps = {"clear": flags(A), "set": none, "match": none}
    swap = {"clear": none, "set": none, "match": none}
    return _change(maps, swap) | {"spares": flags(SPECIAL)}


def protecting(rules: Entries) -> dict[str, Any]:
    """Write-protection by userfaultfd (make_uffd_wp_pte): what maps nothing becomes a marker."""
    none, clear = flags(0), 0
    if rules.uffd_wp_protects:
        clear = RW | rules.ARM | (D if rules.SAVED_DIRTY else 0)
    maps = {"clear": flags(clear), "set": flags(UFFD_WP), "match": none}
    swap = {"clear": none, "set": flags(rules.SWP_UFFD_WP), "match": none}
    saves = int(bool(clear and rules.SAVED_DIRTY))
    return _change(maps, swap) | {"save_dirty": saves, "empty": rules.make_uffd_marker()}


def taking_written(rules: Entries) -> dict[str, Any]:
    """`protecting` of what is not write-protected; else entries stay as they are."""
    return protecting(rules) | {"written": 1}


def moving(rules: Entries, *, marks: bool, unprotects: bool) -> dict[str, Any]:
    """What mremap makes of an entry on its way (mm/mremap.c:move_ptes, the seed commit's hunk).

    Parameters
    ----------
    rules : Entries
    marks : bool
        It becomes soft-dirty.
    unprotects : bool
        Its write-protection by userfaultfd goes.
    """
    none = flags(0)
    swapped = rules.SOFT_DIRTY if rules.swap_layout.soft_dirty is None else rules.SWP_SOFT_DIRTY
    maps = {"clear": flags(UFFD_WP if unprotects else 0), "set": flags(rules.SOFT_DIRTY if marks else 0), "match": none}
    clear = flags(rules.SWP_UFFD_WP if unprotects else 0)
    return _change(maps, {"clear": clear, "set": flags(swapped if marks else 0), "match": none})


def looking() -> dict[str, Any]:
    """Nothing changes, nothing matches."""
    none = flags(0)
    kind = {"clear": none, "set": none, "match": none}
    return _change(kind, kind)
