"""A unit with a dirty log and a table engine by its registers alone, on both simulators."""

from pathlib import Path

import pytest

from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.registers.unit import UnitConfig
from ptewalk.rtl.walker import WalkerConfig

HERE = Path(__file__).parent
MMU = CachingMmuConfig(WalkerConfig(trace=False, levels=4, tag_bits=4), log=LogConfig())
CONFIG = UnitConfig(MMU, monitor=True, engine=EngineConfig(lines=2, lists=True), rings=True)


@pytest.mark.slow
@pytest.mark.share(2)
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_by_registers_alone(simulator: str) -> None:
    """Records of stores and of software's in four epochs, what lists and rings tell, entries: the golden model's."""
    model = build(select(simulator), verilog_of(CONFIG, flat=True), top_name(CONFIG), design=describe(CONFIG))
    result = run_test(model, "tb_log", values={"seed": 4, "rounds": 4, "accesses": 18}, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["problems"] == [] and told["wrong"] == []
    assert (told["built"]["log"], told["built"]["engine"]) == (1, 1) and told["taken"] > 40
    assert told["built"]["lists"] == told["built"]["rings"] == 1 and told["listed"] > 20 and told["absent"] >= 1
    assert [told[f"qos {what}"] for what in ("word", "engine", "log")] == [[5, 9], [5], [12]]
    assert told["in use"] == [4, 128]
