"""Long work: a plan is a list of chunks, an executor runs them in processes, and what each gave is appended to a file.

That file, JSON Lines, is how an interrupted run goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.runs.workers import Chunk, ending_chunks, work_on

__all__ = ["Chunk", "default_jobs", "ending_chunks", "execute", "walks_plan"]

Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks)."""


def walks_plan(seed: int, count: int, size: int) -> list[Chunk]:
    """`count` cases in chunks of `size`; the last one may be smaller."""
    sizes = [size] * (count // size) + ([count % size] if count % size else [])
    return [Chunk(seed, number, one) for number, one in enumerate(sizes)]


def default_jobs() -> int:
    """As many processes as this one may use processors."""
    return len(os.sched_getaffinity(0))


def execute(
    chunks: Sequence[Chunk],
    work: Callable[[Chunk], dict[str, Any]],
    *,
    jobs: int = 1,
    journal: Journal | None = None,
    progress: Progress = lambda done, total: None,
    lost: Callable[[Chunk], dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """What `work` gives for each chunk, in the plan's order.

    Parameters
    ----------
    chunks : sequence of Chunk
    work : callable
        With more than one job it runs in processes that are forked from this one.
    jobs : int
    journal : Journal, optional
        What it has is not run again.
    progress : callable
        Told after each chunk.
    lost : callable, optional
        See `workers.work_on`.
    """
    journal = journal or Journal(None, {})
    left = [chunk for chunk in chunks if chunk.number not in journal.done]
    progress(len(chunks) - len(left), len(chunks))
    for chunk, told in work_on(left, work, jobs, lost):
        journal.add(chunk.number, told)
        progress(len(journal.done), len(chunks))
    return [journal.done[chunk.number] for chunk in chunks]
