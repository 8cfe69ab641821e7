"""Random walks by the hundred thousand: on the library, in several processes; an interrupted run goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.base.results import Counts, Failure
from ptewalk.cosim.runs.gateware import WalkerLibrary
from ptewalk.cosim.runs.plans import Chunk, Progress, execute
from ptewalk.cosim.simulate.mutants import option

__all__ = ["walk_chunks"]


def walk_chunks(
    library: WalkerLibrary,
    chunks: Sequence[Chunk],
    repeat: str,
    *,
    jobs: int = 1,
    journal: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> Counts:
    """Random walks of these chunks against the golden model, added up.

    Parameters
    ----------
    library : WalkerLibrary
    chunks : sequence of Chunk
    repeat : str
        The command that repeats the whole; a failure names it and its chunk.
    jobs : int
        Processes.
    journal : Path, optional
        What each chunk gave is appended there; chunks that it has are not run again.
    progress : callable
        Called with (chunks done, chunks).
    """

    def work(chunk: Chunk) -> dict[str, Any]:
        library.lane.reset()  # so that a chunk is the same whatever was run before it
        values = {"seed": chunk.seed, "chunks": [[chunk.number, chunk.size]], "repeat": repeat}
        told = library.perform("randomised", values | {"name": library.model.simulator.name + option()})
        failures = [Failure(told["failure"], f"batch {chunk.number}", repeat)] if told["failure"] else []
        numbers = {name: told[name] for name in ("failed_swaps", "drains", "lost_faults", "words", "events", "traced")}
        return Counts.of(told["comparisons"], told["mismatches"], failures=failures, **numbers).as_json()

    identity = {
        "design": library.design.as_json(),
        "chunks": [[chunk.seed, chunk.number, chunk.size] for chunk in chunks],
        "model": library.model.path.name,
    }
    told = execute(chunks, work, jobs=jobs, journal=Journal(journal, identity), progress=progress)
    return sum((Counts.from_json(one) for one in told), Counts())
