"""The passes of model/bulk.py as compiled loops; needs numba, which is optional (extra `fast`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numpy.typing import NDArray

from ptewalk.model.linux import PagemapBit, SoftBit
from ptewalk.model.pte import FRAME, PROTNONE, UFFD_WP, D
from ptewalk.model.x86 import FRAME_LOW, EntryBit

if TYPE_CHECKING:
    from ptewalk.model.bulk import Masks

Words = NDArray[np.uint64]

_ZERO, _ONE = np.uint64(0), np.uint64(1)
_SHIFT_NONE = np.uint64(PROTNONE.bit_length() - 1)
_ARM_UP, _SAVED_UP = np.uint64(SoftBit.ARM - EntryBit.RW), np.uint64(SoftBit.SAVED_DIRTY - EntryBit.D)
_SHIFT_SD = np.uint64(SoftBit.SOFT_DIRTY)
_FRAME, _FRAME_LOW = np.uint64(FRAME), np.uint64(FRAME_LOW)
_SHIFT_PRESENT = np.uint64(PagemapBit.PRESENT)
_SD_UP = np.uint64(PagemapBit.SOFT_DIRTY - SoftBit.SOFT_DIRTY)
_UFFD = np.uint64(UFFD_WP)


@numba.njit(cache=True, inline="always")
def _cleared(entry: Any, present_mask: Any, swapped_mask: Any, saved: Any, arm: Any) -> Any:
    """One entry after clear_refs 4; `saved` and `arm` are the bits SAVED_DIRTY and ARM, or 0."""
    present = _ZERO - ((entry | entry >> _SHIFT_NONE) & _ONE)  # all ones where present
    raised = (entry << _ARM_UP & arm | entry << _SAVED_UP & saved) & present
    return entry & ~(present & (present_mask ^ swapped_mask) ^ swapped_mask) | raised


@numba.njit(cache=True)
def _clear(entries: Any, present_mask: Any, swapped_mask: Any, saved: Any, arm: Any) -> None:
    for i in range(len(entries)):
        entries[i] = _cleared(entries[i], present_mask, swapped_mask, saved, arm)


@numba.njit(cache=True)
def _clear_only(entries: Any, present_mask: Any, swapped_mask: Any) -> None:
    differ = present_mask ^ swapped_mask
    for i in range(len(entries)):
        entry = entries[i]
        present = (entry | entry >> _SHIFT_NONE) & _ONE
        entries[i] = entry & ~((_ZERO - present) & differ ^ swapped_mask)


@numba.njit(cache=True)
def _pagemap(entries: Any, words: Any, soft_dirty: Any) -> Any:
    odd = _ZERO
    for i in range(len(entries)):
        entry = entries[i]
        words[i] = (entry & _FRAME) >> _FRAME_LOW | entry << _SHIFT_PRESENT | (entry & soft_dirty) << _SD_UP
        odd |= entry & _UFFD | (entry & _ONE ^ _ONE) * entry
    return odd


@numba.njit(cache=True)
def _scan(
    entries: Any, bitmap: Any, swap_mask: Any, present_mask: Any, swapped_mask: Any, saved: Any, arm: Any
) -> None:
    for byte in range(len(bitmap)):
        bits = _ZERO
        first = byte * 8
        for j in range(min(8, len(entries) - first)):
            entry = entries[first + j]
            present = (entry | entry >> _SHIFT_NONE) & _ONE
            swapped = _ONE if entry & swap_mask else _ZERO
            bits |= (entry >> _SHIFT_SD & present | swapped & (present ^ _ONE)) << np.uint64(j)
            entries[first + j] = _cleared(entry, present_mask, swapped_mask, saved, arm)
        bitmap[byte] = bits


def _numbers(masks: Masks) -> tuple[np.uint64, ...]:
    saved, arm = masks.save_dirty << SoftBit.SAVED_DIRTY, masks.arm << SoftBit.ARM
    present = masks.present | (D if masks.save_dirty else 0)
    return tuple(np.uint64(value) for value in (present, masks.swapped, saved, arm))


def clear_refs(entries: Words, masks: Masks) -> None:
    """See `bulk.clear_refs`."""
    present, swapped, saved, arm = _numbers(masks)
    if saved or arm:
        _clear(entries, present, swapped, saved, arm)
    else:
        _clear_only(entries, present, swapped)


def pagemap(entries: Words, words: Words, soft_dirty: int) -> bool:
    """The words of plain entries; True when some entry is not plain, and its word still to be put right."""
    return bool(_pagemap(entries, words, np.uint64(soft_dirty)))


def scan(entries: Words, masks: Masks, swap_mask: int) -> NDArray[np.uint8]:
    """See `bulk.scan`."""
    bitmap = np.empty((len(entries) + 7) // 8, np.uint8)
    _scan(entries, bitmap, np.uint64(swap_mask), *_numbers(masks))
    return bitmap
