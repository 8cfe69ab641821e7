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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import CACHE_VARIABLE, locked
from ptewalk.cosim.base.places import plain_python, spaceless_folder
from ptewalk.cosim.simulate.find import Simulator, compiler_version, compilers
from ptewalk.cosim.simulate.step import run_step

__all__ = ["BuildDir", "build", "ports_of"]

BUILD_TIMEOUT: Final = 900.0
"""Seconds of wall-clock time that a build may take."""

CACHE_LIMIT: Final = 2 << 30
"""Bytes that built models may take; beyond it the longest unused go."""

_BATCH_SOURCE: Final = Path(__file__).parent.with_name("bench") / "lane.cpp"
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
    ports : dict of str to int
        Port name to width, in bits.
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
    ports: dict[str, int]
    batch: bool
    batch_trouble: str
    waves: bool
    seconds: float
    cached: bool


def ports_of(verilog: str, toplevel: str) -> dict[str, int]:
    """Port name to width in bits (0: a parameter says) of module `toplevel`; `ToolError` without that module."""
    return {name: width for _, name, width in _declarations(verilog, toplevel)}


def _declarations(verilog: str, toplevel: str) -> list[tuple[str, str, int]]:
    """(direction, name, width) of each port."""
    module = re.search(rf"^\s*module\s+\\?{re.escape(toplevel)}\b(.*?)^\s*endmodule", verilog, re.DOTALL | re.MULTILINE)
    if not module:
        raise ToolError(f"the Verilog text has no module {toplevel}; name its top module")
    declaration = r"\b(input|output)\s+(?:(?:wire|reg|logic)\b)?\s*(\[[^\]]*\])?\s*\\?([A-Za-z_]\w*)"
    found = []
    for direction, bounds, name in re.findall(declaration, module[1]):
        numbers = re.fullmatch(r"\[\s*(\d+)\s*:\s*(\d+)\s*\]", bounds)
        found.append((direction, name, int(numbers[1]) - int(numbers[2]) + 1 if numbers else int(not bounds)))
    return found


def build(
    simulator: Simulator,
    verilog: str,
    toplevel: str,
    *,
    batch: bool = False,
    waves: bool = False,
    parameters: dict[str, int] | None = None,
) -> BuildDir:
    """Build a model of `verilog`, or find the one that was built before.

    Parameters
    ----------
    simulator : Simulator
        From `select`.
    verilog : str
        Verilog text.
    toplevel : str
        Name of the top module.
    batch : bool
        Add the batch level, which needs the ports of `ptewalk_walker` or `ptewalk_mmu`. Where it cannot be had (Icarus,
        another version of Verilator, `waves`) the model is built without it, and `BuildDir.batch_trouble` says why.
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
        The text cannot be built; names the first error and the log.
    """
    ports = ports_of(verilog, toplevel)
    parameters = parameters or {}
    trouble = ""
    if batch and not simulator.can_batch:
        trouble = f"not tried with {simulator.name} {simulator.version_text}"
    elif batch and waves:
        trouble = "a batch leaves no waves"
    with_batch = batch and not trouble

    cache = spaceless_folder()
    key = _key(simulator, verilog, toplevel, with_batch, waves, parameters)
    target = cache / f"{toplevel}-{simulator.name}-{key}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with locked(cache / f"{target.name}.lock"):
            cached = (target / _DESCRIPTION).is_file()
            if cached:
                os.utime(target)
            else:
                _build_into(target, simulator, verilog, toplevel, ports, with_batch, waves, parameters)
                trim(cache, keep=target)
    except OSError as error:
        raise ToolError(f"{cache}: {error.strerror}; set {CACHE_VARIABLE} to a folder that can be written") from error
    description = json.loads((target / _DESCRIPTION).read_text())
    return BuildDir(
        path=target,
        simulator=simulator,
        toplevel=toplevel,
        ports=ports,
        batch=description["batch"],
        batch_trouble=trouble or description["batch_trouble"],
        waves=waves,
        seconds=description["seconds"],
        cached=cached,
    )


def cached_models(cache: Path) -> list[tuple[float, int, Path]]:
    """The built models of a cache: (time of last use, bytes, folder), longest unused first."""
    found = []
    for description in cache.glob(f"*/{_DESCRIPTION}"):
        folder = description.parent
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


