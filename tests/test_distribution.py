"""sdist and wheel as they would be published: built, installed in an empty environment, tried with no repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from ptewalk.cosim.formats import samples
from ptewalk.cosim.simulate.doctor import PYTHONS

ROOT = Path(__file__).resolve().parent.parent
PYTEST = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
OF_THE_REPOSITORY = (
    "scenario/test_format_page.py",  # reads docs/
    "test_profiles.py",  # reads model/ and docs/
    "test_seed_commit.py",  # needs Amaranth
)
"""Tests of the model that are about the repository itself, or about the gateware."""
FEWEST = 2100
"""Tests of the model that must have run."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Made(NamedTuple):
    """What was built of a clean checkout."""

    checkout: Path
    sdist: Path
    wheel: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The sdist, and the wheel that is built of it."""
    folder = tmp_path_factory.mktemp("distribution")
    checkout = folder / "checkout"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    subprocess.run([sys.executable, "-m", "build", "-o", str(folder), str(checkout)], check=True, capture_output=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return Made(checkout, sdist, wheel)


def tracked(checkout: Path, *folders: str) -> set[str]:
    """The files that git knows."""
    command = ["git", "ls-files", "-z", *folders]
    listed = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True).stdout
    return set(listed.split("\0")) - {""}


def test_the_sdist_is_the_repository(made: Made) -> None:
    """But for what git and its hosts read."""
    with tarfile.open(made.sdist) as archive:
        inside = {member.name.partition("/")[2] for member in archive if member.isfile()}
    files = {name for name in tracked(made.checkout) if not name.startswith(".")}
    assert len(files) > 500
    assert files - inside == set()
    assert {name for name in inside - files if not name.startswith("ptewalk.egg-info/")} <= {
        "PKG-INFO",
        "setup.cfg",
        "MANIFEST.in",
    }


def test_the_wheel_holds_every_module(made: Made) -> None:
    """And the data that they read; nothing of tests or documents."""
    inside = set(zipfile.ZipFile(made.wheel).namelist())
    expected = {f"ptewalk/{name}" for name in tracked(made.checkout, "rtl", "model", "cosim")}
    assert len(expected) > 300
    assert expected - inside == set()
    assert {name for name in inside - expected if ".dist-info/" not in name} == set()


MINORS = range(PYTHONS[0][1], PYTHONS[1][1] + 1)
INTERPRETERS = [sys.executable if minor == sys.version_info[1] else f"python3.{minor}" for minor in MINORS]
"""This Python, and each other that is supported."""


@pytest.mark.parametrize("python", INTERPRETERS, ids=map("3.{}".format, MINORS))
def test_the_model_alone(made: Made, python: str, tmp_path: Path) -> None:
    """A program, `walks` on the model, an extra that is named; then the model's own tests."""
    found = shutil.which(python)
    if found is None or subprocess.run([found, "-c", "import venv"], capture_output=True, check=False).returncode:
        pytest.skip(f"optional: no {python} here")
    subprocess.run([found, "-m", "venv", str(tmp_path / "venv")], check=True)
    binaries = tmp_path / "venv" / "bin"
    install = [str(binaries / "pip"), "install", "-q", str(made.wheel), "pytest>=8,<10", "pytest-timeout>=2.3,<3"]
    subprocess.run(install, check=True)
    program = "import ptewalk.model as m; t = m.Machine().spawn(); print(t.read(t.mmap(m.PAGE), 2))"
    said = subprocess.run(
        [str(binaries / "python"), "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert said.stdout == "b'\\x00\\x00'\n"
    for arguments, code in ((["walks", "--limit", "300", str(samples.WALKS)], 0), (["cosim"], 2)):
        command = [str(binaries / "ptewalk"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert code == 0 or done.stderr.count("\n") == 1
    passed = own_tests(made.checkout, binaries, tmp_path / "apart")
    assert passed >= FEWEST


def own_tests(checkout: Path, binaries: Path, folder: Path) -> int:
    """Run the model's tests, those that are not slow, in a folder with nothing else; how many passed."""
    folder.mkdir()
    (folder / "pytest.ini").write_text(
        f"[pytest]\naddopts = {PYTEST['addopts']}\nfilterwarnings = error\nmarkers =\n"
        + "".join(f"    {mark}\n" for mark in PYTEST["markers"])
    )
    for name in ("model", "data"):
        shutil.copytree(checkout / "tests" / name, folder / "tests" / name)
    shutil.copy(checkout / "tests" / "conftest.py", folder / "tests")
    ignored = [f"--ignore=tests/model/{name}" for name in OF_THE_REPOSITORY]
    command = [str(binaries / "pytest"), "-q", "-m", "not slow", *ignored, "tests/model"]
    alone = {name: value for name, value in os.environ.items() if name != "PTEWALK_REQUIRE_ALL"}  # without the extras
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=alone)
    assert done.returncode == 0, done.stdout[-3000:]
    return int(done.stdout.rsplit(" passed", 1)[0].split()[-1])
