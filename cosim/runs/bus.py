"""The translating bridge on a bus: random bursts at protocol level and by compiled code, and recorded walks."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.base.journal import Journal
from ptewalk.cosim.bench.bridge_lane import BridgeConditions, BridgeLane, bridge_lane_files
from ptewalk.cosim.checks.covered_bridge import bridge_bins
from ptewalk.cosim.runs.gateware import library_of, verilog_of
from ptewalk.cosim.runs.plans import Chunk, Progress, execute, walks_plan
from ptewalk.cosim.simulate.build import BuildDir, build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.translating import TranslatingBridgeConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["BURSTS", "CHUNK", "bridge_config", "bus_bursts", "bus_chunk", "bus_library", "bus_volume", "bus_walks"]

BURSTS = 300
"""Transactions of a regression, on each simulator."""
CHUNK = 2500
"""Bursts between two resets, where compiled code asks."""
_MODULE = "ptewalk.cosim.runs.inside.tb_bridge"
_QUIET = ("granted", "busy", "tag_reused", "stray_retirement")
"""What must be 0 when all is answered."""


def bridge_config(bits: int, *, logs: bool = False) -> TranslatingBridgeConfig:
    """A bridge round preset `mmu`, data and tables `bits` wide, with a monitor before the tables' memory."""
    mmu = CachingMmuConfig(WalkerConfig(trace=False), log=LogConfig() if logs else None)
    return TranslatingBridgeConfig(mmu, BridgeConfig(data_bits=bits), table_bits=bits, monitor=True)


