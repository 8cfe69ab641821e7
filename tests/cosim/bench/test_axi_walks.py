"""An MMU on AXI4, at protocol level on both simulators: recorded walks through the bus, marks and errors."""

from pathlib import Path

import pytest

from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.runs.gateware import verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.bus.on_axi import AxiMmuConfig
from ptewalk.rtl.export import describe, top_name

HERE = Path(__file__).parent
COUNT = 100


@pytest.mark.slow
@pytest.mark.parametrize(
    ("simulator", "bits", "link"),
    [("verilator", 64, False), ("verilator", 128, True), ("icarus", 64, True)],
)
def test_recorded_walks(simulator: str, bits: int, link: bool) -> None:
    """As the engines answered, on a memory that ignores AxLOCK, behind the monitor; every channel stalls."""
    config = AxiMmuConfig(data_bits=bits, link=link, monitor=True)
    model = build(select(simulator), verilog_of(config), top_name(config), design=describe(config))
    values = {"file": str(WALKS), "seed": 11, "count": COUNT}
    result = run_test(model, "tb_axi_walks", testcase="recorded", values=values, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["differ"] == []
    assert told["compared"] == COUNT
    assert told["marked"] >= 5
    assert told["read"] >= 3 * COUNT and told["write"] >= COUNT


@pytest.mark.slow
@pytest.mark.parametrize(("simulator", "bits"), [("verilator", 128), ("icarus", 64)])
def test_recorded_walks_by_atomic_transactions(simulator: str, bits: int) -> None:
    """The same where memory compares, and says on R and B what came of it, in any order."""
    config = AxiMmuConfig(data_bits=bits, atomic=True)
    model = build(select(simulator), verilog_of(config), top_name(config), design=describe(config))
    values = {"file": str(WALKS), "seed": 11, "count": COUNT}
    result = run_test(model, "tb_axi_walks", testcase="recorded", values=values, module_path=HERE)
    assert result.message == ""
    told = result.values
    assert told["differ"] == []
    assert told["compared"] == COUNT
    assert told["marked"] >= 5
    assert told["read"] >= 3 * COUNT and told["swap"] >= COUNT


@pytest.mark.slow
@pytest.mark.parametrize("atomic", [False, True])
def test_a_table_that_is_not_there(atomic: bool) -> None:
    config = AxiMmuConfig(monitor=not atomic, atomic=atomic)
    model = build(select("icarus"), verilog_of(config), top_name(config), design=describe(config))
    values = {"file": str(WALKS)}
    result = run_test(model, "tb_axi_walks", testcase="no_memory", values=values, module_path=HERE)
    assert (result.message, result.values) == ("", {"answer": "BusFault()", "accesses": 1})
