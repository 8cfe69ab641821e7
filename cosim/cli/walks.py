"""Page walks."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import click

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.cli.common import (
    DIFFER,
    counted,
    design_option,
    files_argument,
    json_option,
    mutant_option,
    option,
    progress,
    seed_option,
    show,
    simulator_option,
)

_BACKENDS = ("model", "gateware", "unicorn")
_CACHED = ("accesses", "hits", "changed_hits")
"""What is counted of a design with caches."""


@click.command()
@files_argument
@option("--backend", type=click.Choice(_BACKENDS), default="model", show_default=True, help="Who answers.")
@design_option
@simulator_option
@option("--limit", type=click.IntRange(1), help="At most so many cases of each file, taken from all families in turn.")
@option(
    "--physical-bits",
    "bits",
    type=click.IntRange(32, 52),
    default=40,
    show_default=True,
    help="MAXPHYADDR of the machine that the walks were recorded on.",
)
@option("--no-gigabyte-pages", is_flag=True, help="That machine has no 1 GiB pages.")
@seed_option
@json_option
@mutant_option
def walks(
    files: tuple[Path, ...],
    backend: str,
    design: str,
    simulator: str | None,
    limit: int | None,
    bits: int,
    no_gigabyte_pages: bool,
    seed: int | None,
    as_json: bool,
) -> int:
    """Compare recorded page walks with a backend's answers.

    A case counts as agreeing or differing when all engines that recorded it agreed (trust 3); others are counted apart.
    A design with caches is asked three times: after a flush of all, again, and under changed control.
    """
    from ptewalk.cosim.checks.walks import merge_tallies, other_machine, tally_model, tally_unicorn
    from ptewalk.cosim.formats.walks import PHYSICAL_BITS, read_walks, spread

    if seed is not None and backend != "gateware":
        raise ToolError(f"--seed goes with --backend gateware, not with --backend {backend}")
    if design != "mmu-uncached" and backend != "gateware":
        raise ToolError(f"--design goes with --backend gateware, not with --backend {backend}")
    if simulator is not None and backend != "gateware":
        raise ToolError(f"--simulator goes with --backend gateware, not with --backend {backend}")
    if backend == "unicorn" and (bits != PHYSICAL_BITS or no_gigabyte_pages):
        raise ToolError(
            f"Unicorn is a machine of {PHYSICAL_BITS} bits with 1 GiB pages: leave out --physical-bits and "
            "--no-gigabyte-pages, or ask another backend"
        )
    machine: dict[str, Any] = {"physical_bits": bits, "gigabyte_pages": not no_gigabyte_pages}
    chosen = [(path, (cases := read_walks(path, **machine)), spread(cases, limit)) for path in files]
    walker = None
    if backend == "gateware":
        from ptewalk.cosim.runs.caching_library import gateware_named
        from ptewalk.rtl.walker import WalkerConfig

        walker = gateware_named(design, WalkerConfig(**machine), simulator)
        seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    tallies = []
    cached: Counter[str] = Counter()
    total, done = sum(len(indices) for _, _, indices in chosen), 0
    with progress("walks") as advance:
        for path, cases, indices in chosen:
            advance(done, total)
            if walker is not None:
                tallies.append(walker.recorded(path, indices, seed=seed))
                cached.update({name: tallies[-1][name] for name in _CACHED if name in tallies[-1]})
            else:
                judge = tally_model if backend == "model" else tally_unicorn
                asked = (cases[index] for index in indices)
                tallies.append(judge(counted(asked, done, total, advance)).as_json())
            done += len(indices)
    result = merge_tallies(tallies) | {"backend": backend, "simulator": walker.simulator if walker else None}
    result |= cached
    if result["differ"]:
        result["hint"] = other_machine([cases[index] for _, cases, indices in chosen for index in indices])
    if walker is not None:
        result["seed"] = seed
    if as_json:
        click.echo(json.dumps(result))
    else:
        shown: dict[str, Any] = {
            name: result[name]
            for name in ("backend", "simulator", "seed", "cases", "agree", "differ", "skipped", *_CACHED)
            if name in result
        }
        show([shown], f"walks: {', '.join(map(str, files))}")
        for reason, numbers in result["skipped_cases"].items():
            click.echo(f"skipped {len(numbers)}: {reason}")
        for trust, counts in result["other_trust"].items():
            click.echo(f"trust {trust}, not counted above: {counts}")
        if result["first_difference"]:
            click.echo(f"first difference: {result['first_difference']}")
        if result.get("hint"):
            click.echo(result["hint"])
    if result["differ"]:
        return DIFFER
    if not result["agree"]:
        raise ToolError("no case was compared: give a file with cases of trust 3 that the backend can run")
    return 0
