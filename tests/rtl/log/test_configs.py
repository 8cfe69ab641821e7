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


@pytest.mark.parametrize(("lines", "identity"), [(None, 2), (2, 5), (4, 7), (16, 19)])
def test_records_of_a_unit_have_one_that_the_self_test_does_not_use(lines: int | None, identity: int) -> None:
    """That needs two IDs where there is no engine; and nobody has a reservation more."""
    engine = None if lines is None else EngineConfig(lines=lines)
    config = UnitConfig(LOGGED, engine=engine, monitor=True)
    assert config.record_id == identity and UnitConfig(engine=engine).record_id is None
    assert describe(config).width("m_axi_awid") == config.id_bits == identity.bit_length()
    assert config.reservations.reservations == UnitConfig(engine=engine, monitor=True).reservations.reservations
