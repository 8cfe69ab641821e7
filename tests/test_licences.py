"""docs/licences.md: every dependency is in it, and nothing of others is in the repository."""

import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| ([a-z0-9-]+) \| [^|]+ \| [^|]+ \|$", re.MULTILINE)
PROGRAMS = (b"\x7fELF", b"MZ", b"!<arch>", b"\x00asm", b"070701", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
"""How programs, libraries, packages, initial file systems and their compressed forms begin."""


def test_each_dependency_has_a_row() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [project["build-system"]["requires"], project["project"]["dependencies"]]
    groups += project["project"]["optional-dependencies"].values()
    wanted = {re.split(r"[<>=\[]", name)[0] for group in groups for name in group} - {"ptewalk"}
    rows = ROW.findall((ROOT / "docs" / "licences.md").read_text())
    assert len(wanted) > 20
    assert sorted(row for row in rows if row != "package") == sorted(wanted)


def test_the_repository_holds_no_program() -> None:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    files = [ROOT / name.decode() for name in names if name]
    assert len(files) > 300
    found = [path for path in files if path.is_file() and path.read_bytes()[:6].startswith(PROGRAMS)]
    assert not found


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert f"version: {project['version']}" in lines and f"license: {project['license']}" in lines
