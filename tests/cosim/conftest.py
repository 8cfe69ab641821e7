"""What several tests of the co-simulation share: each is built once, and kept in the project's cache."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from ptewalk.cosim.base.files import user_cache_folder
from ptewalk.cosim.bench.headers import lane_files
from ptewalk.cosim.runs.gateware import BuiltWalker, WalkerLibrary
from ptewalk.cosim.simulate.build import BuildDir, build
from ptewalk.cosim.simulate.find import select
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.export import describe, export_verilog
from ptewalk.rtl.walker import WalkerConfig

DOUBLE = Path(__file__).parent / "bench" / "walker_double.v"
PACKAGE = "linux-source-6.1"
TOOLS = f"{PACKAGE}/tools"
WANTED = (f"{TOOLS}/vm/page-types.c", f"{TOOLS}/lib", f"{TOOLS}/include", f"{PACKAGE}/include/uapi/linux")
SOURCES = ("vm/page-types.c", "lib/api/fs/fs.c", "lib/api/debug.c", "lib/str_error_r.c")
FLAGS = ("-O1", "-w", "-D_GNU_SOURCE", "-I", "lib", "-I", "lib/api", "-I", "include")


def double_design() -> DesignDescription:
    """What the walker's double has of a walker's ports."""
    text = DOUBLE.read_text()
    design = describe(WalkerConfig(trace=False))
    return replace(
        design,
        ports=tuple(port for port in design.ports if re.search(rf"\b{port.name}\b", text)),
        streams=tuple(found for found in design.streams if found.valid in text),
        plain={},
    )


@pytest.fixture(scope="session")
def verilator_double() -> BuildDir:
    """The walker's double, with the batch level."""
    design = double_design()
    return build(select("verilator"), DOUBLE.read_text(), design.top, design=design, lane=lane_files(design))


@pytest.fixture(scope="session")
def icarus_double() -> BuildDir:
    """The walker's double in Icarus."""
    design = double_design()
    return build(select("icarus"), DOUBLE.read_text(), design.top, design=design)


@pytest.fixture(scope="session")
def verilator_walker() -> BuildDir:
    """The walker, with the batch level."""
    design = describe(WalkerConfig())
    verilog = export_verilog(WalkerConfig())
    return build(select("verilator"), verilog, design.top, design=design, lane=lane_files(design))


@pytest.fixture(scope="session")
def verilator_mmu() -> BuildDir:
    """The MMU, with the batch level."""
    return BuiltWalker.make("verilator").model


@pytest.fixture(scope="session")
def mmu_library() -> BuildDir:
    """The MMU as a library."""
    return WalkerLibrary.make().model


@pytest.fixture(scope="session")
def page_types() -> Path:
    """The kernel's page-types: PTEWALK_PAGE_TYPES, or the one in PATH, or built once from Debian's kernel source."""
    named = os.environ.get("PTEWALK_PAGE_TYPES") or shutil.which("page-types")
    if named:
        return Path(named)
    target = user_cache_folder() / "page-types"
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                Path(folder).chmod(0o755)
                _build(Path(folder)).rename(target)
    return target


def _build(folder: Path) -> Path:
    for name in ("apt-get", "dpkg-deb", "tar", "xz", "gcc"):
        if not shutil.which(name):
            pytest.skip(f"no page-types, and no {name} to build it with: set PTEWALK_PAGE_TYPES")
    fetch = f"apt-get download -q {PACKAGE}"
    _run(f"{fetch} || {{ apt-get -qq update && {fetch}; }}", folder)
    archive = f"dpkg-deb --fsys-tarfile {PACKAGE}_*.deb | tar -xO ./usr/src/{PACKAGE}.tar.xz"
    _run(f"{archive} | tar -xJ {' '.join(WANTED)}", folder)
    _run(f"gcc {' '.join(FLAGS)} -o {folder}/page-types {' '.join(SOURCES)}", folder / TOOLS)
    return folder / "page-types"


def _run(script: str, folder: Path) -> None:
    done = subprocess.run(["bash", "-eo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"page-types cannot be built ({said}): run apt-get update, or set PTEWALK_PAGE_TYPES")
