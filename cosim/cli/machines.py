"""Machines: a real kernel that is recorded, and one of the model that is served."""

from __future__ import annotations

import json
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
    files_argument,
    json_option,
    kernel_option,
    mutant_option,
    option,
    progress,
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
@files_argument
@option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help=".jsonl or .jsonl.gz.")
@kernel_option
@deb_option
@option("--keep-going", is_flag=True, help="Leave out scenarios that have no answer, and name them.")
@option("--proc", is_flag=True, help="Record after the last step what smaps and other files of /proc say, too.")
@json_option
def record(
    files: tuple[Path, ...],
    output: Path,
    kernel: str | None,
    packages: tuple[Path, ...],
    keep_going: bool,
    proc: bool,
    as_json: bool,
) -> int:
    """Ask a real kernel under QEMU what it answers to scenarios, and write that; an interrupted run goes on."""
    from ptewalk.cosim.oracles.linux.recorder import read_requests
    from ptewalk.cosim.oracles.linux.recorder import record as record_all

    if not output.name.endswith((".jsonl", ".jsonl.gz")):
        raise ToolError(f"{output}: name an output that ends in .jsonl or .jsonl.gz")
    if not output.parent.is_dir():
        raise ToolError(f"{output}: there is no folder {output.parent}; make it, or name another")
    kernel = chosen_kernel(kernel, packages)
    requests = [replace(request, files=proc) for path in files for request in read_requests(path)]
    try:
        with progress("scenarios") as advance:
            done = record_all(requests, output, kernel=kernel, keep_going=keep_going, progress=advance)
    except KeyboardInterrupt:
        click.echo("ptewalk: interrupted; the same command goes on from there", err=True)
        return INTERRUPTED
    result = {"scenarios": done.scenarios, "steps": done.steps, "kernel": done.kernel, "resumed": done.resumed}
    if as_json:
        click.echo(json.dumps(result | {"failures": done.failures, "output": str(output)}))
    else:
        show([result], f"record: {output}")
        for name, why in done.failures:
            click.echo(f"no answer to {name}: {why}")
    for note in done.notes:
        click.echo(f"ptewalk: {note}", err=True)
    return 0
