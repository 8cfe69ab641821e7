"""What a part of a campaign can be made of: kinds of work, each cut into chunks that can be run alone, anywhere.

A chunk is the same whatever ran before it: its seed and its number decide all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.results import Counts, Failure
from ptewalk.cosim.bench.caching_lane import CachingLane
from ptewalk.cosim.bench.mmu_engine_lane import MmuEngineLane
from ptewalk.cosim.bench.points import SeenPoints, add_toggles
from ptewalk.cosim.campaigns.commands import open_command
from ptewalk.cosim.campaigns.told import Told, Work
from ptewalk.cosim.checks.minima import seen_of
from ptewalk.cosim.formats.scenarios import scenario_lines, scenario_text
from ptewalk.cosim.runs.bus import CHUNK as BUS_CHUNK
from ptewalk.cosim.runs.bus import bus_chunk, bus_library
from ptewalk.cosim.runs.caching import VOLUME_CHUNK, caching_chunk, caching_library
from ptewalk.cosim.runs.caching_library import gateware_named
from ptewalk.cosim.runs.engine import built_engine
from ptewalk.cosim.runs.gateware import BATCH, WalkerLibrary
from ptewalk.cosim.runs.mmu_engine import CHUNK as ENGINE_CHUNK
from ptewalk.cosim.runs.mmu_engine import LOGGED, TRACKED, built_mmu_engine, mmu_engine_chunk
from ptewalk.cosim.runs.workers import Chunk
from ptewalk.cosim.simulate.build import BuildDir
from ptewalk.cosim.simulate.find import COMPILED
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.stimulus.scenarios import generated
from ptewalk.model.profiles import NAMED
from ptewalk.rtl.bins import Cross
from ptewalk.rtl.bridge.bins import BRIDGE
from ptewalk.rtl.caching_mmu_bins import CACHING_MMU
from ptewalk.rtl.engine.table_engine_bins import TABLE_ENGINE
from ptewalk.rtl.presets import CACHING
from ptewalk.rtl.walker import WalkerConfig
from ptewalk.rtl.walker_bins import WALKER

__all__ = ["KINDS", "Kind", "options_of"]

_BATCHES: Final = 10
"""Batches of random walks in a chunk."""
_SCENARIOS: Final = 25
"""Random scenarios in a chunk."""


@dataclass(frozen=True)
class Kind:
    """A kind of work.

    Attributes
    ----------
    unit : str
        What a part's `count` counts.
    chunk : int
        So many of them at a time.
    open : callable
        Options to what does a chunk, and the name of what it runs on. Builds it, or finds it built: `ToolError` when
        that fails.
    options : mapping
        Name of an option to the values it can have, the first by default; None for a list of words.
    alone : bool
        True: it uses both cores by itself, so nothing runs beside it.
    shrinks : bool
        True: fewer cases of a chunk are a smaller chunk of the same kind.
    crosses : tuple of Cross
        Functional coverage that its chunks count.
    missed : callable
        Of all chunks' counts together: in words what they had to meet and did not, so that they could hardly fail.
    """

    unit: str
    chunk: int
    open: Callable[[Mapping[str, Any]], tuple[Work, str]]
    options: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    alone: bool = False
    shrinks: bool = True
    crosses: tuple[Cross, ...] = ()
    missed: Callable[[Counts], list[str]] = lambda counts: []


def options_of(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a kind with its value; `ToolError` for a value that it cannot have."""
    values: dict[str, Any] = {}
    for name, allowed in KINDS[kind].options.items():
        value = given.get(name, allowed[0] if allowed else None)
        if allowed is None:
            if not isinstance(value, list) or not value or not all(isinstance(word, str) for word in value):
                raise ToolError(f"{name} is {value!r}: give a list of words")
        elif value not in allowed:
            raise ToolError(f"{name} is {value!r}: choose of {', '.join(allowed)}")
        values[name] = value
    return values


