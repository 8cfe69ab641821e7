"""The translating bridge on a bus at protocol level: random bursts, and recorded walks as bursts of one byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.bridge.config import BridgeConfig
from ptewalk.rtl.bridge.translating import TranslatingBridgeConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["BURSTS", "bridge_config", "bus_bursts", "bus_walks"]

BURSTS = 300
"""Transactions of a regression, on each simulator."""
_MODULE = "ptewalk.cosim.runs.inside.tb_bridge"
_QUIET = ("granted", "busy", "tag_reused", "stray_retirement")
"""What must be 0 when all is answered."""


def bridge_config(bits: int) -> TranslatingBridgeConfig:
    """A bridge round preset `mmu`, data and tables `bits` wide, with a monitor before the tables' memory."""
    mmu = CachingMmuConfig(WalkerConfig(trace=False))
    return TranslatingBridgeConfig(mmu, BridgeConfig(data_bits=bits), table_bits=bits, monitor=True)


def _told(simulator: str | None, bits: int, testcase: str, values: dict[str, Any]) -> dict[str, Any]:
    """What a test of tb_bridge published, and `simulator`."""
    config = bridge_config(bits)
    chosen = select(simulator)
    verilog = verilog_of(config, flat=chosen.name == "icarus")
    model = build(chosen, verilog, top_name(config), design=describe(config))
    result = run_test(model, _MODULE, testcase=testcase, values=values, timeout=None)
    name = f"{chosen.name} {chosen.version_text}"
    if not result.passed:
        raise ToolError(f"{name}: {result.message} (log: {result.log})")
    return {**result.values, "simulator": name}


def bus_bursts(count: int, seed: int, *, bits: int = 64, simulator: str | None = None) -> dict[str, Any]:
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

    Returns
    -------
    dict
        simulator, transactions, refused (bursts that must fault), clears, cleared (those of a page that was marked),
        marks, judged (bytes), choices (bytes of which several values were permitted), failures (texts).

    Raises
    ------
    ToolError
        There is no simulator, or it failed.
    """
    told = _told(simulator, bits, "random_bursts", {"seed": seed, "count": count})
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
