"""The mutation tool: which changes it makes, that it draws the same ones again, and that it sees what tests see."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .mutation.changes import PARTS, ROOT, Change, _Finder, digest, draw, is_program, sources
from .mutation.results import reasons
from .mutation.workshop import _TESTS
from .mutation.workshop import tests_of as chosen_tests

TEXT = '''"""Documentation 1."""
from a import b

LIMIT: Final = 3


def f(x: int = 0, *, y: str = "1") -> bool:
    """More than 2 words."""
    assert x == 1
    if x < 4 and not y:
        x += 1
        g(x, y)
        self.z = -x
    for _ in h:
        continue
    raise ValueError(f"{x + 1} é")
'''


def made(text: str = TEXT) -> set[tuple[str, str]]:
    return {(change.old, change.new) for change in _Finder("f.py", text).found}


def test_every_kind_of_change() -> None:
    assert made() == {
        ("3", "4"),
        ("3", "2"),
        ("0", "1"),
        ("x < 4 and not y", "(not (x < 4 and not y))"),
        ("x < 4 and not y", "(x < 4 or not y)"),
        ("x < 4", "(x <= 4)"),
        ("4", "5"),
        ("4", "3"),
        ("not y", "y"),
        ("x += 1", "pass"),
        ("x += 1", "x -= 1"),
        ("1", "2"),
        ("1", "0"),
        ("g(x, y)", "pass"),
        ("g(x, y)", "(g(y, x))"),
        ("self.z = -x", "pass"),
        ("-x", "x"),
        ("continue", "break"),
        ('raise ValueError(f"{x + 1} é")', "pass"),
    }
    assert made("a = b | 1 << c if d is None else True\n") == {
        ("b | 1 << c", "(b & 1 << c)"),
        ("1 << c", "(1 >> c)"),
        ("1", "2"),
        ("1", "0"),
        ("d is None", "(not (d is None))"),
        ("d is None", "(d is not None)"),
        ("True", "False"),
    }


def test_only_the_span_changes() -> None:
    (change,) = [c for c in _Finder("f.py", TEXT).found if c.new == "(x <= 4)"]
    assert change.line == 10
    assert change.applied(TEXT) == TEXT.replace("x < 4", "(x <= 4)")
    assert is_program(change, TEXT) and not is_program(Change("f.py", 1, 0, 0, "", "if"), TEXT)


@pytest.mark.thorough
@pytest.mark.parametrize("part", PARTS)
def test_a_seed_draws_the_same_changes_again(part: str) -> None:
    texts = sources(part)
    draws = []
    for seed in (1, 1, 2):
        drawn = draw(part, texts, seed)
        draws.append([next(drawn) for _ in range(20)])
    assert draws[0] == draws[1] != draws[2]
    assert len({(c.file, c.start, c.new) for c in draws[0]}) == 20
    assert all(c.file.startswith(f"{part}/") and is_program(c, texts[c.file]) for c in draws[0])
    assert digest(texts) == digest(dict(texts)) != digest(texts | {"more": ""})


def test_every_file_has_tests_that_are_there() -> None:
    for part in PARTS:
        assert all((ROOT / name).exists() for call in _TESTS[part] for name in call)
        everything = {str(path.relative_to(ROOT)) for path in (ROOT / "tests" / part).rglob("test_*.py")}
        for file in sources(part):
            calls = chosen_tests(file)
            assert calls and all(calls)
            # pytest runs a folder in its own order when a file of it is named too.
            assert not [(a, b) for call in calls for a in call for b in call if b.startswith(f"{a}/")]
            named = [name for call in calls for name in call]
            assert f"tests/{part}" in named or everything <= set(named)


@pytest.mark.slow
def test_a_change_is_noticed_and_another_is_not(tmp_path: Path) -> None:
    """In a process of its own, for the tool wants no part of ptewalk to be loaded."""
    program = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tests")
from mutation.changes import ROOT, Change
from mutation.workshop import Workshop, preload
preload()
shop = Workshop(Path(sys.argv[1]))
text = (ROOT / "model" / "page_set.py").read_text()
outcomes = []
for old, new in (("", ""), ("if low < high:", "if low > high:"), ("if low < high:", "while low < high:")):
    start = text.index(old, text.index("class"))
    change = Change("model/page_set.py", 1, start, start + len(old), old, new)
    calls = [["tests/model/served.py"], ["tests/model/test_page_set.py"]]  # no test is in the first
    _, status = os.waitpid(shop.start(change, calls, 20), 0)
    outcomes.append((status == 0, os.WIFSIGNALED(status), "test_page_set" in shop.end()))
    assert (shop.folder / "model" / "page_set.py").read_text() == text
try:
    shop.start(None, [["tests/model/test_of_tomorrow.py"]], 20)
except FileNotFoundError as error:
    print(error)
print(outcomes)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "shop")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "tests/model/test_of_tomorrow.py was made while this ran; start anew" in done.stdout
    assert done.stdout.splitlines()[-1] == "[(True, False, False), (False, False, True), (False, True, False)]"


def test_reasons_are_of_what_stands_there() -> None:
    found = reasons((ROOT / "docs" / "mutation.md").read_text())
    assert found
    for file, old, new in found:
        text = (ROOT / file).read_text()
        made = {(" ".join(c.old.split()), " ".join(c.new.split())) for c in _Finder(file, text).found}
        assert (old, new) in made, f"{file}: {old}"
    assert reasons("- `a.py`: `x + 1` to `(x - 1)`: no one\n  sees it.\n- `b.py`: `1` to `2`: none.\n\nMore.") == {
        ("a.py", "x + 1", "(x - 1)"): "no one sees it.",
        ("b.py", "1", "2"): "none.",
    }


def test_the_report_counts_what_stands_in_the_file(tmp_path: Path) -> None:
    name = digest({file: text for part in PARTS for file, text in sources(part).items()})
    line = dict(sources=name, seed=9, part="rtl", number=0, file="rtl/walker.py", line=7, old="a  b", new="c")
    rows = [
        line | dict(result="noticed", by="t", seconds=1.0),
        line | dict(number=1, result="unnoticed", by="", seconds=1.0),
        line | dict(number=1, result="unnoticed", by="", seconds=1.0, sources="other"),
        line | dict(number=2, result="unnoticed", by="", seconds=1.0, seed=8),
    ]
    path = tmp_path / "mutation.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = [sys.executable, str(ROOT / "tests" / "mutate.py"), "--report", "--seed", "9", "--output", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "rtl/walker.py:7: a b to c: no reason is known",
        "model: 0 of 0 noticed",
        "rtl: 1 of 2 noticed",
        "together: 1 of 2 noticed, 50.0 %",
    ]
    assert done.returncode == 1
