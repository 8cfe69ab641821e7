"""The regression, and the waves of a batch of it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, keep_earlier, made_folder, write_whole
from ptewalk.cosim.cli.common import (
    CACHING,
    DIFFER,
    MUTANT,
    jobs_option,
    json_option,
    mutant_option,
    option,
    progress,
    seed_option,
    show,
    simulator_option,
)

_PARTS = ("recorded", "random", "replay", "caches", "bus", "engine", "log", "list")


@click.command()
@simulator_option
@option(
    "--walks",
    "count",
    type=click.IntRange(1),
    help="Random walks (accesses of caches, bursts of bus, grants of engine) on the batch level; fewer on Icarus.",
)
@option(
    "--only", type=click.Choice(_PARTS), multiple=True, help="Part of the regression; by default all but log and list."
)
@option("--design", "designs", type=click.Choice(CACHING), multiple=True, help="Of those that cache; by default all.")
@option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Result file; by default results/cosim.json, and an earlier one there becomes cosim-1.json, cosim-2.json, ...",
)
@seed_option
@jobs_option
@option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where walks beyond 30,000 are kept as they are done: the same command goes on from there.",
)
@json_option
@mutant_option
def cosim(
    simulator: str | None,
    count: int | None,
    only: tuple[str, ...],
    designs: tuple[str, ...],
    output: Path | None,
    seed: int | None,
    jobs: int,
    journal: Path | None,
    as_json: bool,
) -> int:
    """The standard regression: gateware against golden model and recorded engines, in every simulator there is."""
    from ptewalk.cosim.runs.regression import run_regression

    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    named, output = output, output or Path("results") / "cosim.json"
    check_writable(output)
    with progress("chunks of walks") as advance:
        result = run_regression(
            simulator,
            count,
            only,
            seed,
            designs=designs,
            say=lambda text: click.echo(text, err=True),
            jobs=jobs,
            journal=journal,
            progress=advance,
        )
    if not result["rows"]:
        what = ", ".join((*only, *designs)) or "the regression"
        why = "; ".join(result["not_run"]) or f"nothing of {what} runs there"
        raise ToolError(f"{simulator or 'no simulator'}: {why}; choose another --simulator or --only")
    earlier = keep_earlier(output) if named is None else None
    write_whole(output, json.dumps(result, indent=1) + "\n")
    if earlier is not None:
        click.echo(f"{output} of an earlier run is now {earlier}", err=True)
    if as_json:
        click.echo(json.dumps(result))
    else:
        show(result["rows"], f"cosim, seed {seed}")
        for line in result["failures"]:
            click.echo(line)
        for line in result["picture"]:
            click.echo(line)
        for line in result["not_run"]:
            click.echo(f"not run: {line}")
        click.echo(f"{result['comparisons']} comparisons, {result['mismatches']} mismatches; written to {output}")
    return DIFFER if result["mismatches"] or result["failures"] else 0


@click.command()
@option("--seed", type=click.IntRange(0, 2**63 - 1), required=True, help="Of the run that failed.")
@option("--batch", type=click.IntRange(0), default=0, show_default=True, help="Which batch of it.")
@option("--walks", "count", type=click.IntRange(1, 2000), default=200, show_default=True, help="Of that batch.")
@option(
    *("--output", "-o"),
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder; by default one of this batch in results/waves.",
)
@simulator_option
@json_option
@mutant_option
def waves(seed: int, batch: int, count: int, output: Path | None, simulator: str | None, as_json: bool) -> int:
    """Run one batch of random walks again and record every signal; a failure prints the command.

    The waves are VCD. Beside each signal whose values have names, such as state, NAME_name shows the names.
    """
    from ptewalk.cosim.runs.gateware import BuiltWalker
    from ptewalk.cosim.simulate.find import select

    name = select(simulator).name
    parts = (name, seed, batch, click.get_current_context().meta.get(MUTANT))
    folder = output or Path("results") / "waves" / "-".join(str(part) for part in parts if part is not None)
    repeat = f"ptewalk waves --seed {seed} --batch {batch} --walks {count} --simulator {name}"
    values = {"seed": seed, "chunks": [[batch, count]], "repeat": repeat, "name": name}
    with made_folder(folder), progress("the gateware is built, and its waves are recorded"):
        walker = BuiltWalker.make(name, waves=True)
        result = walker.perform("randomised", values, protocol=True, folder=folder)
    if as_json:
        click.echo(json.dumps(result | {"seed": seed, "batch": batch, "simulator": walker.simulator}))
    else:
        if result["failure"]:
            click.echo(result["failure"])
        click.echo(f"{result['comparisons']} comparisons, {result['mismatches']} mismatches; waves: {result['waves']}")
    return DIFFER if result["failure"] else 0
