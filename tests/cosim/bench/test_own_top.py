"""What others bring: a memory with three methods, and a top of their own."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.runs.gateware import BuiltWalker, verilog_of
from ptewalk.cosim.simulate.build import build
from ptewalk.cosim.simulate.find import select
from ptewalk.cosim.simulate.run import run_test
from ptewalk.rtl.description import DesignDescription
from ptewalk.rtl.export import describe
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent
SEEN = ["Translated(physical=22136, level=1, pwt=False, pcd=False, pat=False)", "BusFault()"]
"""0x1678 is in the page at 0x5000; the entry of 0x0678, at 0x4000, is a word that nobody answers for."""


def wrapper(design: DesignDescription) -> str:
    """A top that leads a walker's ports out under a prefix, and drives its clock and reset by other names."""
    ports = [port for port in design.ports if port.name not in ("clk", "rst")]
    lines = [f"{port.direction} [{port.width - 1}:0] mmu_{port.name}" for port in ports]
    pins = [f".{port.name}(mmu_{port.name})" for port in ports]
    inside = ", ".join([".clk(clock)", ".rst(restart)", *pins])
    return f"module own(input clock, input restart, {', '.join(lines)});\n  {design.top} walker({inside});\nendmodule\n"


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_a_memory_of_three_methods(simulator: str) -> None:
    model = BuiltWalker.make(simulator).model
    result = run_test(model, "tb_own_top", testcase="own_memory", module_path=HERE)
    assert (result.message, result.values.get("seen")) == ("", SEEN)


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_a_walker_below_a_top_of_ones_own(simulator: str) -> None:
    design = describe(WalkerConfig())
    model = build(select(simulator), verilog_of(WalkerConfig()) + wrapper(design), "own")
    values = {"design": design.as_json()}
    result = run_test(model, "tb_own_top", testcase="own_top", values=values, module_path=HERE)
    assert (result.message, result.values.get("seen")) == ("", SEEN)


def test_a_stale_description_is_named(tmp_path: Path) -> None:
    """The model was built of another description than the one beside it."""
    model = BuiltWalker.make("icarus").model
    folder = tmp_path / "model"
    shutil.copytree(model.path, folder)
    text = (folder / "design.json").read_text()
    (folder / "design.json").write_text(text.replace("memory__reads__payload__id", "memory__reads__payload__number"))
    walker = BuiltWalker(MmuConfig(), replace(model, path=folder))
    with pytest.raises(ToolError, match="ptewalk_mmu has no port memory__reads__payload__number, which its desc"):
        walker.timed((1,))
