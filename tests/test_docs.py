"""The documents: every test, link, command and property that they name exists, and the reader's testbench runs."""

import ast
import doctest
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from ptewalk.cosim.cli.main import commands
from ptewalk.cosim.formal.properties import PROPERTIES
from ptewalk.cosim.simulate.mutants import load_mutants

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMED_TEST = re.compile(r"tests/[\w/]+\.py(?:::\w+)?")
NAMED_FILE = re.compile(r"`((?:rtl|model|cosim|tests|docs)/[\w/.-]*)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")

per_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)


@lru_cache
def functions(path: Path) -> set[str]:
    """The names of a file's functions."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def missing_tests(text: str) -> list[str]:
    """The tests named in `text` that are not there."""
    missing = []
    for name in NAMED_TEST.findall(text):
        file, _, function = name.partition("::")
        path = ROOT / file
        if not path.is_file() or (function and function not in functions(path)):
            missing.append(name)
    return missing


def broken_links(text: str, folder: Path) -> list[str]:
    """The relative links of `text` that lead nowhere."""
    links = [link.partition("#")[0] for link in LINK.findall(text) if "://" not in link]
    return [link for link in links if link and not (folder / link).exists()]


def test_there_are_documents() -> None:
    assert len(DOCUMENTS) >= 5
    assert sum(len(NAMED_TEST.findall(path.read_text())) for path in DOCUMENTS) > 60


@per_document
def test_named_tests_exist(path: Path) -> None:
    assert missing_tests(path.read_text()) == []


@per_document
def test_links_resolve(path: Path) -> None:
    assert broken_links(path.read_text(), path.parent) == []


@per_document
def test_named_files_exist(path: Path) -> None:
    assert [name for name in NAMED_FILE.findall(path.read_text()) if not (ROOT / name).exists()] == []


@per_document
def test_named_commands_exist(path: Path) -> None:
    """`ptewalk NAME` in code is a command, and so is each option beside it."""
    for code in re.findall(r"`ptewalk ([^`]+)`", path.read_text()):
        name, *words = code.split()
        assert name in commands.commands, f"ptewalk {code}"
        known = {option for parameter in commands.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("-") and word != "--"} <= known, f"ptewalk {code}"


def test_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in commands.commands if f"| `ptewalk {name}" not in text] == []


@per_document
def test_no_path_of_one_machine(path: Path) -> None:
    assert not re.search(r"\.\./shared|/work/|/home/|/root/|/tmp/", path.read_text())


def test_every_property_is_told() -> None:
    pages = ("walker.md", "mmu.md", "bus.md", "bridge.md", "log.md", "engine.md")
    text = "".join((ROOT / "docs" / name).read_text() for name in pages)
    assert [name for name in PROPERTIES if f"| `{name}` |" not in text] == []


def test_named_mutants_exist() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    named = re.findall(r"mutant `([\w-]+)`", text)
    assert named and set(named) <= load_mutants().keys()


def test_the_checks_can_fail(tmp_path: Path) -> None:
    text = "see `tests/no_such.py`, `tests/test_docs.py::test_no_such`, `tests/test_docs.py` and [this](nowhere.md)"
    assert missing_tests(text) == ["tests/no_such.py", "tests/test_docs.py::test_no_such"]
    assert broken_links(text, tmp_path) == ["nowhere.md"]


def test_the_examples_of_the_model_give_what_they_say() -> None:
    text = (ROOT / "docs" / "model-api.md").read_text()
    for page, failed in ((text, False), (text.replace("array([False, False, False,  True", "x"), True)):
        examples = doctest.DocTestParser().get_doctest(page, {}, "model-api", None, 0)
        assert len(examples.examples) > 40
        runner = doctest.DocTestRunner(verbose=False)
        said: list[str] = []
        runner.run(examples, out=said.append)
        assert bool(runner.summarize(verbose=False).failed) is failed, "".join(said)


def test_the_ten_lines_print_what_readme_says(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (program,) = re.findall(r"```python\n(from ptewalk\.model import.*?)```", text, re.S)
    (said,) = re.findall(r"runs this, and prints `(.*?)`", text)
    path = tmp_path / "ten.py"
    path.write_text(program)
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == f"{said}\n" and len(program.splitlines()) == 9


@pytest.mark.slow
def test_the_walker_below_an_own_top(tmp_path: Path) -> None:
    """The example of docs/testbench.md, as it stands there; its waves name the walker's states."""
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "testbench.md").read_text(), re.S)
    path = tmp_path / "my_top.py"
    path.write_text(program)
    command = [sys.executable, str(path), "icarus"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path)
    assert done.stdout.startswith("passed; waves: "), done.stdout + done.stderr
    waves = (tmp_path / "run" / "dump.vcd").read_text()
    assert all(f"s{name} name:" in waves for name in ("IDLE", "READ", "CHECK", "JUDGE"))


@pytest.mark.slow
def test_the_readers_testbench_passes(tmp_path: Path) -> None:
    """README's testbench, as it stands there; and with a wrong expectation it fails."""
    (program,) = re.findall(r"```python\n(from pathlib.*?)```", (ROOT / "README.md").read_text(), re.S)
    path = tmp_path / "my_walk.py"
    for text, passes in ((program, True), (program.replace("0x5867", "0x5007"), False)):
        path.write_text(text)
        command = [sys.executable, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path)
        assert (done.stdout == "passed\n") is passes, done.stdout + done.stderr
        assert passes or "first_write" in done.stdout + done.stderr
