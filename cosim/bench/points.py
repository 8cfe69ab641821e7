"""Which statements and branches of the gateware's Python were in force: noted by a compiled lane in each cycle."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ptewalk.rtl.points import PORT

__all__ = ["SeenPoints", "with_points"]


def with_points(files: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """The files of a lane for a design that has an output of its points, whose bits have these names."""
    clock = "#define PTEWALK_COVERED\n" + files["clock.h"]
    return {**files, "clock.h": clock, "points.h": _header(names)}


def _header(names: Sequence[str]) -> str:
    words = -(-len(names) // 32)
    told = "".join(f'    "{name}\\n"\n' for name in names)
    made = "// Made by cosim/bench/points.py of a design's points:"
    return f"""{made} those that were in force where the clock rose without a reset.
#pragma once
#include <cstdint>
#include <type_traits>
namespace {{
uint32_t seen_points[{words}];
template <class Top>
inline void note_points(const Top &top) {{
    if (top.rst) return;
    if constexpr (std::is_integral_v<std::remove_reference_t<decltype(top.{PORT})>>) {{
        for (unsigned word = 0; word < {words}; ++word)
            seen_points[word] |= static_cast<uint32_t>(static_cast<uint64_t>(top.{PORT}) >> 32 * word);
    }} else {{
        for (unsigned word = 0; word < {words}; ++word) seen_points[word] |= top.{PORT}[word];
    }}
}}
}}
extern "C" {{
__attribute__((visibility("default"))) uint32_t *ptewalk_seen_points() {{ return seen_points; }}
__attribute__((visibility("default"))) const char *ptewalk_names_of_points() {{
    return
{told}    ;
}}
}}
"""


class SeenPoints:
    """The points of a library that `library_of(..., covered=True)` made, in this process.

    Parameters
    ----------
    library : Path
    """

    def __init__(self, library: Path) -> None:
        compiled = ctypes.CDLL(str(library))
        compiled.ptewalk_names_of_points.restype = ctypes.c_char_p
        compiled.ptewalk_seen_points.restype = ctypes.POINTER(ctypes.c_uint32)
        self._names = compiled.ptewalk_names_of_points().decode().splitlines()
        self._seen = np.ctypeslib.as_array(compiled.ptewalk_seen_points(), (-(-len(self._names) // 32),))

    def clear(self) -> None:
        """From now on they count anew."""
        self._seen[:] = 0

    def told(self) -> dict[str, int]:
        """Name of each point to 1 where it was in force since `clear`, in any instance; else 0."""
        bits = np.unpackbits(self._seen.view(np.uint8), bitorder="little")
        told = dict.fromkeys(self._names, 0)
        for name, bit in zip(self._names, bits.tolist(), strict=False):
            told[name] |= bit
        return told
