"""Chunks of a campaign on a Dask scheduler: each worker builds what it runs on, or finds it built, once."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import distributed

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.results import Counts, Failure
from ptewalk.cosim.campaigns.kinds import KINDS
from ptewalk.cosim.campaigns.plan import Part
from ptewalk.cosim.campaigns.run import Executor, Item, run_chunk
from ptewalk.cosim.campaigns.told import Work
from ptewalk.cosim.runs.workers import Chunk

__all__ = ["on_scheduler"]

_PATIENCE: Final = 20.0
"""Seconds in which a scheduler has to answer at first."""
_AHEAD: Final = 2
"""Chunks that a worker's thread has been given, at most: the one at work and those that wait."""
_LOOK: Final = 0.05
"""Seconds after which it is looked again what is done, and whether the scheduler is still there."""
_open: Final[dict[str, tuple[Work, str]]] = {}
_one = threading.Lock()


def on_scheduler(address: str) -> Executor:
    """Chunks on the workers of a scheduler.

    A worker that dies loses nothing: Dask gives its chunk to another. Where the scheduler goes away, what was done is
    kept.

    Parameters
    ----------
    address : str
        Such as tcp://host:8786.

    Raises
    ------
    ToolError
        Nobody answers there; or, when it runs: the scheduler went away, a worker has other gateware, or one cannot run
        a chunk at all.
    """

    def execute(items: list[Item], opened: list[tuple[Work, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
        try:
            client = distributed.Client(address, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError, TimeoutError) as error:
            raise ToolError(f"{address}: no scheduler answers ({error}); start one with 'dask scheduler'") from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what goes wrong is said in one line
        with client:
            try:
                yield from _spread(client, address, items, [name for _, name in opened])
            except (distributed.comm.CommClosedError, concurrent.futures.CancelledError) as error:
                raise _gone(address) from error

    return execute


def _spread(
    client: distributed.Client, address: str, items: list[Item], names: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """As many at a time as keep all workers busy, whoever comes and goes."""
    ready = iter(range(len(items)))
    running: dict[Any, int] = {}
    while True:
        width = _AHEAD * max(1, sum(client.nthreads().values()))
        for place in ready:
            item = items[place]
            key = f"ptewalk-{client.id}-{item.number}"
            call = (asdict(item.part), asdict(item.chunk), names[place])
            running[client.submit(_chunk_there, *call, key=key)] = place
            if len(running) >= width:
                break
        if not running:
            return
        for future in _finished(client, address, list(running)):
            place = running.pop(future)
            yield items[place].number, _answer(future, items[place])


def _finished(client: distributed.Client, address: str, futures: list[Any]) -> list[Any]:
    """Those that are done, one at least."""
    while True:
        done = [future for future in futures if future.done()]
        if client.status != "running" or any(future.cancelled() for future in done):
            raise _gone(address)
        if done:
            return done
        time.sleep(_LOOK)


def _gone(address: str) -> ToolError:
    return ToolError(f"{address}: the scheduler went away; what was done is kept, the same command goes on")


def _answer(future: Any, item: Item) -> dict[str, Any]:
    error = future.exception()
    if error is None:
        told: dict[str, Any] = future.result()
        return told
    if isinstance(error, ToolError):
        raise error
    if isinstance(error, distributed.scheduler.KilledWorker):
        counts = Counts.of(mismatches=1, failures=[Failure("the workers that ran it ended, one after the other")])
        return {"counts": counts.as_json(), "kept": "", "size": item.chunk.size}
    raise ToolError(f"a worker cannot run {item.part.name}, chunk {item.chunk.number}: {error!r}") from error


def _chunk_there(part: dict[str, Any], chunk: dict[str, Any], name: str) -> dict[str, Any]:
    """On a worker: one chunk at a time in a process."""
    own = Part(**part)
    key = f"{own.kind} {own.options}"
    with _one:
        if key not in _open:
            _open[key] = KINDS[own.kind].open(own.options)
        work, here = _open[key]
        if here != name:
            raise ToolError(
                f"a worker has other gateware ({here}) than this process ({name}): install the same ptewalk"
            )
        return run_chunk(work, own, Chunk(**chunk))
