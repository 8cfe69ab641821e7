"""Names in waves: which signals have them, and that each change of a value has its name."""

import re
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.simulate.waves import FIELDS, enumerations, name_values, sources
from ptewalk.model.x86 import Outcome

VERILOG = r"""
module \top.inner (clk);
  (* enum_base_type = "State" *)
  (* enum_value_00 = "IDLE" *)
  (* enum_value_01 = "READ" *)
  (* src = "a.py:1" *)
  reg [1:0] state = 2'h0;
  reg [1:0] other;
endmodule
module top(clk);
  wire [1:0] state;
endmodule
"""
VCD = """$timescale 1ps $end
$scope module top $end
$var wire 2 ! state [1:0] $end
$var wire 2 " payload__outcome [1:0] $end
$var wire 5 % wide__outcome [4:0] $end
$scope module inner $end
$var reg 2 # state [1:0] $end
$var wire 2 # \\response.outcome [1:0] $end
$var wire 1 $ outcome $end
$upscope $end
$upscope $end
$enddefinitions $end
#0
$dumpvars
b0 #
b1 "
1$
$end
#10
bx1 #
b1 #
b1 !
#20
b11 #
"""


def test_enumerations_stand_in_the_verilog() -> None:
    assert enumerations(VERILOG) == {("top.inner", "state"): {0: "IDLE", 1: "READ"}}


def named(path: Path, text: str = VCD, **options: object) -> list[str]:
    path.write_text(text)
    name_values(path, VERILOG, **options)  # type: ignore[arg-type]
    lines = path.read_text().splitlines()
    added = [line for line in lines if line.startswith(("s", "$comment")) or "string" in line]
    assert [line for line in lines if line not in added] == text.splitlines()
    return added


def test_each_signal_tells_its_line_of_python(tmp_path: Path) -> None:
    """In a comment right after it; only what is declared with one, where the module is."""
    path = tmp_path / "a.vcd"
    path.write_text(VCD)
    name_values(path, VERILOG)
    lines = path.read_text().splitlines()
    assert lines.index("$comment src a.py:1 $end") == lines.index("$var reg 2 # state [1:0] $end") + 1
    assert sum(line.startswith("$comment") for line in lines) == 1
    assert sources(VERILOG) == {("top.inner", "state"): "a.py:1"}


def test_a_state_gets_a_neighbour_of_text(tmp_path: Path) -> None:
    """Only where the module of that path has it; what has no name is shown in bits."""
    assert named(tmp_path / "a.vcd") == [
        "$comment src a.py:1 $end",
        "$var string 1 name:# state_name $end",
        *("sIDLE name:#", "sx1 name:#", "sREAD name:#", "s11 name:#"),
    ]


def test_below_another_top(tmp_path: Path) -> None:
    """The instance has a name of its own."""
    text = VCD.replace("module top", "module mine").replace("module inner", "module my_mmu $end\n$scope module inner")
    path = tmp_path / "a.vcd"
    path.write_text(text)
    name_values(path, VERILOG)
    assert "$var string 1 name:# state_name $end" in path.read_text().splitlines()


def test_fields_of_the_design_are_known_by_their_last_name(tmp_path: Path) -> None:
    """And by their width; an escaped name stays one."""
    text = VCD.replace("$var reg 2 # state", "$var reg 2 & state")
    added = named(tmp_path / "a.vcd", text, fields=FIELDS)
    assert '$var string 1 name:" payload__outcome_name $end' in added
    assert "$var string 1 name:# \\response.outcome_name $end" in added
    assert not any("wide" in line or line.endswith("$ outcome_name $end") for line in added)
    assert 'sPAGE_FAULT name:"' in added and Outcome.PAGE_FAULT == 1
    assert f"s{Outcome(3).name} name:#" in added


def test_waves_that_cannot_be_written_again_are_left_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.vcd"
    path.write_text(VCD)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ToolError, match=re.escape("a.vcd: No space left on device; name a folder")):
        name_values(path, VERILOG)
    assert [file.name for file in tmp_path.iterdir()] == ["a.vcd"] and path.read_text() == VCD
