"""Workloads on the gateware, or the model, and on a real kernel: how much was compared, and how much differs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.programs.against import Watcher, ask_linux, compare
from ptewalk.cosim.programs.epochs import Every
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.walkers import Walker
from ptewalk.cosim.programs.workloads import OWN, Workload
from ptewalk.model.linux import Track
from ptewalk.model.memory import FixedMemory

__all__ = ["COLUMNS", "EPOCHS", "against_row"]

COLUMNS: Final = ("workload", "profile", "kernel", "epochs", "areas", "pages", "entries", "calls", "differ")
EPOCHS: Final = {
    **dict.fromkeys(("sort", "awk", "sha256sum", "gzip -d", "gzip"), Every("syscalls", 1)),
    "sqlite3": Every("syscalls", 2),
    "python3": Every("syscalls", 8),
    **dict.fromkeys(OWN, Every("marker")),
}
"""Workload of one process to when its epochs end: a real kernel cannot count instructions."""


def against_row(
    workload: Workload,
    folder: Path,
    settings: Settings,
    walker: Callable[[FixedMemory], Walker],
    kernel: str | None,
    *,
    small: bool,
) -> tuple[dict[str, Any], list[str]]:
    """A row of `COLUMNS`, and what differs, in words.

    Parameters
    ----------
    folder : Path
        What `workloads.prepare` filled.
    settings : Settings
        Profile, track and seed.
    kernel : str or None
        As `find_kernel` takes it.

    Raises
    ------
    ToolError
        The program cannot run, here or there.
    """
    command = workload.argv(folder, small=small)
    chosen = replace(settings, epoch=EPOCHS[workload.name]).with_environment(["PYTHONHASHSEED=0"])
    out, errors = io.BytesIO(), io.BytesIO()
    with ProgramRun(chosen, walker, stdin=io.BytesIO(), stdout=out, stderr=errors) as running:
        watcher = Watcher(running)
        running.start(command[0], command[1:])
        watcher.status = running.run()
        answered = ask_linux(running, watcher, command, kernel)
    entries = chosen.track == Track.OFF
    found = compare(watcher, (out.getvalue(), errors.getvalue()), answered, entries=entries).as_json()
    row = {"workload": workload.name, "profile": chosen.profile.name, "differ": sum(found["differ"].values())}
    row |= {name: found[name] for name in COLUMNS if name in found and name != "differ"}
    return {name: row[name] for name in COLUMNS}, found["differences"]
