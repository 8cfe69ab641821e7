"""Cycles of the translating bridge at its pins, over hot pages: latency, and beats a cycle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from ptewalk.cosim.bench.bridge_lane import BridgeConditions, BridgeLane, BridgeRun, Directed
from ptewalk.cosim.runs.bus import bus_library
from ptewalk.model.x86 import Outcome

__all__ = ["bridge_cycles"]

_BEATS: Final = 1000
"""Beats of a row that tells a rate."""
_READ, _WRITE = 5, 6
"""Cycles that the bridge adds to a read, and to a write beside its beats, since all of W is stored first."""
_LATENCIES: Final = tuple(
    (f"{name} of {beats} beat{'s' * (beats > 1)}", directed, beats)
    for name, directed in (("read", Directed.READS), ("write", Directed.WRITES))
    for beats in (1, 16)
)
_LEAST: Final = (
    (Directed.READS, 16, 0.98),
    (Directed.WRITES, 16, 0.98),
    (Directed.BOTH, 16, 0.98),
    (Directed.READS, 1, 0.9),
    (Directed.WRITES, 1, 0.9),
    (Directed.BOTH, 1, 0.45),
)
"""What is asked, beats of a burst, and how many beats a cycle each direction has at least."""
_NAMES: Final = {Directed.READS: "reads", Directed.WRITES: "writes", Directed.BOTH: "reads beside writes"}
_MOST_LATENCY: Final = 6
"""Of memory, for which 16 bursts of one beat in flight are enough."""


def bridge_cycles(latencies: Sequence[int], simulator: str = "verilator") -> list[dict[str, Any]]:
    """Rows of {name, latency, cycles, outcome, swaps, differs, target, total}, 64 bits wide.

    Latency is from the acceptance of AR or AW to the last beat of R, or to B. A row of a rate tells the cycles of 1,000
    beats of each direction, in the middle half of a run. `differs` says what was wrong, of bytes or marks. Raises
    `ToolError` as `library_of`.
    """
    lane = BridgeLane(bus_library(simulator=simulator).library)
    try:
        rows = []
        for latency in latencies:
            for name, directed, beats in _LATENCIES:
                run = _run(lane, directed, beats, latency, 60, outstanding=1)
                taken = int((run.times["last"] - run.times["accepted"])[-1])
                added = _READ + beats - 1 if directed == Directed.READS else _WRITE + 2 * beats - 1
                rows.append(_row(name, latency, taken, latency + added, run))
            for directed, beats, least in _LEAST:
                run = _run(lane, directed, beats, latency, 4000 // beats + 400, outstanding=64)
                slow = beats == 1 and latency > _MOST_LATENCY
                target = None if slow else int(_BEATS / least)
                name = f"{_BEATS} beats, bursts of {beats}, {_NAMES[directed]}"
                rows.append(_row(name, latency, _cycles_of_beats(run, beats), target, run))
        return rows
    finally:
        lane.close()


def _run(lane: BridgeLane, directed: Directed, beats: int, latency: int, count: int, *, outstanding: int) -> BridgeRun:
    conditions = BridgeConditions(directed, beats, outstanding, latency=latency, table_latency=latency)
    return lane.run(count, 1, conditions)


def _cycles_of_beats(run: BridgeRun, beats: int) -> int:
    """Of the slower direction, in the middle half of the run."""
    slowest = 0.0
    for write in (0, 1):
        ends = np.sort(run.times["last"][run.times["write"] == write])
        if len(ends) > 1:
            middle = ends[len(ends) // 4 : -(len(ends) // 4)]
            slowest = max(slowest, float(middle[-1] - middle[0]) / ((len(middle) - 1) * beats))
    return round(slowest * _BEATS)


def _row(name: str, latency: int, cycles: int, target: int | None, run: BridgeRun) -> dict[str, Any]:
    return {
        "name": f"bridge: {name}",
        "latency": latency,
        "cycles": cycles,
        "outcome": Outcome.OK.name,
        "swaps": 0,
        "differs": run.problem or None,
        "target": target,
        "total": cycles,
    }
