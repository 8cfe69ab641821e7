"""What a cache of translations may keep of a walk [SDM 3A 4.10.2.2, 4.10.2.4]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from ptewalk.model.linux import SoftBit
from ptewalk.model.paging import Translated
from ptewalk.model.x86 import PAGE_SHIFT, PKEY_BITS, PKEY_LOW, EntryBit

__all__ = ["Translation", "translation"]

_RW: Final = 1 << EntryBit.RW
_US: Final = 1 << EntryBit.US
_XD: Final = 1 << EntryBit.XD
_D: Final = 1 << EntryBit.D
_G: Final = 1 << EntryBit.G
_SOFT_DIRTY: Final = 1 << SoftBit.SOFT_DIRTY
_PKEY: Final = (1 << PKEY_BITS) - 1


class Translation(NamedTuple):
    """A translation, as the walk that found it left its entries.

    Attributes
    ----------
    frame : int
        Number of the 4 KiB frame that was accessed, whatever the page's size.
    address : int
        Physical address of the leaf.
    level : int
        Of the leaf: 1 to 3.
    rw, us, xd : bool
        Combined rights: RW and US as AND over all entries, XD as OR.
    pkey : int
        The leaf's protection key.
    g : bool
        The leaf says that it is global; CR4.PGE is not looked at.
    d, soft_dirty : bool
        The leaf's marks.
    pwt, pcd, pat : bool
        The leaf's memory-type bits.
    """

    frame: int
    address: int
    level: int
    rw: bool
    us: bool
    xd: bool
    pkey: int
    g: bool
    d: bool
    soft_dirty: bool
    pwt: bool
    pcd: bool
    pat: bool


def translation(entries: Sequence[tuple[int, int]], found: Translated, *, soft_dirty: bool = True) -> Translation:
    """What may be kept of a walk that ended in `found`.

    Parameters
    ----------
    entries : sequence of (address, value)
        All that the walk passed, root first, each as the walk left it.
    found : Translated
    soft_dirty : bool
        False: there is no soft-dirty, and its mark is not told.
    """
    address, leaf = entries[-1]
    every = some = leaf
    for _, entry in entries:
        every &= entry
        some |= entry
    return Translation(
        found.physical >> PAGE_SHIFT,
        address,
        found.level,
        bool(every & _RW),
        bool(every & _US),
        bool(some & _XD),
        leaf >> PKEY_LOW & _PKEY,
        bool(leaf & _G),
        bool(leaf & _D),
        soft_dirty and bool(leaf & _SOFT_DIRTY),
        found.pwt,
        found.pcd,
        found.pat,
    )
