"""Measurements."""

from __future__ import annotations

import json
import random
from pathlib import Path

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, write_whole
from ptewalk.cosim.cli.common import (
    DIFFER,
    json_option,
    mutant_option,
    option,
    progress,
    seed_option,
    show,
    simulator_option,
)

_MEASURED = ("cosim", "compiled", "translate", "fills", "bulk", "kernel", "replay", "gigabyte")
_MOST_LATENCY = 10_000


@click.command()
@simulator_option
@option(
    "--latency",
    "latencies",
    type=click.IntRange(1, _MOST_LATENCY),
    multiple=True,
    help="Of memory, in cycles; may be given several times, by default 1, 4, 16 and 40.",
)
@option(
    "--software-cycles",
    type=click.IntRange(0),
    default=1000,
    show_default=True,
    help="Assumed cost of a page fault in the operating system.",
)
@option("--csv", "table_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows to this file too.")
@option("--plot", "plot_file", type=click.Path(dir_okay=False, path_type=Path), help="Draw them to this file, an SVG.")
@json_option
@mutant_option
def cycles(
    simulator: str | None,
    latencies: tuple[int, ...],
    software_cycles: int,
    table_file: Path | None,
    plot_file: Path | None,
    as_json: bool,
) -> int:
    """Cycles of a walk, measured, beside their targets; and of the first write after a clear.

    The total of a row that ends in a page fault adds the assumed cost of the operating system and a second walk.
    """
    for file, ending in ((table_file, ".csv"), (plot_file, ".svg")):
        if file is not None:
            if file.suffix != ending:
                raise ToolError(f"{file}: name a file that ends in {ending}")
            check_writable(file)
    from ptewalk.cosim.runs.bus_cycles import bridge_cycles
    from ptewalk.cosim.runs.caching_cycles import STEADY_LATENCY, axi_cycles, caching_cycles, walkers_cycles
    from ptewalk.cosim.runs.engine_cycles import engine_cycles
    from ptewalk.cosim.runs.gateware import LATENCIES, gateware
    from ptewalk.cosim.runs.port_cycles import port_cycles
    from ptewalk.cosim.speed.curves import curves, table
    from ptewalk.rtl.bus.atomic import AtomicPortConfig

    with progress("the gateware is built and measured"):
        walker = gateware(simulator)
        measured = tuple(dict.fromkeys(latencies)) or LATENCIES
        rows = walker.timed(measured, software=software_cycles)
        if walker.in_process:
            by = walker.model.simulator.name
            rows += caching_cycles(measured, by)
            rows += walkers_cycles(by) if STEADY_LATENCY in measured else []
            rows += port_cycles(measured) + port_cycles(measured, AtomicPortConfig())
            rows += axi_cycles(measured, by)
            rows += bridge_cycles(measured, by)
            rows += engine_cycles(measured, by)
    late = [row for row in rows if row["target"] is not None and row["cycles"] > row["target"]]
    late += [row for row in rows if row["differs"]]
    title = f"cycles from request to response ({walker.simulator})"
    if table_file is not None:
        write_whole(table_file, table(rows))
    if plot_file is not None:
        write_whole(plot_file, curves(rows, title))
    if as_json:
        click.echo(json.dumps({"rows": rows, "simulator": walker.simulator, "software_cycles": software_cycles}))
    else:
        show(rows, title)
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
    with progress("parts of the benchmark") as advance:
        rows = measure(only, simulator, count, seed, progress=advance)
    if as_json:
        click.echo(json.dumps({"rows": rows, "seed": seed}))
    else:
        show(rows, f"bench, seed {seed}")
    return DIFFER if any(row["verdict"] == MISSED for row in rows) else 0
