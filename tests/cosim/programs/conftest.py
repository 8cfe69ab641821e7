"""Programs of the tests' own, and runs of them."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.bench.single import SingleWalker
from ptewalk.cosim.cli.programs import make_engine
from ptewalk.cosim.programs.dirty_log import LoggedWalker
from ptewalk.cosim.programs.run import ProgramRun, Settings
from ptewalk.cosim.programs.trace import CachingWalker, TracedMmu
from ptewalk.cosim.programs.walkers import ModelWalker
from ptewalk.cosim.runs.gateware import WalkerLibrary
from ptewalk.cosim.runs.tracing import trace_library
from ptewalk.model.linux import Track
from ptewalk.model.profiles import PROFILES

HERE = Path(__file__).parent


@dataclass
class Ended:
    """What a run left behind."""

    status: int
    output: bytes
    errors: bytes
    figures: dict[str, Any]
    run: ProgramRun


def have(program: str) -> str:
    """The path of a program of the host; the test is skipped, and named, where it is missing."""
    found = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Builds tests/cosim/programs/NAME.c, statically linked."""
    folder = tmp_path_factory.mktemp("programs")
    built: dict[str, str] = {}

    def build(name: str) -> str:
        if name not in built:
            target = folder / name
            command = [have("gcc"), "-static", "-O1", "-Wall", "-Werror", "-o", str(target), str(HERE / f"{name}.c")]
            subprocess.run(command, check=True)
            built[name] = str(target)
        return built[name]

    return build


def run(
    command: list[str], *, backend: str = "model", stdin: bytes = b"", engine: bool = False, **settings: Any
) -> Ended:
    """Run a program to its end."""
    profile = PROFILES[settings.pop("profile", "linux-6.1")]
    chosen = Settings(profile, Track[settings.pop("track", "native").upper()], seed=7, **settings)
    walker: Callable[..., Any] = ModelWalker
    if backend == "gateware":
        library = WalkerLibrary.make()
        walker = lambda memory: SingleWalker(library.lane, memory)  # noqa: E731
    elif backend != "model":  # a design that caches
        built = trace_library(backend, log=chosen.log)
        kind = LoggedWalker if chosen.log else CachingWalker
        walker = lambda memory: kind(TracedMmu(built, memory))  # noqa: E731
    out, errors = io.BytesIO(), io.BytesIO()
    beside = make_engine("gateware") if engine else None
    with ProgramRun(chosen, walker, engine=beside, stdin=io.BytesIO(stdin), stdout=out, stderr=errors) as running:
        running.start(command[0], command[1:])
        status = running.run()
        return Ended(status, out.getvalue(), errors.getvalue(), running.figures(), running)


def of_the_host(command: list[str], stdin: bytes = b"") -> bytes:
    """The host's output of the same command."""
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/", "LANG": "C.UTF-8", "USER": "user"}
    return subprocess.run(command, input=stdin, env=environment, stdout=subprocess.PIPE, check=True).stdout


@pytest.fixture(scope="session", name="run")
def run_fixture() -> Callable[..., Ended]:
    """`run`, for the tests."""
    return run


@pytest.fixture(scope="session", name="have")
def have_fixture() -> Callable[[str], str]:
    """`have`, for the tests."""
    return have


@pytest.fixture(scope="session", name="of_the_host")
def of_the_host_fixture() -> Callable[..., bytes]:
    """`of_the_host`, for the tests."""
    return of_the_host


@pytest.fixture
def ptewalk(tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """The command, in a process and a folder of its own: (exit code, standard output, standard error)."""
    command = Path(sys.executable).with_name("ptewalk")

    def go(*arguments: str) -> tuple[int, str, str]:
        ended = subprocess.run([command, *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=300)
        return ended.returncode, ended.stdout, ended.stderr

    return go
