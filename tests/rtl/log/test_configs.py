"""Who may have a dirty log, and what is said to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.engine.with_mmu import MmuEngineConfig
from ptewalk.rtl.export import describe
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.presets import BUS, CACHING
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

LOGGED = CachingMmuConfig(log=LogConfig())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogConfig(3), "records must be 2, 4, 8 or 16, not 3"),
        (lambda: CachingMmuConfig(log=True), "log must be a LogConfig or None, not True"),  # type: ignore[arg-type]
        (lambda: CachingMmuConfig(log=LogConfig(), walkers=2), "log must be None with several walkers"),
        (lambda: CachingMmuConfig(WalkerConfig(soft_dirty=False), log=LogConfig()), "or without soft_dirty"),
        (lambda: UnitConfig(LOGGED), "log of the MMU of a unit must be None"),
    ],
)
def test_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.thorough
def test_presets_have_none() -> None:
    for config in (*CACHING.values(), BUS["mmu-engine"]):
        design = describe(config)
        assert not [port.name for port in design.ports if port.name.startswith(("log", "records"))]


@pytest.mark.parametrize("lines", [2, 4, 16])
def test_records_have_an_axi_id_of_their_own(lines: int) -> None:
    """Beside a line's each, and those of upper tables, reports and the walker."""
    config = MmuEngineConfig(LOGGED, EngineConfig(lines=lines))
    assert config.ids == lines + 4 and 1 << config.id_bits - 1 < config.ids <= 1 << config.id_bits
    assert describe(config).width("m_axi_awid") == config.id_bits
