"""The first five minutes: the pages of a program light up as they are written, the kernel's way and the gateware's."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.cli.common import DIFFER, design_option, json_option, mutant_option, option, progress
from ptewalk.cosim.cli.programs import make_walker

__all__ = ["COLUMNS", "ROWS", "demo", "picture"]

COLUMNS: Final = 32
"""Cells in a line of a picture."""
ROWS: Final = 12
"""Lines of a picture; where there are more pages, a cell stands for several."""
_GLOW: Final = ("bold bright_yellow", "yellow", "dark_orange3", "red3", "dark_red")
"""Of a cell written in this epoch, in the one before, and so on."""
_DARK: Final = "grey30"
_LATENCY: Final = 16
"""Of memory, in cycles."""


def picture(cells: Sequence[Any], frames: Sequence[Any]) -> Text:
    """The pages of a run at the end of the last of some epochs.

    Parameters
    ----------
    cells : sequence of Place
        The pages that are shown, in order.
    frames : sequence of Frame
        The epochs until now.
    """
    each = -(-len(cells) // (COLUMNS * ROWS)) or 1
    groups = [cells[at : at + each] for at in range(0, len(cells), each)]
    recent = [frame.reported for frame in reversed(frames[-len(_GLOW) :])]
    text = Text()
    for number, group in enumerate(groups):
        if number and not number % COLUMNS:
            text.append("\n")
        age = next((age for age, reported in enumerate(recent) if not reported.isdisjoint(group)), None)
        text.append("■" if age is not None else "·", style=_DARK if age is None else _GLOW[age])
    return text


def _panel(title: str, cells: Sequence[Any], frames: Sequence[Any]) -> Panel:
    last = frames[-1] if frames else None
    counts = f"page faults {last.faults if last else 0}\nmarks by the gateware {last.marks if last else 0}"
    return Panel(Group(picture(cells, frames), Text(), Text(counts)), title=title, width=COLUMNS + 4)


@click.command()
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[PROGRAM [ARGUMENT]...]")
@option("--profile", default="linux-6.1", show_default=True, help="What the operating system does.")
@design_option
@option("--epoch", metavar="KIND", help="For PROGRAM: syscalls:N, instructions:N or marker; by default syscalls:8.")
@option("--pace", type=click.FloatRange(0, 10), default=0.08, show_default=True, help="Seconds an epoch is shown.")
@json_option
@mutant_option
def demo(command: tuple[str, ...], profile: str, design: str, epoch: str | None, pace: float, as_json: bool) -> int:
    """Watch the pages that a program writes, as Linux finds them and as the gateware does.

    The program runs twice on the gateware, by default a garbage collector that comes with this (its source is
    cosim/programs/sources/collector.c; it needs gcc, and without it the machine's sort is taken). In the left picture
    Linux write-protects every page and learns of the first write by a page fault; in the right one the walker marks the
    entry, and there is no fault. A bright cell is a page that was written in this epoch.

    An exit code of 1: a store was lost, or the two runs reported different pages.
    """
    if epoch is not None and not command:
        raise ToolError("--epoch is for a PROGRAM of your own: name one")
    from ptewalk.cosim.checks.replay import find_machine
    from ptewalk.cosim.programs.demo import GATEWARE, KERNEL, compared, watch
    from ptewalk.cosim.programs.epochs import Every
    from ptewalk.cosim.programs.run import Settings
    from ptewalk.cosim.programs.trace_runs import TRAP_CYCLES
    from ptewalk.cosim.programs.workloads import WORKLOADS, prepare

    machine, exact = find_machine(profile)
    with tempfile.TemporaryDirectory(prefix="ptewalk-") as name:
        folder = Path(name)
        every, chosen = Every.parse(epoch or "syscalls:8"), list(command)
        if not chosen:
            prepare(folder, small=True)
            workload = WORKLOADS["collector"]
            every, chosen = workload.every, workload.argv(folder)
            if workload.missing():
                every, chosen = Every("syscalls", 2), [shutil.which("sort") or "sort", "-n", str(folder / "lines")]
        settings = Settings(machine, exact=exact, seed=1, told="gateware", design=design, epoch=every)
        walker = make_walker("gateware", design)
        with progress(f"{machine.name} runs {Path(chosen[0]).name}"):
            kernel = watch(settings, walker, chosen, KERNEL)
        cells = sorted(set().union(*(frame.reported for frame in kernel.frames)))
        drawn = sys.stdout.isatty() and not as_json
        with Live(console=Console(), auto_refresh=False) if drawn else nullcontext() as live:
            shown: list[Any] = []

            def told(frame: Any) -> None:
                shown.append(frame)
                beside = Table.grid(padding=(0, 1))
                beside.add_row(
                    _panel(f"{machine.name} alone", cells, kernel.frames[: len(shown)]),
                    _panel("with the gateware", cells, shown),
                )
                assert live is not None
                live.update(beside, refresh=True)
                time.sleep(pace)

            gateware = watch(settings, walker, chosen, GATEWARE, told if drawn else lambda frame: None)
    result = {"program": list(command) or [Path(chosen[0]).name], "profile": machine.name, "design": design}
    result |= compared(kernel, gateware, latency=_LATENCY, trap=TRAP_CYCLES)
    click.echo(json.dumps(result) if as_json else _told(result, TRAP_CYCLES))
    return DIFFER if result["lost"] or result["same"] != result["epochs"] or not result["output"] else 0


def _told(result: dict[str, Any], trap: int) -> str:
    kernel, gateware = result["kernel"], result["gateware"]
    extra = kernel["faults"] - gateware["faults"]
    return "\n".join(
        (
            f"{result['program'][0]}: {result['epochs']} epochs, {result['reported']} pages reported, "
            f"{result['lost']} stores lost; both ways report the same pages in {result['same']} of them.",
            f"{result['profile']} alone: {kernel['faults']} page faults, {extra} of them only to learn of a write; "
            f"{kernel['tracking_cycles']} cycles.",
            f"With the gateware: {gateware['faults']} page faults, {gateware['marks']} marks by the walker; "
            f"{gateware['tracking_cycles']} cycles.",
            f"(Cycles with a trap of {trap} and memory that answers in {_LATENCY}: docs/run.md)",
        )
    )
