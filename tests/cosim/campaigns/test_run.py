"""Campaigns: the same result however often they are interrupted, whoever dies; failures reduced and repeatable."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.results import Counts, Failure
from ptewalk.cosim.campaigns.kinds import KINDS, Kind
from ptewalk.cosim.campaigns.plan import Part, Plan
from ptewalk.cosim.campaigns.run import in_processes, run_campaign
from ptewalk.cosim.campaigns.told import Told
from ptewalk.cosim.checks.minima import DISCRIMINATING
from ptewalk.cosim.runs.workers import Chunk


def passing(chunk: Chunk) -> Told:
    return Told(Counts.of(chunk.size, squares=chunk.number**2))


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Chunk], Told]], None]:
    """Has the kind `walks` do this, ten at a time."""

    def set_work(work: Callable[[Chunk], Told]) -> None:
        monkeypatch.setitem(KINDS, "walks", Kind("walks", 10, lambda options: (work, "a model")))

    return set_work


def plan(count: int = 95) -> Plan:
    return Plan("mine", "mine.toml", (Part("w", "walks", count, 7, {}),))


def run(folder: Path, *, jobs: int = 2, count: int = 95, **options: Any) -> dict[str, Any]:
    options.setdefault("repeat", lambda part, chunk, size: f"again {part.name} {chunk.number} {size}")
    return run_campaign(plan(count), folder, in_processes(jobs), **options)


def test_all_chunks_are_added_up(worked: Any, tmp_path: Path) -> None:
    worked(passing)
    seen: list[tuple[int, int, int]] = []
    result = run(tmp_path, progress=lambda *told: seen.append(told))
    (row,) = result["parts"]
    assert (row["chunks"], row["comparisons"], row["mismatches"], row["failed_chunks"]) == (10, 95, 0, 0)
    assert row["numbers"] == {"squares": sum(n * n for n in range(10))}
    assert [told[:2] for told in seen] == [(done, 10) for done in range(11)] and seen[-1][2] == 95
    assert json.loads((tmp_path / "result.json").read_text()) == result


def test_a_process_that_dies_loses_nothing(worked: Any, tmp_path: Path) -> None:
    """Its chunk is done by another; one over which every process dies is a failure, and the rest is there."""

    def dies(chunk: Chunk) -> Told:
        once = tmp_path / "once"
        if chunk.number == 5 or (chunk.number == 3 and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return passing(chunk)

    worked(dies)
    result = run(tmp_path)
    (row,) = result["parts"]
    assert (row["chunks"], row["comparisons"], row["mismatches"], row["failed_chunks"]) == (10, 85, 1, 1)
    assert result["failures"] == ["w, chunk 5: the process that ran it ended, three times\nrepeat: again w 5 10"]


def test_a_failure_is_reduced_kept_and_repeated(worked: Any, tmp_path: Path) -> None:
    def fails(chunk: Chunk) -> Told:
        if chunk.number < 2 and chunk.size >= 3:
            found = [Failure(f"{chunk.size} of them", "here")]
            return Told(Counts.of(chunk.size, 1, failures=found), f"the scenario of {chunk.size}\n")
        if chunk.number == 2:
            raise ValueError("out of order")
        return Told(Counts()) if chunk.number == 3 else passing(chunk)

    worked(fails)
    result = run(tmp_path)
    assert result["failures"][:2] == [
        f"w, chunk {number}: here: 4 of them\nrepeat: again w {number} 4" for number in (0, 1)
    ]
    assert result["failures"][2].startswith("w, chunk 2: Traceback")
    assert "ValueError: out of order\nrepeat: again w 2 1" in result["failures"][2]
    assert result["failures"][3] == "w, chunk 3: nothing was compared\nrepeat: again w 3 1"
    assert (result["parts"][0]["failed_chunks"], result["mismatches"]) == (4, 4)
    kept = sorted((tmp_path / "failures").iterdir())
    assert [(path.name, path.read_text()) for path in kept] == [
        (f"w-{number}.jsonl", "the scenario of 4\n") for number in (0, 1)
    ]


@pytest.mark.parametrize(("hits", "said"), [(12_000, ""), (11_999, "11999 hits (at least 12000)")])
def test_accesses_that_could_hardly_have_failed_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hits: int, said: str
) -> None:
    """What had to be met is asked of all chunks of a part together: of 40,000 accesses that is three hits in ten."""
    met = {"gateware wraps": 9, "overtaken": 9, **dict.fromkeys(DISCRIMINATING, 90)}

    def kept(chunk: Chunk) -> Told:
        """Three quarters of the hits are the first chunk's, so that the second alone has too few."""
        return Told(Counts.of(20_000, hits=(hits * 3 // 4, hits - hits * 3 // 4)[chunk.number], **met))

    monkeypatch.setitem(KINDS, "accesses", replace(KINDS["accesses"], open=lambda options: (kept, "a model")))
    asked = Plan("mine", "mine.toml", (Part("a", "accesses", 40_000, 7, {}),))
    result = run_campaign(asked, tmp_path, in_processes(1), repeat=lambda *_: "again")
    line = f"a: 40000 accesses could hardly have failed: {said}; a larger count asks for more"
    assert result["failures"] == ([line] if said else []) and result["comparisons"] == 40_000
    assert result["parts"][0]["failed_chunks"] == result["mismatches"] == 0


def test_trouble_ends_it_and_what_was_done_is_kept(worked: Any, tmp_path: Path) -> None:
    def trouble(chunk: Chunk) -> Told:
        if chunk.number == 4:
            raise ToolError("the disk is full; make room")
        return passing(chunk)

    worked(trouble)
    with pytest.raises(ToolError, match="^the disk is full; make room$"):
        run(tmp_path, jobs=1)

    def rest(chunk: Chunk) -> Told:
        (tmp_path / f"ran-{chunk.number}").touch()
        return passing(chunk)

    worked(rest)
    result = run(tmp_path)
    ran = sorted(int(path.name[4:]) for path in tmp_path.glob("ran-*"))
    assert ran == [4, 5, 6, 7, 8, 9] and result["comparisons"] == 95


def test_a_folder_of_another_campaign(worked: Any, tmp_path: Path) -> None:
    worked(passing)
    run(tmp_path)
    with pytest.raises(ToolError, match=r"chunks.jsonl is of another run: remove it, or name another file"):
        run(tmp_path, count=94)
    second = []

    def progress(*_: int) -> None:
        if not second:
            second.append(1)
            with pytest.raises(ToolError, match="is in use by another campaign: wait for its end, or name another"):
                run(tmp_path)

    run(tmp_path, progress=progress)
    assert second


KILLED = """
import sys, time
from pathlib import Path
from ptewalk.cosim.base.results import Counts
from ptewalk.cosim.campaigns.kinds import KINDS, Kind
from ptewalk.cosim.campaigns.plan import Part, Plan
from ptewalk.cosim.campaigns.run import in_processes, run_campaign
from ptewalk.cosim.campaigns.told import Told
from ptewalk.cosim.checks.minima import DISCRIMINATING

def work(chunk):
    time.sleep(0.02)
    return Told(Counts.of(chunk.size, cubes=chunk.number**3))

KINDS["walks"] = Kind("walks", 10, lambda options: (work, "a model"))
plan = Plan("mine", "mine.toml", (Part("w", "walks", 7995, 7, {}),))
run_campaign(plan, Path(sys.argv[1]), in_processes(3), repeat=lambda *_: "")
"""


@pytest.mark.thorough
def test_killed_five_times_it_has_the_same_result(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run([*command, str(whole)], check=True, timeout=100)
    rng, kept = random.Random(5), []
    for _ in range(5):
        with subprocess.Popen([*command, str(killed)]) as child:
            journal, end = killed / "chunks.jsonl", time.monotonic() + 60
            before = len(journal.read_bytes()) if journal.exists() else 0
            while time.monotonic() < end and (not journal.exists() or len(journal.read_bytes()) <= before + 200):
                time.sleep(0.005)
            time.sleep(rng.random() / 4)
            child.kill()
        kept.append(len(journal.read_text().splitlines()))
    assert kept == sorted(kept) and 1 < kept[0] < kept[-1] < 801
    subprocess.run([*command, str(killed)], check=True, timeout=100)
    assert (killed / "result.json").read_bytes() == (whole / "result.json").read_bytes()


def test_a_command_is_a_chunk(tmp_path: Path) -> None:
    def one(words: list[str]) -> dict[str, Any]:
        part = Part("c", "command", 1, 7, {"run": words})
        asked = Plan("mine", "mine.toml", (part,))
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return run_campaign(asked, folder, in_processes(2), repeat=lambda *_: "again")

    told = one(["python", "-c", 'print(\'{"comparisons": 12, "mismatches": 0}\')'])
    assert (told["comparisons"], told["mismatches"], told["failures"]) == (12, 0, [])
    told = one(["ptewalk", "--version"])
    assert (told["comparisons"], told["failures"]) == (1, [])
    told = one(["ptewalk", "replay", "nosuch.jsonl"])
    assert told["mismatches"] == 1 and "c, chunk 0: ptewalk replay nosuch.jsonl: exit code 2\n" in told["failures"][0]
    with pytest.raises(ToolError, match="run begins with 'rm': choose of ptewalk, pytest, python"):
        one(["rm"])