def _told(simulator: str | None, bits: int, testcase: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a test of tb_bridge published, and `simulator`."""
    config = bridge_config(bits, logs=bool(values.get("logs")))
    chosen = select(simulator)
    verilog = verilog_of(config, flat=chosen.name == "icarus")
    model = build(chosen, verilog, top_name(config), design=describe(config))
    result = run_test(model, _MODULE, testcase=testcase, values=values, timeout=None)
    name = f"{chosen.name} {chosen.version_text}"
    if not result.passed:
        raise ToolError(f"{name}: {result.message} (log: {result.log})")
    return {**result.values, "simulator": name}


def bus_bursts(
    count: int, seed: int, *, bits: int = 64, simulator: str | None = None, logs: bool = False
) -> dict[str, Any]:
    """Random bursts of six masters through the bridge, while soft-dirty is cleared by entry and invalidation.

    Every channel of the three interfaces stalls at random. Each byte that is read is judged by `LastWritten`, each
    store at memory by the mark in its page's entry.

    Parameters
    ----------
    count : int
        Bursts.
    seed : int
    bits : int
        Of data, 64 to 512.
    simulator : str, optional
    logs : bool
        True: the MMU has a dirty log, which `LogJudge` judges.

    Returns
    -------
    dict
        simulator, transactions, refused (bursts that must fault), clears, cleared (those of a page that was marked),
        marks, judged (bytes), choices (bytes of which several values were permitted), failures (texts); with a log
        records, stalls (times that a mark began to wait for room), waits (invalidations whose end has records due).

    Raises
    ------
    ToolError
        There is no simulator, or it failed.
    """
    told = _told(simulator, bits, "random_bursts", {"seed": seed, "count": count, "logs": logs})
    failures: list[str] = list(told.pop("problems"))
    failures += [f"{name} is {told[name]} at the end, not 0" for name in _QUIET if told[name]]
    if told["transactions"] < count:
        failures.append(f"{told['transactions']} of {count} bursts were answered")
    few = {name: told.get(name, 0) for name in ("refused", "cleared", "marks") if told.get(name, 0) < count // 100}
    if few or told["judged"] < count:
        failures.append(f"{few}, {told['judged']} bytes judged, of {count} bursts: too few")
    return {**told, "failures": failures}


def bus_walks(file: Path, count: int, seed: int, *, bits: int = 64, simulator: str | None = None) -> dict[str, Any]:
    """Recorded walks, each a burst of one byte: where it lands, or the error code, and every word of the tables.

    Returns
    -------
    dict
        simulator, compared, differ (texts), and how many walks there are of each outcome, by its name.
    """
    return _told(simulator, bits, "recorded", {"file": str(file), "seed": seed, "count": count})


def bus_library(
    bits: int = 64, simulator: str = "verilator", *, atomic: bool = False, covered: bool = False
) -> BuildDir:
    """The compiled lane of a bridge whose tables' memory has the monitor, or compares; as `library_of`."""
    config = replace(bridge_config(bits), monitor=False, table_atomic=atomic)
    return library_of(config, bridge_lane_files, simulator, covered=covered)


def bus_volume(
    count: int,
    seed: int,
    *,
    bits: int = 64,
    atomic: bool = False,
    simulator: str = "verilator",
    jobs: int = 1,
    journal: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """`count` random bursts by compiled code, each chunk of them from a reset and under conditions of its own.

    Bursts of every kind, some of which AXI forbids, to pages that are mapped, read-only, unmapped, or broken below;
    soft-dirty is cleared and pages are unmapped between; channels stall, memory is slow, answers in any order or errs,
    refuses reservations or has none, and all is reset in the middle. With `atomic` marks are atomic transactions, which
    need no reservation.

    Returns
    -------
    dict
        simulator, compared (bursts), wrong (chunks in which something is not as it must be), failures (texts), counts:
        as `BridgeRun` has them, and how many chunks had which condition.

    Raises
    ------
    ToolError
        The simulator was not found, or it failed.
    """
    model = bus_library(bits, simulator, atomic=atomic)
    chunks = walks_plan(seed, count, CHUNK)

    def work(chunk: Chunk) -> dict[str, Any]:
        return bus_chunk(model, chunk)

    identity = {"bits": bits, "chunks": [count, seed], "model": model.path.name}
    told = execute(chunks, work, jobs=jobs, journal=Journal(journal, identity), progress=progress)
    counts: Counter[str] = Counter()
    for one in told:
        counts.update(one["counts"])
    repeat = f"ptewalk cosim --only bus --simulator {simulator} --walks {count} --seed {seed}{option()}"
    problems = [(number, one["problem"]) for number, one in enumerate(told) if one["problem"]]
    return {
        "simulator": f"{model.simulator.name} {model.simulator.version_text}",
        "compared": counts["answered"],
        "wrong": len(problems),
        "failures": [f"bus, chunk {number}: {text}\nrepeat: {repeat}" for number, text in problems[:5]],
        "counts": dict(counts),
    }


def bus_chunk(model: BuildDir, chunk: Chunk) -> dict[str, Any]:
    """One chunk on the model of `bus_library`.

    Returns
    -------
    dict
        problem (what went wrong, or ""), counts: see `bus_volume`, and bins: of `BRIDGE`, what was met how often.
    """
    lane = BridgeLane(model.library)
    try:
        name, conditions = drawn_conditions(chunk)
        run = lane.run(chunk.size, random.Random(f"bus {chunk.seed} {chunk.number}").getrandbits(64), conditions)
    finally:
        lane.close()
    return {
        "problem": run.problem,
        "counts": {**run.counts, f"chunks: {name}": 1},
        "bins": dict(bridge_bins(name, run)),
    }


def drawn_conditions(chunk: Chunk) -> tuple[str, BridgeConditions]:
    """The conditions of a chunk, by what is special about them: nine kinds, one after the other.

    The channel that stalls alone is each of the fifteen in turn.
    """
    rng = random.Random(f"conditions {chunk.seed} {chunk.number}")
    stalled = (chunk.seed + chunk.number // 9) % 15
    stalls = [rng.choice((0.0, 0.1, 0.3)) for _ in range(15)]
    common: dict[str, Any] = {
        "idle": rng.choice((0.0, 0.1, 0.6)),
        "outstanding": rng.choice((4, 24, 40)),
        "latency": rng.choice((1, 1, 4, 12)),
        "latency_spread": rng.choice((0, 8)),
        "table_latency": rng.choice((1, 4)),
        "table_latency_spread": rng.choice((0, 5)),
        "mixed": rng.random() < 0.5,
        "clears": rng.choice((0.003, 0.02)),
        "unmaps": rng.choice((0.001, 0.004)),
    }
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (
        ("at full speed", {"stalls": [0.0] * 15, "idle": 0.0, "latency": 1, "latency_spread": 0}),
        ("one channel stalls", {"stalls": [0.9 if at == stalled else 0.02 for at in range(15)]}),
        ("slow memory", {"latency": 40, "latency_spread": 30, "table_latency": 40, "outstanding": 40}),
        ("in any order", {"mixed": True, "latency_spread": 20}),
        ("erring memory", {"errors": 0.02, "table_errors": 0.02}),
        ("few reservations", {"refusals": rng.choice((0.05, 0.5))}),
        ("no monitor", {"monitored": False}),
        ("stalled faults", {"stall_mode": True, "timeout": rng.choice((0, 150))}),
        ("reset in the middle", {"resets": 0.0005}),
    )
    name, special = kinds[chunk.number % len(kinds)]
    values = {"stalls": stalls, **common, **special}
    return name, BridgeConditions(**values | {"stalls": tuple(values["stalls"])})
