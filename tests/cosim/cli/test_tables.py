"""Tables: no word is split to fit the terminal."""

import pytest

from ptewalk.cosim.cli.common import show

ROW = {"backend": "gateware", "simulator": "verilator 5.048", "seed": 2563758012, "first_difference": None}


def test_a_table_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW, ROW | {"first_difference": "step 3: differs there"}], "replay", width=80)
    out = capsys.readouterr().out
    assert out.startswith("replay") and out.count("2563758012") == 2 and out.count("gateware") == 2
    assert "\u2502 backend" in out.replace("\u2503", "\u2502")
    assert max(map(len, out.splitlines())) <= 80


def test_one_that_does_not_is_told_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    show([ROW, ROW | {"seed": 7}], "replay", width=40)
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "replay",
        "backend           gateware",
        "simulator         verilator 5.048",
        "seed              2563758012",
        "first difference",
        "",
        "backend           gateware",
        "simulator         verilator 5.048",
        "seed              7",
        "first difference",
        "",
    ]


def test_a_path_may_be_folded(capsys: pytest.CaptureFixture[str]) -> None:
    show([{"file": "a/" * 60, "seed": 1}], width=60)
    out = capsys.readouterr().out
    assert "seed" in out and max(map(len, out.splitlines())) <= 60
