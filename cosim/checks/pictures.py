"""Pictures for the terminal: the page map of a scenario, page by page, after each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["LEGEND", "page_map"]

LEGEND = "# soft-dirty   o present, clean   + mapped, reported soft-dirty   S s swapped (soft-dirty, clean)   . none"
_ROW = 64
"""Pages in a row."""
_MOST_PAGES = 512
_MOST_VALUES = 8


def _glyph(flags: str) -> str:
    dirty = "D" in flags
    if "P" in flags:
        return "#" if dirty else "o"
    if "S" in flags:
        return "S" if dirty else "s"
    return "+" if dirty else "."


def _text(op: dict[str, Any]) -> str:
    """An operation in one line: what it does, then where."""
    rest = " ".join(
        f"{key}={value}" for key, value in op.items() if key not in ("who", "op") and value not in (None, [], "")
    )
    return f"process {op['who']}: {op['op']} {rest}"


def _answer(step: dict[str, Any]) -> str:
    """What a step answered: the error's name, or the result and the first values."""
    if step["errno"]:
        return str(step["errno"])
    vals = step["vals"]
    more = f" and {len(vals) - _MOST_VALUES} more" if len(vals) > _MOST_VALUES else ""
    return f"{step['ret']} {vals[:_MOST_VALUES]}{more}" if vals else str(step["ret"])


def page_map(steps: Sequence[dict[str, Any]]) -> list[str]:
    """Lines that show each step of a scenario, its answer and, under it, the pages of each process.

    Parameters
    ----------
    steps : sequence of {"op": operation, "pages": {process: runs}, "ret", "errno", "vals"}
        Runs as in the scenario format: (first page, number, flags, ...).

    Returns
    -------
    list of str
        A step without a change of the picture has only its own line. Pages beyond 512 are counted, not drawn.
    """
    lines: list[str] = []
    last: dict[str, str] = {}
    pages_used = max((run[0] + run[1] for step in steps for runs in step["pages"].values() for run in runs), default=0)
    shown = min(pages_used, _MOST_PAGES)
    for number, step in enumerate(steps):
        lines.append(f"{number:3}  {_text(step['op'])} -> {_answer(step)}")
        for who, runs in step["pages"].items():
            row = ["."] * shown
            for run in runs:
                for page in range(run[0], min(run[0] + run[1], shown)):
                    row[page] = _glyph(run[2])
            picture = "".join(row)
            if picture != last.get(who):
                for start in range(0, shown, _ROW):
                    lines.append(f"       {who}: {start:5} |{picture[start : start + _ROW]}|")
                last[who] = picture
    if pages_used > shown:
        lines.append(f"       ... and {pages_used - shown} pages more")
    return [*lines, f"     {LEGEND}"]
