"""What can be run on an MMU that caches, by name, as `checks.performances` has it for the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ptewalk.cosim.bench.caching_lane import CachingLane
from ptewalk.cosim.bench.caching_session import CachingSession
from ptewalk.cosim.checks.caching_walks import CachedWalks
from ptewalk.cosim.formats.walks import read_walks
from ptewalk.rtl.description import DesignDescription

__all__ = ["CACHING_PERFORMANCES", "CachingPerformance"]

CachingPerformance = Callable[[dict[str, Any], CachingLane, DesignDescription], dict[str, Any]]


def recorded(values: dict[str, Any], lane: CachingLane, design: DesignDescription) -> dict[str, Any]:
    """Recorded walks of `file` (those of `indices`), three accesses each: see `CachedWalks`.

    With `seed` each walk has conditions of its own. Gives `tally`, as `WalkTally.as_json`, and `CachedWalks.counts`.
    """
    machine = {name: design.parameters[name] for name in ("physical_bits", "gigabyte_pages")}
    cases = read_walks(values["file"], **machine)
    walks = CachedWalks(CachingSession(lane), design, values["seed"])
    for index in range(len(cases)) if values["indices"] is None else values["indices"]:
        walks.add(cases[index], index)
    return {"tally": walks.tally.as_json(), **walks.counts}


CACHING_PERFORMANCES: Final[dict[str, CachingPerformance]] = {"recorded": recorded}
"""Name to performance."""
