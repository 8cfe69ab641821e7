"""Waves in a report: the last cycles, what changed in them, and the line of Python of each signal."""

from __future__ import annotations

from pathlib import Path

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.report.page import render
from ptewalk.cosim.report.results import read_results
from ptewalk.cosim.report.waves import AROUND, CYCLES, MOST, Row, excerpts, read_waves
from ptewalk.rtl.points import RTL

LINE = next(n for n, text in enumerate((RTL / "walker.py").read_text().splitlines(), 1) if "def elaborate" in text)
HEAD = f"""$timescale 1ps $end
$scope module top $end
$var wire 1 ! clk $end
$var wire 8 a port [7:0] $end
$comment src rtl/export.py:7 $end
$var wire 1 q quiet $end
$scope module core $end
$var wire 8 a inner [7:0] $end
$comment src rtl/walker.py:{LINE} $end
$var wire 1 b valid $end
$var reg 2 s state [1:0] $end
$comment src rtl/nosuch.py:3 $end
$var string 1 name:s state_name $end
$var wire 1 t _12_ $end
$upscope $end
$upscope $end
$enddefinitions $end
"""
CLOCKED = "#0\n$dumpvars\n0!\nb0 a\n0b\n0q\nsIDLE name:s\nb0 s\n0t\n$end\n"


def vcd(path: Path, cycles: int, text: str = HEAD + CLOCKED) -> Path:
    """Waves in which `port` counts the cycles, as a register that takes over when the clock rises."""
    for cycle in range(cycles):
        state = "READ" if cycle + 2 >= cycles else "IDLE"
        text += f"#{10 * cycle + 5}\n1!\nb{cycle + 1:b} a\n{cycle & 1}b\n{cycle & 1}t\ns{state} name:s\n"
        text += f"#{10 * cycle + 10}\n0!\n"
    path.write_text(text)
    return path


def test_the_last_cycles_as_the_clock_rises_at_their_end(tmp_path: Path) -> None:
    """What a register takes over with the edge is of the next cycle."""
    waves = read_waves(vcd(tmp_path / "a.vcd", 4), "a.vcd")
    rows = {row.name: row for row in waves.rows}
    assert (waves.first, waves.cycles, waves.left_out) == (0, 4, 0)
    assert rows["port"].values == ("0", "1", "2", "3") and not rows["port"].bit
    assert rows["core.valid"] == Row("core.valid", "", ("0", "0", "1", "0"), True)
    many = read_waves(vcd(tmp_path / "a.vcd", 300), "a.vcd")
    assert (many.first, many.cycles) == (300 - CYCLES, CYCLES)
    assert many.rows[1].values == tuple(f"{n:x}" for n in range(300 - CYCLES, 300))


def test_what_is_shown(tmp_path: Path) -> None:
    """Names instead of numbers, and first; nothing that stays, and nothing that a tool named; the line further down."""
    text = HEAD + CLOCKED
    waves = read_waves(vcd(tmp_path / "a.vcd", 4, text + "#1\n1!\n#2\n0!\nsREAD name:s\n"), "a.vcd")
    assert [row.name for row in waves.rows] == ["core.state_name", "port", "core.valid"]
    assert [row.source for row in waves.rows] == ["rtl/nosuch.py:3", f"rtl/walker.py:{LINE}", ""]
    assert waves.rows[0].runs() == [(0, 1, "IDLE"), (1, 1, "READ"), (2, 2, "IDLE"), (4, 1, "READ")]
    (excerpt,) = excerpts([waves])
    assert excerpt.place == f"rtl/walker.py:{LINE}"
    assert [number for number, _, meant in excerpt.lines if meant] == [LINE]
    assert len(excerpt.lines) == 2 * AROUND + 1 and "def elaborate" in excerpt.lines[AROUND][1]


def test_the_same_wires_are_shown_once(tmp_path: Path) -> None:
    """Those further down tell the line; of another value they stay."""
    more = f"$var wire 1 c valid$7 $end\n$comment src rtl/walker.py:{LINE} $end\n$var wire 1 d valid $end\n"
    path = vcd(tmp_path / "a.vcd", 3, HEAD.replace("$upscope", f"{more}$upscope", 1) + CLOCKED)
    text = path.read_text()
    for value in "01":
        text = text.replace(f"\n{value}b\n", f"\n{value}b\n{value}c\n{1 - int(value)}d\n")
    path.write_text(text)
    rows = [row for row in read_waves(path, "a.vcd").rows if "valid" in row.name]
    assert [(row.name, row.source, row.values) for row in rows] == [
        ("core.valid", f"rtl/walker.py:{LINE}", ("0", "0", "1")),
        ("core.valid", "", ("1", "1", "0")),
    ]


def test_more_signals_than_fit(tmp_path: Path) -> None:
    more = "".join(f"$var wire 1 x{n} x{n} $end\n" for n in range(MOST))
    head = HEAD.replace("$upscope", f"{more}$upscope", 1)
    path = vcd(tmp_path / "a.vcd", 3, head + CLOCKED)
    path.write_text(path.read_text() + "#90\n1!\n#95\n0!\n" + "".join(f"1x{n}\n" for n in range(MOST)) + "#99\n1!\n")
    waves = read_waves(path, "a.vcd")
    assert len(waves.rows) == MOST and waves.left_out == 3


def test_a_counterexample_has_steps(tmp_path: Path) -> None:
    """Its values are those of the step, as it begins."""
    text = "$scope module top $end\n$var integer 32 t smt_step $end\n$var wire 3 a it $end\n$upscope $end\n"
    text += "$enddefinitions $end\n#0\nb0 t\nb1 a\n#10\nb1 t\nb101 a\n#20\nb10 t\nbx a\n"
    (tmp_path / "p.vcd").write_text(text)
    waves = read_waves(tmp_path / "p.vcd", "p.vcd")
    assert [(row.name, row.values) for row in waves.rows] == [("it", ("1", "5", "x"))]


def test_they_are_in_the_page(tmp_path: Path) -> None:
    (tmp_path / "waves" / "x").mkdir(parents=True)
    vcd(tmp_path / "waves" / "x" / "dump.vcd", 30)
    page = render(read_results(tmp_path))
    assert "waves/x/dump.vcd: cycles 6 to 29" in page and f'<a href="#rtl/walker.py:{LINE}">' in page
    assert f'id="rtl/walker.py:{LINE}"' in page and "def elaborate" in page
    assert 'aria-label="core.state_name: ' in page and "rtl/nosuch.py" not in page


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no \\$enddefinitions"),
        (HEAD.replace(" clk ", " clock ") + CLOCKED, "no signal is named clk"),
        ("$upscope $end\n", "pop from empty list"),
        (HEAD[:-1] + "\n#1\n1!\n", ""),
    ],
)
def test_what_is_no_vcd_is_one_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "a.vcd"
    path.write_text(text)
    if not why:
        assert read_waves(path, "a").cycles == 0  # one that was cut off
        return
    with pytest.raises(ToolError, match=rf"a\.vcd: it is no VCD with a clock: {why}; take it out of the folder"):
        read_waves(path, "a")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ToolError, match="it is no VCD"):
        read_waves(path, "a")
