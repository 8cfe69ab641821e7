"""A step of cocotb's runner in a process of its own: `python -m ptewalk.cosim.simulate.step FILE`.

The runner reads the environment, prints, and exits; so each step runs in a child whose environment, output, time and
end its parent controls.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.places import plain, plain_python
from ptewalk.cosim.base.processes import told_of_parents_end
from ptewalk.cosim.simulate.find import Simulator

__all__ = ["PROGRAMS", "end_steps", "run_command", "run_step"]

_FOREIGN: Final = (
    "COCOTB_",
    "GPI_",
    "MAKE",
    "MFLAGS",
    "PYTEST_",
    "PTEWALK_JOB",
    "PTEWALK_DESIGN",
    "WAVES",
    "GUI",
    "SIM_CMD",
)
"""Beginnings of the environment variables that would change what a step does."""
PROGRAMS: Final = "programs"
"""Name of the folder, in a step's own, whose programs it finds first."""
_running: Final[set[subprocess.Popen[bytes]]] = set()
_ended: Final[set[subprocess.Popen[bytes]]] = set()


def end_steps() -> None:
    """End the steps that other threads run: theirs is then a `KeyboardInterrupt`."""
    for child in list(_running):
        _ended.add(child)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def run_step(
    simulator: Simulator,
    step: str,
    arguments: Mapping[str, Any],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout: float | None,
) -> int | None:
    """Run `build` or `test` of cocotb's runner for `simulator`, with `arguments` for its method; see `run_command`."""
    job = folder / f"{step}.json"
    job.write_text(json.dumps({"simulator": simulator.name, "step": step, "arguments": dict(arguments)}))
    command = [plain_python(), "-m", "ptewalk.cosim.simulate.step", str(job)]
    return run_command(simulator, command, folder=folder, environment=environment, log=log, timeout=timeout)


def run_command(
    simulator: Simulator,
    command: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    log: Path,
    timeout: float | None,
) -> int | None:
    """Run a program that calls a simulator.

    Parameters
    ----------
    simulator : Simulator
        Its program alone is seen by the command as `verilator` or `iverilog`.
    command : sequence of str
    folder : Path
        A folder of this command's own.
    environment : mapping
        Variables added to this process's own.
    log : Path
        Takes all that is printed.
    timeout : float or None
        Seconds of wall-clock time, after which the command and all it started are ended.

    Returns
    -------
    int or None
        The exit status; None when the time was up.

    Raises
    ------
    KeyboardInterrupt
        Also in a thread, when `end_steps` ended it.
    """
    programs = folder / PROGRAMS
    programs.mkdir(parents=True, exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    direct = list(command)
    if simulator.name == "verilator":
        shim = programs / "verilator"
        root = f"VERILATOR_ROOT='{simulator.root}' " if simulator.root else ""
        shim.write_text(f"#!/bin/sh\n{root}exec '{simulator.program}' \"$@\"\n")
        shim.chmod(0o755)
        if direct[0] == str(simulator.program):
            direct[0] = str(shim)
        if simulator.root:
            variables.pop("VERILATOR_ROOT", None)
    else:
        programs = simulator.program.parent
    variables |= environment
    variables["PATH"] = os.pathsep.join([str(programs), variables.get("PATH", os.defpath)])
    with log.open("wb") as output:
        child = subprocess.Popen(
            direct,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a process group of its own, so that all it starts can be ended with it
        )
        _running.add(child)
        try:
            status = child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _running.discard(child)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    if child in _ended:
        _ended.discard(child)
        raise KeyboardInterrupt
    return status


def _end_with_parent() -> None:
    """Have this step and its simulator end when the process that started the step has ended, however it did."""
    if told_of_parents_end(signal.SIGTERM):
        signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))  # its own group: see `run_command`


def main() -> None:
    """Do the step that the file named on the command line describes."""
    _end_with_parent()
    from cocotb_tools import config
    from cocotb_tools.runner import get_runner

    for name in ("share_dir", "libs_dir"):  # cocotb follows the link that `plain_python` goes through
        setattr(config, name, plain(getattr(config, name)))
    job = json.loads(Path(sys.argv[1]).read_text())
    runner = get_runner(job["simulator"])
    getattr(runner, job["step"])(**job["arguments"])


if __name__ == "__main__":
    main()
