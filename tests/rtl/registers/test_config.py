"""Parameters of a unit that do not go together."""

from typing import Any

import pytest

from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.registers.config import UnitConfig


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"engine": 1}, "engine must be an EngineConfig or None, not 1"),
        ({"engine": EngineConfig(physical_bits=36)}, "physical_bits of the engine must be the unit's, 40, not 36"),
        ({"rings": 1}, "rings must be True or False, not 1"),
        ({"rings": True}, "rings must be False without an engine"),
        ({"engine": EngineConfig(data_bits=128)}, "data_bits of the engine must be the unit's, 64, not 128"),
        ({"engine": EngineConfig(), "mmu": CachingMmuConfig(walkers=2)}, "walkers must be 1 where a unit"),
        ({"engine": EngineConfig(), "table_atomic": True}, "table_atomic must be False where a unit has an engine"),
    ],
)
def test_what_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        UnitConfig(**given)


def test_what_an_engine_adds() -> None:
    """A reservation for each line and for upper tables, and IDs for those, for reports and for the walker."""
    config = UnitConfig(engine=EngineConfig(lines=8), monitor=True)
    assert (config.id_bits, config.path.exclusive_ids, config.path.line_bytes) == (4, 10, 128)
    assert config.reservations.reservations == 11 and UnitConfig().path.exclusive_ids == 1
