"""The command `kernels`: the same scenarios on several kernels."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.cli.common import DIFFER, files_argument, json_option, option, progress, show


@click.command()
@files_argument
@option("--profile", "profiles", multiple=True, help="A kernel of the model; may be given several times.")
@option("--kernel", "live", multiple=True, metavar="PATH|SERIES", help="A live kernel; may be given several times.")
@option("--name", "names", multiple=True, help="Only the scenario of this name; may be given several times.")
@option(
    "--changes", is_flag=True, help="Print one row a scenario, as a Markdown table: what changed, and who is right."
)
@json_option
def kernels(
    files: tuple[Path, ...],
    profiles: tuple[str, ...],
    live: tuple[str, ...],
    names: tuple[str, ...],
    changes: bool,
    as_json: bool,
) -> int:
    """Run scenarios on several kernels, side by side: a row a step, a column a kernel, differing pages marked.

    Without --profile and --kernel: linux-3.11, linux-6.1, linux-6.12, linux-6.18 and linux-7.3. A step that kernels
    answer differently, or after which pagemap tells different things, has an exclamation mark. With --changes, --kernel
    asks live kernels besides: (=) behind a cell says that one answered every step as the model, raw tables and contents
    included; else the exit code is 1, and the first difference stands there.
    """
    from ptewalk.cosim.checks import side_by_side
    from ptewalk.cosim.checks.replay import find_profile, load

    if changes and as_json:
        raise ToolError("--changes prints Markdown: leave out --json")
    scenarios = [scenario for scenario in load(files) if not names or scenario.name in names]
    if not scenarios:
        raise ToolError(f"no scenario of that name: {', '.join(names)}")
    chosen = [find_profile(name) for name in (profiles or (() if live and not changes else side_by_side.KERNELS))]
    if changes:
        trials = []
        for kernel in live:
            with progress(f"scenarios on {kernel}") as advance:
                trials.append(side_by_side.try_live(scenarios, kernel, advance))
        chosen += [find_profile(trial.profile) for trial in trials if trial.profile not in {p.name for p in chosen}]
        click.echo(side_by_side.changes(scenarios, chosen, trials), nl=False)
        marks = [mark for trial in trials for mark in trial.told.values()]
        return DIFFER if any(mark != side_by_side.SAME for mark in marks) else 0
    answers = {}
    for kernel in live:
        with progress(f"scenarios on {kernel}") as advance:
            version, seen = side_by_side.on_live(scenarios, kernel, advance)
        answers[f"live {version}"] = seen
    told = []
    for scenario in scenarios:
        columns = {profile.name: side_by_side.on_model(scenario, profile) for profile in chosen}
        columns |= {name: seen.get(scenario.name, []) for name, seen in answers.items()}
        rows = side_by_side.compare(scenario, columns)
        told.append({"name": scenario.name, "doc": scenario.doc, "kernels": list(columns), "steps": rows})
        if not as_json:
            show(side_by_side.rows_of(rows, list(columns)), scenario.name)
    if as_json:
        click.echo(json.dumps({"scenarios": told}))
    return 0
