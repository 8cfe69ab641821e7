"""Long work: a plan is a list of chunks, an executor runs them in processes, and what each gave is appended to a file.

That file, JSON Lines, is how an interrupted run goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.runs.workers import Chunk, ending_chunks, work_on

__all__ = ["Chunk", "Journal", "default_jobs", "ending_chunks", "execute", "walks_plan"]

Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks)."""


def walks_plan(seed: int, count: int, size: int) -> list[Chunk]:
    """`count` cases in chunks of `size`; the last one may be smaller."""
    sizes = [size] * (count // size) + ([count % size] if count % size else [])
    return [Chunk(seed, number, one) for number, one in enumerate(sizes)]


def default_jobs() -> int:
    """As many processes as this one may use processors."""
    return len(os.sched_getaffinity(0))


class Journal:
    """What the chunks of one plan gave, in a file that is appended to.

    Parameters
    ----------
    path : Path or None
        None: nothing is kept.
    identity : dict
        What is run. A file of another run is not gone on with: `ToolError`.
    """

    def __init__(self, path: Path | None, identity: dict[str, Any]) -> None:
        self._path = path
        self.done: dict[int, dict[str, Any]] = {}
        """Number of a chunk to what it gave."""
        if path is None:
            return
        text = path.read_text("utf-8", "replace") if path.exists() else ""
        first, *rest = text.split("\n")
        if text and json.loads(first or "null") != identity:
            raise ToolError(f"{path} is of another run: remove it, or name another file")
        for line in rest:
            with contextlib.suppress(ValueError):  # the last one may be cut off
                number, told = json.loads(line)
                self.done[number] = told
        lines = [json.dumps(identity), *(json.dumps(one) for one in self.done.items())]
        try:
            path.write_text("\n".join([*lines, ""]))
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}; name a file in a folder that can be written") from error

    def add(self, number: int, told: dict[str, Any]) -> None:
        """Keep what a chunk gave."""
        self.done[number] = told
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps([number, told]) + "\n")


def execute(
    chunks: Sequence[Chunk],
    work: Callable[[Chunk], dict[str, Any]],
    *,
    jobs: int = 1,
    journal: Journal | None = None,
    progress: Progress = lambda done, total: None,
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
    """
    journal = journal or Journal(None, {})
    left = [chunk for chunk in chunks if chunk.number not in journal.done]
    progress(len(chunks) - len(left), len(chunks))
    for chunk, told in work_on(left, work, jobs):
        journal.add(chunk.number, told)
        progress(len(journal.done), len(chunks))
    return [journal.done[chunk.number] for chunk in chunks]