def _covered(options: Mapping[str, Any]) -> bool:
    """Its chunks tell which statements of the gateware were in force, and which bits toggled."""
    return bool(options["lines"] == "yes")


def _pointed(work: Work, options: Mapping[str, Any], *models: BuildDir) -> Work:
    """`work` on these models, with the points and toggles of each chunk where they are asked for."""
    if not _covered(options):
        return work
    seen = [SeenPoints(model.library) for model in models]

    def pointed(chunk: Chunk) -> Told:
        for one in seen:
            one.clear()
        told = work(chunk)
        points: dict[str, int] = {}
        toggles: dict[str, tuple[int, int]] = {}
        for one in seen:
            for name, met in one.told().items():
                points[name] = points.get(name, 0) | met
            add_toggles(toggles, one.toggles())
        return replace(told, points=points, toggles=toggles)

    return pointed


def _open_walks(options: Mapping[str, Any]) -> tuple[Work, str]:
    """Random walks, with a second writer, against the golden model."""
    library = WalkerLibrary.make(simulator=options["simulator"], covered=_covered(options))
    name = library.model.simulator.name + option()

    def work(chunk: Chunk) -> Told:
        library.lane.reset()
        sizes = range(0, chunk.size, BATCH)
        batches = [
            [chunk.number * _BATCHES + place, min(BATCH, chunk.size - begun)] for place, begun in enumerate(sizes)
        ]
        values = {"seed": chunk.seed, "chunks": batches, "repeat": "", "name": name}
        told = library.perform("randomised", values)
        failures = [Failure(told["failure"])] if told["failure"] else []
        numbers = {name: told[name] for name in ("failed_swaps", "drains", "lost_faults", "words", "events", "traced")}
        counts = Counts.of(told["comparisons"], told["mismatches"], failures=failures, **numbers)
        return Told(counts, bins=told["bins"])

    return _pointed(work, options, library.model), library.model.path.name


def _open_accesses(options: Mapping[str, Any]) -> tuple[Work, str]:
    """Random accesses to an MMU that caches, judged by the golden TLB."""
    config = CACHING[options["design"]]
    model = caching_library(config, options["simulator"], covered=_covered(options))

    def work(chunk: Chunk) -> Told:
        lane = CachingLane(model.library)
        try:
            told = caching_chunk(lane, config, chunk, counts_bins=True)
        finally:
            lane.close()
        numbers = {name: count for name, count in told["counts"].items() if name != "answers"}
        failures = [Failure(problem) for problem in told["problems"][:5]]
        wrong = len(told["problems"])
        return Told(Counts.of(told["counts"].get("answers", 0), wrong, failures=failures, **numbers), bins=told["bins"])

    return _pointed(work, options, model), model.path.name


def _missed_accesses(counts: Counts) -> list[str]:
    """As `checks.minima.seen_of`."""
    return [str(one) for one in seen_of(dict(counts.numbers), counts.comparisons) if one.missed]


def _open_bus(options: Mapping[str, Any]) -> tuple[Work, str]:
    """Random bursts through the translating bridge, every byte judged; tables marked by exclusive or atomic writes."""
    atomic = options["tables"] == "atomic"
    model = bus_library(int(options["bits"]), options["simulator"], atomic=atomic, covered=_covered(options))

    def work(chunk: Chunk) -> Told:
        told = bus_chunk(model, chunk)
        failures = [Failure(told["problem"])] if told["problem"] else []
        numbers = {name: count for name, count in told["counts"].items() if name != "answered"}
        counts = Counts.of(told["counts"].get("answered", 0), len(failures), failures=failures, **numbers)
        return Told(counts, bins=told["bins"])

    return _pointed(work, options, model), model.path.name


