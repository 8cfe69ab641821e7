"""The command line: `ptewalk COMMAND`.

Exit codes: 0 agree, 1 differ or miss a target, 2 bad use or bad input, 3 a defect of ptewalk.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ptewalk.cosim.base.errors import ToolError

if TYPE_CHECKING:
    from ptewalk.cosim.checks.replay import ReplayJob
    from ptewalk.cosim.formats.walks import Tally, WalkCase
    from ptewalk.cosim.oracles.linux.machine import Line
    from ptewalk.model.scenario.format import Scenario

# What a command needs is imported when it runs: a mutant must be in place before the gateware is imported, and the
# golden model's commands work without a simulator.

DIFFER = 1
BAD_USE = 2
DEFECT = 3
_BACKENDS = ("model", "gateware", "unicorn")
_REPLAYERS = ("model", "gateware", "linux")
_MEASURED = ("cosim", "bulk", "kernel", "replay")
_PARTS = ("recorded", "random", "replay")
_TRACKS = ("off", "fault", "native")
_SIMULATORS = ("verilator", "icarus")
_SURROUNDINGS = (errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
"""Errors of the file system that are no defect of ptewalk."""
_MUTANT = "ptewalk.mutant"
_SHOWN = 10
"""Differences that are printed; all are in --json."""


def main() -> NoReturn:
    """Entry point of the command `ptewalk`."""
    try:
        result = commands.main(standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(BAD_USE)
    except click.ClickException as error:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see '{error.ctx.command_path} --help')"
        _fail(f"{error.format_message()}{hint}")
    except ToolError as error:
        _fail(str(error))
    except (KeyboardInterrupt, click.Abort):
        _fail("interrupted")
    except OSError as error:
        if error.errno not in _SURROUNDINGS or error.filename is None:
            traceback.print_exc()
            sys.exit(DEFECT)
        _fail(f"{error.filename}: {error.strerror}; HOME and the temporary folder must be writable and have room")
    except Exception:
        traceback.print_exc()
        sys.exit(DEFECT)
    sys.exit(result if isinstance(result, int) else 0)


def _fail(message: str) -> NoReturn:
    """One line, whatever a tool's log had to say: its first line, and the last one of the log."""
    first, *rest = message.splitlines() or [""]
    text = f"{first.removesuffix('; the log ends:')}: {rest[-1].strip()}" if rest else first
    click.echo(f"ptewalk: {text}", err=True)
    sys.exit(BAD_USE)


def _activate(context: click.Context, _: click.Parameter, name: str | None) -> str | None:
    if name is not None:
        from ptewalk.cosim.simulate.mutants import activate

        activate(name)
        context.meta[_MUTANT] = name
    return name


def _option(*names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(*names, **attributes)


mutant_option = _option(
    "--mutant",
    callback=_activate,
    is_eager=True,
    expose_value=False,
    help="Run on a copy of the gateware with this defect.",
)
json_option = _option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a table.")
simulator_option = _option(
    "--simulator", type=click.Choice(_SIMULATORS), help="Verilator or Icarus; by default the best there is."
)
seed_option = _option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="Of all that is left to chance; by default a new one, printed."
)
files_argument = click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE..."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("ptewalk"), prog_name="ptewalk")
def commands() -> None:
    """An x86-64 MMU in gateware that tracks written pages, beside its golden model."""


