"""docs/examples/ulx3s: the board's top simulated at its two wires, with the example's own program."""

from dataclasses import replace
from pathlib import Path

import pytest

from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.board.top import BoardConfig
from ptewalk.rtl.export import describe, top_name
from ptewalk.rtl.presets import BUS

HERE = Path(__file__).parent
PROGRAM = HERE.parents[1] / "docs" / "examples" / "ulx3s" / "soft_dirty.py"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "divider"), [("ulx3s", 4), ("ulx3s-engine", 16)])
def test_the_program_over_a_simulated_line(name: str, divider: int) -> None:
    """Of eight pages those are dirty that were stored to, before the clear and after it, and a mark is one swap."""
    board = BUS[name]
    assert isinstance(board, BoardConfig)
    config = replace(board, divider=divider)
    model = build(select("verilator"), verilog_of(config, flat=True), top_name(config), design=describe(config))
    values = {"program": str(PROGRAM), "divider": divider}
    result = run_test(model, "tb_ulx3s", values=values, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert (told["before"], told["after"]) == ([0, 1, 2, 5], [2, 6])
    assert told["counters"]["marks"] == told["counters"]["requests"] == 6
    assert told["counters"]["delivered_faults"] == 0
    assert told["engine"] == (name == "ulx3s-engine")
    assert told["bytes"] >= 5000
