"""The package: what is installed is what is in the tree."""

import importlib
import importlib.metadata
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from ptewalk.cosim.simulate.doctor import PYTHONS, doctor

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


def test_every_pin_is_for_the_oldest_python() -> None:
    """Debian 12 has 3.11.2: a pin that asks for a later 3.11 cannot be installed there."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = [line.partition("==")[0] for line in lines if line and not line.startswith("#")]
    found = 0
    for name in names:
        try:
            asked = importlib.metadata.metadata(name).get("Requires-Python")
        except importlib.metadata.PackageNotFoundError:  # of an extra that `dev` leaves out
            continue
        found += 1
        assert SpecifierSet(asked or "").contains("3.11.2"), f"{name} asks for Python {asked}"
    assert found > 80


def test_which_python() -> None:
    """Said alike to pip, by `make` and by `ptewalk doctor`."""
    low, high = PYTHONS
    assert PROJECT["project"]["requires-python"] == f">={low[0]}.{low[1]},<{high[0]}.{high[1] + 1}"
    makefile = (ROOT / "Makefile").read_text()
    assert f"not {low} <= sys.version_info[:2] <= {high}" in makefile
    assert "ptewalk needs Python {}.{} to {}.{}, ".format(*low, *high) in makefile


@pytest.mark.parametrize(("version", "ok"), [((3, 10), False), ((3, 11), True), ((3, 14), True), ((3, 15), False)])
def test_the_doctor_judges_python(version: tuple[int, int], ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    row = doctor()[0]
    assert (row.thing, row.version, row.ok) == ("python", "{}.{}".format(*version), ok)
    assert bool(row.mend) is not ok


def test_make_refuses_another_python(tmp_path: Path) -> None:
    """One line, and no environment is begun."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    other = tmp_path / "python2.7"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    command = ["make", "-s", "setup", f"PYTHON={other}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    said = f"ptewalk needs Python 3.11 to 3.14, and {other} is none: install one, or name it with make PYTHON=..."
    assert done.returncode == 2 and done.stdout.splitlines()[0] == said
    assert not (tmp_path / ".venv").exists()
