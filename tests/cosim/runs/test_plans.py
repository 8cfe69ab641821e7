"""Plans: chunks in processes, and what ends them."""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.runs.plans import Chunk, ending_chunks, execute, walks_plan

PLAN = walks_plan(7, 45, 10)


def told(chunk: Chunk) -> dict[str, Any]:
    return {"number": chunk.number, "size": chunk.size, "process": os.getpid()}


@pytest.mark.parametrize("jobs", [1, 3])
def test_every_chunk_in_the_plans_order(jobs: int) -> None:
    seen: list[tuple[int, int]] = []
    found = execute(PLAN, told, jobs=jobs, progress=lambda done, total: seen.append((done, total)))
    assert [(one["number"], one["size"]) for one in found] == [(0, 10), (1, 10), (2, 10), (3, 10), (4, 5)]
    assert (os.getpid() in {one["process"] for one in found}) == (jobs == 1)
    assert seen == [(done, 5) for done in range(6)]
    assert multiprocessing.active_children() == []


def test_an_interrupted_plan_goes_on(tmp_path: Path) -> None:
    """What the journal has is not run again; a line that is cut off is."""
    path = tmp_path / "journal.jsonl"

    def until(chunk: Chunk) -> dict[str, Any]:
        if chunk.number == 3:
            raise KeyboardInterrupt
        return told(chunk)

    with pytest.raises(KeyboardInterrupt):
        execute(PLAN, until, journal=Journal(path, {"what": 1}))
    path.write_text(path.read_text()[:-5])
    again: list[int] = []
    found = execute(PLAN, lambda chunk: again.append(chunk.number) or told(chunk), journal=Journal(path, {"what": 1}))
    assert again == [2, 3, 4] and [one["number"] for one in found] == [0, 1, 2, 3, 4]
    with pytest.raises(ToolError, match=r"journal.jsonl is of another run: remove it, or name another file"):
        Journal(path, {"what": 2})


def test_one_that_fails_ends_the_others() -> None:
    def fails(chunk: Chunk) -> dict[str, Any]:
        if chunk.number == 1:
            raise ValueError("one of them")
        time.sleep(600)
        return {}

    with pytest.raises(RuntimeError, match="(?s)^chunk 1: .*ValueError: one of them"):
        execute(PLAN, fails, jobs=2)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("jobs", [1, 2])
def test_another_thread_is_ended(jobs: int) -> None:
    began, seen = threading.Event(), []

    def work(chunk: Chunk) -> dict[str, Any]:
        time.sleep(0.2 if jobs == 1 else 600)
        return {}

    def run() -> None:
        try:
            execute(walks_plan(1, 10_000, 1), work, jobs=jobs, progress=lambda *_: began.set())
        except KeyboardInterrupt:
            seen.append("interrupted")

    thread = threading.Thread(target=run)
    with ending_chunks() as end:
        thread.start()
        began.wait()
        while thread.is_alive():
            end()
            thread.join(0.1)
    assert seen == ["interrupted"] and multiprocessing.active_children() == []


def test_ctrl_c_while_processes_work() -> None:
    """It comes to all of them; the one that began them ends the others."""
    program = """
import os, signal, threading, time
from ptewalk.cosim.runs.plans import execute, walks_plan
os.setpgid(0, 0)
threading.Timer(1.0, lambda: os.killpg(0, signal.SIGINT)).start()
try:
    execute(walks_plan(1, 20_000, 1), lambda chunk: time.sleep(0.01) or {}, jobs=3)
except KeyboardInterrupt:
    import multiprocessing
    print("interrupted", multiprocessing.active_children())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("interrupted []\n", "")
