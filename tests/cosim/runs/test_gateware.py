"""The gateware in both simulators against the golden model, and against what real engines answered."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ptewalk.cosim.base.errors import ToolError
from ptewalk.cosim.formats.samples import WALKS
from ptewalk.cosim.formats.walks import read_walks, spread
from ptewalk.cosim.runs.gateware import LATENCIES, BuiltWalker, WalkerLibrary
from ptewalk.cosim.runs.plans import walks_plan
from ptewalk.cosim.runs.walks import walk_chunks
from ptewalk.cosim.simulate.find import detect
from ptewalk.rtl.export import Config
from ptewalk.rtl.mmu import MmuConfig
from ptewalk.rtl.walker import WalkerConfig

pytestmark = pytest.mark.slow

OUTCOMES = {"OK", "PAGE_FAULT", "GENERAL_PROTECTION", "BUS_ERROR"}
TRIES = 3


def built(simulator: str, config: Config | None = None) -> BuiltWalker:
    if simulator not in {found.name for found in detect()}:
        pytest.skip(f"{simulator} was not found")
    return BuiltWalker.make(simulator, config)


def agrees(result: dict[str, Any], walks: int) -> None:
    """Everything was compared, nothing differs, and the second writer was felt."""
    assert result["failure"] == ""
    assert (result["comparisons"], result["mismatches"]) == (walks, 0)
    assert result["failed_swaps"] > 0
    assert result["foreign_writes"] > 0
    assert {name for name, count in result["outcomes"].items() if count} == OUTCOMES
    assert sum(result["outcomes"].values()) == walks
    assert result["words"] > 512 * walks


def test_random_walks_on_verilator() -> None:
    """100,000 walks at the batch level, in every way to track, while a second writer changes entries."""
    result = built("verilator").randomised(20_000, 20261123, "see the test")
    agrees(result, 20_000)
    assert result["rate"]["walks"] == 20_000
    assert result["failed_swaps"] > 200


def test_random_walks_on_the_library(tmp_path: Path) -> None:
    """100,000 walks under every condition, in two processes; a second run takes all from the journal."""
    library = WalkerLibrary.make()
    chunks = walks_plan(20261123, 100_000, 2000)
    journal = tmp_path / "walks.jsonl"
    counts = walk_chunks(library, chunks, "see the test", jobs=2, journal=journal)
    assert counts.ok and counts.comparisons == 100_000
    for name in ("failed_swaps", "drains", "lost_faults"):
        assert counts[name] > 1000, name
    assert counts["events"] > 300_000
    assert counts["traced"] > 200_000
    whole = journal.read_text()
    journal.write_text(whole[:-20])  # the last chunk's line is cut off, as by an interruption
    asked: list[tuple[int, int]] = []
    again = walk_chunks(library, chunks, "see the test", journal=journal, progress=lambda *told: asked.append(told))
    assert again == counts
    assert asked == [(49, 50), (50, 50)]
    with pytest.raises(ToolError, match="is of another run"):
        walk_chunks(library, chunks[:-1], "see the test", journal=journal)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(WalkerConfig(), id="walker"),
        pytest.param(MmuConfig(), id="mmu"),
        pytest.param(WalkerConfig(soft_dirty=False), id="no-soft-dirty"),
        pytest.param(WalkerConfig(levels=4), id="4-levels"),
        pytest.param(WalkerConfig(physical_bits=52), id="52-bits"),
        pytest.param(WalkerConfig(physical_bits=36), id="36-bits"),
        pytest.param(WalkerConfig(gigabyte_pages=False), id="no-1G"),
        pytest.param(WalkerConfig(tag_bits=12, trace=False), id="12-bit-tags"),
    ],
)
def test_random_walks_of_each_configuration(config: Config) -> None:
    agrees(built("icarus", config).randomised(300, 1, "see the test"), 300)


def test_batch_level_is_fifty_times_the_protocol_level() -> None:
    """The simulation alone is measured; beside other work, the best of some tries counts."""
    best = 0.0
    for number in range(TRIES):
        rates = {}
        for protocol, walks in ((False, 20_000), (True, 600)):
            result = built("verilator").randomised(walks, 2 + number, "see the test", protocol=protocol)
            assert (result["failure"], result["rate"]["walks"]) == ("", walks)
            rates[protocol] = walks / result["rate"]["seconds"]
        best = max(best, rates[False] / rates[True])
        if best >= 50:
            break
    assert best >= 50


def test_recorded_walks_on_verilator() -> None:
    """What four engines agreed on, all of it."""
    tally = built("verilator").recorded(WALKS)
    assert (tally["cases"], tally["agree"], tally["differ"], tally["skipped"]) == (3000, 3000, 0, 0)


def test_recorded_walks_under_conditions_on_the_library() -> None:
    tally = WalkerLibrary.make().recorded(WALKS, seed=3)
    assert (tally["cases"], tally["agree"], tally["differ"], tally["skipped"]) == (3000, 3000, 0, 0)
    assert tally["events"] > 10_000


def test_recorded_walks_on_icarus() -> None:
    cases = read_walks(WALKS)
    chosen = spread(cases, 320)
    families = Counter(cases[index].family for index in chosen)
    assert families.keys() == {case.family for case in cases}
    assert min(families.values()) >= 20
    tally = built("icarus").recorded(WALKS, chosen)
    assert (tally["agree"], tally["differ"], tally["skipped"]) == (320, 0, 0)


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
def test_cycles(simulator: str) -> None:
    """4L + 2 and 5L + 2 at every latency; the first write after a clear costs a fault, or one swap of L + 1 cycles."""
    rows = {(row["name"], row["latency"]): row for row in built(simulator).timed()}
    assert LATENCIES == (1, 4, 16, 40)
    for latency in LATENCIES:
        for name, levels in (("walk4", 4), ("walk5", 5)):
            row = rows[name, latency]
            assert (row["cycles"], row["outcome"], row["swaps"]) == (levels * latency + 2, "OK", 0)
            assert row["target"] == levels * latency + 2
        refused = rows["first write after clear: off", latency]
        assert (refused["cycles"], refused["outcome"], refused["swaps"]) == (4 * latency + 2, "PAGE_FAULT", 0)
        for track in ("fault", "native"):
            marked = rows[f"first write after clear: {track}", latency]
            assert (marked["cycles"], marked["outcome"], marked["swaps"]) == (5 * latency + 3, "OK", 1)


@pytest.mark.parametrize("simulator", ["verilator", "icarus"])
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("o", ["PF", 0x1234], "expected PF 0x1234, seen "),
        ("o", ["GP"], "expected GP, seen "),
        ("ad", [0, 0, 0, 64], "entry at 0x"),
    ],
)
def test_a_wrong_expectation_differs(simulator: str, key: str, value: Any, says: str, tmp_path: Path) -> None:
    """The check can fail: one recording of twenty is falsified, and that one differs."""
    with gzip.open(WALKS, "rt") as stream:
        lines = [json.loads(line) for line in stream]
    lines = [line for line in lines if line["o"][0] == "OK" and line["k"] == "R" and len(line["e"]) == 4][:20]
    for line in lines:
        assert len(line["ad"]) == 4 and line["ad"] != value and line["o"] != value
    lines[13][key] = value
    path = tmp_path / "wrong.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    tally = built(simulator).recorded(path)
    assert (tally["agree"], tally["differ"]) == (19, 1)
    assert tally["first_difference"].startswith(f"case {lines[13]['i']} ")
    assert says in tally["first_difference"]


def test_a_failure_prints_the_command_that_shows_its_waves(tmp_path: Path) -> None:
    """Repeated as printed, the batch fails again, and its waves are there."""
    program = str(Path(sys.executable).with_name("ptewalk"))
    output = ["--output", str(tmp_path / "result.json")]
    asked = ["cosim", "--only", "random", "--walks", "600", "--seed", "8", "--simulator", "icarus"]
    command = [program, *asked, *output, "--mutant", "mend-keeps-arm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("waves: "))
    words = line.removeprefix("waves: ptewalk ").split()
    again = [program, *words, "--output", str(tmp_path / "waves"), "--json"]
    done = subprocess.run(again, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["mismatches"] > 0
    assert Path(found["waves"]).stat().st_size > 10_000
