"""Traces of real programs, and of files, through the MMU that caches."""

from __future__ import annotations

import csv
import io
import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, write_whole
from ptewalk.cosim.cli.common import (
    CACHING,
    TRACKS,
    compiled_option,
    json_option,
    mutant_option,
    option,
    progress,
    show,
)
from ptewalk.cosim.cli.programs import SIZE

_MOST_LATENCY = 10_000


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[PROGRAM [ARGUMENT]...]")
@option("--file", "source", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A trace instead.")
@option("--design", type=click.Choice(CACHING), default="mmu", show_default=True, help="Preset.")
@option("--log", is_flag=True, help="With a dirty log: a record for each mark, counted and compared with the marks.")
@compiled_option
@option("--profile", default="linux-6.1", show_default=True, help="What the operating system does.")
@option(
    "--track", "tracks", type=click.Choice(TRACKS), multiple=True, help="By default all three, one after the other."
)
@option("--latency", type=click.IntRange(1, _MOST_LATENCY), default=16, show_default=True, help="Of memory, in cycles.")
@option("--trap-cycles", type=click.IntRange(0), help="Assumed cost of a page fault in software; by default 1842.")
@option("--epoch", metavar="KIND", help="Clear soft-dirty: syscalls:N, instructions:N, marker; of a file accesses:N.")
@option("--accesses", "most", type=click.IntRange(1), help="End after so many, or a few thousand more.")
@option("--root", type=click.Path(exists=True, file_okay=False, path_type=Path), default=Path("/"), help="As of run.")
@option("--memory", type=SIZE, default="1G", show_default=True, help="Physical memory.")
@option("--stdin", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its standard input.")
@option("--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="As of run.")
@option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the trace; with one --track.")
@option("--csv", "table_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows to this file too.")
@json_option
@mutant_option
def trace(
    command: tuple[str, ...],
    source: Path | None,
    design: str,
    log: bool,
    simulator: str | None,
    profile: str,
    tracks: tuple[str, ...],
    latency: int,
    trap_cycles: int | None,
    epoch: str | None,
    most: int | None,
    root: Path,
    memory: int,
    stdin: Path | None,
    seed: int,
    save: Path | None,
    table_file: Path | None,
    as_json: bool,
) -> int:
    """Every access of a PROGRAM, or of a trace in a file, through the gateware's MMU that caches.

    Counts accesses, hits by size of the page, walks, marks, mends and faults, and the gateware's cycles; a page fault
    is added at an assumed cost. The program's output is dropped. A file is the project's own (--save, docs/run.md) or
    what valgrind --tool=lackey --trace-mem=yes prints; each page of it is anonymous memory.
    """
    chosen = tuple(dict.fromkeys(tracks)) or TRACKS
    if (source is None) == (not command):
        raise ToolError("give either a PROGRAM with its arguments, or a trace by --file")
    if save is not None and (source is not None or len(chosen) != 1):
        raise ToolError("--save writes the trace of a program: give one --track, and no --file")
    for path in (save, table_file):
        if path is not None:
            check_writable(path)
    from ptewalk.cosim.checks.replay import find_machine
    from ptewalk.cosim.programs.trace_runs import TRAP_CYCLES, row
    from ptewalk.cosim.runs.tracing import trace_library
    from ptewalk.model.linux import Track

    found, exact = find_machine(profile)
    cost = TRAP_CYCLES if trap_cycles is None else trap_cycles
    every = _accesses(epoch, most) if source is not None else 0
    with progress("the gateware is built"):
        library = trace_library(design, simulator or "verilator", log=log)
    rows: list[dict[str, Any]] = []
    more: list[dict[str, Any]] = []
    for track in chosen:
        if source is not None:
            counts, accesses = _file(source, library, found, Track[track.upper()], latency, memory, every)
            rows.append(row(track, counts, accesses, cost))
            more.append({"walks_of_reads": counts.walks_of_reads})
            continue
        from ptewalk.cosim.programs.epochs import Every
        from ptewalk.cosim.programs.run import Settings
        from ptewalk.cosim.programs.trace_runs import trace_program

        settings = Settings(
            *(found, Track[track.upper()]), exact=exact, root=root, memory_bytes=memory, seed=seed,
            epoch=None if epoch is None else Every.parse(epoch),
        )  # fmt: skip
        with ExitStack() as stack:
            traced = trace_program(
                *(settings, command, library),
                latency=latency,
                most=most or 0,
                save=None if save is None else stack.enter_context(save.open("wb")),
                stdin=None if stdin is None else stack.enter_context(stdin.open("rb")),
                told=lambda text: click.echo(text, err=True, nl=False),
            )
        rows.append(row(track, traced.counts, traced.accesses, cost))
        lost = None if traced.epochs is None else traced.epochs["lost"]
        counts = traced.counts
        told = {"status": traced.status, "instructions": traced.instructions, "lost": lost}
        more.append({**told, "walks_of_reads": counts.walks_of_reads})
    if table_file is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(table_file, text.getvalue())
    what = {"design": design, "profile": profile, "latency": latency, "cycles_of_a_trap": cost, "epoch": epoch}
    if as_json:
        both = [{**one, **other} for one, other in zip(rows, more, strict=True)]
        click.echo(json.dumps({"trace": str(source) if source else list(command), **what, "rows": both}))
    else:
        told_as = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in what.items() if value is not None)
        show(rows, f"trace: {told_as}")
    return 0


def _accesses(epoch: str | None, most: int | None) -> int:
    """N of accesses:N; 0 for none."""
    if most is not None:
        raise ToolError("--accesses is for a program; cut the file instead")
    if epoch is None:
        return 0
    kind, _, count = epoch.partition(":")
    if kind != "accesses" or not count.isdigit() or not int(count):
        raise ToolError(f"no epoch {epoch!r} of a file: give accesses:N")
    return int(count)


def _file(
    source: Path, library: Path, profile: Any, track: Any, latency: int, memory: int, every: int
) -> tuple[Any, int]:
    """(counts, accesses) of a file."""
    from ptewalk.cosim.programs.trace import replay_words
    from ptewalk.cosim.programs.trace_files import read_words, touched

    pages, total = touched(source)
    with progress(f"{source.name}, {track.name.lower()}") as bar:
        mmu = replay_words(
            *(read_words(source), pages, library, profile, track),
            latency=latency,
            memory_bytes=memory,
            epoch=every,
            progress=lambda done: bar(done, total),
        )
    counts = mmu.counts()
    mmu.lane.close()
    return counts, total
