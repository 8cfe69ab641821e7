"""What commands left in a folder, made ready to be drawn: epochs, pages, costs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.report.waves import Waves, read_waves
from ptewalk.model.x86 import PAGE_BYTES

__all__ = [
    "BINS",
    "COLUMNS",
    "Bar",
    "Found",
    "Heat",
    "HeatColumn",
    "RunResult",
    "Synthesis",
    "Timing",
    "heat_of",
    "read_results",
]

BINS: Final = 96
"""Rows of a heat map at most."""
COLUMNS: Final = 120
"""Its columns at most: then each stands for several epochs."""
_STATES: Final = ("present", "reported", "changed", "lost")
"""A later one hides those before."""


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: label, value, and what is said of it."""

    label: str
    value: float
    text: str


@dataclass(frozen=True)
class HeatColumn:
    """One column of a heat map.

    Attributes
    ----------
    first, last : int
        The epochs that it stands for.
    counts : dict of str to int
        Pages present, reported, changed, lost, same_value, added over those epochs.
    runs : list of (int, int, str)
        First row, how many, and the state of these rows.
    """

    first: int
    last: int
    counts: dict[str, int]
    runs: list[tuple[int, int, str]]


@dataclass(frozen=True)
class Heat:
    """A heat map: epochs to the right, pages downwards, without the gaps between areas.

    Attributes
    ----------
    rows, pages : int
        Rows, and the pages that they stand for.
    columns : list of HeatColumn
    """

    rows: int
    pages: int
    columns: list[HeatColumn]


@dataclass(frozen=True)
class RunResult:
    """What `ptewalk run --report` or `restore --report` told.

    Attributes
    ----------
    file, title : str
    told : dict
        The JSON object.
    heat : Heat or None
    """

    file: str
    title: str
    told: dict[str, Any]
    heat: Heat | None

    @property
    def totals(self) -> dict[str, Any]:
        """Of its epochs."""
        found: dict[str, Any] = self.told.get("epochs") or {}
        return found

    @property
    def sent(self) -> list[Bar]:
        """Bytes that a migration would send, epoch by epoch: the pages that are reported."""
        return [
            Bar(f"epoch {one['number']}", one["reported"] * PAGE_BYTES, f"{one['reported']} pages")
            for one in self.totals.get("epochs", ())
        ]

    @property
    def bytes_in_all(self) -> int:
        """Of all epochs."""
        return sum(int(bar.value) for bar in self.sent)

    @property
    def compared(self) -> int:
        """Pages whose contents were compared with what is reported."""
        return int(self.totals.get("pages", 0))


@dataclass(frozen=True)
class Timing:
    """What `ptewalk cycles` measured.

    Attributes
    ----------
    file : str
    latencies : list of int
        Of memory, in cycles.
    rows : dict of str to dict of int to (int, int or None)
        By name and latency the cycles, and the target where there is one.
    """

    file: str
    latencies: list[int]
    rows: dict[str, dict[int, tuple[int, int | None]]]

    @staticmethod
    def of(file: str, told: Sequence[dict[str, Any]]) -> Timing:
        """Of the rows that `ptewalk cycles --json` writes."""
        rows: dict[str, dict[int, tuple[int, int | None]]] = {}
        for row in told:
            target = None if row.get("target") is None else int(row["target"])
            rows.setdefault(str(row["name"]), {})[int(row["latency"])] = int(row["cycles"]), target
        return Timing(file, sorted({latency for of in rows.values() for latency in of}), rows)


@dataclass(frozen=True)
class Synthesis:
    """What `ptewalk synth` said of one configuration on one part, again and again.

    Attributes
    ----------
    config, part : str
    rows : list of dict
        In the order of the files' names: `file`, lut4, ff, comb, dpr16x4, block_ram, fmax_mhz, fmax_of_seeds (text) and
        critical_path.
    """

    config: str
    part: str
    rows: list[dict[str, Any]]

    @property
    def clocks(self) -> list[Bar]:
        """The median clock, file by file."""
        return [Bar(row["file"].removesuffix(".json"), row["fmax_mhz"], f"{row['lut4']} LUT4") for row in self.rows]


