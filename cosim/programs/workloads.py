"""Workloads: the C programs that come with this, and commands of Debian's packages, each with its epochs."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.programs.epochs import Every

__all__ = ["OWN", "WORKLOADS", "Workload", "build_program", "prepare"]

_SOURCES: Final = Path(__file__).with_name("sources")
OWN: Final = ("collector", "join", "stencil")
"""The C programs that come with this."""
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_ROWS: Final = 100_000
_LINES: Final = 20_000


@dataclass(frozen=True)
class Workload:
    """A command and when its epochs end.

    Attributes
    ----------
    name : str
    command : tuple of str
        "{folder}" stands for the folder that `prepare` fills, "{n}" for a size.
    size : int
        What "{n}" is; a tenth of it in a small run.
    every, small : Every
        Epochs: more than 50 of `every` in a whole run; `small` for a small one.
    """

    name: str
    command: tuple[str, ...]
    size: int
    every: Every
    small: Every

    @property
    def program(self) -> str:
        """What must be installed; "gcc" for a C program of this project's."""
        return "gcc" if self.name in OWN else self.command[0]

    def missing(self) -> bool:
        """It cannot run here."""
        return shutil.which(self.program, path=_PATH) is None

    def argv(self, folder: Path, *, small: bool = False) -> list[str]:
        """The command, of what `prepare` left in a folder."""
        size = self.size // 10 if small else self.size
        words = [word.replace("{folder}", str(folder)).replace("{n}", str(size)) for word in self.command]
        return [shutil.which(words[0], path=_PATH) or words[0], *words[1:]]


def _instructions(count: int, small: int) -> tuple[Every, Every]:
    return Every("instructions", count), Every("instructions", small)


_SQL: Final = (
    "create table t(a integer primary key, b text);"
    "with recursive c(x) as (select 1 union all select x + 1 from c where x < {n})"
    " insert into t select x, hex(x * x) from c; select sum(length(b)), max(b) from t;"
)
_DICTIONARY: Final = (
    "import hashlib; d = {i: str(i * i) for i in range({n})};print(hashlib.sha256(repr(d).encode()).hexdigest())"
)
_PIPELINE: Final = "cat {folder}/lines | sort -n | tail -3"
WORKLOADS: Final = {
    one.name: one
    for one in (
        Workload("sort", ("busybox", "sort", "-n", "{folder}/lines"), 1, *_instructions(5_000_000, 300_000)),
        Workload(
            "awk",
            ("busybox", "awk", "{s += $1} END {print s, NR}", "{folder}/lines"),
            *(1, *_instructions(1_000_000, 100_000)),
        ),
        Workload("sha256sum", ("busybox", "sha256sum", "{folder}/lines"), 1, *_instructions(100_000, 10_000)),
        Workload("gzip -d", ("busybox", "gzip", "-d", "-c", "{folder}/lines.gz"), 1, *_instructions(80_000, 10_000)),
        Workload("gzip", ("gzip", "-n", "-c", "{folder}/lines"), 1, *_instructions(500_000, 30_000)),
        Workload("sqlite3", ("sqlite3", ":memory:", _SQL), _ROWS, *_instructions(10_000_000, 1_000_000)),
        Workload("python3", ("/usr/bin/python3", "-S", "-c", _DICTIONARY), _ROWS, *_instructions(6_000_000, 1_200_000)),
        Workload("pipeline", ("busybox", "sh", "-c", _PIPELINE), 1, Every("syscalls", 7), Every("syscalls", 2)),
        Workload("collector", ("{folder}/collector", "60"), 1, Every("marker"), Every("marker")),
        Workload("join", ("{folder}/join", "{n}"), 60_000, Every("marker"), Every("marker")),
        Workload("stencil", ("{folder}/stencil", "192", "60"), 1, Every("marker"), Every("marker")),
    )
}
"""Name to workload."""


def build_program(source: Path, target: Path) -> None:
    """Compile a C program, statically linked. Raises `ToolError`."""
    compiler = shutil.which("gcc", path=_PATH)
    if compiler is None:
        raise ToolError("gcc is not installed, and the C programs are built with it: apt-get install gcc")
    command = [compiler, "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(source)]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        raise ToolError(
            f"gcc cannot build {source.name}: {(built.stderr.strip() or 'it says nothing').splitlines()[0]}"
        )


def prepare(folder: Path, *, small: bool = False) -> None:
    """Put what the workloads need into a folder: the C programs (where there is gcc), a file of numbers, its gzip."""
    count = _LINES // 10 if small else _LINES
    text = "".join(f"{number * 7919 % 100_003}\n" for number in range(count)).encode()
    (folder / "lines").write_bytes(text)
    (folder / "lines.gz").write_bytes(gzip.compress(text, mtime=0))
    if shutil.which("gcc", path=_PATH):
        for name in OWN:
            build_program(_SOURCES / f"{name}.c", folder / name)
