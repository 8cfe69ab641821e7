"""The loop of a live migration at protocol level, on both simulators: stores, records, and lists that clear them."""

from dataclasses import replace
from pathlib import Path

import pytest

from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.runs.mmu_engine import LOGGED
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.engine.table_engine import EngineConfig
from ptewalk.rtl.export import describe, top_name

HERE = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.share(2)
@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_lists_clear_what_the_golden_model_clears(simulator: str) -> None:
    """On a memory without a monitor, whose channels stall: tables, bitmaps and counts of each list are equal."""
    config = replace(LOGGED, engine=EngineConfig(lines=2, lists=True), monitor=True)
    design = describe(config)
    model = build(select(simulator), verilog_of(config), top_name(config), design=design)
    inputs = [one.name for one in design.ports if one.direction == "input" and one.name not in ("clk", "rst")]
    values = {"seed": 5, "rounds": 3, "accesses": 30, "physical_bits": 40}
    values["inputs"] = [name for name in inputs if not name.startswith("m_axi")]
    result = run_test(model, "tb_list", values=values, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["problems"] == []
    assert told["listed"] > 35 and told["dirty"] > 10 and told["written"] > 30
