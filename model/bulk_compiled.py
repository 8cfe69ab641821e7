"""The passes of model/bulk.py as compiled loops; needs numba, which is optional (extra `fast`).

Each loop takes `_BLOCK` entries at a time and asks for those that it will need 4 KiB later: so it runs at the speed of
memory.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from ptewalk.model import bulk
from ptewalk.model.linux import PAGEMAP_FRAME_BITS, PagemapBit, SoftBit
from ptewalk.model.pte import PROTNONE, SPECIAL, P
from ptewalk.model.x86 import TABLE_ENTRIES

Words = NDArray[np.uint64]

_WORD: Final = 8
_LINE: Final = 64
"""Bytes of a cache line."""
_BLOCK: Final = 64
"""Entries of a turn of a loop: eight lines, and a word of a bitmap."""
_AHEAD: Final = 4096
_TURNS: Final = 2 * TABLE_ENTRIES // _BLOCK
"""Turns for two tables."""
_ZERO, _P, _PROTNONE, _SPECIAL = (np.uint64(bits) for bits in (0, P, PROTNONE, SPECIAL))
_PRESENT, _FILE, _EXCLUSIVE = (
    np.uint64(1 << bit) for bit in (PagemapBit.PRESENT, PagemapBit.FILE, PagemapBit.EXCLUSIVE)
)
_ONE: Final = np.uint64(1)
_PRESENT_DOWN, _SPECIAL_DOWN = np.uint64(PagemapBit.PRESENT), np.uint64(SoftBit.SPECIAL)
_FRAME: Final = np.uint64((1 << PAGEMAP_FRAME_BITS) - 1)


@intrinsic
def _fetch(context: Any, address: Any) -> Any:
    """Ask for the cache lines of the block that lies `_AHEAD` bytes behind the byte at `address`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], kind)
        for start in range(_AHEAD, _AHEAD + _BLOCK * _WORD, _LINE):
            place = builder.inttoptr(builder.add(arguments[0], ir.IntType(64)(start)), pointer)
            builder.call(prefetch, [place, number(0), number(3), number(1)])  # to read, into every cache, data
        return context.get_dummy_value()

    return types.void(types.uint64), generate


