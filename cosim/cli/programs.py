"""Real programs: run with the gateware, or the golden model, as their MMU."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, write_whole
from ptewalk.cosim.cli.common import (
    CACHING,
    DESIGNS,
    DIFFER,
    TRACKS,
    UNCACHED,
    chosen_kernel,
    compiled_option,
    deb_option,
    design_option,
    json_option,
    kernel_option,
    mutant_option,
    option,
    seed_option,
)

_SHOWN = 10
"""Lost pages that are printed; the first thousand are in the JSON."""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class _Size(click.ParamType):
    """Bytes: a number, with K, M or G behind it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"([0-9]+)([KMG]?)", value)
        if found is None:
            self.fail(f"{value!r} is no size: give a number of bytes, or one with K, M or G behind it", param, context)
        return int(found[1]) * _UNITS[found[2]]


SIZE = _Size()


def _opened(stack: ExitStack, path: Path | None, mode: str, otherwise: BinaryIO) -> BinaryIO:
    if path is None:
        return otherwise
    try:
        return stack.enter_context(path.open(mode))  # type: ignore[return-value]
    except OSError as error:
        raise ToolError(
            f"{path}: {error.strerror}; name a file that can be {'read' if mode == 'rb' else 'written'}"
        ) from error


@click.command(context_settings={"allow_interspersed_args": False})  # what follows PROGRAM is its own
@click.argument("program", metavar="PROGRAM")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]...")
@option("--profile", default="linux-6.1", show_default=True, help="What the operating system does.")
@option("--track", type=click.Choice(TRACKS), default="native", show_default=True, help="What the MMU does to entries.")
@option("--backend", type=click.Choice(["model", "gateware"]), default="gateware", show_default=True, help="Who walks.")
@design_option
@option("--engine", is_flag=True, help="The gateware's table engine does clear_refs, pagemap and mremap.")
@option("--log", is_flag=True, help="Its dirty log says what an epoch changed, not pagemap.")
@compiled_option
@option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("/"),
    show_default=True,
    help="The files that the program sees; they are only read.",
)
@option(
    "--scratch",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where what it writes is kept; by default nowhere.",
)
@option("--scratch-bytes", type=SIZE, default="1G", show_default=True, help="What it may write there in all.")
@option("--memory", type=SIZE, default="1G", show_default=True, help="Physical memory.")
@option(
    "--swap",
    type=click.IntRange(16),
    metavar="PAGES",
    help="Private pages that a process may keep in memory; the rest is swapped out. By default all.",
)
@option("--time", "seconds", type=click.FloatRange(0), default=0, help="Seconds after which it is ended; 0: never.")
@option("--epoch", metavar="KIND", help="Check what is reported: syscalls:N, instructions:N or marker.")
@option(
    "--checkpoint",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write images into this folder, which must be empty: a full one, then what is reported.",
)
@option("--every", type=click.IntRange(1), default=1, show_default=True, help="Epochs from one image to the next.")
@option(
    "--against",
    type=click.Choice(["linux"]),
    help="Then run it on a real kernel too (QEMU), and compare its memory epoch by epoch.",
)
@kernel_option
@deb_option
@option("--stdin", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its standard input.")
@option("--stdout", type=click.Path(dir_okay=False, path_type=Path), help="Where its standard output goes.")
@option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="A variable of its environment.")
@option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON object to this file.")
@option("--pass-status", is_flag=True, help="Exit with the program's own status, 128 + N for signal N.")
@seed_option
@json_option
@mutant_option
def run(
    program: str,
    arguments: tuple[str, ...],
    profile: str,
    track: str,
    backend: str,
    design: str,
    engine: bool,
    log: bool,
    simulator: str | None,
    root: Path,
    scratch: Path | None,
    scratch_bytes: int,
    memory: int,
    swap: int | None,
    seconds: float,
    epoch: str | None,
    checkpoint: Path | None,
    every: int,
    against: str | None,
    kernel: str | None,
    packages: tuple[Path, ...],
    stdin: Path | None,
    stdout: Path | None,
    variables: tuple[str, ...],
    report: Path | None,
    pass_status: bool,
    seed: int | None,
    as_json: bool,
) -> int:
    """Run an x86-64 Linux PROGRAM whose MMU is the gateware.

    Unicorn executes it; each miss of its TLB is a walk of the gateware (or of the golden model), in the same physical
    memory; what it asks of the operating system is answered by the model's Linux. Its output is its own; the report
    goes to standard error when it has ended.

    With --epoch, pages that changed are compared with those that pagemap reports; soft-dirty is then cleared. A page
    that changed and was not reported is a lost store, and the exit code is 1. With --log the MMU's dirty log reports,
    with what software appends; images are made of it, and a page that is soft-dirty without a record is exit code 1.

    With --against linux the same program then runs on a real kernel, and areas, present pages, soft-dirty bits and
    (with --track off) raw entries are compared at the end of each epoch; a difference is exit code 1 too.
    """
    _check(report, stdout, as_json)
    if against is None and (kernel is not None or packages):
        raise ToolError("--kernel and --deb are for --against linux")
    if log and epoch is None:
        raise ToolError("--log needs --epoch KIND: at an epoch's end it is read")
    if against is not None and (
        checkpoint is not None or swap is not None or epoch is None or epoch.startswith("instructions")
    ):
        raise ToolError("--against needs --epoch syscalls:N or marker, and takes no --checkpoint and no --swap")
    if checkpoint is not None:
        if epoch is None:
            raise ToolError("--checkpoint needs --epoch KIND: an image is made at the end of an epoch")
        check_writable(checkpoint / "000001")
        if checkpoint.exists() and any(checkpoint.iterdir()):
            raise ToolError(f"{checkpoint}: it is not empty; name another folder for --checkpoint")
    for variable in variables:
        if "=" not in variable:
            raise ToolError(f"--env {variable}: give NAME=VALUE")
    from ptewalk.cosim.checks.replay import find_machine
    from ptewalk.cosim.programs.epochs import Every
    from ptewalk.cosim.programs.run import Settings
    from ptewalk.model.linux import Track

    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    found, exact = find_machine(profile)
    settings = Settings(
        found,
        Track[track.upper()],
        exact=exact,
        epoch=None if epoch is None else Every.parse(epoch),
        checkpoint=checkpoint,
        every=every,
        told=backend,
        design=design,
        engine=engine,
        log=log,
        pages=report is not None,
        root=root,
        scratch=scratch,
        scratch_bytes=scratch_bytes,
        memory_bytes=memory,
        swap=swap or 0,
        seconds=seconds,
        seed=seed,
    ).with_environment(variables)
    result = {"program": [program, *arguments]}
    guest = None
    if against is not None:
        from ptewalk.cosim.checks.live import kernel_of
        from ptewalk.cosim.oracles.linux.guest import require_tools

        require_tools()
        guest = kernel_of(found.name, chosen_kernel(kernel, packages)) or ""
    return _go(
        settings,
        _Streams(stdin, stdout),
        result,
        lambda running: running.start(program, arguments),
        report,
        as_json,
        pass_status,
        simulator,
        guest,
    )


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="FOLDER")
@option("--epoch", "number", type=click.IntRange(1), help="Number of the image; by default the last.")
@option("--backend", type=click.Choice(["model", "gateware"]), help="Who walks; by default as before.")
@option("--design", type=click.Choice(DESIGNS), help="For the gateware; by default as before.")
@option("--engine/--no-engine", default=None, help="With the gateware's table engine; by default as before.")
@option("--log/--no-log", default=None, help="With the gateware's dirty log; by default as before.")
@compiled_option
@option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The files that the program sees; by default those of before.",
)
@option("--scratch", type=click.Path(file_okay=False, path_type=Path), help="An empty folder for what it writes.")
@option("--time", "seconds", type=click.FloatRange(0), help="Seconds after which it is ended; by default as before.")
@option("--stdin", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Its standard input, as before.")
@option("--stdout", type=click.Path(dir_okay=False, path_type=Path), help="Where the rest of its output goes.")
@option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write the JSON object to this file.")
@option("--pass-status", is_flag=True, help="Exit with the program's own status, 128 + N for signal N.")
@json_option
@mutant_option
def restore(
    folder: Path,
    number: int | None,
    backend: str | None,
    design: str | None,
    engine: bool | None,
    log: bool | None,
    simulator: str | None,
    root: Path | None,
    scratch: Path | None,
    seconds: float | None,
    stdin: Path | None,
    stdout: Path | None,
    report: Path | None,
    pass_status: bool,
    as_json: bool,
) -> int:
    """Go on with a program from an image that `run --checkpoint` left in FOLDER.

    What it printed before the image is not printed again.
    """
    _check(report, stdout, as_json)
    from dataclasses import replace

    from ptewalk.cosim.programs.images import numbers, read_image
    from ptewalk.cosim.programs.run import Settings

    there = numbers(folder)
    if number is None:
        number = there[-1]
    elif number not in there:
        raise ToolError(f"{folder}: no image {number}; there are {there[0]} to {there[-1]}")
    chosen = number
    settings = Settings.from_json(read_image(folder, chosen).state.get("settings"))
    settings = replace(settings, pages=report is not None)
    if backend == "model" and design is None:
        settings = replace(settings, design=UNCACHED)
    if backend == "model" and engine is None:
        settings = replace(settings, engine=False)
    if UNCACHED in (design, settings.design) and log is None:
        settings = replace(settings, log=False)
    changes = {"root": root, "scratch": scratch, "seconds": seconds, "told": backend, "design": design}
    changes |= {"engine": engine, "log": log}
    settings = replace(settings, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]
    if settings.told not in ("model", "gateware"):
        raise ToolError(f"{folder}: backend {settings.told!r} in image {chosen}; give --backend model or gateware")
    if settings.design not in DESIGNS:
        raise ToolError(f"{folder}: design {settings.design!r} in image {chosen}; give --design: {', '.join(DESIGNS)}")
    result = {"image": str(folder / f"{chosen:06}")}
    return _go(
        settings,
        _Streams(stdin, stdout),
        result,
        lambda running: running.restore(folder, chosen),
        report,
        as_json,
        pass_status,
        simulator,
    )


class _Streams(NamedTuple):
    stdin: Path | None
    stdout: Path | None


def _check(report: Path | None, stdout: Path | None, as_json: bool) -> None:
    if as_json and stdout is None:
        raise ToolError("--json needs --stdout FILE: standard output is the program's otherwise")
    for path in (report, stdout):
        if path is not None:
            check_writable(path)


def _go(
    settings: Any,
    files: _Streams,
    result: dict[str, Any],
    begin: Callable[[Any], None],
    report: Path | None,
    as_json: bool,
    pass_status: bool,
    simulator: str | None,
    guest: str | None = None,
) -> int:
    """Run a program to its end, and tell of it; the exit code. `guest`: the kernel that it is to be compared with."""
    from ptewalk.cosim.programs.against import Kept, Watcher, ask_linux, compare
    from ptewalk.cosim.programs.run import ProgramRun
    from ptewalk.model.linux import Track

    walker, design = make_walker(settings.told, settings.design, simulator, log=settings.log), settings.design
    engine = make_engine(settings.told, simulator) if settings.engine else None
    with ExitStack() as stack:
        streams = {
            "stdin": _opened(stack, files.stdin, "rb", sys.stdin.buffer),
            "stdout": _opened(stack, files.stdout, "wb", sys.stdout.buffer),
            "stderr": sys.stderr.buffer,
        }
        kept = [Kept(streams["stdout"]), Kept(streams["stderr"])]
        if guest is not None:
            given = streams["stdin"].read() if files.stdin else b""
            streams = {"stdin": io.BytesIO(given), "stdout": kept[0], "stderr": kept[1]}
        running = stack.enter_context(ProgramRun(settings, walker, engine=engine, **streams))
        watcher = None if guest is None else Watcher(running, given)
        begin(running)
        status = running.run()
        if watcher is not None:
            watcher.status = status
            outputs = kept[0].getvalue(), kept[1].getvalue()
            answered = ask_linux(running, watcher, result["program"], guest or None)
            entries = settings.track == Track.OFF
            result["against"] = compare(watcher, outputs, answered, entries=entries).as_json()
        result |= {"backend": settings.told, "design": design} if design in CACHING else {"backend": settings.told}
        result |= {"profile": settings.profile.name, "track": settings.track.name.lower()}
        result |= {"seed": settings.seed, "status": _status(status), **running.figures()}
        epochs = None if running.epochs is None else running.epochs.as_json()
    if epochs is not None:
        result |= {"lost": epochs["lost"], "epochs": epochs}
    if report is not None:
        write_whole(report, json.dumps(result, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(result))
    elif report is None:
        click.echo(_told(result), err=True)
        for loss in (epochs or {"losses": ()})["losses"][:_SHOWN]:
            click.echo(f"  lost: {loss}", err=True)
        for difference in result.get("against", {"differences": ()})["differences"][:_SHOWN]:
            click.echo(f"  differs: {difference}", err=True)
    if (epochs is not None and (epochs["lost"] or epochs.get("unlogged"))) or result.get("against", {}).get("differ"):
        return DIFFER
    return _passed(status) if pass_status else 0


def make_walker(
    backend: str, design: str = UNCACHED, simulator: str | None = None, *, log: bool = False
) -> Callable[[Any], Any]:
    """What makes the MMU for a memory, with a dirty log; `simulator` is the gateware's, by default Verilator."""
    if simulator is not None and backend != "gateware":
        raise ToolError(f"--simulator goes with --backend gateware, not with --backend {backend}")
    if design in CACHING:
        if backend != "gateware":
            raise ToolError(f"--design {design} is for --backend gateware")
        from ptewalk.cosim.programs.dirty_log import LoggedWalker
        from ptewalk.cosim.programs.trace import CachingWalker, TracedMmu
        from ptewalk.cosim.runs.tracing import trace_library

        built = trace_library(design, simulator or "verilator", log=log)
        kind = LoggedWalker if log else CachingWalker
        return lambda memory: kind(TracedMmu(built, memory))
    if log:
        raise ToolError(f"--log is of an MMU that caches: give --design, one of {', '.join(CACHING)}")
    from ptewalk.cosim.bench.single import SingleWalker
    from ptewalk.cosim.programs.walkers import ModelWalker

    if backend == "model":
        return ModelWalker
    from ptewalk.cosim.runs.gateware import WalkerLibrary

    library = WalkerLibrary.make(simulator=simulator or "verilator")
    return lambda memory: SingleWalker(library.lane, memory)


def make_engine(backend: str, simulator: str | None = None) -> Callable[[Any], Any]:
    """What makes the table engine for a memory; as `make_walker`."""
    if backend != "gateware":
        raise ToolError("--engine is for --backend gateware")
    from ptewalk.cosim.bench.engine_lane import EngineLane
    from ptewalk.cosim.programs.engine import ProgramEngine
    from ptewalk.cosim.runs.engine import built_engine

    lane = EngineLane(built_engine(simulator=simulator or "verilator").library)
    return lambda memory: ProgramEngine(lane, memory)


def _status(status: int) -> int | str:
    """The program's exit code, or the name of the signal that ended it."""
    number = status & 0x7F
    if not number:
        return status >> 8
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _passed(status: int) -> int:
    return 128 + (status & 0x7F) if status & 0x7F else status >> 8


def _told(result: dict[str, Any]) -> str:
    names = ("backend", "profile", "track", "seed", "status")
    lines = ["ptewalk run: " + ", ".join(f"{name} {result[name]}" for name in names)]
    others = (*names, "program", "image", "epochs", "lost", "against", "engine", "log")
    counts = {name: result[name] for name in result if name not in others}
    lines.append("  " + ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items()))
    if "engine" in result:
        lines.append("  table engine: " + ", ".join(f"{name} {count}" for name, count in result["engine"].items()))
    if "log" in result:
        lines.append("  dirty log: " + ", ".join(f"{name} {count}" for name, count in result["log"].items()))
    if "epochs" in result:
        counts = {
            name: count
            for name, count in result["epochs"].items()
            if name not in ("count", "epochs", "losses", "pages_of_epochs")
        }
        told = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())
        lines.append(f"  {result['epochs']['count']} epochs: {told}")
    if "against" in result:
        found = result["against"]
        names = ("epochs", "areas", "pages", "entries", "calls")
        differ = ", ".join(f"{count} {what}" for what, count in found["differ"].items()) or "nothing"
        told = ", ".join(f"{found[name]} {name}" for name in names)
        lines.append(f"  against Linux {found['kernel']}: {told}; differ: {differ}")
    return "\n".join(lines)
