"""An MMU with a dirty log at protocol level, against the golden model's, on both simulators."""

from pathlib import Path

import pytest

from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.caching_mmu import CachingMmuConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.log.dirty_log import LogConfig
from ptewalk.rtl.walker import WalkerConfig

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_records_of_epochs_are_the_golden_models(simulator: str) -> None:
    """Accesses, clears between them, and records in an order of memory's own: answers, tables and log are equal."""
    config = CachingMmuConfig(WalkerConfig(tag_bits=4), log=LogConfig())
    model = build(select(simulator), verilog_of(config), top_name(config))
    inputs = [port.name for port in describe(config).ports if port.direction == "input" and port.name != "clk"]
    values = {"seed": 3, "epochs": 4, "accesses": 40, "inputs": inputs}
    result = run_test(model, "tb_log", values=values, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["problems"] == []
    assert told["tail"] == sum(told["marks"]) > 50 and min(told["marks"]) > 8
