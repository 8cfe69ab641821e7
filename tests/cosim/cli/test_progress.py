"""Commands show how far they are on a terminal, and say nothing of it elsewhere."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ptewalk.cosim.cli.common import counted
from ptewalk.cosim.formats.samples import KERNELS, WALKS

COMMANDS = {
    "walks": ["walks", str(WALKS), "--limit", "300"],
    "scenarios": ["replay", str(KERNELS["linux-6.1"]), "--profile", "linux-6.1"],
}


def run(arguments: list[str], *, terminal: bool) -> tuple[int, str]:
    """Exit code, and what was written to standard error."""
    command = [str(Path(sys.executable).with_name("ptewalk")), *arguments, "--json"]
    if not terminal:
        ended = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return ended.returncode, ended.stderr
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=theirs, env={**os.environ, "TERM": "xterm"}
    ) as child:
        os.close(theirs)
        seen = b""
        while True:
            try:
                more = os.read(ours, 1 << 16)
            except OSError:  # Linux's end of a terminal
                break
            if not more:
                break
            seen += more
    os.close(ours)
    return child.returncode, seen.decode(errors="replace")


@pytest.mark.slow
@pytest.mark.parametrize("what", COMMANDS)
def test_progress_on_a_terminal_alone(what: str) -> None:
    code, shown = run(COMMANDS[what], terminal=True)
    assert code == 0 and what in shown and "%" in shown
    assert run(COMMANDS[what], terminal=False) == (0, "")


def test_counted() -> None:
    told: list[tuple[int, int]] = []
    assert list(counted(range(150), 60, 210, lambda done, total: told.append((done, total)))) == list(range(150))
    assert told == [(100, 210), (200, 210)]
