"""Soft-dirty tracking of 1 GiB of 4 KiB pages: the gateware, beside a real kernel under QEMU, PML and HDBSS."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

from ptewalk.cosim.fpga.synth import BASELINE
from ptewalk.cosim.oracles.linux.kernel_times import KernelTimes, kernel_times
from ptewalk.cosim.runs.engine_cycles import dense_cycles
from ptewalk.cosim.runs.gateware import gateware
from ptewalk.cosim.simulate.find import select
from ptewalk.model.x86 import TABLE_ENTRIES
from ptewalk.rtl.log.layouts import SIZES

__all__ = ["KERNEL", "LATENCY", "TABLES", "Logged", "Measured", "kernel_of", "logged", "measured"]

KERNEL: Final = "6.12"
LATENCY: Final = 16
"""Of memory, in cycles."""
TABLES: Final = 512
"""Of level 1, all their entries mapped."""
_PML_ENTRIES: Final = 512
"""Of a page-modification log, a page of 4 KiB (Intel SDM volume 3C, 29.3.6)."""
_HDBSS_BYTES: Final = 2 << 20
"""Of a buffer of Arm's FEAT_HDBSS at most, 8 bytes an entry (HDBSSBR_EL2.SZ)."""
_STORES: Final = "first write after clear: native"


class Measured(NamedTuple):
    """One row.

    Attributes
    ----------
    name : str
    cycles : int
    mhz : float
        The clock of the committed baseline.
    seconds : float
        The real kernel's.
    """

    name: str
    cycles: int
    mhz: float
    seconds: float


class Logged(NamedTuple):
    """How often software is stopped for a full log when `pages` are dirtied, by each design's definition.

    A log is taken to be empty at first, and emptied whenever it is full.
    """

    pages: int
    gateware: int
    pml: int
    hdbss: int


def logged(pages: int) -> Logged:
    """Of the longest ring, of PML and of HDBSS's largest buffer."""
    return Logged(pages, pages >> max(SIZES), pages // _PML_ENTRIES, pages // (_HDBSS_BYTES // 8))


def kernel_of(tables: int = TABLES) -> KernelTimes:
    """The real kernel's times for the pages of so many tables; `ToolError` as `kernel_times`."""
    return kernel_times(KERNEL, tables * TABLE_ENTRIES)


def measured(kernel: KernelTimes, simulator: str | None = None, *, tables: int = TABLES) -> list[Measured]:
    """A clear, the page map, and a store to each page behind the clear, beside a kernel's of as many.

    The engine's cycles are counted from a command to its completion at a latency of `LATENCY`; those of stores are
    what one takes, in mode `native`, times the pages: none overlaps another, as in the kernel's loop.

    Raises
    ------
    ToolError
        A simulator cannot be had, or what was measured is wrong.
    """
    pages = tables * TABLE_ENTRIES
    chosen = select(simulator).name
    engine = dense_cycles(tables, LATENCY, chosen)
    walker = {row["name"]: row for row in gateware(chosen).timed((LATENCY,))}
    return [
        Measured(f"4 to clear_refs, {pages} pages", engine["clear"], _clock("table-engine"), kernel.clear),
        Measured(f"page map, {pages} pages", engine["raw words"], _clock("table-engine"), kernel.pagemap),
        Measured(
            f"first stores behind it, to {pages} pages",
            pages * walker[_STORES]["cycles"],
            _clock("walker"),
            kernel.stores,
        ),
    ]


def _clock(config: str) -> float:
    """The median of the committed baseline's seeds, in MHz."""
    seeds = sorted(json.loads(BASELINE.read_text())[config]["fmax_of_seeds"])
    return float(seeds[len(seeds) // 2])
