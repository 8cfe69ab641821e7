"""Simulator models built from Verilog, and kept by a hash of everything that goes into them."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import CACHE_VARIABLE, locked
from ptewalk.cosim.base.places import plain_python, spaceless_folder
from ptewalk.cosim.simulate import cxxrtl
from ptewalk.cosim.simulate.find import COMPILED, Simulator, compiler_version, compilers
from ptewalk.cosim.simulate.step import run_command, run_step
from ptewalk.rtl.description import DesignDescription

__all__ = ["BuildDir", "build", "build_library"]

BUILD_TIMEOUT: Final = 900.0
"""Seconds of wall-clock time that a build may take."""

CACHE_LIMIT: Final = 2 << 30
"""Bytes that built models may take; beyond it the longest unused go."""

DESIGN: Final = "design.json"
"""Name of the description of a design in a build's folder."""
LIBRARY: Final = "libptewalk.so"
_SOURCE: Final = "design.v"
_DESCRIPTION: Final = "build.json"
_LOG: Final = "build.log"
# Only the model and the batch level are worth optimising; the runtime is most of the compile time.
_OPTIMISATION: Final = ("OPT_FAST=-O3", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1")
_VERILATOR_FLAGS: Final = ("-Wno-fatal", "-Werror-ALWNEVER", "-O3", "--x-assign", "fast", "--x-initial", "fast")


@dataclass(frozen=True)
class BuildDir:
    """A built model.

    Attributes
    ----------
    path : Path
        Its folder, which is not to be changed.
    simulator : Simulator
        What built it.
    toplevel : str
        Name of its top module.
    design : DesignDescription or None
        What it was built of; None for a module that nobody described. It is design.json in the folder, too.
    batch : bool
        True: it has the batch level.
    batch_trouble : str
        Why not, when it was asked for; else "".
    waves : bool
        True: a run can record waves, and every signal is visible.
    seconds : float
        Wall-clock time that the build took.
    cached : bool
        True: it was there already.
    """

    path: Path
    simulator: Simulator
    toplevel: str
    design: DesignDescription | None
    batch: bool
    batch_trouble: str
    waves: bool
    seconds: float
    cached: bool

    @property
    def verilog(self) -> str:
        """What it was built of."""
        return (self.path / _SOURCE).read_text()

    @property
    def library(self) -> Path:
        """The model as a library, where `build_library` made it."""
        return self.path / LIBRARY


def build(
    simulator: Simulator,
    verilog: str,
    toplevel: str,
    *,
    design: DesignDescription | None = None,
    lane: Mapping[str, str] | None = None,
    waves: bool = False,
    parameters: dict[str, int] | None = None,
) -> BuildDir:
    """Build a model of `verilog` for cocotb, or find the one that was built before.

    Parameters
    ----------
    simulator : Simulator
        From `select`.
    verilog : str
        Verilog text.
    toplevel : str
        Name of the top module.
    design : DesignDescription, optional
        Its ports: cocotb then sees them and nothing else, which is faster. Without it every signal is visible.
    lane : mapping of str to str, optional
        The files of the batch level (`bench.headers.lane_files`). Where it cannot be had (Icarus, another version of
        Verilator, `waves`) the model is built without it, and `BuildDir.batch_trouble` says why.
    waves : bool
        Make recording waves possible, at a cost in speed.
    parameters : dict of str to int, optional
        Parameters of the top module.

    Returns
    -------
    BuildDir

    Raises
    ------
    ToolError
        The text cannot be built; names the first error and the log. The simulator is CXXRTL.
    """
    if simulator.name == "cxxrtl":
        raise ToolError("CXXRTL has no cocotb, which this needs: give --simulator verilator or icarus, or leave it out")
    trouble = ""
    if lane and not simulator.can_batch:
        trouble = f"not tried with {simulator.name} {simulator.version_text}"
    elif lane and waves:
        trouble = "a batch leaves no waves"
    job = _Job(simulator, verilog, toplevel, design, None if trouble else lane, waves, parameters or {}, False)
    return _kept(job, trouble)


def build_library(simulator: Simulator, source: str, design: DesignDescription, lane: Mapping[str, str]) -> BuildDir:
    """Build the compiled lane with a model of `source` as a library for `bench.lane.VerilatorLane`, or find it.

    Parameters
    ----------
    simulator : Simulator
        Verilator, or CXXRTL.
    source : str
        Verilog text; RTLIL for CXXRTL.
    design : DesignDescription
    lane : mapping of str to str
        Name to text of the files of a lane.

    Raises
    ------
    ToolError
        The simulator makes no libraries, or the text cannot be built.
    """
    if simulator.name not in COMPILED:
        raise ToolError(f"a model as a library needs Verilator or CXXRTL, not {simulator.name}")
    return _kept(_Job(simulator, source, design.top, design, lane, False, {}, True), "")


@dataclass(frozen=True)
class _Job:
    """What is to be built."""

    simulator: Simulator
    source: str
    toplevel: str
    design: DesignDescription | None
    lane: Mapping[str, str] | None
    waves: bool
    parameters: dict[str, int]
    library: bool

    @property
    def source_name(self) -> str:
        """Of the file that has the source."""
        return cxxrtl.RTLIL if self.simulator.name == "cxxrtl" else _SOURCE

    def key(self) -> str:
        """Hash of all that goes into the model."""
        tools, simulator = compilers(), self.simulator
        parts = [
            self.source,
            self.toplevel,
            json.dumps(self.design.as_json() if self.design else None),
            json.dumps(dict(self.lane or {})),
            Path(__file__).read_text(),
            Path(cxxrtl.__file__).read_text(),
            repr((self.waves, sorted(self.parameters.items()), self.library)),
            f"{simulator.name} {simulator.version_text} {simulator.program}",
            compiler_version(tools["g++"]) if tools["g++"] else "",
            f"cocotb {importlib.metadata.version('cocotb')}, Python {platform.python_version()} at {sys.prefix}",
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _kept(job: _Job, trouble: str) -> BuildDir:
    """The model of a job, from the cache or built into it."""
    simulator, cache = job.simulator, spaceless_folder()
    kind = simulator.name if simulator.name == "cxxrtl" or not job.library else "library"
    target = cache / f"{job.toplevel}-{kind}-{job.key()}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{target.name}.lock"):
            cached = (target / _DESCRIPTION).is_file()
            if cached:
                os.utime(target)
            else:
                _build_into(target, job)
                trim(cache, keep=target)
    except OSError as error:
        raise ToolError(f"{cache}: {error.strerror}; set {CACHE_VARIABLE} to a folder that can be written") from error
    description = json.loads((target / _DESCRIPTION).read_text())
    return BuildDir(
        path=target,
        simulator=simulator,
        toplevel=job.toplevel,
        design=job.design,
        batch=description["batch"],
        batch_trouble=trouble or description["batch_trouble"],
        waves=job.waves,
        seconds=description["seconds"],
        cached=cached,
    )


def cached_models(cache: Path) -> list[tuple[float, int, Path]]:
    """The built models of a cache: (time of last use, bytes, folder), longest unused first."""
    found = []
    for description in cache.glob(f"*/{_DESCRIPTION}"):
        folder = description.parent
        with suppress(FileNotFoundError):  # another process has just removed it
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            found.append((folder.stat().st_mtime, size, folder))
    return sorted(found)


def trim(cache: Path, *, keep: Path, limit: int = CACHE_LIMIT) -> None:
    """Remove models, the longest unused first, until the cache takes at most `limit` bytes; `keep` stays."""
    models = cached_models(cache)
    total = sum(size for _, size, _ in models)
    for _, size, folder in models:
        if total <= limit:
            break
        if folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_name(f"{folder.name}.lock").unlink(missing_ok=True)
            total -= size


def _build_into(target: Path, job: _Job) -> None:
    """Build in a folder beside `target`, and give it that name when it is whole."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (folder / job.source_name).write_text(job.source)
        trouble = ""
        failure = _attempt(folder, job)
        if failure and job.lane and not job.library:
            job, trouble = replace(job, lane=None), failure
            failure = _attempt(folder, job)
        if failure:
            log = target.with_name(f"{target.name}.log")
            shutil.copy(folder / _LOG, log)
            raise ToolError(f"{job.simulator.name} cannot build {job.toplevel}: {failure} (log: {log})")
        whole = folder / "whole"
        whole.mkdir()
        model = LIBRARY if job.library else "sim.vvp" if job.simulator.name == "icarus" else job.toplevel
        for name in (f"model/{model}", job.source_name, _LOG):
            shutil.move(folder / name, whole)
        if job.design:
            (whole / DESIGN).write_text(json.dumps(job.design.as_json()))
        description = {"batch": bool(job.lane), "batch_trouble": trouble, "seconds": time.monotonic() - started}
        (whole / _DESCRIPTION).write_text(json.dumps(description))
        whole.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _attempt(folder: Path, job: _Job) -> str:
    """Build once, into `folder`/model; the reason when it fails, else ""."""
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    for name, text in (job.lane or {}).items():
        (folder / name).write_text(text)
    environment = {"TMPDIR": str(folder)}  # what a compiler that is ended leaves behind goes with the folder
    if job.simulator.name == "verilator":
        environment["MAKEFLAGS"] = " ".join(_make_variables(job.simulator))
    log = folder / _LOG
    common: dict[str, Any] = {"folder": folder, "environment": environment, "log": log, "timeout": BUILD_TIMEOUT}
    if job.simulator.name == "cxxrtl":
        assert job.design is not None
        status = cxxrtl.compile_library(job.simulator, job.design, folder, model / LIBRARY, common)
    elif job.library:
        status = run_command(job.simulator, _library_command(folder, job), **common)
    else:
        status = run_step(job.simulator, "build", _runner_arguments(folder, job), **common)
    if status == 0:
        return ""
    return f"not done in {BUILD_TIMEOUT:.0f} s" if status is None else _first_error(log.read_text(errors="replace"))


def _runner_arguments(folder: Path, job: _Job) -> dict[str, Any]:
    """What cocotb's runner is given to build."""
    sources = [str(folder / _SOURCE)]
    flags: list[str] = []
    if job.simulator.name == "verilator":
        flags += _VERILATOR_FLAGS
        if job.design and not job.waves:
            visible = folder / "visible.vlt"
            visible.write_text(_visible_ports(job.design, job.toplevel))
            sources.append(str(visible))
            flags.append("--no-public-flat-rw")
        if job.lane:
            flags += [str(folder / "lane.cpp"), "-LDFLAGS", "-rdynamic"]
    return {
        "sources": sources,
        "hdl_toplevel": job.toplevel,
        "build_dir": str(folder / "model"),
        "build_args": flags,
        "parameters": job.parameters,
        "timescale": ("1ns", "1ps"),
        "waves": job.waves,
        "always": True,
    }


def _library_command(folder: Path, job: _Job) -> list[str]:
    """Verilator's command for a model as a library."""
    flags = ["--cc", "--exe", "--build", *_VERILATOR_FLAGS, "--timescale", "1ns/1ps", "--prefix", "Vtop"]
    flags += ["--Mdir", str(folder / "model"), "-o", LIBRARY, "--top-module", job.toplevel]
    flags += ["-CFLAGS", "-fPIC -DPTEWALK_LIBRARY -DVL_TIME_CONTEXT", "-LDFLAGS", "-shared"]
    return [str(job.simulator.program), *flags, str(folder / _SOURCE), str(folder / "lane.cpp")]


def _make_variables(simulator: Simulator) -> list[str]:
    """Variables that the makefiles of a Verilator model take."""
    tools = compilers()
    variables = [*_OPTIMISATION, f"PYTHON3={plain_python()}"]
    if tools["ccache"]:
        variables.append(f"OBJCACHE={tools['ccache']}")
    if simulator.root:
        # The package's makefiles name the compiler of the machine that it was built on.
        # Large models, such as those with waves, have a precompiled header, which g++ takes by -include.
        variables += ["CXX=g++", "LINK=g++", "AR=ar", "CFG_CXXFLAGS_PCH_I=-include"]
    return variables


def _visible_ports(design: DesignDescription, toplevel: str) -> str:
    """A Verilator control file that lets cocotb see the top's ports and nothing else."""
    lines = [
        f'public_flat_{"rw" if port.direction == "input" else "rd"} -module "{toplevel}" -var "{port.name}"'
        for port in design.ports
    ]
    return "\n".join(["`verilator_config", *lines, ""])


def _first_error(log: str) -> str:
    """The first line of a log that tells of an error; the last line when none does."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in lines:
        if re.search(r"%Error|\berror:|syntax error|No space left", line):
            return line
    return lines[-1] if lines else "it printed nothing"
