"""The table of workloads: each in each way of tracking, with epochs, beside what the kernel's own way costs."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.bench.trace_lane import InstructionCounter
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.walkers import Walker
from ptewalk.cosim.programs.workloads import Workload
from ptewalk.model.linux import Track
from ptewalk.model.memory import FixedMemory
from ptewalk.model.x86 import PAGE_BYTES

__all__ = ["COLUMNS", "FEWEST_EPOCHS", "mark_cycles", "tracking_cycles", "workload_rows"]

COLUMNS: Final = (
    *("workload", "profile", "track", "instructions", "epochs", "faults", "marks", "mends"),
    *("tracking_cycles", "bytes_to_send", "changed_bytes", "lost", "output"),
)
FEWEST_EPOCHS: Final = 50
_WALK: Final = (4, 5)
"""Reads of a walk of four levels, and cycles beside them, at the pins (docs/mmu.md)."""


def mark_cycles(latency: int) -> int:
    """Cycles that a mark adds to a walk: the swap (docs/mmu.md)."""
    return latency + 1


def tracking_cycles(row: Mapping[str, int], fewest: int, *, latency: int, trap: int) -> int:
    """Cycles that tracking cost: marks, and the faults beyond those of the way that has fewest.

    A fault is the walk that ends in it, the operating system's part, and the walk after it.
    """
    reads, beside = _WALK
    fault = 2 * (reads * latency + beside) + trap
    return row["marks"] * mark_cycles(latency) + (row["faults"] - fewest) * fault


def workload_rows(
    workload: Workload,
    folder: Path,
    settings: Settings,
    tracks: Sequence[str],
    walker: Callable[[FixedMemory], Walker],
    library: Path | None,
    *,
    small: bool,
    latency: int,
    trap: int,
    told: Callable[[str], None] = lambda track: None,
) -> list[dict[str, Any]]:
    """Rows of `COLUMNS` of one workload.

    Parameters
    ----------
    folder : Path
        What `workloads.prepare` filled.
    settings : Settings
        Profile, seed, root and memory.
    walker : callable
        As `ProgramRun` takes it.
    library : Path or None
        As `runs.tracing.trace_library`; counts the instructions.
    latency, trap : int
        Cycles of memory, and of a page fault in software.
    told : callable
        Told each way before it runs.

    Raises
    ------
    ToolError
        The program cannot run.
    """
    command = workload.argv(folder, small=small)
    environment = dict(one.decode().split("=", 1) for one in settings.environment)
    host = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True).stdout
    rows: list[dict[str, Any]] = []
    for track in tracks:
        told(track)
        chosen = replace(settings, track=Track[track.upper()], epoch=workload.small if small else workload.every)
        out = io.BytesIO()
        with ProgramRun(chosen, walker, stdin=None, stdout=out, stderr=io.BytesIO()) as running:
            counter = None if library is None else InstructionCounter(library)
            if counter is not None:
                running.cpu.count(counter.hook, counter.address)
            running.start(command[0], command[1:])
            running.run()
            figures = running.figures()
            assert running.epochs is not None
            epochs = running.epochs.as_json()
        rows.append(
            {
                "workload": workload.name,
                "profile": chosen.profile.name,
                "track": track,
                "instructions": None if counter is None else counter.count,
                "epochs": epochs["count"],
                "faults": figures["faults"],
                "marks": figures.get("marks", 0),
                "mends": figures.get("mends", 0),
                "tracking_cycles": 0,
                "bytes_to_send": epochs["reported"] * PAGE_BYTES,
                "changed_bytes": epochs["changed"] * PAGE_BYTES,
                "lost": epochs["lost"],
                "output": "the host's" if out.getvalue() == host else "DIFFERS",
            }
        )
    fewest = min(row["faults"] for row in rows)
    for row in rows:
        row["tracking_cycles"] = tracking_cycles(row, fewest, latency=latency, trap=trap)
    return rows
