"""What the groups of commands share: options, exit codes, tables, progress.

What a command needs is imported when it runs: a mutant must be in place before the gateware is imported, and the golden
model's commands work without a simulator.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.cli.start import INTERRUPTED

DIFFER = 1
BAD_USE = 2
DEFECT = 3
__all__ = [
    "BAD_USE",
    "DEFECT",
    "CACHING",
    "DESIGNS",
    "DIFFER",
    "INTERRUPTED",
    "MUTANT",
    "SIMULATORS",
    "TRACKS",
    "UNCACHED",
    "chosen_kernel",
    "compiled_option",
    "counted",
    "deb_option",
    "design_option",
    "files_argument",
    "jobs_option",
    "json_option",
    "kernel_option",
    "mutant_option",
    "option",
    "progress",
    "registers_option",
    "seed_option",
    "show",
    "simulator_option",
]

TRACKS = ("off", "fault", "native")
SIMULATORS = ("verilator", "icarus", "cxxrtl")
COMPILED = ("verilator", "cxxrtl")
"""As `simulate.find.COMPILED`, which is imported late."""
MUTANT = "ptewalk.mutant"
_TOLD: Final = 100
T = TypeVar("T")
CACHING = ("mmu-small", "mmu", "mmu-fast", "mmu-8walkers")
"""Designs with caches: keys of `rtl.presets.CACHING`, which is imported late."""
UNCACHED = "mmu-uncached"
DESIGNS = (UNCACHED, *CACHING)


def _activate(context: click.Context, _: click.Parameter, name: str | None) -> str | None:
    if name is not None:
        from ptewalk.cosim.simulate.mutants import activate

        activate(name)
        context.meta[MUTANT] = name
    return name


def option(*names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(*names, **attributes)


mutant_option = option(
    "--mutant",
    callback=_activate,
    is_eager=True,
    expose_value=False,
    help="Run on a copy of the gateware with this defect.",
)
json_option = option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
simulator_option = option(
    "--simulator",
    type=click.Choice(SIMULATORS),
    help="Verilator, Icarus, or for what runs by compiled code CXXRTL; by default the best there is of the first two.",
)
compiled_option = option(
    "--simulator",
    type=click.Choice(COMPILED),
    help="Of the gateware, which runs by compiled code; by default Verilator.",
)
design_option = option(
    "--design",
    type=click.Choice(DESIGNS),
    default=UNCACHED,
    show_default=True,
    help="For --backend gateware: no caches, a TLB, caches of upper entries too, or eight walkers as well.",
)
registers_option = option(
    "--registers",
    is_flag=True,
    help="For --backend gateware: that design in a unit that the driver uses by its registers alone.",
)
seed_option = option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="Of all that is left to chance; by default a new one, printed."
)
jobs_option = option(
    "--jobs",
    type=click.IntRange(1),
    default=lambda: len(os.sched_getaffinity(0)),
    show_default="as many as there are processors",
    help="Processes, for what runs on the library.",
)
kernel_option = option(
    "--kernel",
    metavar="PATH|SERIES",
    help="For a live kernel: a bzImage, or Debian's newest of a series, such as 6.1, 6.12, 6.18 or 7.3.",
)
deb_option = option(
    "--deb",
    "packages",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="For a live kernel: a Debian package of it; may be given several times (linux-binary-*, linux-modules-*).",
)
files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE..."
)


_LONG_WORD = 32
"""Characters that a column keeps together; longer words, such as paths, may be folded."""


def show(rows: list[dict[str, Any]], title: str = "", width: int | None = None) -> None:
    """Print rows of one shape as a table; one below the other where words would have to be split to fit the terminal.

    `width` is by default the terminal's, or 160 where there is none.
    """
    console = Console(width=width or (None if sys.stdout.isatty() else 160))
    names = {name: name.replace("_", " ") for name in rows[0]}
    cells = [{name: "" if row[name] is None else str(row[name]) for name in names} for row in rows]
    least = {
        name: min(
            _LONG_WORD, max(len(word) for text in (names[name], *(row[name] for row in cells)) for word in _words(text))
        )
        for name in names
    }
    if sum(least.values()) + 3 * len(least) + 1 > console.width:
        if title:
            console.print(title, style="bold", highlight=False, markup=False)
        for row in cells:
            lines = Table.grid(padding=(0, 2))
            for name, text in row.items():
                lines.add_row(Text(names[name]), Text(text))
            console.print(lines, "")
        return
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for name in names:
        table.add_column(names[name], overflow="fold", min_width=least[name])
    for row in cells:
        table.add_row(*map(Text, row.values()))
    console.print(table)


def _words(text: str) -> list[str]:
    return text.split() or [""]


def chosen_kernel(kernel: str | None, packages: tuple[Path, ...]) -> str | None:
    """What --kernel names, or the image in the packages of --deb."""
    if kernel is not None and packages:
        raise ToolError("--kernel and --deb name two kernels: leave one out")
    if not packages:
        return kernel
    from ptewalk.cosim.oracles.linux.kernels import unpack

    return str(unpack(packages))


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr where that is a terminal; gives the function to call with (done, of)."""
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def counted(things: Iterable[T], before: int, total: int, advance: Callable[[int, int], None]) -> Iterator[T]:
    """Each of `things`, told to a progress bar now and then; `before` were done before."""
    for number, thing in enumerate(things, before):
        if number % _TOLD == 0:
            advance(number, total)
        yield thing
