"""The package: what is installed is what is in the tree."""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_module_imports() -> None:
    count = 0
    for part in ("rtl", "model", "cosim"):
        for path in (ROOT / part).rglob("*.py"):
            if path.stem not in ("__init__", "tb_walker"):
                importlib.import_module(".".join(("ptewalk", *path.relative_to(ROOT).with_suffix("").parts)))
                count += 1
    assert count > 80


def test_packages_are_listed() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert setuptools["package-dir"] == {f"ptewalk.{part}": part for part in ("rtl", "model", "cosim")}
    rooms = {
        path.parent.relative_to(ROOT) for part in ("rtl", "model", "cosim") for path in (ROOT / part).rglob("*.py")
    }
    assert sorted(setuptools["packages"]) == sorted(".".join(("ptewalk", *room.parts)) for room in rooms)
    assert all((ROOT / room / "__init__.py").is_file() for room in rooms)


@pytest.mark.parametrize("part", ["rtl", "model", "cosim"])
def test_not_importable_twice(part: str) -> None:
    """`import rtl` from the root would be a second module object."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {part}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode and f"import this package as ptewalk.{part}" in done.stderr


def test_dependencies_are_bounded_and_explained() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    groups = [PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"].values()]
    names = [name for group in groups for name in group if not name.startswith("ptewalk[")]
    assert len(names) > 8
    for name in names:
        assert "<" in name or "==" in name, f"{name} has no upper bound"
        plain = name.split("=")[0].split(">")[0].split("<")[0]
        assert f"# {plain}" in text or f", {plain}" in text or f". {plain}" in text, f"{plain} has no reason"


def test_constraints_pin_everything_installed() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert len(pins) > 20
    for requirement in importlib.metadata.requires("ptewalk") or []:
        name = requirement.split(";")[0].split("[")[0].split("<")[0].split(">")[0].split("=")[0].strip()
        if name != "ptewalk":
            pinned = pins[name.lower()]
            # An extra that `dev` leaves out need not be installed.
            if 'extra == "fpgas"' not in requirement or importlib.util.find_spec(name.replace("-", "_")):
                assert pinned == importlib.metadata.version(name)


@pytest.mark.slow
def test_wheel_holds_every_module(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(source)], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"ptewalk/{path.relative_to(source)}"
        for part in ("rtl", "model", "cosim")
        for path in (source / part).rglob("*")
        if path.suffix in (".py", ".cpp", ".c", ".typed", ".gz")
    }
    assert len(expected) > 100
    assert expected <= inside
