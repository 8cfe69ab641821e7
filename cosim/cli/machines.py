"""Machines: a real kernel that is recorded, and one of the model that is served."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.cli.common import (
    DIFFER,
    INTERRUPTED,
    TRACKS,
    chosen_kernel,
    deb_option,
    json_option,
    kernel_option,
    mutant_option,
    option,
    progress,
    seed_option,
    show,
    simulator_option,
)


@click.command()
@click.argument("mountpoint", type=click.Path(path_type=Path))
@click.argument("scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="SCENARIO.jsonl[.gz]")
@option("--name", help="The scenario; needed when the file has several.")
@option("--step", type=click.IntRange(0), help="The last step to run, from 0; by default all are run.")
@option("--backend", type=click.Choice(("model", "gateware")), default="model", show_default=True, help="Who runs it.")
@option("--profile", default="linux-6.1", show_default=True, help="What the operating system does.")
@option("--track", type=click.Choice(TRACKS), default="off", show_default=True, help="What the MMU does to entries.")
@option("--no-soft-dirty", is_flag=True, help="CONFIG_MEM_SOFT_DIRTY=n.")
@option("--unprivileged", is_flag=True, help="Readers have no CAP_SYS_ADMIN: pagemap hides frame numbers.")
@option("--foreground", is_flag=True, help="Stay until it is unmounted; SIGINT and SIGTERM unmount it.")
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
    The gateware is compared with the golden model; where it differs, it says so, serves what the gateware left, and
    exits with 1.
    """
    from ptewalk.cosim.checks.served import ServedState
    from ptewalk.cosim.procfs.serve import check_mountpoint, serve
    from ptewalk.model.proc.files import pid_of

    if simulator is not None and backend != "gateware":
        raise ToolError(f"--simulator goes with --backend gateware, not with --backend {backend}")
    check_mountpoint(mountpoint)
    state = ServedState(str(scenario), name, step, profile, track, not no_soft_dirty)
    if backend == "gateware":
        from ptewalk.cosim.runs.served import left_by_gateware

        with progress("the gateware is built, and runs the scenario"):
            left = left_by_gateware(state, simulator)
        kernel, told = left.kernel, dict(left.told)
    else:
        with progress("the model runs the scenario"):
            kernel, told = state.run(), {"differences": []}

    def ready() -> None:
        for difference in told["differences"]:
            click.echo(f"differs: {difference}", err=True)
        if backend == "gateware":
            click.echo(
                f"the gateware counted: {told['counters']}; {told['words']} words of memory, "
                f"{told['events']} accesses, {told['traced']} trace records compared"
            )
        for who in sorted(kernel.processes):
            click.echo(f"process {who}: {mountpoint / str(pid_of(who))}")
        click.echo(f"frames: {mountpoint / 'kpageflags'}, {mountpoint / 'kpagecount'}; to end: umount {mountpoint}")

    serve(kernel, mountpoint, privileged=not unprivileged, foreground=foreground, ready=ready)
    return DIFFER if told["differences"] else 0


@click.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="[FILE]...")
@option("--generate", "count", type=click.IntRange(1), metavar="COUNT", help="Random scenarios instead of files.")
@option("--theme", "themes", multiple=True, help="Of the random scenarios; by default all that the kernel knows.")
@seed_option
@option("--first", type=click.IntRange(0), default=0, metavar="NUMBER", help="Number of the first random scenario.")
@option("--profile", help="Whose random scenarios; by default those of --kernel's series.")
@option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help=".jsonl or .jsonl.gz.")
@kernel_option
@deb_option
@option("--keep-going", is_flag=True, help="Leave out scenarios that have no answer, and name them.")
@option("--proc", is_flag=True, help="Record after the last step what smaps and other files of /proc say, too.")
@json_option
def record(
    files: tuple[Path, ...],
    count: int | None,
    themes: tuple[str, ...],
    seed: int | None,
    first: int,
    profile: str | None,
    output: Path,
    kernel: str | None,
    packages: tuple[Path, ...],
    keep_going: bool,
    proc: bool,
    as_json: bool,
) -> int:
    """Ask a real kernel under QEMU what it answers to scenarios, and write that; an interrupted run goes on.

    `hash` is of scenarios and answers: two recordings of one kernel have the same. With --generate and the same --seed
    the scenarios are those of `replay --generate`; those whose last step never ends are left out, and named.
    """
    from ptewalk.cosim.formats.scenarios import as_request, content_hash, load
    from ptewalk.cosim.oracles.linux.recorder import read_requests
    from ptewalk.cosim.oracles.linux.recorder import record as record_all

    if not output.name.endswith((".jsonl", ".jsonl.gz")):
        raise ToolError(f"{output}: name an output that ends in .jsonl or .jsonl.gz")
    if not output.parent.is_dir():
        raise ToolError(f"{output}: there is no folder {output.parent}; make it, or name another")
    if bool(files) == bool(count):
        raise ToolError("give either scenario files or --generate COUNT")
    if count is None and (themes or first or profile or seed is not None):
        raise ToolError("--theme, --seed, --first and --profile go with --generate")
    refused: dict[str, str] = {}
    if count is None:
        requests = [request for path in files for request in read_requests(path)]
    else:
        from ptewalk.cosim.checks.live import answerable, kernel_of
        from ptewalk.cosim.checks.replay import find_profile
        from ptewalk.cosim.stimulus.scenarios import generated
        from ptewalk.model.profiles import PROFILES

        profile = profile or (f"linux-{kernel}" if f"linux-{kernel}" in PROFILES else "linux-6.1")
        seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        drawn = generated(count, seed, find_profile(profile), themes, first=first)
        asked, refused = answerable(drawn, profile)
        requests = [as_request(one) for one in asked]
        kernel = kernel if kernel or packages else kernel_of(profile, None)
    kernel = chosen_kernel(kernel, packages)
    requests = [replace(request, files=proc) for request in requests]
    try:
        with progress("scenarios") as advance:
            done = record_all(requests, output, kernel=kernel, keep_going=keep_going, progress=advance)
    except KeyboardInterrupt:
        click.echo("ptewalk: interrupted; the same command goes on from there", err=True)
        return INTERRUPTED
    result = {"scenarios": done.scenarios, "steps": done.steps, "kernel": done.kernel, "resumed": done.resumed}
    told = {"hash": content_hash(load([output]))} | ({"seed": seed, "profile": profile} if count else {})
    failures = [*done.failures, *refused.items()]
    if as_json:
        click.echo(json.dumps(result | told | {"failures": failures, "output": str(output)}))
    else:
        show([result], f"record: {output}")
        click.echo(", ".join(f"{name} {value}" for name, value in told.items()))
        for name, why in failures:
            click.echo(f"no answer to {name}: {why}")
    for note in done.notes:
        click.echo(f"ptewalk: {note}", err=True)
    return 0
