"""The exclusive monitor at protocol level, between a manager and a memory that others wrote, on both simulators."""

from pathlib import Path

import pytest

from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.bus.monitor import MonitorConfig
from ptewalk.rtl.export import top_name

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.parametrize(("simulator", "bits"), [("verilator", 64), ("icarus", 64), ("icarus", 128)])
def test_no_update_is_lost_between_strangers(simulator: str, bits: int) -> None:
    """cocotbext-axi's manager and memory, which ignores AxLOCK: at least 300 transactions."""
    config = MonitorConfig(data_bits=bits)
    model = build(select(simulator), verilog_of(config), top_name(config))
    result = run_test(model, "tb_bus", values={"seed": 5, "rounds": 40}, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["seen"] == told["kept"] == told["expected"]
    assert told["transactions"] >= 300 and told["plain"] == 80
    assert told["done"] >= 40 and told["failed"] >= 5, told
