"""A part of a campaign that is a command: of ptewalk, or of Python's tools beside it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.processes import told_of_parents_end
from ptewalk.cosim.base.results import Counts, Failure
from ptewalk.cosim.campaigns.told import Told, Work
from ptewalk.cosim.runs.workers import Chunk

__all__ = ["open_command"]

_PROGRAMS: Final = {
    "ptewalk": ("-c", "from ptewalk.cosim.cli.start import start; start()"),
    "pytest": ("-m", "pytest"),
    "python": (),
}
"""First word of a command to what Python is called with."""
_LAST: Final = 15
"""Lines of a failed command's output that are kept."""


def open_command(options: Mapping[str, Any]) -> tuple[Work, str]:
    """A command; it passes where its exit code is 0."""
    words: list[str] = options["run"]
    if words[0] not in _PROGRAMS:
        raise ToolError(f"run begins with {words[0]!r}: choose of {', '.join(_PROGRAMS)}")
    command = [sys.executable, *_PROGRAMS[words[0]], *words[1:]]

    def work(_: Chunk) -> Told:
        return _run(words, command)

    return work, " ".join(words)


def _run(words: Sequence[str], command: Sequence[str]) -> Told:
    """Run it to its end; a Ctrl-C goes to it, too, and is waited for."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=lambda: told_of_parents_end(signal.SIGINT),  # as by Ctrl-C
    ) as child:
        output = child.communicate()[0]
    lines = output.strip().splitlines()
    compared, differ = _counted(lines)
    if child.returncode == 0:
        return Told(Counts.of(compared, differ))
    last = "\n".join([f"{' '.join(words)}: exit code {child.returncode}", *lines[-_LAST:]])
    return Told(Counts.of(compared, max(1, differ), failures=[Failure(last)]))


def _counted(lines: Sequence[str]) -> tuple[int, int]:
    """Comparisons that a command with --json tells, and mismatches; 1 and 0 where it tells nothing."""
    for line in lines:
        try:
            told = json.loads(line)
        except ValueError:
            continue
        if isinstance(told, dict) and isinstance(told.get("comparisons"), int):
            return told["comparisons"], int(told.get("mismatches", 0))
        if isinstance(told, dict) and isinstance(told.get("agree"), int):
            differ = int(told.get("differ", 0))
            return told["agree"] + differ, differ
    return 1, 0
