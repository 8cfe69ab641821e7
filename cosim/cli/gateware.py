"""The gateware itself: synthesis, proofs, export."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, write_whole
from ptewalk.cosim.cli.common import (
    CACHING,
    DIFFER,
    MUTANT,
    jobs_option,
    json_option,
    mutant_option,
    option,
    progress,
    show,
)


@click.command()
@option("--config", default="walker", show_default=True, help="Which gateware.")
@option(
    "--part",
    default="ecp5",
    show_default=True,
    help="Which FPGA: an ECP5-85F, ulx3s (the board's ECP5-12F, speed grade 6), or by the extra fpgas ice40-hx8k, "
    "ice40-up5k or gowin (GW2A-18).",
)
@option("--seed", type=click.IntRange(1, 2**31), default=1, show_default=True, help="Of place and route, the first.")
@option("--seeds", type=click.IntRange(1, 15), default=1, show_default=True, help="How many: Fmax is their median.")
@option("--beside", is_flag=True, help="A second row: the same without soft-dirty tracking.")
@option(
    "--output", "-o", type=click.Path(file_okay=False, path_type=Path), help="Folder for netlist, reports and logs."
)
@option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where each result is kept: the same command goes on from there, and makes anew what has changed.",
)
@json_option
def synth(
    config: str,
    part: str,
    seed: int,
    seeds: int,
    beside: bool,
    output: Path | None,
    journal: Path | None,
    as_json: bool,
) -> int:
    """Area and post-route Fmax on an FPGA, an ECP5-85F, speed grade 8, if no other is named, beside its peers'."""
    from dataclasses import asdict

    from ptewalk.cosim.base.journal import Journal
    from ptewalk.cosim.fpga.parts import PARTS
    from ptewalk.cosim.fpga.synth import CONFIGS, KEPT, PEERS, since_baseline, synthesise

    names = [config, f"{config}-no-soft-dirty"] if beside else [config]
    for name in names:
        if name not in CONFIGS:
            raise ToolError(f"no configuration {name!r}: choose one of {', '.join(CONFIGS)}")
    if part not in PARTS:
        raise ToolError(f"no part {part!r}: choose one of {', '.join(PARTS)}")
    click.echo(f"synthesis, place and route of {config}: some minutes", err=True)
    if output is not None:
        check_writable(output / KEPT[0])
    with progress("synthesis, then place and route") as advance:
        kept = Journal(journal, {"command": "synth"})
        work = partial(synthesise, part=part, seed=seed, seeds=seeds, journal=kept, progress=advance)
        results = [work(names[0], folder=output), *(work(name) for name in names[1:])]
    rows = [asdict(result) for result in results]
    if as_json:
        click.echo(json.dumps(rows if beside else rows[0]))
    else:
        show(rows, f"{PARTS[part].title}, harness excluded")
        if changes := [row for result in results if (row := since_baseline(result)) is not None]:
            show(changes, "And what changed since the committed baseline, cosim/fpga/baseline.json")
        if part == "ecp5":
            show(
                [dict(zip(("peer", "lut4", "ff", "fmax_mhz"), peer, strict=True)) for peer in PEERS],
                "Peers, measured beforehand on the same part",
            )
    return 0


@click.command()
@click.argument("properties", nargs=-1, metavar="[PROPERTY]...")
@jobs_option
@option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where what is proved is kept: the same command goes on from there, and proves anew what has changed.",
)
@json_option
@mutant_option
def prove(properties: tuple[str, ...], jobs: int, journal: Path | None, as_json: bool) -> int:
    """Prove properties of the gateware (all by default), unbounded, with their covers.

    First a bounded search looks for a counterexample; its waves are kept in results/proofs. What needs Yices or
    ABC is left out, and named, where that is not installed.
    """
    import resource
    from dataclasses import asdict

    from ptewalk.cosim.base.journal import Journal
    from ptewalk.cosim.formal.properties import PROPERTIES
    from ptewalk.cosim.formal.prove import HOLDS, missing_solver, prove_all

    for name in properties:
        if name not in PROPERTIES:
            raise ToolError(f"no property {name!r}: choose one of {', '.join(PROPERTIES)}")
    label = f"-{mutant}" if (mutant := click.get_current_context().meta.get(MUTANT)) else ""
    missing = {} if properties else {name: text for name in PROPERTIES if (text := missing_solver(name))}
    chosen = properties or tuple(name for name in PROPERTIES if name not in missing)
    with progress("properties") as advance:
        kept = Journal(journal, {"command": "prove", "mutant": label})
        results = prove_all(chosen, label=label, jobs=jobs, journal=kept, progress=advance)
    if as_json:
        click.echo(json.dumps({result.property: asdict(result) for result in results}))
    else:
        names = ("property", "result", "unbounded", "engine", "searched", "covers", "seconds", "detail")
        show([{name: getattr(result, name) for name in names} for result in results])
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        good = sum(result.result in HOLDS for result in results)
        took = f"{used.ru_utime + used.ru_stime:.0f} s of processor time"
        click.echo(f"together: {good} of {len(results)} proved or searched; {took}")
        for result in results:
            click.echo(f"{result.property} assumes: {'; '.join(result.assumptions)}")
            if result.trace:
                values = ", ".join(f"{name} {value}" for name, value in result.values.items())
                click.echo(f"{result.property} is refuted in step {result.step}: {values}\nwaves: {result.trace}")
    for text in missing.values():
        click.echo(f"not run: {text}", err=True)
    return 0 if all(result.result in HOLDS for result in results) else DIFFER


