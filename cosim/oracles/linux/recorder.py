"""Record what a real kernel answers to scenarios: `ptewalk record`.

Example
-------
::

    from ptewalk.cosim.oracles.linux.recorder import read_requests, record

    done = record(read_requests(Path("scenarios.jsonl")), Path("answers.jsonl.gz"), kernel="6.12")
    print(done.scenarios, done.steps)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import write_lines
from ptewalk.cosim.formats.scenarios import Line, ScenarioRequest, as_request
from ptewalk.cosim.oracles.linux.image import AGENT_SOURCE, GuestKernel
from ptewalk.cosim.oracles.linux.kernels import find_kernel, missing_packages
from ptewalk.cosim.oracles.linux.machine import LinuxMachines, require_tools
from ptewalk.cosim.oracles.linux.operations import ScenarioError
from ptewalk.model.scenario.format import FormatError, read

__all__ = [
    "Recording",
    "identity",
    "read_requests",
    "record",
]


@dataclass(slots=True)
class Recording:
    """What `record` did."""

    kernel: str
    scenarios: int = 0
    steps: int = 0
    resumed: int = 0
    """Scenarios taken over from an interrupted run."""
    failures: list[tuple[str, str]] = field(default_factory=list)
    """(scenario, why) of those that have no answer; always empty unless keep_going."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know of the machine: that it had no swap."""


def read_requests(path: Path) -> list[ScenarioRequest]:
    """The scenarios of a file in the scenario format, with or without answers.

    Raises
    ------
    ToolError
        The file is missing, cut off or malformed: names file and line.
    """
    try:
        scenarios = read(path)
    except FormatError as error:
        raise ToolError(str(error)) from error
    return [as_request(found) for found in scenarios]


class _Journal:
    """The answers of a run that may be interrupted: one line for each scenario, beside the output."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        self.done: dict[int, list[Line]] = {}
        if path.exists():
            first, *rest = path.read_text("utf-8", "replace").splitlines() or [""]
            if first == identity:
                for line in rest:
                    try:
                        index, lines = json.loads(line)
                    except ValueError:
                        break
                    self.done[index] = lines
        try:
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise ToolError(f"{path}: {error.strerror}; name an output in a folder that can be written") from error
        self._file.write(identity + "\n")
        for index, lines in self.done.items():
            self.add(index, lines)

    def add(self, index: int, lines: list[Line]) -> None:
        """Keep the answer of scenario `index`."""
        self.done[index] = lines
        self._file.write(json.dumps([index, lines], separators=(",", ":")) + "\n")
        self._file.flush()

    def close(self, *, remove: bool) -> None:
        """End the journal; a finished run removes it, and so does one without an answer."""
        self._file.close()
        if remove or not self.done:
            self.path.unlink()


def identity(requests: Sequence[ScenarioRequest], kernel: GuestKernel) -> str:
    """What tells one run of `record` from another: a hash over scenarios, kernel and agent."""
    asked = [[r.name, r.doc, r.base, r.five_levels, r.thp_anon, r.files, r.ops] for r in requests]
    text = json.dumps(asked) + kernel.version
    return hashlib.sha256(text.encode() + AGENT_SOURCE.read_bytes()).hexdigest()


def _no_swap(kernel: GuestKernel) -> str:
    """Why nothing could be swapped out."""
    dropped = missing_packages(kernel)
    why = f"Debian's pool has dropped {' and '.join(dropped)}" if dropped else f"no modules found for {kernel.release}"
    return f"{why}: recorded without swap, so MADV_PAGEOUT moved nothing out"


def record(
    requests: Sequence[ScenarioRequest],
    out_path: Path,
    *,
    kernel: str | None = None,
    keep_going: bool = False,
    seconds: float = 60.0,
    progress: Callable[[int, int], None] | None = None,
    journal: Path | None = None,
) -> Recording:
    """Execute `requests` on a real kernel and write its answers to `out_path`, whole or not at all.

    An interrupted run leaves a journal beside `out_path`; the same call goes on from there.

    Parameters
    ----------
    requests : sequence of ScenarioRequest
        As `read_requests` gives them.
    out_path : Path
        .jsonl or .jsonl.gz.
    kernel : str or None
        As `find_kernel` takes it.
    keep_going : bool
        True: leave out scenarios that cannot be executed or that kill the guest, and list them in `Recording.failures`.
        False (default): such a scenario is a `ToolError` once the others are done; nothing is written.
    seconds : float
        Time limit of one operation in the guest.
    progress : callable or None
        Called with (scenarios done, scenarios) after each.
    journal : Path or None
        The journal's place, where the caller wants it to outlast the run; he removes it. None (default): beside
        `out_path`, and removed in the end.

    Raises
    ------
    ToolError
        As above, or the machine cannot be started.
    """
    require_tools()
    image = find_kernel(kernel)
    result = Recording(image.version)
    answers = _Journal(journal or out_path.with_name(out_path.name + ".journal"), identity(requests, image))
    result.resumed = len(answers.done)
    todo = sorted(set(range(len(requests))) - set(answers.done), key=lambda i: (*requests[i].needs, i))
    try:
        with LinuxMachines(image, seconds=seconds) as machines:
            for i in todo:
                try:
                    answers.add(i, machines.run(requests[i]))
                except ScenarioError as error:
                    result.failures.append((requests[i].name, str(error)))
                if progress is not None:
                    progress(len(answers.done) + len(result.failures), len(requests))
    except BaseException:
        answers.close(remove=False)
        raise
    if result.failures and not keep_going:
        answers.close(remove=False)
        name, why = result.failures[0]
        raise ToolError(f"{len(result.failures)} of {len(requests)} scenarios have no answer; the first: {name}: {why}")
    lines = [line for i in sorted(answers.done) for line in answers.done[i]]
    write_lines(out_path, lines)
    if any(line.get("swap") == "none" for line in lines):
        result.notes.append(_no_swap(image))
    answers.close(remove=journal is None)
    result.scenarios, result.steps = len(answers.done), len(lines) - len(answers.done)
    return result