@dataclass
class Found:
    """What is in a folder.

    Attributes
    ----------
    runs : list of RunResult
    traces, regressions, campaigns, coverages : list of dict
        Of `trace --json`, of `cosim`, of `campaign` and of `coverage --json`, each with its `file`.
    timings : list of Timing
        Of `cycles --json`.
    syntheses : list of Synthesis
        Of `synth --json`.
    waves : list of Waves
        The last cycles of each VCD file.
    passed_over : list of str
        Names of JSON files that are none of these.
    """

    runs: list[RunResult] = field(default_factory=list)
    traces: list[dict[str, Any]] = field(default_factory=list)
    regressions: list[dict[str, Any]] = field(default_factory=list)
    campaigns: list[dict[str, Any]] = field(default_factory=list)
    coverages: list[dict[str, Any]] = field(default_factory=list)
    timings: list[Timing] = field(default_factory=list)
    syntheses: list[Synthesis] = field(default_factory=list)
    waves: list[Waves] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def read_results(folder: Path) -> Found:
    """The results in a folder, and waves in it or below; `ToolError` when there are none, or a file cannot be read."""
    found = Found()
    try:
        paths = sorted(folder.glob("*.json"))
        waves = sorted(folder.rglob("*.vcd"))
        texts = [(path, path.read_text()) for path in paths]
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{folder}: {error}; name a folder of results") from error
    for path, text in texts:
        try:
            told = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ToolError(f"{path}: it is no JSON: {error}; take it out of the folder") from None
        try:
            _sort(found, path.name, told)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ToolError(f"{path}: it is not what a command writes: {error!r}; take it out of the folder") from None
    found.waves += [read_waves(path, str(path.relative_to(folder))) for path in waves]
    drawn = (found.waves, found.runs, found.traces, found.regressions, found.campaigns, found.coverages, found.timings)
    if not any((*drawn, found.syntheses)):
        raise ToolError(
            f"{folder}: no results in it; write some with `run --report`, `trace --json`, `cosim --output`, "
            "`cycles --json`, `synth --json`, `campaign` or `coverage --json`, or waves"
        )
    return found


def _sort(found: Found, name: str, told: Any) -> None:
    rows = told if isinstance(told, list) else [told]
    if rows and all(isinstance(row, dict) and {"config", "lut4", "fmax_of_seeds"} <= set(row) for row in rows):
        for row in rows:
            _add_synthesis(found.syntheses, name, row)
    elif not isinstance(told, dict):
        found.passed_over.append(name)
    elif "trace" in told and "rows" in told:
        for row in told["rows"]:
            for key in ("accesses", "walks", "faults", "cycles", "trap_cycles", "total", "hits_4k", "hits_2m"):
                row[key] = int(row[key])
        what = told["trace"]
        found.traces.append({**told, "file": name, "title": what if isinstance(what, str) else " ".join(what)})
    elif "fills" in told and ("program" in told or "image" in told):
        title = " ".join(told["program"]) if "program" in told else f"restored from {told['image']}"
        epochs = told.get("epochs") or {}
        for one in epochs.get("epochs", ()):
            for key in ("number", "pages", "reported", "changed", "lost"):
                one[key] = int(one[key])
        heat = heat_of(epochs["pages_of_epochs"], epochs["epochs"]) if "pages_of_epochs" in epochs else None
        found.runs.append(RunResult(name, title, told, heat))
    elif "rows" in told and all(
        isinstance(row, dict) and {"part", "compared", "differ"} <= set(row) for row in told["rows"]
    ):
        found.regressions.append({**told, "file": name})
    elif "plan" in told and "parts" in told:
        for row in told["parts"]:
            row["part"] = str(row["part"])
            for key in ("chunks", "comparisons", "mismatches", "skipped", "failed_chunks"):
                row[key] = int(row[key])
        found.campaigns.append({**told, "file": name, "failures": list(map(str, told["failures"]))})
    elif "coverage" in told:
        for row in told["coverage"]:
            for key in ("bins", "met"):
                row[key] = int(row[key])
            for key in ("kind", "cross"):
                row[key] = str(row[key])
            row["surprises"] = list(map(str, row["surprises"]))
            row["not_met"] = [str(gap["bin"]) for gap in row["gaps"]]
            row["reasons"] = {str(reason): int(count) for reason, count in row["excluded"].items()}
        told["lines"] = [_lines(row) for row in told.get("lines", ())]
        found.coverages.append({**told, "file": name})
    elif "rows" in told and all(
        isinstance(row, dict) and {"name", "latency", "cycles", "target"} <= set(row) for row in told["rows"]
    ):
        found.timings.append(Timing.of(name, told["rows"]))
    else:
        found.passed_over.append(name)


