"""The unit by its registers alone, at protocol level on both simulators, on a memory that ignores AxLOCK."""

from pathlib import Path

import pytest

from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.bus.self_test import LINE_CHECKS
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

HERE = Path(__file__).parent
CONFIG = UnitConfig(CachingMmuConfig(WalkerConfig(trace=False, levels=4, tag_bits=4)), monitor=True)


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_by_registers_alone(simulator: str) -> None:
    """Tables, contexts, marks, clears, faults and counters: as the golden model on a memory of its own."""
    model = build(select(simulator), verilog_of(CONFIG, flat=True), top_name(CONFIG), design=describe(CONFIG))
    result = run_test(model, "tb_unit", values={"seed": 7, "count": 40}, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["differ"] == []
    assert (told["built"]["monitor"], told["built"]["exclusive_ids"], told["built"]["levels"]) == (1, 1, 4)
    # Its own monitor has one reservation.
    held = dict.fromkeys(("pair", "spent", "write", "one_byte", "other"), 1)
    assert told["tested"] == {**held, "two": 0, "error": 0, **dict.fromkeys(LINE_CHECKS, 0), "ids": 1}
    assert told["counters"]["requests"] == told["requests"] >= 20
    assert told["clears"] >= 8 and told["faults"] >= 3 and told["counters"]["marks"] >= 5
    assert told["accesses"] >= 600


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_resets_between_transfers(simulator: str) -> None:
    """By software, with a walk on the bus: the next one, by other tables, is the golden model's; both ends were met."""
    model = build(select(simulator), verilog_of(CONFIG, flat=True), top_name(CONFIG), design=describe(CONFIG))
    result = run_test(model, "tb_soft_reset", values={"seed": 3, "count": 12}, module_path=HERE)
    assert result.message == ""
    assert result.values["differ"] == [] and 0 < result.values["marked"] < 12
    assert result.values["built"]["soft_reset"] == 1
