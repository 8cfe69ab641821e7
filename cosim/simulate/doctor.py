"""What `ptewalk doctor` tells: what was looked for and found, what is used and why, and what mends the rest."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ptewalk.cosim.base.places import has_spaces, spaceless_folder
from ptewalk.cosim.simulate.build import CACHE_LIMIT, cached_models
from ptewalk.cosim.simulate.find import (
    BATCH_VERSIONS,
    VERILATOR_VARIABLE,
    candidates,
    compiler_version,
    compilers,
    cxxrtl,
    missing_compilers,
    version_text,
)

__all__ = ["DoctorRow", "doctor"]

PYTHONS: Final = ((3, 11), (3, 14))
"""The oldest and the newest Python for which all pins have wheels; pyproject.toml and Makefile say so too."""
OPTIONAL_PROGRAMS: Final = {
    "qemu-system-x86_64": ("a live kernel (record, replay --backend linux)", "qemu-system-x86"),
    "fusermount3": ("procfs", "fuse3"),
}
"""Program to what it is for, and the package that has it."""


@dataclass(frozen=True)
class DoctorRow:
    """One line of the doctor's report.

    Attributes
    ----------
    thing : str
        What was looked for.
    found : str
        Where it is, or "not found", or why it cannot be used.
    version : str
        Its version, "" when not known.
    chosen : str
        What it is used for and why; "" when it is not used.
    mend : str
        The one command that mends what is missing; "" when nothing is.
    ok : bool
        False: something needed is missing.
    """

    thing: str
    found: str
    version: str = ""
    chosen: str = ""
    mend: str = ""
    ok: bool = True


def doctor(environment: Mapping[str, str] | None = None) -> list[DoctorRow]:
    """What was looked for, what was found, what is used and why, and how to mend the rest, in order of preference."""
    environment = os.environ if environment is None else environment
    rows = [_python_row(sys.version_info[:2])]
    missing = missing_compilers(environment)
    chosen: set[str] = set()
    for candidate in candidates(environment):
        simulator = candidate.simulator
        if simulator is None:
            named = VERILATOR_VARIABLE in candidate.thing
            rows.append(DoctorRow(candidate.thing, candidate.trouble, mend=candidate.mend, ok=not named))
            continue
        why = ""
        if simulator.name == "verilator" and missing:
            why = f"not used: {' and '.join(missing)} not found"
        elif simulator.name in chosen:
            why = "not used: one named above comes first"
        else:
            chosen.add(simulator.name)
            why = "used: the first that can be" if len(chosen) == 1 else "used when asked for (--simulator icarus)"
            if simulator.can_batch:
                why += "; has the batch level"
            elif simulator.name == "verilator":
                low, high = map(version_text, BATCH_VERSIONS)
                why += f"; no batch level (tried on {low} up to, not with, {high})"
        rows.append(DoctorRow(candidate.thing, simulator.origin, simulator.version_text, why))
    compiled = cxxrtl(environment)
    if compiled.simulator is None:
        rows.append(DoctorRow(compiled.thing, compiled.trouble, mend=compiled.mend))
    else:
        simulator = compiled.simulator
        why = "used when asked for (--simulator cxxrtl); a library, no cocotb"
        rows.append(DoctorRow(compiled.thing, simulator.origin, simulator.version_text, why))
    for name, at in compilers(environment).items():
        use = "for Verilator's models" if name != "ccache" else "makes rebuilding Verilator's models fast"
        if at is None:
            rows.append(DoctorRow(name, "not found", chosen="", mend=f"apt-get install {name}", ok=name == "ccache"))
        else:
            rows.append(DoctorRow(name, str(at), compiler_version(at), f"used: {use}"))
    search = environment.get("PATH")
    for name, (use, package) in OPTIONAL_PROGRAMS.items():
        place = shutil.which(name, path=search)
        if place is None:
            rows.append(DoctorRow(name, f"not found, and {use} needs it", mend=f"apt-get install {package}"))
        else:
            rows.append(DoctorRow(name, place, chosen=f"used: {use}"))
    rows.append(_cache_row())
    if not chosen:
        rows.append(DoctorRow("simulator", "none can be used", mend="pip install '.[cosim]'", ok=False))
    return rows


def _python_row(version: tuple[int, int]) -> DoctorRow:
    """The Python that runs this."""
    low, high = ("{}.{}".format(*one) for one in PYTHONS)
    said = "{}.{}".format(*version)
    if PYTHONS[0] <= version <= PYTHONS[1]:
        return DoctorRow("python", sys.executable, said, f"used: {low} to {high} can be")
    return DoctorRow("python", sys.executable, said, mend=f"make PYTHON=python{high}, or any from {low} on", ok=False)


def _cache_row() -> DoctorRow:
    """Where built models are kept, and how much room they take."""
    cache = spaceless_folder()
    models = cached_models(cache)
    size = sum(size for _, size, _ in models)
    why = f"used: {len(models)} built models take {size / 1e6:.0f} MB of {CACHE_LIMIT / 1e6:.0f} MB"
    if has_spaces(Path(sys.prefix)):
        why += f"; make cannot name {sys.prefix}, which has a space in it, so it is reached through a link there"
    return DoctorRow("cache", str(cache), chosen=why)
