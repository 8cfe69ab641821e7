"""Long work: a plan is a list of chunks, an executor runs them in processes, and what each gave is appended to a file.

That file, JSON Lines, is how an interrupted run goes on.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError

__all__ = ["Chunk", "Journal", "default_jobs", "ending_chunks", "execute", "walks_plan"]

Progress = Callable[[int, int], None]
"""Called with (chunks done, chunks)."""


@dataclass(frozen=True)
class Chunk:
    """A part of a plan that can be run alone, anywhere, with the same result.

    Attributes
    ----------
    seed : int
        Of the plan.
    number : int
        Its place in the plan; with the seed, all its chance.
    size : int
        How many cases it has.
    """

    seed: int
    number: int
    size: int


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
    for chunk, told in _run(left, work, jobs):
        journal.add(chunk.number, told)
        progress(len(journal.done), len(chunks))
    return [journal.done[chunk.number] for chunk in chunks]


_work: Callable[[Chunk], dict[str, Any]] | None = None
"""What a forked process does."""
_forked: set[BaseProcess] = set()
_ending = threading.Event()


def _one(chunk: Chunk) -> dict[str, Any]:
    assert _work is not None
    return _work(chunk)


def _run(
    chunks: Iterable[Chunk], work: Callable[[Chunk], dict[str, Any]], jobs: int
) -> Iterator[tuple[Chunk, dict[str, Any]]]:
    chunks = list(chunks)
    if jobs <= 1 or len(chunks) <= 1:
        for chunk in chunks:
            if _ending.is_set():
                raise KeyboardInterrupt
            yield chunk, work(chunk)
        return
    global _work
    _work = work
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(jobs, len(chunks)), multiprocessing.get_context("fork"), initializer=_ignore_ctrl_c)
    try:
        running = {pool.submit(_one, chunk): chunk for chunk in chunks}
        _forked.update(set(multiprocessing.active_children()) - before)
        for done in as_completed(running):
            yield running[done], done.result()
    except BrokenProcessPool:
        if _ending.is_set():
            raise KeyboardInterrupt from None
        raise
    finally:
        for child in set(multiprocessing.active_children()) - before:  # Ctrl-C, or one of them failed
            child.kill()
        pool.shutdown(cancel_futures=True)
        _forked.intersection_update(multiprocessing.active_children())
        _work = None


def _ignore_ctrl_c() -> None:
    """In a forked process: a Ctrl-C goes to the whole group; who forked it ends it, wherever it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def ending_chunks() -> Iterator[Callable[[], None]]:
    """Gives what ends the chunks that another thread executes: its call of `execute` is then a `KeyboardInterrupt`."""

    def end() -> None:
        _ending.set()
        for child in list(_forked):
            child.kill()

    try:
        yield end
    finally:
        _ending.clear()
