"""`ptewalk bench`: speeds, each beside its baseline, measured in one run."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ptewalk.cosim.errors import ToolError
from ptewalk.cosim.gateware import BuiltWalker
from ptewalk.cosim.recordings import KERNELS
from ptewalk.cosim.replay import load
from ptewalk.model import bulk
from ptewalk.model import scenario as scenarios
from ptewalk.model.linux import PROFILES, SoftBit, Track
from ptewalk.model.pte import RW, D, P

__all__ = ["PARTS", "measure"]

PARTS = ("cosim", "bulk", "replay")
_PROTOCOL_WALKS = 600
_ENTRIES = 1 << 24
"""Entries of the bulk rows: 128 MiB, the leaves of a 64 GiB address space."""
_ROUNDS = 9


def _row(name: str, value: float, unit: str, baseline: str, ratio: float) -> dict[str, Any]:
    return {"name": name, "value": round(value, 2), "unit": unit, "baseline": baseline, "ratio": round(ratio, 2)}


def measure(parts: Sequence[str], simulator: str | None, walks: int, seed: int) -> list[dict[str, Any]]:
    """Rows of {name, value, unit, baseline, ratio} of the parts named, all when none is.

    Raises `ToolError` when the simulator has no batch level, or the walks measured do not agree with the golden model.
    """
    rows: list[dict[str, Any]] = []
    for part in parts or PARTS:
        if part == "cosim":
            rows += _cosim(simulator, walks, seed)
        elif part == "bulk":
            rows += _bulk(seed)
        else:
            rows += _replay()
    return rows


def _cosim(simulator: str | None, walks: int, seed: int) -> list[dict[str, Any]]:
    """The batch level beside the protocol level, on one model in one run."""
    walker = BuiltWalker.make(simulator)
    if not walker.model.batch:
        raise ToolError(f"{walker.simulator} has no batch level: {walker.model.batch_trouble}")
    repeat = f"ptewalk bench --only cosim --simulator {walker.model.simulator.name} --walks {walks} --seed {seed}"
    result = walker.randomised(walks + _PROTOCOL_WALKS, seed, repeat, protocol_walks=_PROTOCOL_WALKS)
    if result["failure"]:
        raise ToolError(f"the walks measured do not agree with the golden model: {result['failure']}")
    rows = []
    for name, unit, count in (("walks", "walks/s", "walks"), ("clock", "cycles/s", "cycles")):
        rates = result["rates"]
        batch, protocol = (rates[level][count] / rates[level]["seconds"] for level in ("batch", "protocol"))
        rows.append(_row(f"{name}: batch level", batch, unit, f"protocol level: {protocol:.0f}", batch / protocol))
    return rows


def _entries(seed: int) -> np.ndarray:
    """Level-1 entries of an address space: nine in ten mapped, half of those written."""
    rng = np.random.default_rng(seed)
    entries = rng.integers(1, 1 << 28, _ENTRIES).astype(np.uint64) << np.uint64(12)
    entries |= np.uint64(P | 0x24 | 1 << 63)
    entries |= rng.integers(0, 2, _ENTRIES).astype(np.uint64) * np.uint64(RW | D | 1 << SoftBit.SOFT_DIRTY)
    entries[rng.random(_ENTRIES) < 0.1] = 0
    return entries


def _bulk(seed: int) -> list[dict[str, Any]]:
    """clear_refs, pagemap and scan beside the floors of memory, in turn; of each the least CPU time counts."""
    entries = _entries(seed)
    work, out = entries.copy(), np.empty_like(entries)
    keep = np.uint64(~(RW | 1 << SoftBit.SOFT_DIRTY) & (1 << 64) - 1)
    and_, copy = "in-place AND", "memcpy"
    calls: dict[str, Callable[[], object]] = {
        and_: lambda: np.bitwise_and(work, keep, out=work),
        copy: lambda: np.copyto(out, entries),
    }
    floors: dict[str, str] = {}
    levels = [("numpy", False)] + ([("compiled", True)] if importlib.util.find_spec("numba") else [])
    for level, compiled in levels:
        for name in ("linux-6.1", "linux-6.12"):
            profile = PROFILES[name]
            for track in Track:
                title = f"clear_refs {name}, {track.name.lower()}: {level}"
                calls[title] = lambda p=profile, t=track, c=compiled: bulk.clear_refs(work, p, t, compiled=c)  # type: ignore[misc]
                floors[title] = and_
            title = f"pagemap {name}: {level}"
            calls[title] = lambda p=profile, c=compiled: bulk.pagemap(entries, p, out=out, compiled=c)  # type: ignore[misc]
            floors[title] = copy
            title = f"scan to a bitmap {name}: {level}"
            calls[title] = lambda p=profile, c=compiled: bulk.scan(work, p, compiled=c)  # type: ignore[misc]
            floors[title] = and_
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(_ROUNDS):
        for title, call in calls.items():
            np.copyto(work, entries)
            started = time.thread_time()
            call()
            best[title] = min(best[title], (time.thread_time() - started) / _ENTRIES * 1e9)
    return [
        _row(title, best[title], "ns/entry", f"{floor}: {best[floor]:.2f}", best[title] / best[floor])
        for title, floor in floors.items()
    ]


def _replay() -> list[dict[str, Any]]:
    """Steps per second of CPU time of a replay on the golden model, reading the file apart."""
    rows = []
    for profile, path in KERNELS.items():
        chosen = load([path])
        steps = sum(len(scenario.steps) for scenario in chosen)
        seconds = float("inf")
        for _ in range(3):
            started = time.thread_time()
            scenarios.replay(chosen, profile)
            seconds = min(seconds, time.thread_time() - started)
        rate = steps / seconds
        rows.append(_row(f"replay {profile}", rate, "steps/s", "wanted: 2000", rate / 2000))
    return rows
