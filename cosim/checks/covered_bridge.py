"""Which bins of functional coverage of the translating bridge a run met."""

from __future__ import annotations

from collections import Counter
from itertools import product

from ptewalk.cosim.bench.bridge_lane import BridgeRun
from ptewalk.cosim.checks.covered import BIN
from ptewalk.rtl.bridge.bins import ASKS, BURSTS, DONE, ENDS, HAPPENED, PAGES, UNDER_WAY

__all__ = ["bridge_bins"]


def bridge_bins(condition: str, run: BridgeRun) -> Counter[str]:
    """Name the bins of `rtl.bridge.bins.BRIDGE` that compiled code counted.

    Parameters
    ----------
    condition : str
        One of `CONDITIONS`: that of the run.
    run : BridgeRun

    Returns
    -------
    Counter of str
        As `covered.walk_bins`.
    """
    told = {
        "bus-burst": zip(product(ASKS, BURSTS, PAGES, ENDS), run.bursts.tolist(), strict=True),
        "bus-clear": zip(product(DONE, UNDER_WAY), run.around.tolist(), strict=True),
        "bus-condition": [((condition, name), run.counts[name]) for name in HAPPENED],
    }
    return Counter({BIN.join((cross, *values)): count for cross, met in told.items() for values, count in met if count})
