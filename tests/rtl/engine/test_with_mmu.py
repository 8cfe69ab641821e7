"""What an MMU with a table engine is made of: its ports and its parameters. What it does: tests/cosim/runs."""

from __future__ import annotations

from typing import Any

import pytest

from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.engine.with_mmu import MmuEngineConfig
from ptewalk.rtl.export import export_rtlil


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mmu": CachingMmuConfig(walkers=2)}, "mmu must be a CachingMmuConfig with one walker"),
        ({"engine": EngineConfig(physical_bits=36)}, "physical_bits of the engine must be the walker's, 40, not 36"),
        ({"engine": 1}, "engine must be an EngineConfig, not 1"),
        ({"monitor": 1}, "monitor must be True or False, not 1"),
        ({"engine": EngineConfig(lines=64), "monitor": True}, "reservations must be an integer from 1 to 64, not 67"),
        ({"prot": 8}, "prot must be an integer from 0 to 7, not 8"),
    ],
)
def test_wrong_parameters(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MmuEngineConfig(**changes)


@pytest.mark.parametrize("lines", [2, 8, 64])
def test_each_user_of_the_bus_has_an_id_of_its_own(lines: int) -> None:
    """Lines, upper tables, reports, walker."""
    config = MmuEngineConfig(engine=EngineConfig(lines=lines))
    assert config.id_bits == (lines + 2).bit_length()


@pytest.mark.thorough
def test_with_a_monitor_of_its_own() -> None:
    """It can be made; the memory behind needs none then."""
    config = MmuEngineConfig(engine=EngineConfig(lines=2), monitor=True)
    assert ".monitor" in export_rtlil(config)