@intrinsic
def _stream(context: Any, source: Any, target: Any) -> Any:
    """Copy a block from one byte address to another, a multiple of `_LINE`, past the caches, as memcpy does."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        line = ir.VectorType(word, _LINE // _WORD).as_pointer()
        streamed = builder.module.add_metadata([ir.IntType(32)(1)])
        for start in range(0, _BLOCK * _WORD, _LINE):
            read, write = (builder.inttoptr(builder.add(at, word(start)), line) for at in arguments)
            builder.store(builder.load(read, align=_WORD), write, align=_LINE).set_metadata("nontemporal", streamed)
        return context.get_dummy_value()

    return types.void(types.uint64, types.uint64), generate


_rule = numba.njit(cache=True, inline="always")
_cleared, _soft_dirty_bits, _plain_word = map(_rule, (bulk.cleared, bulk.soft_dirty_bits, bulk.plain_words))
_hidden_word, _swap_word = map(numba.njit(cache=True), (bulk.hidden_words, bulk.swap_words))


@numba.njit(cache=True)
def _clear(entries: Any, masks: Any) -> None:
    for start in range(0, len(entries), _BLOCK):
        block = entries[start : start + _BLOCK]
        _fetch(np.uint64(block.ctypes.data))  # type: ignore[call-arg]
        for i in range(len(block)):
            block[i] = _cleared(block[i], masks)


@numba.njit(cache=True)
def _scan(entries: Any, bitmap: Any, masks: Any, layout: Any) -> None:
    for word in range(len(bitmap)):
        block = entries[word * _BLOCK : (word + 1) * _BLOCK]
        _fetch(np.uint64(block.ctypes.data))  # type: ignore[call-arg]
        bits = _ZERO
        for i in range(len(block)):
            entry = block[i]
            bits |= np.uint64(_soft_dirty_bits(entry, layout) != _ZERO) << np.uint64(i)
            block[i] = _cleared(entry, masks)
        bitmap[word] = bits


@numba.njit(cache=True)
def _put_absent(entries: Any, start: Any, words: Any, layout: Any) -> None:
    """Put right the words of entries from `start` on that have P=0 and are not 0."""
    for i in range(len(words)):
        entry = entries[start + i]
        if entry and not entry & _P:
            words[i] = _hidden_word(entry, layout) if entry & _PROTNONE else _swap_word(entry, layout)


@numba.njit(cache=True)
def _words(entries: Any, words: Any, layout: Any) -> None:
    for i in range(len(entries)):
        words[i] = _plain_word(entries[i], layout)
    _put_absent(entries, 0, words, layout)


@numba.njit(cache=True)
def _pagemap(entries: Any, words: Any, layout: Any) -> None:
    """Whole lines of `words` from a buffer; two tables in turn, for memory serves two streams better than one."""
    buffer = np.empty(_BLOCK, np.uint64)
    source, target = np.uint64(entries.ctypes.data), np.uint64(words.ctypes.data)
    first = min(len(entries), int((_ZERO - target) % np.uint64(_LINE)) // _WORD)
    turns = (len(entries) - first) // (_TURNS * _BLOCK) * _TURNS
    last = first + turns * _BLOCK
    _words(entries[:first], words[:first], layout)
    for turn in range(turns):
        both, within = turn // _TURNS, turn % _TURNS
        start = first + (both * _TURNS + within // 2) * _BLOCK + within % 2 * TABLE_ENTRIES
        offset = np.uint64(start * _WORD)
        _fetch(source + offset + np.uint64(_AHEAD))  # type: ignore[call-arg]
        absent = _ZERO
        for i in range(_BLOCK):
            entry = entries[np.uint64(start + i)]  # no slice: counting its references would wait for the stream
            absent |= entry & ((entry & _P) - _P)
            buffer[i] = _plain_word(entry, layout)
        if absent:
            _put_absent(entries, start, buffer, layout)
        _stream(np.uint64(buffer.ctypes.data), target + offset)
    _words(entries[last:], words[last:], layout)


@numba.njit(cache=True)
def _mapped(entries: Any, words: Any, layout: Any, known: Any) -> bool:
    """False: an entry maps a frame beyond those that are known."""
    flags, anon, maps, head, huge_maps, exclusive, shared = known
    told = _FILE | (_EXCLUSIVE if exclusive else _ZERO)
    limit, frames = np.uint64(len(flags)), np.empty(_BLOCK, np.uint64)
    source = np.uint64(entries.ctypes.data)
    for start in range(0, len(entries), _BLOCK):
        _fetch(source + np.uint64(start * _WORD))  # type: ignore[call-arg]
        count = min(_BLOCK, len(entries) - start)
        absent = highest = _ZERO
        for i in range(count):
            entry = entries[np.uint64(start + i)]  # no slice: its references would be counted
            absent |= entry & ((entry & _P) - _P)
            words[np.uint64(start + i)] = _plain_word(entry, layout)
        if absent:
            _put_absent(entries, start, words[start : start + count], layout)
        for i in range(count):
            word, entry = words[np.uint64(start + i)], entries[np.uint64(start + i)]
            normal = _ZERO - (word >> _PRESENT_DOWN & ~(entry >> _SPECIAL_DOWN) & _ONE)  # all ones
            frame = word & _FRAME & normal
            frames[np.uint64(i)] = frame
            highest |= frame
            words[np.uint64(start + i)] = word | told & normal | shared
        if highest >= limit and frames.max() >= limit:
            return False
        for i in range(count):
            frame = frames[np.uint64(i)]
            lost = _FILE if flags[frame] & anon else _ZERO
            words[np.uint64(start + i)] &= ~(lost | (_ZERO if maps[frame] == 1 else _EXCLUSIVE))
        if len(huge_maps) and exclusive:
            for i in range(count):
                frame = frames[np.uint64(i)]
                if frame and huge_maps[head[frame]] and maps[frame] + huge_maps[head[frame]] == 1:
                    words[np.uint64(start + i)] |= _EXCLUSIVE
                elif frame and huge_maps[head[frame]]:
                    words[np.uint64(start + i)] &= ~_EXCLUSIVE
    return True


def clear_refs(entries: Words, masks: bulk.Masks) -> None:
    """See `bulk.clear_refs`."""
    _clear(entries, masks)


def pagemap(entries: Words, words: Words, layout: bulk.Layout) -> None:
    """See `bulk.pagemap`."""
    _pagemap(entries, words, layout)


def mapped(entries: Words, words: Words, layout: bulk.Layout, known: bulk.Known) -> None:
    """See `bulk.mapped`."""
    if not _mapped(entries, words, layout, known):
        raise IndexError("an entry maps a frame beyond those that are known")


def scan(entries: Words, masks: bulk.Masks, layout: bulk.Layout) -> NDArray[np.uint8]:
    """See `bulk.scan`."""
    bitmap = np.empty(-(-len(entries) // _BLOCK), np.uint64)
    _scan(entries, bitmap, masks, layout)
    return bitmap.view(np.uint8)[: (len(entries) + 7) // 8]
