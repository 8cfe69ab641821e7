"""The standard regression of `ptewalk cosim`: every part it has, in every simulator there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final

from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.checks.minima import seen_of
from ptewalk.cosim.checks.pictures import page_map
from ptewalk.cosim.checks.replay import ReplayJob
from ptewalk.cosim.checks.walks import merge_tallies
from ptewalk.cosim.formats.samples import KERNELS, WALKS
from ptewalk.cosim.formats.scenarios import load
from ptewalk.cosim.formats.walks import read_walks, spread
from ptewalk.cosim.runs.bus import BURSTS, bus_bursts, bus_volume
from ptewalk.cosim.runs.caching import caching_volume, caching_work
from ptewalk.cosim.runs.gateware import BATCH, BuiltWalker, Gateware, WalkerLibrary
from ptewalk.cosim.runs.mmu_engine import mmu_engine_work
from ptewalk.cosim.runs.plans import Progress, ending_chunks, walks_plan
from ptewalk.cosim.runs.scenarios import replay_gateware
from ptewalk.cosim.runs.walks import walk_chunks
from ptewalk.cosim.simulate.find import detect
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.simulate.step import end_steps
from ptewalk.rtl.presets import CACHING

__all__ = ["LEAST", "LEAST_ACCESSES", "PARTS", "run_regression"]

PARTS = ("recorded", "random", "replay", "caches", "bus", "engine", "log")
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
_CACHED_ACCESSES = {"mmu-small": 800, "mmu": 800, "mmu-fast": 400, "mmu-8walkers": 400}
"""Accesses to each MMU that caches; Python serves every cycle."""
_LONG_CONDITIONS = CachingConditions(changes=0.012, follows=0.93)
"""Of as many as are asked for, where there is no compiled code: what is changed is invalidated, as there."""
_CACHED_VOLUME = 20_000
"""The same by compiled code."""
_VOLUME_SHARES = {"mmu": 1, "mmu-fast": 10, "mmu-8walkers": 10}
"""Those that compiled code asks; of many accesses each takes one in so many, but `_CACHED_VOLUME` at least."""
_SMALL_SHARE = 10
"""The same of the others, where compiled code asks them, too."""
_BUS_VOLUME = 5_000
"""Bursts by compiled code, where nothing else asks."""
_ENGINE_GRANTS = 5_000
"""Stores that an MMU with a table engine grants, by compiled code."""
_BESIDE: Final[dict[str, tuple[str, dict[str, str]]]] = {
    "engine": ("", {"move": "moves"}),
    "log": (", and a dirty log", {"records": "records", "lost": "marks without", "stalls": "waits for room"}),
    "list": (", which reads a dirty log", {"listed": "records in lists", "list": "lists", "absent": "passed over"}),
}
"""What is beside an engine, by part, and what is told of it: a count, and its name."""
_PICTURED = ("linux-seed", "fault")
_PICTURE = "h24_mremap_partial_move"
_WALKS = {True: 30_000, False: 400}
"""Random walks by whether there is a batch level."""
LEAST = {"verilator": 86_008, "icarus": 2_856, "cxxrtl": 116_185}
"""Simulator to the comparisons that the whole regression makes in it, at least."""
LEAST_ACCESSES = 300
"""Of them accesses to MMUs that cache, in each simulator."""
_ACCESSES = "accesses to "


def run_regression(
    simulator: str | None,
    walks: int | None,
    only: tuple[str, ...],
    seed: int,
    *,
    designs: tuple[str, ...] = (),
    say: Callable[[str], None],
    jobs: int = 1,
    journal: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Run the regression.

    Parameters
    ----------
    simulator : str or None
        "verilator", "icarus", or "cxxrtl", which runs what is a library; None: each of the first two that there is.
    walks : int or None
        Random walks, at the batch level where there is one; None: as many as fit the level.
    only : tuple of str
        Of `PARTS`; empty: all but "log" and "list", whose designs are in no preset.
    seed : int
        Of the random walks, and of latencies, stalls, drains and the like in all parts.
    designs : tuple of str
        Of those that cache; empty: all.
    say : callable
        Told what is being done, in one line each.
    jobs : int
        Processes for the walks beyond those that a simulator's process makes.
    journal : Path, optional
        Where each chunk of those is appended; an interrupted run goes on from there.
    progress : callable
        Called with (chunks done, chunks) of those.

    Returns
    -------
    dict
        comparisons, mismatches, simulator, seed, rows (one per part and simulator), failures (texts), not_run (texts),
        picture (lines).
    """
    names = [simulator] if simulator else list(dict.fromkeys(found.name for found in detect()))
    missing = [] if simulator else [name for name in ("verilator", "icarus") if name not in names]

    def build(name: str | None) -> Gateware:
        say(f"{name or 'a simulator'}: building the gateware, if it is not built yet")
        return WalkerLibrary.make(simulator=name) if name == "cxxrtl" else BuiltWalker.make(name)

    def parts_of(name: str | None, walker: Gateware) -> Iterator[_Part]:
        """What is done in one simulator, in the order of its rows; no part needs another."""
        # The linked lane where there is one, and the protocol level in every simulator; a library has neither.
        levels = (False,) if walker.in_process else (False, True) if walker.model.batch else (True,)
        by = walker.model.simulator.name
        for protocol in levels:
            if not only or "recorded" in only:
                yield partial(_recorded, _own(walker), protocol, seed, say)
            if not only or "random" in only:
                count = _WALKS[not protocol] if walks is None or protocol != (not walker.model.batch) else walks
                most = _WALKS[True] if walker.model.batch else count
                yield partial(_randomised, _own(walker), protocol, min(count, most), seed, say)
                if count > most:
                    say(f"{walker.simulator}, library: {count - most} more random walks, seed {seed}")
                    yield partial(_volume, by, count, most, seed, jobs, journal, progress)
            if not only or "replay" in only:
                for profile in dict.fromkeys(profile for profile, _ in _REPLAYS[not protocol]):
                    yield partial(_replayed, _own(walker), protocol, seed, profile, say)
        if not only or "caches" in only:
            asked = designs or tuple(CACHING)
            for design in asked if not walker.in_process else ():
                count, conditions = _CACHED_ACCESSES[design], None
                if walks is not None and not walker.model.batch:
                    count, conditions = walks, _LONG_CONDITIONS
                yield partial(_cached_work, name, walker, design, count, seed, conditions, say)
            volumes = asked if walker.in_process else [name for name in asked if name in _VOLUME_SHARES]
            for design in volumes if walker.model.batch else ():
                wanted_count = walks or _CACHED_VOLUME
                share = _VOLUME_SHARES.get(design, _SMALL_SHARE) if len(asked) > 1 else 1
                count = max(wanted_count // share, min(wanted_count, _CACHED_VOLUME))
                file = journal if only == ("caches",) and design == "mmu" else None
                yield partial(_cached_volume, walker, design, count, seed, jobs, file, progress, say)
        if not only or "bus" in only:
            if not walker.in_process:
                yield partial(_on_the_bus, walker, seed, say)
            if walker.in_process or (walks is not None and walker.model.batch):
                file = journal if only == ("bus",) else None
                yield partial(_bus_volume, walker, walks or _BUS_VOLUME, seed, jobs, file, progress, say)
        if (not only or "engine" in only) and walker.model.batch:
            count = walks if only == ("engine",) and walks else _ENGINE_GRANTS
            yield partial(_beside_an_engine, walker, count, seed, say)
        if "log" in only and walker.model.batch:
            yield partial(_beside_an_engine, walker, walks or _ENGINE_GRANTS, seed, say, part="log")
        if "list" in only and walker.model.batch:
            yield partial(_beside_an_engine, walker, walks or _ENGINE_GRANTS, seed, say, part="list")

    # A simulator is a process of its own, so parts run side by side, and simulators too; what is here takes turns.
    wanted: list[str | None] = [*names] or [None]
    with ThreadPoolExecutor(max(jobs, len(wanted))) as pool, ending_chunks() as end_chunks:
        running: list[Future[Any]] = [pool.submit(build, name) for name in wanted]
        try:
            walkers = [built.result() for built in running]
            asked = [list(parts_of(name, walker)) for name, walker in zip(wanted, walkers, strict=True)]
            running = [
                pool.submit(_here if walker.in_process else _told, part)
                for walker, parts in zip(walkers, asked, strict=True)
                for part in parts
            ]
            told = iter([part.result() for part in running])
        except BaseException:  # Ctrl-C, or one of them failed: do not wait for the rest
            for part in running:
                part.cancel()
            while wait(running, timeout=0.1).not_done:
                end_steps()
                end_chunks()
            raise
    rows: list[dict[str, Any]] = []
    failures: list[str] = []
    picture: list[str] = []
    for walker, parts in zip(walkers, asked, strict=True):
        of_this = [next(told) for _ in parts]
        rows += (here := [row for one in of_this for row in one.rows])
        failures += (wrong := [text for one in of_this for text in one.failures])
        picture = picture or [line for one in of_this for line in one.picture]
        compared, least = sum(row["compared"] for row in here), LEAST.get(walker.model.simulator.name, 0)
        if not only and walks is None and not wrong and compared < least:
            failures.append(f"{walker.simulator}: {compared} comparisons, fewer than the {least} promised")
        accesses = sum(row["compared"] for row in here if row["part"].startswith(_ACCESSES))
        if (not only or "caches" in only) and walks is None and not wrong and accesses < LEAST_ACCESSES:
            failures.append(
                f"{walker.simulator}: {accesses} accesses to MMUs that cache, fewer than the {LEAST_ACCESSES} promised"
            )
    return {
        "comparisons": sum(row["compared"] for row in rows),
        "mismatches": sum(row["differ"] for row in rows),
        "simulator": ", ".join(dict.fromkeys(row["simulator"] for row in rows)),
        "seed": seed,
        "rows": rows,
        "failures": failures,
        "picture": picture,
        "not_run": [f"everything in {name}: not found ('ptewalk doctor' names the mend)" for name in missing],
    }


@dataclass
class _Told:
    """What a part has to tell."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    picture: list[str] = field(default_factory=list)


_Part = Callable[[_Told], None]
"""One part of the regression, which enters its rows and failures."""
_Say = Callable[[str], None]


def _told(part: _Part) -> _Told:
    told = _Told()
    part(told)
    return told


_in_turn: Final = Lock()


def _here(part: _Part) -> _Told:
    """A part that runs in this process: one after the other, since some share a model."""
    with _in_turn:
        return _told(part)


def _recorded(walker: Gateware, protocol: bool, seed: int, say: _Say, into: _Told) -> None:
    say(f"{_where(walker, protocol)}: recorded walks, seed {seed}")
    cases = read_walks(WALKS)
    indices = spread(cases, _PER_CYCLE_CASES if protocol else None)
    told = walker.recorded(WALKS, indices, seed=seed, protocol=protocol)
    tally = merge_tallies([told])
    if tally["agree"] + tally["differ"] < len(indices):
        into.failures.append(
            f"{walker.simulator}: {tally['agree'] + tally['differ']} of {len(indices)} walks were compared"
        )
    if tally["first_difference"]:
        repeat = f"ptewalk cosim --only recorded --simulator {walker.model.simulator.name} --seed {seed}{option()}"
        into.failures.append(f"{walker.simulator}: {tally['first_difference']}\nrepeat: {repeat}")
    row = {
        "part": "recorded walks",
        "expected by": "QEMU, Bochs, Unicorn",
        "simulator": walker.simulator,
        "level": _level(walker, protocol),
        "compared": tally["agree"] + tally["differ"],
        "differ": tally["differ"],
        "notes": f"of {len(cases)}; {told['events']} accesses, {told['traced']} trace records",
    }
    into.rows.append(row)


def _cached_work(
    name: str | None,
    walker: Gateware,
    design: str,
    count: int,
    seed: int,
    conditions: CachingConditions | None,
    say: _Say,
    into: _Told,
) -> None:
    """Random accesses at protocol level."""
    say(f"{walker.simulator}: random accesses to {design}, seed {seed}")
    config = CACHING[design]
    told = caching_work(count, seed, simulator=name, config=config, preset=design, conditions=conditions)
    into.rows.append(_cached(told, design, "protocol", count, into.failures))


def _cached_volume(
    walker: Gateware,
    design: str,
    count: int,
    seed: int,
    jobs: int,
    journal: Path | None,
    progress: Progress,
    say: _Say,
    into: _Told,
) -> None:
    """Random accesses by compiled code."""
    say(f"{walker.simulator}, library: {count} random accesses to {design}, seed {seed}")
    config = CACHING[design]
    how: dict[str, Any] = {"jobs": jobs, "journal": journal, "progress": progress}
    told = caching_volume(count, seed, config=config, preset=design, simulator=walker.model.simulator.name, **how)
    into.rows.append(_cached(told, design, "library", count, into.failures))


def _cached(told: dict[str, Any], design: str, level: str, count: int, failures: list[str]) -> dict[str, Any]:
    """The row of `count` random accesses to an MMU that caches; a run that could not have failed is a failure."""
    failures += told["failures"]
    counts, compared = told["counts"], told["compared"]
    seen = seen_of(counts, compared)
    missed = [str(one) for one in seen if one.missed]
    if compared < count and not told["failures"]:
        failures.append(f"{told['simulator']}: {compared} of {count} accesses to {design} were compared")
    elif missed and not told["failures"]:
        failures.append(
            f"{told['simulator']}: {compared} accesses to {design} could hardly have failed: {', '.join(missed)}; "
            f"--walks asks for more"
        )
    others = f"{counts.get('partial', 0)} walks begun below the root, {counts.get('restarts', 0)} of them again at it"
    return {
        "part": f"{_ACCESSES}{design}",
        "expected by": "golden TLB",
        "simulator": told["simulator"],
        "level": level,
        "compared": compared,
        "differ": told["wrong"],
        "notes": f"{others}; {', '.join(str(one) for one in seen)}",
    }


def _on_the_bus(walker: Gateware, seed: int, say: _Say, into: _Told) -> None:
    """The row of random bursts through the translating bridge."""
    say(f"{walker.simulator}: random bursts through the bridge, seed {seed}")
    simulator = walker.model.simulator.name
    told = bus_bursts(BURSTS, seed, simulator=simulator)
    repeat = f"ptewalk cosim --only bus --simulator {simulator} --seed {seed}{option()}"
    into.failures += [f"{told['simulator']}, bus: {text}\nrepeat: {repeat}" for text in told["failures"]]
    row = {
        "part": "bursts through the bridge",
        "expected by": "last write, mark of each store",
        "simulator": told["simulator"],
        "level": _level(walker, True),
        "compared": told["transactions"],
        "differ": len(told["failures"]),
        "notes": f"{told['judged']} bytes read, {told['refused']} refused, {told['clears']} clears, "
        f"{told['marks']} marks",
    }
    into.rows.append(row)


def _bus_volume(
    walker: Gateware,
    count: int,
    seed: int,
    jobs: int,
    journal: Path | None,
    progress: Progress,
    say: _Say,
    into: _Told,
) -> None:
    """The row of random bursts by compiled code."""
    say(f"{walker.simulator}, library: {count} random bursts through the bridge, seed {seed}")
    by = walker.model.simulator.name
    told = bus_volume(count, seed, simulator=by, jobs=jobs, journal=journal, progress=progress)
    into.failures += [f"{told['simulator']}: {text}" for text in told["failures"]]
    counts = told["counts"]
    row = {
        "part": "bursts through the bridge",
        "expected by": "last write, mark of each store",
        "simulator": told["simulator"],
        "level": "library",
        "compared": told["compared"],
        "differ": told["wrong"],
        "notes": f"{counts['judged']} bytes read, {counts['refused']} refused, {counts['clears_done']} clears and "
        f"unmappings, {counts['marked_stores']} stores in marked pages, {counts['resets_done']} resets",
    }
    into.rows.append(row)


def _beside_an_engine(walker: Gateware, count: int, seed: int, say: _Say, into: _Told, *, part: str = "engine") -> None:
    """The row of stores beside clears, scans, moves, invalidations and freed tables; or with a dirty log."""
    logs = part != "engine"
    say(f"{walker.simulator}, library: {count} stores beside a table engine{_BESIDE[part][0]}, seed {seed}")
    by = walker.model.simulator.name
    told = mmu_engine_work(count, seed, by, logs=part == "log", lists=part == "list")
    counts = told["counts"]
    asked = "" if count == _ENGINE_GRANTS else f" --walks {count}"
    repeat = f"ptewalk cosim --only {part} --simulator {by}{asked} --seed {seed}{option()}"
    into.failures += [f"{told['simulator']}: {text}\nrepeat: {repeat}" for text in told["failures"]]
    seen = ", ".join(f"{counts.get(kind, 0)} {name}" for kind, name in _BESIDE[part][1].items())
    row = {
        "part": f"stores beside a table engine{_BESIDE[part][0]}",
        "expected by": "the golden log, and what is promised" if logs else "what is promised: docs/engine.md",
        "simulator": told["simulator"],
        "level": "library",
        "compared": counts.get("grants", 0),
        "differ": len(told["failures"]),
        "notes": f"{counts.get('marks', 0)} marks, {counts.get('reported', 0)} pages in reports of "
        f"{counts.get('clear', 0)} clears, {seen}, {counts.get('invalidations', 0)} "
        f"invalidations, {counts.get('freed', 0)} tables freed",
    }
    into.rows.append(row)


def _notes(told: Any) -> str:
    """What happened in random walks, and what was compared of it."""
    happened = f"{told['failed_swaps']} failed swaps, {told['drains']} drains, {told['lost_faults']} faults lost"
    return f"{happened}; {told['words']} words, {told['events']} accesses, {told['traced']} trace records"


def _volume(
    by: str, walks: int, done: int, seed: int, jobs: int, journal: Path | None, progress: Progress, into: _Told
) -> None:
    """The chunks of a plan that come after those of its first walks, on the library that simulator `by` makes."""
    library = WalkerLibrary.make(simulator=by)
    chunks = walks_plan(seed, walks, BATCH)[done // BATCH :]
    repeat = f"ptewalk cosim --only random --simulator {by} --walks {walks} --seed {seed}{option()}"
    counts = walk_chunks(library, chunks, repeat, jobs=jobs, journal=journal, progress=progress)
    into.failures += [f"{library.simulator}: {failure}" for failure in counts.failures]
    if not counts.failures and counts.comparisons < walks - done:
        into.failures.append(f"{library.simulator}: {counts.comparisons} of {walks - done} walks were compared")
    row = {
        "part": "random walks",
        "expected by": "golden model",
        "simulator": library.simulator,
        "level": "library",
        "compared": counts.comparisons,
        "differ": counts.mismatches,
        "notes": _notes(counts),
    }
    into.rows.append(row)


def _own(walker: Gateware) -> Gateware:
    """The same with a model of its own where it runs in this process: a part is the same whatever ran before it."""
    return WalkerLibrary(walker.config, walker.model) if walker.in_process else walker


def _level(walker: Gateware, protocol: bool) -> str:
    return "protocol" if protocol else "library" if walker.in_process else "batch"


def _where(walker: Gateware, protocol: bool) -> str:
    return f"{walker.simulator}, {'protocol level' if protocol else 'library' if walker.in_process else 'linked lane'}"


def _randomised(walker: Gateware, protocol: bool, walks: int, seed: int, say: _Say, into: _Told) -> None:
    say(f"{_where(walker, protocol)}: random walks with a second writer, seed {seed}")
    name = walker.model.simulator.name
    repeat = f"ptewalk cosim --only random --simulator {name} --walks {walks} --seed {seed}{option()}"
    result = walker.randomised(walks, seed, repeat, protocol=protocol)
    if result["failure"]:
        into.failures.append(f"{walker.simulator}: {result['failure']}")
    elif not result["failed_swaps"]:
        into.failures.append(
            f"{walker.simulator}: no swap ever failed: the second writer was not seen\nrepeat: {repeat}"
        )
    row = {
        "part": "random walks",
        "expected by": "golden model",
        "simulator": walker.simulator,
        "level": _level(walker, protocol),
        "compared": result["comparisons"],
        "differ": result["mismatches"],
        "notes": _notes(result),
    }
    into.rows.append(row)


def _replayed(walker: Gateware, protocol: bool, seed: int, profile: str, say: _Say, into: _Told) -> None:
    """The scenarios of one kernel, in each way to track that is asked for."""
    jobs = []
    for track in [track for name, track in _REPLAYS[not protocol] if name == profile]:
        file = KERNELS[profile]
        few = tuple(scenario.name for scenario in load([file])[:_PER_CYCLE_SCENARIOS]) if protocol else None
        drawn = _PICTURE if (profile, track) == _PICTURED else None
        jobs.append(ReplayJob((str(file),), profile, track, True, few, drawn, seed))
    say(f"{_where(walker, protocol)}: scenarios of {profile}, seed {seed}")
    results = replay_gateware(jobs, walker.model.simulator.name, by=walker, protocol=protocol)
    for job, result in zip(jobs, results, strict=True):
        where = f"{walker.simulator}: {job.profile}, {job.track}"
        into.failures += [f"{where}: {text}" for text in result["differing"].values()]
        promised = sum(len(scenario.steps) for scenario in job.scenarios())
        done = result["agree"] + result["differ"]
        if result["skipped"] or done < promised:
            into.failures.append(f"{where}: {done} of {promised} steps were compared")
        if result["picture"]:
            into.picture.append(
                f"{job.picture}, recorded on {job.profile}, as the gateware ran it (tracking {job.track}):"
            )
            into.picture += page_map(result["picture"])
        counted = result["counters"]
        notes = f"{counted['marks']} marks, {counted['mends']} mends, {counted['delivered_faults']} faults"
        notes += f"; {result['events']} accesses, {result['traced']} trace records"
        into.rows.append(
            {
                "part": f"scenarios: {job.profile}, {job.track}",
                "expected by": "real kernel, golden model",
                "simulator": walker.simulator,
                "level": _level(walker, protocol),
                "compared": done,
                "differ": result["differ"],
                "notes": notes + (f", {result['closed']} lost stores closed" if result["closed"] else ""),
            }
        )