def _open_engine(options: Mapping[str, Any]) -> tuple[Work, str]:
    """Random accesses to an MMU beside a table engine, judged by what is promised."""
    logs = options["log"] == "yes"
    model = built_mmu_engine(LOGGED if logs else TRACKED, options["simulator"], covered=_covered(options))

    def work(chunk: Chunk) -> Told:
        lane = MmuEngineLane(model.library)
        try:
            told = mmu_engine_chunk(lane, chunk, logs=logs)
        finally:
            lane.close()
        numbers = {name: count for name, count in told["counts"].items() if name != "grants"}
        failures = [Failure(problem) for problem in told["problems"][:5]]
        wrong = len(told["problems"])
        return Told(Counts.of(told["counts"].get("grants", 0), wrong, failures=failures, **numbers), bins=told["bins"])

    return _pointed(work, options, model), model.path.name


def _open_scenarios(options: Mapping[str, Any]) -> tuple[Work, str]:
    """Random scenarios of a kernel with the gateware as the MMU, and as the table engine, beside the golden model."""
    profile, exact = NAMED[options["profile"]]
    if exact:
        raise ToolError("exact is a way to report: choose a kernel")
    covered, simulator = _covered(options), options["simulator"]
    built = gateware_named(options["design"], WalkerConfig(), simulator, covered=covered)
    engine = built_engine(simulator=simulator, covered=covered) if options["engine"] == "yes" else None

    def work(chunk: Chunk) -> Told:
        scenarios = generated(chunk.size, chunk.seed, profile, first=chunk.number * _SCENARIOS)
        values = {
            "profile": options["profile"],
            "track": options["track"],
            "soft_dirty": True,
            "scenarios": [scenario_lines(scenario) for scenario in scenarios],
            "seed": chunk.seed + chunk.number,
            "engine": engine and str(engine.library),
        }
        told = built.perform("checked", values)
        failures = [Failure(str(text), name) for name, text in told["differing"].items()]
        numbers = {name: told[name] for name in ("words", "events", "traced", "stored", "scenarios") if name in told}
        counts = Counts.of(told["agree"] + told["differ"], told["differ"], told["skipped"], failures, **numbers)
        return Told(counts, "" if told["shrunk"] is None else scenario_text(told["shrunk"]))

    models = [built.model, *([engine] if engine else [])]
    return _pointed(work, options, *models), " ".join(model.path.name for model in models)


_KERNELS: Final = tuple(name for name, (_, exact) in NAMED.items() if not exact)
_TRACKS: Final = ("native", "off", "fault")
_SWITCH: Final = ("no", "yes")
KINDS: Final[dict[str, Kind]] = {
    "walks": Kind("walks", _BATCHES * BATCH, _open_walks, {"simulator": COMPILED, "lines": _SWITCH}, crosses=WALKER),
    "accesses": Kind(
        "accesses",
        VOLUME_CHUNK,
        _open_accesses,
        {"design": ("mmu", *(name for name in CACHING if name != "mmu")), "simulator": COMPILED, "lines": _SWITCH},
        crosses=CACHING_MMU,
        missed=_missed_accesses,
    ),
    "bus": Kind(
        "bursts",
        BUS_CHUNK,
        _open_bus,
        {
            "bits": ("64", "128", "256", "512"),
            "tables": ("exclusive", "atomic"),
            "simulator": COMPILED,
            "lines": _SWITCH,
        },
        crosses=BRIDGE,
    ),
    "engine": Kind(
        "accesses",
        ENGINE_CHUNK,
        _open_engine,
        {"log": _SWITCH, "simulator": COMPILED, "lines": _SWITCH},
        crosses=TABLE_ENGINE,
    ),
    "scenarios": Kind(
        "scenarios",
        _SCENARIOS,
        _open_scenarios,
        {
            "profile": ("linux-6.1", *(name for name in _KERNELS if name != "linux-6.1")),
            "track": _TRACKS,
            "design": ("mmu-uncached", *CACHING),
            "engine": _SWITCH,
            "simulator": COMPILED,
            "lines": _SWITCH,
        },
    ),
    "command": Kind("runs", 1, open_command, {"run": None}, alone=True, shrinks=False),
}
"""Name of a kind, in a plan file, to what it is."""
