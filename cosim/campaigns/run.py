"""A campaign: chunks of a plan in processes or on a Dask scheduler, each kept as it is done, and one merged result."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TextIO

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import made_folder, write_whole
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.base.results import Counts, Failure
from ptewalk.cosim.campaigns.kinds import KINDS
from ptewalk.cosim.campaigns.plan import Part, Plan
from ptewalk.cosim.campaigns.told import Told, Work
from ptewalk.cosim.runs.workers import Chunk, work_on

__all__ = ["Executor", "Item", "in_processes", "placed", "run_campaign", "run_chunk", "told_of"]

_KEPT: Final = 5
"""Failures of a part that are kept in words, and in files."""
_locks: Final[set[TextIO]] = set()
"""Of the folders that this process works in."""


def _let_go() -> None:
    """In a forked process: it works on after a campaign was killed, and must not hold its folder."""
    for handle in _locks:
        handle.close()


os.register_at_fork(after_in_child=_let_go)


@dataclass(frozen=True)
class Item:
    """A chunk of a campaign.

    Attributes
    ----------
    number : int
        Its place in the whole.
    part : Part
    chunk : Chunk
    """

    number: int
    part: Part
    chunk: Chunk


Executor = Callable[[list[Item], list[tuple[Work, str]]], Iterator[tuple[int, dict[str, Any]]]]
"""Given items, and for each how its part is opened: numbers of items with what each gave, as they are done."""


def run_chunk(work: Work, part: Part, chunk: Chunk, *, smallest: bool = True) -> dict[str, Any]:
    """What a chunk gives, as JSON: counts, kept, bins, points, toggles, and size: the fewest cases that fail.

    An exception that is no `ToolError` is a failure of the chunk.
    """
    told = _tried(work, chunk)
    size = chunk.size
    if smallest and not told.counts.ok and KINDS[part.kind].shrinks:
        fewer = 1
        while fewer < chunk.size:
            again = _tried(work, replace(chunk, size=fewer))
            if again.counts.failures:
                told = replace(told, counts=replace(told.counts, failures=again.counts.failures), kept=again.kept)
                size = fewer
                break
            fewer *= 2
    toggles = {name: [width, f"{bits:x}"] for name, (width, bits) in told.toggles.items()}
    met = {"bins": dict(told.bins), "points": dict(told.points), "toggles": toggles}
    return {"counts": told.counts.as_json(), "kept": told.kept, **met, "size": size}


def told_of(value: Mapping[str, Any]) -> Told:
    """What `run_chunk` gave."""
    return Told(Counts.from_json(value["counts"]), value["kept"], value.get("bins", {}), value.get("points", {}))


def placed(failure: Failure, part: Part, chunk: Chunk, repeat: str) -> Failure:
    """A chunk's failure, with its place in the plan and the command that repeats it."""
    where = f"{part.name}, chunk {chunk.number}"
    return Failure(failure.what, f"{where}: {failure.where}" if failure.where else where, repeat)


def _tried(work: Work, chunk: Chunk) -> Told:
    try:
        told = work(chunk)
    except ToolError:
        raise
    except Exception:
        return Told(Counts.of(mismatches=1, failures=[Failure(traceback.format_exc().strip())]))
    if not told.counts.comparisons and not told.counts.failures:
        return Told(replace(told.counts, mismatches=1, failures=(Failure("nothing was compared"),)))
    return told


