"""Which statements and branches of the gateware's Python were in force, and which bits toggled.

A compiled lane notes it in each cycle, of outputs that the design has for that (`rtl.points`).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ptewalk.rtl.export import Covered
from ptewalk.rtl.points import PORT

__all__ = ["SeenPoints", "add_toggles", "with_points"]

_WORD: Final = 32
_HEADER: Final = """// Made by cosim/bench/points.py: what is noted where the clock rises without a reset.
#pragma once
#include <cstdint>
#include <type_traits>
namespace {{
constexpr unsigned POINT_WORDS = {point_words}, LEVEL_WORDS = {level_words};
uint32_t seen_points[POINT_WORDS], before[LEVEL_WORDS], rises[LEVEL_WORDS], falls[LEVEL_WORDS];
bool known;  // what was before
template <class Port>
inline uint32_t word_of(const Port &port, unsigned word) {{
    if constexpr (std::is_integral_v<Port>) return static_cast<uint32_t>(static_cast<uint64_t>(port) >> 32 * word);
    else return port[word];
}}
template <class Port>
inline void note_level(const Port &port, unsigned at, unsigned words) {{
    for (unsigned word = 0; word < words; ++word) {{
        const uint32_t now = word_of(port, word), old = before[at + word];
        if (known) rises[at + word] |= now & ~old, falls[at + word] |= old & ~now;
        before[at + word] = now;
    }}
}}
template <class Top>
inline void note_points(const Top &top) {{
    if (top.rst) {{
        known = false;
        return;
    }}
    for (unsigned word = 0; word < POINT_WORDS; ++word) seen_points[word] |= word_of(top.{port}, word);
{noted}
    known = true;
}}
}}
extern "C" {{
uint32_t *ptewalk_seen_points() {{ return seen_points; }}
uint32_t *ptewalk_rises() {{ return rises; }}
uint32_t *ptewalk_falls() {{ return falls; }}
void ptewalk_forget_levels() {{ known = false; }}
const char *ptewalk_names_of_points() {{ return
{points}; }}
const char *ptewalk_names_of_levels() {{ return
{levels}; }}
}}
"""


def with_points(files: Mapping[str, str], made: Covered) -> dict[str, str]:
    """The files of a lane for a design that tells of its Python."""
    clock = "#define PTEWALK_COVERED\n" + files["clock.h"]
    return {**files, "clock.h": clock, "points.h": _header(made)}


def add_toggles(whole: MutableMapping[str, tuple[int, int]], more: Mapping[str, tuple[int, int]]) -> None:
    """Add what toggled to what had: of each signal (width, bits); the widest of one name counts."""
    for name, (width, bits) in more.items():
        known = whole.get(name, (0, 0))
        whole[name] = max(width, known[0]), bits | known[1]


def _words(bits: int) -> int:
    return -(-bits // _WORD)


def _header(made: Covered) -> str:
    noted, at = [], 0
    for output, _, width in made.levels:
        noted.append(f"    note_level(top.{output}, {at}, {_words(width)});")
        at += _words(width)
    return _HEADER.format(
        point_words=_words(len(made.points)),
        level_words=max(1, at),
        port=PORT,
        noted="\n".join(noted),
        points="\n".join([f'"{name}\\n"' for name in made.points] or ['""']),
        levels="\n".join([f'"{width} {name}\\n"' for _, name, width in made.levels] or ['""']),
    )


class SeenPoints:
    """The points and levels of a library that `library_of(..., covered=True)` made, in this process.

    Parameters
    ----------
    library : Path
    """

    def __init__(self, library: Path) -> None:
        self._compiled = compiled = ctypes.CDLL(str(library))
        self._points = self._lines("ptewalk_names_of_points")
        levels = [line.partition(" ") for line in self._lines("ptewalk_names_of_levels")]
        self._levels = [(name, int(width)) for width, _, name in levels]
        self._seen = self._array(compiled.ptewalk_seen_points, _words(len(self._points)))
        words = sum(_words(width) for _, width in self._levels)
        self._ways = [self._array(way, words) for way in (compiled.ptewalk_rises, compiled.ptewalk_falls)]

    def _lines(self, name: str) -> list[str]:
        call = getattr(self._compiled, name)
        call.restype = ctypes.c_char_p
        lines: list[str] = call().decode().splitlines()
        return lines

    @staticmethod
    def _array(call: Any, words: int) -> NDArray[np.uint32]:
        call.restype = ctypes.POINTER(ctypes.c_uint32)
        return np.ctypeslib.as_array(call(), (words,))

    def clear(self) -> None:
        """From now on they count anew."""
        self._seen[:] = 0
        for way in self._ways:
            way[:] = 0
        self._compiled.ptewalk_forget_levels()

    def told(self) -> dict[str, int]:
        """Name of each point to 1 where it was in force since `clear`, in any instance; else 0."""
        bits = np.unpackbits(self._seen.view(np.uint8), bitorder="little")
        told = dict.fromkeys(self._points, 0)
        for name, bit in zip(self._points, bits.tolist(), strict=False):
            told[name] |= bit
        return told

    def toggles(self) -> dict[str, tuple[int, int]]:
        """Name of each level to (width, bits): a bit is set that rose and fell since `clear`, in any instances."""
        told: dict[str, tuple[int, int, int]] = {}
        at = 0
        for name, width in self._levels:
            end = at + _words(width)
            rose, fell = (int.from_bytes(way[at:end].astype("<u4").tobytes(), "little") for way in self._ways)
            known = told.get(name, (0, 0, 0))
            told[name] = max(width, known[0]), known[1] | rose, known[2] | fell
            at = end
        return {name: (width, rose & fell) for name, (width, rose, fell) in told.items()}
