"""Configurations with a name, for export, synthesis, measurements and docs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from ptewalk.rtl.board.top import BoardConfig
from ptewalk.rtl.bridge.translating import TranslatingBridgeConfig
from ptewalk.rtl.bus.atomic import AtomicPortConfig
from ptewalk.rtl.bus.exclusive import ExclusivePortConfig
from ptewalk.rtl.bus.lock import LockRamConfig
from ptewalk.rtl.bus.monitor import MonitorConfig
from ptewalk.rtl.bus.on_axi import AxiMmuConfig
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.on_axi import AxiEngineConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.engine.with_mmu import MmuEngineConfig
from ptewalk.rtl.export import Config
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

__all__ = ["BUS", "CACHING", "PRESETS", "preset"]


def _full(walker: WalkerConfig) -> CachingMmuConfig:
    return CachingMmuConfig(
        walker, small_sets=16, small_ways=4, large_sets=16, large_ways=2, slots=8, waiting=4, upper_entries=16
    )


def _fast(walker: WalkerConfig) -> CachingMmuConfig:
    return replace(_full(walker), split_lookup=True, waiting=5)


def _eight(walker: WalkerConfig) -> CachingMmuConfig:
    return replace(_full(walker), walkers=8, waiting=16)


_MAKERS: Final[dict[str, Callable[[WalkerConfig], Config]]] = {
    "walker": lambda walker: walker,
    "mmu-uncached": MmuConfig,
    "mmu-small": CachingMmuConfig,
    "mmu": _full,
    "mmu-fast": _fast,
    "mmu-8walkers": _eight,
}

PRESETS: Final = tuple(_MAKERS)
"""walker: alone; mmu-uncached: with a fault unit; mmu-small: with a TLB; mmu: larger, with caches of upper entries;
mmu-fast: that at a higher clock, each answer a cycle later; mmu-8walkers: mmu with eight walks in flight."""
CACHING: Final = {
    "mmu-small": CachingMmuConfig(),
    "mmu": _full(WalkerConfig()),
    "mmu-fast": _fast(WalkerConfig()),
    "mmu-8walkers": _eight(WalkerConfig()),
}
"""Those that cache."""
BUS: Final[dict[str, Config]] = {
    "lock-ram": LockRamConfig(),
    "exclusive-port": ExclusivePortConfig(),
    "atomic-port": AtomicPortConfig(),
    "exclusive-monitor": MonitorConfig(),
    "mmu-axi": AxiMmuConfig(_full(WalkerConfig(trace=False))),
    "bridge": TranslatingBridgeConfig(_full(WalkerConfig(trace=False))),
    "unit": UnitConfig(_full(WalkerConfig(trace=False))),
    "ulx3s": BoardConfig(),
    "ulx3s-engine": BoardConfig(engine=EngineConfig(physical_bits=32, lines=2, line_bytes=64)),
    "table-engine": EngineConfig(),
    "table-engine-axi": AxiEngineConfig(),
    "mmu-engine": MmuEngineConfig(_full(WalkerConfig(trace=False))),
}
"""What stands between a memory port and memory; preset `mmu` with an AXI4 manager for its memory port, that with a
bridge before it, and with registers; what a board has, without and with a table engine; that engine, alone, on AXI4,
and there with preset `mmu`."""


def preset(name: str, walker: WalkerConfig | None = None) -> Config:
    """A preset round a walker's configuration; KeyError when there is none of that name."""
    return _MAKERS[name](walker or WalkerConfig())
