"""The reader of tutorials: what it takes for agreement, and what it does not let pass."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .pages import Command, File, differs, read, run

PAGE = """
Save this:

```python title="two.py"
print("it's", 1 + 1)
```

```console
$ export NAME=there
$ python3 two.py &&
> echo "hello $NAME, $$"
it's 2
hello there, …
```

```console title="long"
$ echo long
short
```
"""


def shown(*printed: str) -> Command:
    """A command of which a page shows that."""
    return Command("do", printed, False)


def test_files_and_commands_in_their_order() -> None:
    assert read(PAGE) == [
        File("two.py", 'print("it\'s", 1 + 1)\n'),
        Command("export NAME=there", (), False),
        Command('python3 two.py &&\necho "hello $NAME, $$"', ("it's 2", "hello there, …"), False),
        Command("echo long", ("short",), True),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\n\n    ptewalk doctor\n", "line 3: code outside ``` is not run: ptewalk doctor"),
        ("~~~\nls\n~~~\n", "line 1: code outside ``` is not run: ~~~"),
        ("```sh\nls\n```\n", "line 1: neither console nor a file with a title: ```sh"),
        ("- so\n\n  ```console\n  $ ls\n  ```\n", "line 3: neither console nor a file with a title:   ```console"),
        ("```console\nls\n```\n", "line 1: the block does not begin with a command: ls"),
        ("```console\n```\n", "line 1: the block has no command"),
        ("```console\n$ ls\n", "line 1: the block has no end"),
        ("```console\n$ ls\n…\n```\n", "line 1: of what ls prints nothing is shown"),
    ],
)
def test_what_would_not_be_run_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        read(text)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        (("a  b",), "a b\n"),
        (("┏━━┳━┓", "│ 7… │ 1 │"), "┏━━━━━━┳━━━┓   \n│ 7.3.4 │ 1   │\n"),
        (("a … b",), "a b\n"),
        (("a", "…", "b"), "a\nb\n"),
        (("a", "…", "b"), "a\nx\ny\nb\n"),
        (("a",), "a"),
        ((), ""),
    ],
)
def test_what_agrees(page: tuple[str, ...], printed: str) -> None:
    assert differs(shown(*page), printed) == ""


@pytest.mark.parametrize(
    ("page", "printed"),
    [
        (("a",), "b\n"),
        (("a",), "a\nb\n"),
        (("a", "b"), "a\n"),
        ((), "a\n"),
        (("a…b",), "a\nb\n"),
        (("a.c",), "abc\n"),
        (("┏━┳━┓",), "┏━┓\n"),
        (("│ 7… │ 1 │",), "│ 7.3.4 │ 2 │\n"),
        (("a", "…", "b"), "a\nb\nc\n"),
    ],
)
def test_what_differs(page: tuple[str, ...], printed: str) -> None:
    told = differs(shown(*page), printed)
    assert told.startswith("$ do\n")


def test_a_page_is_done_as_it_stands(tmp_path: Path) -> None:
    assert run(read(PAGE), tmp_path, {}) == ""
    assert (tmp_path / "two.py").is_file()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("it's 2", "it's 3", "-it's 3\n"),
        ("1 + 1", "1 + 2", "+it's 3\n"),
        ("python3 two.py &&", "python3 three.py &&", "failed with 2: $ python3 three.py"),
        ("export NAME=there", "exit 0", "not run: $ exit 0"),
        ("export NAME=there", "export NAME=her", "+hello her, "),
        ("export NAME=there", "read NAME", "failed with 1: $ read NAME"),
    ],
)
def test_a_page_that_is_wrong_is_told(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert PAGE.count(old) == 1
    assert said in run(read(PAGE.replace(old, new)), tmp_path, {})


def test_what_takes_long_is_run_where_it_is_asked_for(tmp_path: Path) -> None:
    assert "-short\n+long" in run(read(PAGE), tmp_path, {}, long=True)


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    page = read("```console\n$ sleep 61.7 & echo $! > pid; wait\n```\n")
    until = time.monotonic() + 30
    assert "not done in 1 s" in run(page, tmp_path, {}, timeout=1)
    of = Path("/proc", (tmp_path / "pid").read_text().strip(), "stat")
    while time.monotonic() < until and of.exists() and of.read_text().split()[2] not in "ZX":
        time.sleep(0.01)
    assert time.monotonic() < until


def test_the_callers_environment_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PTEWALK_REQUIRE_ALL": "1", "FORCE_COLOR": "1", "PYTHONIOENCODING": "ascii"}.items():
        monkeypatch.setenv(name, value)
    page = read('```console\n$ echo "so$PTEWALK_REQUIRE_ALL$FORCE_COLOR"; python3 -c "print(chr(9473))"\nso\n━\n```\n')
    assert run(page, tmp_path, {}) == ""
