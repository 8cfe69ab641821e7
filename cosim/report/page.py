"""One HTML file that says and draws what commands found: without a network, in light and dark, for eyes and ears."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ptewalk.cosim.report.results import Bar, Found, RunResult
from ptewalk.cosim.report.waves import excerpts

__all__ = ["render"]

_FIGURES: Final = ("system_calls", "walks", "fills", "faults", "marks", "mends", "cycles", "kernel_bytes", "frames")


def _bytes(count: float) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:.0f} B"


def _head(text: str, most: int) -> str:
    """The beginning of a text, for which there is so much room."""
    return text if len(text) <= most else f"{text[: most - 1]}…" if most > 1 else ""


def _tail(text: str, most: int) -> str:
    """The end of it."""
    return text if len(text) <= most else f"…{text[1 - most :]}"


def _heights(bars: Sequence[Bar], height: int) -> list[float]:
    most = max((bar.value for bar in bars), default=0) or 1
    return [round(height * bar.value / most, 1) for bar in bars]


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def _ways(runs: Sequence[RunResult]) -> list[list[RunResult]]:
    """Runs of one program, in several ways of tracking, side by side."""
    groups: dict[str, list[RunResult]] = {}
    for run in runs:
        groups.setdefault(run.title, []).append(run)
    return list(groups.values())


def _trap_bars(trace: dict[str, Any]) -> list[Bar]:
    """Cycles beyond the least of the rows, by way of tracking."""
    least = min(row["total"] for row in trace["rows"])
    return [
        Bar(row["track"], row["total"] - least, f"{row['faults']} faults, {row['cycles']} cycles of the gateware")
        for row in trace["rows"]
    ]


def render(found: Found) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("ptewalk.cosim.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"bytes": _bytes, "head": _head, "tail": _tail}
    template = environment.get_template("report.html.j2")
    return template.render(
        found=found,
        groups=_ways(found.runs),
        figures=_FIGURES,
        heights=_heights,
        share=_share,
        trap_bars=_trap_bars,
        compared=sum(run.compared for run in found.runs),
        excerpts=excerpts(found.waves),
        lost=sum(int(run.totals.get("lost", 0)) for run in found.runs),
    )
