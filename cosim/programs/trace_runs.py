"""What a trace tells of a program, or of a file, in one way of tracking."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from ptewalk.cosim.bench.trace_lane import TraceCounts
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.trace import EndOfTrace, TracedMmu, TracedWalker
from ptewalk.model.memory import FixedMemory

__all__ = ["COLUMNS", "TRAP_CYCLES", "TracedRun", "row", "trace_program"]

TRAP_CYCLES: Final = 1842
"""Cycles of a page fault in software, where nothing else is said.

The least of 100 minor faults of a first touch that were timed with RDTSC on Linux 6.6 and an Intel Core i7 of the 11th
generation (https://ddumbying.vercel.app/experiments/pagefault-latency); the median was 3,241.
"""
COLUMNS: Final = (
    *("track", "accesses", "hits_4k", "hits_2m", "walks", "reads", "swaps", "marks", "mends", "faults"),
    *("cycles", "trap_cycles", "total"),
)


@dataclass(frozen=True)
class TracedRun:
    """One run of a program, all of whose accesses went through the gateware.

    Attributes
    ----------
    status : int or None
        As wait4 gives it; None: it was ended after so many accesses.
    accesses, instructions : int
    counts : TraceCounts
    epochs : dict or None
        As `Epochs.as_json`.
    output : bytes
    figures : dict
        As `ProgramRun.figures`.
    """

    status: int | None
    accesses: int
    instructions: int
    counts: TraceCounts
    epochs: dict[str, Any] | None
    output: bytes
    figures: dict[str, Any]


def trace_program(
    settings: Settings,
    command: Sequence[str],
    library: Path,
    *,
    latency: int = 1,
    most: int = 0,
    save: BinaryIO | None = None,
    stdin: BinaryIO | None = None,
    told: Callable[[str], None] = lambda text: None,
) -> TracedRun:
    """Run a program with every access through an MMU that caches.

    Parameters
    ----------
    settings : Settings
    command : sequence of str
    library : Path
        As `runs.tracing.trace_library` makes it.
    latency : int
        Of memory, in cycles.
    most : int
        Accesses after which it is ended; 0: never.
    save : binary stream, optional
        Takes the trace.
    told : callable
        Takes what the program said on standard error.

    Raises
    ------
    ToolError
        The program cannot run.
    """
    made: list[TracedWalker] = []

    def walker(memory: FixedMemory) -> TracedWalker:
        made.append(TracedWalker(TracedMmu(library, memory, latency=latency), len(memory.words), most=most, save=save))
        return made[0]

    output, errors = io.BytesIO(), io.BytesIO()
    status: int | None = None
    with ProgramRun(settings, walker, stdin=stdin, stdout=output, stderr=errors) as running:
        try:
            running.start(command[0], command[1:])
            status = running.run()
        except EndOfTrace:
            pass
        finally:
            counts = made[0].mmu.counts()
            made[0].mmu.lane.close()
        figures = running.figures()
        epochs = None if running.epochs is None else running.epochs.as_json()
    told(errors.getvalue().decode(errors="replace"))
    return TracedRun(
        status, made[0].accesses, made[0].recorder.instructions, counts, epochs, output.getvalue(), figures
    )


def row(track: str, counts: TraceCounts, accesses: int, trap_cycles: int) -> dict[str, Any]:
    """A row of the table: `COLUMNS`, and the `records` of a dirty log where there is one."""
    faults = counts.faults * trap_cycles
    names = ("walks", "reads", "swaps", "marks", "mends", "faults", "cycles")
    found: dict[str, Any] = {"track": track, "accesses": accesses, "hits_4k": counts.hits.get(1, 0)}
    found["hits_2m"] = counts.hits.get(2, 0) + counts.hits.get(3, 0)
    found |= {name: getattr(counts, name) for name in names}
    found |= {} if counts.records is None else {"records": counts.records}
    return {**found, "trap_cycles": faults, "total": counts.cycles + faults}
