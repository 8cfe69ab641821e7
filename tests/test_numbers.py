"""docs/numbers.md: its sizes are those of the committed baseline, and its commands print what it says they do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median

import pytest

from ptewalk.cosim.cli.main import commands

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "numbers.md").read_text()
ROWS = [line.strip("| ").split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and "?" in line]


@pytest.mark.parametrize("name", ["walker", "mmu"])
def test_sizes_are_the_baselines(name: str) -> None:
    then = json.loads((ROOT / "cosim" / "fpga" / "baseline.json").read_text())[name]
    (answer,) = (row[1] for row in ROWS if row[2] == f"`ptewalk synth --config {name} --seeds 3`")
    fmax = median(then["fmax_of_seeds"])
    assert answer.startswith(f"{then['lut4']:,} LUT4, {then['ff']:,} flip-flops; {fmax} MHz ")


def test_every_row_names_what_prints_it_and_where_more_is_told() -> None:
    assert len(ROWS) > 10
    for question, _, printed, more in ROWS:
        assert re.fullmatch(r"`(ptewalk \w+.*|make mutants)`", printed), question
        assert "](" in more, question
    measured = {"cycles", "synth", "bench", "cosim", "replay", "kernels", "accuracy", "prove"}
    assert measured <= {row[2].split()[1].strip("`") for row in ROWS} and measured <= commands.commands.keys()
