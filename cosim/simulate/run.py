"""Runs of a built model: a cocotb test in a process of its own, values and arrays in, values and arrays out.

`run_test` is called outside the simulator; `Job` is what the test module uses inside it.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.simulate.build import DESIGN, BuildDir
from ptewalk.cosim.simulate.step import PROGRAMS, run_step
from ptewalk.cosim.simulate.waves import FIELDS, name_values

__all__ = ["Job", "RunResult", "TestOutcome", "run_test"]

JOB_VARIABLE: Final = "PTEWALK_JOB"
DESIGN_VARIABLE: Final = "PTEWALK_DESIGN"
"""Environment variable of a simulation: the design.json of what is simulated."""
WAVES: Final = "dump.vcd"
"""Name of the waves in the folder of a run."""
_LOG: Final = "simulation.log"
_RESULTS: Final = "results.xml"
_OWN: Final = ("in.json", "in.npz", "out.json", "out.npz", "test.json", _LOG, _RESULTS, WAVES)
"""Files of a run, in its folder."""
_LOG_TAIL: Final = 20  # lines


class Job:
    """What a test was given, and where it puts its results; for use inside the simulator.

    Attributes
    ----------
    values : dict
        The `values` of `run_test`.
    arrays : dict of str to array
        The `arrays` of `run_test`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.values: dict[str, Any] = json.loads((folder / "in.json").read_text())
        self.arrays = _load_arrays(folder / "in.npz")

    @staticmethod
    def current() -> Job:
        """The job of this simulator; RuntimeError when `run_test` did not start it."""
        folder = os.environ.get(JOB_VARIABLE)
        if folder is None:
            raise RuntimeError("this test must be started by ptewalk.cosim.simulate.run.run_test")
        return Job(Path(folder))

    def publish(
        self, values: Mapping[str, Any] | None = None, arrays: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        """Give results back: `values` must be fit for JSON. A second call replaces the first."""
        (self._folder / "out.json").write_text(json.dumps(dict(values or {})))
        np.savez(self._folder / "out.npz", **dict(arrays or {}))  # type: ignore[arg-type]


@dataclass(frozen=True)
class TestOutcome:
    """One cocotb test: its name, whether it passed, and the message of its failure, "" when it passed."""

    __test__ = False  # not a test of pytest's

    name: str
    passed: bool
    message: str


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Attributes
    ----------
    tests : tuple of TestOutcome
        At least one.
    values : dict
        What the test published.
    arrays : dict of str to array
        What the test published.
    waves : Path or None
        The recorded waves, VCD; beside each signal with named values, NAME_name has the names.
    log : Path or None
        What the simulator printed; None when its folder was temporary.
    seconds : float
        Wall-clock time of the simulator, its start included.
    """

    tests: tuple[TestOutcome, ...]
    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    waves: Path | None = None
    log: Path | None = None
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """True: every test passed."""
        return all(test.passed for test in self.tests)

    @property
    def message(self) -> str:
        """The failures' messages, one under the other; "" when there is none."""
        return "\n".join(f"{test.name}: {test.message}" for test in self.tests if not test.passed)


def run_test(
    build: BuildDir,
    test_module: str,
    *,
    testcase: str | None = None,
    values: Mapping[str, Any] | None = None,
    arrays: Mapping[str, NDArray[Any]] | None = None,
    folder: Path | None = None,
    module_path: Path | None = None,
    waves: bool | None = None,
    seed: int = 0,
    timeout: float | None = 600.0,
) -> RunResult:
    """Run the cocotb tests of a module in a simulator process.

    Parameters
    ----------
    build : BuildDir
        The model; with `waves` it must have been built for it.
    test_module : str
        Import name, for example "ptewalk.cosim.runs.inside.tb_walker".
    testcase : str, optional
        One test of it; all by default.
    values : mapping, optional
        Handed to the test as `Job.values`; fit for JSON.
    arrays : mapping of str to array, optional
        Handed to the test as `Job.arrays`.
    folder : Path, optional
        Where the run's files stay, unless it is interrupted; a temporary folder by default, which stays only when
        something failed.
    module_path : Path, optional
        Folder where `test_module` is looked for, beside the installed packages.
    waves : bool, optional
        Record waves; needs `folder`. By default it does where there is a folder, and the model was built for it.
    seed : int
        Cocotb's random seed.
    timeout : float or None
        Seconds of wall-clock time.

    Returns
    -------
    RunResult
        Failed tests are results: see `RunResult.passed`.

    Raises
    ------
    ToolError
        The simulator ended without results, ran no test, or was ended after `timeout`; names the log, shows its end.
    ValueError
        `waves` without `folder`, or of a model that was built without.
    """
    if waves is None:
        waves = build.waves and folder is not None
    if waves and (folder is None or not build.waves):
        raise ValueError("waves need a folder to stay in, and a model that was built with waves=True")
    kept = folder is not None
    # Absolute: the simulator has a working folder of its own.
    folder = Path(tempfile.mkdtemp(prefix="ptewalk-run-")) if folder is None else folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in ("out.json", "out.npz", _RESULTS):
        (folder / stale).unlink(missing_ok=True)
    (folder / "in.json").write_text(json.dumps(dict(values or {})))
    np.savez(folder / "in.npz", **dict(arrays or {}))  # type: ignore[arg-type]
    recorded = folder / WAVES
    started = time.monotonic()
    try:
        status = run_step(
            build.simulator,
            "test",
            {
                "test_module": test_module,
                "testcase": testcase,
                "hdl_toplevel": build.toplevel,
                "hdl_toplevel_lang": "verilog",
                "build_dir": str(build.path),
                "test_dir": str(folder),
                "results_xml": str(folder / _RESULTS),
                "plusargs": [f"+dumpfile_path={recorded}"] if build.simulator.name == "icarus" and waves else [],
                "waves": waves,
                "seed": seed,
            },
            folder=folder,
            environment={JOB_VARIABLE: str(folder), DESIGN_VARIABLE: str(build.path / DESIGN)}
            | ({"PYTHONPATH": str(module_path)} if module_path else {})
            | ({"SIM_CMD_SUFFIX": "-vcd"} if build.simulator.name == "icarus" and waves else {}),  # else it is FST
            log=folder / _LOG,
            timeout=timeout,
        )
    except KeyboardInterrupt:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            for name in _OWN:
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / PROGRAMS, ignore_errors=True)
        raise
    seconds = time.monotonic() - started
    tests = _tests(folder / _RESULTS)
    if status is None:
        raise _error(f"was ended after {timeout:g} s", build, folder)
    if not tests:
        raise _error(f"ended with status {status} and without results", build, folder)
    if waves:
        name_values(recorded, build.verilog, fields=FIELDS if build.design else None)
    result = RunResult(
        tests=tests,
        values=json.loads((folder / "out.json").read_text()) if (folder / "out.json").exists() else {},
        arrays=_load_arrays(folder / "out.npz"),
        waves=recorded if waves else None,
        log=folder / _LOG if kept or not all(test.passed for test in tests) else None,
        seconds=seconds,
    )
    if result.log is None:
        shutil.rmtree(folder, ignore_errors=True)
    return result


def _error(what: str, build: BuildDir, folder: Path) -> ToolError:
    log = folder / _LOG
    tail = log.read_text(errors="replace").splitlines()[-_LOG_TAIL:]
    return ToolError("\n".join([f"{build.simulator.name} {what} (log: {log}); the log ends:", *tail]))


def _tests(path: Path) -> tuple[TestOutcome, ...]:
    """The tests in cocotb's result file; none when there is no whole file."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return ()
    outcomes = []
    for case in root.iter("testcase"):
        if case.find("skipped") is not None:
            continue
        trouble = next((child for child in case if child.tag in ("failure", "error")), None)
        message = (
            "" if trouble is None else trouble.get("message") or trouble.get("error_msg") or trouble.text or "failed"
        )
        outcomes.append(TestOutcome(case.get("name", ""), trouble is None, message))
    return tuple(outcomes)


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}
