"""The gateware itself: synthesis, proofs, export."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.files import check_writable, write_whole
from ptewalk.cosim.cli.common import (
    DIFFER,
    MUTANT,
    json_option,
    mutant_option,
    option,
    show,
)


@click.command()
@option("--config", default="walker", show_default=True, help="Which gateware.")
@option("--seed", type=click.IntRange(1, 2**31), default=1, show_default=True, help="Of place and route.")
@option(
    "--output", "-o", type=click.Path(file_okay=False, path_type=Path), help="Folder for netlist, reports and logs."
)
@json_option
def synth(config: str, seed: int, output: Path | None, as_json: bool) -> int:
    """Area and post-route Fmax on an ECP5-85F, speed grade 8, beside its peers'."""
    from dataclasses import asdict

    from ptewalk.cosim.fpga.synth import CONFIGS, KEPT, PEERS, synthesise

    if config in CONFIGS:
        click.echo(f"synthesis, place and route of {config}: some minutes", err=True)
    if output is not None:
        check_writable(output / KEPT[0])
    row = asdict(synthesise(config, seed=seed, folder=output))
    if as_json:
        click.echo(json.dumps(row))
    else:
        show([row], "ECP5-85F, speed 8, CABGA756, harness excluded")
        show(
            [dict(zip(("peer", "lut4", "ff", "fmax_mhz"), peer, strict=True)) for peer in PEERS],
            "Peers, measured beforehand on the same part",
        )
    return 0


@click.command()
@click.argument("properties", nargs=-1, metavar="[PROPERTY]...")
@json_option
@mutant_option
def prove(properties: tuple[str, ...], as_json: bool) -> int:
    """Prove properties of the gateware (all by default), unbounded, with their covers.

    First a bounded search looks for a counterexample; its waves are kept in results/proofs.
    """
    from dataclasses import asdict

    from ptewalk.cosim.formal.properties import PROPERTIES
    from ptewalk.cosim.formal.prove import prove as prove_one

    for name in properties:
        if name not in PROPERTIES:
            raise ToolError(f"no property {name!r}: choose one of {', '.join(PROPERTIES)}")
    label = f"-{mutant}" if (mutant := click.get_current_context().meta.get(MUTANT)) else ""
    results = [prove_one(name, label=label) for name in properties or PROPERTIES]
    if as_json:
        click.echo(json.dumps({result.property: asdict(result) for result in results}))
    else:
        names = ("property", "result", "unbounded", "engine", "searched", "covers", "seconds", "detail")
        show([{name: getattr(result, name) for name in names} for result in results])
        for result in results:
            click.echo(f"{result.property} assumes: {'; '.join(result.assumptions)}")
            if result.trace:
                values = ", ".join(f"{name} {value}" for name, value in result.values.items())
                click.echo(f"{result.property} is refuted in step {result.step}: {values}\nwaves: {result.trace}")
    return 0 if all(result.result == "proved" for result in results) else DIFFER


@click.command()
@option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Verilog file to write.")
@option("--levels", type=click.Choice(["4", "5"]), default="5", show_default=True, help="Levels of paging at most.")
@option("--physical-bits", type=int, default=40, show_default=True, help="MAXPHYADDR, 32 to 52.")
@option("--tag-bits", type=int, default=8, show_default=True, help="Width of a request's tag, 1 to 32.")
@option("--soft-dirty/--no-soft-dirty", default=True, show_default=True, help="With tracking logic.")
@option("--gigabyte-pages/--no-gigabyte-pages", default=True, show_default=True, help="1 GiB pages.")
@option("--trace/--no-trace", default=True, show_default=True, help="With the trace port.")
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
