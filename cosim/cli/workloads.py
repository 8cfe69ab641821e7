"""The workloads, in each way of tracking: a table, and kills."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, write_whole
from ptewalk.cosim.cli.common import DIFFER, TRACKS, design_option, json_option, mutant_option, option, progress, show
from ptewalk.cosim.cli.programs import make_walker

_SHOWN = 10
"""Differences of a workload that are told."""


@click.command()
@option("--only", multiple=True, metavar="NAME", help="These workloads; by default all that can run here.")
@option("--profile", "profiles", multiple=True, help="By default linux-6.1, linux-6.12 and linux-7.3.")
@option("--track", "tracks", type=click.Choice(TRACKS), multiple=True, help="By default all three.")
@option("--backend", type=click.Choice(["model", "gateware"]), default="gateware", show_default=True, help="Who walks.")
@design_option
@option("--small", is_flag=True, help="A tenth of the work.")
@option("--latency", type=click.IntRange(1, 10_000), default=16, show_default=True, help="Of memory, in cycles.")
@option("--trap-cycles", type=click.IntRange(0), help="Assumed cost of a page fault in software; by default 1842.")
@option("--kills", type=click.IntRange(1), help="Instead: kill each run so many times, and go on from its images.")
@option(
    "--against",
    type=click.Choice(["linux"]),
    help="Instead: run those of one process on each profile's kernel too (QEMU), and compare; --track off by default.",
)
@option(
    "--seed", type=click.IntRange(0, 2**63 - 1), default=1, show_default=True, help="Of the runs, and of the kills."
)
@option("--csv", "table_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the rows to this file too.")
@json_option
@mutant_option
def workloads(
    only: tuple[str, ...],
    profiles: tuple[str, ...],
    tracks: tuple[str, ...],
    backend: str,
    design: str,
    small: bool,
    latency: int,
    trap_cycles: int | None,
    kills: int | None,
    against: str | None,
    seed: int,
    table_file: Path | None,
    as_json: bool,
) -> int:
    """Run the workloads with epochs: what each way of tracking costs, and whether a store is lost.

    An exit code of 1: a store was lost, an output is not the host's, a run had fewer than 50 epochs, or one that was
    killed and restored ended otherwise, or on a real kernel something differs.
    """
    if table_file is not None:
        check_writable(table_file)
    from ptewalk.cosim.checks.live import kernel_of
    from ptewalk.cosim.checks.replay import find_machine
    from ptewalk.cosim.oracles.linux.guest import require_tools
    from ptewalk.cosim.programs.against_runs import EPOCHS, against_row
    from ptewalk.cosim.programs.run import Settings
    from ptewalk.cosim.programs.table import FEWEST_EPOCHS, workload_rows
    from ptewalk.cosim.programs.trace_runs import TRAP_CYCLES
    from ptewalk.cosim.programs.workloads import WORKLOADS, prepare
    from ptewalk.cosim.runs.tracing import trace_library
    from ptewalk.model.linux import Track

    unknown = [name for name in only if name not in WORKLOADS]
    if against is not None and kills is not None:
        raise ToolError("--against and --kills are two things: leave one out")
    if unknown:
        raise ToolError(f"no workload {unknown[0]!r}: there are {', '.join(WORKLOADS)}")
    chosen = [WORKLOADS[name] for name in only or WORKLOADS]
    if against is not None:
        chosen = [one for one in chosen if one.name in EPOCHS]
        if not chosen:
            raise ToolError(f"--against takes workloads of one process: {', '.join(EPOCHS)}")
    missing = [one.name for one in chosen if one.missing()]
    chosen = [one for one in chosen if not one.missing()]
    if not chosen:
        raise ToolError(f"none of these can run here: {', '.join(missing)}; install {WORKLOADS[missing[0]].program}")
    machines = [find_machine(name) for name in dict.fromkeys(profiles or ("linux-6.1", "linux-6.12", "linux-7.3"))]
    ways = tuple(dict.fromkeys(tracks)) or (TRACKS if against is None else ("off",))
    if against is not None:
        require_tools()
        kernels = {profile.name: kernel_of(profile.name, None) for profile, _ in machines}
    walker = make_walker(backend, design)
    cost = TRAP_CYCLES if trap_cycles is None else trap_cycles
    rows: list[dict[str, Any]] = []
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="ptewalk-") as name, progress("workloads") as bar:
        folder = Path(name)
        prepare(folder, small=small)
        library = None if kills or against else trace_library()
        total = len(chosen) * len(machines)
        for done, (workload, (profile, exact)) in enumerate((one, two) for one in chosen for two in machines):
            bar(done, total)
            settings = Settings(profile, exact=exact, seed=seed, told=backend)
            if against is not None:
                found = []
                for track in ways:
                    tracked = replace(settings, track=Track[track.upper()])
                    row, differences = against_row(
                        workload, folder, tracked, walker, kernels[profile.name], small=small
                    )
                    found.append({**row, "track": track})
                    wrong += [f"{workload.name}, {profile.name}, {track}: {one}" for one in differences[:_SHOWN]]
            elif kills is None:
                found = workload_rows(
                    *(workload, folder, settings, ways, walker, library), small=small, latency=latency, trap=cost
                )
                for row in found:
                    what = f"{row['workload']}, {row['profile']}, {row['track']}"
                    if row["lost"]:
                        wrong.append(f"{what}: {row['lost']} stores lost")
                    if row["output"] != "the host's":
                        wrong.append(f"{what}: the output is not the host's")
                    if row["epochs"] < FEWEST_EPOCHS:
                        wrong.append(f"{what}: {row['epochs']} epochs, fewer than {FEWEST_EPOCHS}")
            else:
                command = workload.argv(folder, small=small)
                every = workload.small if small else workload.every
                found = _kill(replace(settings, epoch=every), command, walker, ways, kills, workload.name, wrong)
            rows += found
    if table_file is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_whole(table_file, text.getvalue())
    if as_json:
        click.echo(json.dumps({"workloads": rows, "missing": missing, "wrong": wrong, "seed": seed}))
    else:
        show(
            rows,
            f"workloads: {backend if backend == 'model' else design}, seed {seed}"
            + ("" if kills or against else f", trap {cost}, latency {latency}"),
        )
        for one in missing:
            click.echo(f"not run: {one} ({WORKLOADS[one].program} is not installed)")
        for one in wrong:
            click.echo(one)
    return DIFFER if wrong else 0


def _kill(
    settings: Any, command: list[str], walker: Any, ways: tuple[str, ...], kills: int, name: str, wrong: list[str]
) -> list[dict[str, Any]]:
    """Rows of kills, one for each way of tracking."""
    from ptewalk.cosim.programs.kills import kill_and_restore
    from ptewalk.model.linux import Track

    rows = []
    for track in ways:
        chosen = replace(settings, track=Track[track.upper()])
        killed = kill_and_restore(chosen, command, walker, kills, f"{settings.seed} {name} {track}")
        wrong += [f"{name}, {settings.profile.name}, {track}: {problem}" for problem in killed.problems]
        counts = {
            "kills": killed.kills,
            "inside_a_save": killed.inside_a_save,
            "from_the_start": killed.from_the_start,
            "compared": killed.compared,
            "differ": len(killed.problems),
        }
        rows.append({"workload": name, "profile": settings.profile.name, "track": track, **counts})
    return rows
