"""Campaigns: work of hours, cut into chunks, in processes or on a Dask scheduler; and what they covered."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.cli.common import DIFFER, MUTANT, jobs_option, json_option, mutant_option, option, seed_option, show


@click.command()
@click.argument("plan", metavar="PLAN")
@option("--only", multiple=True, metavar="PART", help="Part of the plan; may be given several times, by default all.")
@option("--share", type=click.IntRange(1), default=1, show_default=True, help="Of each part one in so many cases.")
@option("--part", "part_name", metavar="PART", help="Instead: run one chunk of this part again, and keep nothing.")
@option("--chunk", "number", type=click.IntRange(0), help="With --part: its number.")
@option("--size", type=click.IntRange(1), help="With --part: so many cases of it; by default all.")
@option(
    "--scheduler", metavar="ADDRESS", help="Of a Dask scheduler, such as tcp://host:8786, instead of processes here."
)
@option(
    *("--output", "-o"),
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of chunks and result; by default results/campaign-PLAN. The same command goes on with what it has.",
)
@seed_option
@jobs_option
@json_option
@mutant_option
def campaign(
    plan: str,
    only: tuple[str, ...],
    share: int,
    part_name: str | None,
    number: int | None,
    size: int | None,
    scheduler: str | None,
    output: Path | None,
    seed: int | None,
    jobs: int,
    as_json: bool,
) -> int:
    """Run a plan of much work: a file, or one that comes with ptewalk (nightly, standard).

    What each chunk gave is appended to a file as it is done, so an interrupted campaign goes on by the same command. A
    process that dies loses nothing. --seed is by default the plan's.
    """
    if (part_name is None) != (number is None) or (part_name is None and size is not None):
        raise ToolError("--part NAME and --chunk NUMBER go together, and --size with them")
    if part_name is not None and (only or share > 1 or scheduler or output):
        raise ToolError("--part runs one chunk here: leave out --only, --share, --scheduler and --output")
    from ptewalk.cosim.campaigns.plan import read_plan
    from ptewalk.cosim.campaigns.run import in_processes, run_campaign

    mutant = click.get_current_context().meta.get(MUTANT)
    read = read_plan(plan, seed=seed, share=share, only=only)

    def repeat(part: Any, chunk: Any, cases: int) -> str:
        words = f"ptewalk campaign {plan} --part {part.name} --chunk {chunk.number} --size {cases} --seed {part.seed}"
        return words + (f" --mutant {mutant}" if mutant else "")

    if part_name is not None:
        assert number is not None
        return _one_chunk(read.part(part_name), number, size, repeat, seed, as_json)
    if scheduler is None:
        execute = in_processes(jobs)
    else:
        from ptewalk.cosim.campaigns.dask import on_scheduler

        execute = on_scheduler(scheduler)
    folder = output or Path("results") / f"campaign-{read.name}{f'-{mutant}' if mutant else ''}"
    with _progress() as advance:
        result = run_campaign(
            *(read, folder, execute),
            repeat=repeat,
            progress=advance,
            say=lambda text: click.echo(text, err=True),
        )
    if as_json:
        click.echo(json.dumps(result))
    else:
        names = ("part", "kind", "chunks", "comparisons", "mismatches", "skipped", "failed_chunks")
        rows = [{name: row[name] for name in names} | {"notes": _notes(row["numbers"])} for row in result["parts"]]
        show(rows, f"campaign {read.name}")
        for text in result["failures"]:
            click.echo(text)
        told = f"{result['comparisons']} comparisons, {result['mismatches']} mismatches"
        click.echo(f"{told}; {folder / 'result.json'}")
    return DIFFER if result["mismatches"] or result["failures"] else 0


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER")
@option("--only", type=click.Choice(("bins", "lines")), help="Of both: functional bins, or the gateware's lines.")
@option(
    "--least",
    type=click.FloatRange(0, 100),
    default=100.0,
    show_default=True,
    help="Per cent of lines, and of branches, that must have been in force.",
)
@option("--toggles", is_flag=True, help="Also name the bits of the gateware's signals that did not rise and fall.")
@json_option
def coverage(folder: Path, only: str | None, least: float, toggles: bool, as_json: bool) -> int:
    """Tell what a campaign met of all that its components can meet.

    FOLDER is that of `campaign`, ended or not. Each cross of functional coverage is a row; below stand the bins that
    were not met, each with the chunk that came nearest. Where parts have `lines = "yes"`, each file of the gateware
    that their designs have is a row, too, with the statements and branches of its Python that never were in force, and
    how many bits of its signals rose and fell.
    The exit code is 1 where a bin was not met, or too few lines or branches.
    """
    from ptewalk.cosim.campaigns import coverage as covered
    from ptewalk.cosim.campaigns import lines as gateware

    found = [] if only == "lines" else covered.coverage_of(folder)
    files = [] if only == "bins" else gateware.lines_of(folder)
    if only == "lines" and not files:
        raise ToolError(f'{folder}: no part of this campaign counts lines: have one with lines = "yes" in its plan')
    ours = [one for one in files if one.designed]
    shares = _shares(ours)
    whole = all(one.met == one.bins and not one.surprises for one in found)
    whole = whole and not any(one.surprises for one in ours) and all(share >= least for share in shares.values())
    if as_json:
        told = {"coverage": covered.as_json(found), "lines": gateware.lines_as_json(files)}
        click.echo(json.dumps(told))
        return 0 if whole else DIFFER
    if found:
        _show_bins(folder, found)
    if ours:
        _show_lines(folder, files, shares, least, toggles)
    return 0 if whole else DIFFER


def _show_bins(folder: Path, found: list[Any]) -> None:
    rows = [
        {
            "kind": one.kind,
            "cross": one.cross.name,
            "of": " x ".join(name for name, _ in one.cross.axes),
            "bins": one.bins,
            "met": one.met,
            "not met": len(one.gaps),
            "excluded": sum(one.excluded.values()),
        }
        for one in found
    ]
    show(rows, f"functional coverage of {folder}")
    for one in found:
        for reason, count in one.excluded.items():
            click.echo(f"excluded: {count} of {one.cross.name}: {reason}")
        for name in one.surprises:
            click.echo(f"met although it is excluded: {name}")
        for gap in one.gaps:
            part, chunk = gap.nearest or (None, 0)
            near = f"; nearest: part {part.name}, chunk {chunk}, seed {part.seed}" if part else ""
            click.echo(f"not met: {gap.name}{near}")


def _shares(files: list[Any]) -> dict[str, float]:
    """Per cent of the lines and of the branches of files that were in force."""
    shares = {}
    for name in ("lines", "branches"):
        wanted, met = (sum(getattr(one, key) for one in files) for key in (name, f"{name}_met"))
        shares[name] = 100 * met / wanted if wanted else 100.0
    return shares


def _show_lines(folder: Path, files: list[Any], shares: dict[str, float], least: float, toggles: bool) -> None:
    ours = [one for one in files if one.designed]
    rows = [
        {
            "file": one.file,
            "lines": one.lines,
            "in force": one.lines_met,
            "branches": one.branches,
            "taken": one.branches_met,
            "bits": one.bits,
            "toggled": one.toggled,
            "excluded": sum(one.excluded.values()),
        }
        for one in ours
    ]
    show(rows, f"lines of the gateware in force in {folder}")
    for one in ours:
        for reason, count in one.excluded.items():
            click.echo(f"excluded: {count} of {one.file}: {reason}")
        for name in one.surprises:
            click.echo(f"in force although it is excluded: {name}")
        for name, text in one.gaps:
            click.echo(f"never in force: {name}: {text}")
        for name, bits in one.still if toggles else ():
            click.echo(f"did not rise and fall: {name}: {bits}")
    if others := [one.file for one in files if not one.designed]:
        click.echo(f"in no design of this campaign: {', '.join(others)}")
    for name, share in shares.items():
        few = f", less than {least:g} %" if share < least else ""
        click.echo(f"{name}: {share:.2f} % of those in these files{few}")
    if bits := sum(one.bits for one in ours):
        click.echo(f"bits: {100 * sum(one.toggled for one in ours) / bits:.2f} % rose and fell")


def _one_chunk(
    part: Any, number: int, size: int | None, repeat: Callable[[Any, Any, int], str], seed: int | None, as_json: bool
) -> int:
    """Run a chunk again, here."""
    from ptewalk.cosim.campaigns.kinds import KINDS
    from ptewalk.cosim.campaigns.run import placed, run_chunk, told_of
    from ptewalk.cosim.runs.workers import Chunk

    most = KINDS[part.kind].chunk
    if size is not None and size > most:
        raise ToolError(f"--size {size}: a chunk of {part.kind} has {most} cases at most")
    chunk = Chunk(part.seed if seed is None else seed, number, size or most)
    told = told_of(run_chunk(KINDS[part.kind].open(part.options)[0], part, chunk, smallest=False))
    failures = [placed(one, part, chunk, repeat(part, chunk, chunk.size)) for one in told.counts.failures[:1]]
    if as_json:
        click.echo(json.dumps(told.counts.as_json() | {"kept": told.kept}))
    else:
        for failure in failures:
            click.echo(str(failure))
        click.echo(told.kept, nl=False)
        click.echo(f"{told.counts.comparisons} comparisons, {told.counts.mismatches} mismatches")
    return DIFFER if told.counts.mismatches or failures else 0


def _notes(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in numbers.items())


@contextmanager
def _progress() -> Iterator[Callable[[int, int, int], None]]:
    """Chunks, comparisons a second and the time left on stderr, where that is a terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("chunks, {task.fields[rate]}"), TimeRemainingColumn())
    bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    began: list[tuple[float, int]] = []
    with bar:
        task = bar.add_task("", total=None, rate="")

        def advance(done: int, total: int, compared: int) -> None:
            began.append((time.monotonic(), compared)) if not began else None
            (start, before), now = began[0], time.monotonic()
            rate = f"{(compared - before) / (now - start):,.0f} comparisons a second" if now > start else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield advance
