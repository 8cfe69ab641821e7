"""Processes that work on a plan's chunks: forked from this one, with JSON on pipes between."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError

__all__ = ["Chunk", "ending_chunks", "work_on"]

_PATIENCE: Final = 2.0
"""Seconds after which a process that is not asked looks whether anybody is there."""
_TRIES: Final = 3
"""Processes that may end over one chunk where a lost one does not end the whole."""


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


Work = Callable[[Chunk], dict[str, Any]]
"""What is done with a chunk; its result can be written as JSON."""


_working: set[BaseProcess] = set()
_ending = threading.Event()


def work_on(
    chunks: Sequence[Chunk], work: Work, jobs: int, lost: Work | None = None
) -> Iterator[tuple[Chunk, dict[str, Any]]]:
    """Each chunk with what `work` gives for it, in the order in which they are done.

    Parameters
    ----------
    chunks : sequence of Chunk
    work : callable
    jobs : int
        Processes; with one, or for one chunk, `work` runs in this process.
    lost : callable, optional
        Where it is given, all work is done in processes, and one that ends before it has answered ends nothing: another
        takes its chunk; this is called for what the chunk gives after three such ends.

    Raises
    ------
    ToolError
        As `work` does; or a process ended before it had answered.
    RuntimeError
        Whatever else `work` raised in a process, in words.
    KeyboardInterrupt
        See `ending_chunks`.
    """
    if lost is None and (jobs <= 1 or len(chunks) <= 1):
        for chunk in chunks:
            if _ending.is_set():
                raise KeyboardInterrupt
            yield chunk, work(chunk)
        return
    left = list(reversed(chunks))
    workers: list[_Worker] = []
    ends: Counter[int] = Counter()
    try:
        while left or workers:
            while left and len(workers) < jobs:
                workers.append(_Worker(work, left.pop()))
            ready = wait([end for worker in workers for end in worker.ends])
            for worker in [worker for worker in workers if not set(ready).isdisjoint(worker.ends)]:
                chunk = worker.chunk
                try:
                    told = worker.told()
                except _Ended:
                    if lost is None or _ending.is_set():
                        raise
                    workers.remove(worker)
                    worker.end()
                    ends[chunk.number] += 1
                    if ends[chunk.number] < _TRIES:
                        left.append(chunk)
                    else:
                        yield chunk, lost(chunk)
                    continue
                yield chunk, told
                if left:
                    worker.ask(left.pop())
                else:
                    workers.remove(worker)
                    worker.end()
    except _Ended as ended:
        if _ending.is_set():
            raise KeyboardInterrupt from None
        raise ToolError(f"the process that had chunk {ended.number} ended before it was done") from None
    finally:
        for worker in workers:
            worker.end()


@contextlib.contextmanager
def ending_chunks() -> Iterator[Callable[[], None]]:
    """Gives what ends the chunks that another thread works on: there it is a `KeyboardInterrupt`."""

    def end() -> None:
        _ending.set()
        for process in list(_working):
            process.kill()

    try:
        yield end
    finally:
        _ending.clear()


class _Ended(Exception):
    """A process is no more."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Worker:
    """A process that works on one chunk at a time."""

    def __init__(self, work: Work, chunk: Chunk) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(work, there, os.getpid()), daemon=True)
        self._process.start()
        there.close()
        _working.add(self._process)
        self.ends = (self._connection, self._process.sentinel)
        """What is ready when it has answered, or ended."""
        self.chunk = chunk
        """What it works on."""
        self.ask(chunk)

    def ask(self, chunk: Chunk) -> None:
        self.chunk = chunk
        with contextlib.suppress(ConnectionError):  # it has ended: `told` says so
            self._connection.send_bytes(json.dumps(asdict(chunk)).encode())

    def told(self) -> dict[str, Any]:
        try:
            if not self._connection.poll():
                raise EOFError
            answer = json.loads(self._connection.recv_bytes())
        except (EOFError, ConnectionError):
            raise _Ended(self.chunk.number) from None
        if "trouble" in answer:
            raise ToolError(answer["trouble"])
        if "raised" in answer:
            raise RuntimeError(f"chunk {self.chunk.number}: {answer['raised']}")
        told: dict[str, Any] = answer["told"]
        return told

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        _working.discard(self._process)
        self._connection.close()


def _serve(work: Work, connection: Connection, parent: int) -> None:
    """A process's life: until it is ended, or nobody is left to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C goes to the whole group; who forked it ends it
    while True:
        while not connection.poll(_PATIENCE):
            if os.getppid() != parent:
                return
        try:
            chunk = Chunk(**json.loads(connection.recv_bytes()))
        except EOFError:
            return
        answer: dict[str, Any]
        try:
            answer = {"told": work(chunk)}
        except ToolError as error:
            answer = {"trouble": str(error)}
        except Exception:
            answer = {"raised": traceback.format_exc()}
        connection.send_bytes(json.dumps(answer).encode())
