"""A campaign on a Dask scheduler: the result of one machine's processes, whoever dies."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.campaigns.dask import on_scheduler
from ptewalk.cosim.campaigns.plan import Plan, read_plan
from ptewalk.cosim.campaigns.run import Executor, in_processes, run_campaign

PLAN = '[[part]]\nname = "s"\nkind = "scenarios"\ncount = 250\n'


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's, until the end of the block."""
    with subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def free_port() -> int:
    with socket.socket() as there:
        there.bind(("127.0.0.1", 0))
        port: int = there.getsockname()[1]
        return port


@contextmanager
def scheduler() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A scheduler: address and process."""
    port = free_port()
    where = ("--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--no-jupyter")
    with started("distributed.cli.dask_scheduler", *where) as child:
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)
        yield f"tcp://127.0.0.1:{port}", child


def worker(address: str) -> Any:
    return started("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    (tmp_path / "mine.toml").write_text(f"seed = 7\n{PLAN}")
    return read_plan(str(tmp_path / "mine.toml"))


def run(plan: Plan, folder: Path, execute: Executor, **options: Any) -> dict[str, Any]:
    return run_campaign(plan, folder, execute, repeat=lambda *_: "again", **options)


@pytest.mark.slow
def test_a_worker_that_dies_and_a_scheduler_that_goes_away(plan: Plan, tmp_path: Path) -> None:
    """Killed are: a worker at work, and then the scheduler; processes here do the rest, with the same result."""
    whole = run(plan, tmp_path / "whole", in_processes(2))
    assert whole["comparisons"] > 2_000 and not whole["failures"]
    folder = tmp_path / "spread"
    with scheduler() as (address, process), worker(address) as first, worker(address):

        def progress(done: int, total: int, compared: int) -> None:
            if done == 1:
                first.send_signal(signal.SIGKILL)
            if done == 5:
                process.send_signal(signal.SIGKILL)

        with pytest.raises(ToolError, match=r"^tcp://127\.0\.0\.1:\d+: the scheduler went away; what was done is kept"):
            run(plan, folder, on_scheduler(address), progress=progress)
    lines = (folder / "chunks.jsonl").read_text().splitlines()
    assert 6 <= len(lines) <= 8  # the campaign, five chunks, and those that came at the same time
    ran: list[int] = []
    assert run(plan, folder, in_processes(1), progress=lambda done, *_: ran.append(done)) == whole
    assert ran[0] == len(lines) - 1
    assert json.loads((folder / "result.json").read_text()) == whole


@pytest.mark.slow
def test_nobody_answers(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptewalk.cosim.campaigns.dask._PATIENCE", 1.0)
    with pytest.raises(ToolError, match=r"^tcp://127\.0\.0\.1:\d+: no scheduler answers \(.*start one with 'dask sch"):
        run(plan, tmp_path / "x", on_scheduler(f"tcp://127.0.0.1:{free_port()}"))
