"""The standard regression of `ptewalk cosim`: every part it has, in every simulator there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ptewalk.cosim.gateware import BuiltWalker, spread
from ptewalk.cosim.recordings import WALKS
from ptewalk.cosim.simulators import detect
from ptewalk.cosim.walk_file import merge_tallies, read_walks

__all__ = ["run_regression"]

_PER_CYCLE_CASES = 400
"""Recorded walks where Python serves every cycle."""
_WALKS = {True: 30_000, False: 400}
"""Random walks by whether there is a batch level."""


def run_regression(
    simulator: str | None,
    walks: int | None,
    only: tuple[str, ...],
    seed: int,
    *,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the regression.

    Parameters
    ----------
    simulator : str or None
        "verilator" or "icarus"; None: each that there is.
    walks : int or None
        Random walks; None: as many as fit the level.
    only : tuple of str
        "recorded", "random"; empty: both.
    seed : int
        Of the random walks.
    say : callable
        Told what is being done, in one line each.

    Returns
    -------
    dict
        comparisons, mismatches, simulator, seed, rows (one per part and simulator), failures (texts), not_run (texts).
    """
    names = [simulator] if simulator else list(dict.fromkeys(found.name for found in detect()))
    missing = [] if simulator else [name for name in ("verilator", "icarus") if name not in names]
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    for name in names or [None]:
        say(f"building the walker for {name or 'a simulator'} (kept for the next run)")
        walker = BuiltWalker.make(name)
        if not only or "recorded" in only:
            say(f"{walker.simulator}: recorded walks")
            rows.append(_recorded(walker, failures))
        if not only or "random" in only:
            say(f"{walker.simulator}: random walks with a second writer, seed {seed}")
            rows.append(_randomised(walker, walks or _WALKS[walker.model.batch], seed, failures))
    return {
        "comparisons": sum(row["compared"] for row in rows),
        "mismatches": sum(row["differ"] for row in rows),
        "simulator": ", ".join(dict.fromkeys(row["simulator"] for row in rows)),
        "seed": seed,
        "rows": rows,
        "failures": failures,
        "not_run": [f"everything in {name}: not found ('ptewalk doctor' names the mend)" for name in missing],
    }


def _recorded(walker: BuiltWalker, failures: list[str]) -> dict[str, Any]:
    cases = read_walks(WALKS)
    indices = spread(cases, None if walker.model.batch else _PER_CYCLE_CASES)
    tally = merge_tallies([walker.recorded(WALKS, indices)])
    if tally["agree"] + tally["differ"] < len(indices):
        failures.append(f"{walker.simulator}: {tally['agree'] + tally['differ']} of {len(indices)} walks were compared")
    if tally["first_difference"]:
        failures.append(f"{walker.simulator}: {tally['first_difference']}")
    return {
        "part": "recorded walks",
        "expected by": "QEMU, Bochs, Unicorn",
        "simulator": walker.simulator,
        "compared": tally["agree"] + tally["differ"],
        "differ": tally["differ"],
        "notes": f"of {len(cases)}",
    }


def _randomised(walker: BuiltWalker, walks: int, seed: int, failures: list[str]) -> dict[str, Any]:
    name = walker.model.simulator.name
    repeat = f"ptewalk cosim --only random --simulator {name} --walks {walks} --seed {seed}"
    result = walker.randomised(walks, seed, repeat)
    if result["failure"]:
        failures.append(f"{walker.simulator}: {result['failure']}")
    return {
        "part": "random walks",
        "expected by": "golden model",
        "simulator": walker.simulator,
        "compared": result["comparisons"],
        "differ": result["mismatches"],
        "notes": f"{result['failed_swaps']} failed swaps, {result['words']} words of memory compared",
    }
