"""The compiled lane of the translating bridge, from Python: conditions in, what went wrong and counts out."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

import numpy as np

from ptewalk.cosim.bench.headers import structures
from ptewalk.cosim.bench.records import Records
from ptewalk.model.linux import SoftBit, Track
from ptewalk.model.x86 import Control, EntryBit, Invalidation, Wait
from ptewalk.rtl.bridge.bins import ASKS, BURSTS, DONE, ENDS, PAGES, UNDER_WAY
from ptewalk.rtl.description import DesignDescription

__all__ = ["BridgeConditions", "BridgeLane", "BridgeRun", "Directed", "bridge_lane_files"]

_FOLDER: Final = Path(__file__).parent
_LINEAR: Final = 0x0000_7654_3210_0000
_FRAME: Final = 0x0071_0000_0000
_UPPER: Final = sum(1 << bit for bit in (EntryBit.P, EntryBit.RW, EntryBit.US, EntryBit.A))
_CHANNELS: Final = 5
_SHARE: Final = 2**32


class Directed(IntEnum):
    """What is asked."""

    RANDOM = 0
    READS = 1
    WRITES = 2
    BOTH = 3


_COUNTS: Final = (
    *("answered", "refused", "illegal", "judged", "choices", "sent_writes", "marked_stores"),
    *("clears_done", "cleared", "records", "resets_done", "failed_swaps", "refused_reads", "cycles"),
)
_BATCH: Final = np.dtype(
    [
        *((name, np.uint64) for name in ("seed", "count", "directed", "beats", "outstanding", "idle")),
        ("stalls", np.uint64, (3 * _CHANNELS,)),  # aw, w, b, ar, r of the master, of data, of tables
        *((name, np.uint64) for name in ("latency", "latency_spread", "table_latency", "table_latency_spread")),
        *((name, np.uint64) for name in ("mixed", "errors", "table_errors", "refusals", "monitored", "may_err")),
        *((name, np.uint64) for name in ("stall_mode", "timeout", "clears", "unmaps", "resets")),
        *((name, np.uint64) for name in ("linear", "frame", "upper_entry", "clean_leaf", "read_only_leaf")),
        *((name, np.uint64) for name in ("mark", "dirty", "accessed", "control", "track", "tracks")),
        *((name, np.uint64) for name in ("invlpg", "wait_stores", "wait_all")),
        *((name, np.uint64) for name in ("log", "log_count", *_COUNTS)),
        ("bursts", np.uint64, (len(ASKS) * len(BURSTS) * len(PAGES) * len(ENDS),)),
        ("around", np.uint64, (len(DONE) * len(UNDER_WAY),)),
    ],
    align=True,
)
_TIMES: Final = np.dtype([(name, np.uint64) for name in ("write", "whole", "accepted", "first", "last")])


def bridge_lane_files(design: DesignDescription) -> Mapping[str, str]:
    """File name to text of all that is compiled into a model of `design`, a `TranslatingBridge`, for this lane."""
    lines = [
        "#pragma once",
        "#include <cstddef>",
        "#include <cstdint>",
        f"#define AXI_BITS {design.width('s_axi_wdata')}",
    ]
    lines += structures({"BridgeBatch": _BATCH})
    texts = {name: (_FOLDER / name).read_text() for name in ("axi.h", "clock.h", "last_written.h")}
    return {**texts, "lane.cpp": (_FOLDER / "bridge.cpp").read_text(), "bridge_records.h": "\n".join([*lines, ""])}


@dataclass(frozen=True)
class BridgeConditions:
    """What the bridge meets in a run. Shares are of cycles, or of accesses, from 0 to 1.

    Attributes
    ----------
    directed : Directed
        Random bursts; or bursts of `beats` over hot pages, and nothing else.
    beats : int
    outstanding : int
        Bursts of the master under way at most.
    idle : float
        Cycles in which the master begins nothing.
    stalls : tuple of float (15,)
        In which a channel is not offered, or not taken: aw, w, b, ar, r of the master, of data, of tables.
    latency, latency_spread, table_latency, table_latency_spread : int
        Cycles of memory, at least, and how many more at most.
    mixed : bool
        Memory answers IDs in any order.
    errors, table_errors : float
        Accesses that memory answers with an error.
    refusals : float
        Exclusive reads of tables that are refused.
    monitored : bool
        False: the tables' memory has no monitor.
    stall_mode, timeout
        The bridge's fault mode and time-out.
    clears, unmaps, resets : float
        Cycles in which software begins to clear a page, or to unmap one; in which all is reset.
    """

    directed: Directed = Directed.RANDOM
    beats: int = 1
    outstanding: int = 24
    idle: float = 0.0
    stalls: tuple[float, ...] = (0.0,) * (3 * _CHANNELS)
    latency: int = 1
    latency_spread: int = 0
    table_latency: int = 1
    table_latency_spread: int = 0
    mixed: bool = False
    errors: float = 0.0
    table_errors: float = 0.0
    refusals: float = 0.0
    monitored: bool = True
    stall_mode: bool = False
    timeout: int = 0
    clears: float = 0.0
    unmaps: float = 0.0
    resets: float = 0.0


@dataclass
class BridgeRun:
    """What a run gave.

    Attributes
    ----------
    problem : str
        What went wrong first; "" for nothing.
    counts : dict of str to int
        answered (bursts), refused, illegal, judged (bytes that were read), choices (those of which several values were
        permitted), sent_writes, marked_stores (that landed in a marked page), clears_done (unmappings too), cleared
        (marks), records (of faults), resets_done, failed_swaps, refused_reads (of tables), cycles.
    bursts : uint64 array
        Bursts by `ASKS`, `BURSTS`, `PAGES` and `ENDS` of `rtl.bridge.bins`, the last fastest.
    around : uint64 array
        Clears and unmappings by `DONE` and `UNDER_WAY`.
    times : Records
        Of directed bursts, by their answers: write, and the cycles in which AW and W were taken (AR of a read), AW or
        AR was, the first beat of the answer came, and the last.
    """

    problem: str
    counts: dict[str, int]
    bursts: Records
    around: Records
    times: Records = field(default_factory=lambda: np.zeros(0, _TIMES))


class BridgeLane:
    """A Verilator model of a `TranslatingBridge` in this process, and all that stands round it.

    Parameters
    ----------
    library : Path
        Built of `bridge_lane_files`.
    """

    def __init__(self, library: Path) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.ptewalk_bridge_open.restype = ctypes.c_void_p
        self._library.ptewalk_bridge_run.restype = ctypes.c_char_p
        self._library.ptewalk_bridge_run.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        self._library.ptewalk_bridge_close.argtypes = [ctypes.c_void_p]
        if self._library.ptewalk_bridge_size() != _BATCH.itemsize:
            raise RuntimeError("the lane was built of other records than these")
        self._lane = ctypes.c_void_p(self._library.ptewalk_bridge_open())

    def close(self) -> None:
        """Free the model; nothing can be run afterwards."""
        self._library.ptewalk_bridge_close(self._lane)

    def run(self, count: int, seed: int, conditions: BridgeConditions, *, track: Track = Track.NATIVE) -> BridgeRun:
        """`count` bursts from a reset.

        Parameters
        ----------
        count : int
        seed : int
            Below 2**64.
        conditions : BridgeConditions
        track : Track
            OFF or NATIVE.
        """
        return self.perform(self.filled(count, seed, conditions, track))

    @staticmethod
    def filled(count: int, seed: int, conditions: BridgeConditions, track: Track = Track.NATIVE) -> Records:
        """The record that `perform` takes, of what `run` is given."""
        batch: Records = np.zeros(1, _BATCH)
        one: Any = batch[0]
        for name in ("directed", "beats", "outstanding", "latency", "latency_spread", "table_latency", "timeout"):
            one[name] = getattr(conditions, name)
        for name in ("table_latency_spread", "mixed", "monitored", "stall_mode"):
            one[name] = getattr(conditions, name)
        for name in ("idle", "errors", "table_errors", "refusals", "clears", "unmaps", "resets"):
            one[name] = int(getattr(conditions, name) * _SHARE)
        one["stalls"] = [int(share * _SHARE) for share in conditions.stalls]
        # 16 refusals of one swap come by chance too.
        errs = conditions.errors or conditions.table_errors or not conditions.monitored or conditions.refusals > 0.1
        one["may_err"] = bool(errs)
        one["seed"], one["count"], one["linear"], one["frame"] = seed, count, _LINEAR, _FRAME
        one["upper_entry"] = one["clean_leaf"] = _UPPER
        one["read_only_leaf"] = _UPPER & ~(1 << EntryBit.RW)
        one["mark"], one["dirty"], one["accessed"] = (1 << bit for bit in (SoftBit.SOFT_DIRTY, EntryBit.D, EntryBit.A))
        one["control"], one["track"], one["tracks"] = 1 << Control.WP, track, track == Track.NATIVE
        one["invlpg"], one["wait_stores"], one["wait_all"] = Invalidation.INVLPG, Wait.STORES, Wait.ALL
        return batch

    def perform(self, batch: Records) -> BridgeRun:
        """One run of a record that is `filled`."""
        one: Any = batch[0]
        problem = self._library.ptewalk_bridge_run(self._lane, batch.ctypes.data)
        raw = ctypes.string_at(int(one["log"]), int(one["log_count"]) * _TIMES.itemsize)
        counts = {name: int(one[name]) for name in _COUNTS}
        bins = one["bursts"].copy(), one["around"].copy()
        return BridgeRun((problem or b"").decode(), counts, *bins, np.frombuffer(raw, _TIMES))
