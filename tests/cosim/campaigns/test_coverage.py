"""`ptewalk coverage`: what the chunks of a campaign met, and the nearest to what they did not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.campaigns.coverage import coverage_of
from ptewalk.cosim.campaigns.kinds import BATCH
from ptewalk.cosim.checks.covered import BIN
from ptewalk.rtl.walker_bins import WALKER

PROGRAM = Path(sys.executable).with_name("ptewalk")
PART = {"name": "w", "kind": "walks", "count": 30 * BATCH, "seed": 3, "options": {}}
ALL = {BIN.join((cross.name, *values)): 1 for cross in WALKER for values in cross.wanted()}


def kept(folder: Path, *chunks: Mapping[str, int], part: Mapping[str, Any] = PART) -> Path:
    """A campaign's folder with what these chunks met; its last line is cut off."""
    lines = [json.dumps({"plan": [part], "models": []})]
    lines += [json.dumps([number, {"bins": dict(bins)}]) for number, bins in enumerate(chunks)]
    (folder / "chunks.jsonl").write_text("\n".join(lines) + '\n[2, {"bins": {"answer/O')
    return folder


def told(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), "coverage", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_all_was_met(tmp_path: Path) -> None:
    half = dict(list(ALL.items())[::2])
    found = coverage_of(kept(tmp_path, half, {name: 1 for name in ALL if name not in half}))
    assert [one.cross for one in found] == list(WALKER)
    assert sum(one.met for one in found) == sum(one.bins for one in found) == len(ALL)
    assert not any(one.gaps or one.surprises for one in found)


def test_a_gap_is_named_with_the_chunk_that_came_nearest(tmp_path: Path) -> None:
    """It met most of the bins that share all values but one with it."""
    gone = "answer/KEY/3/RMW"
    rest = {name: count for name, count in ALL.items() if name != gone}
    fewer = {name: 1000 for name in rest if name != "answer/KEY/2/RMW"}  # more often, but one less
    found = coverage_of(kept(tmp_path, fewer, rest))
    assert [(gap.name, gap.nearest and gap.nearest[1]) for one in found for gap in one.gaps] == [(gone, 1)]
    assert found[0].met == found[0].bins - 1


def test_what_is_excluded_and_met_is_told(tmp_path: Path) -> None:
    found = coverage_of(kept(tmp_path, ALL | {"answer/OK/5/READ": 1}))
    assert found[0].surprises == ("answer/OK/5/READ",)


@pytest.mark.thorough
def test_the_command_says_it_and_fails(tmp_path: Path) -> None:
    done = told(kept(tmp_path, ALL))
    assert (done.returncode, done.stderr) == (0, "") and "not met: " not in done.stdout
    gone = {name: count for name, count in ALL.items() if name != "overtaken/4/key"}
    done = told(kept(tmp_path, gone | {"swap/5/D/done": 2}))
    assert done.returncode == 1
    assert "not met: overtaken/4/key; nearest: part w, chunk 0, seed 3" in done.stdout
    assert "met although it is excluded: swap/5/D/done" in done.stdout
    rows = json.loads(told(tmp_path, "--json").stdout)["coverage"]
    assert [row["cross"] for row in rows] == [cross.name for cross in WALKER]
    assert rows[4]["gaps"] == [{"bin": "overtaken/4/key", "nearest": {"part": "w", "chunk": 0}}]


def test_what_is_no_campaign_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="No such file or directory; name the folder of a campaign"):
        coverage_of(tmp_path)
    (tmp_path / "chunks.jsonl").write_text("[]\n")
    with pytest.raises(ToolError, match="no chunks of a campaign of this version; name its folder"):
        coverage_of(tmp_path)
    for bins in ({"swap/1//done": 1}, {"answer/OK/7/READ": 1}):
        with pytest.raises(ToolError, match="is no bin of walks; it is of another version: run it anew"):
            coverage_of(kept(tmp_path, bins))
    for line in ("[7, {}]", '[-1, {"bins": {}}]', "[0, {}]", '[0, {"bins": null}]', '[0, {"bins": {"a": []}}]'):
        kept(tmp_path)
        with (tmp_path / "chunks.jsonl").open("a") as file:
            file.write("\n" + line + "\n")
        with pytest.raises(ToolError, match="no chunks of a campaign of this version"):
            coverage_of(tmp_path)
    for part in (PART | {"kind": "nosuch"}, PART | {"count": "many"}):
        with pytest.raises(ToolError, match="no chunks of a campaign of this version"):
            coverage_of(kept(tmp_path, {}, part=part))
    with (kept(tmp_path, ALL) / "chunks.jsonl").open("a") as file:
        file.write("\n1")  # cut off
    assert coverage_of(tmp_path)[0].met
    scenarios = PART | {"kind": "scenarios"}
    with pytest.raises(ToolError, match="counts bins: have one of kind accesses, bus, engine, walks in its plan"):
        coverage_of(kept(tmp_path, {}, part=scenarios))


@pytest.mark.slow
def test_of_a_campaign(tmp_path: Path) -> None:
    """Two chunks of random walks: most is met, and what is excluded is not."""
    plan = tmp_path / "few.toml"
    plan.write_text('seed = 3\n[[part]]\nname = "w"\nkind = "walks"\ncount = 24_000\n')
    command = [str(PROGRAM), "campaign", str(plan), "--output", str(tmp_path / "out"), "--json"]
    result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout)
    met = result["parts"][0]["bins"]
    rows = json.loads(told(tmp_path / "out", "--json").stdout)["coverage"]
    assert sum(row["met"] for row in rows) == len(met)
    assert [row["surprises"] for row in rows] == [[]] * len(WALKER)
    assert sum(row["met"] for row in rows) > 0.85 * sum(row["bins"] for row in rows) > 450
