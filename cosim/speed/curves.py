"""Measured cycles over the latency of memory: as CSV, and as a picture in SVG."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from math import ceil, floor, log10
from typing import Any, Final
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

__all__ = ["COLUMNS", "curves", "table"]

COLUMNS: Final = ("name", "latency", "cycles", "target", "total", "outcome", "swaps", "differs")
"""Of the table, in order."""

_WIDTH, _HEIGHT = 720, 480
"""Of the picture; its plane lies inside these margins."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 130
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Told apart by the colour-blind too (Okabe and Ito)."""
_LEGEND_COLUMNS, _LEGEND_WIDTH, _LINE = 3, 220, 18

Point = tuple[float, float]


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of `Gateware.timed` as CSV with a line of names; nothing stands where a row has no target."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: row[name] for name in COLUMNS} for row in rows)
    return text.getvalue()


class _Axis:
    """A logarithmic axis, from pixel `start` to pixel `end`, that has room for all of `values`."""

    def __init__(self, values: Sequence[float], start: float, end: float) -> None:
        self._low, self._high = floor(log10(min(values))), ceil(log10(max(values)))
        self._high += self._low == self._high
        self._start, self._end = start, end

    def at(self, value: float) -> float:
        """The pixel of a value."""
        part = (log10(value) - self._low) / (self._high - self._low)
        return round(self._start + part * (self._end - self._start), 1)

    @property
    def powers(self) -> list[int]:
        """The powers of ten on it."""
        return [10**power for power in range(self._low, self._high + 1)]


def _line(svg: Element, points: Sequence[Point], colour: str, **more: str) -> None:
    text = " ".join(f"{x:g},{y:g}" for x, y in points)
    SubElement(svg, "polyline", {"points": text, "fill": "none", "stroke": colour, **more})


def _text(svg: Element, x: float, y: float, text: str, **more: str) -> None:
    SubElement(svg, "text", {"x": f"{x:g}", "y": f"{y:g}", **more}).text = text


def curves(rows: Sequence[dict[str, Any]], title: str) -> str:
    """Rows of `Gateware.timed` as an SVG: the total of each name over latency, and dashed its target.

    Both axes are logarithmic. Each point tells its numbers to who points at it.
    """
    right, floor_ = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    targets = [row["target"] for row in rows if row["target"] is not None]
    across = _Axis([row["latency"] for row in rows], _LEFT, right)
    up = _Axis([*(row["total"] for row in rows), *targets], floor_, _TOP)
    size = {"width": str(_WIDTH), "height": str(_HEIGHT), "viewBox": f"0 0 {_WIDTH} {_HEIGHT}"}
    look = {"font-family": "sans-serif", "font-size": "12"}
    svg = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, **look})
    SubElement(svg, "rect", {"width": "100%", "height": "100%", "fill": "white"})
    _text(svg, _LEFT, 24, title, **{"font-size": "14"})
    for power in up.powers:
        _line(svg, [(_LEFT, up.at(power)), (right, up.at(power))], "#ddd")
        _text(svg, _LEFT - 8, up.at(power) + 4, str(power), **{"text-anchor": "end"})
    for latency in sorted({row["latency"] for row in rows}):
        _line(svg, [(across.at(latency), _TOP), (across.at(latency), floor_)], "#ddd")
        _text(svg, across.at(latency), floor_ + 16, str(latency), **{"text-anchor": "middle"})
    _line(svg, [(_LEFT, _TOP), (_LEFT, floor_), (right, floor_)], "black")
    _text(svg, (_LEFT + right) / 2, floor_ + 36, "latency of memory, in cycles", **{"text-anchor": "middle"})
    turned = f"rotate(-90 20 {(_TOP + floor_) / 2:g})"
    middle = {"text-anchor": "middle", "transform": turned}
    _text(svg, 20, (_TOP + floor_) / 2, "cycles until the access may go on", **middle)
    for number, name in enumerate(dict.fromkeys(row["name"] for row in rows)):
        colour = _COLOURS[number % len(_COLOURS)]
        own = sorted((row for row in rows if row["name"] == name), key=lambda row: row["latency"])
        _line(svg, [(across.at(row["latency"]), up.at(row["total"])) for row in own], colour, **{"stroke-width": "2"})
        for row in own:
            place = {"cx": f"{across.at(row['latency']):g}", "cy": f"{up.at(row['total']):g}"}
            dot = SubElement(svg, "circle", {**place, "r": "3", "fill": colour})
            SubElement(dot, "title").text = f"{name}, latency {row['latency']}: {row['total']} cycles"
        wanted = [(across.at(row["latency"]), up.at(row["target"])) for row in own if row["target"] is not None]
        if wanted:
            _line(svg, wanted, "black", **{"stroke-dasharray": "3 4"})
        x = _LEFT + number % _LEGEND_COLUMNS * _LEGEND_WIDTH
        y = floor_ + 64 + number // _LEGEND_COLUMNS * _LINE
        _line(svg, [(x, y - 4), (x + 20, y - 4)], colour, **{"stroke-width": "2"})
        _text(svg, x + 26, y, name)
    if targets:
        _text(svg, _LEFT, _HEIGHT - 16, "dashed: targets")
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"
