"""The standard regression of `ptewalk cosim`: every part it has, in every simulator there is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from ptewalk.cosim.checks.pictures import page_map
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.checks.walks import merge_tallies
from ptewalk.cosim.formats.samples import KERNELS, WALKS
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.formats.walks import read_walks, spread
from ptewalk.cosim.runs.gateware import BuiltWalker
from ptewalk.cosim.runs.scenarios import replay_gateware
from ptewalk.cosim.simulate.find import detect
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.simulate.step import end_steps

__all__ = ["PARTS", "run_regression"]

PARTS = ("recorded", "random", "replay")
"""What the regression is made of."""

_PER_CYCLE_CASES = 400
"""Recorded walks where Python serves every cycle."""
_PER_CYCLE_SCENARIOS = 12
"""Scenarios where Python serves every cycle."""
_REPLAYS = {
    True: [(profile, track) for profile in KERNELS for track in ("off", "fault", "native")],
    False: [("linux-seed", "fault"), ("linux-6.1", "native")],
}
"""(profile, way to track) by whether there is a batch level."""
_PICTURED = ("linux-seed", "fault")
_PICTURE = "h24_mremap_partial_move"
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
        Of `PARTS`; empty: all.
    seed : int
        Of the random walks.
    say : callable
        Told what is being done, in one line each.

    Returns
    -------
    dict
        comparisons, mismatches, simulator, seed, rows (one per part and simulator), failures (texts), not_run (texts),
        picture (lines).
    """
    names = [simulator] if simulator else list(dict.fromkeys(found.name for found in detect()))
    missing = [] if simulator else [name for name in ("verilator", "icarus") if name not in names]

    def run(name: str | None) -> tuple[list[dict[str, Any]], list[str], list[str]]:
        rows: list[dict[str, Any]] = []
        failures: list[str] = []
        picture: list[str] = []
        say(f"{name or 'a simulator'}: building the gateware, if it is not built yet")
        walker = BuiltWalker.make(name)
        if not only or "recorded" in only:
            say(f"{walker.simulator}: recorded walks")
            rows.append(_recorded(walker, failures))
        if not only or "random" in only:
            say(f"{walker.simulator}: random walks with a second writer, seed {seed}")
            rows.append(_randomised(walker, walks or _WALKS[walker.model.batch], seed, failures))
        if not only or "replay" in only:
            rows += _replayed(walker, say, failures, picture)
        say(f"{walker.simulator}: done")
        return rows, failures, picture

    # The simulators are processes of their own, so they run side by side.
    wanted: list[str | None] = [*names] or [None]
    with ThreadPoolExecutor() as pool:
        running = [pool.submit(run, name) for name in wanted]
        try:
            results = [simulator_run.result() for simulator_run in running]
        except BaseException:  # Ctrl-C, or one of them failed: do not wait for the rest
            while wait(running, timeout=0.1).not_done:
                end_steps()
            raise
    rows = [row for result in results for row in result[0]]
    return {
        "comparisons": sum(row["compared"] for row in rows),
        "mismatches": sum(row["differ"] for row in rows),
        "simulator": ", ".join(dict.fromkeys(row["simulator"] for row in rows)),
        "seed": seed,
        "rows": rows,
        "failures": [text for result in results for text in result[1]],
        "picture": next((result[2] for result in results if result[2]), []),
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
    repeat = f"ptewalk cosim --only random --simulator {name} --walks {walks} --seed {seed}{option()}"
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


def _replayed(
    walker: BuiltWalker, say: Callable[[str], None], failures: list[str], picture: list[str]
) -> list[dict[str, Any]]:
    jobs = []
    for profile, track in _REPLAYS[walker.model.batch]:
        file = KERNELS[profile]
        few = None if walker.model.batch else tuple(scenario.name for scenario in load([file])[:_PER_CYCLE_SCENARIOS])
        drawn = _PICTURE if (profile, track) == _PICTURED else None
        jobs.append(ReplayJob((str(file),), profile, track, True, few, drawn))
    say(f"{walker.simulator}: scenarios of {', '.join(dict.fromkeys(job.profile for job in jobs))}")
    rows = []
    for job, result in zip(jobs, replay_gateware(jobs, walker.model.simulator.name), strict=True):
        where = f"{walker.simulator}: {job.profile}, {job.track}"
        failures += [f"{where}: {text}" for text in result["differing"].values()]
        if result["skipped"]:
            failures.append(f"{where}: {result['skipped']} steps skipped")
        if result["picture"]:
            picture.append(f"{job.picture}, recorded on {job.profile}, as the gateware ran it (tracking {job.track}):")
            picture += page_map(result["picture"])
        counted = {name: result["counters"][name] for name in ("marks", "mends", "delivered_faults")}
        notes = f"{counted['marks']} marks, {counted['mends']} mends, {counted['delivered_faults']} faults"
        rows.append(
            {
                "part": f"scenarios: {job.profile}, {job.track}",
                "expected by": "real kernel, golden model",
                "simulator": walker.simulator,
                "compared": result["agree"] + result["differ"],
                "differ": result["differ"],
                "notes": notes + (f", {result['closed']} lost stores closed" if result["closed"] else ""),
            }
        )
    return rows
