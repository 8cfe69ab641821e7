"""A tutorial's page as a session: its files are written, its commands run in order, and what they print is compared.

What a page may show is a fenced block of one of two kinds, and nothing else:

- `console`: each line that begins with `$ ` is a command, one that begins with `> ` goes on with it; the lines after
  it are what it prints, on standard output and error. Each command must succeed. A block with a title
  (`title="two minutes"`) takes long, and is run where long ones are asked for; nothing outside such blocks may need
  what it leaves.
- any other with a title: a file of that name.

`…` in a line stands for any text there, or none; a line of `…` alone, for any lines. How wide a table is does not
count: blanks and the strokes of frames are as good as one of them. All else must be as it is printed.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["Command", "File", "Page", "differs", "read", "run"]

_FENCE: Final = re.compile(r"^```(\w*)(?: title=\"([^\"]+)\")?$")
_UNSET = {"KERNEL", "FORCE_COLOR", "TTY_COMPATIBLE", "PYTHONIOENCODING"}
"""What would change what commands print, or do."""
_END: Final = "the end of a command"


@dataclass(frozen=True)
class File:
    """A file that the reader is to save."""

    name: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command, what the page says that it prints, and whether it takes long."""

    line: str
    printed: tuple[str, ...]
    long: bool


Page = list[File | Command]


def read(text: str) -> Page:
    """What a page has the reader do, in order.

    Raises
    ------
    ValueError
        For a block that would be neither run nor saved; it is named by its line.
    """
    page: Page = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if re.match(r" {4}\S", line) or (line.startswith("~~~")):
            raise ValueError(f"line {number}: code outside ``` is not run: {line.strip()}")
        if not line.lstrip().startswith("```"):
            continue
        fence = _FENCE.match(line)
        if fence is None or (fence[1] != "console" and fence[2] is None):
            raise ValueError(f"line {number}: neither console nor a file with a title: {line}")
        block = []
        for _, inner in lines:
            if inner == "```":
                break
            block.append(inner)
        else:
            raise ValueError(f"line {number}: the block has no end")
        if fence[1] == "console":
            page += _commands(number, block, fence[2] is not None)
        else:
            page.append(File(fence[2], "".join(f"{inner}\n" for inner in block)))
    return page


def _commands(number: int, block: list[str], long: bool) -> Page:
    """The commands of a console block that begins at a line."""
    found: list[tuple[list[str], list[str]]] = []
    for line in block:
        if line.startswith("$ "):
            found.append(([line[2:]], []))
        elif not found:
            raise ValueError(f"line {number}: the block does not begin with a command: {line}")
        elif line.startswith("> ") and not found[-1][1]:
            found[-1][0].append(line[2:])
        else:
            found[-1][1].append(line)
    if not found:
        raise ValueError(f"line {number}: the block has no command")
    for command, printed in found:
        if printed and all(line.strip() == "…" for line in printed):
            raise ValueError(f"line {number}: of what {command[0]} prints nothing is shown")
    return [Command("\n".join(command), tuple(printed), long) for command, printed in found]


def _plain(line: str) -> str:
    """A line without what only its table's width decides."""
    return re.sub(r"([━─═]) *(?=\1)", "", re.sub(r"[ \t]+", " ", line.rstrip()))


def _pattern(printed: tuple[str, ...]) -> str:
    """The regular expression of what a command may print."""
    lines = []
    for line in map(_plain, printed):
        pieces = re.split(" ?… ?", line)
        lines.append(r"(?:[^\n]*\n)*" if pieces == ["", ""] else r"[^\n]*".join(map(re.escape, pieces)) + r"\n")
    return "".join(lines)


def differs(command: Command, printed: str) -> str:
    """What a command printed beside what the page says; empty where they agree."""
    lines = [_plain(line) for line in printed.splitlines()]
    if re.fullmatch(_pattern(command.printed), "".join(f"{line}\n" for line in lines)):
        return ""
    shown = [_plain(line) for line in command.printed]
    told = difflib.unified_diff(shown, lines, "the page", "printed", lineterm="", n=1)
    return f"$ {command.line}\n" + "\n".join(told)


def run(page: Page, folder: Path, environment: dict[str, str], long: bool = False, timeout: float = 800) -> str:
    """Do what a page says, in one shell that begins in a folder, up to what goes otherwise.

    Parameters
    ----------
    page : list of File or Command
    folder : Path
    environment : dict of str to str
        Set beside the test's own.
    long : bool
        Run what takes long too.
    timeout : float
        Seconds, for all of it.

    Returns
    -------
    str
        Empty when all is as the page says; else the first command that failed or printed something else, and how.
    """
    steps = [step for step in page if isinstance(step, File) or long or not step.long]
    script = ["exec 2>&1 < /dev/null"]
    for step in steps:
        if isinstance(step, File):
            script.append(f"printf %s {shlex.quote(step.text)} > {shlex.quote(step.name)} || exit")
        else:
            # What fails ends the session: what follows would only hide it.
            script.append(f"{step.line}\nended=$?; echo; echo {shlex.quote(_END)} $ended; test $ended = 0 || exit")
    own = {name: value for name, value in os.environ.items() if not name.startswith("PTEWALK_") and name not in _UNSET}
    with subprocess.Popen(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env={**own, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **environment},
        text=True,
        encoding="utf-8",
        errors="replace",
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as shell:
        try:
            told, _ = shell.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)  # what it started, too
            told = shell.communicate()[0] + f"\nnot done in {timeout:.0f} s\n"
    commands = [step for step in steps if isinstance(step, Command)]
    printed = re.split(rf"\n?^{_END} (\d+)\n", told, flags=re.M)
    for place, command in enumerate(commands):
        if 2 * place + 1 >= len(printed):
            return f"not run: $ {command.line}\n{printed[-1]}"
        if printed[2 * place + 1] != "0":
            return f"failed with {printed[2 * place + 1]}: $ {command.line}\n{printed[2 * place]}"
        if difference := differs(command, printed[2 * place]):
            return difference
    return ""