@click.command()
@click.argument("name", metavar="BOARD", type=click.Choice(("ulx3s",)))
@option(
    "--size", type=click.Choice(("12f", "25f", "45f", "85f")), default="12f", show_default=True, help="Of its FPGA."
)
@option("--engine", is_flag=True, help="With a table engine, by which the program then clears and reads pagemap.")
@option("--seed", type=click.IntRange(1, 2**31), default=1, show_default=True, help="Of place and route.")
@option(
    *("--output", "-o"),
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results/board"),
    show_default=True,
    help="Folder for bitstream, report and logs.",
)
@json_option
def board(name: str, size: str, engine: bool, seed: int, output: Path, as_json: bool) -> int:
    """Build a bitstream: a unit with block RAM and a serial line, which docs/examples/ulx3s talks to."""
    from dataclasses import asdict

    from ptewalk.cosim.fpga.board import build_bitstream

    click.echo(f"synthesis, place and route for {name} {size}: some minutes", err=True)
    check_writable(output / "ptewalk.bit")
    with progress("synthesis, then place and route"):
        made = build_bitstream(name, size, output, engine=engine, seed=seed)
    if as_json:
        click.echo(json.dumps(asdict(made)))
    else:
        show([asdict(made)])
    return 0


@click.command()
@option(
    *("--output", "-o"),
    required=True,
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Verilog file to write, in a folder that is there; - is standard output.",
)
@option(
    "--design",
    type=click.Choice(("walker", "mmu-uncached", *CACHING)),
    default="walker",
    show_default=True,
    help="What to export.",
)
@option("--name", help="Of the top module, and what names below it begin with; by default ptewalk_ and the design's.")
@option("--levels", type=click.Choice(["4", "5"]), default="5", show_default=True, help="Levels of paging at most.")
@option("--physical-bits", type=int, default=40, show_default=True, help="MAXPHYADDR, 32 to 52.")
@option(
    "--tag-bits", type=int, default=8, show_default=True, help="Width of a request's tag, 1 to 32; the MMU's to 10."
)
@option("--soft-dirty/--no-soft-dirty", default=True, show_default=True, help="With tracking logic.")
@option("--gigabyte-pages/--no-gigabyte-pages", default=True, show_default=True, help="1 GiB pages.")
@option("--trace/--no-trace", default=True, show_default=True, help="With o_walked.")
@option("--observe/--no-observe", default=False, show_default=True, help="With the registers as outputs.")
@option(
    "--axi",
    type=click.Choice(["64", "128", "256", "512"]),
    help="The MMU's memory port as AXI4, with data of so many bits.",
)
@option("--monitor", is_flag=True, help="With --axi: an exclusive monitor before a memory that has none.")
@option("--atomic", is_flag=True, help="With --axi: swaps are AXI5's atomic transactions, for a bus that takes them.")
@option("--registers", is_flag=True, help="With --axi: registers on AXI4-Lite, by which alone it can be used.")
@option("--bridge", is_flag=True, help="With --registers: a translating bridge, AXI4 in and out, as wide as --axi.")
@option("--user-bits", type=int, default=0, help="With --bridge: of AxUSER, WUSER, BUSER, RUSER, which pass it.")
@option(
    "--engine",
    is_flag=True,
    help="With --registers: a table engine for clear_refs, pagemap, mremap; with --log for lists.",
)
@option("--rings", is_flag=True, help="With --engine: it takes commands from a ring in memory.")
@option("--log", is_flag=True, help="A dirty log in an MMU that caches: a record in memory for each page marked.")
@option("--core", is_flag=True, help="Write FILE.core for FuseSoC too, and with --registers FILE.rdl and FILE.h.")
@option("--fault-depth", type=int, help="Entries of the MMU's fault queue, 1 to 1024; 4 by default.")
@option("--json", "as_json", is_flag=True, help="Print the description instead of writing files.")
@mutant_option
def export(
    output: Path,
    design: str,
    name: str | None,
    levels: str,
    axi: str | None,
    monitor: bool,
    atomic: bool,
    registers: bool,
    bridge: bool,
    user_bits: int,
    engine: bool,
    rings: bool,
    log: bool,
    core: bool,
    fault_depth: int | None,
    as_json: bool,
    **parameters: int,
) -> int:
    """Write walker or MMU as Verilog, one port per field.

    mmu-uncached is the walker with a fault unit; mmu-small has a TLB; mmu a larger one, and caches of upper
    entries; mmu-fast is that at a higher clock, each answer a cycle later; mmu-8walkers has eight walks in flight.

    Beside FILE.v: FILE.json has parameters, ports and what their values mean; FILE.vh a template of an instance; with
    --core FILE.core is for FuseSoC, and FILE.rdl and FILE.h are the map of registers, in SystemRDL and C.
    """
    from dataclasses import replace

    from ptewalk.cosim.runs.gateware import verilog_of
    from ptewalk.rtl.bridge.config import BridgeConfig
    from ptewalk.rtl.bus.on_axi import AxiMmuConfig
    from ptewalk.rtl.caching_mmu import CachingMmuConfig
    from ptewalk.rtl.engine.table_engine import EngineConfig
    from ptewalk.rtl.log.dirty_log import LogConfig
    from ptewalk.rtl.presets import preset
    from ptewalk.rtl.registers.unit import UnitConfig
    from ptewalk.rtl.walker import WalkerConfig

    to_stdout = str(output) == "-"
    if not to_stdout:
        check_writable(output)
    if fault_depth is not None and design == "walker":
        raise ToolError("--fault-depth is the MMU's: give --design mmu")
    if axi is not None and design == "walker":
        raise ToolError("--axi is the MMU's: give --design mmu")
    if monitor and axi is None:
        raise ToolError("--monitor stands on AXI4: give --axi 64")
    if atomic and axi is None:
        raise ToolError("--atomic stands on AXI: give --axi 64")
    if atomic and monitor:
        raise ToolError("--monitor takes no atomic transactions: leave out --monitor or --atomic")
    if registers and (axi is None or design not in CACHING):
        raise ToolError("--registers are those of an MMU that caches, on AXI4: give --design mmu --axi 64")
    if bridge and not registers:
        raise ToolError("--bridge is used by registers: give --registers")
    if user_bits and not bridge:
        raise ToolError("--user-bits are the bridge's: give --bridge")
    if engine and not registers:
        raise ToolError("--engine is used by registers: give --registers")
    if rings and not engine:
        raise ToolError("--rings are of the table engine: give --engine")
    if log and design not in CACHING:
        raise ToolError("--log is that of an MMU that caches: give --design mmu")
    try:
        walker = WalkerConfig(levels=int(levels), **parameters)  # type: ignore[arg-type]
        depth = {} if fault_depth is None else {"fault_depth": fault_depth}
        logs = {"log": LogConfig()} if log else {}
        config = replace(preset(design, walker), **depth, **logs)  # type: ignore[arg-type]
        if registers:
            assert isinstance(config, CachingMmuConfig)
            bits, width = config.walker.physical_bits, int(axi or 0)
            between = BridgeConfig(data_bits=width, physical_bits=bits, user_bits=user_bits) if bridge else None
            tables = EngineConfig(physical_bits=bits, data_bits=width, lists=log) if engine else None
            how: dict[str, Any] = {"monitor": monitor, "table_atomic": atomic, "engine": tables}
            how |= {"rings": rings}
            config = UnitConfig(config, between, table_bits=width, **how)
        elif axi is not None:
            assert not isinstance(config, WalkerConfig)
            config = AxiMmuConfig(config, data_bits=int(axi), monitor=monitor, atomic=atomic)  # type: ignore[arg-type]
    except ValueError as error:
        raise ToolError(str(error)) from None
    with progress("the Verilog is made"):
        made = _packaged(config, partial(verilog_of, config), name)
    described = json.dumps(made.description, indent=2) + "\n"
    if as_json or to_stdout:
        click.echo(described if as_json else made.verilog, nl=False)
        return 0
    files = {".json": described, ".vh": made.template}
    if core:
        files |= {".core": made.core(output.name), **made.registers}
    for path, text in ((output, made.verilog), *((output.with_suffix(end), text) for end, text in files.items())):
        write_whole(path, text)
    click.echo(f"{output}: module {made.top}")
    return 0


def _packaged(config: Any, verilog: Callable[..., str], name: str | None) -> Any:
    """`package` of `config`, with the options that this command was given."""
    from ptewalk.rtl.package import package

    context = click.get_current_context()
    asked = ["ptewalk", "export"]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        given = context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE
        if given and parameter.name not in ("output", "as_json"):
            asked += [parameter.secondary_opts[0]] if value is False else [parameter.opts[0]]
            asked += [] if isinstance(value, bool) else [str(value)]
    try:
        return package(config, verilog, name=name, command=" ".join(asked))
    except ValueError as error:
        raise ToolError(str(error)) from None