def in_processes(jobs: int) -> Executor:
    """Chunks in `jobs` processes of this machine; one that dies loses nothing, another takes its chunk."""

    def execute(items: list[Item], opened: list[tuple[Work, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
        def work(at: Chunk) -> dict[str, Any]:
            item = items[at.number]
            return run_chunk(opened[at.number][0], item.part, item.chunk)

        def lost(at: Chunk) -> dict[str, Any]:
            failure = Failure("the process that ran it ended, three times")
            counts = Counts.of(mismatches=1, failures=[failure])
            return {"counts": counts.as_json(), "kept": "", "bins": {}, "size": items[at.number].chunk.size}

        for at, told in work_on([Chunk(0, place, 1) for place in range(len(items))], work, jobs, lost):
            yield items[at.number].number, told

    return execute


def _here(items: list[Item], opened: list[tuple[Work, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """One after the other, in this process."""
    for item, (work, _) in zip(items, opened, strict=True):
        yield item.number, run_chunk(work, item.part, item.chunk)


def run_campaign(
    plan: Plan,
    folder: Path,
    execute: Executor,
    *,
    repeat: Callable[[Part, Chunk, int], str],
    progress: Callable[[int, int, int], None] = lambda done, total, compared: None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Run a campaign, or go on with it.

    Parameters
    ----------
    plan : Plan
    folder : Path
        Its files: chunks.jsonl, what each chunk gave; result.json, all of it merged; failures, what was reduced.
    execute : Executor
        Runs what may run side by side; the rest comes after it, one by one.
    repeat : callable
        (part, chunk, size) to the command that repeats so many cases of a chunk.
    progress : callable
        Called with (chunks done, chunks, comparisons).
    say : callable
        Told each part that is built.

    Returns
    -------
    dict
        plan, parts (rows: part, kind, chunks, what `Counts.as_json` gives, bins,
        points: in how many chunks each was in force), comparisons, mismatches, failures.
        The same for the same plan, however often it was interrupted.

    Raises
    ------
    ToolError
        Something cannot be built or written, or the folder holds another campaign, or is in use.
    """
    opened = []
    for part in plan.parts:
        say(f"{part.name}: building what it runs on, if it is not built yet")
        opened.append(KINDS[part.kind].open(part.options))
    names = [name for _, name in opened]
    with made_folder(folder), _alone(folder):
        journal = Journal(folder / "chunks.jsonl", {"plan": plan.as_json(), "models": names})
        items: list[tuple[Item, tuple[Work, str]]] = []
        for part, how in zip(plan.parts, opened, strict=True):
            items += [(Item(len(items) + place, part, chunk), how) for place, chunk in enumerate(part.chunks())]
        left = [(item, how) for item, how in items if item.number not in journal.done]
        compared = sum(told["counts"]["comparisons"] for told in journal.done.values())
        progress(len(journal.done), len(items), compared)
        for alone in (False, True):
            mine = [(item, how) for item, how in left if KINDS[item.part.kind].alone == alone]
            if not mine:
                continue
            run = _here if alone else execute
            for number, told in run([item for item, _ in mine], [how for _, how in mine]):
                journal.add(number, told)
                compared += told["counts"]["comparisons"]
                progress(len(journal.done), len(items), compared)
        result = _merged(plan, [item for item, _ in items], journal.done, folder, repeat)
        write_whole(folder / "result.json", json.dumps(result, indent=1) + "\n")
    return result


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One campaign at a time in a folder."""
    try:
        with (folder / ".lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _locks.add(handle)
            try:
                yield
            finally:
                _locks.discard(handle)
    except BlockingIOError:
        raise ToolError(f"{folder} is in use by another campaign: wait for its end, or name another folder") from None
    except PermissionError as error:
        raise ToolError(f"{folder}: {error.strerror}; name a folder that can be written") from error


def _merged(
    plan: Plan,
    items: Iterable[Item],
    done: Mapping[Any, Mapping[str, Any]],
    folder: Path,
    repeat: Callable[[Part, Chunk, int], str],
) -> dict[str, Any]:
    """All chunks, added up, part by part; the first failures of each with the command that repeats them.

    A part that had none, and did not meet what its kind must have met, has that as its failure.
    """
    sums = {part.name: Counts() for part in plan.parts}
    chunks = dict.fromkeys(sums, 0)
    failed = dict.fromkeys(sums, 0)
    bins: dict[str, Counter[str]] = {name: Counter() for name in sums}
    points: dict[str, Counter[str]] = {name: Counter() for name in sums}
    for item in items:
        told = told_of(done[item.number])
        name, counts = item.part.name, told.counts
        if counts.failures:
            failed[name] += 1
            if failed[name] <= _KEPT:
                command = repeat(item.part, item.chunk, done[item.number]["size"])
                counts = replace(counts, failures=(placed(counts.failures[0], item.part, item.chunk, command),))
                if told.kept:
                    write_whole(folder / "failures" / f"{name}-{item.chunk.number}.jsonl", told.kept)
            else:
                counts = replace(counts, failures=())
        sums[name] += counts
        bins[name].update(told.bins)
        points[name].update(told.points)
        chunks[name] += 1
    for part in plan.parts:
        counts = sums[part.name]
        missed = KINDS[part.kind].missed(counts)
        if missed and not counts.failures:
            what = f"{counts.comparisons} {KINDS[part.kind].unit} could hardly have failed: {', '.join(missed)}"
            sums[part.name] += Counts.of(failures=[Failure(f"{what}; a larger count asks for more", part.name)])
    rows = [
        {"part": part.name, "kind": part.kind, "chunks": chunks[part.name], "failed_chunks": failed[part.name]}
        | sums[part.name].as_json()
        | {"bins": dict(sorted(bins[part.name].items())), "points": dict(sorted(points[part.name].items()))}
        for part in plan.parts
    ]
    whole = sum(sums.values(), Counts())
    return {
        "plan": plan.name,
        "parts": rows,
        "comparisons": whole.comparisons,
        "mismatches": whole.mismatches,
        "failures": [str(failure) for failure in whole.failures],
    }