def _key(
    simulator: Simulator, verilog: str, toplevel: str, batch: bool, waves: bool, parameters: dict[str, int]
) -> str:
    """Hash of all that goes into a model."""
    tools = compilers()
    parts = [
        verilog,
        toplevel,
        _BATCH_SOURCE.read_text() if batch else "",
        Path(__file__).read_text(),
        repr((waves, sorted(parameters.items()))),
        f"{simulator.name} {simulator.version_text} {simulator.program}",
        compiler_version(tools["g++"]) if tools["g++"] else "",
        f"cocotb {importlib.metadata.version('cocotb')}, Python {platform.python_version()} at {sys.prefix}",
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _build_into(
    target: Path,
    simulator: Simulator,
    verilog: str,
    toplevel: str,
    ports: dict[str, int],
    batch: bool,
    waves: bool,
    parameters: dict[str, int],
) -> None:
    """Build in a folder beside `target`, and give it that name when it is whole."""
    started = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        (folder / _SOURCE).write_text(verilog)
        trouble = ""
        failure = _attempt(folder, simulator, toplevel, ports, batch, waves, parameters)
        if failure and batch:
            batch, trouble = False, failure
            failure = _attempt(folder, simulator, toplevel, ports, batch, waves, parameters)
        if failure:
            log = target.with_name(f"{target.name}.log")
            shutil.copy(folder / _LOG, log)
            raise ToolError(f"{simulator.name} cannot build {toplevel}: {failure} (log: {log})")
        whole = folder / "whole"
        whole.mkdir()
        model = "sim.vvp" if simulator.name == "icarus" else toplevel
        for name in (f"model/{model}", _SOURCE, _LOG):
            shutil.move(folder / name, whole)
        description = {"batch": batch, "batch_trouble": trouble, "seconds": time.monotonic() - started}
        (whole / _DESCRIPTION).write_text(json.dumps(description))
        whole.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _attempt(
    folder: Path,
    simulator: Simulator,
    toplevel: str,
    ports: dict[str, int],
    batch: bool,
    waves: bool,
    parameters: dict[str, int],
) -> str:
    """Build once, into `folder`/model; the reason when it fails, else ""."""
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    sources = [str(folder / _SOURCE)]
    flags: list[str] = []
    environment = {}
    if simulator.name == "verilator":
        flags += _VERILATOR_FLAGS
        if not waves:
            visible = folder / "visible.vlt"
            visible.write_text(_visible_ports((folder / _SOURCE).read_text(), toplevel))
            sources.append(str(visible))
            flags.append("--no-public-flat-rw")
        if batch:
            flags += [str(shutil.copy(_BATCH_SOURCE, folder)), "-LDFLAGS", "-rdynamic"]
            if "contexts__payload__track" in ports:
                flags += ["-CFLAGS", "-DPTEWALK_TRACKING"]
            if "supervisor__drain" in ports:
                flags += ["-CFLAGS", "-DPTEWALK_FAULT_UNIT"]
        environment["MAKEFLAGS"] = " ".join(_make_variables(simulator))
    arguments: dict[str, Any] = {
        "sources": sources,
        "hdl_toplevel": toplevel,
        "build_dir": str(model),
        "build_args": flags,
        "parameters": parameters,
        "timescale": ("1ns", "1ps"),
        "waves": waves,
        "always": True,
    }
    log = folder / _LOG
    status = run_step(
        simulator, "build", arguments, folder=folder, environment=environment, log=log, timeout=BUILD_TIMEOUT
    )
    if status == 0:
        return ""
    return f"not done in {BUILD_TIMEOUT:.0f} s" if status is None else _first_error(log.read_text(errors="replace"))


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


def _visible_ports(verilog: str, toplevel: str) -> str:
    """A Verilator control file that lets cocotb see the top's ports and nothing else."""
    lines = [
        f'public_flat_{"rw" if direction == "input" else "rd"} -module "{toplevel}" -var "{name}"'
        for direction, name, _ in _declarations(verilog, toplevel)
    ]
    return "\n".join(["`verilator_config", *lines, ""])


def _first_error(log: str) -> str:
    """The first line of a log that tells of an error; the last line when none does."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in lines:
        if re.search(r"%Error|\berror:|syntax error|No space left", line):
            return line
    return lines[-1] if lines else "it printed nothing"
