"""Random work on an MMU that caches, in a simulator's process, judged by the golden TLB."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.caching import CachingConditions
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.mutants import option
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe

__all__ = ["CHUNK", "caching_work"]

CHUNK = 400
"""Requests between two resets."""
_MODULE = "ptewalk.cosim.runs.inside.tb_caching"


def caching_work(
    count: int,
    seed: int,
    *,
    simulator: str | None = None,
    config: CachingMmuConfig | None = None,
    conditions: CachingConditions | None = None,
) -> dict[str, Any]:
    """`count` random accesses at protocol level.

    Returns
    -------
    dict
        simulator, compared (answers judged), wrong (how many are not as they must be), failures (the first of them, in
        words), counts: see `checks.caching.CachingVerdict`.

    Raises
    ------
    ToolError
        There is no simulator, or it failed.
    """
    config = config or CachingMmuConfig()
    chosen = select(simulator)
    design = describe(config)
    model = build(chosen, verilog_of(config, flat=chosen.name == "icarus"), design.top, design=design)
    chunks = list(range(-(-count // CHUNK)))
    job: Mapping[str, Any] = {
        "chunks": chunks,
        "size": min(count, CHUNK),
        "seed": seed,
        "conditions": asdict(conditions or CachingConditions()),
    }
    result = run_test(model, _MODULE, testcase="caching", values=job, timeout=None)
    name = f"{chosen.name} {chosen.version_text}"
    if not result.passed:
        raise ToolError(f"{name}: {result.message} (log: {result.log})")
    counts: Counter[str] = Counter()
    failures: list[str] = []
    wrong = 0
    for chunk, told in zip(chunks, result.values["results"], strict=True):
        counts.update(told["counts"])
        repeat = f"ptewalk cosim --only caches --simulator {chosen.name} --seed {seed}{option()}"
        wrong += len(told["problems"])
        failures += [f"caches, chunk {chunk}: {problem}\nrepeat: {repeat}" for problem in told["problems"][:5]]
    return {
        "simulator": name,
        "compared": counts["answers"],
        "wrong": wrong,
        "failures": failures,
        "counts": dict(counts),
    }
