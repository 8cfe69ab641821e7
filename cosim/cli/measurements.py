"""Measurements."""

from __future__ import annotations

import json
import random

import click

from ptewalk.cosim.cli.common import (
    DIFFER,
    json_option,
    mutant_option,
    option,
    seed_option,
    show,
    simulator_option,
)

_MEASURED = ("cosim", "bulk", "kernel", "replay")


@click.command()
@simulator_option
@option(
    "--software-cycles",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Assumed cost of a page fault in the operating system.",
)
@json_option
@mutant_option
def cycles(simulator: str | None, software_cycles: int, as_json: bool) -> int:
    """Cycles of a walk, measured, beside their targets; and of the first write after a clear.

    The total of a row that ends in a page fault adds the assumed cost of the operating system and a second walk.
    """
    from ptewalk.cosim.runs.gateware import gateware

    walker = gateware(simulator)
    rows = walker.timed(software=software_cycles)
    late = [row for row in rows if row["target"] is not None and row["cycles"] > row["target"]]
    late += [row for row in rows if row["differs"]]
    if as_json:
        click.echo(json.dumps({"rows": rows, "simulator": walker.simulator, "software_cycles": software_cycles}))
    else:
        show(rows, f"cycles from request to response ({walker.simulator})")
    return DIFFER if late else 0


@click.command()
@simulator_option
@option("--only", type=click.Choice(_MEASURED), multiple=True, help="Part of the benchmark; by default all.")
@option("--walks", "count", type=click.IntRange(1000), default=20_000, show_default=True, help="At the batch level.")
@seed_option
@json_option
@mutant_option
def bench(simulator: str | None, only: tuple[str, ...], count: int, seed: int | None, as_json: bool) -> int:
    """Speeds, each beside its baseline of the same run, and its target where there is one."""
    from ptewalk.cosim.speed.measure import MISSED, measure

    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    rows = measure(only, simulator, count, seed)
    if as_json:
        click.echo(json.dumps({"rows": rows, "seed": seed}))
    else:
        show(rows, f"bench, seed {seed}")
    return DIFFER if any(row["verdict"] == MISSED for row in rows) else 0
