"""What a campaign covered: bins of its parts' components, which of them it met, and what came nearest to the rest."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.campaigns.kinds import KINDS
from ptewalk.cosim.campaigns.plan import Part
from ptewalk.cosim.checks.covered import BIN
from ptewalk.rtl.bins import Cross

__all__ = ["Coverage", "Gap", "as_json", "chunks_of", "coverage_of"]


@dataclass(frozen=True)
class Gap:
    """A bin that was not met.

    Attributes
    ----------
    name : str
    nearest : tuple of (Part, int) or None
        Part and chunk that met the most bins which differ from it in one value; None: none did.
    """

    name: str
    nearest: tuple[Part, int] | None


@dataclass(frozen=True)
class Coverage:
    """A cross of a kind of work.

    Attributes
    ----------
    kind : str
    cross : Cross
    bins, met : int
        Those that can be met, and those that were.
    excluded : dict
        Reason to number of bins.
    gaps : tuple of Gap
    surprises : tuple of str
        Bins that were met although they are excluded.
    """

    kind: str
    cross: Cross
    bins: int
    met: int
    excluded: dict[str, int]
    gaps: tuple[Gap, ...]
    surprises: tuple[str, ...]


def coverage_of(folder: Path) -> list[Coverage]:
    """What the chunks of a campaign, ended or not, met of each cross.

    Parameters
    ----------
    folder : Path
        Of `run_campaign`.

    Raises
    ------
    ToolError
        It holds no campaign, or none whose bins are counted.
    """
    places, whole_of = chunks_of(folder)
    told = {number: one.bins for number, one in whole_of.items() if KINDS[places[number][0].kind].crosses}
    found = []
    for kind in sorted({part.kind for part, _ in places}):
        chunks = [(places[number], bins) for number, bins in told.items() if places[number][0].kind == kind]
        whole: Counter[str] = Counter()
        for _, bins in chunks:
            whole.update(bins)
        crosses = KINDS[kind].crosses
        names = {_name(cross, values) for cross in crosses for values in cross.bins()}
        if strange := sorted(whole.keys() - names):
            raise ToolError(f"{folder}: {strange[0]} is no bin of {kind}; it is of another version: run it anew")
        found += [_of_cross(kind, cross, whole, chunks) for cross in crosses]
    if not found:
        counting = ", ".join(sorted(name for name, kind in KINDS.items() if kind.crosses))
        raise ToolError(f"{folder}: no part of this campaign counts bins: have one of kind {counting} in its plan")
    return found


@dataclass(frozen=True)
class Met:
    """What a chunk met; see `told.Told`."""

    bins: dict[str, int]
    points: dict[str, int]
    toggles: dict[str, tuple[int, int]]


def chunks_of(folder: Path) -> tuple[list[tuple[Part, int]], dict[int, Met]]:
    """Part and number of each chunk of a campaign, and what each that was done met; `ToolError` for no campaign."""
    path = folder / "chunks.jsonl"
    told: dict[int, Met] = {}
    try:
        first, *rest = path.read_text().split("\n")
        parts = [Part(**part) for part in json.loads(first)["plan"]]
        places = [(part, chunk.number) for part in parts for chunk in part.chunks()]
        for line in rest:
            try:
                number, one = json.loads(line)
            except (ValueError, TypeError):
                continue  # the last one may be cut off
            if number not in range(len(places)):
                raise ValueError(f"no chunk {number}")
            bins, points = (
                {str(name): int(count) for name, count in met.items()} for met in (one["bins"], one.get("points", {}))
            )
            toggles = {str(name): (int(width), int(bits, 16)) for name, (width, bits) in one.get("toggles", {}).items()}
            told[number] = Met(bins, points, toggles)
    except OSError as error:
        raise ToolError(f"{path}: {error.strerror}; name the folder of a campaign (`ptewalk campaign`)") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(f"{path}: no chunks of a campaign of this version; name its folder, or run it anew") from error
    return places, told


def _name(cross: Cross, values: tuple[str, ...]) -> str:
    return BIN.join((cross.name, *values))


def _of_cross(
    kind: str, cross: Cross, whole: Mapping[str, int], chunks: list[tuple[tuple[Part, int], dict[str, int]]]
) -> Coverage:
    excluded: Counter[str] = Counter()
    surprises, gaps, met = [], [], 0
    for values in cross.bins():
        reason, name = cross.why_excluded(values), _name(cross, values)
        if reason is not None:
            excluded[reason] += 1
            if whole.get(name):
                surprises.append(name)
        elif whole.get(name):
            met += 1
        else:
            near = [_name(cross, other) for other in cross.bins() if sum(map(str.__ne__, values, other)) == 1]
            scores = [(sum(one in bins for one in near), place) for place, bins in chunks]
            best = max(scores, key=lambda scored: scored[0], default=(0, None))
            gaps.append(Gap(name, best[1] if best[0] else None))
    return Coverage(kind, cross, met + len(gaps), met, dict(excluded), tuple(gaps), tuple(surprises))


def as_json(found: list[Coverage]) -> list[dict[str, Any]]:
    """Rows of {kind, cross, bins, met, excluded, gaps, surprises}, for JSON."""
    return [
        {
            "kind": one.kind,
            "cross": one.cross.name,
            "bins": one.bins,
            "met": one.met,
            "excluded": one.excluded,
            "gaps": [
                {"bin": gap.name, "nearest": gap.nearest and {"part": gap.nearest[0].name, "chunk": gap.nearest[1]}}
                for gap in one.gaps
            ],
            "surprises": list(one.surprises),
        }
        for one in found
    ]
