"""The documentation as a site: it builds without a warning, each document is a page, a claim's test a footnote."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """docs/site/hooks.py, as MkDocs loads it."""
    found = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "site" / "hooks.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def build(root: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a checkout."""
    command = [str(Path(sys.executable).with_name("mkdocs")), "build", "-d", str(target)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)


def test_a_test_in_brackets_is_a_footnote(hooks: ModuleType) -> None:
    text = "It holds (`tests/a.py::one`), and\n\n    so does (`tests/b.py`)\n\n`ptewalk` (see x)."
    said = hooks.with_footnotes(text)
    assert said.startswith("It holds[^test-1], and\n\n    so does (`tests/b.py`)\n\n`ptewalk` (see x).")
    assert said.endswith("\n\n[^test-1]: Tested by `tests/a.py::one`.") and said.count("[^") == 2


@pytest.mark.parametrize(
    ("uri", "text", "shown"),
    [
        ("index.md", "[a](docs/mmu.md#one), [b](rtl), [c](CHANGELOG.md)", "[a](mmu.md#one), b, [c](changelog.md)"),
        ("mmu.md", "[a](bus.md), [b](../LICENSE), [c](../README.md)", "[a](bus.md), b, [c](index.md)"),
        ("tutorials/kernels.md", "[a](../mmu.md#one), [b](index.md)", "[a](../mmu.md#one), [b](index.md)"),
        ("tutorials/index.md", "[a](../../README.md), [b](../examples/bridge)", "[a](../index.md), b"),
        ("mmu.md", "[a](https://example.org), [b](#here)", "[a](https://example.org), [b](#here)"),
    ],
)
def test_links_are_the_sites(hooks: ModuleType, uri: str, text: str, shown: str) -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    assert hooks.on_page_markdown(text, page) == shown


@pytest.mark.slow
def test_it_builds(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    documents = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert len(documents) >= 25
    wanted = {path.parent if path.stem == "index" else path.with_suffix("") for path in documents}
    pages = {path.parent.relative_to(tmp_path / "site") for path in (tmp_path / "site").rglob("index.html")}
    assert pages == {*wanted, *map(Path, (".", "api", "rtl-api", "changelog", "contributing"))}
    for page, words in {"api": ("spawn", "clear_refs"), "rtl-api": ("physical_bits", "PRESETS", "o_written")}.items():
        text = (tmp_path / "site" / page / "index.html").read_text()
        assert all(word in text for word in words)
        assert "<p>Parameters</p>" not in text, "a docstring's section is without its line of hyphens"
    assert (tmp_path / "site" / "mmu" / "index.html").read_text().count("Tested by") > 20


@pytest.mark.slow
def test_a_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    shutil.copytree(ROOT / "docs", root / "docs")
    for part in ("model", "rtl"):
        shutil.copytree(ROOT / part, root / ".venv" / "typing" / "ptewalk" / part)
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "mkdocs.yml"):
        shutil.copy(ROOT / name, root)
    with (root / "docs" / "trust.md").open("a") as page:
        page.write("\nSee [this](mmu.md#no-such-heading).\n")
    done = build(root, tmp_path / "site")
    assert done.returncode == 1 and "no-such-heading" in done.stdout + done.stderr
