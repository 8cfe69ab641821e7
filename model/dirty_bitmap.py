"""A bitmap of dirty pages as KVM's and iommufd's dirty bitmaps are: what a scan of a range makes of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["dirty_bitmap"]

_WORD = 64


def dirty_bitmap(
    dirty: NDArray[np.bool_], first: int, *, unit: int = 0, there: NDArray[np.uint64] | None = None
) -> NDArray[np.uint64]:
    """Words of a bitmap, from the one that holds the first page's bit to the one that holds the last page's.

    Parameters
    ----------
    dirty : bool array
        Of each page of a range, from `first` on.
    first : int
    unit : int
        Binary logarithm of the pages that a bit tells of (struct iommu_hwpt_get_dirty_bitmap: page_size), 1 where one
        of them is dirty. That of unit n is bit n modulo 64.
    there : uint64 array, optional
        What the words hold: bits that are set stay (drivers/iommu/iommufd/iova_bitmap.c:iova_bitmap_set). Without it
        all is written over (virt/kvm/kvm_main.c:kvm_get_dirty_log).
    """
    units = (np.arange(first, first + len(dirty)) >> unit) - (first >> unit) // _WORD * _WORD
    bits = np.zeros(-(-(int(units[-1]) + 1) // _WORD) * _WORD, np.bool_)
    bits[units[dirty]] = True
    words = np.packbits(bits, bitorder="little").view(np.uint64)
    return words if there is None else words | there