def _show(rows: list[dict[str, Any]], title: str = "") -> None:
    """Print rows of one shape as a table."""
    table = Table(title=title or None, title_justify="left", title_style="bold")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def check_writable(path: Path) -> None:
    """`ToolError` when `write_whole` could not write `path`: to be asked before the work, not after it."""
    folder = path.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        why = "cannot be written" if folder.is_dir() else "is not a folder"
        raise ToolError(f"{path}: {folder} {why}; name a file in a folder that can be written")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr where that is a terminal; gives the function to call with (done, of)."""
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all; `ToolError` when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise ToolError(f"{path}: {error.strerror}; name a file in a folder that can be written") from error


@commands.command()
@json_option
def doctor(as_json: bool) -> int:
    """What was found, what was chosen and why, and how to mend the rest."""
    from dataclasses import asdict

    from ptewalk.cosim.simulate.find import doctor as examine

    rows = [asdict(row) for row in examine()]
    if as_json:
        click.echo(json.dumps({"rows": rows}))
    else:
        _show(rows)
    return 0 if all(row["ok"] for row in rows) else DIFFER


# Walks ---------------------------------------------------------------------------------------------------------------


def _tally_model(cases: list[WalkCase]) -> Tally:
    from ptewalk.cosim.formats.walks import Tally, check, run_on_model

    tally = Tally()
    for case in cases:
        tally.add(case, check(case, *run_on_model(case)))
    return tally


def _tally_unicorn(cases: list[WalkCase]) -> Tally:
    from ptewalk.cosim.formats.walks import Tally, check
    from ptewalk.cosim.oracles.unicorn import UnicornMmu

    voice = UnicornMmu()
    tally = Tally()
    for case in cases:
        reason = voice.skip_reason(case)
        if reason is not None:
            tally.skip(case, reason)
        else:
            tally.add(case, check(case, *voice.run(case), marks_large_before_check=True))
    return tally


@commands.command()
@files_argument
@_option("--backend", type=click.Choice(_BACKENDS), default="model", show_default=True, help="Who answers.")
@simulator_option
@_option("--limit", type=click.IntRange(1), help="At most so many cases of each file, taken from all families in turn.")
@json_option
@mutant_option
def walks(files: tuple[Path, ...], backend: str, simulator: str | None, limit: int | None, as_json: bool) -> int:
    """Compare recorded page walks with a backend's answers.

    A case counts as agreeing or differing when all engines that recorded it agreed (trust 3); others are counted apart.
    """
    from ptewalk.cosim.formats.walks import merge_tallies, read_walks
    from ptewalk.cosim.runs.gateware import BuiltWalker, spread

    if simulator is not None and backend != "gateware":
        raise ToolError(f"--simulator goes with --backend gateware, not with --backend {backend}")
    chosen = [(path, (cases := read_walks(path)), spread(cases, limit)) for path in files]
    walker = BuiltWalker.make(simulator) if backend == "gateware" else None
    tallies = []
    for path, cases, indices in chosen:
        if walker is not None:
            tallies.append(walker.recorded(path, indices))
        else:
            judge = _tally_model if backend == "model" else _tally_unicorn
            tallies.append(judge([cases[index] for index in indices]).as_json())
    result = merge_tallies(tallies) | {"backend": backend, "simulator": walker.simulator if walker else None}
    if as_json:
        click.echo(json.dumps(result))
    else:
        shown = {name: result[name] for name in ("backend", "simulator", "cases", "agree", "differ", "skipped")}
        _show([shown], f"walks: {', '.join(map(str, files))}")
        for reason, numbers in result["skipped_cases"].items():
            click.echo(f"skipped {len(numbers)}: {reason}")
        for trust, counts in result["other_trust"].items():
            click.echo(f"trust {trust}, not counted above: {counts}")
        if result["first_difference"]:
            click.echo(f"first difference: {result['first_difference']}")
    if result["differ"]:
        return DIFFER
    if not result["agree"]:
        raise ToolError("no case was compared: give a file with cases of trust 3 that the backend can run")
    return 0


# Scenarios -----------------------------------------------------------------------------------------------------------


def _reduce(
    asked: Sequence[Scenario], result: dict[str, Any], job: ReplayJob, backend: str, options: dict[str, Any]
) -> list[Line] | None:
    """The first scenario that differs, reduced, as lines of the format; None when none differs."""
    from ptewalk.cosim.checks.reproduce import first_place, reduce_gateware, reduce_live, reduce_recorded

    place = first_place(asked, result)
    if place is None:
        return None
    lines: list[Line] | None = result.get("shrunk")
    if lines is None and backend == "gateware":
        lines = reduce_gateware(place, job, options["simulator"])
    elif lines is None and backend == "linux":
        lines = reduce_live(place, job.profile, options["kernel"])
    elif lines is None:
        lines = reduce_recorded(place)
    return lines


@commands.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]...")
@_option("--generate", "count", type=click.IntRange(1), metavar="COUNT", help="Random scenarios instead of files.")
@_option("--theme", "themes", multiple=True, help="Of the random scenarios; by default all that the kernel knows.")
@seed_option
@_option(
    "--backend",
    type=click.Choice(_REPLAYERS),
    default="model",
    show_default=True,
    help="Who answers.",
)
@_option("--profile", default="linux-6.1", show_default=True, help="What the operating system does.")
@_option("--track", type=click.Choice(_TRACKS), default="off", show_default=True, help="What the MMU does to entries.")
@_option("--no-soft-dirty", is_flag=True, help="CONFIG_MEM_SOFT_DIRTY=n.")
@_option("--kernel", metavar="PATH|SERIES", help="For --backend linux: a bzImage, or 6.1 or 6.12 for Debian's.")
@_option("--name", "names", multiple=True, help="Only the scenario of this name; may be given several times.")
@_option("--picture", metavar="NAME", help="Draw the pages of this scenario after each step.")
@_option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where a scenario that differs is left, reduced; by default results/shrunk-NAME.jsonl.",
)
@simulator_option
@json_option
@mutant_option
def replay(
    files: tuple[Path, ...],
    count: int | None,
    themes: tuple[str, ...],
    seed: int | None,
    backend: str,
    profile: str,
    track: str,
    no_soft_dirty: bool,
    kernel: str | None,
    names: tuple[str, ...],
    picture: str | None,
    output: Path | None,
    simulator: str | None,
    as_json: bool,
) -> int:
    """Replay scenarios and compare every step with what a real kernel answered.

    The gateware backend also compares all of physical memory with the golden model after each step. `closed` counts
    steps that differ from the recording as they may, where the kernel loses a store and the MMU does not; `stored`
    counts stores to tracked pages that were checked to be reported. Random scenarios,
    and files without answers, are compared with the golden model alone.
    """
    if kernel is not None and backend != "linux":
        raise ToolError(f"--kernel goes with --backend linux, not with --backend {backend}")
    if backend == "linux" and (track != "off" or no_soft_dirty or picture):
        raise ToolError("a live kernel runs on a plain MMU: leave out --track, --no-soft-dirty and --picture")
    if simulator is not None and backend != "gateware":
        raise ToolError(f"--simulator goes with --backend gateware, not with --backend {backend}")
    if bool(files) == bool(count):
        raise ToolError("give either scenario files or --generate COUNT")
    if count is None and (themes or seed is not None):
        raise ToolError("--theme and --seed go with --generate")
    if count is not None and (names or picture):
        raise ToolError("--name and --picture go with files, not with --generate")
    if output is not None:
        check_writable(output)
    from ptewalk.cosim.checks.pictures import page_map
    from ptewalk.cosim.checks.replay import ReplayJob, find_profile, replay_gateware, replay_model
    from ptewalk.cosim.checks.reproduce import plain_text, repeat_command, scenario_text
    from ptewalk.cosim.checks.scenarios import check_scenarios, generated

    paths = tuple(str(path.absolute()) for path in files)
    job = ReplayJob(paths, profile, track, not no_soft_dirty, names or None, picture)
    if count is not None:
        seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        asked = generated(count, seed, find_profile(profile), themes)
    else:
        asked = job.scenarios()
    recorded = any(step.recorded is not None for scenario in asked for step in scenario.steps)
    if backend == "linux":
        from ptewalk.cosim.checks.live import replay_linux

        with _progress("scenarios") as advance:
            result = replay_linux(asked, profile, kernel, advance)
    elif not recorded and not picture:
        result = check_scenarios(asked, backend, profile, track, not no_soft_dirty, simulator)
    else:
        result = replay_gateware([job], simulator)[0] if backend == "gateware" else replay_model(job)
    result |= {"backend": backend, "profile": profile, "track": track}
    if count is not None:
        result["seed"] = seed
    if picture and not result["picture"]:
        raise ToolError(f"no scenario {picture!r} to draw in the files given")
    options = {"backend": backend, "profile": profile, "track": track, "no-soft-dirty": no_soft_dirty}
    options |= {"simulator": simulator, "kernel": kernel, "mutant": click.get_current_context().meta.get(_MUTANT)}
    reduced = _reduce(asked, result, job, backend, options)
    if reduced is not None:
        left = output or Path("results") / f"shrunk-{re.sub(r'[^A-Za-z0-9_.-]', '_', reduced[0]['name'])}.jsonl"
        result |= {"shrunk": reduced, "shrunk_file": str(left), "repeat": repeat_command(str(left), options)}
        try:
            write_whole(left, scenario_text(reduced))
        except ToolError as error:  # the difference is what counts
            click.echo(f"ptewalk: {error}", err=True)
            result |= {"shrunk_file": None, "repeat": None}
    if as_json:
        click.echo(json.dumps(result))
    else:
        columns = ("backend", "simulator", "kernel", "profile", "track", "seed")
        counts = ("scenarios", "steps", "agree", "differ", "skipped", "closed", "stored")
        shown = {name: result[name] for name in (*columns, *counts) if name in result}
        _show([shown], f"replay: {', '.join(map(str, files)) or f'{count} generated scenarios'}")
        for name, reason in result["skipped_scenarios"].items():
            click.echo(f"skipped {name}: {reason}")
        if "counters" in result:
            click.echo(f"the gateware counted: {result['counters']}; {result['words']} words of memory compared")
        if result.get("dropped"):
            click.echo(f"marks that the kernel itself dropped later, by verb: {result['dropped']}")
        differing = list(result["differing"].values())
        for difference in differing[:_SHOWN]:
            click.echo(f"differs: {difference}")
        if len(differing) > _SHOWN:
            click.echo(f"and {len(differing) - _SHOWN} more scenarios differ")
        if recorded and backend != "linux" and result["scenarios"] > 1 and 2 * len(differing) > result["scenarios"]:
            click.echo(f"most scenarios differ: were they recorded on the kernel of --profile {profile}?")
        if picture:
            click.echo("\n".join(page_map(result["picture"])))
        if reduced is not None:
            left_at = result["shrunk_file"] or "not written"
            click.echo(f"{left_at}, the first one reduced:\n{plain_text(reduced)}", nl=False)
            click.echo(f"repeat: {result['repeat'] or 'with --output FILE'}")
    if result["differ"]:
        return DIFFER
    if result.get("missing"):
        click.echo(f"fewer comparisons than promised: {result['missing']}", err=True)
        return DIFFER
    if not result["agree"]:
        raise ToolError("no step was compared: give a file with recorded steps that the model can follow")
    return 0


@commands.command()
@_option("--generate", "count", type=click.IntRange(1), required=True, metavar="COUNT", help="Random scenarios.")
@seed_option
@_option("--profile", "profiles", multiple=True, help="A kernel; may be given several times, by default all four.")
@_option("--theme", "themes", multiple=True, help="Of the scenarios; by default all that every kernel knows.")
@_option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON object to this file too.")
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
    from ptewalk.cosim.checks.replay import find_profile

    if output is not None:
        check_writable(output)
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    chosen = [find_profile(name) for name in profiles or KERNELS]
    scenarios = common_scenarios(count, seed, chosen, themes)
    with _progress("scenarios") as advance:
        rows = [count_errors(scenarios, profile, advance).as_json() for profile in chosen]
    result = {"rows": rows, "seed": seed, "themes": list(themes)}
    if output is not None:
        write_whole(output, json.dumps(result, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(f"accuracy against exact, {count} scenarios, seed {seed}\n\n{markdown(rows)}", nl=False)
    return 0


@commands.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.argument("scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="SCENARIO.jsonl[.gz]")
@_option("--name", help="The scenario; needed when the file has several.")
@_option("--step", type=click.IntRange(0), help="The last step to run, from 0; by default all are run.")
@_option("--backend", type=click.Choice(("model", "gateware")), default="model", show_default=True, help="Who runs it.")
@_option("--profile", default="linux-6.1", show_default=True, help="What the operating system does.")
@_option("--track", type=click.Choice(_TRACKS), default="off", show_default=True, help="What the MMU does to entries.")
@_option("--no-soft-dirty", is_flag=True, help="CONFIG_MEM_SOFT_DIRTY=n.")
@_option("--unprivileged", is_flag=True, help="Readers have no CAP_SYS_ADMIN: pagemap hides frame numbers.")
@_option("--foreground", is_flag=True, help="Stay until it is unmounted; SIGINT and SIGTERM unmount it.")
@simulator_option
@mutant_option
def procfs(
    mountpoint: Path,
    scenario: Path,
    name: str | None,
    step: int | None,
    backend: str,
    profile: str,
    track: str,
    no_soft_dirty: bool,
    unprivileged: bool,
    foreground: bool,
    simulator: str | None,
) -> int:
    """Serve the machine that a scenario leaves behind as a /proc tree at MOUNTPOINT, over FUSE.

    Process 0 of the scenario is MOUNTPOINT/1, process 1 MOUNTPOINT/2, and so on. To end it: umount MOUNTPOINT.
    """
    from ptewalk.cosim.procfs.serve import ServedState, check_mountpoint, serve
    from ptewalk.model.proc.files import pid_of

    if simulator is not None and backend != "gateware":
        raise ToolError(f"--simulator goes with --backend gateware, not with --backend {backend}")
    check_mountpoint(mountpoint)
    state = ServedState(str(scenario), name, step, profile, track, not no_soft_dirty)
    kernel = state.run() if backend == "model" else state.run_on_gateware(simulator)

    def ready() -> None:
        for who in sorted(kernel.processes):
            click.echo(f"process {who}: {mountpoint / str(pid_of(who))}")
        click.echo(f"frames: {mountpoint / 'kpageflags'}, {mountpoint / 'kpagecount'}; to end: umount {mountpoint}")

    serve(kernel, mountpoint, privileged=not unprivileged, foreground=foreground, ready=ready)
    return 0


@commands.command()
@files_argument
@_option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help=".jsonl or .jsonl.gz.")
@_option("--kernel", metavar="PATH|SERIES", help="A bzImage, or 6.1 or 6.12 for Debian's; by default $KERNEL or 6.1.")
@_option("--keep-going", is_flag=True, help="Leave out scenarios that have no answer, and name them.")
@json_option
def record(files: tuple[Path, ...], output: Path, kernel: str | None, keep_going: bool, as_json: bool) -> int:
    """Ask a real kernel under QEMU what it answers to scenarios, and write that; an interrupted run goes on."""
    from ptewalk.cosim.oracles.linux.recorder import read_requests
    from ptewalk.cosim.oracles.linux.recorder import record as record_all

    if not output.name.endswith((".jsonl", ".jsonl.gz")):
        raise ToolError(f"{output}: name an output that ends in .jsonl or .jsonl.gz")
    if not output.parent.is_dir():
        raise ToolError(f"{output}: there is no folder {output.parent}; make it, or name another")
    requests = [request for path in files for request in read_requests(path)]
    try:
        with _progress("scenarios") as advance:
            done = record_all(requests, output, kernel=kernel, keep_going=keep_going, progress=advance)
    except KeyboardInterrupt:
        raise ToolError("interrupted; the same command goes on from there") from None
    result = {"scenarios": done.scenarios, "steps": done.steps, "kernel": done.kernel, "resumed": done.resumed}
    if as_json:
        click.echo(json.dumps(result | {"failures": done.failures, "output": str(output)}))
    else:
        _show([result], f"record: {output}")
        for name, why in done.failures:
            click.echo(f"no answer to {name}: {why}")
    return 0


# The regression ------------------------------------------------------------------------------------------------------


@commands.command()
@simulator_option
@_option(
    "--walks", "count", type=click.IntRange(1), help="Random walks on the batch level; fewer on Icarus by default."
)
@_option("--only", type=click.Choice(_PARTS), multiple=True, help="Part of the regression; by default all.")
@_option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Result file; default results/cosim.json.")
@seed_option
@json_option
@mutant_option
def cosim(
    simulator: str | None,
    count: int | None,
    only: tuple[str, ...],
    output: Path | None,
    seed: int | None,
    as_json: bool,
) -> int:
    """The standard regression: gateware against golden model and recorded engines, in every simulator there is."""
    from ptewalk.cosim.runs.regression import run_regression

    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    output = output or Path("results") / "cosim.json"
    check_writable(output)
    result = run_regression(simulator, count, only, seed, say=lambda text: click.echo(text, err=True))
    write_whole(output, json.dumps(result, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(result))
    else:
        _show(result["rows"], f"cosim, seed {seed}")
        for line in result["failures"]:
            click.echo(line)
        for line in result["picture"]:
            click.echo(line)
        for line in result["not_run"]:
            click.echo(f"not run: {line}")
        click.echo(f"{result['comparisons']} comparisons, {result['mismatches']} mismatches; written to {output}")
    return DIFFER if result["mismatches"] or result["failures"] else 0


@commands.command()
@_option("--seed", type=click.IntRange(0, 2**63 - 1), required=True, help="Of the run that failed.")
@_option("--batch", type=click.IntRange(0), default=0, show_default=True, help="Which batch of it.")
@_option("--walks", "count", type=click.IntRange(1, 2000), default=200, show_default=True, help="Of that batch.")
@_option("--output", "-o", type=click.Path(file_okay=False, path_type=Path), help="Folder; default results/waves.")
@simulator_option
@json_option
@mutant_option
def waves(seed: int, batch: int, count: int, output: Path | None, simulator: str | None, as_json: bool) -> int:
    """Run one batch of random walks again and record every signal; a failure prints the command.

    Verilator writes VCD, Icarus FST.
    """
    from ptewalk.cosim.runs.gateware import BuiltWalker

    folder = output or Path("results") / "waves"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ToolError(f"{folder}: {error.strerror}; name a folder that can be written") from error
    walker = BuiltWalker.make(simulator, waves=True)
    repeat = f"ptewalk waves --seed {seed} --batch {batch} --walks {count} --simulator {walker.model.simulator.name}"
    result = walker.randomised(count, seed, repeat, batch=batch, folder=folder)
    if as_json:
        click.echo(json.dumps(result | {"seed": seed, "batch": batch, "simulator": walker.simulator}))
    else:
        if result["failure"]:
            click.echo(result["failure"])
        click.echo(f"{result['comparisons']} comparisons, {result['mismatches']} mismatches; waves: {result['waves']}")
    return DIFFER if result["failure"] else 0


# Measurements --------------------------------------------------------------------------------------------------------


@commands.command()
@simulator_option
@_option(
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
    from ptewalk.cosim.runs.gateware import BuiltWalker

    walker = BuiltWalker.make(simulator)
    rows = walker.timed(software=software_cycles)
    late = [row for row in rows if row["target"] is not None and row["cycles"] > row["target"]]
    if as_json:
        click.echo(json.dumps({"rows": rows, "simulator": walker.simulator, "software_cycles": software_cycles}))
    else:
        _show(rows, f"cycles from request to response ({walker.simulator})")
    return DIFFER if late else 0


@commands.command()
@simulator_option
@_option("--only", type=click.Choice(_MEASURED), multiple=True, help="Part of the benchmark; by default all.")
@_option("--walks", "count", type=click.IntRange(1000), default=20_000, show_default=True, help="At the batch level.")
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
        _show(rows, f"bench, seed {seed}")
    return DIFFER if any(row["verdict"] == MISSED for row in rows) else 0


@commands.command()
@_option("--config", default="walker", show_default=True, help="Which gateware.")
@_option("--seed", type=click.IntRange(1, 2**31), default=1, show_default=True, help="Of place and route.")
@json_option
def synth(config: str, seed: int, as_json: bool) -> int:
    """Area and post-route Fmax on an ECP5-85F, speed grade 8, beside its peers'."""
    from dataclasses import asdict

    from ptewalk.cosim.fpga.synth import CONFIGS, PEERS, synthesise

    if config in CONFIGS:
        click.echo(f"synthesis, place and route of {config}: some minutes", err=True)
    row = asdict(synthesise(config, seed=seed))
    if as_json:
        click.echo(json.dumps(row))
    else:
        _show([row], "ECP5-85F, speed 8, CABGA756, harness excluded")
        _show(
            [dict(zip(("peer", "lut4", "ff", "fmax_mhz"), peer, strict=True)) for peer in PEERS],
            "Peers, measured beforehand on the same part",
        )
    return 0


