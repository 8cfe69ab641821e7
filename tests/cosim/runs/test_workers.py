"""Work in processes: every chunk once, in plain words when it fails, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.runs.plans import execute, walks_plan
from ptewalk.cosim.runs.workers import Chunk, work_on


def squared(chunk: Chunk) -> dict[str, Any]:
    return {"square": chunk.number**2, "process": os.getpid()}


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    yield
    assert multiprocessing.active_children() == []


def test_every_chunk_is_done_once_in_several_processes() -> None:
    plan = walks_plan(5, 20, 1)
    told = dict(work_on(plan, squared, 3))
    assert {chunk.number: one["square"] for chunk, one in told.items()} == {n: n**2 for n in range(20)}
    processes = {one["process"] for one in told.values()}
    assert 1 <= len(processes) <= 3 and os.getpid() not in processes
    seen: list[tuple[int, int]] = []
    results = execute(plan, squared, jobs=2, progress=lambda done, total: seen.append((done, total)))
    assert [one["square"] for one in results] == [n**2 for n in range(20)]
    assert seen == [(n, 20) for n in range(21)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_goes_wrong_is_told(jobs: int) -> None:
    def work(chunk: Chunk) -> dict[str, Any]:
        if chunk.number == 2:
            raise ToolError("no simulator; install one")
        return {}

    with pytest.raises(ToolError, match=r"^no simulator; install one$"):
        list(work_on(walks_plan(1, 6, 1), work, jobs))


def test_an_error_of_the_program_is_told_with_its_chunk_and_place() -> None:
    def work(chunk: Chunk) -> dict[str, Any]:
        return {"share": 1 // (chunk.number - 1)}

    with pytest.raises(RuntimeError, match=r"(?s)^chunk 1: Traceback.*test_workers.py.*ZeroDivisionError"):
        list(work_on(walks_plan(1, 3, 1), work, 2))


def test_a_process_that_ends_is_noticed() -> None:
    def work(chunk: Chunk) -> dict[str, Any]:
        if chunk.number == 1:
            os._exit(9)
        return {}

    with pytest.raises(ToolError, match="^the process that had chunk 1 ended before it was done$"):
        list(work_on(walks_plan(1, 4, 1), work, 2))


def test_an_interrupted_run_leaves_no_process() -> None:
    def work(chunk: Chunk) -> dict[str, Any]:
        time.sleep(0 if chunk.number == 0 else 60)
        return {}

    started = time.monotonic()
    told = work_on(walks_plan(1, 4, 1), work, 2)
    assert next(told)[0].number == 0
    told.close()  # type: ignore[attr-defined]
    assert time.monotonic() - started < 30
