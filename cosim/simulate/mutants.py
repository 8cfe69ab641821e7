"""Mutants: small named defects, applied to a copy of rtl/ or of model/, which themselves have no hooks.

Each is a table of a TOML file in tests/mutants/: `name`, `file` (rtl/... or model/...), `text` (stands there once),
`replacement`, `why` (what is broken) and `check` (arguments of the command that must exit with 1 on it). A mutant of
model/ stands for software that breaks the rules; only the command's own process sees it, not a simulator's.
"""

from __future__ import annotations

import atexit
import difflib
import importlib.util
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ptewalk.cosim.base.errors import ToolError

__all__ = ["Mutant", "activate", "load_mutants", "option"]

_active: list[str] = []
_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Mutant:
    """One defect; see the module's text."""

    name: str
    file: str
    text: str
    replacement: str
    why: str
    check: tuple[str, ...]

    @property
    def package(self) -> str:
        """The folder of its file: rtl or model."""
        return Path(self.file).parts[0]


def load_mutants() -> dict[str, Mutant]:
    """Name to mutant, of all files in tests/mutants/.

    Raises `ToolError` outside a source checkout, and for a file that is malformed.
    """
    folder = _CHECKOUT / "tests" / "mutants"
    if not folder.is_dir():
        raise ToolError("mutants need a source checkout: there is no tests/mutants beside the package")
    mutants: dict[str, Mutant] = {}
    for path in sorted(folder.glob("*.toml")):
        for table in tomllib.loads(path.read_text())["mutant"]:
            mutant = Mutant(**{**table, "check": tuple(table["check"])})
            if mutant.name in mutants:
                raise ToolError(f"{path.name}: a mutant's name must stand once, {mutant.name!r} stands twice")
            mutants[mutant.name] = mutant
    return mutants


def mutate(mutant: Mutant, folder: Path) -> None:
    """Copy the mutant's package to `folder` and apply it there."""
    shutil.copytree(_CHECKOUT / mutant.package, folder, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / Path(mutant.file).relative_to(mutant.package)
    source = path.read_text()
    count = source.count(mutant.text)
    if count != 1:
        raise ToolError(f"mutant {mutant.name}: its text must stand once in {mutant.file}, not {count} times")
    path.write_text(source.replace(mutant.text, mutant.replacement))


def activate(name: str) -> Mutant:
    """From here on, `ptewalk.rtl` (or model) is a copy with mutant `name`; call it before anything imports that.

    Raises `ToolError` when there is no such mutant.
    """
    mutants = load_mutants()
    if name not in mutants:
        near = ", ".join(difflib.get_close_matches(name, mutants, 3, 0)) if mutants else "none"
        raise ToolError(f"no mutant {name!r}; the nearest of the {len(mutants)} in tests/mutants/: {near}")
    package = f"ptewalk.{mutants[name].package}"
    if any(module == package or module.startswith(f"{package}.") for module in sys.modules):
        raise RuntimeError(f"activate() must be called before {package} is imported")
    holder = tempfile.mkdtemp(prefix="ptewalk-mutant-")
    atexit.register(shutil.rmtree, holder, ignore_errors=True)
    folder = Path(holder) / mutants[name].package
    mutate(mutants[name], folder)
    spec = importlib.util.spec_from_file_location(
        package, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    _active.append(name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[package] = module
    spec.loader.exec_module(module)
    return mutants[name]


def option() -> str:
    """What a command that repeats this run has to carry: " --mutant NAME", or nothing."""
    return "".join(f" --mutant {name}" for name in _active)