@commands.command()
@click.argument("properties", nargs=-1, metavar="[PROPERTY]...")
@json_option
@mutant_option
def prove(properties: tuple[str, ...], as_json: bool) -> int:
    """Prove properties of the gateware (all by default), unbounded, with their covers."""
    from dataclasses import asdict

    from ptewalk.cosim.formal.properties import PROPERTIES
    from ptewalk.cosim.formal.prove import prove as prove_one

    for name in properties:
        if name not in PROPERTIES:
            raise ToolError(f"no property {name!r}: choose one of {', '.join(PROPERTIES)}")
    results = [prove_one(name) for name in properties or PROPERTIES]
    if as_json:
        click.echo(json.dumps({result.property: asdict(result) for result in results}))
    else:
        names = ("property", "result", "unbounded", "engine", "covers", "seconds", "detail")
        _show([{name: getattr(result, name) for name in names} for result in results])
        for result in results:
            click.echo(f"{result.property} assumes: {'; '.join(result.assumptions)}")
    return 0 if all(result.result == "proved" for result in results) else DIFFER


@commands.command()
@_option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Verilog file to write."
)
@_option("--levels", type=click.Choice(["4", "5"]), default="5", show_default=True, help="Levels of paging at most.")
@_option("--physical-bits", type=int, default=40, show_default=True, help="MAXPHYADDR, 32 to 52.")
@_option("--tag-bits", type=int, default=8, show_default=True, help="Width of a request's tag, 1 to 32.")
@_option("--soft-dirty/--no-soft-dirty", default=True, show_default=True, help="With tracking logic.")
@_option("--gigabyte-pages/--no-gigabyte-pages", default=True, show_default=True, help="1 GiB pages.")
@_option("--trace/--no-trace", default=True, show_default=True, help="With the trace port.")
@mutant_option
def export(
    output: Path,
    levels: str,
    physical_bits: int,
    tag_bits: int,
    soft_dirty: bool,
    gigabyte_pages: bool,
    trace: bool,
) -> int:
    """Write the walker as Verilog; module `ptewalk_walker`, one port per field."""
    from ptewalk.cosim.runs.gateware import verilog_of
    from ptewalk.rtl.walker import WalkerConfig

    try:
        config = WalkerConfig(
            levels=int(levels),
            physical_bits=physical_bits,
            tag_bits=tag_bits,
            soft_dirty=soft_dirty,
            gigabyte_pages=gigabyte_pages,
            trace=trace,
        )
    except ValueError as error:
        raise ToolError(str(error)) from None
    check_writable(output)
    write_whole(output, verilog_of(config))
    click.echo(f"{output}: module ptewalk_walker")
    return 0


if __name__ == "__main__":
    main()
