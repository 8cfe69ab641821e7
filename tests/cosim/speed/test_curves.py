"""Cycles as CSV and as a picture."""

import csv
import io
from xml.etree import ElementTree

from ptewalk.cosim.speed.curves import COLUMNS, curves, table

SVG = "{http://www.w3.org/2000/svg}"


def row(name: str, latency: int, total: int, target: int | None) -> dict[str, object]:
    return dict(
        name=name, latency=latency, cycles=total, target=target, total=total, outcome="OK", swaps=0, differs=None
    )


ROWS = [row("walk4", 1, 6, 6), row("walk4", 100, 402, 402), row("first, off", 1, 1000, None)]


def test_table() -> None:
    read = list(csv.DictReader(io.StringIO(table(ROWS))))
    assert tuple(read[0]) == COLUMNS
    assert [(line["name"], line["latency"], line["target"]) for line in read] == [
        ("walk4", "1", "6"),
        ("walk4", "100", "402"),
        ("first, off", "1", ""),
    ]


def test_curves_lie_where_their_numbers_do() -> None:
    """On logarithmic axes: the latency from 1 to 100, the cycles from 1 to 1000."""
    svg = ElementTree.fromstring(curves(ROWS, "a < b"))
    dots = svg.findall(f"{SVG}circle")
    assert [dot.findtext(f"{SVG}title") for dot in dots] == [
        "walk4, latency 1: 6 cycles",
        "walk4, latency 100: 402 cycles",
        "first, off, latency 1: 1000 cycles",
    ]
    (x0, y0), (x1, y1), (x2, y2) = ((float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in dots)
    labels = {text.text: text for text in svg.findall(f"{SVG}text")}
    assert (x0, x1) == (x2, float(labels["100"].attrib["x"])) and y2 < y1 < y0
    heights = {power: float(labels[str(power)].attrib["y"]) - 4 for power in (1, 10, 1000)}
    assert y2 == heights[1000] and heights[10] < y0 < heights[1]
    dashed = [line for line in svg.findall(f"{SVG}polyline") if "stroke-dasharray" in line.attrib]
    assert [line.attrib["points"] for line in dashed] == [f"{x0:g},{y0:g} {x1:g},{y1:g}"]
    assert "a < b" in labels and {"walk4", "first, off", "dashed: targets"} <= labels.keys()


def test_one_latency_alone() -> None:
    assert "<circle" in curves([row("walk4", 1, 10, None)], "")
