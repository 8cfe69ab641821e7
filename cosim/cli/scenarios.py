"""Scenarios: replayed, and how often kernels are wrong."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, keep_earlier, write_whole
from ptewalk.cosim.cli.common import (
    DIFFER,
    INTERRUPTED,
    MUTANT,
    TRACKS,
    UNCACHED,
    chosen_kernel,
    deb_option,
    design_option,
    files_argument,
    jobs_option,
    json_option,
    kernel_option,
    mutant_option,
    option,
    progress,
    registers_option,
    seed_option,
    show,
    simulator_option,
)

_REPLAYERS = ("model", "gateware", "linux")


_SHOWN = 10
"""Differences that are printed; all are in --json."""


def _reduce(
    asked: Sequence[Any], result: dict[str, Any], job: Any, backend: str, options: dict[str, Any]
) -> list[dict[str, Any]] | None:
    """The first scenario that differs, reduced, as lines of the format; None when none differs."""
    from ptewalk.cosim.checks.reproduce import first_place, reduce_live, reduce_recorded
    from ptewalk.cosim.runs.scenarios import reduce_gateware

    place = first_place(asked, result)
    if place is None:
        return None
    lines: list[dict[str, Any]] | None = result.get("shrunk")
    if lines is None and backend == "gateware":
        lines = reduce_gateware(place, job, options["simulator"])
    elif lines is None and backend == "linux":
        lines = reduce_live(place, job.profile, options["kernel"])
    elif lines is None:
        lines = reduce_recorded(place)
    return lines


@click.command()
@files_argument
@option("--verb", "verbs", multiple=True, help="Only scenarios with this verb; may be given several times.")
@json_option
def scenarios(files: tuple[Path, ...], verbs: tuple[str, ...], as_json: bool) -> int:
    """List the scenarios of files: name, the profiles that describe its kernel, steps, how many are answered, verbs."""
    from ptewalk.cosim.checks.replay import load, summary
    from ptewalk.cosim.formats.scenarios import content_hash
    from ptewalk.model.scenario.verbs import VERBS

    for verb in verbs:
        if verb not in VERBS:
            raise ToolError(f"no verb {verb!r}: choose of {', '.join(sorted(VERBS))}")
    there = {str(file): load([file]) for file in files}
    rows = [{"file": file} | summary(scenario) for file, found in there.items() for scenario in found]
    rows = [row for row in rows if set(verbs) <= row["verbs"].keys()]
    if as_json:
        hashes = {file: content_hash(found) for file, found in there.items()}
        click.echo(json.dumps({"scenarios": rows, "hashes": hashes}))
        return 0
    shown = ("name", "kernel", "profiles", "steps", "answers", "levels", "verbs")
    for file, scenarios_there in there.items():
        found = [{name: row[name] for name in shown} for row in rows if row["file"] == file]
        for row in found:
            row["profiles"] = ", ".join(row["profiles"] or ())
            row["verbs"] = ", ".join(f"{verb} {count}" if count > 1 else verb for verb, count in row["verbs"].items())
        if found:
            show(found, file)
        click.echo(f"hash of {file}: {content_hash(scenarios_there)}")
        click.echo(f"{file}: {len(found)} scenarios, {sum(row['steps'] for row in found)} steps")
    return 0


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]...")
@option("--generate", "count", type=click.IntRange(1), metavar="COUNT", help="Random scenarios instead of files.")
@option("--theme", "themes", multiple=True, help="Of the random scenarios; by default all that the kernel knows.")
@seed_option
@option("--first", type=click.IntRange(0), default=0, metavar="NUMBER", help="Number of the first random scenario.")
@option(
    "--backend",
    type=click.Choice(_REPLAYERS),
    default="model",
    show_default=True,
    help="Who answers.",
)
@option("--profile", default="linux-6.1", show_default=True, help="What the operating system does.")
@option("--track", type=click.Choice(TRACKS), default="off", show_default=True, help="What the MMU does to entries.")
@option("--no-soft-dirty", is_flag=True, help="CONFIG_MEM_SOFT_DIRTY=n.")
@kernel_option
@deb_option
@option("--name", "names", multiple=True, help="Only the scenario of this name; may be given several times.")
@option("--picture", metavar="NAME", help="Draw the pages of this scenario after each step.")
@option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where a scenario that differs is left, reduced; by default results/shrunk-NAME.jsonl (an earlier one there "
    "gets a number).",
)
@design_option
@registers_option
@simulator_option
@jobs_option
@json_option
@mutant_option
def replay(
    files: tuple[Path, ...],
    count: int | None,
    themes: tuple[str, ...],
    seed: int | None,
    first: int,
    backend: str,
    profile: str,
    track: str,
    no_soft_dirty: bool,
    kernel: str | None,
    packages: tuple[Path, ...],
    names: tuple[str, ...],
    picture: str | None,
    output: Path | None,
    design: str,
    registers: bool,
    simulator: str | None,
    jobs: int,
    as_json: bool,
) -> int:
    """Replay scenarios and compare every step with what a real kernel answered.

    The gateware backend also compares all of physical memory with the golden model after each step. `closed` counts
    steps that differ from the recording as they may, where the kernel loses a store and the MMU does not; `stored`
    counts stores to tracked pages that were checked to be reported. What clear_refs, pagemap, PAGEMAP_SCAN and mremap
    do to tables the gateware's table engine does. Random scenarios, and files without answers, are compared with the
    golden model alone. In a design with caches each process has a PCID and is switched to without a flush; after each
    step what may be cached is asked about again. With --registers the MMU is one in a unit, and software has its
    registers alone: the driver switches, asks, invalidates and takes faults, and gives the unit's table engine its
    commands; to a unit of several walkers, which has none, it does what the engine would by swaps of words.
    """
    if (kernel is not None or packages) and backend != "linux":
        raise ToolError(f"--{'deb' if packages else 'kernel'} goes with --backend linux, not with --backend {backend}")
    if backend == "linux" and (track != "off" or no_soft_dirty or picture):
        raise ToolError("a live kernel runs on a plain MMU: leave out --track, --no-soft-dirty and --picture")
    if design != UNCACHED and backend != "gateware":
        raise ToolError(f"--design goes with --backend gateware, not with --backend {backend}")
    if registers and (backend != "gateware" or design == UNCACHED):
        raise ToolError("--registers goes with --backend gateware and a --design that caches, such as mmu-small")
    if simulator is not None and backend != "gateware":
        raise ToolError(f"--simulator goes with --backend gateware, not with --backend {backend}")
    if bool(files) == bool(count):
        raise ToolError("give either scenario files or --generate COUNT")
    if count is None and (themes or first):
        raise ToolError("--theme and --first go with --generate")
    if count is None and seed is not None and backend != "gateware":
        raise ToolError(f"--seed goes with --generate or --backend gateware, not with --backend {backend}")
    if count is not None and (names or picture):
        raise ToolError("--name and --picture go with files, not with --generate")
    if output is not None:
        check_writable(output)
    kernel = chosen_kernel(kernel, packages)
    from ptewalk.cosim.checks.pictures import page_map
    from ptewalk.cosim.checks.replay import ReplayJob, find_profile, other_kernel, replay_model
    from ptewalk.cosim.checks.reproduce import repeat_command
    from ptewalk.cosim.formats.scenarios import plain_text, scenario_text
    from ptewalk.cosim.runs.scenarios import check_scenarios, replay_gateware
    from ptewalk.cosim.stimulus.scenarios import generated

    paths = tuple(str(path.absolute()) for path in files)
    if seed is None and (count is not None or backend == "gateware"):
        seed = random.SystemRandom().getrandbits(32)
    conditions = seed if backend == "gateware" else None
    job = ReplayJob(paths, profile, track, not no_soft_dirty, names or None, picture, conditions, design, registers)
    if count is not None:
        assert seed is not None
        asked = generated(count, seed, find_profile(profile), themes, first=first)
    else:
        asked = job.scenarios()
    recorded = any(step.recorded is not None for scenario in asked for step in scenario.steps)
    if backend == "linux":
        from ptewalk.cosim.checks.live import replay_linux

        try:
            with progress("scenarios") as advance:
                result = replay_linux(asked, profile, kernel, advance)
        except KeyboardInterrupt:
            named = "" if seed is None else f" (--seed {seed})"
            click.echo(f"ptewalk: interrupted; the same command{named} goes on from there", err=True)
            return INTERRUPTED
    elif not recorded and not picture:
        with progress("parts") as advance:
            result = check_scenarios(
                *(asked, backend, profile, track, not no_soft_dirty, simulator),
                design=design,
                registers=registers,
                seed=conditions,
                workers=jobs,
                progress=advance,
            )
    elif backend == "gateware":
        with progress("parts") as advance:
            workers = 1 if picture else jobs
            result = replay_gateware([job], simulator, workers=workers, progress=advance)[0]
    else:
        with progress("scenarios") as advance:
            result = replay_model(job, advance)
    journal = result.pop("journal", None)
    result |= {"backend": backend, "profile": profile, "track": track}
    if seed is not None:
        result["seed"] = seed
    elif backend != "linux":
        result["hint"] = other_kernel(asked, result["differing"], profile)
    if picture and not result["picture"]:
        raise ToolError(f"no scenario {picture!r} to draw in the files given")
    options = {"backend": backend, "profile": profile, "track": track, "no-soft-dirty": no_soft_dirty}
    options |= {
        "design": None if design == UNCACHED else design,
        "registers": registers,
        "simulator": simulator,
        "kernel": kernel,
        "seed": conditions,
        "mutant": click.get_current_context().meta.get(MUTANT),
    }
    reduced = _reduce(asked, result, job, backend, options)
    if reduced is not None:
        left = output or Path("results") / f"shrunk-{re.sub(r'[^A-Za-z0-9_.-]', '_', reduced[0]['name'])}.jsonl"
        result |= {"shrunk": reduced, "shrunk_file": str(left), "repeat": repeat_command(str(left), options)}
        try:
            if output is None:
                keep_earlier(left)
            write_whole(left, scenario_text(reduced))
        except ToolError as error:  # the difference is what counts
            click.echo(f"ptewalk: {error}", err=True)
            result |= {"shrunk_file": None, "repeat": None}
    if as_json:
        click.echo(json.dumps(result))
    else:
        columns = ("backend", "simulator", "kernel", "profile", "track", "seed")
        counts = ("resumed", "scenarios", "steps", "agree", "differ", "skipped", "closed", "stored")
        shown = {name: result[name] for name in (*columns, *counts) if name in result}
        show([shown], f"replay: {', '.join(map(str, files)) or f'{count} generated scenarios'}")
        for name, reason in result["skipped_scenarios"].items():
            click.echo(f"skipped {name}: {reason}")
        if "counters" in result:
            told = f"{result['words']} words of memory, {result['events']} accesses"
            told += f", {result['traced']} trace records" if "traced" in result else ""
            click.echo(f"the gateware counted: {result['counters']}; {told} compared")
        if "driver" in result:
            click.echo(f"the driver did, through registers alone: {result['driver']}")
        elif result.get("engine"):
            click.echo(f"the table engine did, all of it compared with the golden model: {result['engine']}")
        elif backend == "gateware":
            click.echo("no table engine: it needs Verilator; what it does the model did")
        if "tlb" in result:
            click.echo(
                f"the golden TLB counted, an access for each invalidation that it would have shown: {result['tlb']}"
            )
        if result.get("dropped"):
            click.echo(f"marks that the kernel itself dropped later, by verb: {result['dropped']}")
        differing = list(result["differing"].values())
        for difference in differing[:_SHOWN]:
            click.echo(f"differs: {difference}")
        if len(differing) > _SHOWN:
            click.echo(f"and {len(differing) - _SHOWN} more scenarios differ")
        if result.get("hint"):
            click.echo(result["hint"])
        elif recorded and backend != "linux" and result["scenarios"] > 1 and 2 * len(differing) > result["scenarios"]:
            click.echo(f"most scenarios differ: were they recorded on the kernel of --profile {profile}?")
        if picture:
            click.echo("\n".join(page_map(result["picture"])))
        if reduced is not None:
            left_at = result["shrunk_file"] or "not written"
            click.echo(f"{left_at}, the first one reduced:\n{plain_text(reduced)}", nl=False)
            click.echo(f"repeat: {result['repeat'] or 'with --output FILE'}")
    if journal is not None:
        Path(journal).unlink(missing_ok=True)
    if result["differ"]:
        return DIFFER
    if result.get("missing"):
        click.echo(f"fewer comparisons than promised: {result['missing']}", err=True)
        return DIFFER
    if not result["agree"] and not picture:
        raise ToolError("no step was compared: give a file with recorded steps that the model can follow")
    return 0


@click.command()
@option("--generate", "count", type=click.IntRange(1), required=True, metavar="COUNT", help="Random scenarios.")
@seed_option
@option("--profile", "profiles", multiple=True, help="A kernel; may be given several times, by default all four.")
@option("--theme", "themes", multiple=True, help="Of the scenarios; by default all that every kernel knows.")
@option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON object to this file too.")
@json_option
def accuracy(
    count: int,
    seed: int | None,
    profiles: tuple[str, ...],
    themes: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> int:
    """Count how often a kernel reports a page that did not change, and misses one that did.

    The same random scenarios run under each kernel; after each step every mapped page's soft-dirty bit is compared with
    what `exact` reports. A page counts once for each step.
    """
    from ptewalk.cosim.checks.accuracy import KERNELS, common_scenarios, markdown
    from ptewalk.cosim.checks.accuracy import accuracy as count_errors
    from ptewalk.cosim.checks.replay import find_machine

    if output is not None:
        check_writable(output)
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    chosen = [find_machine(name) for name in profiles or KERNELS]
    scenarios = common_scenarios(count, seed, [profile for profile, _ in chosen], themes)
    with progress("scenarios") as advance:
        rows = [count_errors(scenarios, profile, advance, exact=exact).as_json() for profile, exact in chosen]
    result = {"rows": rows, "seed": seed, "themes": list(themes)}
    if output is not None:
        write_whole(output, json.dumps(result, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"accuracy against exact, {count} scenarios, seed {seed}\n\n{markdown(rows)}", nl=False)
    return 0
