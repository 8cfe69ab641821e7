"""Which bins of functional coverage of a table engine the commands of a story met."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ptewalk.cosim.bench.records import Records
from ptewalk.cosim.checks.covered import BIN
from ptewalk.cosim.checks.mmu_engine_stories import Asked
from ptewalk.rtl.engine.table_engine_bins import CHANGED, ENTRIES, SWAPPED

__all__ = ["engine_bins"]


def engine_bins(asked: Sequence[Asked], counted: Records) -> Counter[str]:
    """Name the bins of `rtl.engine.table_engine_bins.TABLE_ENGINE`.

    Parameters
    ----------
    asked : sequence of Asked
        The commands.
    counted : records (commands,)
        What compiled code counted for each: `Told.bins`.

    Returns
    -------
    Counter of str
        As `covered.walk_bins`.
    """
    bins: Counter[str] = Counter()
    for command, row in zip(asked, counted, strict=True):
        met = [("engine-entry", entry, count) for entry, count in zip(ENTRIES, row["entries"], strict=True)]
        for end in SWAPPED:
            met += [
                ("engine-swap", BIN.join((entry, end)), count) for entry, count in zip(ENTRIES, row[end], strict=True)
            ]
        met += [("engine-overtaken", what, count) for what, count in zip(CHANGED, row["changed"], strict=True)]
        for cross, values, count in met:
            if count:
                bins[BIN.join((cross, command.kind, values))] += int(count)
    return bins
