"""The passes of model/bulk.py as compiled loops; needs numba, which is optional (extra `fast`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ptewalk.model.linux import PagemapBit, SoftBit
from ptewalk.model.pte import FRAME, PROTNONE, UFFD_WP, D, P
from ptewalk.model.x86 import FRAME_LOW, EntryBit

if TYPE_CHECKING:
    from ptewalk.model.bulk import Masks

Words = NDArray[np.uint64]

_WORD: Final = 8
_LANES: Final = 8
_LINE: Final = _LANES * _WORD
"""Bytes of a cache line, written as a whole."""
_BLOCK: Final = 64
"""Entries of a turn of the compiled loop."""
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


@intrinsic
def _stream(context: Any, source: Any, target: Any, soft_dirty: Any) -> Any:
    """The pagemap words of `_BLOCK` plain entries at `source`, written to `target` past the cache, as memcpy does.

    Addresses are in bytes; `target` is a multiple of `_LINE`. Returns something else than 0 when an entry is not plain.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        vector = ir.VectorType(word, _LANES)

        def constant(value: int) -> Any:
            return ir.Constant(vector, [value] * _LANES)

        mask = ir.Constant(vector, ir.Undefined)
        for lane in range(_LANES):
            mask = builder.insert_element(mask, arguments[2], ir.Constant(ir.IntType(32), lane))
        streamed = builder.module.add_metadata([ir.IntType(32)(1)])
        odd = constant(0)
        for start in range(0, _BLOCK * _WORD, _LINE):
            offset = ir.Constant(word, start)
            places = (builder.inttoptr(builder.add(at, offset), vector.as_pointer()) for at in arguments[:2])
            entries = builder.load(next(places), align=_WORD)
            words = builder.lshr(builder.and_(entries, constant(FRAME)), constant(FRAME_LOW))
            words = builder.or_(words, builder.shl(entries, constant(PagemapBit.PRESENT)))
            words = builder.or_(words, builder.shl(builder.and_(entries, mask), constant(int(_SD_UP))))
            builder.store(words, next(places), align=_LINE).set_metadata("nontemporal", streamed)
            absent = builder.sub(builder.and_(entries, constant(P)), constant(1))  # all ones where P=0
            odd = builder.or_(odd, builder.and_(entries, builder.or_(absent, constant(UFFD_WP))))
        found = builder.extract_element(odd, ir.Constant(ir.IntType(32), 0))
        for lane in range(1, _LANES):
            found = builder.or_(found, builder.extract_element(odd, ir.Constant(ir.IntType(32), lane)))
        return found

    return types.uint64(types.uint64, types.uint64, types.uint64), generate


@numba.njit(cache=True)
def _pagemap_some(entries: Any, words: Any, soft_dirty: Any, first: Any, last: Any) -> Any:
    odd = _ZERO
    for i in range(first, last):
        entry = entries[i]
        words[i] = (entry & _FRAME) >> _FRAME_LOW | entry << _SHIFT_PRESENT | (entry & soft_dirty) << _SD_UP
        odd |= entry & (_UFFD | ((entry & _ONE) - _ONE))
    return odd


@numba.njit(cache=True)
def _pagemap(entries: Any, words: Any, soft_dirty: Any) -> Any:
    source, target = np.uint64(entries.ctypes.data), np.uint64(words.ctypes.data)
    first = min(len(entries), int(-(target // np.uint64(_WORD)) % np.uint64(_LANES)))
    last = first + (len(entries) - first) // _BLOCK * _BLOCK
    odd = _pagemap_some(entries, words, soft_dirty, 0, first)
    for i in range(first, last, _BLOCK):
        odd |= _stream(source + np.uint64(_WORD * i), target + np.uint64(_WORD * i), soft_dirty)  # type: ignore[call-arg]
    return odd | _pagemap_some(entries, words, soft_dirty, last, len(entries))


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
