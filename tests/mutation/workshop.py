"""A copy of the tree in which one change at a time is tried, by the tests that find most in the least time first."""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from .changes import ROOT, Change

# The tests of a part, those that find most in the least time first; a file's own tests come before them.
_TESTS = {
    "model": [
        ["tests/model/test_found.py", "tests/model/test_fault_rules.py", "tests/model/test_page_rules.py"],
        ["tests/model/test_modern_rules.py", "tests/model/test_move_rules.py"],
        ["tests/model"],
        ["tests/oracle", "tests/test_facts.py", "tests/test_docs.py"],
    ],
    "rtl": [["tests/test_facts.py"]],
}
_SLOWER = ("caching", "tlb")
_FLIPS = "tests/model/test_profile_flips.py"
"""Slow, and yet run for the files of the profiles: each of their fields is shown by a recording there alone."""


def tests_of(file: str) -> list[list[str]]:
    """Which tests to run for a change of `file`, a list for each call of pytest, quickest first.

    No call has a folder and a file in it: pytest would run the folder in its own order.
    """
    part, stem = Path(file).parts[0], Path(file).stem
    room = Path("tests", *Path(file).parts[:-1])
    own = _tests(ROOT / "tests" / part, f"test_{stem}*.py")
    if room.parts[-1] == "api":
        own += [*_tests(ROOT / "tests" / part, "test_api*.py"), "tests/test_docs.py"]
    if room.parts[-1] == "proc":
        own += ["tests/model/test_procfs.py"]
    calls = [own]
    if len(room.parts) > 2:
        calls.append([str(room)])
    if part == "rtl":
        everything = _tests(ROOT / "tests" / part, "test_*.py")
        calls.append(sorted(everything, key=lambda name: any(word in name for word in _SLOWER)))
    calls += _TESTS[part]
    if stem in ("profile", "profiles"):
        calls.insert(1, [_FLIPS])
    if Path(file).parts[1] in ("mm", "state", "kernel.py", "access.py", "pte.py", "profiles.py"):
        calls.insert(len(calls) - 2, ["tests/oracle/test_recordings.py"])
    calls = [[name for name in dict.fromkeys(call) if (ROOT / name).exists()] for call in calls]
    return [call for call in calls if call]


def _tests(folder: Path, pattern: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in folder.rglob(pattern))


class Workshop:
    """A copy of the tree in which one change at a time is tried.

    Parameters
    ----------
    folder : Path
        Where the copy goes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        for name in listed.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, folder / name)
        self.packages = folder / "build" / "packages"
        (self.packages / "ptewalk").mkdir(parents=True)
        for part in ("rtl", "model", "cosim"):
            (self.packages / "ptewalk" / part).symlink_to(folder / part)
            compileall.compile_dir(
                folder / part, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
            )
        self.log = folder / "build" / "log"
        self.changed: tuple[Path, str] | None = None
        """The file that differs from the tree's, and its text there."""

    def start(self, change: Change | None, calls: list[list[str]], seconds: int) -> int:
        """Make the change and start its tests, with so many seconds of processor time; the process.

        Raises
        ------
        FileNotFoundError
            A test was made since the copy was: pytest's complaint would pass for a change that was noticed.
        """
        for name in (name for names in calls for name in names):
            if not (self.folder / name).exists():
                raise FileNotFoundError(f"{name} was made while this ran; start anew")
        if change is not None:
            path = self.folder / change.file
            self.changed = path, path.read_text()
            path.write_text(change.applied(self.changed[1]))
        process = os.fork()
        if process:
            return process
        try:
            code = self._run(calls, seconds)
        except BaseException:
            code = 3
        os._exit(code)

    def _run(self, calls: list[list[str]], seconds: int) -> int:
        """In the child: 0 when every test passes, 1 when one does not."""
        import pytest

        os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        os.chdir(self.folder)
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(self.packages))
        os.environ |= {"PYTHONPATH": str(self.packages), "PYTHONDONTWRITEBYTECODE": "1"}
        for names in calls:
            which = "" if names == [_FLIPS] else "not slow"
            options = ["-x", "-q", "-m", which, "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", "."]
            if pytest.main([*options, *names]) not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
                return 1
        return 0

    def end(self) -> str:
        """Undo the change; the test that failed."""
        if self.changed is not None:
            path, text = self.changed
            path.write_text(text)
        said = self.log.read_text(errors="replace") if self.log.exists() else ""
        failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
        return failed[0] if failed else (said.strip().splitlines() or [""])[-1][:100]


def preload() -> None:
    """What every test needs and no change touches."""
    import amaranth.sim
    import click
    import cocotb
    import numpy
    import pytest
    import rich
    import unicorn

    del amaranth, click, cocotb, numpy, pytest, rich, unicorn
    found = [name for name in sys.modules if name.split(".")[0] == "ptewalk"]
    if found:
        raise RuntimeError(f"{found[0]} is loaded already")