def _lines(row: dict[str, Any]) -> dict[str, Any]:
    """What a file of the gateware had in force."""
    counts = {key: int(row[key]) for key in ("lines", "lines_met", "branches", "branches_met", "bits", "toggled")}
    gaps = [f"{gap['point']}: {gap['text']}" for gap in row["gaps"]]
    reasons = {str(reason): int(count) for reason, count in row["excluded"].items()}
    return counts | {
        "file": str(row["file"]),
        "gaps": gaps,
        "reasons": reasons,
        "surprises": list(map(str, row["surprises"])),
    }


def _add_synthesis(syntheses: list[Synthesis], file: str, row: dict[str, Any]) -> None:
    kept: dict[str, Any] = {key: int(row[key]) for key in ("lut4", "ff", "comb", "dpr16x4", "block_ram")}
    kept |= {"file": file, "fmax_mhz": float(row["fmax_mhz"]), "critical_path": str(row["critical_path"])}
    kept["fmax_of_seeds"] = ", ".join(f"{float(one):.1f}" for one in row["fmax_of_seeds"])
    config, part = str(row["config"]), str(row["part"])
    for one in syntheses:
        if (one.config, one.part) == (config, part):
            one.rows.append(kept)
            return
    syntheses.append(Synthesis(config, part, [kept]))


def heat_of(pages: Sequence[dict[str, Any]], epochs: Sequence[dict[str, int]]) -> Heat | None:
    """The heat map of a run's `pages_of_epochs`; None when no page was ever there."""
    if len(pages) != len(epochs):
        raise ValueError(f"{len(pages)} epochs of pages, and {len(epochs)} epochs")
    there = sorted({(int(who), page) for one in pages for who, page in _pages(one["present"])})
    if not there:
        return None
    place = {key: number for number, key in enumerate(there)}
    rows = min(BINS, len(there))
    group = -(-len(pages) // COLUMNS)
    columns = []
    for first in range(0, len(pages), group):
        part = range(first, min(first + group, len(pages)))
        state = [0] * rows
        for number in part:
            for level, name in enumerate(_STATES, 1):
                for key in _pages(pages[number][name]):
                    row = place[key] * rows // len(there)
                    state[row] = max(state[row], level)
        names = ("pages", "reported", "changed", "lost", "same_value")
        counts = {name: sum(int(epochs[number].get(name, 0)) for number in part) for name in names}
        columns.append(HeatColumn(part[0] + 1, part[-1] + 1, counts, _runs(state)))
    return Heat(rows, len(there), columns)


def _pages(of: dict[str, Any]) -> list[tuple[int, int]]:
    return [
        (int(who), page) for who, runs in of.items() for first, count in runs for page in range(first, first + count)
    ]


def _runs(state: Sequence[int]) -> list[tuple[int, int, str]]:
    runs: list[tuple[int, int, str]] = []
    for row, level in enumerate(state):
        if not level:
            continue
        name = _STATES[level - 1]
        if runs and runs[-1][0] + runs[-1][1] == row and runs[-1][2] == name:
            runs[-1] = runs[-1][0], runs[-1][1] + 1, name
        else:
            runs.append((row, 1, name))
    return runs
